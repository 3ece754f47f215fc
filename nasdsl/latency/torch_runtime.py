"""Sessions of torch: detectors of runs, and programs of ``torch.export``."""

from __future__ import annotations

import logging
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nasdsl.backends.cost import Size
from nasdsl.backends.layer_errors import first_line
from nasdsl.detection.detector import Detector
from nasdsl.detection.inference import for_inference
from nasdsl.detection.precision import Precision
from nasdsl.files import parse_json
from nasdsl.ir.canonical import digest
from nasdsl.latency.images import example_images
from nasdsl.latency.session import (
    PROFILE_WARMUP,
    PROFILED_RUNS,
    Images,
    LatencyError,
    Profile,
    Session,
    count_detections,
    input_shape,
    make_profile,
    typical_size,
)
from nasdsl.latency.timing import Run, Timer, wall_timer

Stamp: TypeAlias = Any
"""A moment: seconds, or an event on a GPU."""


class _TorchSession(Session):
    def __init__(self, module: Callable[[Tensor], Any], batch: Tensor, threads: int, images: Images, **about: Any) -> None:
        self._module = module
        self._batch = batch
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with suppress(RuntimeError):  # it can be set only before the first parallel work of the process
            torch.set_num_interop_threads(1)
        device = batch.device
        name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
        super().__init__(
            runtime="torch",
            version=str(torch.__version__),
            device=name,
            threads=threads,
            images=images,
            run=self._run,
            timer=_cuda_timer(device) if device.type == "cuda" else wall_timer,
            **about,
        )

    def close(self) -> None:
        torch.set_num_threads(self._threads_before)

    def _run(self) -> Any:
        with torch.inference_mode():
            return self._module(self._batch)


class DetectorSession(_TorchSession):
    """A detector as `nasdsl.for_inference` makes it, on a batch that needs no resizing."""

    def __init__(
        self,
        detector: Detector,
        *,
        size: Size | None,
        batch: int | None,
        threads: int,
        image: Path | None,
        notes: list[str],
        precision: Precision | None = None,
        graphs: bool = True,
    ) -> None:
        images = example_images(size or size_of(detector), batch or 1, image)
        optimized = for_inference(detector.eval(), precision, graphs=graphs)
        device = next(optimized.parameters()).device
        tensor = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        graph = detector.decoder.graph
        metadata = {"decoder": graph.name, "digest": digest(graph)}
        if precision is not None:
            notes = [*notes, precision]
        if device.type == "cuda":
            notes = [*notes, "CUDA graphs" if graphs else "without CUDA graphs"]
        super().__init__(optimized, tensor, threads, images, metadata=metadata, notes=notes)
        self._detector = optimized

    def detections(self) -> float | None:
        found = self._run()
        return sum(len(one["scores"]) for one in found) / len(found)

    def profile(self, runs: int = PROFILED_RUNS) -> Profile | None:
        """Where the time goes, from hooks: sections are `backbone`, `fpn` and `head`, with what is before and after them;
        nodes are the modules that have no parts. None where a CUDA graph is replayed, which runs no module."""
        if self._batch.is_cuda and self._detector.graphs:
            return None
        clock = _Clock(self._batch.device)
        detector = self._detector
        parts = {"backbone": detector.backbone, "fpn": detector.decoder.fpn, "head": detector.decoder.head}
        nodes = {
            name.removeprefix("decoder."): module
            for name, module in detector.named_modules()
            if not list(module.children()) and module not in parts.values()
        }
        sections: dict[str, list[float]] = defaultdict(list)
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number in range(PROFILE_WARMUP + runs):
            with clock.watch(parts) as of_parts:
                start = clock.now()
                self._run()
                end = clock.now()
            with clock.watch(nodes) as of_nodes:
                self._run()
            clock.synchronize()
            if set(of_parts) != set(parts):  # the module runs without its parts
                return None
            if number < PROFILE_WARMUP:
                continue
            sections["normalize"].append(clock.milliseconds(start, of_parts["backbone"][0][0]))
            for name, spans in of_parts.items():
                sections[name].append(sum(clock.milliseconds(*span) for span in spans))
            sections["postprocess"].append(clock.milliseconds(of_parts["head"][-1][1], end))
            for name, spans in of_nodes.items():
                durations[name, type(nodes[name]).__name__].append(sum(clock.milliseconds(*span) for span in spans))
        totals = make_profile({(name, ""): each for name, each in sections.items()}, runs)
        ordered = {name: totals.sections[name] for name in sections if name in totals.sections}
        return Profile(make_profile(durations, runs).nodes, ordered)


