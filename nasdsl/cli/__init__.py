"""The command line. Exit codes: 0 fine, 1 findings, 2 usage, unreadable files and broken configuration.

Data goes to standard output, diagnostics to standard error. Commands import what they need when they run, so that
``--help``, ``check`` and ``render`` start without torch.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from nasdsl.cli import check, detect, explain, fmt, import_, render, report, sample, search, train, zoo
from nasdsl.cli import compile as compile_
from nasdsl.cli import eval as eval_
from nasdsl.cli.errors import USAGE
from nasdsl.cli.output import say


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nasdsl")
def cli() -> None:
    """A language and a compiler for the decoders of object detectors.

    FILE is the path of a .nas file, `-` for standard input, or `zoo:NAME` for a decoder that comes with the package.
    """


COMMANDS = (
    check.check, fmt.fmt, explain.explain, compile_.compile_, render.render, zoo.zoo, import_.import_, sample.sample,
    train.train, eval_.eval_, detect.detect, search.search, report.report,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point. An error that nothing foresaw is one line and exit code 2; NASDSL_TRACEBACK=1 shows all of it."""
    try:
        cli(prog_name="nasdsl")
    except Exception as error:
        if os.environ.get("NASDSL_TRACEBACK"):
            raise
        from nasdsl.diagnostics import shown

        what = shown(f"{type(error).__name__}: {error}")
        say(f"nasdsl: internal error: {what} (NASDSL_TRACEBACK=1 shows where; please report it)")
        sys.exit(USAGE)
    sys.exit(0)
