"""Diagrams as files: by Graphviz from the DOT text, or as text without Graphviz."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.diff import difference, emit_dot_diff
from nasdsl.backends.diagrams.dot import emit_diagram, wrap_diagram
from nasdsl.backends.diagrams.folding import Folding, fold_to_fit, views
from nasdsl.backends.diagrams.folding import fold as fold_diagram
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.html import emit_page
from nasdsl.backends.diagrams.mermaid import emit_mermaid_diagram
from nasdsl.files import write_bytes
from nasdsl.ir import Graph

FORMATS: Final = ("svg", "png", "pdf", "dot", "mmd", "html")
"""Formats of a diagram."""

DIFF_FORMATS: Final = ("svg", "png", "pdf", "dot")
"""Formats of the diagram of a difference."""

TIMEOUT = 120.0
"""Time limit for Graphviz, in seconds. It only draws, since positions are given: ten thousand boxes take about two seconds."""

PNG_DPI = 144

_PYGRAPHVIZ: Final = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot"))
"""


class RenderError(RuntimeError):
    """Graphviz is missing or failed. The message is one line."""


def render(graph: Graph, table: CostTable, fmt: str, fold: bool | None = None) -> bytes:
    """Draw the diagram of a graph.

    Args:
        table: costs of this graph, as `nasdsl.backends.cost.cost` gives them.
        fmt: one of `FORMATS`. ``dot`` and ``mmd`` need no Graphviz.
        fold: True draws each block and repeat as one box, False draws every value; None folds only what does not fit in one
            row otherwise.

    Raises:
        ValueError: an unknown format, or a table of another graph.
        RenderError: Graphviz is missing or fails.
    """
    _check(fmt, FORMATS)
    return render_folding(fold_graph(graph, table, fold), fmt)


def fold_graph(graph: Graph, table: CostTable, fold: bool | None = None) -> Folding:
    """The diagram of a graph, with what is drawn as one box; see `render`.

    Raises:
        ValueError: a table of another graph.
    """
    whole = diagram(graph, table)
    return fold_to_fit(whole) if fold is None else fold_diagram(whole, lambda _: not fold)


def render_folding(folding: Folding, fmt: str) -> bytes:
    """Draw a diagram that `fold_graph` has made.

    Args:
        fmt: one of `FORMATS`.

    Raises:
        ValueError: an unknown format.
        RenderError: Graphviz is missing or fails.
    """
    _check(fmt, FORMATS)
    if fmt == "dot":
        return emit_diagram(folding.diagram).encode()
    if fmt == "mmd":
        return emit_mermaid_diagram(folding.diagram).encode()
    if fmt == "html":
        return emit_page(views(folding), lambda dot: draw(dot, "svg").decode()).encode()
    return draw(emit_diagram(folding.diagram), fmt)


def write(graph: Graph, table: CostTable, path: str | Path, fold: bool | None = None) -> None:
    """Draw the diagram of a graph to a file, in the one of `FORMATS` that its suffix names; `fold` as of `render`.

    Raises:
        ValueError: an unknown suffix, or a table of another graph.
        RenderError: Graphviz is missing or fails.
        OSError: the file cannot be written.
    """
    fmt = Path(path).suffix.removeprefix(".").lower()
    _check(fmt, FORMATS)
    write_bytes(Path(path), render(graph, table, fmt, fold))


def render_diff(graph_a: Graph, table_a: CostTable, graph_b: Graph, table_b: CostTable, fmt: str) -> bytes:
    """Draw the changes from decoder a to decoder b.

    Args:
        table_a, table_b: costs of the graphs.
        fmt: one of `DIFF_FORMATS`.

    Raises:
        ValueError: an unknown format, or a table of another graph.
        RenderError: Graphviz is missing or fails.
    """
    _check(fmt, DIFF_FORMATS)
    text = emit_dot_diff(graph_a, table_a, graph_b, table_b)
    return text.encode() if fmt == "dot" else draw(text, fmt)


def count_diff_rows(graph_a: Graph, table_a: CostTable, graph_b: Graph, table_b: CostTable) -> int:
    """Number of rows that the diagram of `render_diff` is wrapped into; 1 if it is not too wide."""
    return len(wrap_diagram(*difference(diagram(graph_a, table_a), diagram(graph_b, table_b))))


def _check(fmt: str, known: tuple[str, ...]) -> None:
    if fmt not in known:
        raise ValueError(f"cannot draw a diagram in the format {fmt!r}; expected one of {', '.join(known)}")


def draw(dot: str, fmt: str) -> bytes:
    """Draw a DOT text with Graphviz, as ``svg``, ``png`` or ``pdf``.

    Uses the program ``dot`` if it is installed, else the libraries in pygraphviz's wheel.

    Raises:
        RenderError: neither is installed, or it fails.
    """
    if fmt == "png":
        dot = dot.replace("graph [", f"graph [dpi={PNG_DPI}, ", 1)
    if shutil.which("dot") and find_spec("graphviz"):
        return _draw_with_program(dot, fmt)
    if find_spec("pygraphviz"):
        return _draw_with_libraries(dot, fmt)
    raise RenderError(
        f"{fmt} needs Graphviz: install its `dot` program (graphviz.org/download) or `pip install pygraphviz`; "
        "dot and mmd output need none"
    )


def _draw_with_program(dot: str, fmt: str) -> bytes:
    import graphviz

    try:
        image: bytes = graphviz.pipe("dot", fmt, dot.encode(), quiet=True)
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError, OSError) as error:
        printed = getattr(error, "stderr", None) or b""
        raise RenderError(f"the program dot failed: {_reason(printed) or _reason(str(error).encode())}") from None
    return _checked(image, fmt, "the program dot")


def _draw_with_libraries(dot: str, fmt: str) -> bytes:
    # In a process of its own, because the libraries exit the process on some errors.
    try:
        ran = subprocess.run(
            [sys.executable, "-c", _PYGRAPHVIZ, fmt], input=dot.encode(), capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise RenderError(f"Graphviz did not finish in {TIMEOUT:g} s; write .dot or .mmd instead") from None
    if ran.returncode:
        raise RenderError(f"Graphviz (by pygraphviz) failed: {_reason(ran.stderr) or f'exit status {ran.returncode}'}")
    return _checked(ran.stdout, fmt, "Graphviz (by pygraphviz)")


def _checked(image: bytes, fmt: str, program: str) -> bytes:
    if not image.lstrip().startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[fmt]):
        raise RenderError(f"{program} produced no {fmt}")
    return image


def _reason(printed: bytes) -> str:
    """Last non-empty line of an error output, except for the font library's warnings."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("Fontconfig")), "")
