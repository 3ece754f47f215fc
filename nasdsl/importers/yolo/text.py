"""The head of a model file as `.nas` text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from nasdsl.diagnostics import DiagnosticError, Source, Span
from nasdsl.importers.yolo.definitions import definitions_of
from nasdsl.importers.yolo.model_file import ModelFile, Problems, read_model_file
from nasdsl.importers.yolo.modules import MODULES
from nasdsl.importers.yolo.network import Layer, follow
from nasdsl.syntax.formatter import format_text

REG_MAX = 16
"""Values of each side's distribution in the head of the v8 family."""


def yolo_text(source: Source, name: str = "yolo", scale: str | None = None) -> str:
    """Convert the head of a model file to `.nas` text.

    The features of the file's backbone are the inputs; pooling at its end (SPPF) becomes part of the fpn.

    Args:
        source: the YAML file.
        name: name of the decoder.
        scale: the scale to take, ``n``; None for the one that the file names, or its first.

    Raises:
        DiagnosticError: the file has mistakes, all of which are in it, each at its place in the YAML.
    """
    problems = Problems()
    file = read_model_file(source, scale, problems)
    layers = {} if file is None else follow(file, problems)
    text = ""
    if file is not None and not problems.found:
        text = _Writer(file, layers, problems, name, source).run()
    if problems.found:
        raise DiagnosticError(problems.in_order())
    return format_text(text)


@dataclass
class _Value:
    """A layer in the text.

    Attributes:
        role: how its name begins: ``td`` after the last step to finer maps (top-down), ``bu`` to coarser ones (bottom-up),
            ``n`` before any, ``s`` for the pooling.
        name: once it has one; the others are written where they are read.
    """

    layer: Layer
    role: str
    name: str = ""


