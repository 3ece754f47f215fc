"""The picture of a decoder as DOT text, and how its boxes, the rows of costs and the lines of the text belong together."""

from __future__ import annotations

from typing import Any

from nasdsl.backends.diagrams.diagram import Box, Diagram
from nasdsl.backends.diagrams.dot import element_ids, emit_diagram
from nasdsl.backends.diagrams.folding import Folding, views
from nasdsl.diagnostics import Source


def picture(folding: Folding, view: int, shown: Source | None) -> dict[str, Any]:
    """What `nasdsl render` draws, for Graphviz to draw in the page.

    A decoder that is too wide for one row has folded blocks and repeats; each view opens one of them.

    Args:
        view: number of the view that is drawn; the first where there is none of this number.
        shown: the text that the page shows; lines of other texts are None.

    Returns:
        ``rows``: each value with its costs. ``picture``: ``dot``; ``boxes``, the numbers of the rows that each element stands
        for; ``views``, each with ``title`` and ``parent``; ``view``, the number of this one; ``opens``, the view that a click
        on an element opens.
    """
    found = views(folding) if folding.closed else []
    number = view if 0 <= view < len(found) else 0
    drawn = found[number].folding if found else folding
    whole = folding.whole
    rows = {box.id: index for index, box in enumerate(whole.boxes)}
    elements = element_ids(drawn.diagram)
    boxes: dict[str, list[int]] = {}
    for box, drawn_as in drawn.drawn_as.items():
        boxes.setdefault(elements[drawn_as], []).append(rows[box])
    targets = {other.path: n for n, other in enumerate(found) if other.path}
    return {
        "rows": [_row(whole, box, shown) for box in whole.boxes],
        "picture": {
            "dot": emit_diagram(drawn.diagram),
            "boxes": boxes,
            "view": number,
            "views": [{"title": v.title or "overview", "parent": v.parent} for v in found],
            "opens": {elements[box]: targets[path] for box, path in drawn.closed.items() if path in targets},
        },
    }


def _row(whole: Diagram, box: Box, shown: Source | None) -> dict[str, Any]:
    is_shown = box.span.source is shown
    return {
        "name": box.name,
        "text": box.text,
        "role": box.role,
        "family": box.family,
        "level": box.level,
        "shape": whole.shape(box),
        "macs": box.macs,
        "params": box.params,
        "line": box.span.line if is_shown else None,
        "last": box.span.line + box.span.text.count("\n") if is_shown else None,
    }
