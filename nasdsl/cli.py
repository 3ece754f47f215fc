"""The command line. Exit codes: 0 fine, 1 findings, 2 usage, unreadable files and broken configuration.

Data goes to standard output, diagnostics to standard error. Commands import what they need when they run, so that
``--help``, ``check`` and ``render`` start without torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.diagnostics import Diagnostic

FINDINGS, USAGE = 1, 2

_FORMAT = click.option(
    "--format", "format_", type=click.Choice(["human", "json"]), default="human", show_default=True, help="Form of the output."
)
_FILE = click.argument("file", metavar="FILE")


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


_SIZE = click.option("--size", type=SizeType(), default="800x1088", show_default=True, help="Height x width of the image.")
_BACKBONE = click.option("--backbone", default="resnet50", show_default=True, help="Backbone that the decoder reads.")
_CLASSES = click.option("--classes", type=click.IntRange(1, 100_000), default=80, show_default=True, help="Number of classes.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nasdsl")
def cli() -> None:
    """A language, a compiler and a search for the decoders of object detectors.

    FILE is the path of a .nas file, `-` for standard input, or `zoo:NAME` for a decoder that comes with the package.
    """


@cli.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@_FORMAT
def check(files: tuple[str, ...], format_: str) -> None:
    """Report every mistake of the given files."""
    from nasdsl.decoder import check_source
    from nasdsl.semantics.files import UnreadableFile, read_source

    findings: list[Diagnostic] = []
    code = 0
    for file in files:
        path = _path(file)
        try:
            source = read_source(path)
        except UnreadableFile as error:
            _say(f"nasdsl: {error}")
            code = USAGE
            continue
        checked = check_source(source, path=None if file == "-" else Path(path))
        findings += checked.problems
        if any(p.severity == "error" for p in checked.problems):
            code = code or FINDINGS
    if format_ == "json":
        click.echo(json.dumps({"ok": code == 0, "diagnostics": [f.to_json() for f in findings]}, indent=1))
    elif findings:
        _report(findings)
    if format_ == "human":
        errors = sum(f.severity == "error" for f in findings)
        warnings = len(findings) - errors
        if findings:
            _say(f"\n{_count(errors, 'error')}, {_count(warnings, 'warning')} in {_count(len(files), 'file')}")
        elif code == 0:
            click.echo(f"{_count(len(files), 'file')} checked, nothing to report")
    sys.exit(code)


@cli.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """The long text of a diagnostic code, with a wrong and a right example; without a code, the list of all."""
    from nasdsl.diagnostics import explain as explain_code
    from nasdsl.diagnostics.catalogue import CODES

    if code is None:
        for entry in CODES.values():
            click.echo(f"{entry.code}  {entry.title}")
        return
    text = explain_code(code)
    if text is None:
        _fail(f"there is no diagnostic {code!r}; `nasdsl explain` lists all of them")
    click.echo(text, nl=False)


@cli.command("compile")
@_FILE
@_BACKBONE
@_SIZE
@_CLASSES
@_FORMAT
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Also write the decoder: OUT.py, PyTorch source that needs torch only.",
)
def compile_(file: str, backbone: str, size: tuple[int, int], classes: int, format_: str, output: str | None) -> None:
    """Check, lower, and print the exact cost of a decoder."""
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends.cost import cost, to_json
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.ir import MissingFeature

    if output is not None and Path(output).suffix != ".py":
        _fail(f"cannot write {output}: expected a name that ends in .py")
    decoder = _load(file)
    try:
        known = find_backbone(backbone)
        graph = decoder.lower(known.out_channels)
        table = cost(graph, size, classes, known)
    except DiagnosticError as error:
        _report(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnknownBackbone, MissingFeature) as error:
        _fail(str(error))
    if format_ == "json":
        head = {
            "name": decoder.name, "digest": decoder.digest, "size": list(size), "backbone": backbone, "classes": classes,
        }  # fmt: skip
        click.echo(json.dumps({**head, **to_json(table)}, indent=1))
    else:
        from nasdsl.report.tables import print_cost

        print_cost(decoder.name, decoder.digest, backbone, table)
    if output is not None:
        from nasdsl import __version__
        from nasdsl.backends.source import emit_source

        try:
            text = emit_source(graph, classes, text=decoder.source.text, version=__version__)
        except TypeError as error:
            _fail(str(error))
        _write(output, text.encode())


@cli.command()
@_FILE
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="OUT.svg, .png, .pdf, .html, .dot or .mmd  [default: NAME.svg]"
)
@click.option("--diff", "other", metavar="OTHER", help="Draw what OTHER changes in FILE.")
@_BACKBONE
@_SIZE
@_CLASSES
def render(file: str, output: str | None, other: str | None, backbone: str, size: tuple[int, int], classes: int) -> None:
    """Draw a decoder. No Graphviz needs to be installed."""
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends import picture
    from nasdsl.backends.cost import cost
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.ir import MissingFeature

    decoders = [_load(name) for name in (file, other) if name is not None]
    path = output or f"{decoders[0].name}.svg"
    try:
        known = find_backbone(backbone)
        graphs = [d.lower(known.out_channels) for d in decoders]
        tables = [cost(g, size, classes, known) for g in graphs]
        if other is None:
            data = picture.render(graphs[0], tables[0], Path(path).suffix.lstrip("."))
        else:
            data = picture.render_diff(graphs[0], tables[0], graphs[1], tables[1], Path(path).suffix.lstrip("."))
    except DiagnosticError as error:
        _report(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnknownBackbone, MissingFeature, picture.RenderError, ValueError) as error:
        _fail(str(error))
    _write(path, data)


@cli.command()
@click.argument("name", required=False)
@_FORMAT
def zoo(name: str | None, format_: str) -> None:
    """List the decoders and spaces that come with the package; with a NAME, print its text."""
    from nasdsl import resources
    from nasdsl.decoder import load

    if name is not None:
        click.echo(Path(_path(f"zoo:{name}")).read_text(encoding="utf-8"), nl=False)
        return
    rows = []
    for path in sorted(resources.folder("genotypes").glob("*.nas")):
        decoder = load(path)
        total = decoder.cost().decoder
        first = decoder.source.text.splitlines()[0].lstrip("# ").rstrip(":. ")
        rows.append({"name": path.stem, "about": first, "path": str(path), "macs": total.macs, "params": total.params})
    if format_ == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    from nasdsl.report.tables import print_zoo

    print_zoo(rows)


# ------------------------------------------------------------------------------------------------------- helpers


def _path(file: str) -> str:
    """The path that a FILE argument means."""
    if not file.startswith("zoo:"):
        return file
    from nasdsl import resources

    folder = resources.folder("genotypes")
    known = {p.stem: p for p in sorted(folder.rglob("*.nas"))}
    if file[4:] not in known:
        _fail(f"the zoo has no {file[4:]!r}; it has {', '.join(known)}")
    return os.fspath(known[file[4:]])


def _load(file: str) -> Decoder:
    from nasdsl.decoder import load
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile

    try:
        decoder = load(_path(file))
    except DiagnosticError as error:
        _report(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        _fail(str(error))
    if decoder.architecture.warnings:
        _report(decoder.architecture.warnings)
    return decoder


def _report(findings: Any) -> None:
    from nasdsl.diagnostics import render_all

    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    _say(render_all(findings, color=color))


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror}")
    _say(f"wrote {path}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _say(text: str) -> None:
    click.echo(text, err=True)


def _fail(text: str) -> NoReturn:
    _say(f"nasdsl: {text}")
    sys.exit(USAGE)


def main() -> NoReturn:
    """Entry point. An error that nothing foresaw is one line and exit code 2; NASDSL_TRACEBACK=1 shows all of it."""
    try:
        cli()
    except Exception as error:
        if os.environ.get("NASDSL_TRACEBACK"):
            raise
        _say(f"nasdsl: internal error: {type(error).__name__}: {error} (NASDSL_TRACEBACK=1 shows where; please report it)")
        sys.exit(USAGE)
    sys.exit(0)


if __name__ == "__main__":
    main()
