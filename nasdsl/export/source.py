"""Export a whole detector as PyTorch source: one file that needs torch and torchvision, with its weights beside it."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path
from typing import IO

import torch
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d

from nasdsl.backbones import TINY_WIDTHS
from nasdsl.backends.export import ExportError
from nasdsl.backends.source import decoder_classes, quoted
from nasdsl.data import geometry
from nasdsl.detection import postprocess, pyramid
from nasdsl.detection.backbones import networks
from nasdsl.detection.detector import Detector, DetectorError, Size
from nasdsl.detection.method import DecodingSource
from nasdsl.detection.weights import read_weights
from nasdsl.export.program import torchvision_deform_conv2d
from nasdsl.files import write_atomically, write_bytes


def write_source(
    detector: Detector, path: Path, *, size: Size | None, native_deform: bool, half: bool, nms: bool
) -> tuple[Path, Path]:
    """Write the source of a detector and its weights; see `nasdsl.export.export_detector`.

    Returns:
        The two files: ``detector.py`` and ``detector.pt``.

    Raises:
        ExportError: the backbone is not a built-in one, or a custom layer does not say how it is written as source.
        OSError: a file cannot be written; earlier ones are unchanged.
    """
    source = detector_source(detector, size=size, native_deform=native_deform, half=half, nms=nms)
    weights = path.with_suffix(".pt")
    if weights.exists() and _is_detector(weights):
        raise ExportError(
            f"the weights of {path.name} would overwrite {weights}, a trained detector of nasdsl; give another name or folder"
        )
    state = {name: _stored(tensor, half) for name, tensor in detector.state_dict().items()}
    content = io.BytesIO()  # written to a full disk, torch.save raises an error that does not tell so
    torch.save(state, content)

    def write(file: IO[bytes]) -> None:
        """Write both files or neither: weights of another source would be of no use."""
        file.write(source.encode())
        file.flush()
        write_bytes(weights, content.getbuffer())

    write_atomically(path, write)
    return path, weights


def _is_detector(path: Path) -> bool:
    """Whether a file is a detector that nasdsl saved, from which it can be trained and exported again."""
    try:
        return read_weights(path).config is not None
    except DetectorError:
        return False


def _stored(tensor: Tensor, half: bool) -> Tensor:
    """A weight as it is saved: those of convolutions in half precision if asked; biases, norms and scales are small."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.ndim >= 2 and tensor.is_floating_point() and tensor.shape[1:] != (1, 1) else tensor


def detector_source(detector: Detector, *, size: Size | None, native_deform: bool, half: bool, nms: bool) -> str:
    """The text of the file.

    Raises:
        ExportError: see `write_source`.
    """
    graph = detector.decoder.graph
    try:
        decoder = decoder_classes(
            graph,
            len(detector.classes),
            deform_conv2d=_renamed_deform_conv2d() if native_deform else None,
            exact_boxes=half,
        )
    except TypeError as error:
        raise ExportError(str(error)) from error
    backbone = _backbone(detector)
    decoding = detector.method.source({level: 2**k for level, k in graph.levels.items()})
    body = [
        *_constants(detector, decoding, size),
        *decoder,
        *backbone,
        *_postprocessing(detector, decoding, nms),
        *_EXACT * half,
        *_detector(detector, half, nms),
        *_MAIN,
        *(_PRINT_DETECTIONS if nms else _PRINT_CANDIDATES),
        "",
    ]
    return "\n".join([*_preamble(detector), *_imports("\n".join(body)), *body])


def _preamble(detector: Detector) -> list[str]:
    graph = detector.decoder.graph
    method = type(detector.method).__name__
    text = str(detector.config["decoder"])
    return [
        f'"""A trained object detector, written by nasdsl: {graph.name}, with {method} and {detector.backbone.name}.',
        "",
        "This file needs torch and torchvision only. Its weights are in the .pt file of the same name. To use it:",
        "",
        "    python FILE.py photo.jpg",
        "",
        'or, from Python, ``load().detect("photo.jpg")``. Its decoder is compiled from:',
        "",
        *quoted(text),
        '"""',
        "",
    ]


_IMPORTS = (
    ("", "math"), ("", "sys"), ("collections.abc", "Sequence"), ("pathlib", "Path"), ("typing", "NamedTuple"), ("", ""),
    ("", "torch"), ("PIL", "Image"), ("PIL", "ImageOps"), ("torch", "Tensor"), ("torch", "nn"), ("torch.nn", "functional as F"),
    ("torchvision", "models"), ("torchvision", "ops"), ("torchvision.models.detection._utils", "BoxCoder"),
    ("torchvision.models.detection.anchor_utils", "AnchorGenerator"), ("torchvision.models.resnet", "Bottleneck"),
    ("torchvision.ops", "batched_nms"), ("torchvision.ops", "clip_boxes_to_image"), ("torchvision.transforms", "v2"),
)  # fmt: skip
"""Modules and names that a file may need, in the order of its import statements."""


