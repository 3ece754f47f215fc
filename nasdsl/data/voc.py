"""PASCAL VOC folders: Annotations/*.xml, JPEGImages, ImageSets/Main/SPLIT.txt.

Layout and coordinates: the development kit of VOC 2007-2012, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
VOC counts pixels from 1, and a box has its first and last pixel; so x1 = xmin - 1, x2 = xmax here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nasdsl.data.dataset import Dataset, Record, RecordBuilder, Size
from nasdsl.data.errors import DataError, NoSplit, Skipped, UnreadableImage
from nasdsl.data.images import image_size
from nasdsl.data.layouts import describe_layout, existing_folder, find_files, join, voc_folders

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor"
).split()
"""VOC's twenty classes in their usual order, which is the alphabetical one."""
_VOC_DATABASE = re.compile(r"The VOC20\d\d Database")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class _Malformed(ValueError):
    """An annotation cannot be used; the message says why."""


def open_voc(
    place: str | Path,
    split: str,
    *,
    on_error: str = "skip",
    classes: Sequence[str] | None = None,
    one_based: bool = True,
) -> Dataset:
    """Open a VOC folder, or a folder with a single VOC folder in it (VOCdevkit/VOC2007).

    Image ids are the file stems; category ids are label + 1. Boxes with xmin >= xmax or ymin >= ymax are skipped: they are
    slips of the mouse, not objects of one pixel.

    Args:
        split: name of a file in ImageSets/Main: train, val, trainval, test, ….
        classes: class names by label, such as `VOC_CLASSES`; objects of other classes are left out (`Dataset.left_out`).
            None: the names that occur in any annotation of the folder, sorted; for a part of VOC itself, `VOC_CLASSES`
            (see `_class_names`).
        one_based: pixels are counted from 1, as in VOC. False: from 0, as some tools do.

    Raises:
        BrokenData: an image or box is broken, and ``on_error="refuse"``.
        DataError: there is no such folder or split, or no usable image.
    """
    root = _find_root(existing_folder(place))
    stems = _read_split(root, split)
    names, notes = (list(classes), []) if classes is not None else _class_names(root)
    if len(set(names)) != len(names) or not names:
        raise DataError(f"{root}: the classes are {names!r}; expected at least one name, each once")
    reader = _Reader(root, {name: label for label, name in enumerate(names)}, 1.0 if one_based else 0.0)
    for stem in stems:
        reader.read_annotation(stem)
    return Dataset(
        f"voc:{place} ({split})",
        names,
        range(1, len(names) + 1),
        reader.records,
        skipped=reader.skipped,
        on_error=on_error,
        clipped=reader.clipped,
        left_out=reader.left_out,
        notes=notes,
    )


def _find_root(place: Path) -> Path:
    folders = voc_folders(place)
    if len(folders) == 1:
        return folders[0]
    if folders:
        raise DataError(f"{place}: holds several VOC folders, name one of them: " + ", ".join(map(str, folders)))
    expected = "Annotations, JPEGImages and ImageSets/Main in it"
    raise DataError(f"{place}: not a VOC folder: expected {expected}, found {describe_layout(place)}")


