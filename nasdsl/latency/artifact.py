"""The file that is timed: its kind and fingerprint, and the runtimes for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from nasdsl.backends.cost import Size
from nasdsl.detection.precision import Precision
from nasdsl.detection.weights import MODEL
from nasdsl.files import open_plain
from nasdsl.latency.session import LatencyError, Session
from nasdsl.machine import usable_cores

RUNTIMES = {"onnx": ("onnxruntime", "openvino"), "program": ("torch",), "run": ("torch",)}
"""Runtimes for each kind of file; the first one is the default."""


class Artifact(NamedTuple):
    """What is timed.

    Attributes:
        kind: a key of `RUNTIMES`.
        sha256: of the file's content: whoever reports the AP of a file can show that it is this one.
    """

    file: Path
    kind: str
    sha256: str


def find_artifact(path: Path) -> Artifact:
    """The file of a path.

    Raises:
        LatencyError: it is missing, or of a kind that cannot be timed.
    """
    file = path / MODEL if path.is_dir() else path
    kinds = {".onnx": "onnx", ".pt2": "program", ".pt": "run"}
    if not file.is_file():
        raise LatencyError(f"{path} has no {MODEL}" if path.is_dir() else f"no file {path}")
    if file.suffix.lower() not in kinds:
        raise LatencyError(
            f"{path} cannot be timed; expected a detector (.onnx or .pt2), the folder of a training or its {MODEL}, or a "
            ".nas file"
        )
    with open_plain(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Artifact(file, kinds[file.suffix.lower()], digest)


def open_session(
    artifact: Artifact,
    runtime: str | None = None,
    *,
    size: Size | None = None,
    batch: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    image: Path | None = None,
    precision: Precision | None = None,
    graphs: bool = True,
) -> Session:
    """Make a file ready to be timed.

    Args:
        artifact: the file, as `find_artifact` recognises it.
        runtime: one of `RUNTIMES`; None takes the first one for the file's kind.
        size: of the images; None takes the file's or its detector's, or 800x1088.
        batch: images in a run; None takes the file's, or 1.
        threads: of the CPU; None takes all cores that this process may use.
        device: ``cpu``, ``cuda``, …; None takes a GPU where there is one.
        image: file of the image to run on; None takes those of the data set `shapes`.
        precision: of a training's detector in torch, see `nasdsl.for_inference`; a file has its own.
        graphs: whether a training's detector replays CUDA graphs; see `nasdsl.for_inference`.

    Raises:
        LatencyError: the runtime is not installed, is for other files, or cannot run this one like this.
    """
    file, kind, _ = artifact
    runtime = runtime or RUNTIMES[kind][0]
    if runtime not in RUNTIMES[kind]:
        if runtime == "torch":
            raise LatencyError(f"torch does not run {file}; it runs .pt2 files and folders of trainings")
        raise LatencyError(
            f"{runtime} does not run {file}, only .onnx files; export it by `nasdsl export RUN -o detector.onnx`, and time "
            "that file"
        )
    if kind != "run" and (precision is not None or not graphs):
        option = "--no-graphs" if precision is None else f"--precision {precision}"
        raise LatencyError(f"{file} has a precision of its own, and no CUDA graphs; leave {option} out")
    threads = threads or usable_cores()
    if runtime == "onnxruntime":
        from nasdsl.latency.onnx_runtime import OnnxRuntimeSession

        return OnnxRuntimeSession(file, size=size, batch=batch, threads=threads, device=device, image=image)
    if runtime == "openvino":
        from nasdsl.latency.openvino_runtime import OpenVinoSession

        return OpenVinoSession(file, size=size, batch=batch, threads=threads, device=device, image=image)
    from nasdsl.latency.torch_runtime import DetectorSession, ProgramSession

    if kind == "program":
        if device is not None:
            raise LatencyError(f"{file} runs on the device for which it was exported; leave --device out")
        return ProgramSession(file, size=size, batch=batch, threads=threads, image=image)
    from nasdsl.detection.factory import load_detector

    detector = load_detector(file, device=device or "auto")
    return DetectorSession(
        detector, size=size, batch=batch, threads=threads, image=image, precision=precision, graphs=graphs, notes=[]
    )
