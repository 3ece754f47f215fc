"""The table of measured parts: one JSON file for all runtimes of a machine, that several processes fill. Without torch.

Times are kept relative to a reference, a fixed small network that is timed beside each part, so that a machine that is busier
or hotter at one time than at another adds the same error to both.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock

from nasdsl.files import read_json, write_json
from nasdsl.latency.session import LatencyError, MissingRuntime
from nasdsl.machine import cpu_name
from nasdsl.semantics.elaborate import RUNTIMES

FORMAT = 1
"""Changes when old tables cannot be read, or parts are written or timed in another way."""

CORRECTED_FROM = 8
"""Whole detectors that a correction needs."""

MAX_REFERENCES = 200
"""Times of the reference that are kept."""

_DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",), "torch": ("torch",)}


@dataclass(frozen=True)
class Context:
    """What times are for: they are never mixed.

    Attributes:
        runtime: one of `RUNTIMES`.
        version: of the runtime.
        threads: of the CPU.
        cpu: its name.
    """

    runtime: str
    version: str
    threads: int
    cpu: str

    @classmethod
    def here(cls, runtime: str, threads: int) -> Context:
        """The context of this machine.

        Raises:
            LatencyError: there is no such runtime, or it is not installed.
        """
        if runtime not in RUNTIMES:
            raise LatencyError(f"unknown runtime {runtime!r}; expected {', '.join(RUNTIMES)}")
        if threads < 1:
            raise LatencyError(f"{threads} threads; expected 1 or more")
        for name in _DISTRIBUTIONS[runtime]:
            try:
                return cls(runtime, metadata.version(name), threads, cpu_name())
            except metadata.PackageNotFoundError:
                continue
        raise MissingRuntime(f"this needs the package {runtime}: pip install 'nasdsl[{runtime}]'")

    def __str__(self) -> str:
        return f"{self.runtime} {self.version} on cpu, {self.threads} {'thread' if self.threads == 1 else 'threads'}"


@dataclass(frozen=True)
class Correction:
    """How times of whole detectors follow from the sums of their parts' times.

    ``time = factor * sum + constant``, fitted to whole detectors that were measured beside their prediction. In the rounds of a
    part its maps and weights are in the processor's caches, which in a whole detector they often are not.

    Attributes:
        factor, constant: see above; all times are in reference times.
        detectors: number of detectors that it was fitted to.
        error_before, error_after: median over them of the prediction's error, as a share, without and with the correction.
    """

    factor: float
    constant: float
    detectors: int
    error_before: float
    error_after: float

    def apply(self, total: float) -> float:
        return self.factor * total + self.constant


def fit_correction(sums: Sequence[float], measured: Sequence[float]) -> Correction:
    """The correction of sums of parts to measured times of whole detectors.

    Theil and Sen's line: the median of the slopes between two detectors, and the median of the rests. One bad measurement
    does not move it.

    Args:
        sums, measured: of each detector, in reference times.

    Raises:
        ValueError: there are no two different sums.
    """
    pairs = list(zip(sums, measured, strict=True))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(pairs) for b in pairs[i + 1 :] if a[0] != b[0]]
    if not slopes:
        raise ValueError("a correction needs detectors of two different times or more")
    factor = statistics.median(slopes)
    constant = statistics.median(y - factor * x for x, y in pairs)
    before = statistics.median(abs(x / y - 1) for x, y in pairs)
    after = statistics.median(abs((factor * x + constant) / y - 1) for x, y in pairs)
    return Correction(factor, constant, len(pairs), before, after)


@dataclass(frozen=True)
class Times:
    """What the table has for a context.

    Attributes:
        reference: milliseconds of the reference; None before the first measurement.
        relative: time of each part in reference times, by its key.
        correction: of sums; None if none was fitted.
    """

    reference: float | None = None
    relative: Mapping[str, float] = field(default_factory=dict)
    correction: Correction | None = None

    def milliseconds(self, key: str) -> float | None:
        """Time of a part; None if it was not measured."""
        relative = self.relative.get(key)
        return None if relative is None or self.reference is None else relative * self.reference


_Read: TypeAlias = tuple[tuple[int, int, int], dict[str, Any]]


class Table:
    """A table file. Reading needs no lock: the file is replaced as a whole.

    Args:
        path: of the file; it need not exist, nor its folder. None: `default_path()`.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_path() if path is None else Path(path)
        self._read: _Read | None = None
        self._times: dict[Context, Times] = {}

    def times(self, context: Context) -> Times:
        """The times of a context, as the file has them now.

        Raises:
            LatencyError: the file is no table.
        """
        content = self._content()
        if context not in self._times:
            entry = _entry(content, context)
            correction = entry.get("correction")
            try:
                self._times[context] = Times(
                    statistics.quantiles(entry["references"], n=4, method="inclusive")[0] if entry["references"] else None,
                    {key: float(found["relative"]) for key, found in entry["parts"].items()},
                    Correction(**correction) if correction else None,
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise LatencyError(f"{self.path} is a broken table of latencies ({error!r}); delete it") from None
        return self._times[context]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from measuring for the same table, which would disturb both."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            yield

    def add(self, context: Context, relative: Mapping[str, float], references: Sequence[float]) -> None:
        """Add times of parts; within `lock`.

        Args:
            relative: in reference times, by key.
            references: milliseconds of the reference meanwhile, at least two.
        """

        def change(entry: dict[str, Any]) -> None:
            entry["references"] = [*entry["references"], *(round(ms, 5) for ms in references)][-MAX_REFERENCES:]
            entry["parts"].update({key: {"relative": round(value, 6)} for key, value in relative.items()})

        self._change(context, change)

    def add_detector(self, context: Context, name: str, total: float, measured: float) -> None:
        """Add a whole detector that was measured, and fit the correction if there are `CORRECTED_FROM` or more; within `lock`.

        Args:
            name: of the detector and what it was measured for: an earlier one of this name is replaced.
            total: sum of its parts' times, in reference times.
            measured: its time, in reference times.
        """

        def change(entry: dict[str, Any]) -> None:
            entry["detectors"][name] = {"sum": round(total, 6), "measured": round(measured, 6)}
            found = list(entry["detectors"].values())
            sums = [one["sum"] for one in found]
            if len(found) >= CORRECTED_FROM and len(set(sums)) > 1:
                entry["correction"] = asdict(fit_correction(sums, [one["measured"] for one in found]))

        self._change(context, change)

    def _change(self, context: Context, change: Callable[[dict[str, Any]], object]) -> None:
        content = self._content()
        entry = _entry(content, context)
        if not any(entry is one for one in content["contexts"]):
            content["contexts"].append(entry)
        change(entry)
        reference = statistics.quantiles(entry["references"], n=4, method="inclusive")[0] if entry["references"] else 0.0
        entry["reference_milliseconds"] = round(reference, 5)
        for found in entry["parts"].values():  # for other readers of the file
            found["milliseconds"] = round(found["relative"] * reference, 5)
        write_json(self.path, content)

    def _content(self) -> dict[str, Any]:
        """The file's content, read again when the file has changed."""
        try:
            state = os.stat(self.path)
            stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
            if self._read is None or self._read[0] != stamp:
                self._times = {}
                self._read = stamp, _checked(read_json(self.path))
        except FileNotFoundError:
            self._times = {}
            return {"format": FORMAT, "contexts": []}
        except (ValueError, TypeError, KeyError) as error:
            raise LatencyError(f"{self.path} is no table of latencies ({error}); delete it, or name another file") from None
        return self._read[1]


def default_path() -> Path:
    """The table of this user: ``nasdsl/latency.json`` in the folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "nasdsl" / "latency.json"


def _checked(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get("contexts"), list):
        raise ValueError("it has no contexts")
    if not all(isinstance(entry, dict) for entry in content["contexts"]):
        raise ValueError("a context of it is not an object")
    if content.get("format") != FORMAT:
        raise ValueError(f"its format is {content.get('format')}, expected {FORMAT}")
    return content


def _entry(content: dict[str, Any], context: Context) -> dict[str, Any]:
    """The entry of a context; an empty one, which is not in the content, if there is none."""
    wanted = asdict(context)
    for entry in content["contexts"]:
        if entry.get("context") == wanted:
            found: dict[str, Any] = entry
            return found
    return {
        "context": wanted, "reference_milliseconds": None, "references": [], "correction": None, "detectors": {}, "parts": {},
    }  # fmt: skip
