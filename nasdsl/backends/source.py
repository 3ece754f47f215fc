"""Graph to stand-alone PyTorch source: one readable file that needs torch only, with the module's parameter names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from nasdsl.ir.graph import Graph, HeadLayer, Node
from nasdsl.layers import (
    GROUP_NORM_GROUPS,
    Activation,
    Add,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    GlobalPool,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    Pool,
    Resize,
    Scale,
    WeightedAdd,
)
from nasdsl.semantics.architecture import Fcos

Tree: TypeAlias = "dict[str, Tree | str]"
"""Constructor calls by the path of the module that they make."""

_WIDEST = 100  # characters of an expression; operands of a longer one are given names
_INLINE = 64  # characters of an operand that goes into its reader's line


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
            *_fpn(graph),
            *_head(graph),
            *_decoder(graph, classes),
        ]
    )


def _all_nodes(graph: Graph) -> list[Node]:
    return [*graph.nodes, *(n for t in graph.head.towers for layer in t.layers for n in layer.nodes)]


# ------------------------------------------------------------------------------------------------- the frame


def _preamble(graph: Graph, text: str, version: str) -> list[str]:
    quoted = text.strip("\n").replace("\\", "\\\\").replace('"""', '\\"""')
    features = ", ".join(f'"{name}": {width}' for name, width in graph.in_channels.items())
    return [
        f'"""{graph.name}: an object detector\'s decoder, written by nasdsl{" " + version if version else ""}. It needs torch only.',
        "",
        f"Backbone features: {{{features}}} (channels).",
        *(["", "The text that it was compiled from:", "", *("    " + line if line else "" for line in quoted.splitlines())] if text else []),
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
    from nasdsl.nn import deform, fusion

    pieces: list[object] = [fusion.Group]
    if DeformConv in kinds:
        pieces += [deform.deform_conv2d, deform.DeformConv2d]
    if Scale in kinds:
        pieces.append(fusion.Scale)
    if WeightedAdd in kinds:
        pieces.append(fusion.WeightedAdd)
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
            f'        "{n.layer.name}": torch.randn(1, {n.out.width}, {256 >> (n.out.level or 0)}, {320 >> (n.out.level or 0)}),'
            for n in graph.inputs()
            if isinstance(n.layer, Input)
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


# ---------------------------------------------------------------------------------------------- constructors


def _constructor(node: Node) -> str | None:
    """The call that makes a node's module; None for a layer that has none."""
    layer, width = node.layer, node.operands[0].width if node.operands else 0
    match layer:
        case Conv():
            parts = [str(width), str(layer.width), str(layer.k)]
            parts += [f"stride={layer.stride}"] * (layer.stride > 1)
            padding = layer.dilation * (layer.k - 1) // 2
            parts += [f"padding={padding}"] * (padding > 0)
            parts += [f"dilation={layer.dilation}"] * (layer.dilation > 1)
            parts += [f"groups={layer.groups}"] * (layer.groups > 1)
            parts += ["bias=False"] * (not layer.bias)
            return f"nn.Conv2d({', '.join(parts)})"
        case DeformConv():
            parts = [str(width), str(layer.width), str(layer.k)]
            parts += [
                f"{n}={getattr(layer, n)}" for n in ("stride", "dilation", "groups", "offset_groups") if getattr(layer, n) > 1
            ]
            parts += ["bias=False"] * (not layer.bias)
            return f"DeformConv2d({', '.join(parts)})"
        case Norm():
            return f"nn.BatchNorm2d({width})" if layer.norm == "bn" else f"nn.GroupNorm({GROUP_NORM_GROUPS}, {width})"
        case Scale():
            return f"Scale({width})"
        case WeightedAdd():
            return f"WeightedAdd({len(node.inputs)})"
        case CustomLayer():
            return layer.source(node.operands, node.out)
        case Input() | Activation() | Add() | Multiply() | Maximum() | Concat() | Resize() | Pool() | GlobalPool():
            return None


def _tree(nodes: Sequence[Node]) -> Tree:
    tree: Tree = {}
    for node in nodes:
        constructor = _constructor(node)
        if constructor is None:
            continue
        at = tree
        *groups, name = node.id.split(".")
        for group in groups:
            inner = at.setdefault(group, {})
            assert isinstance(inner, dict)
            at = inner
        at[name] = constructor
    return tree


def _construct(entry: Tree | str, indent: str) -> str:
    if isinstance(entry, str):
        return entry
    inner = indent + "    "
    parts = [f"{name}={_construct(value, inner)}" for name, value in entry.items()]
    line = f"Group({', '.join(parts)})"
    if len(line) + len(indent) < _WIDEST and "\n" not in line:
        return line
    return "Group(\n" + "".join(f"{inner}{part},\n" for part in parts) + f"{indent})"


# ------------------------------------------------------------------------------------------------ expressions


