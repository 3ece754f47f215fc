"""Graph to stand-alone PyTorch source: one file that needs only torch and has the module's parameter names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Final

from nasdsl.backends.export import all_nodes
from nasdsl.backends.initialization import PRIOR, offset_predictors, strided_outputs
from nasdsl.backends.source.classes import fpn_class, head_class
from nasdsl.backends.source.definitions import definition
from nasdsl.ir.graph import Graph
from nasdsl.layers import (
    GROUP_NORMS,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Input,
    Layer,
    Norm,
    PixelShuffle,
    PlacewiseAdd,
    PrimitiveError,
    Scale,
    UpConv,
    WeightedAdd,
)
from nasdsl.layers.custom import describe


def emit_source(graph: Graph, classes: int, *, text: str = "", version: str = "") -> str:
    """Write the source of a decoder.

    Args:
        classes: default number of classes of the file's ``Decoder``.
        text: text of the decoder, for the file's docstring.
        version: version of nasdsl, for the file's docstring.

    Raises:
        TypeError: a `CustomLayer` without a ``source`` method.
    """
    return "\n".join([*_preamble(graph, text, version), *decoder_classes(graph, classes), *_main(graph)])


def decoder_classes(graph: Graph, classes: int, *, deform_conv2d: str | None = None, exact_boxes: bool = False) -> list[str]:
    """Lines of the class ``Decoder`` and what it needs, for a file that imports math, NamedTuple, torch, Tensor, nn and F.

    Args:
        classes: default number of classes.
        deform_conv2d: source of the function of this name, which deformable convolutions call. None: the one on
            ``grid_sample``.
        exact_boxes: boxes are predicted in float32 also under ``torch.autocast``, with the file's function ``exact``.

    Raises:
        TypeError: a `CustomLayer` without a ``source`` method.
    """
    return [
        *_definitions(graph, deform_conv2d),
        *fpn_class(graph),
        *head_class(graph, exact_boxes=exact_boxes),
        *_decoder(graph, classes),
    ]


def _preamble(graph: Graph, text: str, version: str) -> list[str]:
    """Docstring and imports."""
    features = ", ".join(f'"{name}": {width}' for name, width in graph.in_channels.items())
    origin = ["", "Compiled from:", ""] if text else []
    return [
        f'"""{graph.name}: the decoder of an object detector, written by {" ".join(["nasdsl", version]).rstrip()}.',
        "",
        "This file needs torch only.",
        f"Backbone features: {{{features}}} (channels).",
        *origin,
        *quoted(text),
        '"""',
        "",
        "import math",
        "from typing import NamedTuple",
        "",
        "import torch",
        "from torch import Tensor, nn",
        "from torch.nn import functional as F",
        "",
        "",
    ]  # fmt: skip


def quoted(text: str) -> list[str]:
    """Lines of a text, indented, inside of a docstring."""
    escaped = text.strip("\n").replace("\\", "\\\\").replace('"""', '\\"""')
    return [f"    {line}".rstrip() for line in escaped.splitlines()]


_LAYERS: Final[dict[type[Layer], tuple[str, str]]] = {
    Scale: ("nasdsl.nn.fusion", "Scale"),
    WeightedAdd: ("nasdsl.nn.fusion", "WeightedAdd"),
    PlacewiseAdd: ("nasdsl.nn.fusion", "placewise_add"),
    UpConv: ("nasdsl.nn.upsampling", "UpConv2d"),
    PixelShuffle: ("nasdsl.nn.upsampling", "PixelShuffle"),
    Carafe: ("nasdsl.nn.upsampling", "Carafe"),
    Attention: ("nasdsl.nn.attention", "SelfAttention2d"),
}
"""Module and name of what the file needs for each kind of layer."""


