"""A trained decoder made faster for evaluation: norms folded into convolutions, in torch's channels-last memory format."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Node
from nasdsl.layers import Conv, DeformConv, Norm
from nasdsl.nn.folding import folded, folds


def for_inference(module: DecoderModule) -> DecoderModule:
    """A decoder that gives the same predictions (to rounding) in evaluation mode, sooner; `module` stays as it is.

    Each BatchNorm behind a convolution that nothing else reads becomes a part of that convolution. GroupNorms need the
    picture they norm, and stay. What comes back cannot be trained: it has no BatchNorms to train.
    """
    made = copy.deepcopy(module).eval().requires_grad_(False)
    graph = made.graph
    _fold(made.fpn, graph.nodes, graph.outputs.values())
    for tower in graph.head.towers:
        for layer in tower.layers:
            places = [str(layer.index)] if layer.shared else [f"{layer.index}.{level}" for level in made.head.levels]
            for place in places:
                try:
                    root = made.head.get_submodule(f"{tower.name}.{place}")
                except AttributeError:  # a layer without modules
                    continue
                _fold(root, layer.nodes, [layer.result])
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


def _fold(root: nn.Module, nodes: Sequence[Node], results: Iterable[str]) -> None:
    for conv_id, norm_id in foldable(nodes, results):
        conv, norm = root.get_submodule(conv_id), root.get_submodule(norm_id)
        if folds(conv, norm):
            root.set_submodule(conv_id, folded(conv, norm))  # type: ignore[arg-type]
            root.set_submodule(norm_id, nn.Identity())
