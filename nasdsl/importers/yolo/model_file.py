"""A model file as layers, each with its place in the YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from nasdsl.diagnostics import Code, Diagnostic, Source, Span
from nasdsl.yaml_files import compose_yaml

MISTAKE = Code(
    code="import",
    title="a mistake in a model file",
    text="A file of another format cannot be converted. Mistakes of such files have no codes of their own.",
    bad="",
    good="",
)
"""What a diagnostic of an importer is; it is not in the catalogue, whose codes are of `.nas` texts."""

MAX_CHARACTERS = 1_000_000
MAX_LAYERS = 10_000
MAX_MULTIPLE = 1e9
"""A multiple, or a bound on channels, is below this."""
MAX_REPEATS = 1000

_FORM = "expected [from, repeats, module, args], such as [-1, 1, Conv, [64, 3, 2]]"


class Item(NamedTuple):
    """A value of the YAML: None, a bool, a number, a string, or a list of items."""

    value: Any
    span: Span


@dataclass(frozen=True)
class LayerLine:
    """One line ``[from, repeats, module, args]``.

    Attributes:
        index: its number in the network, backbone first.
        sources: numbers of the layers that it reads, as written.
        repeats: how often the module stands, before the depth multiple.
        module: its name without ``nn.`` and packages.
        args: its arguments.
        in_head: whether it is of the list ``head``.
    """

    index: int
    sources: tuple[Item, ...]
    repeats: Item
    module: Item
    args: tuple[Item, ...]
    in_head: bool
    span: Span


class Scale(NamedTuple):
    """An entry of ``scales``.

    Attributes:
        name: empty where the file names none.
        depth, width: multiples of repeats and channels.
        max_channels: bound on the channels, before the multiple.
    """

    name: str = ""
    depth: float = 1.0
    width: float = 1.0
    max_channels: float = math.inf


@dataclass(frozen=True)
class ModelFile:
    """A model file.

    Attributes:
        layers: of backbone and head; a line with a mistake is None.
        scale: what repeats and channels are multiplied by.
        classes: ``nc``.
        activation: name of the activation in the language.
        anchors: whether the file has a list of anchors.
    """

    layers: tuple[LayerLine | None, ...]
    scale: Scale
    classes: int
    activation: str
    anchors: bool


class Problems:
    """Collects the mistakes of a file."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []

    def in_order(self) -> list[Diagnostic]:
        """The mistakes in the order of the file."""
        return sorted(self.found, key=lambda problem: problem.span.start)

    def add(self, span: Span, message: str, label: str = "", help: str = "") -> None:
        self.found.append(MISTAKE(span, message, label=label, help=help))


