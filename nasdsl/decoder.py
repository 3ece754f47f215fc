"""Loading, checking and lowering of decoders: `load`, `loads` and the class `Decoder`."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nasdsl.backbones import TIMM
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends import requirements
from nasdsl.backends.cost import CostTable, Size, cost
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source
from nasdsl.diagnostics.catalogue import holes, structure
from nasdsl.garbage_collector import paused_collector
from nasdsl.ir import Graph, lower
from nasdsl.ir.canonical import canonical_text, digest
from nasdsl.semantics.architecture import Architecture
from nasdsl.semantics.calls import CallCounter
from nasdsl.semantics.check import Checked, check
from nasdsl.semantics.files import Reader, read_source, zoo_file
from nasdsl.semantics.kept import KeptText
from nasdsl.semantics.primitives import with_plugin_warnings
from nasdsl.semantics.program import Program
from nasdsl.semantics.resolved_names import NameTable
from nasdsl.syntax.parser import parse
from nasdsl.syntax.rewriting import with_detector, with_prediction, with_width

if TYPE_CHECKING:
    import networkx

    from nasdsl.backends.module import DecoderModule

REFERENCE_BACKBONE = "resnet50"
"""The backbone of a decoder whose text names none: digests and pictures do not depend on it."""


@paused_collector()
def check_source(
    source: Source,
    *,
    path: Path | None = None,
    root: Path | None = None,
    names: NameTable | None = None,
    read: Reader = read_source,
    kept: KeptText | None = None,
) -> Checked:
    """Parse and check a text: the architecture, or None with errors among the findings. Never raises for a text.

    Args:
        path, root: see `nasdsl.semantics.check.check`.
        names: where what each name refers to is entered; None: nowhere.
        read: reads the files that it brings in.
        kept: what is kept of earlier versions of the text; None: nothing.
    """
    parsed = parse(source, None if kept is None else kept.syntax)
    checked = check(
        parsed.file, parsed.problems, path=path, root=root, lost=parsed.lost, names=names,
        kept=None if kept is None else kept.semantics, read=read,
    )  # fmt: skip
    checked = checked._replace(problems=with_plugin_warnings(checked.problems))
    architecture = checked.architecture
    if architecture is None or not architecture.requirements or architecture.open_holes:
        return checked
    broken = _broken_requirements(architecture, checked.program)
    return checked._replace(architecture=None if broken else architecture, problems=checked.problems + broken)


def _broken_requirements(architecture: Architecture, program: Program | None) -> list[Diagnostic]:
    own = architecture.detector.size if architecture.detector else None
    try:
        backbone, channels = _own_channels(architecture)
        graph = lower(architecture, channels)
    except DiagnosticError as error:
        return list(error.diagnostics)
    sizes = requirements.macs_sizes(architecture.requirements, own)
    known = requirements.measure(graph, sizes, 80, architecture.fpn.dangling, own)
    counted = requirements.counted_ops(architecture.requirements)
    if counted and program is not None:
        known = known._replace(calls=CallCounter(program, counted).count())
    return [
        holes.requirement_broken(
            requirement.span,
            architecture.name,
            requirements.quantity_of(requirement),
            value,
            f"{requirement.comparison} {requirement.bound.text}",
            backbone,
            own if requirement.quantity == "macs" and requirement.size is None else None,
        )
        for requirement, value in requirements.violations(architecture.requirements, known)
    ]


def _own_channels(architecture: Architecture) -> tuple[str, Mapping[str, int]]:
    """The backbone that a decoder names, and the widths of its features; those of the reference backbone where it names none.

    Those of a model of timm are the reference backbone's too: to look them up takes torch.
    """
    name = architecture.detector.backbone if architecture.detector else None
    if name is not None and not name.startswith(TIMM):
        return name, find_backbone(name).out_channels
    return REFERENCE_BACKBONE, {"c1": 64, "c6": 2048, "c7": 2048, **find_backbone(REFERENCE_BACKBONE).out_channels}


@dataclass(frozen=True, repr=False)
class Decoder:
    """A decoder that checks.

    Attributes:
        architecture: what its text says.
        source: the text.
        path: the file it was read from, which paths in the text are relative to; None for a text in no file.
    """

    architecture: Architecture
    source: Source
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name of the decoder, as in its text."""
        return self.architecture.name

    @property
    def size(self) -> Size | None:
        """Height and width of the images of the detector that its text names; None where it names no size."""
        return self.architecture.detector.size if self.architecture.detector else None

    @property
    def backbone(self) -> str | None:
        """The backbone of the detector that its text names; None where it names none."""
        return self.architecture.detector.backbone if self.architecture.detector else None

    @cached_property
    def _reference(self) -> Graph:
        return lower(self.architecture, _own_channels(self.architecture)[1])

    @property
    def graph(self) -> networkx.MultiDiGraph[str]:
        """The fpn as a networkx multigraph; see `nasdsl.ir.Graph.networkx`."""
        return self._reference.networkx()

    @cached_property
    def canonical(self) -> str:
        """Canonical text: the same for decoders that compute the same function in the same way."""
        return canonical_text(self._reference)

    @cached_property
    def canonical_fpn(self) -> str:
        """Inputs and fpn of the canonical text: the same for decoders that compute the same pyramid, whatever their heads."""
        found = re.search(r"^  input .*?(?=^  head\()", self.canonical, re.DOTALL | re.MULTILINE)
        assert found is not None
        return found[0]

    @cached_property
    def digest(self) -> str:
        """Hash of the canonical text, the decoder's name aside: 64 hexadecimal digits."""
        return digest(self._reference)

    def __str__(self) -> str:
        return self.canonical

    def __repr__(self) -> str:
        return f"<Decoder {self.name}>"

    def with_width(self, width: int) -> Decoder:
        """The decoder with `width` channels in fpn and head: its text with another number in it, checked again.

        Where a section's width is the word of a `let`, the `let` is changed, and all that is computed from it. Numbers in
        statements (``conv_1x1(x, width=32)``) stay as they are.

        Args:
            width: number of channels, 1 or more.

        Raises:
            DiagnosticError: it does not check at this width (GroupNorm needs a multiple of its groups; a sum meets a width that
                stayed; a requirement is broken).
            TypeError: `width` is no whole number.
        """
        return load_source(with_width(self.source, operator.index(width)), self.path)

    def with_prediction(self, prediction: str) -> Decoder:
        """The decoder with another prediction: its text with another ``predict`` line, checked again.

        ``decoder.with_prediction("fcos(centerness=box, boxes=relu)")`` is the form of FCOS's later improvements.

        Args:
            prediction: what stands behind ``predict``.

        Raises:
            DiagnosticError: it does not check with this prediction.
        """
        return load_source(with_prediction(self.source, prediction), self.path)

    def lower(self, in_channels: Mapping[str, int]) -> Graph:
        """The graph for features of these widths, ``{"c3": 512, …}``.

        Args:
            in_channels: channels of each feature that it reads.

        Raises:
            DiagnosticError: the decoder has open holes, or a layer cannot take these widths.
            MissingFeature: it reads a feature that is not among them.
        """
        return lower(self.architecture, in_channels)

    def with_detector(self, size: Size | None = None, backbone: str | None = None) -> Decoder:
        """The decoder for a detector of this size and backbone: its text with another ``detector(…)``, checked again.

        Args:
            size: height and width of the images in pixels; None leaves what the text says.
            backbone: a name of `nasdsl.backbones.BACKBONES`, or ``timm:NAME``; None leaves what the text says.

        Raises:
            UnknownBackbone: there is no such backbone.
            DiagnosticError: it does not check so (a backbone without an input; a requirement is broken).
        """
        if backbone is not None:
            find_backbone(backbone)
        sizes, backbones = [] if size is None else [size], [] if backbone is None else [backbone]
        return load_source(with_detector(self.source, sizes, backbones), self.path)

    @paused_collector()
    def cost(self, size: Size | None = None, backbone: str | None = None, classes: int = 80) -> CostTable:
        """Exact multiply-accumulates and parameters of backbone, fpn and head for one image.

        Args:
            size: height and width of the image in pixels; None: what the text says, else 800x1088.
            backbone: a name of `nasdsl.backbones.BACKBONES`, or ``timm:NAME``; None: what the text says, else resnet50.
            classes: number of classes.

        Raises:
            UnknownBackbone, DiagnosticError, MissingFeature: see `lower`.
        """
        known = find_backbone(backbone or self.backbone or REFERENCE_BACKBONE)
        return cost(self.lower(known.out_channels), size or self.size or requirements.DEFAULT_SIZE, classes, known)

    def build(self, in_channels: Mapping[str, int], classes: int) -> DecoderModule:
        """The decoder as a ``torch.nn.Module``.

        Args:
            in_channels: channels of the backbone's features, ``{"c3": 512, …}``.
            classes: number of classes.

        Raises:
            DiagnosticError, MissingFeature: see `lower`.
        """
        from nasdsl.backends.module import build

        return build(self.lower(in_channels), classes)