class ProgramSession(_TorchSession):
    """A program of ``torch.export`` (.pt2). It runs on the device for which it was exported."""

    def __init__(self, file: Path, *, size: Size | None, batch: int | None, threads: int, image: Path | None) -> None:
        """Open a file.

        Raises:
            LatencyError: it is broken, or takes no batch of images.
        """
        extra = {"nasdsl.json": ""}
        program = _load_program(file, extra)
        values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        names = list(program.graph_signature.user_inputs)
        first = values.get(names[0]) if names else None
        if len(names) != 1 or not isinstance(first, Tensor):
            input_shape(file.name, [str(name).removeprefix("features_") for name in names] or ["(none)"], ())
            raise LatencyError(f"{file.name} takes no batch of images")
        shape = input_shape(file.name, [str(names[0])], first.shape)
        metadata = parse_json(extra["nasdsl.json"] or "{}")
        batch, size = shape.resolve(file.name, size, batch, metadata)
        images = example_images(size, batch, image)
        tensor = torch.from_numpy(images).to(first.device, first.dtype)
        super().__init__(program.module(), tensor, threads, images, metadata=metadata)

    def detections(self) -> float | None:
        outputs = self._run()
        if isinstance(outputs, dict):
            return count_detections(outputs.get("scores"))
        return count_detections(outputs[1]) if isinstance(outputs, tuple | list) and len(outputs) == 3 else None

    def profile(self, runs: int = PROFILED_RUNS) -> Profile | None:
        """Nothing: the operators of a program have no names of the text."""
        return None


def _load_program(file: Path, extra: dict[str, str]) -> torch.export.ExportedProgram:
    """Load a program and its extra files.

    Raises:
        LatencyError: the file is broken, or of another version of torch.
    """
    logger = logging.getLogger("torch.export")  # it logs a traceback of what it raises
    enabled, logger.disabled = not logger.disabled, True
    try:
        if not zipfile.is_zipfile(file):
            raise LatencyError("not a file of torch.export")
        return torch.export.load(file, extra_files=extra)
    except Exception as error:  # a broken file can raise anything
        raise LatencyError(f"torch {torch.__version__} cannot load {file}: {first_line(error)}") from None
    finally:
        logger.disabled = not enabled


def size_of(detector: Detector) -> Size:
    """Size to which a detector resizes images: the fixed one, or that of an image of 3:4."""
    transform = detector.transform
    if transform.fixed_size:
        return int(transform.fixed_size[0]), int(transform.fixed_size[1])
    return typical_size(int(transform.min_size[-1]), int(transform.max_size))


class _Clock:
    """Moments on a device, and modules' begins and ends."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._device = device

    def now(self) -> Stamp:
        if not self._gpu:
            return time.perf_counter()
        event = _event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def synchronize(self) -> None:
        if self._gpu:
            torch.cuda.synchronize(self._device)

    def milliseconds(self, start: Stamp, end: Stamp) -> float:
        return float(start.elapsed_time(end)) if self._gpu else 1000 * (end - start)

    @contextmanager
    def watch(self, modules: dict[str, nn.Module]) -> Iterator[dict[str, list[tuple[Stamp, Stamp]]]]:
        """Yields a dict that gets (begin, end) of every call of the modules, by name, in the order of the calls."""
        spans: dict[str, list[tuple[Stamp, Stamp]]] = {}
        begun: dict[str, Stamp] = {}
        hooks = []
        for name, module in modules.items():

            def begin(*_: Any, name: str = name) -> None:
                begun[name] = self.now()

            def end(*_: Any, name: str = name) -> None:
                spans.setdefault(name, []).append((begun[name], self.now()))

            hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        try:
            yield spans
        finally:
            for hook in hooks:
                hook.remove()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own


def _cuda_timer(device: torch.device) -> Timer:
    """Times work on a GPU with events, once everything before it is done."""

    def timer(run: Run) -> float:
        torch.cuda.synchronize(device)
        stream = torch.cuda.current_stream(device)
        start, end = _event(), _event()
        start.record(stream)
        run()
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return timer
