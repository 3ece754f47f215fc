"""The page of the zoo: every decoder with its diagram, its cost and published figures for comparison.

``python -m nasdsl.report.zoo docs`` generates ``docs/zoo.md`` and ``docs/pictures/zoo/*.svg`` from ``genotypes/``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from nasdsl import resources
from nasdsl.backbones import backbone
from nasdsl.backends.cost import CostTable, PartCost, Size, cost
from nasdsl.backends.diagrams.dot import emit_diagram
from nasdsl.backends.diagrams.rendering import draw, fold_graph
from nasdsl.decoder import load, loads
from nasdsl.spaces import Space, load_space

SIZE: Final = (800, 1088)
BACKBONE: Final = "resnet50"
CLASSES: Final = 80
PICTURES: Final = Path("pictures") / "zoo"


# ------------------------------------------------------------------------------------------- published figures


class Quantity(NamedTuple):
    """What a published figure counts.

    Attributes:
        name: in the table, with its unit.
        compute: computes it from a cost table.
        unit: divisor of the published figure.
    """

    name: str
    compute: Callable[[CostTable], float]
    unit: float


FLOPS = Quantity("FLOPs (G)", lambda table: table.total.published_flops, 1e9)
TRAINED = Quantity("trained parameters (M)", lambda table: table.total.published_params, 1e6)
TWICE = Quantity("operations, 2 a MAC (G)", lambda table: 2 * table.total.macs, 1e9)
MACS = Quantity("MACs (G)", lambda table: table.total.macs, 1e9)
PARAMS = Quantity("parameters (M)", lambda table: table.total.params, 1e6)
HEAD_FLOPS = Quantity("FLOPs of the head (G)", lambda table: table.head.published_flops, 1e9)
FPN_PARAMS = Quantity("parameters of the fpn (M)", lambda table: table.fpn.params, 1e6)
HEAD_PARAMS = Quantity("parameters of the head (M)", lambda table: table.head.params, 1e6)


class OwnBackbone(NamedTuple):
    """The backbone of a published detector that nasdsl does not have. The tests have it, and count what stands here.

    Attributes:
        out_channels: channels of each feature.
        macs: for one image of 640x640 pixels.
    """

    name: str
    out_channels: Mapping[str, int]
    macs: int
    params: int

    def __str__(self) -> str:
        return self.name


YOLOX_S: Final = OwnBackbone("YOLOX-S's CSPDarknet", {"c3": 128, "c4": 256, "c5": 512}, 5_439_488_000, 4_212_672)
YOLOV8_N: Final = OwnBackbone("YOLOv8n's CSPDarknet", {"c3": 64, "c4": 128, "c5": 256}, 1_577_779_200, 1_272_656)


class Published(NamedTuple):
    """A published figure.

    Attributes:
        decoder: its name in the zoo.
        source: where it is published.
        quantity: what it counts.
        figure: in the unit of `quantity`.
        size: height and width of the image.
        backbone: of the detector; its own one only for 640x640.
        classes: of the detector.
    """

    decoder: str
    source: str
    quantity: Quantity
    figure: float
    size: Size = SIZE
    backbone: str | OwnBackbone = BACKBONE
    classes: int = CLASSES


_TABLE_2 = {
    "retinanet": (198.0, 33.6),
    "fcos": (169.9, 32.0),
    "nas_fcos_128": (104.0, 27.8),
    "nas_fcos_128_256": (160.4, 31.8),
    "nas_fcos": (189.6, 38.4),
}
_EQUAL = "NAS-FCOS, section 4.3.3: “nearly equal” to NAS-FCOS @256"
_NAS_FPN_BACKBONE = "resnet50_v1.5"  # the published code has the stride in the 3x3 convolution, and counts 91 classes
_EFFICIENTDET = ((512, 512), "timm:efficientnet_b0", 90)
_YOLOV8_N = ((640, 640), YOLOV8_N)
_YOLOX_S = ((640, 640), YOLOX_S)

PUBLISHED: Final = (
    *(
        Published(name, "NAS-FCOS, Table 2", count, figure)
        for name, figures in _TABLE_2.items()
        for count, figure in zip((FLOPS, TRAINED), figures, strict=True)
    ),
    Published("fcos", "NAS-FCOS, section 4.2", HEAD_FLOPS, 89.16),
    Published("fcos", "NAS-FCOS, section 4.2", HEAD_PARAMS, 4.92),
    Published("nas_fcos_head_only", "NAS-FCOS, section 4.2", HEAD_FLOPS, 79.24),
    Published("nas_fcos_head_only", "NAS-FCOS, section 4.2", HEAD_PARAMS, 3.41),
    Published("deform_fpn_fcos", _EQUAL, FLOPS, 189.6),
    Published("deform_fpn_fcos", _EQUAL, TRAINED, 38.4),
    Published("nas_fpn", "NAS-FPN, Table 1", TWICE, 281.3, (640, 640), _NAS_FPN_BACKBONE, 91),
    Published("nas_fpn", "NAS-FCOS, Table 3; NAS-FPN, Table 1", TWICE, 1125.5, (1280, 1280), _NAS_FPN_BACKBONE, 91),
    Published("nas_fpn", "NAS-FPN, Table 1", PARAMS, 60.3, (1280, 1280), _NAS_FPN_BACKBONE, 91),
    Published("efficientdet_d0", "EfficientDet, Table 2", MACS, 2.5, *_EFFICIENTDET),
    Published("efficientdet_d0", "the authors' own test of their code", PARAMS, 3.880067, *_EFFICIENTDET),
    Published("yolof", "YOLOF, Table 1, a mean over images", MACS, 86),
    Published("yolof", "YOLOF, Table 1", PARAMS, 44),
    Published("yolof", "PaddleDetection's table of models", PARAMS, 44.16),
    Published("yolov8", "docs.ultralytics.com/models/yolov8", TWICE, 8.7, *_YOLOV8_N),
    Published("yolov8", "YOLOv8n's printed summary", PARAMS, 3.1572, *_YOLOV8_N),
    Published("yolov8", "YOLOv8n's printed summary, layers 10 to 21", FPN_PARAMS, 0.98688, *_YOLOV8_N),
    Published("yolov8", "YOLOv8n's printed summary, layer 22", HEAD_PARAMS, 0.897664, *_YOLOV8_N),
    Published("yolox", "YOLOX, Table 3", TWICE, 26.8, *_YOLOX_S),
    Published("yolox", "YOLOX, Table 3", PARAMS, 9.0, *_YOLOX_S),
)
"""Published costs of decoders of the zoo.

