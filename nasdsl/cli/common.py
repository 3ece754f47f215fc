"""What the commands share: options, exit codes, how files are named and findings shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.diagnostics import Diagnostic

FINDINGS, USAGE = 1, 2

MOST_SHOWN = 1000
"""Findings that are printed for people; a file with more is most likely no decoder at all."""

FORMAT = click.option(
    "--format", "format_", type=click.Choice(["human", "json"]), default="human", show_default=True, help="Form of the output."
)
FILE = click.argument("file", metavar="FILE")


class SizeType(click.ParamType[tuple[int, int]]):
    """``800x1088``: height and width in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).partition("x")
        if height.isascii() and width.isascii() and height.isdigit() and width.isdigit() and len(value) < 14:
            size = int(height), int(width)
            if min(size) >= 1:
                return size
        return self.fail(f"{value!r} is no size; expected height x width, such as 800x1088", param, ctx)


SIZE = click.option("--size", type=SizeType(), default="800x1088", show_default=True, help="Height x width of the image.")
BACKBONE = click.option("--backbone", default="resnet50", show_default=True, help="Backbone that the decoder reads.")
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; without it a GPU where there is one.")
CLASSES = click.option("--classes", type=click.IntRange(1, 100_000), default=80, show_default=True, help="Number of classes.")


def path_of(file: str) -> str:
    """The path that a FILE argument means."""
    if not file.startswith("zoo:"):
        return file
    from nasdsl import resources

    folder = resources.folder("genotypes")
    known = {p.stem: p for p in sorted(folder.rglob("*.nas"))}
    if file[4:] not in known:
        fail(f"the zoo has no {file[4:]!r}; it has {', '.join(known)}")
    return os.fspath(known[file[4:]])


def load_decoder(file: str) -> Decoder:
    from nasdsl.decoder import load
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile

    try:
        decoder = load(path_of(file))
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        fail(str(error))
    if decoder.architecture.warnings:
        report(decoder.architecture.warnings)
    return decoder


@contextmanager
def refusals() -> Iterator[None]:
    """Errors that the package raises with a message for people become that message and exit code 2 (1 for findings).

    So do errors of torch in a layer of the decoder, with the layer's line in the text, and of too little memory.
    """
    from nasdsl.backends.layer_errors import first_line, is_out_of_memory, layer_error_message
    from nasdsl.diagnostics import DiagnosticError

    try:
        yield
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if isinstance(error, ValueError) and type(error).__module__.startswith("nasdsl."):
            fail(str(error))
        message = layer_error_message(error)
        if is_out_of_memory(error):
            message = f"not enough memory: {message or first_line(error)}; smaller batches or images need less"
        if message is None or os.environ.get("NASDSL_TRACEBACK"):
            raise
        fail(message)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], object]]:
    """A bar on a terminal, and nothing elsewhere. The yielded function takes how much is done, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def report(findings: Sequence[Diagnostic]) -> None:
    from nasdsl.diagnostics import render_all

    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    shown = list(findings)[:MOST_SHOWN]
    say(render_all(shown, color=color))
    if len(findings) > len(shown):
        say(f"\n… and {len(findings) - len(shown):,} more (--format json has all of them)")


def write(path: str, data: bytes, *, quiet: bool = False) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        say(f"wrote {path}")


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def say(text: str) -> None:
    click.echo(text, err=True)


def fail(text: str) -> NoReturn:
    say(f"nasdsl: {text}")
    sys.exit(USAGE)
