"""Small pyramids, predictions and targets for tests of FCOS and RetinaNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from nasdsl.backends.module import Prediction
from nasdsl.detection.pyramid import level_locations, stride_of

torch.set_num_threads(1)  # more threads only wait for each other on maps this small

LEVELS = ("p3", "p4", "p5", "p6", "p7")


def shapes_for(size: tuple[int, int], levels: Sequence[str] = LEVELS) -> dict[str, tuple[int, int]]:
    """The maps of an image of this size (height, width)."""
    return {level: (-(-size[0] // 2 ** int(level[1:])), -(-size[1] // 2 ** int(level[1:]))) for level in levels}


def target(boxes: object, labels: object = None) -> dict[str, Tensor]:
    """The target of one image; by default all labels are 0."""
    result = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": result,
        "labels": torch.zeros(len(result), dtype=torch.int64) if labels is None else torch.as_tensor(labels),
    }


def random_target(count: int, size: tuple[int, int], classes: int, seed: int) -> dict[str, Tensor]:
    """Boxes of at least 4 pixels inside an image, with integer coordinates and clearly different areas."""
    generator = torch.Generator().manual_seed(seed)
    limits = torch.tensor([size[1], size[0]])
    corner = (torch.rand(count, 2, generator=generator) * (limits - 4)).floor()
    extent = 4 + (torch.rand(count, 2, generator=generator) * (limits - corner - 4)).floor()
    return target(torch.cat([corner, corner + extent], dim=1), torch.randint(0, classes, (count,), generator=generator))


def random_predictions(
    shapes: dict[str, tuple[int, int]], images: int, classes: int, seed: int, anchors: int | None = None
) -> dict[str, Prediction]:
    """Predictions with gradients: of FCOS, or of RetinaNet if a number of anchors is given."""
    generator = torch.Generator().manual_seed(seed)

    def noise(channels: int, shape: tuple[int, int]) -> Tensor:
        return torch.randn(images, channels, *shape, generator=generator)

    result = {}
    for level, shape in shapes.items():
        if anchors is None:
            maps = [noise(classes, shape) - 2, noise(4, shape).exp() * 2 ** int(level[1:]), noise(1, shape)]
        else:
            maps = [noise(anchors * classes, shape) - 2, noise(anchors * 4, shape) / 2]
        result[level] = Prediction(*(x.requires_grad_() for x in maps), *([None] if anchors else []))
    return result


def as_maps(flat: Tensor, shapes: dict[str, tuple[int, int]], anchors: int = 1) -> list[Tensor]:
    """[N, L, channels] to the maps of the levels, [N, anchors * channels, h, w]: the inverse of flattening."""
    maps, start = [], 0
    for height, width in shapes.values():
        level = flat[:, start : start + height * width * anchors]
        start += height * width * anchors
        maps.append(level.reshape(len(flat), height, width, -1).permute(0, 3, 1, 2))
    assert start == flat.shape[1]
    return maps


def torch_anchors(shapes: dict[str, tuple[int, int]]) -> Tensor:
    """torchvision's square anchors with the side of a stride, centered on our locations."""
    result = []
    for level, shape in shapes.items():
        half = stride_of(level) / 2
        result.append(level_locations(shape, stride_of(level)).repeat(1, 2) + torch.tensor([-half, -half, half, half]))
    return torch.cat(result)


def gradients(predictions: dict[str, Prediction]) -> list[Tensor | None]:
    return [x.grad for prediction in predictions.values() for x in prediction if x is not None]


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int], most: int = 5) -> Tensor:
    """Up to `most` boxes [n, 4] of half pixels in and around an image, some without area."""
    coordinate = st.integers(-20, 2 * max(size) + 20).map(lambda x: x / 2)
    extent = st.integers(0, 2 * max(size)).map(lambda x: x / 2)
    result = draw(st.lists(st.tuples(coordinate, coordinate, extent, extent), max_size=most))
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in result]).reshape(-1, 4)
