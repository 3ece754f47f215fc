"""``nasdsl grammar``: the grammar of the language, or of a space's fillings, for constrained decoding."""

from __future__ import annotations

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import exit_on_error
from nasdsl.cli.files import SPACE_FILES, find_nas_file, write_file


@click.command()
@click.argument("file", metavar="[SPACE]", required=False, shell_complete=completion.SPACES)
@click.option("--format", "format_", type=click.Choice(["lark", "gbnf", "llguidance"]), default="lark", show_default=True,
              help="Notation: lark's, GBNF as llama.cpp reads it, or llguidance's.")  # fmt: skip
@click.option("--layout", type=click.Choice(["line", "free"]), default="line", show_default=True,
              help="Of fillings: on one line with the spaces of `nasdsl sample`, or with any white space and comments.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write.  [default: standard output]")
def grammar(file: str | None, format_: str, layout: str, output: str | None) -> None:
    """Print the grammar of the language, or that of one space's fillings.

    A program that decodes under the grammar, as llama.cpp and servers with llguidance do, writes texts without syntax
    errors, or with SPACE its fillings only. SPACE is a .nas file with holes, `-` for standard input, zoo:NAME, or the
    folder of a search (its space.nas).

    The terminals are those of the scanner. What a grammar cannot say stands in its first lines: of the language the limits
    of nesting and length, of a space its requirements, calls marked `distinct`, and fillings that cannot be built. So check
    what it gives with `nasdsl check`, or in Python with `Space.encode` and `Space.keeps`.

    \b
    nasdsl grammar --format gbnf -o nas.gbnf
    nasdsl grammar zoo:nas_fcos_fpn --format llguidance > fillings.lark
    """
    from nasdsl.grammar_export import language_grammar, space_grammar

    with exit_on_error():
        if file is None:
            text = language_grammar(format_)
        else:
            from nasdsl.spaces import load_space

            text = space_grammar(load_space(find_nas_file(file, SPACE_FILES)), format_, layout)
    if output is not None:
        write_file(output, text.encode())
        return
    click.echo(text, nl=False)
