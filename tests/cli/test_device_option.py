"""A device that is not there is a line, in every command that has `--device`."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import torch
from in_process import refused

from nasdsl.cli import cli
from nasdsl.machine import device_problem

SMALL = "--data shapes:8 --backbone tiny --width 32"
COMMANDS = {
    "train": f"train zoo:fcos {SMALL} --recipe quick --out new",
    "eval": "eval RUN --data shapes:2",
    "detect": "detect RUN --data shapes:2 -o new",
    "latency": "latency RUN --rounds 3",
    "latency of a decoder": "latency zoo:fcos --backbone tiny --size 64x64 --rounds 3",
    "search": f"search zoo:nas_fcos_fpn {SMALL} --out new",
    "search, a supernet": f"search zoo:nas_fcos_fpn {SMALL} --out new --evaluate supernet",
    "search, estimate": f"search zoo:nas_fcos_fpn {SMALL} --out new --estimate",
}
BY_ITS_SEARCH = {"worker"}
"""Commands that look for the device when a search comes."""

ABSENT = [
    pytest.param("cuda", "torch sees no GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")),
    ("cuda:99", "torch sees "),
    pytest.param("mps", "it is a Mac's GPU", marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is one")),
    ("gpu", "expected cpu, cuda, cuda:1 or mps"),
]


def test_every_command_is_here() -> None:
    with_device = (
        {name for name, command in cli.commands.items() if any("--device" in option.opts for option in command.params)}
        if isinstance(cli, click.Group)
        else set()
    )
    assert with_device == {command.split()[0] for command in COMMANDS.values()} | BY_ITS_SEARCH


@pytest.mark.parametrize(("device", "reason"), ABSENT)
@pytest.mark.parametrize(
    "command", [c if c != "search, estimate" else pytest.param(c, marks=pytest.mark.long) for c in COMMANDS]
)
def test_a_device_that_is_not_there(
    command: str, device: str, reason: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(run) if word == "RUN" else word for word in COMMANDS[command].split()]
    last = refused(*arguments, "--device", device).splitlines()[-1]
    assert last.startswith(f"nasdsl: device '{device}' cannot be used: {reason}")
    assert len(last) < 120
    assert not (tmp_path / "new" / "model.pt").exists()


def test_gpus_are_counted_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, known, unknown in ((1, ("cuda", "cuda:0"), "cuda:1"), (2, ("cuda", "cuda:1"), "cuda:2")):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert [device_problem(name) for name in known] == [None, None]
        seen = f"torch sees {count} GPU{'s' * (count > 1)}, the first is cuda:0"
        assert device_problem(unknown) == f"device '{unknown}' cannot be used: {seen}"
