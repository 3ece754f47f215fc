"""Small proxy tasks, and pictures with known pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasdsl.data import Dataset, UnreadableImage
from nasdsl.data.dataset import Record
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.training.proxy import ProxySpec

TEXT = """decoder small {
  input c3, c4, c5
  fpn(width=16, norm=bn) {
    m4 = psum(skip(c4), skip(c5))
    m3 = psum(skip(c3), skip(m4))
    output p3 = m3, p4 = m4, p5 = c5
    output p6 = down(p5)
  }
  head(width=16, norm=none) { HEAD }
  predict fcos(centerness=cls)
}
"""


def text(head: str = "conv_3x3(bias=true)", predict: str = "fcos(centerness=cls)") -> str:
    """A decoder whose training step takes milliseconds."""
    return TEXT.replace("HEAD", head).replace("fcos(centerness=cls)", predict)


def small_spec(**settings: Any) -> ProxySpec:
    """Eight pictures of 96x128, crops of 96x96, a few steps."""
    given = {"data": "shapes:8", "backbone": "tiny", "size": 96, "longest": 160, "iterations": 3, "batch_size": 3}
    return ProxySpec(**{**given, "dtype": "float32", "device": "cpu", **settings})


class Painted(Dataset):
    """Pictures of one grey with one white box each, of label 1.

    Args:
        sizes: (H, W) of each.
        boxes: xyxy of each, in whole pixels.
        unreadable: indices of pictures that cannot be read.
        grey: the background, 0 to 255.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        boxes: Sequence[tuple[int, int, int, int]],
        unreadable: Sequence[int] = (),
        grey: int = 0,
    ) -> None:
        records = [
            Record(
                index,
                None,
                size,
                np.array([box], dtype=np.float64),
                np.array([1]),
                np.array([False]),
                np.array([False]),
                np.array([(box[2] - box[0]) * (box[3] - box[1])], dtype=np.float64),
            )
            for index, (size, box) in enumerate(zip(sizes, boxes, strict=True))
        ]
        super().__init__("painted", ("a", "b"), (3, 7), records)
        self.boxes, self.unreadable, self.grey = boxes, unreadable, grey

    def _read_image(self, index: int, at_least: tuple[int, int] | None) -> Tensor:
        if index in self.unreadable:
            raise UnreadableImage(f"picture{index}.png", "torn")
        image = torch.full((3, *self.size(index)), self.grey, dtype=torch.uint8)
        x1, y1, x2, y2 = self.boxes[index]
        image[:, y1:y2, x1:x2] = 255
        return image


class Means(nn.Module):
    """A backbone whose features are the means of the pixels, at strides 8, 16 and 32."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(x[:, :2], stride) for stride in (8, 16, 32)]


def means() -> FeatureExtractor:
    """`Means` as a feature extractor: white is 1, black and padding are 0."""
    return FeatureExtractor(Means(), ("c3", "c4", "c5"), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
