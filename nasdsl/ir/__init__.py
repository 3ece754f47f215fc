"""The graph: primitive layers with ordered operands, known widths and levels, and where in the text each comes from."""

from nasdsl.ir.graph import Graph, HeadGraph, HeadLayer, Node, Prediction, Removed, Tower, VerifyError, verify
from nasdsl.ir.lower import MissingFeature, lower

__all__ = [
    "Graph",
    "HeadGraph",
    "HeadLayer",
    "MissingFeature",
    "Node",
    "Prediction",
    "Removed",
    "Tower",
    "VerifyError",
    "lower",
    "verify",
]
