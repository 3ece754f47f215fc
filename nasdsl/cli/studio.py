"""``nasdsl studio``: a page in the browser on which a decoder is written, with its picture and cost beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.output import echo_err


@click.command()
@click.argument("file", required=False, shell_complete=completion.DECODERS_AND_SPACES)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to serve on.  [default: one that is free]")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def studio(file: str | None, port: int, no_browser: bool) -> None:
    """Write a decoder in the browser: findings, picture and cost follow as you type.

    FILE is a .nas file, which need not exist yet, or zoo:NAME for a copy of a decoder that comes with the package. Without
    FILE the page starts with a small decoder, to be saved in the present folder.

    The page is served to this machine only, and to those who know its address: it holds a token. It reads and writes .nas
    files in the folder of FILE and nothing outside of it. Ctrl-C ends it.

    \b
    nasdsl studio mine.nas
    nasdsl studio zoo:nas_fcos
    nasdsl studio --no-browser --port 8800
    """
    import threading
    import webbrowser

    from nasdsl.folder import Folder
    from nasdsl.studio.server import ADDRESS, StudioServer
    from nasdsl.studio.text_file import Files

    name, text, folder = _opened(file)
    with exit_on_error():
        files = Files(Folder.open(folder, is_writable=True))
        if name is not None:
            files.read(name)
    try:
        server = StudioServer(files, name, text, port)
    except OSError as error:
        fail(f"cannot serve on {ADDRESS}:{port}: {error.strerror or error}; another --port, or none, may be free")
    with server:
        what = name or ("an untitled text" if file is None else f"a copy of {file}")
        echo_err(f"{what} in {files.root}")
        click.echo(server.url)
        echo_err("Ctrl-C ends it.")
        if not no_browser and _has_display():
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            echo_err("\nended")


def _has_display() -> bool:
    """Whether a browser opens a window. In a terminal alone it would be one like w3m, which has no JavaScript."""
    if sys.platform in ("win32", "darwin") or "BROWSER" in os.environ:
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _opened(file: str | None) -> tuple[str | None, str, Path]:
    """Name of the file to open, or None and the text to begin with; and the folder."""
    from nasdsl.semantics.files import read_source, zoo_file

    if file is None:
        return None, "", Path.cwd()
    if file.startswith("zoo:"):
        with exit_on_error():
            return None, read_source(zoo_file(file)).text, Path.cwd()
    path = Path(file).resolve()
    if path.is_dir():
        fail(f"{file} is a folder; expected a .nas file in it, or none")
    if path.suffix != ".nas":
        fail(f"{file}: expected a name that ends in .nas")
    if not path.parent.is_dir():
        fail(f"{file}: there is no folder {path.parent}")
    return path.name, "", path.parent
