"""Graph to a diagram: SVG, PNG, PDF, DOT, Mermaid, an HTML page, and the difference of two decoders.

``diagram`` has the contents (boxes and arrows), which ``from_graph`` makes of a graph; ``folding`` makes one box of a block or
a `repeat`, ``labels`` the text in boxes, ``wrapping``, ``layout`` and ``routes`` the places; ``dot``, ``mermaid``, ``html`` and
``diff`` write the formats, and ``rendering`` calls Graphviz.
"""

from nasdsl.backends.diagrams.rendering import (
    DIFF_FORMATS,
    FORMATS,
    TIMEOUT,
    RenderError,
    count_diff_rows,
    fold_graph,
    render,
    render_diff,
    render_folding,
    write,
)

__all__ = [
    "DIFF_FORMATS",
    "FORMATS",
    "TIMEOUT",
    "RenderError",
    "count_diff_rows",
    "fold_graph",
    "render",
    "render_diff",
    "render_folding",
    "write",
]
