"""Examples of the catalogue: the bad one gives exactly its code, the good one no diagnostic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nasdsl.cli import cli
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source, explain
from nasdsl.diagnostics.catalogue import CODES
from website.findings import check, findings_of_example

FAMILIES = {
    "syntax": "1", "names": "2", "types": "3", "heads": "3", "quantities": "3", "structure": "4", "holes": "5", "lints": "9",
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_the_bad_example_has_just_this_mistake(code: str) -> None:
    entry = CODES[code]
    found = findings_of_example(code)
    assert {d.code for d in found} == {code}, [f"{d.code}: {d.message}" for d in found]
    assert {d.severity for d in found} == {entry.severity}


@pytest.mark.parametrize("code", CODES)
def test_the_good_example_has_none(code: str, tmp_path: Path) -> None:
    assert check(CODES[code].good, tmp_path) == []
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
