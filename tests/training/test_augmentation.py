"""Augmentation in a training: sizes by turns, mosaics up to their end, and the ranges of FCOS."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_training import SHAPES, recipe

import nasdsl
from nasdsl.data import Batch
from nasdsl.detection.fcos import Fcos
from nasdsl.training import Recipe
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.loaders import infinite_batches, make_train_loader

HERE = ProcessGroup(torch.device("cpu"))


def batches(how: Recipe, count: int, first: int = 0) -> list[Batch]:
    stream = infinite_batches(make_train_loader(SHAPES, how, HERE), first)
    return [next(stream) for _ in range(count)]


def test_a_size_is_drawn_for_each_batch() -> None:
    sizes = ((24, 32), (32, 40), (40, 48))
    found = batches(recipe(sizes=sizes), 60)
    drawn = [tuple(batch.images.shape[-2:]) for batch in found]
    assert all(size in sizes for size in drawn)
    assert all(10 < drawn.count(size) < 30 for size in sizes)
    assert all(batch.sizes == [size] * 4 for batch, size in zip(found, drawn, strict=True))
    again = batches(recipe(sizes=sizes, workers=1, cache=False), 10, first=31)
    assert all(torch.equal(a.images, b.images) for a, b in zip(again, found[31:41], strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_mosaics_end_before_the_training(accumulate: int) -> None:
    """Of 4 epochs of 3 steps, the last quarter has none: batches are those of a training without mosaics."""
    how = {"epochs": 4, "accumulate": accumulate}
    with_mosaics = batches(recipe(mosaic=1.0, close_mosaic=0.25, **how), 12 * accumulate)
    without = batches(recipe(scale_jitter=(0.9999999, 1.0), **how), 12 * accumulate)
    mosaics = [len(a.targets[0]["labels"]) + len(a.targets[1]["labels"]) for a in with_mosaics]
    others = [len(a.targets[0]["labels"]) + len(a.targets[1]["labels"]) for a in without]
    assert sum(mosaics[: 9 * accumulate]) > 2 * sum(others[: 9 * accumulate])
    assert mosaics[9 * accumulate :] == others[9 * accumulate :]
    assert [t["image_id"] for b in with_mosaics for t in b.targets] == [t["image_id"] for b in without for t in b.targets]


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": (50, 70)},
        {"scale_jitter": (0.5, 2.0)},
        {"mosaic": 0.5},
        {"sizes": ((64, 96), (96, 128), (128, 160))},
        {"sizes": ((64, 96), (96, 128), (128, 160)), "mosaic": 0.5, "scale_jitter": (0.5, 2.0), "crop": (50, 70)},
        {"size": None, "shorter_side": (64, 80, 96), "longest_side": 200},
        {"size": None, "shorter_side": (64, 80, 96), "longest_side": 200, "crop": (50, 70), "mosaic": 0.5},
    ],
    ids=lambda settings: "+".join(settings),
)
def test_the_ranges_of_fcos_are_those_of_the_evaluation(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A box is assigned to a level by its size in pixels, in whatever way its image was resized or cut."""
    scales: list[int] = []
    original = Fcos.targets

    def targets(self: Fcos, shapes: Any, image_size: tuple[int, int], targets: Any) -> Any:
        scales.append(min(image_size))
        return original(self, shapes, image_size, targets)

    monkeypatch.setattr(Fcos, "targets", targets)
    decoder = nasdsl.loads(SMALL_DECODER)
    detector = nasdsl.detector(decoder, "tiny", classes=SHAPES.classes, backbone_weights=None).train()
    for batch in batches(recipe(batch_size=2, **{"size": (96, 128), **settings}), 6):
        with torch.no_grad():
            detector(batch.images, batch.targets, sizes=batch.sizes)
    assert scales == [96] * 6


SMALL_DECODER = """decoder small {
  input c3, c4
  fpn(width=32, norm=bn) { output p3 = conv_1x1(c3), p4 = conv_1x1(c4) }
  head(width=32, norm=gn) { conv_3x3 }
  predict fcos
}
"""