NAS-FCOS is arXiv:1906.04423, NAS-FPN 1904.07392, EfficientDet 1911.09070, YOLOF 2103.09460, YOLOX 2107.08430.
"""

_COUNTED = (
    "parameters and multiply-accumulates of fpn and head are those that torch counts in a second implementation, which the "
    "tests have from the paper, and both give the same maps with the same weights"
)
CHECKED: Final = {
    "asff": _COUNTED,
    "atss": _COUNTED,
    "bfp": _COUNTED,
    "bifpn": "those of the fpn are those of `efficientdet_d0`, which are compared with published ones above",
    "carafe_fpn": f"{_COUNTED}; a CARAFE has the paper's 74 K parameters and 199 K operations for each position",
    "dyhead": _COUNTED,
    "gfl": _COUNTED,
    "hrfpn": _COUNTED,
    "nas_fcos_fpn_only": "they are those of the fpn of `nas_fcos` and of the head of `fcos`, which are above",
    "panet": _COUNTED,
    "retinanet_v2": "torchvision's network of this name has the same parameters, and its file of weights is read",
    "rtdetr": _COUNTED,
    "sepc": _COUNTED,
    "tood": _COUNTED,
    "yolof": _COUNTED,
    "yolov8": _COUNTED.replace("the paper", "the model file"),
    "yolox": _COUNTED,
}
"""How the figures of decoders are checked where published ones do not count them, or not to the last parameter."""


REMARKS: Final = (
    "Each of ours is counted as the published one was. FLOPs and trained parameters of NAS-FCOS follow the rule of its "
    "Table 2: biases, BatchNorms and some ReLUs count too, unused layers do, frozen parameters do not. The operations of "
    "NAS-FPN, YOLOX and YOLOv8 are two for each multiply-accumulate, the FLOPs of EfficientDet and YOLOF are one. NAS-FCOS "
    "prints 3.41 M parameters for the head of its Figure 4; the layers of that figure have 4.37 M at width 256.",
    "YOLOX and YOLOv8 have backbones of their own, which nasdsl lacks; the tests build them, and what they count is added "
    "here. YOLOX-S comes to 8,968,255 parameters, as published, and 3 more with `yolox`, the factors of `fcos`. Its 26.8 G "
    "are reached with four operations for each number that a BatchNorm scales, which its tool counts and we do not. YOLOv8n "
    "has the 3,157,200 parameters that are printed: 16 of them are the numbers 0 to 15 that distributions are weighted by, "
    "which are no parameters here.",
    "YOLOF's 86 G are a mean over images of COCO with the shorter side at 800, so that they are best compared with those of "
    "its RetinaNet on the same images, 201 G. `retinanet_v2` has the convolutions of that RetinaNet, and 198.8 G at "
    "800x1088. On images that are larger by as much, `yolof` has 85.4 G, 0.7 % less than printed; what tools count "
    "differently, norms and padding, is of this size. The parameters agree: the missing 0.02 M are those of the objectness.",
)
"""What is to be known about the published figures."""


def compute_figure(published: Published, path: Path) -> float:
    """The figure of the decoder at `path`, counted like the published one and in its unit."""
    decoder, own = load(path), published.backbone
    if isinstance(own, OwnBackbone):
        table = cost(decoder.lower(own.out_channels), published.size, published.classes)
        table = replace(table, backbone=PartCost(own.macs, own.params))
    else:
        table = decoder.cost(published.size, own, published.classes)
    return published.quantity.compute(table) / published.quantity.unit


# ---------------------------------------------------------------------------------------------------- entries


@dataclass(frozen=True, slots=True)
class Drawing:
    """A diagram of a decoder: its file name and the input of Graphviz."""

    name: str
    dot: str

    @property
    def digest(self) -> str:
        """Digest of the input, which is stored in the SVG: the output of Graphviz depends on its version and on fonts."""
        return sha256(self.dot.encode()).hexdigest()[:16]

    def svg(self) -> str:
        """The SVG, with the digest instead of the version of Graphviz."""
        text = re.sub(r"<!-- Generated by .*?-->", f"<!-- {self.digest} -->", draw(self.dot, "svg").decode(), flags=re.S)
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoder of the zoo.

    Attributes:
        drawings: the decoder, folded to fit in one row; if something is folded, also every value of it, of the decoder with
            every `repeat` run once if it has one.
    """

    path: Path
    text: str
    table: CostTable
    drawings: tuple[Drawing, ...]

    @property
    def name(self) -> str:
        return self.path.stem


