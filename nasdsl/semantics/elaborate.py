"""Elaboration of a whole decoder: sections, also those of other files, and what the decoder itself names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from nasdsl.diagnostics import Span
from nasdsl.diagnostics.catalogue import names, quantities, structure
from nasdsl.predictions import find_kind
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import UNKNOWN, Accepts
from nasdsl.semantics.definitions import check_definitions
from nasdsl.semantics.elaborate_attribute import Context, Word
from nasdsl.semantics.elaborate_body import BodyElaborator, names_bound_in
from nasdsl.semantics.elaborate_callee import DEFAULT_ADAPTER
from nasdsl.semantics.elaborate_chain import elaborate_chain
from nasdsl.semantics.elaborate_expression import ExpressionElaborator
from nasdsl.semantics.infer_detector import ATTRIBUTES as DETECTOR_ATTRIBUTES
from nasdsl.semantics.infer_fpn import ATTRIBUTES as FPN_ATTRIBUTES
from nasdsl.semantics.infer_head import ATTRIBUTES as HEAD_ATTRIBUTES
from nasdsl.semantics.infer_head import TOWERS, TRUNK
from nasdsl.semantics.infer_prediction import COMMON, kind_attributes
from nasdsl.semantics.library import Library
from nasdsl.semantics.note_calls import note_callee, note_section
from nasdsl.semantics.program import (
    Chain,
    Decision,
    DetectorProgram,
    FpnProgram,
    HeadProgram,
    Input,
    PredictProgram,
    Program,
    SetWord,
    Slot,
    Target,
    find_slot,
)
from nasdsl.semantics.resolved_names import NameTable, Symbol
from nasdsl.semantics.vocabulary import Vocabulary
from nasdsl.syntax import ast

QUANTITIES = ("macs", "params", "dangling", "latency")
"""What `require` bounds, besides the number of calls of an op."""

RUNTIMES = ("onnxruntime", "openvino", "torch")
"""Runtimes that a latency can be required on."""

_ATTRIBUTES: Final[dict[type, tuple[Mapping[str, Accepts], str]]] = {
    ast.Fpn: (FPN_ATTRIBUTES, "fpn"),
    ast.Head: (HEAD_ATTRIBUTES, "head"),
    ast.Detector: (DETECTOR_ATTRIBUTES, "detector"),
}

_INPUT_NAME = re.compile(r"c([1-7])")
_S = TypeVar("_S", ast.Fpn, ast.Head)


@dataclass(slots=True)
class Place:
    """Where a section's text lies.

    Attributes:
        vocabulary, words: what its words mean.
        symbols: of the words, as `AttributeElaborator.word_symbols`.
        folder: what its paths are relative to; None for a text in no file.
    """

    vocabulary: Vocabulary
    words: dict[str, Word]
    folder: Path | None
    symbols: dict[str, Symbol] = field(default_factory=dict)


def elaborate(node: ast.Decoder, vocabulary: Vocabulary, folder: Path | None, library: Library, context: Context) -> Program:
    """The straight-line program of a decoder. Findings go to the context.

    Args:
        vocabulary: of the decoder's file.
        folder: of that file.
        library: the files that it brings in.
    """
    return _DecoderElaborator(node, Place(vocabulary, {}, folder), library, context).run()


class _DecoderElaborator:
    def __init__(self, node: ast.Decoder, place: Place, library: Library, context: Context) -> None:
        self.node = node
        self.place = place
        self.library = library
        self.context = context
        self.problems = context.problems
        self.words: list[SetWord] = []
        self._order: dict[int, int] = {}  # of a decision, by identity: the item of the decoder that it stands in

    def run(self) -> Program:
        node = self.node
        if self.context.names is not None:
            self._note_names(self.context.names)
        items = {id(item): number for number, item in enumerate(node.items)}
        for item in node.items:
            if isinstance(item, ast.Let):
                since = len(self.context.decisions)
                self.words.append(self._outside(self.place).let(item))
                self._place_decisions(since, items[id(item)])
        inputs, unknown = self._inputs()
        requirements = tuple(i for i in node.items if isinstance(i, ast.Require))
        for requirement in requirements:
            subject, is_count = requirement.subject, requirement.quantity == "count"
            if is_count and subject is not None:
                vocabulary = self.place.vocabulary
                if self.context.names is not None:
                    note_callee(self._outside(self.place), subject.name, subject.span)
                if vocabulary.find(subject.name) is None and primitives.find(subject.name) is None and vocabulary.is_whole:
                    known = [*vocabulary.known(), *primitives.known()]
                    self.problems.append(names.unknown_op(subject.span, subject.name, known, is_value=False, fixable=True))
            elif is_count or subject is not None:
                self.problems.append(quantities.count_of_what(requirement.span, requirement.quantity))
            elif requirement.quantity not in QUANTITIES:
                self.problems.append(quantities.unknown_quantity(requirement.quantity_span, requirement.quantity, QUANTITIES))
            else:
                self._check_latency(requirement)
        sections: dict[type, Any] = {
            ast.Fpn: self._single(ast.Fpn, "fpn"),
            ast.Head: self._single(ast.Head, "head"),
            ast.Predict: self._single(ast.Predict, "predict"),
            ast.Detector: self._single(ast.Detector, "detector", is_optional=True),
        }
        parts: dict[type, Any] = dict.fromkeys(sections)
        for item in node.items:  # holes are numbered in the order of the text
            kind = type(item)
            if sections.get(kind) is not item:
                continue
            since = len(self.context.decisions)
            if isinstance(item, ast.Fpn):
                parts[kind] = self._fpn(item, inputs, unknown)
            elif isinstance(item, ast.Head):
                parts[kind] = self._head(item)
            elif isinstance(item, ast.Predict):
                parts[kind] = self._predict(item)
            elif isinstance(item, ast.Detector):
                settings = self._outside(self.place)
                self._note_settings(item, self.place)
                parts[kind] = DetectorProgram(settings.settings(item.settings), item.span, _keyword(item.span, "detector"))
            self._place_decisions(since, items[id(item)])
        return Program(
            node.name, node.span, inputs, requirements, tuple(self.words),
            parts[ast.Fpn], parts[ast.Head], parts[ast.Predict], self._numbered(),
            tuple(self.context.passed), parts[ast.Detector],
        )  # fmt: skip

    def _note_names(self, names: NameTable) -> None:
        """Enter the names of the decoder's parts, and the attributes of its sections."""
        names.define("decoder", self.node.name, self.node.name_span, self.node.span, self.node)
        for item in self.node.items:
            if isinstance(item, ast.Input):
                for name in item.names:
                    names.define("input", name.name, name.span, self.node.span)
            elif isinstance(item, ast.Require):
                names.use(item.quantity_span, names.built_in("quantity", item.quantity))
                if item.runtime is not None:
                    names.use(item.runtime.span, names.built_in("runtime", item.runtime.name))
            elif isinstance(item, ast.Predict):
                names.use(item.detector_span, names.built_in("prediction", item.detector))
            elif isinstance(item, ast.Head):
                for tower in item.towers:
                    if tower.label is not None:
                        names.use(tower.span, names.built_in("tower", tower.label))

    def _note_settings(self, node: ast.Fpn | ast.Head | ast.Predict | ast.Detector, place: Place) -> None:
        if self.context.names is None:
            return
        accepted: Mapping[str, Accepts]
        if isinstance(node, ast.Predict):
            cls = find_kind(node.detector)
            accepted, owner = {**({} if cls is None else kind_attributes(cls)), **COMMON}, node.detector
        else:
            accepted, owner = _ATTRIBUTES[type(node)]
        note_section(self._outside(place), node.settings, accepted, owner)

    def _outside(self, place: Place) -> ExpressionElaborator:
        """What reads the attributes of sections, and `let`s, outside the sections' bodies."""
        return ExpressionElaborator(
            self.context, place.vocabulary, place.words, kept=frozenset(), region=self.node.span, word_symbols=place.symbols
        )

    def _place_decisions(self, since: int, item: int) -> None:
        for decision in self.context.decisions[since:]:
            self._order.setdefault(id(decision), item)

    def _numbered(self) -> tuple[Decision, ...]:
        """The decisions, numbered in the order of the text: a `let` is elaborated first, wherever it stands.

        One on which others depend comes before them: a `let` may stand behind the `repeat` whose count it is.
        """
        if not self.context.decisions:
            return ()
        order = self._order
        for decision in reversed(self.context.decisions):  # what one depends on is elaborated before it
            for other in {key for case in decision.condition for key, _ in case}:
                order[id(other)] = min(order[id(other)], order[id(decision)])
        decisions = sorted(self.context.decisions, key=lambda d: order[id(d)])
        for number, decision in enumerate(decisions):
            decision.number = number
        return tuple(decisions)

    # ------------------------------------------------------------------------------------------------ parts

    def _check_latency(self, requirement: ast.Require) -> None:
        """Report a requirement of a latency that is no time, and one of something else that is."""
        is_latency, bound, runtime = requirement.quantity == "latency", requirement.bound, requirement.runtime
        if bound.span.text != bound.text:
            return  # a number that cannot be read, which is reported
        if is_latency != isinstance(bound, ast.Duration):
            self.problems.append(quantities.bound_of_quantity(bound.span, requirement.quantity, bound.text))
        elif is_latency and requirement.comparison not in ("<=", "<"):
            self.problems.append(quantities.latency_from_below(requirement.span, requirement.comparison))
        if runtime is not None and not is_latency:
            self.problems.append(quantities.runtime_of_quantity(runtime.span, requirement.quantity))
        elif runtime is not None and runtime.name not in RUNTIMES:
            self.problems.append(quantities.unknown_runtime(runtime.span, runtime.name, RUNTIMES))

    def _single(self, kind: type[Any], word: str, *, is_optional: bool = False) -> Any:
        """The one part of this kind; None, with a diagnostic unless it is optional, where there is none."""
        found = [item for item in self.node.items if isinstance(item, kind)]
        if not found and self.context.lost is None and not is_optional:
            self.problems.append(structure.missing_part(self.node.name_span, self.node.name, word))
        for extra in found[1:]:
            self.problems.append(structure.second_part(_keyword(extra.span, word), word, _keyword(found[0].span, word)))
        return found[0] if found else None

    def _inputs(self) -> tuple[tuple[Input, ...], tuple[tuple[str, Span], ...]]:
        """The inputs, and names that no backbone feature has."""
        inputs: dict[str, Input] = {}
        unknown: dict[str, Span] = {}
        for name in (n for item in self.node.items if isinstance(item, ast.Input) for n in item.names):
            match = _INPUT_NAME.fullmatch(name.name)
            if match is None:
                folded = name.name.lower()
                guess = folded if _INPUT_NAME.fullmatch(folded) else None
                self.problems.append(names.unknown_input(name.span, name.name, guess))
                unknown[name.name] = name.span
            elif name.name in inputs:
                self.problems.append(names.input_named_twice(name.span, name.name, inputs[name.name].span))
            else:
                inputs[name.name] = Input(name.name, int(match[1]), name.span)
        if not inputs and self.context.lost is None and not self.problems:
            self.problems.append(structure.missing_part(self.node.name_span, self.node.name, "input", "input c3, c4, c5"))
        return tuple(inputs.values()), tuple(unknown.items())

    def _fpn(self, node: ast.Fpn, inputs: tuple[Input, ...], unknown: tuple[tuple[str, Span], ...]) -> FpnProgram | None:
        taken = self._take(node, self.place, ast.Fpn)
        if taken is None:
            return None
        section, place = taken
        outside = self._outside(place)
        adapter = None
        if not any(setting.name == "adapter" for setting in section.settings):
            adapter = outside.adapter(DEFAULT_ADAPTER, section.span)
        settings, named = self._settings_with_op(section.settings, "adapter", outside)
        keyword = _keyword(node.span, "fpn")
        values = self._values(settings, FPN_ATTRIBUTES, "fpn", keyword)
        words = {**place.words, **_section_words(settings, values)}
        scope: list[tuple[str, str | None, Span]] = [(i.name, i.name, i.span) for i in inputs]
        scope += [(name, None, span) for name, span in unknown]
        later = names_bound_in(section.body)
        body = ExpressionElaborator(
            self.context, place.vocabulary, words, scope=scope, later=later,
            region=section.span, word_symbols=dict(place.symbols),
        )  # fmt: skip
        written = [n.name for item in self.node.items if isinstance(item, ast.Input) for n in item.names]
        body.pool = list(dict.fromkeys(written))  # in the order of the text
        is_own = section.span.source is self.node.span.source  # another file is read again for each version
        statements = BodyElaborator(body, is_fpn=True, kept=self.context.kept if is_own else None).run(section.body)
        return FpnProgram(settings, values, named or adapter, statements, keyword, node.span if node.source else None)

    def _settings_with_op(
        self, settings: tuple[ast.Setting, ...], name: str, outside: ExpressionElaborator
    ) -> tuple[tuple[ast.Setting, ...], Target | Slot | None]:
        """Attributes of which the one of this name names an op; and this op, None where there is none."""
        op: Target | Slot | None = None
        made: list[ast.Setting] = []
        for setting in settings:
            if setting.name == name:
                op = outside.adapter(setting.value, setting.value.span)
                made.append(setting)
            else:
                made += outside.settings((setting,))
        return tuple(made), op

    def _head(self, node: ast.Head) -> HeadProgram | None:
        taken = self._take(node, self.place, ast.Head)
        if taken is None:
            return None
        section, place = taken
        outside = self._outside(place)
        settings = outside.settings(section.settings)
        keyword = _keyword(node.span, "head")
        values = self._values(settings, HEAD_ATTRIBUTES, "head", keyword)
        words = {**place.words, **_section_words(settings, values)}
        body = ExpressionElaborator(
            self.context, place.vocabulary, words, region=section.span, word_symbols=dict(place.symbols)
        )
        chains = []
        labels: set[str | None] = set()
        for tower in section.towers:
            if tower.label in labels or tower.label not in (None, TRUNK, *TOWERS):
                body.problems = []  # the whole chain is a mistake, and reported as such
            labels.add(tower.label)
            chains.append(Chain(tower.label, elaborate_chain(tower.steps, tower.span, body), tower.span))
            body.problems = self.problems
        return HeadProgram(settings, values, tuple(chains), section.span, keyword)

    def _predict(self, node: ast.Predict) -> PredictProgram:
        self._note_settings(node, self.place)
        settings, conv = self._settings_with_op(node.settings, "conv", self._outside(self.place))
        return PredictProgram(node.detector, settings, node.span, node.detector_span, conv)

    def _values(
        self, settings: tuple[ast.Setting, ...], accepted: Mapping[str, Accepts], owner: str, keyword: Span
    ) -> dict[str, Any] | None:
        """The values of a section's attributes; None where slots decide them."""
        for setting in settings:
            if find_slot(setting.value):
                return None
        values = attributes.settings(settings, accepted, owner, keyword, {}, self.problems)
        return dict.fromkeys(accepted, UNKNOWN) if values is None else dict(values)

    # -------------------------------------------------------------------------------------- other files

    def _take(self, node: _S, place: Place, kind: type[_S]) -> tuple[_S, Place] | None:
        """A section, or the one of another decoder that ``from`` names, with attributes changed.

        None, with a diagnostic, where there is no such file or section.
        """
        self._note_settings(node, place)
        if node.source is None:
            return node, place
        library = self.library
        found = library.open(node.source, node.span, place.folder)
        if found is None:
            return None
        path, file = found
        library.enter(path)
        theirs = Place(library.vocabulary(file, path.parent), {}, path.parent)
        for level in theirs.vocabulary.levels():
            check_definitions(level, self.context)
        decoder = file.decoder
        section = next((item for item in decoder.items if isinstance(item, kind)), None) if decoder else None
        taken = None
        if decoder is None or section is None:
            is_readable = not any(p.span.source is file.span.source and p.code < "NAS2" for p in self.problems)
            if is_readable:
                word = "fpn" if kind is ast.Fpn else "head"
                self.problems.append(structure.no_section(node.span, node.source, word))
        else:
            self._words_of_other_file(decoder, theirs)
            taken = self._take(section, theirs, kind)
        library.leave()
        if taken is None:
            return None
        inner, origin = taken
        own = self._in_own_words(node.settings, place)
        kept = tuple(s for s in inner.settings if s.name not in {s.name for s in own})
        return replace(inner, settings=kept + own), origin

    def _words_of_other_file(self, decoder: ast.Decoder, place: Place) -> None:
        """Enter the `let`s of a decoder that a section is taken from. Those of holes become the decoder's own."""
        for item in decoder.items:
            if isinstance(item, ast.Let):
                statement = self._outside(place).let(item)
                if find_slot(statement.value):
                    taken = {w.name for w in self.words}
                    name, number = item.name, 1
                    while name in taken:
                        number += 1
                        name = f"{item.name}_{number}"
                    if isinstance(statement.value, Slot):
                        place.words[item.name].let = name
                        statement.value.let = name
                    self.words.append(statement._replace(name=name))

    def _in_own_words(self, settings: tuple[ast.Setting, ...], place: Place) -> tuple[ast.Setting, ...]:
        """Attributes set beside ``from``, their words read where they stand: the section is read with those of its file."""
        outside = self._outside(place)
        return tuple(setting if setting.name == "adapter" else outside.settings((setting,))[0] for setting in settings)


def _section_words(settings: tuple[ast.Setting, ...], values: dict[str, Any] | None) -> dict[str, Word]:
    """What ``width``, ``norm`` and ``act`` mean in a section with these attributes; a slot stands for itself."""
    if values is not None:
        return {name: values[name] for name in primitives.SECTION}
    words: dict[str, Word] = {
        name: UNKNOWN if accepts.default is None else accepts.default for name, accepts in primitives.SECTION.items()
    }
    for setting in settings:
        if setting.name in words:
            value = setting.value
            words[setting.name] = value if find_slot(value) else attributes.evaluate(value, {}, [])
    return words


def _keyword(span: Span, word: str) -> Span:
    """The word that a section or statement begins with."""
    return span.head(len(word))
