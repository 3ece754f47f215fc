"""Search spaces: the class `Space`, and how to load one."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nasdsl.backbones import Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Size
from nasdsl.backends.requirements import Quantities, quantity_of, violations
from nasdsl.decoder import REFERENCE_BACKBONE, Decoder, check_source, errors_of, loads
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.diagnostics.allowed import allowed_codes
from nasdsl.semantics.check import Checked
from nasdsl.semantics.conditions import numbered
from nasdsl.semantics.files import read_source, zoo_file
from nasdsl.semantics.program import Program
from nasdsl.spaces.condition import Condition, count_fillings
from nasdsl.spaces.domain import Domain, roles_of
from nasdsl.spaces.figures import FigureCounter, possible_words
from nasdsl.spaces.match import match
from nasdsl.spaces.match_values import NoMatch
from nasdsl.spaces.size import space_size
from nasdsl.spaces.syntax_tree import Tree, fill, to_syntax_tree
from nasdsl.spaces.tokens import legal_tokens
from nasdsl.syntax.printer import print_file
from nasdsl.syntax.rewriting import NameClash, with_detector, with_fpn, with_width


class SpaceError(ValueError):
    """A text or a list of integers that is not of the space, or a space in which nothing keeps the requirements."""


class Filled(str):
    """The `text` of a filled decoder, on one line.

    Attributes:
        indices: the decisions that it stands for, an integer for each of its space.
    """

    indices: tuple[int, ...]
    __slots__ = ("indices",)

    def __new__(cls, text: str, indices: Sequence[int]) -> Filled:
        made = super().__new__(cls, text)
        made.indices = tuple(indices)
        return made

    def __getnewargs__(self) -> tuple[str, tuple[int, ...]]:  # type: ignore[override]  # copies and pickles keep the indices
        return str(self), self.indices


MAX_ATTEMPTS = 1_000_000
"""Samples that are drawn at the most before a space is given up as one in which nothing meets the requirements."""

REPORT_EVERY = 10_000
"""Rejected samples in a row after which `Space.on_rejections` is called, and called again."""


@dataclass(frozen=True, slots=True)
class Rejections:
    """Samples that were drawn in a row, and rejected.

    Attributes:
        count: how many so far.
        attempts: how many are drawn at the most.
        reason: why the last was rejected: ``has 12 macs, expected <= 10``, ``cannot be built``.
    """

    count: int
    attempts: int
    reason: str


class Space:
    """A decoder with holes.

    Attributes:
        name: of the decoder.
        domains: the decisions, in the order of the text. A hole inside an alternative counts only where that alternative is
            chosen, and one in a turn of a `repeat` only where there is this turn (``condition``); elsewhere its index is 0.
        backbone, classes: what requirements are computed for; where the text names several backbones, the first of them.
        backbones, sizes: all that ``detector(…)`` in the text names; empty where it does not say.
        source: the text.
        path: the file it was read from, which paths in the text are relative to; None for a text in no file.
        on_rejections: called after each `REPORT_EVERY` samples that are rejected in a row, because requirements that few
            fillings meet, or none, take a while. Spaces that are made of this one have it too.
        program: what the text was elaborated into.
    """

    on_rejections: Callable[[Rejections], None] | None = None

    def __init__(self, program: Program, source: Source, backbone: Backbone, classes: int, path: Path | None = None) -> None:
        self.program = program
        self.source = source
        self.path = path
        self.backbone = backbone
        self.classes = classes
        detector = {} if program.detector is None else {s.name: s.value for s in program.detector.settings}
        self.sizes: tuple[Size, ...] = tuple((s[0], s[1]) for s in possible_words(detector.get("size")))
        self.backbones = tuple(str(name) for name in possible_words(detector.get("backbone")))
        self.name = program.name
        self._allowed = sorted(allowed_codes(source.text))
        roles = roles_of(program)
        self.domains = tuple(
            Domain(
                d.number, d.name, d.kind, d.texts, Condition(numbered(d.condition)), d.span,
                roles.get(d.number, ""), d.weights,
            )
            for d in program.decisions
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Space {self.name}: {len(self.domains)} decisions, {space_size(self.size)} decoders>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_space, (self.source, self.path, self.backbone.name, self.classes)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The backbone's features that its text names, such as ``("c3", "c4", "c5")``."""
        return tuple(i.name for i in self.program.inputs)

    def with_width(self, *widths: int) -> Space:
        """The space with other channels in fpn and head; see `Decoder.with_width`.

        Args:
            widths: one width, or several, among which a decision chooses.

        Raises:
            DiagnosticError: it does not check at a width.
        """
        widths = tuple(map(operator.index, widths))
        for width in widths[1:] and widths:  # a width with which nothing can be built would be one that no sample has
            self._with(with_width(self.source, width))
        return self._with(with_width(self.source, *widths))

    def with_detector(self, sizes: Sequence[Size] = (), backbones: Sequence[str] = ()) -> Space:
        """The space of detectors of these sizes and backbones: its text with another ``detector(…)``.

        Args:
            sizes: height and width of the images in pixels; of several, a decision chooses. None leaves what the text says.
            backbones: names of `nasdsl.backbones.BACKBONES`, or ``timm:NAME``; the same.

        Raises:
            UnknownBackbone: there is no such backbone.
            DiagnosticError: it does not check so (a backbone without an input; a value that stands twice).
        """
        for name in backbones:
            find_backbone(name)
        return self._with(with_detector(self.source, sizes, backbones))

    def _with(self, source: Source) -> Space:
        made = _read_space(source, self.path, self.backbone.name, self.classes)
        made.on_rejections = self.on_rejections
        return made

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
        except NameClash as error:
            raise SpaceError(str(error)) from None
        made = self._with(source)
        if made.load(made.sample(0)).canonical_fpn != decoder.canonical_fpn:
            raise SpaceError(
                f"`{self.name}` defines a word that the fpn of `{decoder.name}` uses with another meaning; give it another name"
            )
        return made

    @cached_property
    def size(self) -> int:
        """Number of different fillings, before requirements."""
        return count_fillings([domain.size for domain in self.domains], [domain.condition.cases for domain in self.domains])

    def active(self, indices: Sequence[int]) -> list[bool]:
        """Which decisions count, given all of them.

        Args:
            indices: an integer for each decision, in the order of `domains`.
        """
        return [domain.condition.holds(indices) for domain in self.domains]

    def decode(self, indices: Sequence[int]) -> Filled:
        """The text of a decoder from its decisions, on one line.

        Args:
            indices: an integer for each decision, in the order of `domains`; those that do not count mean nothing.

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
        text = print_file(fill(self.tree, kept), one_line=True).strip()
        return Filled(text + self.allowed_comment, kept)

    def encode(self, text: str) -> list[int]:
        """The decisions of a filled text, in any layout.

        Args:
            text: a filling, also one that is formatted differently.

        Raises:
            SpaceError: it is no filling of this space; the message says where it first differs.
            DiagnosticError: it cannot be read.
        """
        source = Source("<text>", text)
        checked = check_source(source)
        if checked.architecture is None or checked.program is None:
            raise DiagnosticError(checked.problems)
        try:
            return match(self.program, checked.program)
        except NoMatch as error:
            place = error.span
            raise SpaceError(
                f"not a decoder of {self.name}: `{' '.join(place.text.split())[:80]}` ({place}) cannot stand there"
            ) from None

    def figures(self, indices: Sequence[int]) -> Quantities | None:
        """What requirements bound, at the sizes that they name; None for a filling that cannot be built.

        Args:
            indices: an integer for each decision, in the order of `domains`.
        """
        return self._counter.figures(indices)

    @cached_property
    def _counter(self) -> FigureCounter:
        return FigureCounter(self.program, self.backbone, self.classes)

    @cached_property
    def tree(self) -> Tree:
        """The syntax tree, with slots in the place of the holes."""
        return to_syntax_tree(self.program)

    @property
    def allowed_comment(self) -> str:
        """What stands behind every filling: the warnings that the space allows; empty if there are none."""
        return f"  # nas: allow {' '.join(self._allowed)}" if self._allowed else ""

    def keeps(self, indices: Sequence[int]) -> bool:
        """Whether a filling can be built and keeps the requirements.

        Args:
            indices: an integer for each decision, in the order of `domains`.
        """
        figures = self._counter.figures(indices)
        return figures is not None and not violations(self.program.requirements, figures)

    def sample(self, seed: int | random.Random | None = None, *, attempts: int | None = None) -> Filled:
        """A filling drawn over the decisions, and drawn again while it cannot be built or breaks a requirement.

        Args:
            seed: an integer, a generator to go on with, or None for another sample each time.
            attempts: how many to draw at the most; None: `MAX_ATTEMPTS`.

        Raises:
            SpaceError: none of `attempts` fillings can be built and keeps the requirements.
        """
        missing = [name for name in self.inputs if name not in self.backbone.out_channels]
        if missing:  # of every filling, which would say no more than that it cannot be built
            given = ", ".join(self.backbone.out_channels)
            raise SpaceError(f"`{self.name}` reads {missing[0]}; the backbone `{self.backbone.name}` gives {given}")
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        sizes = [domain.size for domain in self.domains]
        weighted = [domain for domain in self.domains if domain.weights]
        attempts = (MAX_ATTEMPTS if attempts is None else attempts) if sizes else 1
        indices: list[int] = []
        draw = rng.random
        for number in range(1, attempts + 1):
            indices = [int(draw() * size) for size in sizes]
            for domain in weighted:
                indices[domain.index] = domain.draw(rng)
            if self.keeps(indices):
                return self.decode(indices)
            if number % REPORT_EVERY == 0 and self.on_rejections is not None:
                self.on_rejections(Rejections(number, attempts, self._rejection(indices)))
        raise SpaceError(
            f"none of {attempts:,} samples of {self.name} can be built and keeps its requirements; "
            f"the last {self._rejection(indices)}"
        )

    def _rejection(self, indices: Sequence[int]) -> str:
        """Why a filling is rejected, as the end of a sentence."""
        figures = self.figures(indices)
        if figures is None:
            return "cannot be built"
        missed = [
            f"{value:,} {quantity_of(r)}, expected {r.comparison} {r.bound.text}"
            for r, value in violations(self.program.requirements, figures)
        ]
        return f"has {' and '.join(missed)}"

    def samples(self, count: int, seed: int | None = None) -> Iterator[Filled]:
        """`count` samples from one generator.

        Args:
            count: how many; they may repeat.
            seed: an integer; None for others each time.
        """
        rng = random.Random(seed)
        for _ in range(count):
            yield self.sample(rng)

    def load(self, text: str) -> Decoder:
        """A filled text as a decoder; see `nasdsl.loads`.

        Args:
            text: a filling of this space, or any other decoder.
        """
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
            return legal_tokens(self.tree, prefix)
        except ValueError as error:
            raise SpaceError(f"not the beginning of a decoder of {self.name}: {error}") from None


def load_space(path: str | Path, *, backbone: str | None = None, classes: int = 80) -> Space:
    """Read a space from a file; ``-`` is standard input, ``zoo:NAME`` a space that comes with the package.

    Args:
        path: of a ``.nas`` file, ``-`` or ``zoo:NAME``.
        backbone: what its requirements are computed for. A text with ``detector(backbone=…)`` gets this backbone in the place
            of its own; None: its own, or resnet50.
        classes: number of classes, of which the costs of its requirements are computed.

    Raises:
        DiagnosticError: the text has errors.
        UnreadableFile: the file cannot be read.
        UnknownBackbone: no backbone has this name.
    """
    path = zoo_file(path)
    file = None if str(path) == "-" else Path(path)
    return load_space_source(read_source(path), file, backbone=backbone, classes=classes)


def loads_space(text: str, *, backbone: str | None = None, classes: int = 80) -> Space:
    """Read a space from a text; see `load_space`.

    Args:
        text: a decoder with holes, and the definitions that it needs.
        backbone: what its requirements are computed for; None: that of its text, or resnet50.
        classes: number of classes, likewise.
    """
    return load_space_source(Source("<text>", text), backbone=backbone, classes=classes)


def load_space_source(
    source: Source, path: Path | None = None, *, backbone: str | None = None, classes: int = 80, root: Path | None = None,
    checked: Checked | None = None,
) -> Space:  # fmt: skip
    """Read a space from a source; see `load_space`.

    Args:
        source: the text and its name.
        path: where it lies, which paths in it are relative to; None for a text in no file.
        backbone: what its requirements are computed for; None: that of its text, or resnet50.
        classes: number of classes, likewise.
        root: the folder that files which it uses must not leave; None: the file's own.
        checked: what `check_source` has found in it; None: it is checked now.
    """
    checked = checked or check_source(source, path=path, root=root)
    space = _space(checked, source, path, backbone or REFERENCE_BACKBONE, classes)
    if backbone is None or space.backbones in ((), (backbone,)):
        return space
    return space.with_detector(backbones=[backbone])


def _read_space(source: Source, path: Path | None, backbone: str, classes: int) -> Space:
    """A space, after its text is checked; see `_space`."""
    return _space(check_source(source, path=path), source, path, backbone, classes)


def _space(checked: Checked, source: Source, path: Path | None, backbone: str, classes: int) -> Space:
    """A space; `backbone` is that of a text which names none."""
    if checked.program is None or checked.architecture is None:
        raise DiagnosticError(errors_of(checked, source))
    space = Space(checked.program, source, find_backbone(backbone), classes, path)
    for name in reversed(space.backbones):
        space.backbone = find_backbone(name)
    return space
