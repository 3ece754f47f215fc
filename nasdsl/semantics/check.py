"""A syntax tree to a checked architecture: the sections of a decoder, and what it must have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import names as name_codes
from nasdsl.diagnostics.catalogue import structure
from nasdsl.diagnostics.catalogue import types as codes
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.architecture import (
    Architecture,
    Fcos,
    FpnPart,
    HeadPart,
    InputFeature,
    Predict,
    Retinanet,
)
from nasdsl.semantics.assembly import UNFIT
from nasdsl.semantics.attributes import Accepts, Unknown
from nasdsl.semantics.definitions import check_definitions
from nasdsl.semantics.expand import Expander
from nasdsl.semantics.head import check_head
from nasdsl.semantics.holes import check_holes
from nasdsl.semantics.sections import Origin, bind_lets, resolve_sections, take
from nasdsl.semantics.statements import FpnStatements
from nasdsl.semantics.vocabulary import Library, Vocabulary
from nasdsl.syntax import ast
from nasdsl.syntax.tables import without_collector

_INPUT_NAME = re.compile(r"c([1-7])")
_SHARE = {"share": Accepts("index", 0, largest=1000)}
DETECTORS: dict[str, dict[str, Accepts]] = {
    "fcos": {"centerness": Accepts("word", "cls", ("cls", "box")), "boxes": Accepts("word", "exp", ("exp", "relu"))},
    "retinanet": {"anchors": Accepts("count", 9, largest=1000)},
}
_QUANTITIES = ("macs", "params", "dangling")

_S = TypeVar("_S", ast.Fpn, ast.Head)


class Checked(NamedTuple):
    """What checking gave: the architecture, or None where the text has errors or holds no decoder; and all findings."""

    architecture: Architecture | None
    problems: list[Diagnostic]


@without_collector
def check(
    file: ast.File,
    problems: list[Diagnostic],
    *,
    path: Path | None = None,
    root: Path | None = None,
    lost: frozenset[str] | None = None,
) -> Checked:
    """Check a file.

    Args:
        problems: findings of the parser; those of the checker are added.
        path: where the file lies, for `use` and `from`; None for a text without a place.
        root: the folder that paths may not leave; the file's own by default.
        lost: `Parsed.lost`: names that a syntax error made unreadable, whose absence is no finding.
    """
    folder = path.resolve().parent if path is not None else None
    library = Library(root or folder, problems)
    if path is not None:
        library.enter(path.resolve())
    vocabulary = library.vocabulary(file, folder)
    level: Vocabulary | None = vocabulary
    while level is not None and level.parent is not None:  # all but the prelude, which is checked by the tests
        if level.definitions:
            check_definitions(level, problems, lost)
        level = level.parent
    decoder = _only_decoder(file, problems, lost)
    architecture = None
    if decoder is not None:
        architecture = _Decoder(decoder, library, Origin(vocabulary, folder, {}), problems, lost).check()
    readable = lost is None and not any(p.code < "NAS2" for p in problems)  # a mended text has holes of its own
    if architecture is not None and architecture.open_holes and readable:
        sections = resolve_sections(file, path)
        if sections is not None:
            architecture = replace(architecture, decisions=check_holes(sections, problems))
    if lost is not None:  # nothing is said of what recovery has put in
        problems[:] = [p for p in problems if p.span.end > p.span.start or p.code < "NAS2"]
    problems[:] = {(p.code, p.span, p.message): p for p in problems}.values()
    problems.sort(key=lambda p: (p.span.source is not file.span.source, p.span.start))
    failed = any(p.severity == "error" for p in problems)
    return Checked(None if failed else architecture, problems)


def _only_decoder(file: ast.File, problems: list[Diagnostic], lost: frozenset[str] | None) -> ast.Decoder | None:
    decoders = [item for item in file.items if isinstance(item, ast.Decoder)]
    if not file.items and lost is None and not problems:
        problems.append(
            structure.NO_DECODER(
                Span(file.span.source, 0, 0), "the text is empty", label="expected `decoder name { … }`, or definitions"
            )
        )
    for extra in decoders[1:]:
        problems.append(
            structure.TWO_DECODERS(
                extra.name_span, "a second decoder in one file", label="expected one decoder a file",
                related=[(decoders[0].name_span, "the first one")], help="put it into a file of its own",
            )
        )  # fmt: skip
    return decoders[0] if decoders else None


class _Decoder:
    """Checks one decoder."""

    def __init__(
        self, node: ast.Decoder, library: Library, origin: Origin, problems: list[Diagnostic], lost: frozenset[str] | None
    ) -> None:
        self.node = node
        self.files = library
        self.origin = origin
        self.problems = problems
        self.lost = lost
        self.warnings: list[Diagnostic] = []
        self.holes: list[Span] = []
        self.unknown_inputs: dict[str, Span] = {}  # reported; reading them is no second mistake

    def check(self) -> Architecture | None:
        node, origin = self.node, self.origin
        bind_lets(node, origin.lets, self.problems, self.holes)
        inputs = self._inputs()
        requirements = tuple(i for i in node.items if isinstance(i, ast.Require))
        for requirement in requirements:
            self._require(requirement)
        fpn_node, head_node = self._single(ast.Fpn, "fpn"), self._single(ast.Head, "head")
        predict = self._predict()
        fpn = self._fpn(fpn_node, origin, inputs) if fpn_node is not None else None
        head = None
        if head_node is not None:
            taken = take(head_node, origin, ast.Head, self.files, self.problems, self.holes)
            if taken is not None:
                head = self._head(*taken, fpn, fpn_node)
        if not any(p.severity == "error" for p in self.problems):  # what an error leaves unread is no finding of its own
            self.problems.extend(self.warnings)
        if fpn is None or head is None or predict is None:
            return None
        holes = tuple(sorted(set(self.holes), key=lambda s: s.start))
        return Architecture(node.name, inputs, fpn, head, predict, requirements, holes, len(holes), tuple(self.warnings))

    # ------------------------------------------------------------------------------- parts of the decoder

    def _single(self, kind: type[Any], word: str) -> Any:
        found = [item for item in self.node.items if isinstance(item, kind)]
        if not found and self.lost is None:
            self.problems.append(
                structure.MISSING_PART(
                    self.node.name_span, f"the decoder `{self.node.name}` has no `{word}`", label=f"expected `{word}` in it"
                )
            )
        for extra in found[1:]:
            self.problems.append(
                structure.TWO_PARTS(
                    _word(extra.span, word), f"a second `{word}`", label="expected one",
                    related=[(_word(found[0].span, word), "the first one")],
                )
            )  # fmt: skip
        return found[0] if found else None

    def _inputs(self) -> tuple[InputFeature, ...]:
        inputs: dict[str, InputFeature] = {}
        for name in (n for item in self.node.items if isinstance(item, ast.Input) for n in item.names):
            match = _INPUT_NAME.fullmatch(name.name)
            if match is None:
                guess = name.name.lower() if _INPUT_NAME.fullmatch(name.name.lower()) else None
                self.problems.append(
                    name_codes.UNKNOWN_INPUT(
                        name.span, f"no backbone feature is called `{name.name}`", label="expected c1 to c7: cK has stride 2^K",
                        help=f"did you mean `{guess}`?" if guess else "", fix=guess,
                    )
                )  # fmt: skip
                self.unknown_inputs[name.name] = name.span
            elif name.name in inputs:
                self.problems.append(
                    name_codes.BOUND_TWICE(
                        name.span, f"the input `{name.name}` is named twice", label="second time",
                        related=[(inputs[name.name].span, "first time")],
                    )
                )  # fmt: skip
            else:
                inputs[name.name] = InputFeature(name.name, int(match[1]), name.span)
        if not inputs and self.lost is None and not self.problems:
            self.problems.append(
                structure.MISSING_PART(
                    self.node.name_span, f"the decoder `{self.node.name}` has no `input`", label="expected `input c3, c4, c5`"
                )
            )
        return tuple(inputs.values())

    def _require(self, node: ast.Require) -> None:
        if node.quantity not in _QUANTITIES:
            guess = did_you_mean(node.quantity, _QUANTITIES)
            self.problems.append(
                codes.UNKNOWN_QUANTITY(
                    node.quantity_span, f"nothing is known of `{node.quantity}`", label="expected macs, params or dangling",
                    help=f"did you mean `{guess}`?" if guess else "", fix=guess,
                )
            )  # fmt: skip

    def _predict(self) -> Predict | None:
        node: ast.Predict | None = self._single(ast.Predict, "predict")
        if node is None:
            return None
        accepted = DETECTORS.get(node.detector)
        if accepted is None:
            guess = did_you_mean(node.detector, DETECTORS)
            self.problems.append(
                name_codes.UNKNOWN_DETECTOR(
                    node.detector_span, f"unknown detector `{node.detector}`", label="expected fcos or retinanet",
                    help=f"did you mean `{guess}`?" if guess else "", fix=guess,
                )
            )  # fmt: skip
            return None
        values = self._settings(node.settings, accepted, node.detector, node.detector_span, self.origin.lets)
        if values is None:
            return None
        if node.detector == "fcos":
            return Fcos(str(values["centerness"]), str(values["boxes"]))
        anchors = values["anchors"]
        return Retinanet(anchors if isinstance(anchors, int) else 9)

    def _settings(
        self, given: tuple[ast.Setting, ...], accepted: Mapping[str, Accepts], owner: str, span: Span, lets: dict[str, Any]
    ) -> dict[str, Any] | None:
        values = attributes.settings(given, accepted, owner, span, lets, self.problems)
        for setting in given:
            if isinstance(setting.value, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
                self.holes.append(setting.value.span)
        return values

    # ------------------------------------------------------------------------------------------ sections

    def _fpn(self, node: ast.Fpn, origin: Origin, inputs: tuple[InputFeature, ...]) -> FpnPart | None:
        taken = take(node, origin, ast.Fpn, self.files, self.problems, self.holes)
        if taken is None:
            return None
        section, place = taken
        adapter = self._adapter(section, place)
        accepted = {**primitives.SECTION, "adapter": Accepts("op")}
        values = self._settings(section.settings, accepted, "fpn", _word(node.span, "fpn"), place.lets)
        if values is None:
            values = dict.fromkeys(primitives.SECTION, attributes.UNKNOWN)
        expander = Expander(self.problems, self.lost)
        environment = {**place.lets, **values}
        statements = FpnStatements(expander, place.vocabulary, environment, self.warnings)
        statements.inputs(inputs, adapter)
        statements.unknown(self.unknown_inputs)
        expander.later = _bound_in(section.body)
        statements.run(section.body)
        outputs, dangling = statements.finish()
        self.holes += expander.holes
        if not outputs and self.lost is None and not any(p.code == structure.NO_PYRAMID_LEVEL.code for p in self.problems):
            self.problems.append(
                structure.NO_OUTPUT(
                    node.span if node.source else _word(node.span, "fpn"),
                    "the fpn has no output", label="expected `output p3 = …` in it",
                )
            )  # fmt: skip
        width = values["width"]
        return FpnPart(
            width if isinstance(width, int) else 0, tuple(expander.values), tuple(expander.applications), outputs, dangling
        )

    def _adapter(self, section: ast.Fpn, place: Origin) -> str:
        """The op behind each input, or ``none``."""
        adapter = "conv_1x1"
        for setting in section.settings:
            if setting.name != "adapter":
                continue
            value = attributes.evaluate(setting.value, place.lets, self.problems)
            name = value if isinstance(value, str) else str(setting.value.span.text)
            known = place.vocabulary.find(name) is not None or primitives.find(name) is not None
            if isinstance(value, Unknown):
                adapter = "none"
            elif name == "none" or known:
                adapter = name
            else:
                guess = did_you_mean(name, ["none", *place.vocabulary.known(), *primitives.known()])
                self.problems.append(
                    name_codes.UNKNOWN_OP(
                        setting.value.span, f"unknown op `{name}`", label="expected an op, or none",
                        help=f"did you mean `{guess}`?" if guess else "", fix=guess,
                    )
                )  # fmt: skip
        return adapter

    def _head(self, node: ast.Head, place: Origin, fpn: FpnPart | None, fpn_node: ast.Fpn | None) -> HeadPart | None:
        values = self._settings(node.settings, {**primitives.SECTION, **_SHARE}, "head", _word(node.span, "head"), place.lets)
        width_in = 0
        if fpn is not None:
            widths = {o.name: fpn.applications[o.result].feature.width for o in fpn.outputs if o.result != UNFIT}
            known = {w for w in widths.values() if w}
            if len(known) > 1 and fpn_node is not None:
                described = ", ".join(f"{name} has {width}" for name, width in widths.items())
                self.problems.append(
                    codes.PYRAMID_WIDTHS(
                        fpn_node.span if fpn_node.source else fpn.outputs[0].span,
                        "the pyramid's levels differ in width", label=described,
                        help="the head is applied to every level: bring them to one width",
                    )
                )  # fmt: skip
                return None
            width_in = min(known, default=0)
        return check_head(node, place, values, width_in, self.problems, self.holes, self.lost)


def _word(span: Span, word: str) -> Span:
    """The word that a section or statement begins with."""
    return Span(span.source, span.start, span.start + len(word))


def _bound_in(statements: tuple[ast.Statement, ...]) -> dict[str, Span]:
    """Plain names that statements bind, for telling a forward reference from an unknown name."""
    bound: dict[str, Span] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                bound.setdefault(target.name, target.span)
        elif isinstance(statement, ast.Output):
            for binding in statement.bindings:
                bound.setdefault(binding.name, binding.name_span)
        elif isinstance(statement, ast.Repeat):
            bound |= {k: v for k, v in _bound_in(statement.body).items() if k not in bound}
    return bound