def _expression(layer: Layer, x: Sequence[str], module: str) -> str:
    """A node as an expression over its operands' expressions; `module` is where its own module is."""
    match layer:
        case Conv() | DeformConv() | Norm() | Scale() | WeightedAdd() | CustomLayer():
            return f"{module}({', '.join(x)})"
        case Activation():
            prefix = "torch" if layer.function in ("sigmoid", "tanh") else "F"
            return f"{prefix}.{layer.function}({x[0]})"
        case Add():
            return f"({' + '.join(x)})"
        case Multiply():
            return f"({' * '.join(x)})"
        case Maximum():
            text = x[0]
            for operand in x[1:]:
                text = f"torch.maximum({text}, {operand})"
            return text
        case Concat():
            return f"torch.cat([{', '.join(x)}], dim=1)"
        case Resize():
            corners = "" if layer.mode == "nearest" else ", align_corners=False"
            return f'F.interpolate({x[0]}, size=size[{layer.level}], mode="{layer.mode}"{corners})'
        case Pool():
            padding = (layer.k - 1) // 2
            if layer.pool == "max":
                return f"F.max_pool2d({x[0]}, {layer.k}, {layer.stride}, {padding})"
            return f"F.avg_pool2d({x[0]}, {layer.k}, {layer.stride}, {padding}, count_include_pad=False)"
        case GlobalPool():
            return f"{x[0]}.{'amax' if layer.pool == 'max' else 'mean'}(dim=(2, 3), keepdim=True)"
        case Input():
            return x[0]


class _Writer:
    """Writes nodes as statements: what is used once, by the same value, goes into its reader's line."""

    def __init__(
        self, nodes: Sequence[Node], results: Sequence[str], module: Callable[[Node], str], start: Mapping[str, str]
    ) -> None:
        self.lines: list[str] = []
        self.text: dict[str, str] = {}
        self._names: set[str] = {"self", "features", "size", "level", "layer", "torch", "nn", "math", "F", *start.values()}
        self._inlined: set[str] = set()
        self._shown: set[str] = set()
        readers: dict[str, list[Node]] = {}
        for node in nodes:
            for source in node.inputs:
                readers.setdefault(source, []).append(node)
        last_of = {id(n.value): n.id for n in nodes}
        for node in nodes:
            if isinstance(node.layer, Input):
                self.text[node.id] = start[node.layer.name]
                continue
            expression = self._of(node, module(node))
            if len(expression) > _WIDEST:
                for operand in node.inputs:
                    if operand in self._inlined and len(self.text[operand]) > len(operand):
                        self._assign(node, operand, operand.rsplit(".", 1)[0], self.text[operand])
                expression = self._of(node, module(node))
            using = readers.get(node.id, [])
            alone = len(using) == 1 and using[0].value is node.value and node.id not in results
            if alone and len(expression) <= _INLINE:
                self.text[node.id] = expression
                self._inlined.add(node.id)
                continue
            if isinstance(node.layer, Add | Multiply):
                expression = expression[1:-1]  # no brackets around a whole line
            is_value = last_of[id(node.value)] == node.id
            self._assign(node, node.id, node.value.name if is_value else node.id, expression)

    def _of(self, node: Node, module: str) -> str:
        operands = [self.text[i] for i in node.inputs]
        if isinstance(node.layer, Concat) and node.out.level is not None and any(f.level is None for f in node.operands):
            return f"torch.cat(one_size({', '.join(operands)}), dim=1)"
        return _expression(node.layer, operands, module)

    def _assign(self, node: Node, id: str, wanted: str, expression: str) -> None:
        where = _where(node)
        if where not in self._shown:
            self._shown.add(where)
            self.lines.append(f"# {where}")
        name = self._name(wanted)
        self.lines.append(f"{name} = {expression}")
        self.text[id] = name
        self._inlined.discard(id)

    def _name(self, wanted: str) -> str:
        base = "".join(c if c.isalnum() else "_" for c in wanted)
        name, number = base, 1
        while name in self._names or not name.isidentifier() or _is_keyword(name):
            number += 1
            name = f"{base}_{number}" if base.isidentifier() else f"v_{base}_{number}"
        self._names.add(name)
        return name


def _is_keyword(name: str) -> bool:
    import keyword

    return keyword.iskeyword(name)


def _where(node: Node) -> str:
    span = node.value.span
    text = " ".join(span.text.split())
    what = f"{node.value.name}: {node.value.op}" if node.value.kind in ("adapter", "merge") else text
    return f"line {span.line}: {what if len(what) <= 90 else what[:89] + '…'}"


# ------------------------------------------------------------------------------------------------ fpn and head


