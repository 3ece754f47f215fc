"""Data sets of images with boxes (VOC, COCO and YOLO folders, synthetic shapes), transforms, and loading of batches."""

from nasdsl.data.dataset import Dataset, Sample, Target
from nasdsl.data.errors import BrokenData, DataError, NoSplit, Skipped, UnreadableImage
from nasdsl.data.geometry import rescale_boxes
from nasdsl.data.images import read_image
from nasdsl.data.loader import Batch, Loader, make_loader
from nasdsl.data.open import check_classes, find_splits, has_split, open_dataset
from nasdsl.data.splits import DEFAULT_SHARE, MadeSplit, split_record
from nasdsl.data.transforms import Augmented, Transform

__all__ = [
    "DEFAULT_SHARE",
    "Augmented",
    "Batch",
    "BrokenData",
    "DataError",
    "Dataset",
    "Loader",
    "MadeSplit",
    "NoSplit",
    "Sample",
    "Skipped",
    "Target",
    "Transform",
    "UnreadableImage",
    "check_classes",
    "find_splits",
    "has_split",
    "make_loader",
    "open_dataset",
    "read_image",
    "rescale_boxes",
    "split_record",
]
