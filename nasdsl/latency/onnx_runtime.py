"""Sessions of onnxruntime."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasdsl.backends.cost import Size
from nasdsl.backends.layer_errors import first_line
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

onnxruntime = import_runtime("onnxruntime")

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

ERRORS_ONLY = 3
"""Severity of what onnxruntime prints."""


class OnnxRuntimeSession(Session):
    """A file in onnxruntime: operators one after the other, each on `threads` threads.

    With a GPU a time includes the copies of images and outputs, as for whoever calls it.
    """

    def __init__(
        self, file: Path, *, size: Size | None, batch: int | None, threads: int, device: str | None, image: Path | None
    ) -> None:
        """Open a file.

        Raises:
            LatencyError: onnxruntime cannot run it, or it takes no batch of images.
        """
        self._file, self._providers = file, _providers(device)
        self._threads = threads
        self._session = self._open(profile=None)
        inputs = self._session.get_inputs()
        shape = input_shape(file.name, [i.name for i in inputs], inputs[0].shape if inputs else ())
        if inputs[0].type not in DTYPES:
            raise LatencyError(f"{file.name} takes images of type {inputs[0].type}; expected {' or '.join(DTYPES)}")
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        batch, size = shape.resolve(file.name, size, batch, metadata)
        images = example_images(size, batch, image)
        self._feeds = {inputs[0].name: images.astype(DTYPES[inputs[0].type])}
        super().__init__(
            runtime="onnxruntime",
            version=onnxruntime.__version__,
            device="cuda" if self._providers[0] == "CUDAExecutionProvider" else "cpu",
            threads=threads,
            images=images,
            run=self._run,
            metadata=metadata,
        )

    def detections(self) -> float | None:
        outputs = dict(zip([output.name for output in self._session.get_outputs()], self._run(), strict=True))
        return count_detections(outputs.get("scores"))

    def profile(self, runs: int = PROFILED_RUNS) -> Profile | None:
        """Where the time goes, from onnxruntime's own profiler."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(profile=f"{folder}/profile")
            for _ in range(PROFILE_WARMUP + runs):
                session.run(None, self._feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return make_profile(_durations(events, _nodes_of_tensors(self._file)), runs)

    def _run(self) -> list[Any]:
        try:
            outputs: list[Any] = self._session.run(None, self._feeds)
        except Exception as error:  # onnxruntime has a class for each kind, which share no base
            raise LatencyError(f"onnxruntime cannot run {self._file.name}: {first_line(error)}") from None
        return outputs

    def _open(self, profile: str | None) -> Any:  # an InferenceSession
        return make_session(str(self._file), self._threads, self._providers, name=str(self._file), profile=profile)


def make_session(
    model: str | bytes, threads: int, providers: list[str], *, name: str, profile: str | None = None
) -> Any:  # an InferenceSession
    """A session with operators one after the other, each on `threads` threads.

    Args:
        model: the path of a file, or its content.
        name: of the model, for messages.
        profile: path of the profile to write, without its ending.

    Raises:
        LatencyError: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERRORS_ONLY
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        raise LatencyError(f"onnxruntime {onnxruntime.__version__} cannot load {name}: {first_line(error)}") from None


def _providers(device: str | None) -> list[str]:
    """Providers for a device: a GPU where there is one, if none is named.

    Raises:
        LatencyError: this onnxruntime has no provider for it.
    """
    available = onnxruntime.get_available_providers()
    if device not in (None, "cpu", "cuda"):
        raise LatencyError(f"onnxruntime runs on cpu or cuda here, not on {device!r}")
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise LatencyError(f"this onnxruntime has no CUDA; it has {', '.join(available)} (onnxruntime-gpu is another package)")
    with_gpu = device != "cpu" and "CUDAExecutionProvider" in available
    return [*(["CUDAExecutionProvider"] if with_gpu else []), "CPUExecutionProvider"]


def _durations(events: list[Mapping[str, Any]], nodes_of_tensors: Mapping[str, str]) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each node's executions after the warm-up, in the order of time."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        if event.get("name") == "model_run" or event.get("cat") != "Node":
            continue
        name, kernel, _ = str(event["name"]).partition("_kernel_time")
        if kernel:
            own = _own_name(name)
            found[nodes_of_tensors.get(own, own), str(event["args"].get("op_name", ""))].append(event["dur"] / 1000)
    runs = sum(event.get("name") == "model_run" for event in events)
    return {node: each[len(each) * PROFILE_WARMUP // max(runs, 1) :] for node, each in found.items()}


def _own_name(name: str) -> str:
    """Name of a node without the marks of nodes that onnxruntime put into another memory layout or precision."""
    return re.sub(r"(_nchwc|_nhwc|_token_\d+)+$", "", name.removeprefix("InsertedPrecisionFreeCast_"))


def _nodes_of_tensors(file: Path) -> dict[str, str]:
    """Name of the node that computes each tensor: nodes that onnxruntime replaces are called after their outputs.

    Empty without the package onnx.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        return {}
    nodes = onnx.load(str(file), load_external_data=False).graph.node
    return {output: node.name for node in nodes if node.name for output in node.output}
