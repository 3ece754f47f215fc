"""``nasdsl fmt``: format files in the canonical layout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import FINDINGS, USAGE
from nasdsl.cli.files import DECODER_FILES, find_nas_file, write_file
from nasdsl.cli.output import echo_err, pluralize, print_diagnostics


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, shell_complete=completion.FILES)
@click.option("--check", "check_", is_flag=True, help="Write nothing; exit with 1 if a file is not formatted.")
@click.option("--diff", is_flag=True, help="Write nothing; print the changes as a diff.")
def fmt(files: tuple[str, ...], check_: bool, diff: bool) -> None:
    """Format files in the canonical layout, in place.

    FILE is a .nas file, or `-` to format standard input and print the result.

    \b
    nasdsl fmt *.nas
    nasdsl fmt --diff mine.nas
    """
    import difflib

    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile, read_source
    from nasdsl.syntax.formatter import format_text

    code, changed = 0, 0
    for file in files:
        path = file
        try:
            path = file if os.path.isdir(file) else find_nas_file(file)
            source = read_source(path)
            text = format_text(source.text, source.name)
        except UnreadableFile as error:
            echo_err(f"nasdsl: {error}{_name_decoder(path)}")
            code = USAGE
            continue
        except DiagnosticError as error:
            print_diagnostics(error.diagnostics)
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
            echo_err(f"{source.name} would change")
        elif file == "-" and not diff and not check_:
            click.echo(text, nl=False)
        elif differs and not check_ and not diff:
            write_file(path, text.encode(), quiet=True)
            echo_err(f"{source.name} changed")
    if not changed and code == 0 and files != ("-",) and not diff:
        echo_err(f"{pluralize(len(files), 'file')} left unchanged")
    sys.exit(code)


def _name_decoder(path: str) -> str:
    """Name the decoder in a run's folder. It is not formatted unasked: it is the record of what was trained."""
    found = next((name for name in DECODER_FILES if os.path.isfile(os.path.join(path, name))), None)
    return "" if found is None else f"; its decoder is {os.path.join(path, found)}"
