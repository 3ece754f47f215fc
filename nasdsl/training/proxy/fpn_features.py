"""Features of the second stage: the outputs of a trained fpn for every picture, on which heads are trained alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nasdsl.backends.module import DecoderModule, Fpn
from nasdsl.files import write_bytes
from nasdsl.ir import Graph
from nasdsl.torch_files import load_torch_file
from nasdsl.training.proxy.crops import Annotations
from nasdsl.training.proxy.feature_batches import FeatureFunction, features_in_batches
from nasdsl.training.proxy.features import FeatureLayout, Features, Level, Maps


def fpn_layout(graph: Graph, backbone_layout: FeatureLayout) -> FeatureLayout:
    """The layout of a graph's fpn outputs, computed from whole pictures' maps in `backbone_layout`."""
    widths = {node.id: node.out.width for node in graph.nodes}
    levels = {name: Level(1 << graph.levels[name], widths[node]) for name, node in graph.outputs.items()}
    return FeatureLayout(levels, backbone_layout.padded_sizes, backbone_layout.copies)


def fpn_feature_function(backbone_features: Features, make_fpn: Callable[[], Fpn], device: torch.device) -> FeatureFunction:
    """A function that computes the fpn outputs of pictures.

    `make_fpn` is called for the first picture only, when the cache is locked: so no other process trains the same fpn.
    """
    made: list[Fpn] = []
    layout = backbone_features.layout
    mirrored = [False, True][: layout.copies]

    def load(picture: int) -> list[Maps]:
        """Of each copy; they are read when they are joined."""
        return [{name: backbone_features.full_map(picture, copy, name) for name in layout.levels} for copy in mirrored]

    def compute(loaded: list[list[Maps]]) -> Maps:
        if not made:
            made.append(make_fpn())  # it may be trained now
        copies = [maps for of_picture in loaded for maps in of_picture]
        with torch.no_grad():
            joined = {name: torch.stack([maps[name] for maps in copies]).to(device).float() for name in made[0].input_levels}
            outputs: Maps = made[0](joined)
        return outputs

    return features_in_batches(load, layout.padded_sizes.__getitem__, compute, device)


def load_or_train_fpn(module: DecoderModule, path: Path | None, train: Callable[[DecoderModule], DecoderModule]) -> Fpn:
    """The trained fpn in evaluation mode: loaded from `path` if it is there, else trained and saved there.

    It is saved because training on a GPU is not reproducible, and some of its outputs may be on the disk already.
    """
    if path is not None and path.exists():
        module.fpn.load_state_dict(load_torch_file(path))
        return module.fpn.eval()
    fpn = train(module).fpn
    if path is not None:
        buffer = io.BytesIO()
        torch.save(fpn.state_dict(), buffer)
        write_bytes(path, buffer.getvalue())
    return fpn.eval()


def annotations_key(annotations: Sequence[Annotations]) -> list[Any]:
    """Annotations as plain values for a cache key: a trained fpn depends on them."""
    return [[x.tolist() for x in of_picture] for of_picture in annotations]