def _definitions(graph: Graph, deform_conv2d: str | None) -> list[str]:
    """Functions and classes of nasdsl that the decoder needs, copied."""
    kinds = {type(n.layer) for n in all_nodes(graph)}
    pieces = [definition("nasdsl.nn.fusion", "Group")]
    if DeformConv in kinds:
        pieces.append(deform_conv2d or definition("nasdsl.nn.deform.reference", "deform_conv2d"))
        pieces.append(definition("nasdsl.nn.deform.layer", "GuidedDeformConv2d"))
    if any(isinstance(n.layer, DeformConv) and len(n.inputs) == 1 for n in all_nodes(graph)):
        pieces.append(definition("nasdsl.nn.deform.layer", "DeformConv2d"))
    pieces += [definition(*place) for kind, place in _LAYERS.items() if kind in kinds]
    norms = {n.layer.norm for n in all_nodes(graph) if isinstance(n.layer, Norm)}
    pieces += [definition("nasdsl.nn.norm", "GroupNorm")] * (not norms.isdisjoint(GROUP_NORMS))
    pieces += [definition("nasdsl.nn.norm", "LayerNorm2d")] * ("ln" in norms)
    pieces.append(definition("nasdsl.backends.module", "Prediction"))
    taken = {name for piece in pieces for name in re.findall(r"^(?:class|def) (\w+)", piece, re.MULTILINE)}
    pieces += [inspect.getsource(piece) for piece in _custom_definitions(graph, taken)]  # type: ignore[arg-type]  # classes and functions
    lines: list[str] = []
    for piece in pieces:
        lines += [piece.rstrip(), "", ""]
    if Concat in kinds and any(n.operands[0].level is None for n in all_nodes(graph) if n.operands):
        lines += [
            "def expand_pooled(*operands: Tensor) -> list[Tensor]:",
            '    """Expand globally pooled values to the height and width of the others."""',
            "    height, width = (max(o.shape[d] for o in operands) for d in (2, 3))",
            "    return [o.expand(-1, -1, height, width) if o.shape[2:] != (height, width) else o for o in operands]",
            "",
            "",
        ]
    lines += [
        "def prediction(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:",
        '    """A prediction convolution, initialized with N(0, 0.01)."""',
        "    nn.init.normal_(conv.weight, std=0.01)",
        "    nn.init.constant_(conv.bias, bias)",
        "    return conv",
        "",
        "",
        f"PRIOR_BIAS = -math.log((1 - {PRIOR}) / {PRIOR})",
        f'"""Initial bias of the class logits: a probability of {PRIOR}."""',
        "",
        "",
    ]
    return lines


_TAKEN = frozenset(
    ("Decoder", "Fpn", "Head", "Tensor", "NamedTuple", "expand_pooled", "prediction", "torch", "nn", "F", "math")
)


def _custom_definitions(graph: Graph, taken: set[str]) -> list[object]:
    """Classes and functions that the expressions of custom layers name, each once.

    Raises:
        PrimitiveError: one has a name that something else in the file has.
    """
    found: dict[object, None] = {}
    names: dict[str, object] = dict.fromkeys(taken | _TAKEN)
    for node in all_nodes(graph):
        if not isinstance(node.layer, CustomLayer):
            continue
        for piece in node.layer.definitions():
            name = getattr(piece, "__name__", None)
            if name is not None and names.setdefault(name, piece) is not piece:
                raise PrimitiveError(f"{describe(type(node.layer))}: the file has another {name} already; rename it")
            found[piece] = None
    return list(found)


def _decoder(graph: Graph, classes: int) -> list[str]:
    return [
        "class Decoder(nn.Module):",
        '    """Decoder: backbone features to predictions."""',
        "",
        f"    def __init__(self, classes: int = {classes}) -> None:",
        "        super().__init__()",
        "        self.fpn = Fpn()",
        "        self.head = Head(classes)",
        *_initialise(graph),
        "",
        "    def pyramid(self, features: dict[str, Tensor]) -> dict[str, Tensor]:",
        '        """Backbone features to the pyramid."""',
        "        return self.fpn(features)",
        "",
        "    def forward(self, features: dict[str, Tensor]) -> dict[str, Prediction]:",
        '        """Backbone features to a prediction for each level."""',
        "        return self.head(self.fpn(features))",
        "",
        "",
    ]


def _main(graph: Graph) -> list[str]:
    return [
        'if __name__ == "__main__":',
        "    decoder = Decoder()",
        "    features = {",
        *(
            f'        "{n.layer.name}": torch.randn(1, {n.out.width}, {256 >> n.out.level}, {320 >> n.out.level}),'
            for n in graph.inputs()
            if isinstance(n.layer, Input) and n.out.level is not None
        ),
        "    }",
        "    for level, predicted in decoder(features).items():",
        "        print(level, *(list(p.shape) for p in predicted if p is not None))",
        "",
    ]


def _initialise(graph: Graph) -> list[str]:
    lines = []
    strided = strided_outputs(graph)
    if strided:
        convs = _tuple([f"self.fpn.{n.weights}" for n in strided])
        lines += [f"        for conv in {convs}:", "            nn.init.kaiming_uniform_(conv.weight, a=1)"]
        biased = [isinstance(n.layer, Conv) and n.layer.bias for n in strided]
        if all(biased):
            lines.append("            nn.init.zeros_(conv.bias)")
        elif any(biased):
            lines += ["            if conv.bias is not None:", "                nn.init.zeros_(conv.bias)"]
    predictors = [f"self.fpn.{node.weights}" for node in offset_predictors(graph.nodes)]
    for tower in graph.head.chains:
        for layer in tower.layers:
            place = f'self.head.{tower.name}["{layer.index}"]'
            for node in offset_predictors(layer.nodes):
                each = f"*(level.{node.weights} for level in {place}.values())"
                predictors.append(f"{place}.{node.weights}" if layer.shared else each)
    if predictors:
        lines += [
            "        # What predicts the offsets of deformable convolutions.",
            f"        for conv in {_tuple(predictors)}:",
            "            for parameter in conv.parameters():",
            "                nn.init.zeros_(parameter)",
        ]
    return lines


def _tuple(expressions: Sequence[str]) -> str:
    return f"({', '.join(expressions)}{',' if len(expressions) == 1 else ''})"
