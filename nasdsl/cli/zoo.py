"""``nasdsl zoo``: the decoders and search spaces that come with the package."""

from __future__ import annotations

import json

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import exit_on_error
from nasdsl.cli.options import FORMAT


@click.command()
@click.argument("name", required=False, shell_complete=completion.ZOO_NAMES)
@FORMAT
def zoo(name: str | None, format_: str) -> None:
    """List the decoders and search spaces that come with the package.

    With NAME, print the text of that one. Other commands take it as zoo:NAME.

    \b
    nasdsl zoo
    nasdsl zoo fcos > mine.nas
    """
    from nasdsl import resources
    from nasdsl.decoder import load
    from nasdsl.semantics.files import read_source, zoo_file
    from nasdsl.spaces import load_space

    if name is not None:
        with exit_on_error():
            click.echo(read_source(zoo_file(f"zoo:{name}")).text, nl=False)
        return
    decoders, spaces = [], []
    for name, path in resources.zoo().items():
        entry = {"name": name, "about": resources.title(path.read_text(encoding="utf-8")), "path": str(path)}
        if resources.is_space(path):
            space = load_space(path)
            spaces.append({**entry, "decisions": len(space.domains), "size": space.size})
        else:
            total = load(path).cost().decoder
            decoders.append({**entry, "macs": total.macs, "params": total.params})
    if format_ == "json":
        click.echo(json.dumps({"decoders": decoders, "spaces": spaces}, indent=1))
        return
    from nasdsl.report.tables import print_zoo

    print_zoo(decoders, spaces)
