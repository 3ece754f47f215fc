"""A trained decoder made faster for evaluation: norms folded into convolutions, in torch's channels-last memory format."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch

from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Node
from nasdsl.layers import Conv, DeformConv, Norm
from nasdsl.nn.folding import fold


def for_inference(module: DecoderModule) -> DecoderModule:
    """A decoder that gives the same predictions (to rounding) in evaluation mode, sooner; `module` stays as it is.

    Each BatchNorm behind a convolution that nothing else reads becomes a part of that convolution. GroupNorms need the
    picture they norm, and stay. What comes back cannot be trained: it has no BatchNorms to train.
    """
    made = copy.deepcopy(module).eval().requires_grad_(False)
    graph = made.graph
    fold(made.fpn, foldable(graph.nodes, graph.outputs.values()))
    for tower in graph.head.towers:
        root = made.head.get_submodule(tower.name)
        for layer, built in zip(tower.layers, made.head.towers[tower.name], strict=True):
            pairs = foldable(layer.nodes, [layer.result])
            for level in made.head.levels[:1] if layer.shared else made.head.levels:
                fold(built.modules(root, level), pairs)
    return made.to(memory_format=torch.channels_last)


def foldable(nodes: Sequence[Node], results: Iterable[str]) -> list[tuple[str, str]]:
    """Ids of the convolutions and of the norms right behind them, where nothing else reads the convolution."""
    by_id = {node.id: node for node in nodes}
    readers: dict[str, int] = dict.fromkeys(results, 1)
    for node in nodes:
        for source in node.inputs:
            readers[source] = readers.get(source, 0) + 1
    return [
        (node.inputs[0], node.id)
        for node in nodes
        if isinstance(node.layer, Norm)
        and isinstance(by_id[node.inputs[0]].layer, Conv | DeformConv)
        and readers[node.inputs[0]] == 1
    ]
