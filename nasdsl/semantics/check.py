"""The checker: from a syntax tree to an architecture and all diagnostics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.allowed import without_allowed
from nasdsl.diagnostics.catalogue import structure
from nasdsl.semantics.architecture import Architecture, DetectorPart, FpnPart, HeadPart, InputFeature
from nasdsl.semantics.choices import check_unused_choices
from nasdsl.semantics.conditions import ALWAYS, holds
from nasdsl.semantics.definitions import check_definitions
from nasdsl.semantics.elaborate import elaborate
from nasdsl.semantics.elaborate_attribute import Context
from nasdsl.semantics.elaborate_body import new_context
from nasdsl.semantics.files import Reader, read_source
from nasdsl.semantics.infer_detector import feature_widths, infer_detector
from nasdsl.semantics.infer_fpn import infer_fpn
from nasdsl.semantics.infer_head import infer_head, longest_path
from nasdsl.semantics.infer_prediction import infer_prediction
from nasdsl.semantics.kept import KeptSemantics
from nasdsl.semantics.level_widths import check_level_widths
from nasdsl.semantics.library import Library
from nasdsl.semantics.program import Decision, Program, present
from nasdsl.semantics.resolved_names import NameTable
from nasdsl.semantics.rules import layer_warnings
from nasdsl.semantics.vocabulary import Vocabulary
from nasdsl.syntax import ast

MOST_FILLINGS = 64
"""Fillings that are checked of a space, at the most."""

MOST_READ = 20_000
"""Layers of a pyramid, in all fillings together, after which no further filling is checked."""

_CERTAIN = ("NAS2", "NAS301", "NAS302", "NAS303", "NAS304", "NAS305", "NAS310", "NAS313", "NAS4", "NAS503")
"""Codes of mistakes that an alternative makes wherever it stands. Others (a sum of two widths, say) depend on what else is
chosen: such a sample is drawn again."""


class Checked(NamedTuple):
    """Result of checking a text.

    Attributes:
        architecture: None where the text has errors or holds no decoder.
        problems: all findings.
        program: what was inferred from; None where the text holds no decoder.
        file: the tree.
        vocabulary: what its names of ops, blocks and choices mean.
    """

    architecture: Architecture | None
    problems: list[Diagnostic]
    program: Program | None = None
    file: ast.File | None = None
    vocabulary: Vocabulary | None = None


def check(
    file: ast.File,
    problems: list[Diagnostic],
    *,
    path: Path | None = None,
    root: Path | None = None,
    lost: frozenset[str] | None = None,
    names: NameTable | None = None,
    kept: KeptSemantics | None = None,
    read: Reader = read_source,
) -> Checked:
    """Check a file.

    Args:
        problems: findings of the parser; those of the checker are added.
        path: where the file lies, for `use` and `from`; None for a text without a place.
        root: the folder that paths may not leave; the file's own by default.
        lost: `Parsed.lost`: names that a syntax error made unreadable, whose absence is no finding.
        names: where what names refer to is entered; None: nowhere.
        kept: what is kept of earlier versions of the text, which this one adds to; None: nothing.
        read: reads the files that it brings in.
    """
    folder = path.resolve().parent if path is not None else None
    library = Library(root or folder, problems, read)
    if path is not None:
        library.enter(path.resolve())
    of_definitions = new_context(problems, lost, names)
    known = None if kept is None else kept.vocabulary(file, names)
    vocabulary = _vocabulary(file, folder, library, of_definitions) if known is None else known
    if kept is not None and known is None and not problems:
        kept.keep_vocabulary(file, vocabulary, names)
    check_unused_choices(file, vocabulary, problems, lost, names)
    if names is not None:
        for item in file.items:
            if isinstance(item, ast.OpDef | ast.BlockDef | ast.ChoiceDef):
                names.definition(item)
    node = _only_decoder(file, problems, lost)
    program = architecture = None
    if node is not None:
        # Copies are counted apart, so that a decoder behind definitions that are kept has the limit of any other.
        context = new_context(problems, lost, names, kept)
        context.copies.is_full = of_definitions.copies.is_full
        program = elaborate(node, vocabulary, folder, library, context)
        architecture = _architecture(program, problems, lost)
        readable = lost is None and not any(p.code < "NAS2" for p in problems)  # a mended text has holes of its own
        if architecture is not None and program.decisions and readable:
            _check_alternatives(program, context.hole_problems, problems)
    if lost is not None:  # nothing is said of what recovery has put in
        problems[:] = [p for p in problems if p.span.end > p.span.start or p.code < "NAS2"]
    problems[:] = _in_order(problems, file.span.source)
    failed = any(p.severity == "error" for p in problems)
    return Checked(None if failed else architecture, problems, program, file, vocabulary)


def _in_order(problems: list[Diagnostic], own: Source) -> list[Diagnostic]:
    """Findings by their places, those in the text itself first; what is found twice, once."""

    def places() -> list[tuple[bool, int]]:
        return [(p.span.source is not own, p.span.start) for p in problems]

    found = places()
    if len(set(found)) < len(found):
        problems = list({(p.code, p.span, p.message): p for p in problems}.values())
        found = places()
    return [problems[at] for at in sorted(range(len(found)), key=found.__getitem__)]


def _vocabulary(file: ast.File, folder: Path | None, library: Library, context: Context) -> Vocabulary:
    """The vocabulary of a file, with its definitions checked; the prelude is checked by the tests."""
    vocabulary = library.vocabulary(file, folder)
    for level in vocabulary.levels():
        check_definitions(level, context)
    return vocabulary


def _only_decoder(file: ast.File, problems: list[Diagnostic], lost: frozenset[str] | None) -> ast.Decoder | None:
    decoders = [item for item in file.items if isinstance(item, ast.Decoder)]
    if not file.items and lost is None and not problems:
        problems.append(structure.empty_text(Span(file.span.source, 0, 0)))
    for extra in decoders[1:]:
        problems.append(structure.second_decoder(extra.name_span, decoders[0].name_span))
    return decoders[0] if decoders else None


def _architecture(
    program: Program, problems: list[Diagnostic], lost: frozenset[str] | None, indices: Sequence[int] | None = None
) -> Architecture | None:
    """The architecture of a program, with its slots open or filled; None where a part is missing."""
    warnings: list[Diagnostic] = []
    detector = infer_detector(program, problems, indices)
    fpn = infer_fpn(program, problems, warnings, lost, indices)
    head = infer_head(program, fpn, problems, warnings, lost, indices)
    predicted = infer_prediction(program, head, problems, warnings, indices)
    if fpn is None or head is None or predicted is None:
        return None
    predict, prediction = predicted
    check_level_widths(program, fpn, head, prediction, problems, indices)
    inputs = tuple(InputFeature(*i) for i in program.inputs)
    # A filling is looked at for mistakes alone.
    warnings = [] if indices is not None else _warnings(program, fpn, head, detector, warnings)
    open_holes = {d.span for d in program.decisions if d.condition == ALWAYS} if indices is None else set()
    if not any(p.severity == "error" for p in problems):  # what an error leaves unread is no finding of its own
        problems.extend(warnings)
    return Architecture(
        program.name, inputs, fpn, head, predict, prediction, program.requirements,
        tuple(sorted(open_holes, key=lambda s: s.start)), len(program.decisions), tuple(warnings), detector,
    )  # fmt: skip


def _warnings(
    program: Program, fpn: FpnPart, head: HeadPart, detector: DetectorPart | None, found: list[Diagnostic]
) -> list[Diagnostic]:
    """The warnings that inference has found, and those about layers, without those that the text allows."""
    of_layers = layer_warnings(fpn, head, feature_widths(detector), is_open=bool(program.decisions))
    allowed = without_allowed([*found, *of_layers], program.span)
    return list({(w.code, w.span, w.message): w for w in allowed}.values())  # one for both towers, and for all rounds


def _check_alternatives(program: Program, hole_problems: list[Diagnostic], problems: list[Diagnostic]) -> None:
    """Report holes that nothing can fill, and alternatives that are wrong in their place.

    The slots are filled a few times, so that every alternative of every hole stands in one of the fillings.
    """
    problems += hole_problems
    if hole_problems:
        return
    reported = {(p.code, p.span) for p in problems}
    checked: list[tuple[list[Diagnostic], int | None]] = []
    longest = read = 0
    for indices in sample_fillings(program.decisions):
        found: list[Diagnostic] = []
        made = _architecture(program, found, None, indices)
        checked.append((found, None if made is None else made.head.share))
        longest = max(longest, 0 if program.head is None else longest_path(program.head, indices))
        read += _size(program, indices) if made is None else len(made.fpn.applications)
        if read > MOST_READ:
            break
    for found, share in checked:
        for problem in found:
            if problem.code == structure.SHARE_BEYOND.code and share is not None and share <= longest:
                continue  # a drawn depth that this index exceeds
            if problem.code.startswith(_CERTAIN) and (problem.code, problem.span) not in reported:
                reported.add((problem.code, problem.span))
                problems.append(problem)


def _size(program: Program, indices: Sequence[int]) -> int:
    """Number of statements of the pyramid in a filling."""
    return 0 if program.fpn is None else sum(1 for _ in present(program.fpn.statements, indices))


def sample_fillings(decisions: Sequence[Decision]) -> Iterator[list[int]]:
    """Fillings in which each alternative of each hole stands once; `MOST_FILLINGS` at the most."""
    left = {d: dict.fromkeys(range(len(d.texts))) for d in decisions}
    for number in range(MOST_FILLINGS):
        wanted = next((d for d in reversed(decisions) if left[d]), None)
        if wanted is None:
            return
        forced = dict(wanted.condition[0])
        indices: list[int] = []
        for decision in decisions:
            allowed = forced.get(decision)
            if allowed is None:
                indices.append(next(iter(left[decision]), number % len(decision.texts)))
            else:
                indices.append(next((at for at in left[decision] if at in allowed), max(allowed)))
        for decision in decisions:
            if holds(decision.condition, indices):
                left[decision].pop(indices[decision.number], None)
        yield indices
