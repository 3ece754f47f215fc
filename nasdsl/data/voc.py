"""PASCAL VOC folders: Annotations/*.xml, JPEGImages, ImageSets/Main/SPLIT.txt.

Layout and coordinates: the development kit of VOC 2007-2012, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
Pixels are counted from 1 there, and a box names its first and last pixel; so x1 = xmin - 1, x2 = xmax here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nasdsl.data.dataset import Annotation, Dataset, Record, Size
from nasdsl.data.errors import DataError, NoSplit, Skipped, UnreadableImage
from nasdsl.data.images import image_size

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor"
).split()
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class _Malformed(ValueError):
    """The reason why an annotation file cannot be used."""


def open_voc(
    place: str | Path,
    split: str,
    *,
    on_error: str = "skip",
    classes: Sequence[str] | None = None,
    one_based: bool = True,
) -> Dataset:
    """A VOC folder, or one that holds a single VOC folder (VOCdevkit/VOC2007).

    Image ids are the file stems; category ids are label + 1. Boxes with xmin >= xmax or ymin >= ymax as written are
    slips of the mouse, not objects of one pixel: they are skipped by name.

    Args:
        split: the name of a file in ImageSets/Main: train, val, trainval, test, ….
        classes: names in the order of their labels; objects of other names are left out (`Dataset.left_out`).
            None: the 20 of VOC in their usual order where no other name occurs in the folder, else all names in it, sorted.
        one_based: pixels counted from 1, as VOC does. False: from 0, as some tools write.

    Raises:
        BrokenData: something in it is broken, and ``on_error="refuse"``.
        DataError: no such folder or split, or nothing usable is in it.
    """
    root = _root(Path(place))
    ids = _split(root, split)
    names = list(classes) if classes is not None else _names(root)
    if len(set(names)) != len(names) or not names:
        raise DataError(f"{root}: classes={names!r}: expected at least one name, each once")
    reader = _Reader(root, {name: label for label, name in enumerate(names)}, 1.0 if one_based else 0.0)
    for stem in ids:
        reader.take(stem)
    return Dataset(
        f"voc:{place} ({split})",
        names,
        range(1, len(names) + 1),
        reader.records,
        skipped=reader.skipped,
        on_error=on_error,
        clipped=reader.clipped,
        left_out=reader.left_out,
    )


def _root(place: Path) -> Path:
    if not place.is_dir():
        raise DataError(f"{place}: no such folder")
    if (place / "Annotations").is_dir():
        return place
    inside = sorted(folder.parent for folder in [*place.glob("*/Annotations"), *place.glob("*/*/Annotations")])
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise DataError(f"{place}: holds several VOC folders, name one of them: " + ", ".join(map(str, inside)))
    raise DataError(f"{place}: not a VOC folder: expected Annotations, JPEGImages and ImageSets/Main in it")


def _split(root: Path, split: str) -> list[str]:
    """The picture names of a split; lines may carry a second column, as those of the per-class lists do."""
    folder = root / "ImageSets" / "Main"
    file = folder / f"{split}.txt"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.txt"))[:20]) or "none"
        raise NoSplit(f"{file}: no such split; there are: {there}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    # A name may hold blanks itself; only a last column of 1, 0 or -1 is not part of it.
    return [re.sub(r"\s+(1|0|-1)$", "", line.strip()) for line in lines if line.strip()]


def _names(root: Path) -> list[str]:
    """Over all the annotations in the folder, so that every split has the same labels."""
    found: set[str] = set()
    for file in (root / "Annotations").glob("*.xml"):
        try:
            names = {
                (element.findtext("name") or "").strip() for element in ElementTree.parse(file).getroot().iterfind("object")
            }
        except (OSError, ElementTree.ParseError, LookupError, ValueError):
            continue  # it is reported where its split is read
        found |= names - {""}
    if not found:
        raise DataError(f"{root / 'Annotations'}: no object with a name in any *.xml")
    return VOC_CLASSES if found <= set(VOC_CLASSES) else sorted(found)


class _Reader:
    """Takes one annotation after another."""

    def __init__(self, root: Path, labels: dict[str, int], first_pixel: float) -> None:
        self.records: list[Record] = []
        self.skipped: list[Skipped] = []
        self.clipped: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()
        self._root = root
        self._labels = labels
        self._first_pixel = first_pixel
        self._seen: set[str] = set()
        folder = root / "JPEGImages"
        self._pictures = {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def take(self, stem: str) -> None:
        file = self._root / "Annotations" / f"{stem}.xml"
        try:
            if Path(stem).is_absolute() or ".." in Path(stem).parts:
                raise _Malformed("the split names a file outside of the folder")
            if stem in self._seen:
                raise _Malformed("the split names it twice")
            self._seen.add(stem)
            element = _parse(file)
            picture = self._picture(stem, element)
            annotation = Annotation(stem, str(picture), _size(element) or image_size(picture))
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, stem))
            return
        except _Malformed as error:
            self.skipped.append(Skipped(str(file), str(error), stem))
            return
        for number, thing in enumerate(element.iterfind("object"), start=1):
            self._take_object(annotation, str(file), number, thing)
        if annotation.clipped:
            self.clipped[str(file)] = annotation.clipped
        self.skipped += annotation.skipped
        self.records.append(annotation.record())

    def _take_object(self, annotation: Annotation, file: str, number: int, element: Any) -> None:
        what = f"object {number}"
        try:
            name = _name(element)
            what = f"object {number} ({name})"
            if name not in self._labels:
                self.left_out[name] += 1
                return
            xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
            if xmax <= xmin or ymax <= ymin:
                raise _Malformed(f"xmin {xmin:g}, xmax {xmax:g}, ymin {ymin:g}, ymax {ymax:g}: no box")
        except _Malformed as error:
            annotation.skip(file, f"{what}: {error}")
            return
        # Of pixels counted from 0, the last one ends a pixel later too.
        box = [xmin - self._first_pixel, ymin - self._first_pixel, xmax + 1 - self._first_pixel, ymax + 1 - self._first_pixel]
        area = (box[2] - box[0]) * (box[3] - box[1])
        difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
        annotation.add(file, what, box, self._labels[name], crowd=False, difficult=difficult, area=area)

    def _picture(self, stem: str, element: Any) -> Path:
        """By the picture set's name first: <filename> is often wrong after renaming."""
        folder = self._root / "JPEGImages"
        written = Path((element.findtext("filename") or "").strip().replace("\\", "/")).name
        candidates = [stem + Path(written).suffix, *(stem + suffix for suffix in _SUFFIXES)]
        candidates += [stem + suffix.upper() for suffix in _SUFFIXES] + [written]
        for name in candidates:
            if name in self._pictures and Path(name).suffix:
                return folder / name
        raise UnreadableImage(folder / (stem + (Path(written).suffix or ".jpg")), "no such file")


def _parse(file: Path) -> Any:
    try:
        element = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise _Malformed("no such annotation") from None
    except OSError as error:
        raise _Malformed(f"cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: unknown encodings
        raise _Malformed(f"not well-formed XML: {error}") from None
    if element.tag != "annotation":
        raise _Malformed(f"<{element.tag}> where <annotation> was expected")
    return element


def _name(element: Any) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise _Malformed("no <name>")
    return str(name)


def _number(element: Any, path: str) -> float:
    text = element.findtext(path)
    if text is None:
        raise _Malformed(f"no <{path}>")
    try:
        value = float(text)
    except ValueError:
        raise _Malformed(f"<{path}> is {text.strip()[:40]!r}, not a number") from None
    if not math.isfinite(value):
        raise _Malformed(f"<{path}> is {value}, not a finite number")
    return value


def _size(element: Any) -> Size | None:
    """(H, W), or None where it is missing or 0, as some tools write."""
    if element.find("size") is None:
        return None
    height, width = int(_number(element, "size/height")), int(_number(element, "size/width"))
    return (height, width) if height > 0 and width > 0 else None