def entries(folder: Path) -> list[Entry]:
    """The decoders of a folder, by name."""
    return [_entry(path) for path in sorted(folder.glob("*.nas"))]


def _entry(path: Path) -> Entry:
    decoder = load(path)
    text = decoder.source.text
    drawings = [_drawing(path.stem, path, text, fold=None)]
    once = re.sub(r"\brepeat +\d+ *\{", "repeat 1 {", text)
    full = _drawing(f"{path.stem}_full" if once == text else f"{path.stem}_once", path, once, fold=False)
    if full.dot != drawings[0].dot:
        drawings.append(full)
    return Entry(path, text, decoder.cost(SIZE, BACKBONE, CLASSES), tuple(drawings))


def _drawing(name: str, path: Path, text: str, fold: bool | None) -> Drawing:
    known = backbone(BACKBONE)
    graph = loads(text, path.name).lower(known.out_channels)
    return Drawing(name, emit_diagram(fold_graph(graph, cost(graph, SIZE, CLASSES, known), fold).diagram))


def about(text: str) -> str:
    """The comment at the beginning of a text, as Markdown paragraphs."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------- page


def page(decoders: list[Entry], spaces: Mapping[Path, Space]) -> str:
    """The text of ``zoo.md``."""
    height, width = SIZE
    parts = [
        "# The zoo",
        "Decoders and search spaces that come with the package, each written in the language alone. `nasdsl zoo` lists "
        "them, `nasdsl compile zoo:fcos` compiles one; `python -m nasdsl.report.zoo docs` writes this page from the "
        "folder `genotypes`.",
        f"Figures are for one image of {height}x{width} pixels (height x width), {CLASSES} classes and "
        f"{backbone(BACKBONE).description}. MACs are multiply-accumulates of convolutions, deformable ones in full; "
        "parameters are all parameters, frozen ones too. Layers that no output depends on are removed and not counted.",
        "\n".join(_summary(decoders)),
        "## Beside published figures",
        *REMARKS,
        "\n".join(_comparison({entry.name: entry.path for entry in decoders})),
        "## Decoders",
        *(part for entry in decoders for part in _decoder(entry)),
        "## Search spaces",
        *(part for path, space in spaces.items() for part in _space(path, space)),
    ]
    return "\n\n".join(parts) + "\n"


def checked(name: str) -> str:
    """How the figures of a decoder are checked: by published ones that they are compared with, by another check, or both."""
    sources = sorted({row.source for row in PUBLISHED if row.decoder == name})
    beside = [f"beside those of {'; '.join(sources)}, above"] if sources else []
    other = [CHECKED[name]] if name in CHECKED else []
    return ". Besides, ".join(beside + other)


def _summary(decoders: list[Entry]) -> Iterator[str]:
    yield "| decoder | MACs (G): fpn | head | detector | parameters (M): fpn | head | detector |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for entry in decoders:
        parts = (entry.table.fpn, entry.table.head, entry.table.total)
        cells = [f"{part.macs / 1e9:.2f}" for part in parts] + [f"{part.params / 1e6:.2f}" for part in parts]
        yield f"| [{entry.name}](#{entry.name}) | {' | '.join(cells)} |"


def _comparison(paths: Mapping[str, Path]) -> Iterator[str]:
    yield "| decoder | on | printed in | counted | published | ours | difference |"
    yield "|---|---|---|---|--:|--:|--:|"
    for row in PUBLISHED:
        found = compute_figure(row, paths[row.decoder])
        where = f"{row.backbone}, {row.size[0]}x{row.size[1]}, {row.classes} classes"
        digits = len(str(row.figure).partition(".")[2])
        percent = round(100 * (found / row.figure - 1), 1)
        difference = f"{percent:+.1f} %" if percent else "0.0 %"
        cells = (row.decoder, where, row.source, row.quantity.name, f"{row.figure}", f"{found:.{digits}f}", difference)
        yield f"| {' | '.join(cells)} |"


def _decoder(entry: Entry) -> Iterator[str]:
    table = entry.table
    yield f"### {entry.name}"
    yield about(entry.text)
    yield "\n".join(
        [
            "| | fpn | head | backbone | detector |",
            "|---|--:|--:|--:|--:|",
            *(
                f"| {words} | {' | '.join(f'{n:,}' for n in numbers)} |"
                for words, numbers in (
                    ("MACs", [part.macs for part in (table.fpn, table.head, table.backbone, table.total)]),
                    ("parameters", [part.params for part in (table.fpn, table.head, table.backbone, table.total)]),
                )
            ),
        ]
    )
    yield f"Figures: {checked(entry.name)}."
    shown = entry.drawings[0]
    yield f"[![{entry.name}]({_file(shown)})]({_file(shown)})"
    if len(entry.drawings) > 1:
        full = entry.drawings[1].name
        what = "with one turn of each `repeat`" if full.endswith("_once") else "in full"
        yield f"A box with a tab stands for the values of a block or a repeat. [The decoder {what}]({_file(entry.drawings[1])})"
    yield _details(entry.text)


def _space(path: Path, space: Space) -> Iterator[str]:
    yield f"### {path.stem}"
    yield about(space.source.text)
    kinds = Counter((domain.name or "in place", domain.size) for domain in space.domains)
    decisions = ", ".join(f"{count} `{name}` of {size}" for (name, size), count in kinds.items())
    yield f"{len(space.domains)} decisions ({decisions}), {space.size:,} decoders."
    yield _details(space.source.text)


def _details(text: str) -> str:
    return f"<details><summary>The text</summary>\n\n```\n{text.strip()}\n```\n\n</details>"


def _file(drawing: Drawing) -> str:
    return (PICTURES / f"{drawing.name}.svg").as_posix()


# ------------------------------------------------------------------------------------------------------ files


def read() -> tuple[list[Entry], dict[Path, Space]]:
    """Read the decoders of the zoo, and its spaces by path."""
    folder = resources.folder("genotypes")
    return entries(folder), {path: load_space(path) for path in sorted((folder / "spaces").glob("*.nas"))}


def write(folder: Path) -> None:
    """Write ``zoo.md`` and its pictures to `folder`, and remove pictures of decoders that no longer exist.

    Raises:
        RenderError: there is no Graphviz.
        OSError: a file cannot be written.
    """
    decoders, spaces = read()
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    drawings = {f"{drawing.name}.svg": drawing for entry in decoders for drawing in entry.drawings}
    for stale in pictures.glob("*.svg"):
        if stale.name not in drawings:
            stale.unlink()
    for name, drawing in drawings.items():
        if not is_current(drawing, pictures / name):
            (pictures / name).write_text(drawing.svg(), encoding="utf-8")
    (folder / "zoo.md").write_text(page(decoders, spaces), encoding="utf-8")


def is_current(drawing: Drawing, path: Path) -> bool:
    """Whether the file at `path` is of this drawing."""
    return path.is_file() and f"<!-- {drawing.digest} -->" in path.read_text(encoding="utf-8")


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m nasdsl.report.zoo FOLDER", file=sys.stderr)
        return 2
    write(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
