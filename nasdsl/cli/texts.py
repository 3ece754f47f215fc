"""Commands about texts: check, fmt, explain."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.common import FINDINGS, FORMAT, USAGE, count, fail, path_of, report, say, write

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


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """The long text of a diagnostic code, with a wrong and a right example; without a code, the list of all."""
    from nasdsl.diagnostics import explain as explain_code
    from nasdsl.diagnostics.catalogue import CODES

    if code is None:
        for entry in CODES.values():
            click.echo(f"{entry.code}  {entry.title}")
        return
    text = explain_code(code)
    if text is None:
        fail(f"there is no diagnostic {code!r}; `nasdsl explain` lists all of them")
    click.echo(text, nl=False)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--check", "check_", is_flag=True, help="Change nothing; exit with 1 where a file would change.")
@click.option("--diff", is_flag=True, help="Change nothing; print what would change.")
def fmt(files: tuple[str, ...], check_: bool, diff: bool) -> None:
    """Lay files out in the one canonical way, in place; `-` reads standard input and prints."""
    import difflib

    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile, read_source
    from nasdsl.syntax.formatter import format_text

    code, changed = 0, 0
    for file in files:
        path = path_of(file)
        try:
            source = read_source(path)
            text = format_text(source.text, source.name)
        except UnreadableFile as error:
            say(f"nasdsl: {error}")
            code = USAGE
            continue
        except DiagnosticError as error:
            report(error.diagnostics)
            code = code or FINDINGS
            continue
        old = source.text if file == "-" else Path(path).read_bytes().decode("utf-8", errors="replace")
        differs = text != old
        changed += differs
        if diff:
            lines = difflib.unified_diff(old.splitlines(), text.splitlines(), source.name, source.name, lineterm="")
            click.echo("\n".join(lines), nl=differs)
        if check_ and differs:
            code = code or FINDINGS
            say(f"{source.name} would change")
        elif file == "-" and not diff and not check_:
            click.echo(text, nl=False)
        elif differs and not check_ and not diff:
            write(path, text.encode(), quiet=True)
            say(f"{source.name} changed")
    if not changed and code == 0 and files != ("-",) and not diff:
        say(f"{count(len(files), 'file')} left as {'it is' if len(files) == 1 else 'they are'}")
    sys.exit(code)
