"""The picture of a decoder, for a panel beside its text."""

from __future__ import annotations

from typing import Any

from nasdsl.backends import diagrams
from nasdsl.lsp.documents import Document


def picture(document: Document, fold: bool | None = None) -> dict[str, Any]:
    """The diagram that ``nasdsl render`` draws, as ``{"svg": …}``; or ``{"message": …}`` that says why there is none.

    Args:
        fold: as of `nasdsl.backends.diagrams.fold_graph`.
    """
    analysis = document.analysis
    figures = analysis.figures
    if any(p.severity == "error" for p in analysis.problems):
        return {"message": "The text has errors."}
    if figures.space is not None:
        return {"message": "A search space has no picture: it has one for each of its decoders."}
    if figures.graph is None or figures.table is None:
        return {"message": f"There is no decoder in this text that fits the backbone {figures.backbone}."}
    try:
        folding = diagrams.fold_graph(figures.graph, figures.table, fold)
        return {"svg": diagrams.render_folding(folding, "svg").decode()}
    except diagrams.RenderError as error:
        return {"message": str(error)}
