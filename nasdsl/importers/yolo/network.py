"""The layers of a model file, followed from the image on: channels and level of each, and every mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasdsl.diagnostics.diagnostic import did_you_mean
from nasdsl.importers.yolo.model_file import MAX_REPEATS, LayerLine, ModelFile, Problems
from nasdsl.importers.yolo.modules import ACCEPTS, MAX_CHANNELS, MODULES, scaled_channels, scaled_repeats


@dataclass(frozen=True)
class Layer:
    """A layer whose channels and level are known.

    Attributes:
        line: the line of the file.
        sources: numbers of the layers that it reads; -1 is the image.
        arguments: by name, defaults included.
        repeats: after the depth multiple.
        channels, level: of its result: its map has the stride 2**level. Those of Detect are not read.
    """

    line: LayerLine
    sources: tuple[int, ...]
    arguments: Mapping[str, Any]
    repeats: int
    channels: int
    level: int

    @property
    def index(self) -> int:
        """Its number in the network."""
        return self.line.index

    @property
    def module(self) -> str:
        return str(self.line.module.value)


def follow(file: ModelFile, problems: Problems) -> dict[int, Layer]:
    """The layers by number; those with a mistake, and those that read them, are missing."""
    follower = _Follower(file, problems)
    for line in file.layers:
        if line is not None:
            follower.layer(line)
    return follower.found


class _Follower:
    def __init__(self, file: ModelFile, problems: Problems) -> None:
        self.file = file
        self.problems = problems
        self.found: dict[int, Layer] = {}

    def layer(self, line: LayerLine) -> None:
        before = len(self.problems.found)
        name = str(line.module.value)
        module = MODULES.get(name)
        sources = self._sources(line)
        if module is None or (line.in_head and not module.in_head):
            self._unknown_module(line)
            return
        arguments = self._arguments(line, name)
        if sources is not None and len(sources) != 1 and name not in ("Concat", "Detect"):
            self.problems.add(line.span, f"{name} of layer {line.index} reads {len(sources)} layers", "expected one")
        if name == "Detect" and not line.in_head:
            self.problems.add(line.module.span, "Detect in the backbone", "expected at the end of `head`")
        if sources is None or arguments is None or len(self.problems.found) > before:
            return
        operands = [self.found[source] for source in sources if source in self.found]
        if len(operands) < sum(source >= 0 for source in sources):
            return  # what it reads has a mistake
        shape = self._shape(line, name, operands, arguments)
        if shape is not None:
            repeats = min(scaled_repeats(int(line.repeats.value), self.file.scale.depth), MAX_REPEATS)
            self.found[line.index] = Layer(line, sources, arguments, repeats, *shape)

    def _sources(self, line: LayerLine) -> tuple[int, ...] | None:
        """Numbers of the layers that a layer reads; None with a diagnostic where one points nowhere."""
        index = line.index
        found: list[int] | None = []
        for item in line.sources:
            source = index + item.value if item.value < 0 else item.value
            if source >= index:
                count = len(self.file.layers)
                what = "itself" if source == index else "a later one" if source < count else f"and the file has {count} layers"
                self.problems.add(item.span, f"layer {index} reads layer {source}, {what}", f"expected 0 to {index - 1}, or -1")
                found = None
            elif source < -1 or (source == -1 and index > 0):
                self.problems.add(
                    item.span,
                    f"layer {index} reads `{item.value}`, before the first layer",
                    f"expected -{index} to {index - 1}",
                )
                found = None
            elif found is not None:
                found.append(source)
        return None if found is None else tuple(found)

    def _unknown_module(self, line: LayerLine) -> None:
        name = str(line.module.value)
        known = [word for word, module in MODULES.items() if module.in_head or not line.in_head]
        meant = did_you_mean(name, [word for word in known if word not in name])  # GhostConv is no misspelled Conv
        message = f"`{name}` in the head cannot be converted yet" if name in MODULES else f"unknown module `{name}`"
        help = f"did you mean `{meant}`?" if meant else "what it reads and gives must be known for all that follows"
        self.problems.add(line.module.span, message, f"expected one of {', '.join(known)}", help)

    def _arguments(self, line: LayerLine, name: str) -> dict[str, Any] | None:
        """The arguments by name; None with diagnostics where some do not fit."""
        takes = MODULES[name].arguments
        before = len(self.problems.found)
        if len(line.args) > len(takes):
            extra = line.args[len(takes)]
            self.problems.add(
                extra.span, f"{name} has {len(line.args)} arguments", f"expected at most {len(takes)}: {', '.join(takes)}"
            )
        arguments: dict[str, Any] = {key: default for key, (_, default) in takes.items()}
        for (key, (accepts, default)), item in zip(takes.items(), line.args, strict=False):
            if item.value is None and default is not None:
                continue  # None is the default
            takes_value, expected = ACCEPTS[accepts]
            if not takes_value(item.value):
                self.problems.add(item.span, f"{key} of {name} is `{item.span.text}`", f"expected {expected}")
            arguments[key] = item.value
        if "channels" in takes and not line.args:
            self.problems.add(line.span, f"{name} has no arguments", f"expected {', '.join(takes)}")
        if len(self.problems.found) > before:
            return None
        if "channels" in arguments:
            scaled = scaled_channels(arguments["channels"], self.file.scale.width, self.file.scale.max_channels)
            if scaled > MAX_CHANNELS:
                self.problems.add(line.args[0].span, f"{name} of {scaled} channels", f"expected at most {MAX_CHANNELS}")
                return None
            arguments["channels"] = scaled
        return arguments

    def _shape(self, line: LayerLine, name: str, operands: list[Layer], arguments: Mapping[str, Any]) -> tuple[int, int] | None:
        """Channels and level of the result; None with a diagnostic where the operands do not fit."""
        channels, level = (operands[0].channels, operands[0].level) if operands else (3, 0)
        add = self.problems.add
        if name == "Concat":
            levels = {operand.level for operand in operands}
            if len(levels) > 1:
                described = ", ".join(f"layer {o.index} has stride {1 << o.level}" for o in operands)
                add(line.span, "Concat of maps of different sizes", described, "an Upsample or a Conv of stride 2 is missing")
                return None
            return sum(operand.channels for operand in operands), level
        if name == "Upsample":
            steps = int(arguments["factor"]).bit_length() - 1
            if level - steps < 0:
                add(line.span, f"Upsample of a map of stride {1 << level}", "it would be larger than the image")
                return None
            return channels, level - steps
        if name == "Detect":
            return self._detect(line, operands)
        given = int(arguments["channels"])
        if name == "Conv":
            groups = int(arguments["groups"])
            if channels % groups or given % groups:
                add(
                    line.span,
                    f"Conv of {channels} to {given} channels in {groups} groups",
                    "expected a number that divides both",
                )
                return None
            kernel, padding = int(arguments["kernel"]), arguments["padding"]
            if padding is not None and padding != kernel // 2 * int(arguments["dilation"]):
                add(line.span, f"Conv with padding {padding}", "expected None: the padding that keeps the size")
                return None
            return given, level + (arguments["stride"] == 2)
        if name == "Focus":
            return given, level + 1
        inner = given * arguments.get("share", 0.5)
        if name in ("C3", "C2f", "C3k2", "Bottleneck") and inner != int(inner):
            add(
                line.span,
                f"{name} of {given} channels with a share of {arguments['share']}",
                "expected a whole number of channels",
            )
            return None
        if arguments.get("groups", 1) != 1:
            add(line.span, f"{name} with {arguments['groups']} groups", "expected 1: other numbers cannot be converted")
            return None
        return given, level

    def _detect(self, line: LayerLine, operands: list[Layer]) -> tuple[int, int] | None:
        seen: dict[int, int] = {}
        for item, operand in zip(line.sources, operands, strict=True):
            if operand.level in seen:
                both = f"layers {seen[operand.level]} and {operand.index}"
                message = f"Detect reads two maps of stride {1 << operand.level}: {both}"
                self.problems.add(item.span, message, "expected one map of each level")
                return None
            if operand.level < 1:
                self.problems.add(item.span, "Detect reads a map of the size of the image", "expected a stride of 2 or more")
                return None
            seen[operand.level] = operand.index
        return 0, 0
