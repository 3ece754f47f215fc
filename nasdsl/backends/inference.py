"""Optimize a trained decoder for inference: folded BatchNorms, channels-last memory format, half precision."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch

from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Node
from nasdsl.layers import Conv, DeformConv, Norm
from nasdsl.nn.exact import ExactPrediction
from nasdsl.nn.folding import fold, replace_submodule


def for_inference(module: DecoderModule) -> DecoderModule:
    """Copy of a decoder that is optimized for inference. Its predictions in eval mode are the same, up to rounding.

    A BatchNorm whose input is a convolution that nothing else reads is folded into the convolution. GroupNorms and LayerNorms
    stay: their statistics depend on the input. So do BatchNorms of each level behind a convolution that all levels share. The
    copy cannot be trained, since it has no BatchNorms.
    """
    optimized = copy.deepcopy(module).eval().requires_grad_(False)
    graph = optimized.graph
    fold(optimized.fpn, [(conv.weights, norm.weights) for conv, norm in foldable(graph.nodes, graph.outputs.values())])
    levels = optimized.head.levels
    for tower in graph.head.chains:
        root = optimized.head.get_submodule(tower.name)
        for layer in tower.layers:
            pairs = [] if layer.norms_per_level else foldable(layer.nodes, [layer.result])
            for level in levels[:1] if layer.shared else levels:
                fold(root, [(layer.path(conv, level), layer.path(norm, level)) for conv, norm in pairs])
    for prediction in graph.head.predictions:
        pairs = foldable(prediction.nodes, [prediction.nodes[-1].id])
        for level in levels[:1] if prediction.shared else levels:
            fold(optimized.head, [(prediction.path(conv, level), prediction.path(norm, level)) for conv, norm in pairs])
    return optimized.to(memory_format=torch.channels_last)


def to_half(module: DecoderModule, dtype: torch.dtype) -> None:
    """Convert weights and maps to half precision, in place. Predictions are float32, and boxes also computed in it.

    Args:
        module: a decoder, for inference.
        dtype: bfloat16 or float16.
    """
    head = module.head
    ends = {
        prediction.path(prediction.nodes[-1], level): torch.float32 if prediction.name == "bbox_reg" else dtype
        for prediction in module.graph.head.predictions
        for level in (head.levels[:1] if prediction.shared else head.levels)
    }
    exact = {path: ExactPrediction(copy.deepcopy(head.get_submodule(path)), own) for path, own in ends.items()}
    module.to(dtype)
    for path, prediction in exact.items():
        replace_submodule(head, path, prediction)
    if hasattr(head, "scale"):
        head.scale.float()


def foldable(nodes: Sequence[Node], results: Iterable[str]) -> list[tuple[Node, Node]]:
    """Pairs (convolution, norm) where the norm is the only reader of the convolution.

    Of layers that share their weights, a pair stands once, and only if all of them are such pairs of the same weights.

    Args:
        results: ids of the nodes that are read from outside.
    """
    by_id = {node.id: node for node in nodes}
    readers: dict[str, int] = dict.fromkeys(results, 1)
    for node in nodes:
        for source in node.inputs:
            readers[source] = readers.get(source, 0) + 1
    candidates = [
        (by_id[node.inputs[0]], node)
        for node in nodes
        if isinstance(node.layer, Norm)
        and isinstance(by_id[node.inputs[0]].layer, Conv | DeformConv)
        and readers[node.inputs[0]] == 1
    ]
    pair_of = {node.id: (conv.weights, norm.weights) for conv, norm in candidates for node in (conv, norm)}
    pairs_of: dict[str, set[tuple[str, str] | None]] = {}  # of a set of weights: the pairs that its nodes are in
    for node in nodes:
        pairs_of.setdefault(node.weights, set()).add(pair_of.get(node.id))
    unique = {pair_of[conv.id]: (conv, norm) for conv, norm in candidates}
    return [found for pair, found in unique.items() if all(pairs_of[weights] == {pair} for weights in pair)]
