"""The command line in a shell: help with examples, completion, `nasdsl env`, and how fast it starts."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from machine_speed import slowness

from nasdsl import __version__
from nasdsl.backbones import BACKBONES
from nasdsl.cli import cli
from nasdsl.cli.completion import _ZSH_FIRST, RECIPES, STRATEGIES
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.search.strategies import STRATEGIES as KNOWN_STRATEGIES
from nasdsl.training import RECIPES as KNOWN_RECIPES


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield " ".join([*names, name]), command


@pytest.mark.parametrize("name", dict(commands(cli)))
def test_every_help_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(cli, [*name.split(), "--help"]).output
    examples = re.findall(rf"^  (?:[A-Z_]+=\S+ )?nasdsl ({name}\b.*)$", shown, re.MULTILINE)
    assert examples
    known = {option for _, command in commands(cli) for param in command.params for option in param.opts}
    for example in examples:
        assert {word for word in example.split() if word.startswith("-")} <= known, example


# --------------------------------------------------------------------------------------------------- completion


def complete(*words: str) -> list[str]:
    *before, typed = words
    return [item.value for item in ShellComplete(cli, {}, "nasdsl", "_NASDSL_COMPLETE").get_completions(before, typed)]


def test_values_are_completed() -> None:
    assert complete("compile", "zoo:panet") == ["zoo:panet"]
    assert "zoo:nas_fcos_fpn" not in complete("compile", "zoo:")
    assert "zoo:nas_fcos_fpn" in complete("search", "zoo:")
    assert {"zoo:nas_fcos_fpn", "zoo:fcos"} <= set(complete("check", "zoo:"))
    assert complete("train", "--backbone", "") == list(BACKBONES)
    assert complete("search", "--backbone", "resnet50,mob") == ["resnet50,mobilenet_v2"]
    assert complete("explain", "") == list(CODES)
    assert complete("train", "--recipe", "p") == ["published"]
    assert complete("train", "--data", "sh")[0] == "shapes"


def test_lists_that_are_written_out_are_complete() -> None:
    """They are written out because the modules that know them import torch."""
    assert set(RECIPES.values()) == set(KNOWN_RECIPES)
    assert set(STRATEGIES.values()) == set(KNOWN_STRATEGIES)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script_and_completes_a_name_of_the_zoo() -> None:
    """Bash's own completion splits a word at a colon, which the script mends."""
    script = CliRunner().invoke(cli, ["completion", "bash"]).output
    drive = f"""{script}
    nasdsl() {{ {sys.executable} -m nasdsl "$@"; }}
    compopt() {{ :; }}
    complete_line() {{
        COMP_LINE="$1" COMP_POINT=${{#1}} COMPREPLY=()
        _nasdsl_completion {sys.executable.replace("python", "python")}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    }}
    env() {{ command env "${{@:1:$#-1}}" {sys.executable} -m nasdsl; }}
    complete_line "nasdsl compile zoo:nas_fcos_1"
    complete_line "nasdsl comp"
    complete_line "nasdsl explain NAS90"
    """
    ran = subprocess.run(["bash", "-c", drive], capture_output=True, text=True, timeout=60)
    assert ran.stdout.split() == [
        "nas_fcos_128", "nas_fcos_128_256", "compile", "completion", *(code for code in CODES if code.startswith("NAS90")),
    ], ran.stderr  # fmt: skip


def test_the_shell_is_that_of_the_user() -> None:
    found = CliRunner().invoke(cli, ["completion"], env={"SHELL": "/bin/fish"})
    assert found.output == CliRunner().invoke(cli, ["completion", "fish"]).output
    zsh = CliRunner().invoke(cli, ["completion", "zsh"])
    assert (zsh.exit_code, zsh.output) == (0, CliRunner().invoke(cli, ["completion"], env={"SHELL": "/usr/bin/zsh"}).output)
    assert zsh.output.startswith(_ZSH_FIRST)
    assert zsh.output.index("compinit") < zsh.output.index("compdef _nasdsl_completion nasdsl")
    unknown = CliRunner().invoke(cli, ["completion"], env={"SHELL": "/bin/tcsh"})
    assert unknown.exit_code == 2
    assert unknown.stderr == "nasdsl: $SHELL is '/bin/tcsh'; expected the name of a shell: bash, zsh, fish\n"


# ---------------------------------------------------------------------------------------------------------- env


def test_env_names_versions_and_devices() -> None:
    found = json.loads(CliRunner().invoke(cli, ["env", "--format", "json"], env={"OMP_NUM_THREADS": "2"}).output)
    assert found["nasdsl"].startswith(f"{__version__} in ")
    assert found["python"].startswith(platform.python_version())
    assert {name: found[name] for name in ("torch", "click", "jinja2")} == {
        name: version(name) for name in ("torch", "click", "jinja2")
    }
    assert found["devices"].startswith("cpu")
    assert found["OMP_NUM_THREADS"] == "2"
    lines = CliRunner().invoke(cli, ["env"]).output.splitlines()
    assert {line.split()[0] for line in lines} >= {"nasdsl", "python", "system", "processor", "torch"}


# --------------------------------------------------------------------------------------------------------- start


def test_the_package_is_imported_quickly() -> None:
    """0.15 s with the interpreter's own start, the best of three."""

    def seconds() -> float:
        code = "import time; start = time.perf_counter(); import nasdsl; print(time.perf_counter() - start)"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert min(seconds() for _ in range(3)) < 0.15 * slowness()
