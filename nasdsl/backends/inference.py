"""Optimize a trained decoder for inference: BatchNorms folded into convolutions, channels-last memory format."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch

from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Node
from nasdsl.layers import Conv, DeformConv, Norm
from nasdsl.nn.folding import fold


def for_inference(module: DecoderModule) -> DecoderModule:
    """Copy of a decoder that is optimized for inference. Its predictions in eval mode are the same, up to rounding.

    A BatchNorm whose input is a convolution that nothing else reads is folded into the convolution. GroupNorms stay: their
    statistics depend on the input. The copy cannot be trained, since it has no BatchNorms.
    """
    optimized = copy.deepcopy(module).eval().requires_grad_(False)
    graph = optimized.graph
    fold(optimized.fpn, foldable(graph.nodes, graph.outputs.values()))
    for tower in graph.head.towers:
        root = optimized.head.get_submodule(tower.name)
        for layer, built in zip(tower.layers, optimized.head.towers[tower.name], strict=True):
            pairs = foldable(layer.nodes, [layer.result])
            for level in optimized.head.levels[:1] if layer.shared else optimized.head.levels:
                fold(built.modules(root, level), pairs)
    for prediction in graph.head.predictions:
        pairs = foldable(prediction.nodes, [prediction.nodes[-1].id])
        for place in optimized.head.places(prediction)[: None if pairs else 0]:
            fold(optimized.head.get_submodule(place), pairs)
    return optimized.to(memory_format=torch.channels_last)


def foldable(nodes: Sequence[Node], results: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (convolution, norm) of node ids where the norm is the only reader of the convolution.

    Args:
        results: ids of the nodes that are read from outside.
    """
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
