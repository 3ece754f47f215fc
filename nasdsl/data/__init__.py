"""Data sets of images with boxes (VOC and COCO folders, synthetic shapes), transforms, and loading of batches."""

from nasdsl.data.dataset import Dataset, Sample, Target
from nasdsl.data.errors import BrokenData, DataError, NoSplit, Skipped, UnreadableImage
from nasdsl.data.geometry import rescale_boxes
from nasdsl.data.images import read_image
from nasdsl.data.loader import Batch, Loader, make_loader
from nasdsl.data.open import open_dataset
from nasdsl.data.transforms import Augmented, Transform

__all__ = [
    "Augmented",
    "Batch",
    "BrokenData",
    "DataError",
    "Dataset",
    "Loader",
    "NoSplit",
    "Sample",
    "Skipped",
    "Target",
    "Transform",
    "UnreadableImage",
    "make_loader",
    "open_dataset",
    "read_image",
    "rescale_boxes",
]
