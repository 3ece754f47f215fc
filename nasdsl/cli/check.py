"""check: report every mistake of files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import FINDINGS, USAGE
from nasdsl.cli.files import path_of
from nasdsl.cli.options import FORMAT
from nasdsl.cli.output import count, report, say

if TYPE_CHECKING:
    from nasdsl.diagnostics import Diagnostic


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@FORMAT
def check(files: tuple[str, ...], format_: str) -> None:
    """Report every mistake of the given files."""
    from nasdsl.decoder import check_source
    from nasdsl.semantics.files import UnreadableFile, read_source

    findings: list[Diagnostic] = []
    code = 0
    for file in files:
        path = path_of(file)
        try:
            source = read_source(path)
        except UnreadableFile as error:
            say(f"nasdsl: {error}")
            code = USAGE
            continue
        checked = check_source(source, path=None if file == "-" else Path(path))
        findings += checked.problems
        if any(p.severity == "error" for p in checked.problems):
            code = code or FINDINGS
    if format_ == "json":
        click.echo(json.dumps({"ok": code == 0, "diagnostics": [f.to_json() for f in findings]}, indent=1))
    elif findings:
        report(findings)
    if format_ == "human":
        errors = sum(f.severity == "error" for f in findings)
        warnings = len(findings) - errors
        if findings:
            say(f"\n{count(errors, 'error')}, {count(warnings, 'warning')} in {count(len(files), 'file')}")
        elif code == 0:
            click.echo(f"{count(len(files), 'file')} checked, nothing to report")
    sys.exit(code)
