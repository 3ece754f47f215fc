"""Examples of the catalogue: the bad one gives exactly its code, the good one no diagnostic."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from nasdsl import layers
from nasdsl.cli import cli
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source, explain
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.ir import lower
from nasdsl.layers import CustomLayer, LayerError, plugins
from nasdsl.semantics.files import read_source
from nasdsl.syntax.parser import MAX_CHARACTERS

FAMILIES = {
    "syntax": "1", "names": "2", "types": "3", "heads": "3", "quantities": "3", "structure": "4", "holes": "5", "lints": "9",
}  # fmt: skip
CHANNELS = {"c3": 512, "c4": 1024}


def findings(text: str, folder: Path) -> list[Diagnostic]:
    """The diagnostics of a file called example.nas."""
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
    return check_source(read_source(path), path=path).problems


def _from_standard_input(bad: str, folder: Path) -> list[Diagnostic]:
    return check_source(Source("<stdin>", bad)).problems


def _with_definitions(bad: str, folder: Path) -> list[Diagnostic]:
    (folder / "ops.nas").write_text("op mine(x) = conv_3x3(x)\n", encoding="utf-8")
    return findings(bad, folder)


def _lowered(bad: str, folder: Path) -> list[Diagnostic]:
    checked = check_source(Source("example.nas", bad))
    assert checked.problems == [], "a search space checks"
    assert checked.architecture is not None
    with pytest.raises(DiagnosticError) as caught:
        lower(checked.architecture, CHANNELS)
    return list(caught.value.diagnostics)


def _custom_primitive(bad: str, folder: Path) -> list[Diagnostic]:
    """With the primitive `picky`, which refuses all operands, in place of the example's convolution."""
    return findings(bad.replace("conv(c3, k=3, groups=7)", "picky(c3)"), folder)


def _broken_package(bad: str, folder: Path) -> list[Diagnostic]:
    """As if an installed package could not be loaded: the warning without the error about the op."""
    with mock.patch.dict(
        plugins._failures, {plugins.GROUP: (plugins.PluginFailure("shuffle", "nasdsl-shuffle 1.0", "ImportError"),)}
    ):
        unknown, *rest = findings(bad, folder)
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


@pytest.fixture
def _picky(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, slots=True)
    class Picky(CustomLayer):
        def infer(self, inputs):
            raise LayerError("picky", "picky takes nothing at all")

    Picky.kind = "picky"
    monkeypatch.setitem(layers.CUSTOM, "picky", Picky)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.usefixtures("_picky")
def test_the_bad_example_has_just_this_mistake(code: str, tmp_path: Path) -> None:
    entry = CODES[code]
    found = SITUATIONS.get(code, findings)(entry.bad, tmp_path)
    assert {d.code for d in found} == {code}, [f"{d.code}: {d.message}" for d in found]
    assert {d.severity for d in found} == {entry.severity}


@pytest.mark.parametrize("code", CODES)
def test_the_good_example_has_none(code: str, tmp_path: Path) -> None:
    assert findings(CODES[code].good, tmp_path) == []
    assert check_source(Source("<text>", CODES[code].good)).architecture is not None


@pytest.mark.parametrize("code", CODES)
def test_the_examples_of_an_entry_differ_by_a_little(code: str) -> None:
    """A page shows the mistake, not two unrelated files; NAS401 and NAS108 have no text to compare."""
    entry = CODES[code]
    assert entry.bad != entry.good
    if code in ("NAS401", "NAS108"):
        return
    bad, good = entry.bad.splitlines(), entry.good.splitlines()
    assert len(set(good) - set(bad)) <= 4


def test_codes_are_many_and_distinct_and_in_their_family() -> None:
    import importlib

    assert len(CODES) >= 30
    titles = [entry.title for entry in CODES.values()]
    assert len(set(titles)) == len(titles)
    defined = []
    for name, digit in FAMILIES.items():
        module = importlib.import_module(f"nasdsl.diagnostics.catalogue.{name}")
        entries = [value for value in vars(module).values() if type(value).__name__ == "Code"]
        assert entries, name
        for entry in entries:
            assert re.fullmatch(rf"NAS{digit}\d\d", entry.code), (name, entry.code)
            assert entry.severity == ("warning" if name == "lints" else "error")
        defined += [entry.code for entry in entries]
    assert len(set(defined)) == len(defined), "a code stands for two things"
    assert sorted(defined) == list(CODES), "`nasdsl explain` lists them in this order"


def test_every_code_that_the_package_uses_is_in_the_catalogue() -> None:
    """Codes are defined in the catalogue only; but for the mistakes of files of other formats, which have no page."""
    package = Path(explain.__code__.co_filename).parents[1]
    defining = []
    for path in package.rglob("*.py"):
        if "catalogue" not in path.parts and re.search(r"(?<![\w.])Code\(\s*(\"|code=)", path.read_text(encoding="utf-8")):
            defining.append(path.relative_to(package).as_posix())
    assert defining == ["importers/yolo/model_file.py"]


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_page(code: str) -> None:
    entry = CODES[code]
    result = CliRunner().invoke(cli, ["explain", code.lower()])
    assert result.exit_code == 0
    page = result.output
    assert page == explain(code)
    assert page.startswith(f"{code}: {entry.title} ({entry.severity})\n")
    wrong, right = page.index("\nWrong:\n"), page.index("\nRight:\n")
    assert page.index(entry.text) < wrong < right
    for example, part in ((entry.bad, page[wrong:right]), (entry.good, page[right:])):
        shown = "\n".join(line.removeprefix("    ") for line in part.splitlines()[3:]).strip()
        assert shown == example.strip()


def test_explaining_nothing_lists_all_and_an_unknown_code_is_usage() -> None:
    listed = CliRunner().invoke(cli, ["explain"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(CODES)
    unknown = CliRunner().invoke(cli, ["explain", "NAS999"])
    assert unknown.exit_code == 2
    assert "NAS999" in unknown.output
    assert explain("NAS999") is None
