"""What the runtimes share: a detector that is ready to run on a batch of images, and where its time goes."""

from __future__ import annotations

import importlib
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nasdsl.backends.cost import Size
from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.files import parse_json
from nasdsl.latency.timing import Run, Timer, wall_timer

Images: TypeAlias = npt.NDArray[np.float32]
"""[N, 3, H, W], RGB, 0 to 1."""

SECTIONS = ("normalize", "backbone", "fpn", "head", "predict", "postprocess")
"""Names of the sections of a detector, with which the names of its nodes begin."""

OTHER = "other"
"""Section of the nodes whose names say none."""

PROFILED_RUNS = 10
PROFILE_WARMUP = 3


class LatencyError(ValueError):
    """A file that cannot be timed like this; the message says what to change."""


class MissingRuntime(LatencyError, ImportError):
    """The package of a runtime is not installed; the message names the extra that installs it."""


def import_runtime(name: str) -> Any:
    """Import the package of a runtime, whose extra has the same name.

    Raises:
        MissingRuntime: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name:
            raise
        raise MissingRuntime(f"this needs the package {name}: pip install 'nasdsl[{name}]'") from None


class NodeTime(NamedTuple):
    """Milliseconds that a node (or a module) takes in a run of one batch.

    Attributes:
        name: of the node.
        op: its operator or class.
        milliseconds: median over the profiled runs.
    """

    name: str
    op: str
    milliseconds: float


class Profile(NamedTuple):
    """Where the time of a run of one batch goes, from runs of their own: profiling makes a run slower.

    Attributes:
        nodes: slowest first.
        sections: milliseconds by name.
    """

    nodes: list[NodeTime]
    sections: dict[str, float]


@dataclass
class Session:
    """A detector that is ready to run on one batch.

    Attributes:
        runtime, version: name and version of what runs it.
        device: name of the device.
        threads: of the CPU.
        size: of the images.
        images: [N, 3, H, W].
        run: runs it on `images`, and returns the outputs.
        timer: times `run`.
        metadata: of the file.
        notes: what a reader of the time has to know.
    """

    runtime: str
    version: str
    device: str
    threads: int
    images: Images
    run: Run
    timer: Timer = wall_timer
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> Size:
        return self.images.shape[2], self.images.shape[3]

    @property
    def batch(self) -> int:
        return len(self.images)

    def detections(self) -> float | None:
        """Mean number of detections in an image (of score above 0); None if the outputs do not tell."""
        raise NotImplementedError

    def profile(self, runs: int = PROFILED_RUNS) -> Profile | None:
        """Where the time goes; None if the runtime does not tell."""
        raise NotImplementedError

    def close(self) -> None:
        """Undo what opening changed in this process."""


class InputShape(NamedTuple):
    """Batch, height and width of the images that a file takes; None where it takes any."""

    batch: int | None
    height: int | None
    width: int | None

    def resolve(self, file: str, size: Size | None, batch: int | None, metadata: Mapping[str, str]) -> tuple[int, Size]:
        """Batch and size of the images to time with.

        Args:
            size, batch: what the user asks for, if anything.
            metadata: of the file; says the size for which it was exported, or how its detector resizes images.

        Raises:
            LatencyError: the file takes others only.
        """
        if self.batch is not None and batch not in (None, self.batch):
            raise LatencyError(f"{file} takes batches of {self.batch} only, not of {batch}; export it with a dynamic batch")
        own = size or _size_of(metadata) or DEFAULT_SIZE
        fixed = (self.height or own[0], self.width or own[1])
        if size is not None and fixed != size:
            expected = f"{self.height or 'any'}x{self.width or 'any'}"
            raise LatencyError(
                f"{file} takes images of {expected} only, not of {size[0]}x{size[1]}; export it for that size, or without "
                "--size"
            )
        return self.batch or batch or 1, fixed


def input_shape(file: str, names: Sequence[str], shape: Sequence[Any]) -> InputShape:
    """Input shape of a file from its inputs' names and the first one's shape, whose dynamic dimensions are no integers.

    Raises:
        LatencyError: it does not take one batch of images.
    """
    if len(names) != 1:
        listed = ", ".join(names)
        hint = "; that is a decoder alone" if names and all(re.fullmatch(r"[cp]\d", name) for name in names) else ""
        raise LatencyError(
            f"{file} has the inputs {listed or '(none)'}{hint}; expected one input, images [N, 3, H, W], as in the files of "
            "`nasdsl export`"
        )
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(fixed) != 4 or fixed[1] not in (3, None):
        raise LatencyError(f"{file} has the input {names[0]} {list(shape)}; expected images [N, 3, H, W]")
    return InputShape(fixed[0], fixed[2], fixed[3])


def section_of(name: str) -> str:
    """Section that a node's name begins with (``fpn.x1.conv``, ``/backbone/layer1/Conv``); ``other`` if none.

    Predictions of a level (``p3.cls_logits``) are of ``predict``.
    """
    parts = [part for part in re.split(r"[./:\s]+", name) if part]
    if parts and re.fullmatch(r"p\d+", parts[0]):
        return "predict"
    return next((part for part in parts if part in SECTIONS), OTHER)


def make_profile(durations: Mapping[tuple[str, str], Sequence[float]], runs: int) -> Profile:
    """Profile from the milliseconds of every execution of each node (name, operator) in `runs` runs."""
    nodes = [
        NodeTime(name, op, statistics.median(each) * len(each) / runs) for (name, op), each in durations.items() if len(each)
    ]
    totals = dict.fromkeys((*SECTIONS, OTHER), 0.0)
    for node in nodes:
        totals[section_of(node.name)] += node.milliseconds
    return Profile(
        sorted(nodes, key=lambda node: -node.milliseconds), {name: total for name, total in totals.items() if total > 0}
    )


def count_detections(scores: Any) -> float | None:
    """Mean number of scores above 0 of an image; None for what is no [N, K] array."""
    if not hasattr(scores, "shape") or len(scores.shape) != 2:
        return None
    return float((scores > 0).sum()) / max(len(scores), 1)


def typical_size(min_size: int, max_size: int) -> Size:
    """Size to which a detector resizes an image of 3:4.

    Args:
        min_size: pixels of the shorter side.
        max_size: largest number of pixels of the longer side.
    """
    if (min_size, max_size) == (800, 1333):  # as published
        return DEFAULT_SIZE
    return min_size, min(max_size, -(-min_size * 4 // 3))


def _size_of(metadata: Mapping[str, str]) -> Size | None:
    """The size of the images for a file of `nasdsl export`; None where its metadata do not tell."""
    try:
        size, resize = (parse_json(metadata.get(name, "null")) for name in ("size", "resize"))
        if size is not None:
            height, width = (int(value) for value in size)
        elif resize is not None:
            height, width = typical_size(int(resize["min_size"][-1]), int(resize["max_size"]))
        else:
            return None
    except (TypeError, ValueError, LookupError):  # metadata of another program
        return None
    return (height, width) if min(height, width) > 0 else None
