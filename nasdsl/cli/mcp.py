"""``nasdsl mcp``: checks, costs, pictures and samples for language models, by the Model Context Protocol."""

from __future__ import annotations

import click

from nasdsl.cli.errors import exit_on_error, fail


@click.command()
@click.argument("folder", type=click.Path(), default=".")
@click.option("--write", is_flag=True, help="Also let it save .nas files in FOLDER.  [default: it only reads]")
def mcp(folder: str, write: bool) -> None:
    """Serve tools for language models on standard input and output, by the Model Context Protocol.

    The tools are check, explain, cost, render, sample, grammar, zoo and search_status; with --write also save. They read
    files in FOLDER (default: the present one) and nothing outside of it, links included. A program that runs language
    models starts this command itself; docs/language-models.md shows how it is told to.

    \b
    nasdsl mcp decoders
    nasdsl mcp decoders --write
    """
    try:
        from nasdsl.mcp.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        fail("the server needs the package mcp: pip install 'nasdsl[mcp]'")
    from nasdsl.folder import Folder
    from nasdsl.mcp.wire import bounded_stdio

    with exit_on_error():
        server = make_server(Folder.open(folder, is_writable=write))
    with bounded_stdio():
        server.run("stdio")
