"""Sessions of OpenVINO, on a CPU."""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from nasdsl.backends.cost import Size
from nasdsl.latency.images import example_images
from nasdsl.latency.session import (
    PROFILE_WARMUP,
    PROFILED_RUNS,
    LatencyError,
    Profile,
    Session,
    count_detections,
    import_runtime,
    input_shape,
    make_profile,
)

openvino = import_runtime("openvino")


class OpenVinoSession(Session):
    """A file in OpenVINO, compiled for the one shape that is timed: it is markedly slower with dynamic shapes."""

    def __init__(
        self, file: Path, *, size: Size | None, batch: int | None, threads: int, device: str | None, image: Path | None
    ) -> None:
        """Open a file.

        Raises:
            LatencyError: OpenVINO cannot run it, or it takes no batch of images.
        """
        if device not in (None, "cpu"):
            raise LatencyError(f"openvino is timed on the cpu, not on {device!r}")
        self._file, self._threads = file, threads
        try:
            self._model = core().read_model(str(file))
        except RuntimeError as error:
            raise LatencyError(f"openvino cannot read {file}: {reason_of(error)}") from None
        inputs = self._model.inputs
        dimensions = [d.get_length() if d.is_static else str(d) for d in inputs[0].partial_shape] if inputs else []
        shape = input_shape(file.name, [i.any_name for i in inputs], dimensions)
        metadata = _metadata(self._model)
        batch, size = shape.resolve(file.name, size, batch, metadata)
        images = example_images(size, batch, image)
        notes = [] if all(d.is_static for d in inputs[0].partial_shape) else ["compiled for this shape alone"]
        try:
            self._model.reshape(list(images.shape))
            self._request = self._compile(profile=False)
        except RuntimeError as error:
            raise LatencyError(f"openvino cannot compile {file}: {reason_of(error)}") from None
        element = inputs[0].element_type.to_dtype()
        if element not in (np.float32, np.float16):
            raise LatencyError(f"{file.name} takes images of type {element}; expected float32 or float16")
        self._feed = images.astype(element)
        super().__init__(
            runtime="openvino",
            version=openvino.__version__.partition("-")[0],
            device="cpu",
            threads=threads,
            images=images,
            run=self._run,
            metadata=metadata,
            notes=notes,
        )

    def detections(self) -> float | None:
        results = self._run()
        return next((count_detections(values) for port, values in results.items() if "scores" in port.names), None)

    def profile(self, runs: int = PROFILED_RUNS) -> Profile | None:
        """Where the time goes, from OpenVINO's own counters."""
        request = self._compile(profile=True)
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number in range(PROFILE_WARMUP + runs):
            request.infer([self._feed])
            for node in request.get_profiling_info() if number >= PROFILE_WARMUP else ():
                if node.status == openvino.ProfilingInfo.Status.EXECUTED and node.real_time:
                    durations[node.node_name, node.node_type].append(1000 * node.real_time.total_seconds())
        return make_profile(durations, runs)

    def _run(self) -> Any:
        return self._request.infer([self._feed])

    def _compile(self, *, profile: bool) -> Any:  # an InferRequest
        return compile_model(self._model, self._threads, profile=profile)


@functools.cache
def core() -> Any:  # a Core
    """OpenVINO's core, one for the whole life of the process.

    The plugin for CPUs gives the thread that loads it another stack for signals, and sets the one before it again when it is
    unloaded. Of two cores the first is mostly gone before the second, so that signals would come to memory that is freed: the
    process would end without a word at its next Ctrl-C, or when one that it has started ends (seen with OpenVINO 2026.4.1).
    """
    return openvino.Core()


def compile_model(model: Any, threads: int, *, profile: bool = False) -> Any:
    """A request of a model that is compiled for the CPU: one stream, float32."""
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": profile,
        "INFERENCE_PRECISION_HINT": "f32",  # as in the file: AP is that of these numbers
    }
    return core().compile_model(model, "CPU", config).create_infer_request()


def _metadata(model: Any) -> dict[str, str]:
    """ONNX's metadata, as far as OpenVINO keeps it."""
    for path in (["framework"], ["onnx"]):
        if model.has_rt_info(path):
            found = model.get_rt_info(path)
            values = found.value if hasattr(found, "value") else found
            if isinstance(values, dict):
                return {str(key): str(getattr(value, "value", value)) for key, value in values.items()}
    return {}


def reason_of(error: Exception) -> str:
    """The line of OpenVINO's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = [line.removeprefix("-- ") for line in lines if line.startswith("-- No conversion rule found")]
    if missing:  # in the summary, after many lines about what follows from it
        return missing[0]
    useful = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (useful or lines or [type(error).__name__])[0]
