"""The command line. Exit codes: 0 fine, 1 findings, 2 usage, unreadable files and broken configuration.

Data goes to standard output, diagnostics to standard error. Commands import what they need when they run, so that
``--help``, ``check`` and ``render`` start without torch.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from nasdsl.cli.collections import import_, sample, zoo
from nasdsl.cli.common import USAGE, say
from nasdsl.cli.compiling import compile_, render
from nasdsl.cli.detecting import detect
from nasdsl.cli.evaluating import eval_
from nasdsl.cli.reporting import report
from nasdsl.cli.searching import search
from nasdsl.cli.texts import check, explain, fmt
from nasdsl.cli.training import train


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nasdsl")
def cli() -> None:
    """A language and a compiler for the decoders of object detectors.

    FILE is the path of a .nas file, `-` for standard input, or `zoo:NAME` for a decoder that comes with the package.
    """


for command in (check, fmt, explain, compile_, render, zoo, import_, sample, train, eval_, detect, search, report):
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point. An error that nothing foresaw is one line and exit code 2; NASDSL_TRACEBACK=1 shows all of it."""
    try:
        cli()
    except Exception as error:
        if os.environ.get("NASDSL_TRACEBACK"):
            raise
        from nasdsl.diagnostics import printable
        from nasdsl.layers import PrimitiveError

        if isinstance(error, PrimitiveError):  # the fault of a package, which its message names
            say(f"nasdsl: {printable(str(error))}")
            sys.exit(USAGE)
        what = printable(f"{type(error).__name__}: {error}")
        say(f"nasdsl: internal error: {what} (NASDSL_TRACEBACK=1 shows where; please report it)")
        sys.exit(USAGE)
    sys.exit(0)
