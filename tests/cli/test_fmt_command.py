"""`nasdsl fmt`: in place, as a diff, as a check, and from standard input."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from in_process import invoke

from nasdsl.cli import cli
from nasdsl.syntax.formatter import format_text

UGLY = "decoder d { input c3 fpn(width=64, norm=bn) { output p3 = c3 } head(width=64) { skip } predict fcos }\n"
PRETTY = format_text(UGLY)
WRONG = "decoder d { input c3 fpn(width=64 { } }\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """One to be changed, and one that is as it should be."""
    ugly, pretty = tmp_path / "ugly.nas", tmp_path / "pretty.nas"
    ugly.write_text(UGLY)
    pretty.write_text(PRETTY)
    return ugly, pretty


def test_files_are_changed_in_place(files: tuple[Path, Path]) -> None:
    ugly, pretty = files
    result = invoke("fmt", ugly, pretty)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{ugly} changed\n")
    assert ugly.read_text() == PRETTY != UGLY
    result = invoke("fmt", ugly, pretty)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 files left unchanged\n")


def test_standard_input_is_printed() -> None:
    for text in (UGLY, PRETTY):
        result = CliRunner().invoke(cli, ["fmt", "-"], input=text)
        assert (result.exit_code, result.stdout, result.stderr) == (0, PRETTY, "")


def test_a_diff_changes_no_file(files: tuple[Path, Path]) -> None:
    ugly, pretty = files
    result = invoke("fmt", "--diff", ugly)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"--- {ugly}", f"+++ {ugly}"]
    assert [line[1:] for line in lines if line.startswith("-")][1:] == UGLY.splitlines()
    assert [line[1:] for line in lines if line.startswith("+")][1:] == PRETTY.splitlines()
    assert ugly.read_text() == UGLY
    assert invoke("fmt", "--diff", pretty).stdout == ""


def test_a_check_says_what_would_change(files: tuple[Path, Path]) -> None:
    ugly, pretty = files
    result = invoke("fmt", "--check", ugly, pretty)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{ugly} would change\n")
    assert ugly.read_text() == UGLY
    assert invoke("fmt", "--check", pretty).exit_code == 0
    assert CliRunner().invoke(cli, ["fmt", "--check", "-"], input=UGLY).exit_code == 1


def test_a_file_with_a_syntax_error_is_left_and_the_others_are_formatted(files: tuple[Path, Path]) -> None:
    ugly, pretty = files
    pretty.write_text(WRONG)
    result = invoke("fmt", pretty, ugly)
    assert result.exit_code == 1
    assert "error[NAS1" in result.stderr
    assert (pretty.read_text(), ugly.read_text()) == (WRONG, PRETTY)
