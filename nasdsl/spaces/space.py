"""A search space as users hold it."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nasdsl.backbones import Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.requirements import Quantities, violations
from nasdsl.decoder import Decoder, check_source, loads
from nasdsl.diagnostics import DiagnosticError, Source, Span
from nasdsl.semantics.files import read_source
from nasdsl.semantics.fill import NoMatch, fill, match
from nasdsl.semantics.sections import resolve_sections
from nasdsl.semantics.template import DomainKind, Slot, Template, unroll
from nasdsl.spaces.requirements import Meter
from nasdsl.spaces.tokens import legal_tokens
from nasdsl.syntax import ast
from nasdsl.syntax.parser import parse
from nasdsl.syntax.printer import print_file
from nasdsl.syntax.rewriting import Clash, at_width, with_fpn


class SpaceError(ValueError):
    """A text or a list of integers that is not of the space, or a space in which nothing keeps the requirements."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One decision.

    Attributes:
        index: its number, in the order of the text.
        name: of the choice, ``pool``, or empty for a hole with its alternatives in place.
        kind: ``choice``, ``pool`` or ``range``.
        alternatives: text of each.
        parent: (decision, alternative) in which this hole stands; None for one that is always open.
        span: the hole in the text.
    """

    index: int
    name: str
    kind: DomainKind
    alternatives: tuple[str, ...]
    parent: tuple[int, int] | None
    span: Span

    @property
    def size(self) -> int:
        """Number of alternatives."""
        return len(self.alternatives)

    def __len__(self) -> int:
        return len(self.alternatives)


class Filled(str):
    """The text of a filled decoder, on one line; ``indices`` are the decisions that it stands for."""

    indices: tuple[int, ...]
    __slots__ = ("indices",)

    def __new__(cls, text: str, indices: Sequence[int]) -> Filled:
        made = super().__new__(cls, text)
        made.indices = tuple(indices)
        return made


class Space:
    """A decoder with holes.

    Attributes:
        name: of the decoder.
        domains: the decisions, in the order of the text. A hole inside an alternative (``parent``) counts only where
            that alternative is chosen; elsewhere its index is 0.
        backbone, classes: what requirements are computed for.
        source: the text.
        path: the file it was read from, which paths in the text are relative to; None for a text in no file.
    """

    def __init__(self, template: Template, source: Source, backbone: Backbone, classes: int, path: Path | None = None) -> None:
        self.template = template
        self.source = source
        self.path = path
        self.backbone = backbone
        self.classes = classes
        self.name = template.decoder.name
        self.domains = tuple(
            Domain(s.number, s.name, s.kind, tuple(_shown(a) for a in s.alternatives), s.parent, s.span) for s in template.slots
        )

    def __repr__(self) -> str:
        return f"<Space {self.name}: {len(self.domains)} decisions, {self.size} decoders>"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The backbone's features that its text names, such as ``("c3", "c4", "c5")``."""
        return self.template.inputs

    def with_width(self, width: int) -> Space:
        """The space with `width` channels in fpn and head; see `Decoder.with_width`.

        Raises:
            DiagnosticError: it does not check at this width.
        """
        return _space(at_width(self.source, operator.index(width)), self.path, self.backbone.name, self.classes)

    def with_fpn(self, text: str) -> Space:
        """The space with inputs and fpn of a decoder, written out: a space of heads on that fpn.

        It says what ``fpn from "file"`` says, in one text.

        Args:
            text: a decoder that takes nothing from other files, as `decode` gives it.

        Raises:
            SpaceError: the two texts use a word differently, or the fpn would not be the decoder's.
            DiagnosticError: it does not check with this fpn.
        """
        decoder = loads(text, "the fpn's text")
        try:
            source = with_fpn(self.source, decoder.source)
        except Clash as error:
            raise SpaceError(str(error)) from None
        made = _space(source, self.path, self.backbone.name, self.classes)
        if made.load(made.sample(0)).canonical_fpn != decoder.canonical_fpn:
            raise SpaceError(
                f"`{self.name}` defines a word that the fpn of `{decoder.name}` uses with another meaning; give it another name"
            )
        return made

    @cached_property
    def size(self) -> int:
        """Number of different fillings, before requirements."""
        children: dict[tuple[int, int] | None, list[Slot]] = {}
        for slot in self.template.slots:
            children.setdefault(slot.parent, []).append(slot)
        sizes: dict[int, int] = {}
        for slot in reversed(self.template.slots):  # a slot's own number is less than those inside it
            sizes[slot.number] = sum(
                math.prod(sizes[inner.number] for inner in children.get((slot.number, at), ()))
                for at in range(len(slot.alternatives))
            )
        return math.prod(sizes[slot.number] for slot in children.get(None, ()))

    def active(self, indices: Sequence[int]) -> list[bool]:
        """Which decisions count, given all of them."""
        flags: list[bool] = []
        for domain in self.domains:
            parent = domain.parent
            flags.append(parent is None or (flags[parent[0]] and indices[parent[0]] == parent[1]))
        return flags

    def decode(self, indices: Sequence[int]) -> Filled:
        """The text of a decoder from its decisions, on one line.

        Raises:
            SpaceError: a wrong number of integers, or one out of range.
        """
        if len(indices) != len(self.domains):
            raise SpaceError(f"{len(indices)} integers for {len(self.domains)} decisions")
        for domain, index in zip(self.domains, indices, strict=True):
            try:
                operator.index(index)
            except TypeError:
                raise SpaceError(f"decision {domain.index} is {index!r}; expected an integer") from None
            if not 0 <= index < domain.size:
                which = f"decision {domain.index} ({domain.name or 'in place'})"
                raise SpaceError(f"{which} is {index}; expected 0 to {domain.size - 1}")
        flags = self.active(indices)
        kept = tuple(int(index) if flag else 0 for index, flag in zip(indices, flags, strict=True))
        return Filled(print_file(fill(self.template, kept), one_line=True).strip(), kept)

    def encode(self, text: str) -> list[int]:
        """The decisions of a filled text, in any layout.

        Raises:
            SpaceError: it is no filling of this space; the message says where it first differs.
            DiagnosticError: it cannot be read.
        """
        source = Source("<text>", text)
        parsed = parse(source)
        if parsed.problems:
            raise DiagnosticError(parsed.problems)
        try:
            return match(self.template, parsed.file)
        except NoMatch as error:
            place = error.span
            if place.source is not source:
                raise SpaceError(f"not a decoder of {self.name}: it lacks `{' '.join(place.text.split())[:80]}`") from None
            raise SpaceError(
                f"not a decoder of {self.name}: `{' '.join(place.text.split())[:80]}` ({place}) cannot stand there"
            ) from None

    def figures(self, indices: Sequence[int]) -> Quantities | None:
        """What requirements bound, at the sizes that they name; None for a filling that cannot be built."""
        return self._meter.figures(indices)

    @cached_property
    def _meter(self) -> Meter:
        return Meter(self.template, self.backbone, self.classes)

    def keeps(self, indices: Sequence[int]) -> bool:
        """Whether a filling can be built and keeps the requirements."""
        figures = self._meter.figures(indices)
        return figures is not None and not violations(self.template.requirements, figures)

    def sample(self, seed: int | random.Random | None = None, *, attempts: int = 1_000_000) -> Filled:
        """A filling drawn uniformly over the decisions, and drawn again while it cannot be built or breaks a requirement.

        Args:
            seed: an integer, a generator to go on with, or None for another sample each time.
            attempts: how many to draw at the most.

        Raises:
            SpaceError: none of `attempts` fillings can be built and keeps the requirements.
        """
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        sizes = [domain.size for domain in self.domains]
        attempts = attempts if sizes else 1
        indices: list[int] = []
        for _ in range(attempts):
            draw = rng.random
            indices = [int(draw() * size) for size in sizes]
            if self.keeps(indices):
                return self.decode(indices)
        raise SpaceError(
            f"none of {attempts:,} samples of {self.name} can be built and keeps its requirements{self._last(indices)}"
        )

    def _last(self, indices: Sequence[int]) -> str:
        """What a filling breaks, as a half sentence."""
        figures = self.figures(indices)
        if figures is None:
            return "; the last cannot be built"
        missed = [
            f"{value:,} {r.quantity}, expected {r.comparison} {r.bound.text}"
            for r, value in violations(self.template.requirements, figures)
        ]
        return f"; the last has {' and '.join(missed)}"

    def samples(self, count: int, seed: int | None = None) -> Iterator[Filled]:
        """`count` samples from one generator."""
        rng = random.Random(seed)
        for _ in range(count):
            yield self.sample(rng)

    def load(self, text: str) -> Decoder:
        """A filled text as a decoder; see `nasdsl.loads`."""
        return loads(text, f"<{self.name}>")

    def legal(self, prefix: str | Sequence[str]) -> set[str]:
        """The tokens that may follow a prefix of a filled text, for controllers that emit token by token.

        Args:
            prefix: text, or its tokens. Of text the last token counts as complete.

        Returns:
            the tokens; empty where the text is complete.

        Raises:
            SpaceError: the prefix is that of no filling.
        """
        try:
            return legal_tokens(self.template, prefix)
        except ValueError as error:
            raise SpaceError(f"not the beginning of a decoder of {self.name}: {error}") from None


