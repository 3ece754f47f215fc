"""Completion in bash, zsh and fish themselves, switched on as the help says, by somebody who has no configuration yet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner

from nasdsl.cli import cli
from nasdsl.diagnostics.catalogue import CODES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of Unix")


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home without files, and `nasdsl` on the path."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    program = programs / "nasdsl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nasdsl "$@"\n')
    program.chmod(0o755)
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    path = f"{programs}:{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **paths}


def switch_on(shell: str, environment: dict[str, str]) -> None:
    """Run the line that the help has for a shell."""
    shown = CliRunner().invoke(cli, ["completion", "--help"]).output
    (line,) = re.findall(rf"^  (.*nasdsl completion {shell} > .*)$", shown, re.MULTILINE)
    ran = subprocess.run([shell, "-c", line], env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.long  # each key waits for a command to start
@pytest.mark.parametrize("shell", [pytest.param("bash", marks=needs("bash")), pytest.param("zsh", marks=needs("zsh"))])
def test_at_a_terminal(shell: str, environment: dict[str, str]) -> None:
    switch_on(shell, environment)
    terminal = pexpect.spawn(shell, ["-i"], env=environment, encoding="utf-8", timeout=60, dimensions=(50, 200))
    try:
        terminal.sendline("PS1='rea''dy> '")
        terminal.expect_exact("ready> ")
        assert "not found" not in (terminal.before or "")

        def completes(typed: str, *expected: str, keys: str = "\t") -> None:
            terminal.send(typed + keys)
            for text in expected:
                terminal.expect("\x07?".join(re.escape(c) for c in text))  # several fit: the bell rings before what they share
            terminal.sendcontrol("u")  # an empty line again

        completes("nasdsl expl", "explain ")
        completes("nasdsl compile zoo:pan", "zoo:panet ")
        completes("nasdsl compile zoo:nas_fcos_1", "zoo:nas_fcos_128")
        completes("nasdsl search --backbone resnet50,mob", "resnet50,mobilenet_v2")
        completes("nasdsl explain NAS90", *(code for code in CODES if code.startswith("NAS90")), keys="\t\t")
        (Path(environment["HOME"]) / "mine_only.nas").touch()
        terminal.sendline("cd")
        terminal.expect_exact("ready> ")
        completes("nasdsl check mine_o", "mine_only.nas")
    finally:
        terminal.close(force=True)


@needs("fish")
def test_fish(environment: dict[str, str]) -> None:
    switch_on("fish", environment)
    (Path(environment["HOME"]) / "mine_only.nas").touch()

    def complete(line: str) -> list[str]:
        command = ["fish", "-c", f"cd; complete -C '{line}'"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert ran.stderr == ""
        return [found.partition("\t")[0] for found in ran.stdout.splitlines()]

    assert complete("nasdsl comp") == ["compile", "completion"]
    assert complete("nasdsl compile zoo:nas_fcos_1") == ["zoo:nas_fcos_128", "zoo:nas_fcos_128_256"]
    assert complete("nasdsl search --backbone resnet50,mob") == ["resnet50,mobilenet_v2"]
    assert complete("nasdsl explain NAS90") == [code for code in CODES if code.startswith("NAS90")]
    assert complete("nasdsl check mine_o") == ["mine_only.nas"]


def test_the_line_of_fish_makes_the_folder(environment: dict[str, str]) -> None:
    """It is no part of a new home, and fish is not needed to see that the line works without it."""
    shown = CliRunner().invoke(cli, ["completion", "--help"]).output
    (line,) = re.findall(r"^  (.*nasdsl completion fish > .*)$", shown, re.MULTILINE)
    subprocess.run(["sh", "-c", line], env=environment, check=True, timeout=60)
    script = Path(environment["HOME"], ".config/fish/completions/nasdsl.fish").read_text()
    assert "string split --max 1" in script