def _fpn(graph: Graph) -> list[str]:
    tree = _tree(graph.nodes)
    inputs = {n.layer.name: f'features["{n.layer.name}"]' for n in graph.inputs() if isinstance(n.layer, Input)}
    results = list(graph.outputs.values())
    writer = _Writer(graph.nodes, results, lambda n: f"self.{n.id}", inputs)
    lines = [
        "class Fpn(Group):",
        '    """The feature pyramid."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(f"        self.{name} = {_construct(entry, '        ')}" for name, entry in tree.items()),
        "",
        "    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:",
        *_sizes(graph),
        *(f"        {line}" for line in writer.lines),
    ]
    bound = ", ".join(f'"{name}": {writer.text[node]}' for name, node in graph.outputs.items())
    return [*lines, f"        return {{{bound}}}", "", ""]


def _sizes(graph: Graph) -> list[str]:
    """Statements that bind `size`: height and width of each level that something is resized to."""
    needed = sorted({n.layer.level for n in graph.nodes if isinstance(n.layer, Resize)})
    known = {n.out.level: n.layer.name for n in graph.inputs() if isinstance(n.layer, Input) and n.out.level is not None}
    entries = []
    for level in needed:
        finer = [k for k in known if k <= level]
        nearest = max(finer) if finer else min(known)
        shape = f'features["{known[nearest]}"].shape[2:]'
        factor = 2 ** abs(level - nearest)
        if nearest == level:
            entries.append(f"{level}: {shape}")
        elif nearest < level:
            entries.append(f"{level}: [(n + {factor - 1}) // {factor} for n in {shape}]")
        else:
            entries.append(f"{level}: [n * {factor} for n in {shape}]")
    if not entries:
        return []
    return [
        "        # Height and width of the levels that features are resized to.",
        f"        size = {{{', '.join(entries)}}}",
    ]


def _head(graph: Graph) -> list[str]:
    levels = tuple(graph.outputs)
    lines = [
        "class Head(Group):",
        '    """The towers and predictions, applied to every level."""',
        "",
        f"    levels = {levels!r}",
        "",
        "    def __init__(self, classes: int) -> None:",
        "        super().__init__()",
    ]
    for tower in graph.head.towers:
        lines.append(f"        self.{tower.name} = nn.ModuleDict()")
        lines += [line for layer in tower.layers for line in _head_layer_init(tower.name, layer)]
    for p in graph.head.predictions:
        channels = f"{p.per_class} * classes" if p.per_class > 1 else "classes" if p.per_class else str(p.fixed)
        bias = ", PRIOR_BIAS" if p.name == "cls_logits" else ""
        lines.append(f"        self.{p.name} = prediction({p.width}, {channels}{bias})")
    fcos = isinstance(graph.predict, Fcos)
    if fcos:
        lines.append("        self.scale = nn.ParameterDict({level: nn.Parameter(torch.ones(())) for level in self.levels})")
    for tower in graph.head.towers:
        lines += _tower(tower.name, tower.layers)
    towers = {p.name: p.tower for p in graph.head.predictions}
    box = f"self.bbox_reg({towers['bbox_reg']})"
    lines += [
        "",
        "    def forward(self, pyramid: dict[str, Tensor]) -> dict[str, Prediction]:",
        "        predictions = {}",
        "        for level in self.levels:",
        *(f"            {t.name} = self.tower_{t.name}(pyramid[level], level)" for t in graph.head.towers),
        "            predictions[level] = Prediction(",
        f"                self.cls_logits({towers['cls_logits']}),",
        f"                torch.exp(self.scale[level] * {box})," if fcos else f"                {box},",
        f"                self.centerness({towers['centerness']})," if fcos else "                None,",
        "            )",
        "        return predictions",
        "",
        "",
    ]
    return lines


def _head_layer_init(tower: str, layer: HeadLayer) -> list[str]:
    tree = _tree(layer.nodes)
    if not tree:
        return []
    place = f'        self.{tower}["{layer.index}"] = '
    if layer.shared:
        return [place + _construct(tree, "        ")]
    made = _construct(tree, "            ")
    return [place + "nn.ModuleDict({", f"            level: {made} for level in self.levels", "        })"]


def _tower(name: str, layers: Sequence[HeadLayer]) -> list[str]:
    lines = ["", f"    def tower_{name}(self, x: Tensor, level: str) -> Tensor:"]
    for layer in layers:
        sharing = "shared by all levels" if layer.shared else "one for each level"
        if layer.is_identity:
            continue
        has_modules = any(_constructor(n) is not None for n in layer.nodes)
        lines.append(
            f"        # {layer.index}: {layer.op}, {sharing}" if has_modules else f"        # {layer.index}: {layer.op}"
        )
        if has_modules:
            lines.append(f'        layer = self.{name}["{layer.index}"]' + ("" if layer.shared else "[level]"))
        inside = _Writer(layer.nodes, [layer.result], lambda n: f"layer.{n.id}", {"x": "x"})
        lines += [f"        {line}" for line in inside.lines if not line.startswith("#")]
        last = inside.lines[-1]
        bound = inside.text[layer.result]
        if last.startswith(f"{bound} = "):
            lines[-1] = f"        x = {last[len(bound) + 3 :]}"
        else:
            lines.append(f"        x = {bound}")
    return [*lines, "        return x"]