def _imports(body: str) -> list[str]:
    """Import statements of what the file uses."""
    names: dict[str, list[str]] = {}
    for module, name in _IMPORTS:
        if not name or re.search(rf"\b{name.split()[-1]}\b", body):
            names.setdefault(module or f"import {name}".strip(), []).append(name)
    lines = []
    for module, imported in names.items():
        if module == "import":
            lines.append("")
        else:
            lines.append(module if module.startswith("import ") else f"from {module} import {', '.join(imported)}")
    return [*lines, ""]


def _constants(detector: Detector, decoding: DecodingSource, size: Size | None) -> list[str]:
    """Options of the detector."""
    method, transform = detector.method, detector.transform
    fixed = size or transform.fixed_size
    strides = {level: 2**k for level, k in detector.decoder.graph.levels.items()}
    lines = [
        f"CLASSES = {detector.classes!r}",
        f"CATEGORY_IDS = {detector.category_ids!r}",
        "",
        "# Images are resized to a fixed (height, width), or else so that the shorter side is MIN_SIZE and the longer one at",
        "# most MAX_SIZE.",
        f"FIXED_SIZE = {tuple(fixed) if fixed else None!r}",
        f"MIN_SIZE, MAX_SIZE = {transform.min_size[-1]}, {transform.max_size}",
        f"SIZE_DIVISIBLE = {transform.size_divisible}",
        "",
        f"STRIDES = {_quote(repr(strides))}",
        f"SCORE_THRESHOLD = {method.score_threshold!r}",
        f"CANDIDATES = {method.candidates}  # of each level",
        f"NMS = {method.nms!r}  # IoU threshold",
        f"DETECTIONS = {method.detections}  # of an image, at most",
    ]
    return [*lines, *decoding.constants, "", ""]


def _backbone(detector: Detector) -> list[str]:
    """The class ``Backbone``, and the network in it.

    Raises:
        ExportError: it is not a built-in one.
    """
    backbone = detector.backbone
    if not isinstance(backbone.body, networks.ResNet | networks.MobileNetV2 | networks.Tiny) or backbone.name is None:
        raise ExportError(
            f"the backbone {backbone.name or type(backbone.body).__name__} has no source that needs torch and torchvision "
            "only; a detector with it can be exported as .onnx or .pt2"
        )
    frozen = any(isinstance(part, FrozenBatchNorm2d) for part in backbone.body.modules())
    norm = "ops.FrozenBatchNorm2d" if frozen else "nn.BatchNorm2d"
    body = _source(type(backbone.body)).replace("StrideIn", "str")
    before: list[str] = []
    if isinstance(backbone.body, networks.Tiny):
        before = [f"TINY_WIDTHS = {TINY_WIDTHS!r}", "", ""]
        build = f"Tiny({norm})"
    else:
        network = networks.NETWORKS[backbone.name]
        build = f"models.{network.model}(weights=None, norm_layer={norm})"
        is_resnet = isinstance(backbone.body, networks.ResNet)
        build = f'ResNet({build}, "{network.stride_in}")' if is_resnet else f"MobileNetV2({build})"
    return [
        *before,
        *body.splitlines(),
        "",
        "",
        "class Backbone(nn.Module):",
        f'    """{backbone.name}: images [N, 3, H, W] in 0..1 to its features."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        '        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))  # with the weights',
        '        self.register_buffer("pixel_std", torch.ones(3, 1, 1))',
        f"        self.body = {build}",
        "",
        "    def normalize(self, images: Tensor) -> Tensor:",
        "        return (images - self.pixel_mean) / self.pixel_std",
        "",
        "    def forward(self, images: Tensor) -> dict[str, Tensor]:",
        "        return self.body(images)",
        "",
        "",
    ]


def _postprocessing(detector: Detector, decoding: DecodingSource, nms: bool) -> list[str]:
    """What turns predictions into boxes."""
    pieces: list[object] = [geometry.resized_size, pyramid.flatten_level, *decoding.definitions, postprocess.LevelCandidates]
    if nms:
        pieces += [postprocess._top_candidates, postprocess.postprocess_detections]
    lines = [line for piece in dict.fromkeys(pieces) for line in [*_source(piece).splitlines(), "", ""]]
    return [*lines, *decoding.lines, "", ""]


