"""Where a folder keeps COCO's JSON files and their images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from nasdsl.data.errors import DataError, UnreadableImage
from nasdsl.data.layouts import (
    IMAGE_SUFFIXES,
    WHOLE,
    Listing,
    common_folder,
    join_path,
    list_few,
    parent_of,
    split_folder,
    split_in,
    split_name,
)
from nasdsl.files import open_plain

_ROBOFLOW = "_annotations.coco.json"
_PREFIX = "instances_"
_KEYS = ('"images"', '"annotations"', '"categories"', '"info"', '"licenses"')
_DETECTIONS = "detections.json"
"""What `nasdsl detect` writes, in COCO's format: no annotations."""
_HEAD = 65536
"""Bytes of a JSON file that are read to recognise it."""


def find_annotation_files(listing: Listing) -> list[str]:
    """COCO's JSON files: those of a known name, or else those that begin as COCO's do."""
    files = listing.find(".json")
    own = [path for path in files if path.rpartition("/")[2].startswith(_PREFIX)]
    roboflow = [path for path in files if path.rpartition("/")[2] == _ROBOFLOW]
    others = (path for path in files if path.rpartition("/")[2] != _DETECTIONS)
    return own or roboflow or [path for path in others if _begins_as_coco(listing.root / path)]


class CocoLayout:
    """Annotation files, their splits and their images.

    - COCO's own: ``annotations/instances_SPLIT.json``, images in ``SPLIT/``, ``images/SPLIT/`` or ``images/``. CVAT's is the
      same, with a single split ``default``.
    - Roboflow's: ``SPLIT/_annotations.coco.json``, images beside it.
    - Files of other names in COCO's format, called after their split or in a folder that is, or a single one.

    The folder of the data set may lie inside of `listing`.

    Attributes:
        listing: of the folder.
        root: folder of the data set.
        splits: names of the splits.
    """

    def __init__(self, listing: Listing, file: str | None = None) -> None:
        files = [file] if file is not None else find_annotation_files(listing)
        if not files:
            raise DataError(
                f"{listing.root}: not COCO's layout: expected annotations/instances_train.json, train/{_ROBOFLOW} or another "
                f"JSON file with images, annotations and categories; found {listing.describe()}"
            )
        self.listing = listing
        folders = sorted({parent_of(path) for path in files})
        is_own = all(path.rpartition("/")[2].startswith(_PREFIX) for path in files)
        if is_own and len(folders) > 1 and not all(map(split_folder, folders)):
            several = ", ".join(f"{listing.root}/{parent_of(folder)}".rstrip("/") for folder in folders)
            raise DataError(f"{listing.root}: holds several COCO folders, name one of them: {several}")
        common = common_folder(folders)
        beside = common.rpartition("/")[2]
        self._base = parent_of(common) if beside == "annotations" or split_name(beside) else common
        self.root = listing.root / self._base
        self._files = _by_split(files)
        self.splits = () if list(self._files) == [WHOLE] else tuple(sorted(self._files))

    def file(self, split: str | None) -> str:
        """Path of the annotation file of a split."""
        return self._files[WHOLE if split is None else split]

    def missing_split(self, split: str) -> str:
        """See `Source.missing_split`."""
        if all(path.rpartition("/")[2].startswith(_PREFIX) for path in self._files.values()):
            return f"{self.root}/annotations/{_PREFIX}{split}.json: no such split"
        return f"{self.root}: no such split as {split!r}"

    def image_finder(self, split: str | None) -> ImageFinder:
        """Finder of the images of a split."""
        names = [] if split is None else list(dict.fromkeys([split, split_name(split) or split]))
        if split in ("train", "val"):
            names.append(f"{split}2017")
        others = [other for other in self._files if other != split]
        return ImageFinder(self.listing, self._base, parent_of(self.file(split)), names, others)


class ImageFinder:
    """Finds the images of an annotation file.

    Args:
        base: folder of the data set, relative to the listing.
        beside: folder of the annotation file.
        names: names that the folder of the images may have.
        others: names of the other splits, whose images are not taken.
    """

    def __init__(self, listing: Listing, base: str, beside: str, names: Sequence[str], others: Sequence[str]) -> None:
        self._listing = listing
        self._others = frozenset(others)
        usual = [*names, *(f"images/{name}" for name in names), "images"]
        more = [*(f"{name}/images" for name in names), ""]
        near = [join_path(base, name) for name in usual]
        if beside.rpartition("/")[2] != "annotations":
            near = [beside, join_path(beside, "images"), *near]
        folders = list(dict.fromkeys([*near, *(join_path(base, name).rstrip("/") for name in more)]))
        self._folders = [folder for folder in folders if listing.has_folder(folder)]
        present = [name for name in usual if listing.has_folder(join_path(base, name))]
        self._searched = f"looked in {', '.join(present)}" if present else f"there is no folder {', '.join(usual)}"
        self._expected = join_path(base, names[0] if names else "images")

    def find(self, name: str) -> str:
        """Path of an image.

        The usual folders are searched first, then all others but those of other splits, for a single file of this name.

        Args:
            name: as in the annotation file, with ``/``.

        Raises:
            UnreadableImage: there is no such file, or more than one.
        """
        for folder in self._folders:
            path = join_path(folder, name)
            if path in self._listing.files:  # far faster than asking the system, and COCO has 118,287 of them
                return f"{self._listing.root}/{path}"
        elsewhere = self._by_name.get(name.rpartition("/")[2], [])
        found = [path for path in elsewhere if path.endswith(f"/{name}")] or elsewhere
        if len(found) == 1:
            return f"{self._listing.root}/{found[0]}"
        if len(found) > 1:
            raise UnreadableImage(f"{self._listing.root}/{name}", f"there are several files of this name: {list_few(found)}")
        raise UnreadableImage(f"{self._listing.root}/{self._expected}/{name}", f"no such file ({self._searched})")

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Paths of all images that may be meant, by their names without folder."""
        found: dict[str, list[str]] = {}
        for path in self._listing.find(*IMAGE_SUFFIXES):
            folder, _, name = path.rpartition("/")
            if not self._others.intersection(folder.split("/")):
                found.setdefault(name, []).append(path)
        return found


def _by_split(files: Sequence[str]) -> dict[str, str]:
    """Files by the names of their splits."""
    if len(files) == 1 and not files[0].rpartition("/")[2].startswith(_PREFIX):
        return {_split_of(files[0]) or WHOLE: files[0]}
    named: dict[str, list[str]] = {}
    for path in files:
        named.setdefault(_split_of(path) or _stem(path), []).append(path)
    # Several files of one split are told apart by their own names.
    return {(name if len(paths) == 1 else path.removesuffix(".json")): path for name, paths in named.items() for path in paths}


def _split_of(path: str) -> str | None:
    folder, _, name = path.rpartition("/")
    if name.startswith(_PREFIX):
        return _stem(path).removeprefix(_PREFIX)
    return (None if name == _ROBOFLOW else split_in(_stem(path))) or split_folder(folder)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")


def _begins_as_coco(file: Path) -> bool:
    """Whether a JSON file is an object with one of COCO's keys near its beginning."""
    try:
        with open_plain(file) as stream:
            head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "ignore").lstrip()
    except OSError:
        return False
    return head.startswith("{") and any(key in head for key in _KEYS)
