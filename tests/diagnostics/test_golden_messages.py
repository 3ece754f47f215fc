"""The rendered diagnostics of malformed texts, word for word.

``NASDSL_UPDATE_GOLDENS=1 pytest tests/diagnostics`` writes the file anew; read the difference as a user would.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from malformed import MALFORMED

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, Source, render_all

GOLDEN = Path(__file__).parents[1] / "goldens" / "diagnostics.txt"
_HEADLINE = re.compile(r"^#{4} (.+)$", re.MULTILINE)


def diagnose(text: str, folder: Path) -> list[Diagnostic]:
    folder.mkdir(exist_ok=True)
    path = folder / "malformed.nas"
    path.write_text(text, encoding="utf-8")
    return check_source(Source("malformed.nas", text), path=path).problems


def shown(found: list[Diagnostic]) -> str:
    """The rendered diagnostics, without the line numbers of the prelude, which may change."""
    return re.sub(r"(--> prelude\.nas:)\d+:(\d+\n +)\d+ \|", r"\1N:\2N |", render_all(found))


def golden() -> dict[str, str]:
    parts = _HEADLINE.split(GOLDEN.read_text(encoding="utf-8"))
    return {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_golden_file_has_every_case_and_no_other(tmp_path: Path) -> None:
    if os.environ.get("NASDSL_UPDATE_GOLDENS"):
        folder = tmp_path / "decoders"
        cases = (f"#### {name}\n\n{shown(diagnose(text, folder))}\n" for name, text in MALFORMED.items())
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("\n".join(cases), encoding="utf-8")
    assert list(golden()) == list(MALFORMED)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_text_gives_the_golden_messages(name: str, tmp_path: Path) -> None:
    found = diagnose(MALFORMED[name], tmp_path / "decoders")
    assert found, "a malformed text without a finding"
    assert shown(found) == golden()[name]


ONE = (
    "missing", "misspelt", "one )", "one }", "wrong", "recursion", "forward", "//", "arrow", "string", "arithmetic",
    "a call as", "output by name", "repeat in a head", "an operator", "a name numbered",
)  # fmt: skip
ONE_MISTAKE = [name for name in MALFORMED if name.startswith(ONE)]


@pytest.mark.parametrize("name", ONE_MISTAKE)
def test_one_mistake_is_one_finding(name: str, tmp_path: Path) -> None:
    """No cascades: what follows from a mistake is not reported as well."""
    found = diagnose(MALFORMED[name], tmp_path / "decoders")
    assert len(found) == 1, [f"{d.code} {d.message}" for d in found]


def test_every_syntax_error_of_a_file_is_reported_and_so_are_the_others(tmp_path: Path) -> None:
    found = [(d.span.line, d.code) for d in diagnose(MALFORMED["three syntax errors"], tmp_path / "decoders")]
    assert found == [(4, "NAS102"), (5, "NAS102"), (6, "NAS102")]
    found = [(d.span.line, d.code) for d in diagnose(MALFORMED["syntax errors and others"], tmp_path / "decoders")]
    assert found == [(4, "NAS102"), (5, "NAS201"), (6, "NAS301"), (6, "NAS202")]


def test_lines_that_end_with_a_carriage_return_have_the_same_findings(tmp_path: Path) -> None:
    def found(text: str) -> list[tuple[object, ...]]:
        return [(d.code, d.message, d.span.line, d.span.column) for d in diagnose(text, tmp_path / "decoders")]

    for text in (*MALFORMED.values(), 'op f(x) = conv(x, act="\n, k=3)\n'):
        if "\r" not in text:
            assert found(text.replace("\n", "\r\n")) == found(text)


def test_color_is_only_around_the_same_text(tmp_path: Path) -> None:
    for text in MALFORMED.values():
        found = diagnose(text, tmp_path / "decoders")
        painted = render_all(found, color=True)
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render_all(found)
