"""``nasdsl lsp``: the language server."""

from __future__ import annotations

import click

from nasdsl.cli.errors import fail


@click.command()
@click.option("--stdio", is_flag=True, hidden=True, help="What many editors pass; there is no other way.")
def lsp(stdio: bool) -> None:
    """Start the language server, for editors.

    It speaks the Language Server Protocol over standard input and output, and needs `pip install 'nasdsl[lsp]'`. An editor
    starts it; docs/editors.md says how.

    \b
    nasdsl lsp
    """
    from nasdsl import __version__

    try:
        from nasdsl.lsp.server import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pygls", "lsprotocol", "cattrs", "attrs"):
            raise
        fail("the language server needs pygls: pip install 'nasdsl[lsp]'")
    run(__version__)
