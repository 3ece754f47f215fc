"""The second stage: the pyramid of a trained fpn for every picture, so that heads can be trained alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nasdsl.backends.module import DecoderModule, Fpn
from nasdsl.ir import Graph
from nasdsl.training.checkpoint import write_atomically
from nasdsl.training.proxy.cache import Compute
from nasdsl.training.proxy.features import Features, Layout, Level, Maps


def pyramid_layout(graph: Graph, below: Layout) -> Layout:
    """Where the maps of a graph's pyramid lie, made from whole pictures' maps in `below`."""
    widths = {node.id: node.out.width for node in graph.nodes}
    levels = {name: Level(1 << graph.levels[name], widths[node]) for name, node in graph.outputs.items()}
    return Layout(levels, below.extents, below.copies)


def pyramid_maps(below: Features, train: Callable[[], Fpn], device: torch.device) -> Compute:
    """What computes the pyramid of a picture. The fpn is asked for with the first one, and not earlier: no other process
    makes the same pyramids then."""
    made: list[Fpn] = []

    def compute(picture: int) -> Maps:
        if not made:
            made.append(train())
        mirrored = [False, True][: below.layout.copies]
        with torch.no_grad():
            maps = {
                name: torch.stack([below.whole(picture, copy, name) for copy in mirrored]).to(device).float()
                for name in made[0].input_levels
            }
            pyramid: Maps = made[0](maps)
        return pyramid

    return compute


def kept_fpn(module: DecoderModule, place: Path | None, train: Callable[[DecoderModule], DecoderModule]) -> Fpn:
    """The fpn after training, in evaluation mode: that in the file `place`, or else a new one, which is then kept there.

    A GPU would train another one next time, while half of its pyramids may be on the disk already.
    """
    if place is not None and place.exists():
        module.fpn.load_state_dict(torch.load(place, map_location="cpu", weights_only=True))
        return module.fpn.eval()
    fpn = train(module).fpn
    if place is not None:
        buffer = io.BytesIO()
        torch.save(fpn.state_dict(), buffer)
        write_atomically(place, lambda file: file.write(buffer.getvalue()))
    return fpn.eval()


def objects_key(objects: Any) -> list[Any]:
    """Boxes and labels as plain values: a trained fpn depends on them."""
    return [[x.tolist() for x in of_picture] for of_picture in objects]
