"""Graphviz as a program, as libraries, and without it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from diagram_texts import TEXTS, lowered

from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.dot import emit_dot


def fake_dot(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_the_program_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "import sys\ngot = sys.stdin.read()\nprint('<?xml fake', sys.argv[1:], 'digraph' in got)", monkeypatch)
    drawn = rendering.draw(emit_dot(*lowered(TEXTS["fcos"])), "svg")
    assert b"fake" in drawn
    assert b"-Tsvg" in drawn
    assert b"True" in drawn


def test_a_program_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys\nsys.stdin.read()\nprint('Error: it broke\\nFontconfig warning: x', file=sys.stderr)\nsys.exit(3)"
    fake_dot(tmp_path, script, monkeypatch)
    with pytest.raises(rendering.RenderError, match="Error: it broke") as raised:
        rendering.draw("digraph { a }", "svg")
    assert "\n" not in str(raised.value)


def test_a_program_without_output_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "import sys\nsys.stdin.read()", monkeypatch)
    with pytest.raises(rendering.RenderError, match="produced no svg"):
        rendering.draw("digraph { a }", "svg")


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.backends.diagrams.rendering.shutil.which", lambda name: None)


@pytest.mark.usefixtures("no_program")
def test_libraries_that_fail_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(rendering.RenderError) as raised:
        rendering.draw("digraph {", "svg")
    assert "\n" not in str(raised.value)
    assert rendering.draw('digraph { a [label="a"] }', "svg").startswith(b"<?xml")
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_program")
def test_libraries_that_hang_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIMEOUT", 0.2)
    monkeypatch.setattr(rendering, "_PYGRAPHVIZ", "import time\ntime.sleep(30)")
    with pytest.raises(rendering.RenderError, match=r"did not finish in 0\.2 s"):
        rendering.draw("digraph { }", "svg")


@pytest.mark.usefixtures("no_program")
def test_without_graphviz_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.backends.diagrams.rendering.find_spec", lambda name: None)
    with pytest.raises(rendering.RenderError, match=r"install its `dot` program.*pip install pygraphviz.*need none"):
        rendering.draw("digraph { }", "png")
