"""Export of whole trained detectors: ONNX, ``torch.export`` and stand-alone PyTorch source, which run without nasdsl."""

from __future__ import annotations

import json
import keyword
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nasdsl.backends.export import ExportError
from nasdsl.detection.detector import Detector, Size
from nasdsl.detection.inference import for_inference
from nasdsl.export.sizes import map_sizes
from nasdsl.ir.canonical import digest

Deform = Literal["native", "grid_sample"]
Precision = Literal["float32", "float16"]

FORMATS = (".onnx", ".pt2", ".py")
"""What the name of an exported file may end in."""

DEFAULT_DEFORM: dict[str, Deform] = {".onnx": "grid_sample", ".pt2": "native", ".py": "native"}
"""How deformable convolutions are written: for ONNX what most runtimes have, for torch torchvision's own."""

_IMPORTED = {"torch", "torchvision", "numpy", "PIL"}
"""Modules that an exported source, or torch, imports: none may have its name."""


@dataclass(frozen=True)
class Exported:
    """What `export_detector` wrote.

    Attributes:
        files: the file, and its weights where they are a file of their own.
        inputs, outputs: name, type and shape of each, for people.
        usage: lines of Python that run it.
    """

    files: tuple[Path, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    usage: tuple[str, ...]

    @property
    def megabytes(self) -> float:
        """Size of the files, in 10**6 bytes."""
        return sum(file.stat().st_size for file in self.files) / 1e6


def export_detector(
    detector: Detector,
    path: str | Path,
    *,
    size: Size | None = None,
    deform: Deform | None = None,
    precision: Precision = "float32",
    nms: bool = True,
) -> Exported:
    """Write a trained detector to a file that runs without nasdsl. `detector` is not changed.

    The input of the .onnx and .pt2 forms is ``images``: float32 [N, 3, H, W], RGB in 0..1, already resized; normalisation is
    inside. The outputs are

    - ``boxes`` [N, K, 4]: xyxy in pixels of the input; ``scores`` [N, K], best first; ``labels`` [N, K] from 0; K is the
      detector's ``detections``, and rows without an object are 0; or
    - without `nms`, ``boxes`` [N, L, 4] and ``scores`` [N, L, classes] of all locations (or anchors) of all levels; the score
      of a class is 0 where it is not above the detector's ``score_threshold``.

    The .py form is a module with a class ``Detector`` and a function ``load``; its weights are beside it, in a .pt file.

    Args:
        detector: with its weights.
        path: ends in .onnx, .pt2 or .py.
        size: (height, width) of all images; None: of any size.
        deform: deformable convolutions as the operator ``native`` to the form (ONNX's DeformConv of opset 19, or
            torchvision's), or as ``grid_sample``. None: see `DEFAULT_DEFORM`.
        precision: of weights and maps. Inputs, outputs, the boxes' prediction and all after the predictions are float32.
        nms: with non-maximum suppression.

    Raises:
        ExportError: a wrong argument, or a part of the detector that cannot be written in this form.
        MissingExtra: a package is missing.
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    path = Path(path)
    check_arguments(path, size=size, deform=deform, precision=precision)
    native = (deform or DEFAULT_DEFORM[path.suffix]) == "native"
    half = precision == "float16"
    folded = for_inference(detector).cpu().float()
    maps = None if size is None else map_sizes(folded, size)  # for every form: it refuses a size that is impossible
    rows = min(detector.method.detections, detector.method.candidates * len(detector.decoder.graph.levels))
    properties = metadata(detector, size, precision)
    files: tuple[Path, ...] = (path,)
    if path.suffix == ".py":
        from nasdsl.export.source import write_source

        files = write_source(detector, path, size=size, native_deform=native, half=half, nms=nms)
    elif path.suffix == ".onnx":
        from nasdsl.backends.onnx import save_model
        from nasdsl.export.onnx import detector_model

        model = detector_model(folded, size=size, maps=maps, native_deform=native, half=half, nms=nms, metadata=properties)
        rows = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        save_model(model, path)
    else:
        from nasdsl.export.program import write_program

        write_program(folded, path, size=size, native_deform=native, half=half, nms=nms, metadata=properties)
    inputs, outputs = _described(path, size, len(detector.classes), rows if nms else None)
    return Exported(files, inputs, outputs, _usage(path, size or detector.transform.fixed_size))


def check_arguments(path: Path, *, size: Size | None, deform: str | None, precision: str) -> None:
    """Refuse arguments of `export_detector` that are wrong for every detector, before one is loaded.

    Raises:
        ExportError: the message says what was expected.
    """
    if path.suffix not in FORMATS:
        raise ExportError(f"cannot write {path}: expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if path.is_dir() or not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: {'it is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    if deform is not None and deform not in get_args(Deform):
        raise ExportError(f"deform is {deform!r}; expected {' or '.join(get_args(Deform))}")
    if precision not in get_args(Precision):
        raise ExportError(f"precision is {precision!r}; expected {' or '.join(get_args(Precision))}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ExportError(f"size is {size}; expected height and width in pixels, each 1 or more")
    if path.suffix == ".py" and (not path.stem.isidentifier() or keyword.iskeyword(path.stem)):
        raise ExportError(f"cannot write {path}: a Python module needs a name such as detector.py")
    if path.suffix == ".py" and path.stem in _IMPORTED | sys.stdlib_module_names:
        raise ExportError(f"cannot write {path}: it would hide the module {path.stem}; use a name such as detector.py")


def metadata(detector: Detector, size: Size | None, precision: str) -> dict[str, str]:
    """What an exported file tells about its detector, by name.

    ``classes``, ``category_ids``, ``size`` and ``resize`` are JSON. ``size`` is the [height, width] of the images that the
    file is for: the fixed one, or that to which the detector resizes, or null where that depends on the image. ``resize`` says
    how the detector itself resizes an image.
    """
    resize = {name: detector.config[name] for name in ("min_size", "max_size", "fixed_size", "size_divisible")}
    own = size or detector.transform.fixed_size
    return {
        "classes": json.dumps(list(detector.classes), ensure_ascii=False),
        "category_ids": json.dumps(list(detector.category_ids)),
        "size": json.dumps(list(own) if own else None),
        "digest": digest(detector.decoder.graph),
        "decoder": detector.decoder.graph.name,
        "backbone": detector.backbone.name or type(detector.backbone.body).__name__,
        "predict": detector.decoder.graph.predict.kind,
        "precision": precision,
        "resize": json.dumps(resize),
    }


def _described(path: Path, size: Size | None, classes: int, rows: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Inputs and outputs, for people.

    Args:
        rows: detections of an image, or the largest number of them; None: the outputs are all candidates.
    """
    height, width = size or ("H", "W")
    inputs = (f"images float32 [N, 3, {height}, {width}], RGB, 0 to 1",)
    in_dicts = path.suffix == ".py"
    if rows is None:
        place = "L" if in_dicts else "N, L"
        outputs = [f"scores float32 [{place}, {classes}]"]
    else:
        place = "n" if in_dicts else f"N, {rows}"
        outputs = [
            f"scores float32 [{place}]{'' if in_dicts else ', 0 where there is no object'}",
            f"labels int64 [{place}], 0 to {classes - 1}",
        ]
    outputs.insert(0, f"boxes float32 [{place}, 4], xyxy in pixels of the input")
    if in_dicts:
        outputs.insert(0, f"list of N dicts{'' if rows is None else f', n is {rows} at most'}")
    return inputs, tuple(outputs)


def _usage(path: Path, size: Size | None) -> tuple[str, ...]:
    height, width = size or (480, 640)
    images = f"1, 3, {height}, {width}"
    if path.suffix == ".onnx":
        return (
            "import numpy, onnxruntime",
            f"session = onnxruntime.InferenceSession({path.name!r})",
            f"outputs = session.run(None, {{'images': numpy.zeros(({images}), numpy.float32)}})",
        )
    if path.suffix == ".pt2":
        return (
            "import torch, torchvision",
            f"detector = torch.export.load({path.name!r}).module()",
            f"outputs = detector(torch.zeros({images}))",
        )
    return (f"from {path.stem} import load", "detector = load()", "print(detector.detect('photo.jpg'))")


__all__ = [
    "DEFAULT_DEFORM",
    "FORMATS",
    "Deform",
    "ExportError",
    "Exported",
    "Precision",
    "Size",
    "check_arguments",
    "export_detector",
    "metadata",
]
