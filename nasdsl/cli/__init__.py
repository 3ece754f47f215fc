"""Command line. Exit codes: 0 success, 1 findings, 2 wrong usage, unreadable files and broken configuration.

Data goes to standard output, diagnostics and messages to standard error. A command imports what it needs when it runs, so
that ``--help``, ``check`` and ``render`` start without torch.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from nasdsl.cli import (
    check,
    completion,
    data,
    detect,
    env,
    explain,
    export,
    fmt,
    grammar,
    import_,
    latency,
    lsp,
    mcp,
    render,
    report,
    sample,
    search,
    studio,
    train,
    worker,
    zoo,
)
from nasdsl.cli import compile as compile_
from nasdsl.cli import eval as eval_
from nasdsl.cli.errors import USAGE
from nasdsl.cli.output import echo_err


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from nasdsl import __version__

        click.echo(f"nasdsl, version {__version__}")
        ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version.")
def cli() -> None:
    """A language, a compiler and a search for the decoders (neck and head) of object detectors.

    FILE is a .nas file, `-` for standard input, zoo:NAME for a decoder that comes with the package, or the folder of a
    training or search for the decoder in it.

    Exit codes: 0 success, 1 findings (a file with errors, or one that `fmt --check` would change), 2 wrong usage or
    unreadable files.
    """


COMMANDS = (
    check.check, fmt.fmt, explain.explain, compile_.compile_, render.render, zoo.zoo, import_.import_, sample.sample,
    grammar.grammar, studio.studio, mcp.mcp, lsp.lsp, data.data, train.train, eval_.eval_, detect.detect, export.export,
    latency.latency, search.search, worker.worker, report.report, env.env, completion.completion,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def _is_dependency(module: str | None) -> bool:
    """Whether a module that is missing is another package's, as in the light installation (docs/install.md)."""
    return module is not None and module.partition(".")[0] != "nasdsl"


def main() -> NoReturn:
    """Run the command line. An unexpected error is one line and exit code 2; NASDSL_TRACEBACK=1 shows its traceback."""
    try:
        cli(prog_name="nasdsl")
    except Exception as error:
        if os.environ.get("NASDSL_TRACEBACK"):
            raise
        if isinstance(error, ModuleNotFoundError) and _is_dependency(error.name):
            echo_err(
                f"nasdsl: this needs the package {error.name}, which is not installed: check, compile, fmt, render, sample and "
                "zoo do without; `pip install nasdsl` installs what all commands need"
            )
            sys.exit(USAGE)
        from nasdsl.diagnostics import printable
        from nasdsl.layers import PrimitiveError

        if isinstance(error, PrimitiveError):  # the fault of a package, which its message names
            echo_err(f"nasdsl: {printable(str(error))}")
            sys.exit(USAGE)
        what = printable(f"{type(error).__name__}: {error}")
        echo_err(f"nasdsl: internal error: {what} (NASDSL_TRACEBACK=1 shows where; please report it)")
        sys.exit(USAGE)
    sys.exit(0)