class _Writer:
    """Writes the text of a model file without mistakes."""

    def __init__(self, file: ModelFile, layers: Mapping[int, Layer], problems: Problems, name: str, source: Source) -> None:
        self.file = file
        self.layers = layers
        self.problems = problems
        self.name = name
        self.source = source
        self.lines: list[str] = []
        self.used: set[str] = set()
        self.inputs: dict[str, Layer] = {}
        self.taken: Counter[str] = Counter()
        self.values: dict[int, _Value] = {}
        self.readers: Counter[int] = Counter()

    def run(self) -> str:
        detect = [layer for layer in self.layers.values() if layer.module == "Detect"]
        end = Span(self.source, 0, 1) if not detect else detect[-1].line.module.span
        if len(detect) != 1 or max(self.layers) != detect[-1].index:
            what = "no Detect" if not detect else "several Detect" if len(detect) > 1 else "layers behind Detect"
            self.problems.add(end, f"`head` has {what}", "expected one Detect, as its last layer")
            return ""
        self._find_features()
        if self.problems.found:
            return ""
        for layer in self.layers.values():
            if layer.line.in_head and layer is not detect[0]:
                self._place(layer)
        unread = [
            layer for layer in self.layers.values() if layer.line.in_head and layer is not detect[0]
            and not self.readers[layer.index]
        ]  # fmt: skip
        outputs = ", ".join(
            f"p{self.layers[source].level} = {self._named(source)}"
            for source in sorted(detect[0].sources, key=lambda s: self.layers[s].level)
        )
        for layer in unread:
            self._named(layer.index)
        self.lines.append(f"output {outputs}")
        return self._text(detect[0], unread)

    # ---------------------------------------------------------------------------------------------- features

    def _find_features(self) -> None:
        """Name the layers of the backbone that the head reads, and write the pooling at the end of the backbone."""
        backbone = [layer for layer in self.layers.values() if not layer.line.in_head]
        tail: list[Layer] = []
        while backbone and backbone[-1].module == "SPPF" and backbone[-1].sources == (backbone[-1].index - 1,):
            tail.insert(0, backbone.pop())
        last = {layer.level: layer for layer in backbone}
        written = {layer.index for layer in tail}
        for layer in self.layers.values():
            if layer.line.in_head or layer.index in written:
                for place, source in enumerate(layer.sources):
                    self.readers[source] += 1
                    if source not in written:
                        self._feature(layer, place, source, last)
        for layer in tail:
            if not self.problems.found:
                self._place(layer)

    def _feature(self, reader: Layer, place: int, source: int, last: Mapping[int, Layer]) -> None:
        layer = self.layers[source]
        if layer.line.in_head or source in self.values:
            return
        kept = last[layer.level]
        if kept is not layer:
            message = f"layer {reader.index} reads layer {source}, inside of the stage of stride {1 << layer.level}"
            label = f"expected {kept.index}, its last layer: a backbone gives one feature of each level"
            self.problems.add(reader.line.sources[place].span, message, label)
            return
        if not 2 <= layer.level <= 5:
            self.problems.add(
                reader.line.sources[place].span, f"layer {source} has stride {1 << layer.level}", "expected 4, 8, 16 or 32"
            )
            return
        name = f"c{layer.level}"
        self.inputs[name] = layer
        self.values[source] = _Value(layer, "n", name)

    # ------------------------------------------------------------------------------------------------ values

    def _place(self, layer: Layer) -> None:
        """Enter a layer; it is written where it is read, or gets a name if several read it."""
        operands = [self.values[source] for source in layer.sources]
        role = next((operand.role for operand in operands if operand.role != "n"), "n")
        level = operands[0].layer.level
        if layer.level < level:
            role = "td"
        elif layer.level > level:
            role = "bu"
        elif layer.module == "SPPF":
            role = "s"
        self.values[layer.index] = _Value(layer, role)
        is_block = layer.module in ("C3", "C2f", "C3k2", "SPPF", "Bottleneck")
        if is_block or self.readers[layer.index] > 1:
            self._named(layer.index)

    def _named(self, index: int) -> str:
        """The name of a layer, written as a statement if it is none yet."""
        value = self.values[index]
        if not value.name:
            inside: list[int] = []
            expression = self._expression(value.layer, inside)
            value.name = self._new_name(f"{value.role}{value.layer.level}")
            numbers = f"layer {index}" if len(inside) == 1 else f"layers {min(inside)} to {max(inside)}"
            self.lines.append(f"{value.name} = {expression}  # {numbers}")
        return value.name

    def _new_name(self, wanted: str) -> str:
        self.taken[wanted] += 1
        return wanted if self.taken[wanted] == 1 else f"{wanted}_{self.taken[wanted]}"

    def _operand(self, index: int, inside: list[int], target: str = "") -> str:
        value = self.values[index]
        return value.name or self._expression(value.layer, inside, target)

    def _expression(self, layer: Layer, inside: list[int], target: str = "") -> str:
        """The expression of a layer.

        Args:
            inside: takes the numbers of the layers in it.
            target: a value of the level that an Upsample goes to.
        """
        arguments = layer.arguments
        if layer.module == "Concat":
            names = [self.values[s].name for s in layer.sources if self.values[s].name]
            operands = [self._operand(s, inside, names[0] if names else "") for s in layer.sources]
            inside.append(layer.index)
            return operands[0] if len(operands) == 1 else f"concat({', '.join(operands)})"
        x = self._operand(layer.sources[0], inside)
        inside.append(layer.index)
        if layer.module == "Upsample":
            if arguments["mode"] == "nearest":
                return f"up({x}, {target})" if target else f"resize({x}, to={layer.level}, mode=nearest)"
            return f"resize({x}, to={target or layer.level})"
        width = layer.channels
        for turn in range(1 if MODULES[layer.module].in_repeats else layer.repeats):
            x = self._call(layer, x, width, first=turn == 0)
        return x

    def _call(self, layer: Layer, x: str, width: int, *, first: bool) -> str:
        arguments, module = layer.arguments, layer.module
        channels_in = self.layers[layer.sources[0]].channels if first else width
        if module == "Conv":
            return self._conv(layer, x, width)
        if module == "SPPF":
            kernel = "" if arguments["kernel"] == 5 else f", k={arguments['kernel']}"
            return self._definition("sppf", f"({x}, width={width}, inner={channels_in // 2}{kernel})")
        add = "_add" if arguments["shortcut"] else ""
        share = "" if arguments["share"] == 0.5 else f", share={arguments['share']:g}"
        if module == "Bottleneck":
            add = add if channels_in == width else ""
            inner = int(width * arguments["share"])
            return self._definition(f"bottleneck{add}", f"({x}, width={width}, inner={inner})")
        n = "" if layer.repeats == 1 else f", n={layer.repeats}"
        name = {"C3": "c3", "C2f": "c2f", "C3k2": "c3k2_c3k" if arguments.get("c3k") else "c3k2"}[module]
        return self._definition(f"{name}{add}", f"({x}, width={width}{share}{n})")

    def _conv(self, layer: Layer, x: str, width: int) -> str:
        arguments = layer.arguments
        k, stride = arguments["kernel"], arguments["stride"]
        rest = "" if arguments["groups"] == 1 else f", groups={arguments['groups']}"
        rest += "" if arguments["dilation"] == 1 else f", dilation={arguments['dilation']}"
        rest += "" if arguments["activation"] else ", act=none"
        if not rest and stride == 2:
            return self._definition("conv_s2", f"({x}, width={width}{'' if k == 3 else f', k={k}'})")
        if not rest and k in (1, 3):
            return f"conv_{k}x{k}({x}, width={width})"
        return f"conv({x}, k={k}{'' if stride == 1 else ', stride=2'}, width={width}{rest})"

    def _definition(self, name: str, call: str) -> str:
        self.used.add(name)
        return name + call

    # ------------------------------------------------------------------------------------------- whole text

    def _text(self, detect: Layer, unread: list[Layer]) -> str:
        widths = [self.layers[source].channels for source in detect.sources]
        inputs = sorted(self.inputs)
        given = ", ".join(f"{name} {self.inputs[name].channels}" for name in inputs)
        scale = f", scale {self.file.scale.name}" if self.file.scale.name else ""
        about = [
            f"# The head of {_comment(PurePath(self.source.name).name)}{scale}. Channels of the file's own backbone: {given}."
        ]
        if unread:
            about.append(f"# Nothing reads {', '.join(f'layer {layer.index}' for layer in unread)} in the file.")
        about += self._notes(detect)
        definitions = definitions_of(self.used)
        box, cls, is_light = self._head_widths(widths[0], detect.arguments["classes"])
        layer = f"conv(k=3, groups=in, width=in) -> conv_1x1(width={cls})" if is_light else f"conv_3x3(width={cls})"
        parts = [
            *about, "", "\n\n".join(definitions), "",
            f"decoder {self.name} {{",
            f"input {', '.join(inputs)}",
            "",
            f"fpn(width={min(widths)}, norm=bn, act={self.file.activation}, adapter=none) {{",
            *self.lines,
            "}",
            "",
            f"head(width={min(widths)}, norm=bn, act={self.file.activation}, share={4 if is_light else 2}) {{",
            f"cls: {layer} -> {layer}",
            f"box: conv_3x3(width={box}) -> conv_3x3(width={box})",
            "}",
            "",
            f"predict tal(bins={REG_MAX - 1}, kernel=1, share=false)",
            "}",
        ]  # fmt: skip
        return "\n".join(parts) + "\n"

    def _head_widths(self, first: int, classes: int | str) -> tuple[int, int, bool]:
        """Channels of the box and cls towers, and whether the cls tower is depthwise separable, as beside C3k2.

        Args:
            first: channels of the first map that Detect reads.
            classes: as Detect has them: a number, or ``nc``.
        """
        count = self.file.classes if isinstance(classes, str) else classes
        box = max(16, first // 4, 4 * REG_MAX)
        return box, max(first, min(count, 100)), any(layer.module == "C3k2" for layer in self.layers.values())

    def _notes(self, detect: Layer) -> list[str]:
        if detect.arguments["anchors"] is None and not self.file.anchors:
            return []
        return [
            "# Simplified: Detect of the file predicts an objectness, and boxes from anchors, which the language has not. Here",
            "# it is the head of the later family, without anchors: two layers for each, and distributions over distances.",
        ]


def _comment(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode()
