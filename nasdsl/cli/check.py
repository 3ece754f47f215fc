"""``nasdsl check``: report every mistake in files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import FINDINGS, USAGE
from nasdsl.cli.files import find_nas_file
from nasdsl.cli.options import FORMAT
from nasdsl.cli.output import echo_err, pluralize, print_diagnostics
from nasdsl.garbage_collector import paused_collector

if TYPE_CHECKING:
    from nasdsl.diagnostics import Diagnostic


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, shell_complete=completion.DECODERS_AND_SPACES)
@FORMAT
def check(files: tuple[str, ...], format_: str) -> None:
    """Report every mistake in decoders and search spaces.

    FILE is a .nas file, `-` for standard input, zoo:NAME, or the folder of a training or search (its decoder.nas or
    best.nas). The exit code is 1 if there is an error; warnings alone give 0.

    \b
    nasdsl check mine.nas
    nasdsl check --format json *.nas > findings.json
    """
    from nasdsl.semantics.files import UnreadableFile

    diagnostics: list[Diagnostic] = []
    code = 0
    for file in files:
        try:
            found = _problems_in(file)
        except UnreadableFile as error:
            echo_err(f"nasdsl: {error}")
            code = USAGE
            continue
        diagnostics += found
        if any(p.severity == "error" for p in found):
            code = code or FINDINGS
    if format_ == "json":
        click.echo(json.dumps({"ok": code == 0, "diagnostics": [d.to_json() for d in diagnostics]}, indent=1))
    elif diagnostics:
        print_diagnostics(diagnostics)
        errors = sum(d.severity == "error" for d in diagnostics)
        warnings = len(diagnostics) - errors
        echo_err(f"\n{pluralize(errors, 'error')}, {pluralize(warnings, 'warning')} in {pluralize(len(files), 'file')}")
    elif code == 0:
        click.echo(f"{pluralize(len(files), 'file')} checked, nothing to report")
    sys.exit(code)


@paused_collector()  # until the tree of the file is freed, so that no collection looks through it
def _problems_in(file: str) -> list[Diagnostic]:
    """The findings in FILE.

    Raises:
        UnreadableFile: it cannot be read.
    """
    from nasdsl.decoder import check_source
    from nasdsl.semantics.files import read_source

    path = find_nas_file(file)
    return check_source(read_source(path), path=None if file == "-" else Path(path)).problems
