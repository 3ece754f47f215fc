"""The findings that the examples of the catalogue of diagnostics give."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from nasdsl import layers
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.ir import lower
from nasdsl.layers import CustomLayer, Feature, LayerError, plugins
from nasdsl.semantics.files import read_source
from nasdsl.syntax.parser import MAX_CHARACTERS

CHANNELS = {"c3": 512, "c4": 1024}


def findings_of_example(code: str) -> list[Diagnostic]:
    """What `nasdsl check`, or the command that the text of the code names, finds in its wrong example.

    Args:
        code: one of `CODES`.
    """
    with tempfile.TemporaryDirectory() as folder:
        return SITUATIONS.get(code, check)(CODES[code].bad, Path(folder))


def check(text: str, folder: Path) -> list[Diagnostic]:
    """The findings in a file called example.nas.

    Args:
        folder: an empty one, to write it into.
    """
    path = folder / "example.nas"
    path.write_text(text, encoding="utf-8")
    return check_source(Source("example.nas", text), path=path).problems


def _too_large(bad: str, folder: Path) -> list[Diagnostic]:
    line = bad.rstrip("\n") + "\n"
    text = line * (MAX_CHARACTERS // len(line) + 1)
    return check_source(Source("example.nas", text)).problems


def _in_latin_1(bad: str, folder: Path) -> list[Diagnostic]:
    path = folder / "example.nas"
    path.write_bytes(bad.replace("\ufffd", "é").encode("latin-1"))
    return check_source(read_source(path, name="example.nas"), path=path).problems


def _from_standard_input(bad: str, folder: Path) -> list[Diagnostic]:
    return check_source(Source("<stdin>", bad)).problems


def _with_definitions(bad: str, folder: Path) -> list[Diagnostic]:
    (folder / "ops.nas").write_text("op mine(x) = conv_3x3(x)\n", encoding="utf-8")
    return check(bad, folder)


def _lowered(bad: str, folder: Path) -> list[Diagnostic]:
    checked = check_source(Source("example.nas", bad))
    assert checked.problems == [], "a search space checks"
    assert checked.architecture is not None
    try:
        lower(checked.architecture, CHANNELS)
    except DiagnosticError as error:
        return list(error.diagnostics)
    return []


@contextmanager
def picky_primitive() -> Iterator[None]:
    """Context manager: there is a primitive `picky`, as of a package, which refuses all operands."""

    @dataclass(frozen=True, slots=True)
    class Picky(CustomLayer):
        def infer(self, inputs: object) -> Feature:
            raise LayerError("picky", "picky takes nothing at all")

    Picky.kind = "picky"
    with mock.patch.dict(layers.CUSTOM, {"picky": Picky}):
        yield


def _custom_primitive(bad: str, folder: Path) -> list[Diagnostic]:
    """With the primitive `picky` in place of the example's convolution."""
    with picky_primitive():
        return check(bad.replace("conv(c3, k=3, groups=7)", "picky(c3)"), folder)


def _broken_package(bad: str, folder: Path) -> list[Diagnostic]:
    """As if an installed package could not be loaded: the warning without the error about the op."""
    failure = plugins.PluginFailure("shuffle", "nasdsl-shuffle 1.0", "ImportError")
    with mock.patch.dict(plugins._failures, {plugins.GROUP: (failure,)}):
        unknown, *rest = check(bad, folder)
    assert unknown.code == "NAS201"
    return rest


SITUATIONS: dict[str, Callable[[str, Path], list[Diagnostic]]] = {
    "NAS108": _too_large,
    "NAS109": _in_latin_1,
    "NAS314": _custom_primitive,
    "NAS414": _from_standard_input,
    "NAS415": _with_definitions,
    "NAS501": _lowered,
    "NAS902": _broken_package,
}
"""Entries whose example needs more than being checked as example.nas, as their text says."""
