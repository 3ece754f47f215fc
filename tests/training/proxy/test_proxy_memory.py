"""Memory that a decoder may take where there is no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from children import exit_code, in_child
from proxy_tools import small_spec, text
from torch import nn

from nasdsl.training.proxy import OutOfMemory, ProxyTask, memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
CPU = torch.device("cpu")
GIB = 2**30


@linux
def test_more_than_is_free_is_refused_and_the_limit_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "available", lambda: GIB // 4)
    with memory.bounded(memory.limit_now(CPU)):
        torch.empty(GIB // 8, dtype=torch.uint8).fill_(1)
        with pytest.raises(RuntimeError, match="allocate memory"):
            torch.empty(GIB, dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    torch.empty(GIB, dtype=torch.uint8)  # promised, and never used
    assert memory.limit_now(torch.device("meta")) is None  # drivers of GPUs reserve more than they use
    with memory.bounded(None):
        torch.empty(GIB, dtype=torch.uint8)


@linux
def test_a_decoder_that_needs_more_than_is_free_gets_a_verdict_and_the_next_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ProxyTask(small_spec(), quiet=True)(text()).reward
    monkeypatch.setattr(memory, "available", lambda: GIB // 4)
    task = ProxyTask(small_spec(), quiet=True)
    monkeypatch.setattr(memory, "available", None)  # it is asked for once
    assert task(text()).reward == expected
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x) + torch.empty(GIB, dtype=torch.uint8)[0])
    with pytest.raises(OutOfMemory, match=r"not enough memory for batches of 3 crops of 96x96: .*allocate memory"):
        task(text())
    monkeypatch.undo()
    assert task(text()).reward == expected


@linux
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    def faults(keep: bool) -> int:
        """Pages that the system has to hand out for the same 40 MiB, ten times."""
        import resource

        import torch

        from nasdsl.training.proxy import memory

        if keep and not memory.keep_freed(torch.device("cpu")):
            raise SystemExit(3)
        torch.ones(10 * 2**20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(10 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def check() -> None:
        given_back, kept = faults(False), faults(True)  # in this order: it is for good
        assert given_back > 10_000, given_back
        assert kept < given_back / 3, (kept, given_back)  # it may take a second place before it comes back to the first

    assert exit_code(in_child(check)) == 0


@linux
def test_what_is_free() -> None:
    free = memory.available()
    assert free is not None
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert 0 < free <= total * 1024


def test_what_a_control_group_has_left(tmp_path: Path) -> None:
    assert memory._left_in(tmp_path, 77) == 77
    for limit, expected in (("max", 77), ("1000", 1000 - 600 + 150), ("100", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("600\n")
        (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 150\nactive_file 90\n")
        assert memory._left_in(tmp_path, 77) == expected
