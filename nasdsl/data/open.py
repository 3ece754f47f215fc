"""Opens data sets by what is written on the command line: a folder whose form is recognised, or ``voc:DIR`` and the like."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nasdsl.data.coco import CocoSource
from nasdsl.data.coco_layout import find_annotation_files
from nasdsl.data.dataset import Dataset
from nasdsl.data.errors import DataError, NoSplit
from nasdsl.data.layouts import Listing, existing_folder, find_split
from nasdsl.data.shapes import SPLITS, open_shapes
from nasdsl.data.source import Source
from nasdsl.data.splits import base_split, choose_split
from nasdsl.data.voc import VocSource
from nasdsl.data.yolo import YoloSource, has_labels
from nasdsl.data.yolo_config import find_config
from nasdsl.files import open_plain

SOURCES: dict[str, type[VocSource | CocoSource | YoloSource]] = {"voc": VocSource, "coco": CocoSource, "yolo": YoloSource}
EXPECTED = "expected a folder, voc:DIR, coco:DIR, yolo:DIR, shapes or shapes:COUNT"

_NEEDS = """\
  VOC needs an XML file (<annotation>) for each image, in any folder: Annotations/ and JPEGImages/, annots/ and images/, train/
  COCO needs a JSON file with images, annotations and categories: annotations/instances_train.json, train/_annotations.coco.json
  YOLO needs a .txt file of numbers for each image: images/train/ and labels/train/, or train/images/ and train/labels/, and
    the names of the classes in data.yaml or classes.txt"""
_FORM_OF_SUFFIX = {".yaml": "yolo", ".yml": "yolo", ".data": "yolo", ".json": "coco"}
"""The form of a file that stands for its data set."""
_HEAD = 4096
"""Bytes of an XML file that are read to recognise it."""


def open_dataset(
    spec: str,
    split: str,
    *,
    on_error: str = "skip",
    classes: Sequence[str] | None = None,
    split_share: float | None = None,
    split_seed: int | None = None,
    **options: Any,
) -> Dataset:
    """Open a split of the data set that `spec` names.

    Args:
        spec: a folder, whose form is recognised; ``voc:DIR``, ``coco:DIR`` (or one JSON file), ``yolo:DIR`` (or a
            ``data.yaml``); ``shapes`` or ``shapes:COUNT``.
        split: ``train``, ``val``, ``test`` or any other that the data set has; ``all`` for one without splits. ``valid`` and
            ``validation`` are ``val``.
        on_error: ``"skip"`` leaves broken images and boxes out; ``"refuse"`` raises.
        classes: class names by label; objects of other classes are left out (`Dataset.left_out`). None: those of the data.
        split_share: share of the images that ``train`` gets, and ``val`` does not, where the data set has no ``val``. None: a
            ``train`` that it has is left whole; 0.8 if it has no splits.
        split_seed: of this division, 0 by default; see `MadeSplit`.
        options: ``one_based`` for VOC, ``seed`` for shapes.

    Raises:
        BrokenData: an image or box is broken, and ``on_error="refuse"``.
        DataError: there is no such folder, split or option, the form is not recognised, or there is no usable image.
    """
    form, place = split_spec(spec)
    if form == "shapes":
        _check_options(form, open_shapes, options)
        name = find_split(split, SPLITS) or split
        return open_shapes(place, name, on_error=on_error, classes=classes, **options)
    source = find_source(spec, **options)
    part, made = choose_split(source.splits, split, split_share, split_seed or 0, source.missing_split(split))
    contents = source.read(part, classes)
    notes = []
    if made is not None:
        total = len(contents.images)
        contents = contents.select(made.chooser(contents.keys()))
        if total and not contents.images and made.split == "val":
            raise NoSplit(f"{source.missing_split(split)}: too few images to make one ({total})")
        notes.append(made.describe(len(contents.images), total))
    return contents.dataset(f"{source.name} ({split})", on_error, notes, made)


def check_classes(dataset: Dataset, classes: Sequence[str]) -> None:
    """Check that a data set has objects of all classes that a user asked for.

    Raises:
        DataError: it has none of a class; the message names those that it has.
    """
    counts = dataset.class_counts()
    missing = [name for name in classes if not counts.get(name)]
    if missing:
        there = sorted({name for name, number in counts.items() if number} | set(dataset.left_out))
        raise DataError(f"{dataset.name}: no object of the class {missing[0]!r}; there are: {', '.join(there) or 'none'}")


def find_splits(spec: str, split_share: float | None = None) -> tuple[str, ...]:
    """Names of the splits that a data set has, and of the ``train`` and ``val`` that `open_dataset` makes with this share.

    Args:
        spec: see `open_dataset`.
        split_share: see `open_dataset`.

    Raises:
        DataError: as `open_dataset`.
    """
    if split_spec(spec)[0] == "shapes":
        return tuple(SPLITS)
    names = find_source(spec).splits
    if not names:
        return ("train", "val")
    base = base_split(names)
    if base is None or find_split("val", names) is not None:
        return names
    if find_split("train", names) == base:
        return names if split_share is None else (*names, "val")
    return ("train", "val", *names)


def has_split(spec: str, split: str) -> bool:
    """Whether a data set has a split itself.

    Raises:
        DataError: as `open_dataset`.
    """
    names = SPLITS if split_spec(spec)[0] == "shapes" else find_source(spec).splits
    return find_split(split, names) is not None


def find_source(spec: str, **options: Any) -> Source:
    """Recognise the data set of files that `spec` names, without reading its annotations.

    Raises:
        DataError: as `open_dataset`.
    """
    form, place = split_spec(spec)
    path, listing = Path(place).expanduser(), None
    form_of_file = _FORM_OF_SUFFIX.get(path.suffix) if path.is_file() else None
    if form is None and path.is_file():
        if form_of_file is None:
            raise DataError(f"{path}: a file; expected the folder of a data set, YOLO's data.yaml or COCO's JSON file")
        form = form_of_file
    elif form is None:
        listing = Listing(existing_folder(place))
        form = _recognise(place, listing)
    _check_options(form, SOURCES[form], options)
    if form == form_of_file == "yolo":
        return YoloSource(place, None, path)
    if form == form_of_file == "coco":
        folder = path.parent.parent if path.parent.name == "annotations" else path.parent
        return CocoSource(place, Listing(folder), path.relative_to(folder).as_posix())
    return SOURCES[form](place, listing or Listing(existing_folder(place)), **options)


def split_spec(spec: str) -> tuple[str | None, str]:
    """Form and place that `spec` names; the form is None if it is to be recognised.

    Raises:
        DataError: it names neither a form nor an existing file or folder.
    """
    form, colon, place = spec.partition(":")
    if form == "shapes" and (colon or not place):
        return form, place
    if form in SOURCES and colon:
        if not place:
            raise DataError(f"{spec!r} is not a data set: {EXPECTED}; the folder is missing")
        return form, place
    if spec and Path(spec).expanduser().exists():
        return None, spec
    hint = "; there is no such folder" if spec else ""
    if colon and form.lower() in (*SOURCES, "shapes"):
        hint = f"; forms are in lower case: {form.lower()}:{place}"
    raise DataError(f"{spec!r} is not a data set: {EXPECTED}{hint}")


def _recognise(place: str, listing: Listing) -> str:
    """The form of a folder.

    Raises:
        DataError: it is none of the known ones, or more than one.
    """
    found = {}
    if any(_begins_as_voc(listing.root / path) for path in listing.find(".xml")[:50]):
        found["voc"] = "XML files of VOC"
    if files := find_annotation_files(listing):
        found["coco"] = f"JSON files of COCO ({files[0]})"
    if (config := find_config(listing)) is not None:
        found["yolo"] = f"YOLO's {config.name}"
    elif not found and has_labels(listing):
        found["yolo"] = "label files of YOLO"
    if len(found) == 1:
        return next(iter(found))
    if found:
        specs = " or ".join(f"{form}:{place}" for form in found)
        raise DataError(f"{place}: has {' and '.join(found.values())}; say which to read: {specs}")
    raise DataError(f"{place}: not recognised as a data set: found {listing.describe()}\n{_NEEDS}")


def _begins_as_voc(file: Path) -> bool:
    try:
        with open_plain(file) as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return any(head.find(b"<annotation" + end) >= 0 for end in (b">", b" ", b"\n", b"\r", b"\t"))


def _check_options(form: str, opener: Callable[..., object], options: dict[str, Any]) -> None:
    signature = inspect.signature(opener).parameters.values()
    known = [parameter.name for parameter in signature if parameter.kind is parameter.KEYWORD_ONLY]
    known = list(dict.fromkeys([*known, "on_error", "classes", "split_share", "split_seed"]))
    for option in options:
        if option not in known:
            raise DataError(f"{form}: has no option {option!r}; there are: {', '.join(known)}")
