"""Targets of every kind of prediction by loops over locations and boxes, as the papers write them: the fast ones equal them."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from nasdsl.detection.tal import Tal

SHAPES = {"p3": (8, 10), "p4": (4, 5), "p5": (2, 3)}


def locations() -> list[tuple[str, float, float]]:
    """Level, x and y of every location, in the order of the flat targets."""
    found = []
    for level, (height, width) in SHAPES.items():
        stride = 2 ** int(level[1:])
        found += [(level, i * stride + stride // 2, j * stride + stride // 2) for j in range(height) for i in range(width)]
    return found


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both if both else 0.0


def random_boxes(count: int, generator: torch.Generator, largest: float = 40.0) -> Tensor:
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([60.0, 45.0])
    size = 4 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * largest
    return torch.cat([corner, corner + size], dim=1).float()


def slow_atss(boxes: list[list[float]], top: int = 9) -> list[int]:
    """Index of the box of each location, or -1: algorithm 1 of arXiv:1912.02424, step by step."""
    grid = locations()
    owner, best = [-1] * len(grid), [-1.0] * len(grid)
    for number, box in enumerate(boxes):
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates = []
        for level in SHAPES:
            near = [(math.dist(center, (x, y)), at) for at, (name, x, y) in enumerate(grid) if name == level]
            candidates += [at for _, at in sorted(near)[:top]]
        overlap = {}
        for at in candidates:
            level, x, y = grid[at]
            side = 8 * 2 ** int(level[1:]) / 2
            overlap[at] = iou(box, [x - side, y - side, x + side, y + side])
        threshold = statistics.mean(overlap.values()) + statistics.stdev(overlap.values())
        for at in candidates:
            _, x, y = grid[at]
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and overlap[at] >= threshold and overlap[at] > best[at]:
                owner[at], best[at] = number, overlap[at]
    return owner


def slow_alignment(
    scores: list[list[float]], boxes: list[list[float]], truth: list[list[float]], labels: list[int], tal: Tal
) -> tuple[list[int], list[float]]:
    """Box and quality of each location by sections 3.1 and 3.2 of arXiv:2108.07755, one location after the other."""
    grid = locations()
    chosen: dict[int, list[tuple[float, int]]] = {}
    for number, (box, label) in enumerate(zip(truth, labels, strict=True)):
        found = []
        for at, (_, x, y) in enumerate(grid):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                overlap = iou(box, boxes[at])
                aligned = scores[at][label] ** tal.alpha * overlap**tal.beta
                if aligned > 0:
                    found.append((-aligned, at, overlap))
        for _, at, overlap in sorted(found)[: tal.top]:
            chosen.setdefault(at, []).append((-overlap, number))
    owner, quality = [-1] * len(grid), [0.0] * len(grid)
    for at, several in chosen.items():
        owner[at] = min(several)[1]
    for number, (box, label) in enumerate(zip(truth, labels, strict=True)):
        mine = [at for at, of in enumerate(owner) if of == number]
        if mine:
            aligned = {at: scores[at][label] ** tal.alpha * iou(box, boxes[at]) ** tal.beta for at in mine}
            largest, overlap = max(aligned.values()), max(iou(box, boxes[at]) for at in mine)
            for at in mine:
                quality[at] = aligned[at] / largest * overlap
    return owner, quality


def slow_fcos(
    shapes: dict[str, tuple[int, int]], ranges: list[float], found: dict[str, Tensor], radius: float | None = None
) -> list[tuple[int, list[float], float]]:
    """Label, distances and centerness of each location of one image, one location and one box at a time."""
    result = []
    bounds = [-1.0, *ranges, math.inf]
    for number, (level, (height, width)) in enumerate(shapes.items()):
        stride = 2 ** int(level[1:])
        for i in range(height):
            for j in range(width):
                x, y = stride * j + stride // 2, stride * i + stride // 2
                best, label, sides = math.inf, -1, [0.0] * 4
                for (x1, y1, x2, y2), its_label in zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True):
                    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
                    if radius is None:
                        inside = x1 < x < x2 and y1 < y < y2
                    else:
                        cx, cy, reach = (x1 + x2) / 2, (y1 + y2) / 2, radius * stride
                        inside = max(x1, cx - reach) < x < min(x2, cx + reach) and max(y1, cy - reach) < y < min(y2, cy + reach)
                    size = max(left, top, right, bottom)
                    area = (x2 - x1) * (y2 - y1)
                    if inside and bounds[number] <= size <= bounds[number + 1] and area < best:
                        best, label, sides = area, its_label, [left, top, right, bottom]
                left, top, right, bottom = sides
                near = 0.0
                if label >= 0:
                    near = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
                result.append((label, sides, near))
    return result


def slow_anchors(
    shapes: dict[str, tuple[int, int]], count: int = 3, ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
) -> list[list[float]]:
    """RetinaNet's anchors by level, location, ratio and size."""
    anchors = []
    for level, (height, width) in shapes.items():
        stride = 2 ** int(level[1:])
        sizes = [int(4 * stride * 2 ** (n / count)) for n in range(count)]
        own = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in ratios for size in sizes]
        for i in range(height):
            for j in range(width):
                for wide, high in own:
                    x, y = round(wide / 2), round(high / 2)
                    anchors.append([float(v) for v in (j * stride - x, i * stride - y, j * stride + x, i * stride + y)])
    return anchors


def slow_retinanet(
    anchors: list[list[float]], boxes: list[list[float]], labels: list[int], near: float = 1e-6
) -> tuple[list[int], list[list[float]], set[int]]:
    """Label of each anchor (-1 background, -2 ignored), its offsets, and anchors whose label hangs on a rounding error."""
    result, offsets, unsure = [-1] * len(anchors), [[0.0] * 4 for _ in anchors], set[int]()
    overlap = [[iou(box, anchor) for box in boxes] for anchor in anchors]
    highest = [max(of_anchor[n] for of_anchor in overlap) for n in range(len(boxes))]
    for at, (anchor, found) in enumerate(zip(anchors, overlap, strict=True)):
        known = [n for n in range(len(boxes)) if highest[n] > 0]
        if not known:
            continue
        best = max(known, key=lambda n: found[n])
        is_best = any(found[n] == highest[n] for n in known)
        close = [v for n, v in enumerate(found) if n != best and found[best] - v < near and v > 0]
        if close or any(abs(found[best] - t) < near for t in (0.4, 0.5)):
            unsure.add(at)
        if not is_best and any(highest[n] - found[n] < near for n in known):
            unsure.add(at)
        if found[best] >= 0.5 or is_best:
            result[at] = labels[best]
            wide, high = anchor[2] - anchor[0], anchor[3] - anchor[1]
            box = boxes[best]
            offsets[at] = [
                ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / wide,
                ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / high,
                math.log((box[2] - box[0]) / wide),
                math.log((box[3] - box[1]) / high),
            ]
        elif found[best] >= 0.4:
            result[at] = -2
    return result, offsets, unsure
