"""What the tables of `gpu.py` share: the device, times, rates, a budget of time, and tables that say what was left out."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], object]
MOST_ROUNDS, LEAST_ROUNDS = 25, 3


@dataclass
class Table:
    """A table, with a share of the time.

    Attributes:
        rows: with the same keys; values are text, numbers or None.
        left_out: what was not measured, and why.
    """

    title: str
    seconds: float
    device: torch.device
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Whether this is a trial on a CPU, in which shapes are small."""
        return self.device.type == "cpu"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.start)

    def add(self, **values: Any) -> None:
        self.rows.append(values)
        print(f"  {', '.join(f'{k} {_text(v)}' for k, v in values.items())}", file=sys.stderr, flush=True)

    @contextmanager
    def part(self, name: str) -> Any:
        """A part of the table. An error in it is noted, and the others go on: nothing is lost for one kernel that fails."""
        try:
            yield
        except Exception as error:  # of any kind: out of memory, no kernel, a wrong result
            self.left_out.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
            print(f"  failed: {self.left_out[-1]}", file=sys.stderr, flush=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def has_time(self, name: str, needed: float = 0.0) -> bool:
        """Whether there is time for a part; if not, it is noted."""
        if self.left > needed:
            return True
        self.left_out.append(f"{name}: no time")
        return False

    def markdown(self) -> str:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = [f"## {self.title}", ""]
        if self.rows:
            lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
            lines += [f"| {' | '.join(_text(row.get(column)) for column in columns)} |" for row in self.rows]
        lines += [f"\n{note}" for note in self.notes]
        if self.left_out:
            lines += ["", "Left out: " + "; ".join(self.left_out) + "."]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "seconds": round(time.monotonic() - self.start, 1),
            "rows": self.rows,
            "notes": self.notes,
            "left_out": self.left_out,
        }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(runs: Mapping[str, Run], table: Table, seconds: float) -> dict[str, float]:
    """The median time of each run, from an idle device to an idle device. Runs alternate; one that fails is left out.

    Args:
        seconds: about how long to measure, at least `LEAST_ROUNDS` rounds.
    """
    working: dict[str, Run] = {}
    for name, run in runs.items():
        with table.part(name):
            for _ in range(1 if table.small else 2):  # warm up
                run()
            synchronize(table.device)
            working[name] = run
    taken: dict[str, list[float]] = {name: [] for name in working}
    end = time.monotonic() + seconds
    for number in range(MOST_ROUNDS):
        if (number and table.small) or (number >= LEAST_ROUNDS and time.monotonic() > end):
            break
        for name, run in working.items():
            synchronize(table.device)
            start = time.perf_counter()
            run()
            synchronize(table.device)
            taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(each) for name, each in taken.items()}


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest norm of a difference, relative to the norm of what is expected."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, expected, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs)


@dataclass(frozen=True)
class Rates:
    """What the device does at best, measured: bytes a second of a copy, multiply-accumulates a second of a matrix product."""

    bytes: float
    macs: Mapping[str, float]

    def floor(self, precision: str, macs: float, moved: float = 0.0) -> float | None:
        """Milliseconds below which nothing can be: for the multiply-accumulates, or for the bytes that are moved."""
        if precision not in self.macs:
            return None
        return 1e3 * max(macs / self.macs[precision], moved / self.bytes)


def measure_rates(table: Table) -> Rates:
    from nasdsl.detection.precision import dtype_of, products_of

    device, side = table.device, 64 if table.small else 8192
    block = torch.empty((2**20 if table.small else 2**29) // 4, device=device)
    other = torch.empty_like(block)
    copy = milliseconds({"copy": lambda: other.copy_(block)}, table, 0.5)["copy"]
    macs = {}
    for precision in ("float32", "bfloat16") if table.small else ("float32", "tf32", "bfloat16", "float16"):
        with table.part(f"products in {precision}"), products_of(precision, device):  # type: ignore[arg-type]  # one of them
            a = torch.randn(side, side, device=device, dtype=dtype_of(precision))  # type: ignore[arg-type]  # one of them
            macs[precision] = side**3 / milliseconds({precision: lambda a=a: a @ a}, table, 0.5)[precision] * 1e3
    rates = Rates(2 * 4 * block.numel() / copy * 1e3, macs)
    table.add(what="copy, bytes read and written", rate=f"{rates.bytes / 1e12:.3g} TB/s")
    for precision, rate in macs.items():
        table.add(what=f"matrix product, {precision}", rate=f"{2 * rate / 1e12:.3g} TFLOP/s")
    return rates
