"""What is initialized in another way than torch does: the same in modules and in their source."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.ir.graph import Graph, Node
from nasdsl.layers import Conv, DeformConv

PRIOR = 0.01
"""Initial class probability (arXiv:1708.02002, section 4.1)."""


def strided_outputs(graph: Graph) -> list[Node]:
    """The convolutions of outputs such as ``p6 = down(p5)``, each set of weights once."""
    found = [n for n in graph.nodes if n.value.kind == "output" and isinstance(n.layer, Conv) and n.layer.stride > 1]
    return list({n.weights: n for n in found}.values())


def offset_predictors(nodes: Sequence[Node]) -> list[Node]:
    """The convolutions whose results are the offsets of deformable convolutions, as they are; each set of weights once."""
    read = {node.inputs[1] for node in nodes if isinstance(node.layer, DeformConv) and len(node.inputs) > 1}
    return list({node.weights: node for node in nodes if node.id in read and isinstance(node.layer, Conv)}.values())
