"""Dead code elimination: removes the nodes that no output depends on, and lists them."""

from __future__ import annotations

from dataclasses import replace

from nasdsl.ir.graph import Graph, Node, Removed


def remove_dead(graph: Graph) -> Graph:
    """The graph without nodes that no output reads, directly or by way of others; they are listed in ``removed``."""
    live = set(graph.outputs.values())
    for node in reversed(graph.nodes):
        if node.id in live:
            live.update(node.inputs)
    if len(live) == len(graph.nodes):
        return graph
    removed: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if node.id not in live:
            removed.setdefault(id(node.value), []).append(node)
    entries = tuple(Removed(nodes[0].value, tuple(nodes)) for nodes in removed.values())
    # A raw input that only dead layers read belongs to its adapter's account, not to one of its own.
    entries = tuple(e for e in entries if any(n.inputs for n in e.nodes))
    kept = tuple(node for node in graph.nodes if node.id in live)
    return replace(graph, nodes=kept, removed=graph.removed + entries)
