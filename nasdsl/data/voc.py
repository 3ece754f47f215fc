"""PASCAL VOC: an XML file for each image, in one of many layouts of folders.

Coordinates and layout: the development kit of VOC 2007-2012, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
VOC counts pixels from 1, and a box has its first and last pixel; so x1 = xmin - 1, x2 = xmax here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nasdsl.data.dataset import RecordBuilder, Size
from nasdsl.data.errors import DataError, Skipped, UnreadableImage
from nasdsl.data.images import image_size
from nasdsl.data.layouts import Listing
from nasdsl.data.source import Contents, Source, choose_classes
from nasdsl.data.voc_layout import VocEntry, VocLayout
from nasdsl.files import read_bytes

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor"
).split()
"""VOC's twenty classes in their usual order, which is the alphabetical one."""


class _Malformed(ValueError):
    """An annotation cannot be used; the message says why."""


class VocSource(Source):
    """XML files and images, in the layouts that `VocLayout` describes.

    Image ids are the file stems, with folders below the common one; category ids are label + 1. The classes are the names that
    occur in any annotation of the folder, sorted, so that every split has the same labels; classes that are asked for
    (such as `VOC_CLASSES`) need not occur. Boxes with xmin >= xmax or ymin >= ymax are skipped: they are slips of the mouse,
    not objects of one pixel.

    Args:
        one_based: pixels are counted from 1, as in VOC. False: from 0, as some tools do.

    Raises:
        DataError: there are no XML files, or several VOC folders.
    """

    form = "voc"

    def __init__(self, place: str, listing: Listing, *, one_based: bool = True) -> None:
        self.place = place
        self._layout = VocLayout(listing)
        self._first_pixel = 1.0 if one_based else 0.0
        self.splits = self._layout.splits

    def missing_split(self, split: str) -> str:
        return self._layout.missing_split(split)

    def read(self, split: str | None, classes: Sequence[str] | None) -> Contents:
        """See `Source.read`."""
        names = choose_classes(self.name, None, self._class_names() if classes is None else classes)
        reader = _Reader({name: label for label, name in enumerate(names)}, self._first_pixel)
        for entry in self._layout.entries(split):
            reader.read_annotation(entry)
        notes = self._layout.notes(split)
        return Contents(names, range(1, len(names) + 1), reader.images, reader.skipped, notes)

    def _class_names(self) -> list[str]:
        found: set[str] = set()
        for file in self._layout.annotation_files():
            try:
                element = _parse(file)
            except _Malformed:
                continue  # reported where its split is read
            found |= {(thing.findtext("name") or "").strip() for thing in element.iterfind("object")}
        found.discard("")
        if not found:
            raise DataError(f"{self._layout.annotations}: no object with a name in any *.xml")
        return sorted(found)


class _Reader:
    """Reads annotation files one by one.

    Attributes:
        images: the usable ones.
        skipped: images that cannot be used.
    """

    def __init__(self, labels: dict[str, int], first_pixel: float) -> None:
        self.images: list[RecordBuilder] = []
        self.skipped: list[Skipped] = []
        self._labels = labels
        self._first_pixel = first_pixel

    def read_annotation(self, entry: VocEntry) -> None:
        """Read the annotation of an image, or skip the image."""
        file = str(entry.annotation)
        try:
            if entry.problem is not None:
                raise _Malformed(entry.problem)
            element = _parse(entry.annotation)
            path = entry.find_image(Path((element.findtext("filename") or "").strip().replace("\\", "/")).name)
            builder = RecordBuilder(entry.id, path, _size(element) or image_size(path), file)
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, entry.id))
            return
        except _Malformed as error:
            self.skipped.append(Skipped(file, str(error), entry.id))
            return
        for number, thing in enumerate(element.iterfind("object"), start=1):
            self._read_object(builder, file, number, thing)
        self.images.append(builder)

    def _read_object(self, builder: RecordBuilder, file: str, number: int, element: Any) -> None:
        what = f"object {number}"
        try:
            name = _name(element)
            what = f"object {number} ({name})"
            if name not in self._labels:
                builder.leave_out(name)
                return
            xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
            if xmax <= xmin or ymax <= ymin:
                raise _Malformed(f"xmin {xmin:g}, xmax {xmax:g}, ymin {ymin:g}, ymax {ymax:g}: no box")
        except _Malformed as error:
            builder.skip(file, f"{what}: {error}")
            return
        # xmax and ymax are the last pixels in the box, so its edges are one further.
        box = [xmin - self._first_pixel, ymin - self._first_pixel, xmax + 1 - self._first_pixel, ymax + 1 - self._first_pixel]
        area = (box[2] - box[0]) * (box[3] - box[1])
        difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
        builder.add(file, what, box, self._labels[name], crowd=False, difficult=difficult, area=area)


def _parse(file: Path) -> Any:
    try:
        element = ElementTree.fromstring(read_bytes(file))
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
    """(H, W), or None where it is missing or 0, as some tools write it."""
    if element.find("size") is None:
        return None
    height, width = int(_number(element, "size/height")), int(_number(element, "size/width"))
    return (height, width) if height > 0 and width > 0 else None
