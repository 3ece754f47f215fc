"""`nasdsl grammar`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nasdsl.cli import cli
from nasdsl.grammar_export import FORMATS, filling, language_grammar, space_grammar
from nasdsl.spaces import load_space


@pytest.mark.parametrize("format", FORMATS)
def test_the_language(format: str) -> None:
    result = CliRunner().invoke(cli, ["grammar", "--format", format])
    assert result.exit_code == 0
    assert result.stdout == language_grammar(format)


def test_a_space_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "head.gbnf"
    result = CliRunner().invoke(cli, ["grammar", "zoo:nas_fcos_head", "--format", "gbnf", "-o", str(out)])
    assert (result.exit_code, result.stdout) == (0, "")
    space = load_space(Path(__file__).parents[2] / "genotypes/spaces/nas_fcos_head.nas")
    assert out.read_text() == space_grammar(space, "gbnf")


def test_what_is_no_space(tmp_path: Path) -> None:
    missing = CliRunner().invoke(cli, ["grammar", str(tmp_path / "none.nas")])
    assert (missing.exit_code, "Traceback" in missing.stderr) == (2, False)
    assert "no such file" in missing.stderr
    (tmp_path / "wrong.nas").write_text("decoder d {")
    wrong = CliRunner().invoke(cli, ["grammar", str(tmp_path / "wrong.nas")])
    assert wrong.exit_code == 1
    assert "NAS103" in wrong.stderr


def test_a_space_whose_grammar_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_MAX_ALTERNATIVES", 3)
    result = CliRunner().invoke(cli, ["grammar", "zoo:nas_fcos_head"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "nasdsl: the grammar of nas_fcos_head_space would be too large\n"
