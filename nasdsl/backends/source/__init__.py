"""Graph to stand-alone PyTorch source: one readable file that needs torch only, with the module's parameter names."""

from __future__ import annotations

import inspect

from nasdsl.backends.source.classes import fpn_class, head_class
from nasdsl.ir.graph import Graph, Node
from nasdsl.layers import Concat, Conv, DeformConv, Input, Norm, Scale, WeightedAdd


def emit_source(graph: Graph, classes: int, *, text: str = "", version: str = "") -> str:
    """The source of a decoder.

    Args:
        classes: number of classes that the file's ``Decoder()`` has by default.
        text: the decoder's own text, kept in the file's docstring.
        version: of nasdsl, likewise.

    Raises:
        TypeError: it has a `CustomLayer` that does not say how it is written as source.
    """
    kinds = {type(n.layer) for n in _all_nodes(graph)}
    return "\n".join(
        [
            *_preamble(graph, text, version),
            *_helpers(graph, kinds),
            *fpn_class(graph),
            *head_class(graph),
            *_decoder(graph, classes),
        ]
    )


def _all_nodes(graph: Graph) -> list[Node]:
    return [*graph.nodes, *(n for t in graph.head.towers for layer in t.layers for n in layer.nodes)]


def _preamble(graph: Graph, text: str, version: str) -> list[str]:
    quoted = text.strip("\n").replace("\\", "\\\\").replace('"""', '\\"""')
    features = ", ".join(f'"{name}": {width}' for name, width in graph.in_channels.items())
    origin = ["", "The text that it was compiled from:", ""] if text else []
    return [
        f'"""{graph.name}: the decoder of an object detector, written by {" ".join(["nasdsl", version]).rstrip()}.',
        "",
        "This file needs torch only.",
        f"Backbone features: {{{features}}} (channels).",
        *origin,
        *(f"    {line}".rstrip() for line in quoted.splitlines()),
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


def _helpers(graph: Graph, kinds: set[type]) -> list[str]:
    from nasdsl.backends import module
    from nasdsl.nn import DeformConv2d, fusion, norm
    from nasdsl.nn.deform import plain

    pieces: list[object] = [fusion.Group]
    if DeformConv in kinds:
        pieces += [plain.deform_conv2d, DeformConv2d]
    if Scale in kinds:
        pieces.append(fusion.Scale)
    if WeightedAdd in kinds:
        pieces.append(fusion.WeightedAdd)
    if any(isinstance(n.layer, Norm) and n.layer.norm == "gn" for n in _all_nodes(graph)):
        pieces.append(norm.GroupNorm)
    pieces.append(module.Prediction)
    lines: list[str] = []
    for piece in pieces:
        lines += [inspect.getsource(piece).rstrip(), "", ""]  # type: ignore[arg-type]  # classes and functions
    if Concat in kinds and any(n.operands[0].level is None for n in _all_nodes(graph) if n.operands):
        lines += [
            "def one_size(*operands: Tensor) -> list[Tensor]:",
            '    """Values of one position spread over the map of the others."""',
            "    height, width = (max(o.shape[d] for o in operands) for d in (2, 3))",
            "    return [o.expand(-1, -1, height, width) if o.shape[2:] != (height, width) else o for o in operands]",
            "",
            "",
        ]
    prior = module.PRIOR
    lines += [
        "def prediction(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:",
        '    """A final convolution: N(0, 0.01)."""',
        "    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)",
        "    nn.init.normal_(conv.weight, std=0.01)",
        "    nn.init.constant_(conv.bias, bias)",
        "    return conv",
        "",
        "",
        f"PRIOR_BIAS = -math.log((1 - {prior}) / {prior})",
        f'"""The class logits start at a probability of {prior}."""',
        "",
        "",
    ]
    return lines


def _decoder(graph: Graph, classes: int) -> list[str]:
    return [
        "class Decoder(nn.Module):",
        '    """The whole decoder: backbone features to predictions."""',
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
    strided = [n for n in graph.nodes if n.value.kind == "output" and isinstance(n.layer, Conv) and n.layer.stride > 1]
    if not strided:
        return []
    convs = ", ".join(f"self.fpn.{n.id}" for n in strided)
    trailing = "," if len(strided) == 1 else ""
    lines = [f"        for conv in ({convs}{trailing}):", "            nn.init.kaiming_uniform_(conv.weight, a=1)"]
    if all(isinstance(n.layer, Conv) and n.layer.bias for n in strided):
        lines.append("            nn.init.zeros_(conv.bias)")
    return lines