def _read_split(root: Path, split: str) -> list[str]:
    """File stems of a split; lines may have a second column, as in the lists for each class."""
    folder = root / "ImageSets" / "Main"
    file = folder / f"{split}.txt"
    if not file.is_file():
        splits = sorted(path.stem for path in folder.glob("*.txt"))
        if not splits:
            lists = find_files(root, "ImageSets/*/*.txt", "ImageSets/*.txt", "*.txt")
            found = f"; found {join(lists)} instead" if lists else ""
            raise DataError(
                f"{file}: no such file; expected the names of the split's pictures, without suffix, one a line{found}"
            )
        raise NoSplit(f"{file}: no such split; there are: {', '.join(splits[:20])}{', …' if len(splits) > 20 else ''}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    # Names may contain blanks: only a last column of 1, 0 or -1 is not part of them.
    return [re.sub(r"\s+(1|0|-1)$", "", line.strip()) for line in lines if line.strip()]


def _class_names(root: Path) -> tuple[list[str], list[str]]:
    """Class names by label, and notes for `Dataset.notes`.

    All annotations of the folder are read, so that every split has the same labels. The classes are the names that occur,
    sorted; in all of VOC, these are `VOC_CLASSES`. A part of VOC, such as a few hundred of its images, also gets
    `VOC_CLASSES`, so that it has the labels of the whole. It is recognized by at least half of the twenty names, no other
    names, and VOC as the source of every annotation with objects (``<database>The VOC2007 Database``). The name of the
    folder, or a few of the twenty names, are not enough: other data sets often have both.
    """
    found: set[str] = set()
    from_voc = True
    for file in (root / "Annotations").glob("*.xml"):
        try:
            element = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError, LookupError, ValueError):
            continue  # reported where its split is read
        names = {(thing.findtext("name") or "").strip() for thing in element.iterfind("object")} - {""}
        if names:
            found |= names
            from_voc = from_voc and _VOC_DATABASE.fullmatch((element.findtext("source/database") or "").strip()) is not None
    if not found:
        raise DataError(f"{root / 'Annotations'}: no object with a name in any *.xml")
    missing = [name for name in VOC_CLASSES if name not in found]
    if not missing or not from_voc or not found <= set(VOC_CLASSES) or 2 * len(found) < len(VOC_CLASSES):
        return sorted(found), []
    return list(VOC_CLASSES), [f"classes: the 20 of VOC, as the annotations are VOC's; without objects: {', '.join(missing)}"]


class _Reader:
    """Reads annotation files one by one.

    Attributes:
        records: of the usable images.
        skipped, clipped, left_out: see `Dataset`.
    """

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
        self._image_names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def read_annotation(self, stem: str) -> None:
        """Read the annotation of an image, or skip the image."""
        file = self._root / "Annotations" / f"{stem}.xml"
        try:
            if Path(stem).is_absolute() or ".." in Path(stem).parts:
                raise _Malformed("the split names a file outside of the folder")
            if stem in self._seen:
                raise _Malformed("the split names it twice")
            self._seen.add(stem)
            element = _parse(file)
            path = self._image_file(stem, element)
            builder = RecordBuilder(stem, str(path), _size(element) or image_size(path))
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, stem))
            return
        except _Malformed as error:
            self.skipped.append(Skipped(str(file), str(error), stem))
            return
        for number, thing in enumerate(element.iterfind("object"), start=1):
            self._read_object(builder, str(file), number, thing)
        if builder.clipped:
            self.clipped[str(file)] = builder.clipped
        self.skipped += builder.skipped
        self.records.append(builder.build())

    def _read_object(self, builder: RecordBuilder, file: str, number: int, element: Any) -> None:
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
            builder.skip(file, f"{what}: {error}")
            return
        # xmax and ymax are the last pixels in the box, so its edges are one further.
        box = [xmin - self._first_pixel, ymin - self._first_pixel, xmax + 1 - self._first_pixel, ymax + 1 - self._first_pixel]
        area = (box[2] - box[0]) * (box[3] - box[1])
        difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
        builder.add(file, what, box, self._labels[name], crowd=False, difficult=difficult, area=area)

    def _image_file(self, stem: str, element: Any) -> Path:
        """Path of the image file, by the stem first: <filename> is often wrong after renaming."""
        folder = self._root / "JPEGImages"
        written = Path((element.findtext("filename") or "").strip().replace("\\", "/")).name
        candidates = [stem + Path(written).suffix, *(stem + suffix for suffix in _SUFFIXES)]
        candidates += [stem + suffix.upper() for suffix in _SUFFIXES] + [written]
        for name in candidates:
            if name in self._image_names and Path(name).suffix:
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
    """(H, W), or None where it is missing or 0, as some tools write it."""
    if element.find("size") is None:
        return None
    height, width = int(_number(element, "size/height")), int(_number(element, "size/width"))
    return (height, width) if height > 0 and width > 0 else None
