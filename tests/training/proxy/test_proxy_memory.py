"""Memory limits without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from children import exit_code, in_child
from proxy_tools import small_spec, text
from torch import nn

from nasdsl.training.proxy import OutOfMemory, ProxyTask, memory
from nasdsl.training.proxy.errors import translate_errors

linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
CPU = torch.device("cpu")
GIB = 2**30
TOO_MUCH = 16 * GIB
"""More than this process can have retained from other tests, see `memory.retain_freed_memory`."""


@linux
def test_allocations_beyond_the_free_memory_fail_within_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(memory, "available_memory", lambda: GIB // 4)
    with memory.limit_memory(memory.current_limit(CPU)):
        torch.empty(GIB // 8, dtype=torch.uint8).fill_(1)
        with pytest.raises(RuntimeError, match="allocate memory"):
            torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    torch.empty(GIB, dtype=torch.uint8)  # never written to, so the system does not have to provide it
    assert memory.current_limit(torch.device("meta")) is None  # drivers of GPUs reserve more than they use
    with memory.limit_memory(None):
        torch.empty(GIB, dtype=torch.uint8)


@linux
def test_a_decoder_that_runs_out_of_memory_raises_and_the_next_one_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ProxyTask(small_spec(), quiet=True)(text()).reward
    monkeypatch.setattr(memory, "available_memory", lambda: GIB // 4)
    task = ProxyTask(small_spec(), quiet=True)
    monkeypatch.setattr(memory, "available_memory", None)  # it is called once
    assert task(text()).reward == expected
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: forward(self, x) + torch.empty(TOO_MUCH, dtype=torch.uint8)[0])
    with pytest.raises(OutOfMemory, match=r"not enough memory for batches of 3 crops of 96x96: .*allocate memory"):
        task(text())
    monkeypatch.undo()
    assert task(text()).reward == expected


def test_memory_of_a_gpu_that_ran_out_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    with (
        pytest.raises(OutOfMemory, match=r"^not enough memory for batches of 3: CUDA out of memory$"),
        translate_errors("batches of 3"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert freed == [True]


@linux
@pytest.mark.long
def test_retained_memory_is_reused() -> None:
    def faults(keep: bool) -> int:
        """Page faults of allocating the same 40 MiB ten times."""
        import resource

        import torch

        from nasdsl.training.proxy import memory

        if keep and not memory.retain_freed_memory(torch.device("cpu")):
            raise SystemExit(3)
        torch.ones(10 * 2**20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(10 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def check() -> None:
        returned, retained = faults(False), faults(True)  # in this order: it cannot be undone
        assert returned > 10_000, returned
        assert retained < returned / 3, (retained, returned)  # an allocation may move once before it stays at one address

    assert exit_code(in_child(check)) == 0


@linux
def test_available_memory() -> None:
    free = memory.available_memory()
    assert free is not None
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert 0 < free <= total * 1024


def test_where_memory_is_not_known_there_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  12 kB\n")
    assert memory._read_kilobytes(tmp_path / "status", "VmRSS") == 12 * 1024
    with pytest.raises(KeyError):
        memory._read_kilobytes(tmp_path / "status", "VmHWM")
    for error in (KeyError("MemAvailable"), FileNotFoundError("/proc/meminfo")):

        def unknown(file: Path, name: str, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(memory, "_read_kilobytes", unknown)
        assert memory.available_memory() is None
        assert memory.current_limit(CPU) is None
        assert (memory.resident_memory(), memory.peak_memory()) == (None, None)


@linux
def test_a_lower_limit_of_the_process_stays() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    lower = 2**46
    resource.setrlimit(resource.RLIMIT_DATA, (lower, before[1]))
    try:
        with memory.limit_memory(2 * lower):
            assert resource.getrlimit(resource.RLIMIT_DATA) == (lower, before[1])
        with memory.limit_memory(lower - 1):
            assert resource.getrlimit(resource.RLIMIT_DATA) == (lower - 1, before[1])
        assert resource.getrlimit(resource.RLIMIT_DATA) == (lower, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_memory_left_in_a_control_group(tmp_path: Path) -> None:
    assert memory._left_in(tmp_path, 77) == 77
    for limit, expected in (("max", 77), ("1000", 1000 - 600 + 150), ("100", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("600\n")
        (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 150\nactive_file 90\n")
        assert memory._left_in(tmp_path, 77) == expected