def _detector(detector: Detector, half: bool, nms: bool) -> list[str]:
    if nms:
        what = "the detections of each image, best first: boxes [n, 4]", "(xyxy), labels [n], scores [n]."
        result = [
            "        return postprocess_detections(levels, [(height, width)] * len(images), CANDIDATES, NMS, DETECTIONS)",
        ]
    else:
        what = "all candidates of each image: boxes [L, 4] (xyxy), scores", "[L, classes] (0 below the threshold)."
        result = [
            "        boxes = torch.cat([clip_boxes_to_image(level.boxes, (height, width)) for level in levels], dim=1)",
            "        scores = torch.cat([torch.where(level.allowed, level.scores, 0.0) for level in levels], dim=1)",
            '        return [{"boxes": b, "scores": s} for b, s in zip(boxes, scores)]',
        ]
    run = ["        predictions = self.decoder(self.backbone(x))"]
    if half:
        run = [
            '        with torch.autocast(x.device.type, torch.float16, enabled=x.device.type == "cuda"):',
            "            predictions = self.decoder(self.backbone(x))",
        ]
    return [
        "class Detector(nn.Module):",
        '    """The detector: images to boxes. Without `load`, its weights are random."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        "        self.backbone = Backbone()",
        "        self.decoder = Decoder()",
        "",
        "    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:",
        f'        """A batch [N, 3, H, W], RGB in 0..1, to {what[0]}',
        f'        {what[1]} Boxes are in pixels of the batch."""',
        "        height, width = images.shape[-2:]",
        "        x = self.backbone.normalize(images)",
        "        x = F.pad(x, (0, -width % SIZE_DIVISIBLE, 0, -height % SIZE_DIVISIBLE))",
        *run,
        "        levels = level_candidates(predictions)",
        *result,
        "",
        "    @torch.inference_mode()",
        "    def detect(self, image: str | Path | Tensor) -> dict[str, Tensor]:",
        '        """The same for one image: a file, or RGB [3, H, W], uint8 or float in 0..1. Boxes are in its pixels."""',
        "        x = image if isinstance(image, Tensor) else read_image(image)",
        "        x = x.to(self.backbone.pixel_mean.device)",
        "        x = x if x.is_floating_point() else x / 255",
        "        height, width = x.shape[-2:]",
        "        size = FIXED_SIZE or resized_size(height, width, MIN_SIZE, MAX_SIZE)",
        "        if size != (height, width):",
        "            x = v2.functional.resize(x, list(size), antialias=True)",
        "        found = self(x[None])[0]",
        '        scale = found["boxes"].new_tensor([width / size[1], height / size[0]] * 2)',
        '        return {**found, "boxes": found["boxes"] * scale}',
        "",
        "",
    ]


_EXACT = [
    "def exact(layer: nn.Module, x: Tensor) -> Tensor:",
    '    """A layer in float32 also under autocast: half precision would round large distances by pixels."""',
    "    with torch.autocast(x.device.type, enabled=False):",
    "        return layer(x.float())",
    "",
    "",
]

_MAIN = [
    "def read_image(path: str | Path) -> Tensor:",
    '    """An image file as uint8 [3, H, W] RGB, upright."""',
    "    with Image.open(path) as image:",
    '        return v2.functional.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))',
    "",
    "",
    'def load(weights: str | Path | None = None, device: str | torch.device = "cpu") -> Detector:',
    '    """The trained detector, in evaluation mode; `weights` is by default the .pt file beside this one."""',
    '    state = torch.load(weights or Path(__file__).with_suffix(".pt"), map_location="cpu", weights_only=True)',
    "    detector = Detector()",
    "    detector.load_state_dict(state)",
    "    return detector.eval().to(device)",
    "",
    "",
    'if __name__ == "__main__":',
    "    if len(sys.argv) < 2:",
    '        sys.exit(f"usage: python {Path(__file__).name} IMAGE…")',
    "    detector = load()",
    "    for file in sys.argv[1:]:",
    "        found = detector.detect(file)",
    "        print(file)",
]
_PRINT_DETECTIONS = [
    '        for box, label, score in zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist()):',
    "            x1, y1, x2, y2 = (round(value, 1) for value in box)",
    '            print(f"  {CLASSES[label]} {score:.3f}  x {x1} to {x2}, y {y1} to {y2}")',
]
_PRINT_CANDIDATES = [
    '        print("  boxes", list(found["boxes"].shape), "scores", list(found["scores"].shape))',
]


def _renamed_deform_conv2d() -> str:
    return _source(torchvision_deform_conv2d).replace("def torchvision_deform_conv2d(", "def deform_conv2d(")


def _source(piece: object) -> str:
    """The source of a function or class, in terms of torch."""
    text = inspect.getsource(piece).rstrip()  # type: ignore[arg-type]  # functions and classes
    for ours, plain in (
        ("list[RawDetections]", "list[dict[str, Tensor]]"),
        ("DetectionError", "ValueError"),
        ("-> Size:", "-> tuple[int, int]:"),
    ):
        text = text.replace(ours, plain)
    return text


def _quote(text: str) -> str:
    return text.replace("'", '"')
