"""fmt: the canonical layout of files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nasdsl.cli.errors import FINDINGS, USAGE
from nasdsl.cli.files import path_of, write
from nasdsl.cli.output import count, report, say


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