def load(path: str | Path) -> Decoder:
    """Read a decoder from a file; ``-`` is standard input, ``zoo:NAME`` a decoder that comes with the package.

    Args:
        path: of a ``.nas`` file, ``-`` or ``zoo:NAME``.

    Raises:
        DiagnosticError: the text has errors; all of them are in it.
        UnreadableFile: the file cannot be read.
    """
    path = zoo_file(path)
    return load_source(read_source(path), None if str(path) == "-" else Path(path).absolute())


def loads(text: str, name: str = "<text>") -> Decoder:
    """Read a decoder from a text. ``name`` is what messages call it.

    Args:
        text: a decoder, with the definitions that it needs.
        name: what messages call it.

    Raises:
        DiagnosticError: the text has errors; all of them are in it.
    """
    return load_source(Source(name, text), None)


def load_source(source: Source, path: Path | None = None, root: Path | None = None) -> Decoder:
    """Read a decoder from a source.

    Args:
        path: where it lies, which paths in it are relative to; None for a text in no file.
        root: the folder that files which it uses must not leave; None: the file's own.

    Raises:
        DiagnosticError: the text has errors; all of them are in it.
    """
    checked = check_source(source, path=path, root=root)
    if checked.architecture is None:
        raise DiagnosticError(errors_of(checked, source))
    return Decoder(checked.architecture, source, path)


def errors_of(checked: Checked, source: Source) -> list[Diagnostic]:
    """Why a text gives no decoder and no space: its findings, or that it holds definitions alone."""
    if any(problem.severity == "error" for problem in checked.problems):
        return checked.problems
    return [structure.only_definitions(source.span(0, 0))]
