"""The images that a detector is timed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasdsl.backends.cost import Size
from nasdsl.data import open_dataset, read_image
from nasdsl.data.geometry import resize_image
from nasdsl.latency.session import Images


def example_images(size: Size, batch: int, image: Path | None = None) -> Images:
    """A batch of images: the file `image`, or the first ones of the data set `shapes`, resized.

    The content matters: the number of boxes that a detector finds decides how long non-maximum suppression takes, and noise
    has far more or far fewer of them than images of objects.

    Raises:
        UnreadableImage: the file is missing or no image.
    """
    if image is not None:
        originals = [read_image(image)] * batch
    else:
        dataset = open_dataset(f"shapes:{batch}", "test")
        originals = [dataset[index].image for index in range(batch)]
    resized = [resize_image(original, size).numpy() for original in originals]
    return np.ascontiguousarray(np.stack(resized)).astype(np.float32) / np.float32(255)
