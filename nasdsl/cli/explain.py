"""``nasdsl explain``: the explanation of a diagnostic code."""

from __future__ import annotations

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import fail


@click.command()
@click.argument("code", required=False, shell_complete=completion.CODES)
def explain(code: str | None) -> None:
    """Explain a diagnostic code, such as NAS201.

    The explanation has a wrong and a right example. Without CODE, list all codes.

    \b
    nasdsl explain NAS201
    """
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
