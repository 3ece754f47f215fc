"""Python source of nodes: calls that construct their modules, and statements that compute their values."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from nasdsl.ir.graph import Node
from nasdsl.layers import (
    GROUP_NORMS,
    Activation,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    GlobalPool,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
    is_sized,
)

Tree: TypeAlias = "dict[str, Tree | str]"
"""Constructor calls, nested by the path of their modules."""

_MAX_EXPRESSION = 100  # characters; the operands of a longer expression are assigned to variables
_MAX_INLINE = 64  # characters of an operand that is written into the expression that reads it


_NORMS = {
    "bn": "nn.BatchNorm2d({})",
    "ln": "LayerNorm2d({})",
    **{name: f"GroupNorm({groups}, {{}})" for name, groups in GROUP_NORMS.items()},
}


def constructor_call(node: Node, channels: str | None = None) -> str | None:
    """Call that constructs the module of a node; None for a layer without a module.

    Args:
        channels: expression for the channels that a convolution gives. None: those of the layer.
    """
    layer, width = node.layer, node.operands[0].width if node.operands else 0
    match layer:
        case Conv():
            layer = layer.resolved(node.operands[0])
            parts = [str(width), channels or str(layer.width), str(layer.k)]
            parts += [f"stride={layer.stride}"] * (layer.stride > 1)
            padding = layer.dilation * (layer.k - 1) // 2
            parts += [f"padding={padding}"] * (padding > 0)
            parts += [f"dilation={layer.dilation}"] * (layer.dilation > 1)
            parts += [f"groups={layer.groups}"] * (layer.groups > 1)
            parts += ["bias=False"] * (not layer.bias)
            return f"nn.Conv2d({', '.join(parts)})"
        case DeformConv():
            layer = layer.resolved(node.operands[0])
            parts = [str(width), channels or str(layer.width), str(layer.k)]
            parts += [
                f"{n}={getattr(layer, n)}" for n in ("stride", "dilation", "groups", "offset_groups") if getattr(layer, n) > 1
            ]
            parts += ["bias=False"] * (not layer.bias)
            return f"{'DeformConv2d' if len(node.inputs) == 1 else 'GuidedDeformConv2d'}({', '.join(parts)})"
        case Norm():
            return _NORMS[layer.norm].format(width)
        case Scale():
            return f"Scale({width})"
        case WeightedAdd():
            return f"WeightedAdd({len(node.inputs)})"
        case UpConv():
            layer = layer.resolved(node.operands[0])
            parts = [str(width), str(layer.width), str(layer.k), str(layer.stride)]
            parts += [f"groups={layer.groups}"] * (layer.groups > 1)
            parts += ["bias=False"] * (not layer.bias)
            return f"UpConv2d({', '.join(parts)})"
        case PixelShuffle():
            return f"PixelShuffle({layer.factor})"
        case Carafe():
            return f"Carafe({width}, {layer.factor}, {layer.k}, {layer.encoder_k}, {layer.compressed})"
        case Attention():
            return f"SelfAttention2d({width}, {layer.heads}{'' if layer.position == 'sine' else ', position=False'})"
        case CustomLayer():
            return layer.source(node.operands, node.out)
        case Input() | Activation() | Add() | Multiply() | Factor() | Term() | Maximum() | PlacewiseAdd() | Concat():
            return None
        case Split() | Result() | Resize() | Pool() | GlobalPool():
            return None


def module_tree(nodes: Sequence[Node], call_of: Callable[[Node], str | None] = constructor_call) -> Tree:
    """Constructor calls of all modules of the nodes, of those that share their weights once.

    Args:
        call_of: gives the call of a node; None for a layer without a module.
    """
    tree: Tree = {}
    for node in nodes:
        call = call_of(node)
        if call is None:
            continue
        at = tree
        *groups, name = node.weights.split(".")
        for group in groups:
            inner = at.setdefault(group, {})
            assert isinstance(inner, dict)
            at = inner
        at.setdefault(name, call)
    return tree


def module_source(entry: Tree | str, indent: str) -> str:
    """Expression that constructs a module, or a ``Group`` of modules.

    Args:
        indent: indentation of the statement it is part of.
    """
    if isinstance(entry, str):
        return entry
    inner = indent + "    "
    parts = [f"{name}={module_source(value, inner)}" for name, value in entry.items()]
    line = f"Group({', '.join(parts)})"
    if len(line) + len(indent) < _MAX_EXPRESSION and "\n" not in line:
        return line
    return "Group(\n" + "".join(f"{inner}{part},\n" for part in parts) + f"{indent})"


# ------------------------------------------------------------------------------------------------ expressions


def _expression(layer: Layer, x: Sequence[str], module: str) -> str:
    """Expression of a layer.

    Args:
        x: expressions of its operands.
        module: expression of its module.
    """
    match layer:
        case Conv() | DeformConv() | UpConv() | PixelShuffle() | Carafe() | Attention():
            return f"{module}({', '.join(x)})"
        case Norm() | Scale() | WeightedAdd() | CustomLayer():
            return f"{module}({', '.join(x)})"
        case Result():
            return f"{x[0]}[{layer.index}]"
        case Activation():
            prefix = "torch" if layer.function in ("sigmoid", "tanh") else "F"
            return f"{prefix}.{layer.function}({x[0]})"
        case Add():
            return f"({' + '.join(x)})"
        case Multiply():
            return f"({' * '.join(x)})"
        case PlacewiseAdd():
            return f"placewise_add({', '.join([x[-1], *x[:-1]])})"
        case Factor():
            return f"({x[0]} * {layer.value!r})"
        case Term():
            return f"({x[0]} {'-' if layer.value < 0 else '+'} {abs(layer.value)!r})"
        case Maximum():
            text = x[0]
            for operand in x[1:]:
                text = f"torch.maximum({text}, {operand})"
            return text
        case Concat():
            return f"torch.cat([{', '.join(x)}], dim=1)"
        case Split():
            return f"torch.chunk({x[0]}, {layer.parts}, dim=1)"
        case Resize():
            mode = 'mode="nearest"' if layer.mode == "nearest" else f'mode="bilinear", align_corners={layer.mode == "aligned"}'
            return f"F.interpolate({x[0]}, size=size[{layer.level}], {mode})"
        case Pool():
            cuts = ", ceil_mode=True" if layer.cuts else ""
            counted = "" if layer.pool == "max" else ", count_include_pad=False"
            return f"F.{layer.pool}_pool2d({x[0]}, {layer.k}, {layer.stride}, {layer.padding}{cuts}{counted})"
        case GlobalPool():
            return f"{x[0]}.{'amax' if layer.pool == 'max' else 'mean'}(dim=(2, 3), keepdim=True)"
        case Input():
            return x[0]


class StatementWriter:
    """Writes nodes as assignments. A node that only the next node of the same value reads is written inline.

    Args:
        nodes: in topological order.
        results: ids of the nodes that are read from outside.
        module: expression of a node's module.
        start: expression of each input, by name.

    Attributes:
        lines: the statements.
        text: expression or variable of each node, by id.
    """

    def __init__(
        self, nodes: Sequence[Node], results: Sequence[str], module: Callable[[Node], str], start: Mapping[str, str]
    ) -> None:
        self.lines: list[str] = []
        self.text: dict[str, str] = {}
        self._names: set[str] = {"self", "features", "size", "level", "layer", "torch", "nn", "math", "F", *start.values()}
        self._inlined: set[str] = set()
        self._comments: set[str] = set()
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
            if len(expression) > _MAX_EXPRESSION:
                for operand in node.inputs:
                    if operand in self._inlined and len(self.text[operand]) > len(operand):
                        self._assign(node, operand, operand.rsplit(".", 1)[0], self.text[operand])
                expression = self._of(node, module(node))
            found = readers.get(node.id, [])
            inline = len(found) == 1 and found[0].value is node.value and node.id not in results
            if inline and len(expression) <= _MAX_INLINE:
                self.text[node.id] = expression
                self._inlined.add(node.id)
                continue
            if isinstance(node.layer, Add | Multiply | Factor | Term):
                expression = expression[1:-1]  # no parentheses around a whole expression
            is_value = last_of[id(node.value)] == node.id
            self._assign(node, node.id, node.value.name if is_value else node.id, expression)

    def _of(self, node: Node, module: str) -> str:
        operands = [self.text[i] for i in node.inputs]
        if isinstance(node.layer, Concat) and node.out.level is not None and any(f.level is None for f in node.operands):
            return f"torch.cat(expand_pooled({', '.join(operands)}), dim=1)"
        if is_sized(node.layer) and node.out.level is not None:
            operands = [*operands, f"size=size[{node.out.level}]"]
        return _expression(node.layer, operands, module)

    def _assign(self, node: Node, id: str, wanted: str, expression: str) -> None:
        comment = _comment(node)
        if comment not in self._comments:
            self._comments.add(comment)
            self.lines.append(f"# {comment}")
        name = self._name(wanted)
        self.lines.append(f"{name} = {expression}")
        self.text[id] = name
        self._inlined.discard(id)

    def _name(self, wanted: str) -> str:
        base = "".join(c if c.isalnum() else "_" for c in wanted)
        name, number = base, 1
        while name in self._names or not name.isidentifier() or keyword.iskeyword(name):
            number += 1
            name = f"{base}_{number}" if base.isidentifier() else f"v_{base}_{number}"
        self._names.add(name)
        return name


def _comment(node: Node) -> str:
    """Line and text of the value that a node belongs to."""
    span = node.value.span
    text = " ".join(span.text.split())
    what = f"{node.value.name}: {node.value.op}" if node.value.kind in ("adapter", "merge") else text
    return f"line {span.line}: {what if len(what) <= 90 else what[:89] + '…'}"