def _shown(alternative: object) -> str:
    """An alternative as the text has it."""
    if isinstance(alternative, Slot):
        return f"?{alternative.name}" if alternative.name else " ".join(alternative.span.text.split())
    if isinstance(alternative, ast.Number):
        return alternative.text
    assert isinstance(alternative, ast.Node)
    text = " ".join(alternative.span.text.split())
    return alternative.name if isinstance(alternative, ast.Reference) and text.startswith("?") else text


def load_space(path: str | Path, *, backbone: str = "resnet50", classes: int = 80) -> Space:
    """Read a space from a file; ``-`` is standard input.

    Args:
        backbone, classes: what its requirements are computed for.

    Raises:
        DiagnosticError: the text has errors.
        UnreadableFile: the file cannot be read.
        UnknownBackbone: no backbone has this name.
    """
    return _space(read_source(path), None if str(path) == "-" else Path(path), backbone, classes)


def loads_space(text: str, *, backbone: str = "resnet50", classes: int = 80) -> Space:
    """Read a space from a text; see `load_space`."""
    return _space(Source("<text>", text), None, backbone, classes)


def _space(source: Source, path: Path | None, backbone: str, classes: int) -> Space:
    checked = check_source(source, path=path)
    problems = list(checked.problems)
    if checked.architecture is None:
        raise DiagnosticError(problems)
    parsed = parse(source)
    sections = resolve_sections(parsed.file, path)
    assert sections is not None  # it has checked
    template = unroll(sections, problems)
    if any(p.severity == "error" for p in problems):
        raise DiagnosticError(problems)
    return Space(template, source, find_backbone(backbone), classes, path)
