"""Checkpoints: atomic saving, damaged files, hostile files."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from children import exit_code, in_fork

from nasdsl.files import unfinished_path
from nasdsl.training import CheckpointError, checkpoint
from nasdsl.training.checkpoint import load_checkpoint, previous_path, save_checkpoint


def state(step: int, size: int = 1000) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((size,), float(step)), "nested": {"list": [1, 2.5, None, True, (3, "x")]}}


def loaded_step(path: Path) -> int:
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert torch.equal(loaded.state["weights"], state(loaded.state["step"], len(loaded.state["weights"]))["weights"])
    return int(loaded.state["step"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


def test_round_trip_and_previous_checkpoint(path: Path) -> None:
    assert load_checkpoint(path) is None
    for step in (1, 2, 3):
        save_checkpoint(path, state(step))
    assert loaded_step(path) == 3
    assert load_checkpoint(path).state["nested"] == state(3)["nested"]  # type: ignore[union-attr]
    assert loaded_step(previous_path(path)) == 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("function", ["os.link", "os.replace", "os.fsync", "torch.save"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_at_any_call_keeps_a_checkpoint(
    path: Path, function: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(path, state(1))
    save_checkpoint(path, state(2))
    module, name = function.split(".")
    real, calls = getattr({"os": os, "torch": torch}[module], name), []

    def fails(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            if name == "save":
                args[1].write(b"half of it")
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr({"os": os, "torch": torch}[module], name, fails)
        try:
            save_checkpoint(path, state(3))
        except KeyboardInterrupt:
            pass
        else:
            assert len(calls) < call  # there is no such call
    assert loaded_step(path) in (2, 3)
    save_checkpoint(path, state(4))
    assert loaded_step(path) == 4
    assert not [p for p in path.parent.iterdir() if "unfinished" in p.name]


def test_a_process_killed_while_it_saves(path: Path) -> None:
    """SIGKILL at random instants: there is always a complete checkpoint, and never an older one than before."""
    rng, step = random.Random(0), 0

    def save_without_end() -> None:
        for number in range(step + 1, 10_000_000):
            save_checkpoint(path, state(number, 50_000))

    rounds = 0
    while rounds < 12 or step <= 3:  # on a busy machine, a child may not save anything within its time
        rounds += 1
        assert rounds < 200
        child = in_fork(save_without_end)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.04))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        assert loaded_step(path) >= step
        step = loaded_step(path)


def test_a_full_disk_is_reported_and_keeps_the_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, state(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*still there"):
        save_checkpoint(path, state(2))
    assert loaded_step(path) == 1


def test_without_an_earlier_checkpoint_none_is_promised(path: Path) -> None:
    unfinished_path(path).mkdir()
    with pytest.raises(CheckpointError, match=f"^cannot write {path}: Is a directory$"):
        save_checkpoint(path, state(1))


def test_on_a_file_system_without_hard_links_the_previous_checkpoint_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        save_checkpoint(path, state(step))
    assert (loaded_step(path), loaded_step(previous_path(path))) == (3, 2)
    unfinished_path(path).mkdir()
    with pytest.raises(
        CheckpointError, match=f"^cannot write {path}: Is a directory; the checkpoint before it is still there$"
    ):
        save_checkpoint(path, state(4))
    assert loaded_step(path) == 3


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "not a checkpoint"])
def test_a_damaged_file_falls_back_to_the_previous_checkpoint(path: Path, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(path, state(step))
    data = bytearray(path.read_bytes())
    if damage == "flipped":  # one bit in the middle of the weights
        data[len(data) // 2] ^= 16
    elif damage == "not a checkpoint":
        torch.save([1, 2, 3], path)
        data = bytearray(path.read_bytes())
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(damage, data))
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert (loaded.state["step"], loaded.path) == (1, previous_path(path))
    assert loaded.problem is not None
    assert str(path) in loaded.problem

    previous_path(path).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was_run"),))


def test_loading_executes_no_code(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({"step": 1, "weights": Hostile()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    assert not Path("was_run").exists()
    torch.load(path, weights_only=False)
    assert Path("was_run").exists(), "the file was not hostile, so the test proves nothing"