def read_model_file(source: Source, scale: str | None, problems: Problems) -> ModelFile | None:
    """Read a model file; None where nothing can be said about its layers.

    Args:
        scale: the scale to take; None for the one that the file names, or its first.
    """
    whole = Span(source, 0, min(1, len(source.text)))
    if len(source.text) > MAX_CHARACTERS:
        problems.add(
            whole, f"the file has {len(source.text):,} characters; model files of more than {MAX_CHARACTERS:,} are not read"
        )
        return None
    try:
        node = compose_yaml(source.text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = min(mark.index if mark else 0, len(source.text))
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        problems.add(Span(source, at, at + 1), f"not YAML: {reason}")
        return None
    if not isinstance(node, yaml.MappingNode):
        problems.add(whole, "no model file", "expected `backbone:` and `head:`, each a list of layers")
        return None
    top = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    reader = _Reader(source, problems)
    layers: list[LayerLine | None] = []
    for section in ("backbone", "head"):
        if section not in top:
            problems.add(whole, f"no `{section}:`", f"expected a list of layers; the file has {', '.join(top) or 'nothing'}")
            continue
        value = top[section][1]
        if not isinstance(value, yaml.SequenceNode) or not value.value:
            problems.add(reader.span(value), f"`{section}` is no list of layers", _FORM)
            continue
        if len(value.value) > MAX_LAYERS:
            problems.add(reader.span(value), f"`{section}` has {len(value.value):,} layers, more than {MAX_LAYERS:,}")
            return None
        for line in value.value:
            layers.append(reader.line(line, len(layers), in_head=section == "head"))
    values = {name: reader.item(value) for name, (_, value) in top.items() if name not in ("backbone", "head")}
    classes = values.get("nc", Item(80, whole))
    if not _is_count(classes.value):
        problems.add(classes.span, f"`nc` is {_shown(classes)}", "expected the number of classes")
        classes = Item(80, whole)
    chosen = _scale(values, top, scale, reader, problems)
    return ModelFile(tuple(layers), chosen, int(classes.value), _activation(values, problems), "anchors" in values)


class _Reader:
    """Turns nodes of the YAML into items."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source = source
        self.problems = problems
        self._constructor = yaml.constructor.SafeConstructor()

    def span(self, node: yaml.Node) -> Span:
        return Span(self.source, node.start_mark.index, max(node.end_mark.index, node.start_mark.index + 1))

    def item(self, node: yaml.Node, depth: int = 0) -> Item:
        """The value of a node. A mapping, and what is nested deeper than lists of layers are, is its text."""
        span = self.span(node)
        if isinstance(node, yaml.ScalarNode):
            try:
                value = self._constructor.construct_object(node)
            except (yaml.YAMLError, ValueError):
                value = node.value
            # Python's words, which such files have beside YAML's.
            return Item(
                {"None": None, "True": True, "False": False}.get(value, value) if isinstance(value, str) else value, span
            )
        if isinstance(node, yaml.SequenceNode) and depth < 4:
            return Item([self.item(inner, depth + 1) for inner in node.value[:MAX_LAYERS]], span)
        return Item(span.text, span)

    def line(self, node: yaml.Node, index: int, *, in_head: bool) -> LayerLine | None:
        """A layer; None with a diagnostic where the line has not the form of one."""
        found = self.item(node)
        if not isinstance(found.value, list) or len(found.value) != 4:
            count = f"has {len(found.value)} parts" if isinstance(found.value, list) else "is no list"
            self.problems.add(found.span, f"layer {index} {count}", _FORM)
            return None
        given, repeats, module, args = found.value
        sources = given.value if isinstance(given.value, list) else [given]
        before = len(self.problems.found)
        for source in sources:
            if isinstance(source.value, bool) or not isinstance(source.value, int):
                self.problems.add(source.span, f"layer {index} reads {_shown(source)}", "expected the number of a layer, or -1")
        if not sources:
            self.problems.add(given.span, f"layer {index} reads nothing", "expected the number of a layer, or several")
        if not _is_count(repeats.value) or repeats.value > MAX_REPEATS:
            self.problems.add(
                repeats.span, f"the repeats of layer {index} are {_shown(repeats)}", f"expected 1 to {MAX_REPEATS}"
            )
        if not isinstance(module.value, str):
            self.problems.add(module.span, f"the module of layer {index} is {_shown(module)}", "expected a name, such as Conv")
        if not isinstance(args.value, list):
            self.problems.add(
                args.span, f"the arguments of layer {index} are {_shown(args)}", "expected a list, such as [64, 3, 2]"
            )
        if len(self.problems.found) > before:
            return None
        name = Item(module.value.rpartition(".")[2], module.span)
        return LayerLine(index, tuple(sources), repeats, name, tuple(args.value), in_head, found.span)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MAX_MULTIPLE


def _shown(item: Item) -> str:
    text = " ".join(item.span.text.split())
    return f"`{text if len(text) <= 40 else text[:39] + '…'}`"


def _scale(values: Mapping[str, Item], top: Mapping[str, Any], scale: str | None, reader: _Reader, problems: Problems) -> Scale:
    """The scale to take; one that changes nothing, with a diagnostic, where there is a mistake."""
    if "scales" not in top:
        if scale is not None:
            problems.add(
                Span(reader.source, 0, 1), f"the file has no scale `{scale}`: it has no `scales:`", "leave --scale out"
            )
        found = []
        for name in ("depth_multiple", "width_multiple"):
            item = values.get(name)
            if item is not None and not _is_number(item.value):
                problems.add(item.span, f"`{name}` is {_shown(item)}", "expected a number above 0")
                item = None
            found.append(1.0 if item is None else float(item.value))
        return Scale("", *found)
    node = top["scales"][1]
    if not isinstance(node, yaml.MappingNode) or not node.value:
        problems.add(reader.span(node), "`scales` names no scale", "expected entries such as n: [0.33, 0.25, 1024]")
        return Scale()
    entries = {key.value: reader.item(value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    named = values.get("scale")
    name = scale if scale is not None else str(named.value) if named is not None else next(iter(entries), "")
    if name not in entries:
        place = named.span if named is not None and scale is None else reader.span(top["scales"][0])
        problems.add(place, f"no scale `{name}`", f"expected one of {', '.join(entries)}")
        return Scale()
    item = entries[name]
    numbers = item.value if isinstance(item.value, list) else []
    if len(numbers) not in (2, 3) or not all(_is_number(number.value) for number in numbers):
        problems.add(
            item.span, f"the scale `{name}` is {_shown(item)}", "expected [depth, width] or [depth, width, most channels]"
        )
        return Scale()
    return Scale(name, *(float(number.value) for number in numbers))


def _activation(values: Mapping[str, Item], problems: Problems) -> str:
    """The activation, in the words of the language: ``nn.ReLU()`` is relu."""
    item = values.get("activation")
    if item is None:
        return "silu"
    known = {
        "SiLU": "silu", "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "Hardswish": "hardswish", "GELU": "gelu",
        "Sigmoid": "sigmoid", "Hardsigmoid": "hardsigmoid", "Tanh": "tanh", "Identity": "none",
    }  # fmt: skip
    name = str(item.value).removeprefix("torch.").removeprefix("nn.").partition("(")[0]
    if name in known:
        return known[name]
    problems.add(
        item.span, f"unknown activation {_shown(item)}", f"expected one of {', '.join(f'nn.{word}()' for word in known)}"
    )
    return "silu"
