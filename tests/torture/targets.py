"""Targets of every kind of prediction on random pictures, against loops that do what the papers say (`slow_targets`).

The fast ones compute in float32. Where an assignment hangs on the last digits of it (two overlaps that are equal but for a
millionth), both answers are right: such pictures and anchors are counted, and not compared.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "detection"))

from slow_targets import SHAPES, iou, locations, slow_alignment, slow_anchors, slow_atss, slow_fcos, slow_retinanet

from nasdsl.detection.atss import Atss
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.gfl import Gfl
from nasdsl.detection.retinanet import Retinanet
from nasdsl.detection.tal import Tal
from torture.subject import Case, Report, Subject

SIZE = (64, 80)
NEAR = 1e-5
CLASSES = 4


def boxes(rng: random.Random, *, exact: bool) -> list[list[float]]:
    """Boxes that lie in the picture, across its edge or beyond it: dots, slivers, the whole picture, several of one place.

    Args:
        exact: their coordinates are eighths of a pixel, so that float32 computes with them without an error.
    """

    def number(low: float, high: float) -> float:
        drawn = rng.uniform(low, high)
        return round(drawn * 8) / 8 if exact else torch.tensor(drawn).item()

    found = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 8, 20))):
        wide, high = rng.choice(((4, 40), (4, 40), (0.5, 3), (60, 200), (1, 100))), rng.choice(((4, 40), (0.5, 3), (60, 200)))
        x, y, w, h = number(-30, 90), number(-30, 70), number(*wide), number(*high)
        found.append([x, y, x + max(w, 0.125), y + max(h, 0.125)])
    if found and rng.random() < 0.3:
        found.append(list(rng.choice(found)))
    return [torch.tensor(box).tolist() for box in found]


def target(found: list[list[float]], labels: list[int]) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(found).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def compare_fcos(rng: random.Random, report: Report) -> None:
    found = boxes(rng, exact=True)
    labels, radius = [rng.randrange(CLASSES) for _ in found], rng.choice((None, 0.5, 1.5))
    given = target(found, labels)
    result = Fcos(ranges=(32, 64), reference_size=None, center_radius=radius).targets(SHAPES, SIZE, [given])
    slow = slow_fcos(SHAPES, [32, 64], given, radius)
    assert result.labels[0].tolist() == [label for label, _, _ in slow], "labels"
    assert result.distances[0].tolist() == [sides for _, sides, _ in slow], "distances"
    assert all(abs(a - b) < 1e-6 for a, b in zip(result.centerness[0].tolist(), (c for *_, c in slow), strict=True)), (
        "centerness"
    )


def compare_atss(rng: random.Random, report: Report) -> None:
    found, top = boxes(rng, exact=False), rng.choice((1, 4, 9))
    labels = [rng.randrange(CLASSES) for _ in found]
    if any(is_near_atss(box, top) for box in found) or is_near_each_other(found):
        report.count("left to rounding, atss and gfl")
        return
    owner = slow_atss(found, top)
    for method in (Atss(top=top), Gfl(top=top)):
        result = method.targets(SHAPES, SIZE, [target(found, labels)])
        assert result.labels[0].tolist() == [labels[n] if n >= 0 else -1 for n in owner], f"labels of {type(method).__name__}"
        for at, (number, (_, x, y)) in enumerate(zip(owner, locations(), strict=True)):
            if number >= 0:
                x1, y1, x2, y2 = found[number]
                assert math.dist(result.distances[0, at].tolist(), (x - x1, y - y1, x2 - x, y2 - y)) < 1e-4, "distances"


def is_near_atss(box: list[float], top: int) -> bool:
    """Whether candidates, or those above the threshold, hang on a rounding error."""
    center, grid, overlaps, scales = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), locations(), [], []
    for level in SHAPES:
        near = sorted((math.dist(center, (x, y)), x, y) for name, x, y in grid if name == level)
        if len(near) > top and near[top][0] - near[top - 1][0] < NEAR * near[top][0]:
            return True
        side = 8 * 2 ** int(level[1:]) / 2
        overlaps += [iou(box, [x - side, y - side, x + side, y + side]) for _, x, y in near[:top]]
        scales += [min(abs(v) for v in (x - box[0], box[2] - x, y - box[1], box[3] - y)) for _, x, y in near[:top]]
    threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
    return any(abs(overlap - threshold) < NEAR for overlap in overlaps) or min(scales) < NEAR


def is_near_each_other(found: list[list[float]]) -> bool:
    """Whether some location has anchors that overlap two boxes equally, but for a rounding error; twins are no such boxes."""
    for _, x, y in locations():
        for side in (32, 64, 128):
            each = sorted(iou(box, [x - side, y - side, x + side, y + side]) for box in found)
            if any(0 < b - a < NEAR for a, b in pairwise(each) if b > 0):
                return True
    return False


def compare_tal(rng: random.Random, report: Report) -> None:
    truth = boxes(rng, exact=False)
    if not truth:
        return
    grid, labels, generator = (
        locations(),
        [rng.randrange(CLASSES) for _ in truth],
        torch.Generator().manual_seed(rng.randrange(2**31)),
    )
    scores = torch.rand(len(grid), CLASSES, generator=generator)
    place = torch.tensor([[x, y] for _, x, y in grid])
    reach = 1 + torch.rand(len(grid), 4, generator=generator) * rng.choice((10, 40, 100))
    predicted = torch.cat([place - reach[:, :2], place + reach[:, 2:]], dim=1)
    tal = Tal(top=rng.choice((1, 4, 13)))
    found = tal.assign(scores, predicted, place, torch.tensor(truth), torch.tensor(labels))
    if is_near_tal(scores.tolist(), predicted.tolist(), truth, labels, tal):
        report.count("left to rounding, tal")
        return
    owner, quality = slow_alignment(scores.tolist(), predicted.tolist(), truth, labels, tal)
    assert found.box.tolist() == owner, "boxes"
    assert all(abs(a - b) <= 1e-6 + 2e-3 * b for a, b in zip(found.quality.tolist(), quality, strict=True)), "quality"


def is_near_tal(
    scores: list[list[float]], predicted: list[list[float]], truth: list[list[float]], labels: list[int], tal: Tal
) -> bool:
    """Whether the best of some box, or the owner of some location, hang on a rounding error, or on the range of float32."""
    for box, label in zip(truth, labels, strict=True):
        inside = [
            (scores[at][label] ** tal.alpha * iou(box, predicted[at]) ** tal.beta)
            for at, (_, x, y) in enumerate(locations())
            if box[0] < x < box[2] and box[1] < y < box[3]
        ]
        aligned = sorted(inside, reverse=True)
        if any(0 < value < 1e-36 for value in aligned):
            return True
        if len(aligned) > tal.top and aligned[tal.top - 1] - aligned[tal.top] <= 1e-4 * aligned[tal.top - 1] > 0:
            return True
    for at in range(len(predicted)):
        each = sorted(iou(box, predicted[at]) for box in truth)
        if any(0 < b - a < NEAR for a, b in pairwise(each)):
            return True
    return False


def compare_retinanet(rng: random.Random, report: Report) -> None:
    found = boxes(rng, exact=True)[:6]
    labels = [rng.randrange(CLASSES) for _ in found]
    result = Retinanet().targets(SHAPES, SIZE, [target(found, labels)])
    wanted, offsets, unsure = slow_retinanet(ANCHORS, found, labels)
    report.count("anchors left to rounding, retinanet", len(unsure))
    for at, (label, own) in enumerate(zip(result.labels[0].tolist(), result.offsets[0].tolist(), strict=True)):
        if at in unsure:
            continue
        assert label == wanted[at], f"label of anchor {at}"
        assert all(abs(a - b) < 1e-4 for a, b in zip(own, offsets[at], strict=True)), f"offsets of anchor {at}"


ANCHORS = slow_anchors(SHAPES)
KINDS = {"fcos": compare_fcos, "atss and gfl": compare_atss, "tal": compare_tal, "retinanet": compare_retinanet}


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared."""
    torch.set_num_threads(1)

    def case(number: int, report: Report) -> None:
        for name, compare in KINDS.items():
            report.count(f"pictures, {name}")
            try:
                compare(random.Random(f"{number} {name}"), report)
            except AssertionError as error:
                report.finding(f"{name}: other {error}")

    yield case


SUBJECT = Subject("targets", "pictures", 10_000, start, megabytes=1000, per_process=5000)
