"""YOLO: a text file for each image, a line for each box: its class, and its centre and size relative to the image.

Format: https://docs.ultralytics.com/datasets/detect/. A line with more numbers is an outline, as for segmentation or oriented
boxes, and its box is the smallest one around it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from itertools import islice
from pathlib import Path

from nasdsl.data.dataset import RecordBuilder
from nasdsl.data.errors import DataError, Skipped, UnreadableImage
from nasdsl.data.images import image_size
from nasdsl.data.layouts import IMAGE_SUFFIXES, Listing, common_ids, inside, join_path, parent_of, split_folder, split_name
from nasdsl.data.source import Contents, Source, choose_classes
from nasdsl.data.yolo_config import YoloConfig, find_config, find_names, read_config
from nasdsl.files import read_text

_TOLERANCE = 0.01
"""Coordinates may be over the edge of the image by so much of its side."""


class YoloSource(Source):
    """Images and label files, with a ``data.yaml`` or without.

    The label file of an image is of the same name, in a folder ``labels`` instead of ``images``, or beside the image where that
    is in no such folder. Images without a label file, or with an empty one, have no objects. Without a ``data.yaml``, folders
    that are called after splits are the splits, and the names of the classes are in ``classes.txt`` (or ``obj.names``).

    Image ids are the paths below the images' common folder, without suffix; category ids are the numbers in the files. Only
    classes of the data set can be asked for.

    Raises:
        DataError: there are no labels, or ``data.yaml`` cannot be used.
    """

    form = "yolo"

    def __init__(self, place: str, listing: Listing | None, config: Path | None = None) -> None:
        self.place = place
        if config is None and listing is not None:
            config = find_config(listing)
        self._config: YoloConfig | None = read_config(config) if config is not None else None
        self._notes = list(self._config.notes) if self._config is not None else []
        root = self._config.root if self._config is not None else None
        if listing is None or (root is not None and listing.root.resolve() != root.resolve()):
            assert root is not None
            listing = Listing(root)
        self._listing = listing
        self._parts = self._named_splits() if self._config is not None else self._folder_splits()
        self.splits = tuple(name for name in self._parts if name)

    def missing_split(self, split: str) -> str:
        where = self._listing.root if self._config is None else self._config.file
        return f"{where}: no such split as {split!r}"

    def read(self, split: str | None, classes: Sequence[str] | None) -> Contents:
        """See `Source.read`."""
        names, notes = self._class_names()
        wanted = choose_classes(self.name, names, classes)
        reader = _Reader(self._listing, names, {name: label for label, name in enumerate(wanted)})
        paths = list(self._images(self._parts[split or ""], reader.skipped))
        for id, path in zip(common_ids(paths), paths, strict=True):
            reader.read_image(id, path)
        if reader.without_file:
            notes.append(f"images without a label file, which have no objects: {reader.without_file}")
        if alone := _labels_without_image(self._listing, reader.label_folders):
            notes.append(f"label files without an image, not used: {len(alone)}, such as {self._listing.root}/{alone[0]}")
        return Contents(wanted, [names.index(name) for name in wanted], reader.images, reader.skipped, [*self._notes, *notes])

    def _named_splits(self) -> dict[str, list[str]]:
        """Paths of each split of the ``data.yaml``, relative to the listing."""
        assert self._config is not None
        parts: dict[str, list[str]] = {}
        missing = []
        for name, paths in self._config.splits.items():
            found = [self._resolve(path) for path in paths]
            if None not in found:
                parts[name] = [path for path in found if path is not None]
            else:
                lost = paths[found.index(None)]
                hint = " (only what is in `path:` is read)" if Path(lost).exists() else ""
                missing.append(f"{self._config.file}: {name}: {lost} is not in {self._listing.root}{hint}")
        if not parts:
            raise DataError(
                "; ".join(missing) + f"; expected folders of images, or lists of them; found {self._listing.describe()}"
            )
        self._notes += missing
        return parts

    def _resolve(self, path: str) -> str | None:
        """A path of a ``data.yaml`` or of a list, relative to the listing; None if it is no file or folder in it.

        What leads out of the folder is taken for a path on another machine, and looked for by its last parts: Roboflow writes
        ``../train/images`` for ``train/images``.
        """
        slashed = path.strip().replace("\\", "/")
        root = self._listing.root
        if slashed.startswith("/"):
            for base in (str(root), os.path.abspath(root), os.path.realpath(root)):
                if slashed == base or slashed.startswith(base.rstrip("/") + "/"):
                    slashed = slashed[len(base.rstrip("/")) :].strip("/")
                    break
        parts = [part for part in slashed.split("/") if part not in ("", ".")]
        lexical = inside(slashed)
        if lexical is not None and (lexical in self._listing.files or self._listing.has_folder(lexical)):
            return lexical
        above = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        if ".." in parts[above:]:
            return None
        for start in range(max(1, above), len(parts)):
            last = parts[start:]
            shorter = "/".join(last)
            # `images` alone may be any folder of images; what is left of `..` is not.
            tells = start == above or len(last) > 1 or split_name(shorter) is not None
            if shorter in self._listing.files or (tells and self._listing.has_folder(shorter)):
                return shorter
        return None

    def _folder_splits(self) -> dict[str, list[str]]:
        """Folders of images by split, where there is no ``data.yaml``."""
        images = self._listing.images
        labels = {parent_of(path) for path in self._listing.find(".txt")}
        known = {_above_images(folder) for folder in images if _label_folder(folder) in labels} - {None}
        # Folders of images without objects belong to those with some.
        folders = [folder for folder in images if _above_images(folder) in known]
        if not known:
            folders = [folder for folder in images if folder in labels and self._has_labels_beside(folder)]
        if not folders:
            raise DataError(
                f"{self._listing.root}: not YOLO's layout: expected data.yaml, or folders images and labels with a .txt for "
                f"each image; found {self._listing.describe()}"
            )
        lists = {name[:-4]: [name] for name in self._listing.folders[""] if name.endswith(".txt") and split_name(name[:-4])}
        if lists:
            return lists
        parts: dict[str, list[str]] = {}
        for folder in folders:
            parts.setdefault(split_folder(folder) or "", []).append(folder)
        if len(parts) > 1 and "" in parts:
            left = ", ".join(folder or "." for folder in parts.pop(""))
            self._notes.append(f"images in no folder of a split, not used: {left}")
        return {name: _outermost(found) for name, found in sorted(parts.items())}

    def _has_labels_beside(self, folder: str) -> bool:
        stems = {os.path.splitext(name)[0] for name in self._listing.images[folder]}
        return any(os.path.splitext(name)[0] in stems for name in self._listing.folders[folder] if name.endswith(".txt"))

    def _images(self, paths: Sequence[str], skipped: list[Skipped]) -> Iterator[str]:
        """Paths of the images of a split, each once: files, those in folders, and those that lists name."""
        seen: set[str] = set()
        for path in paths:
            if self._listing.has_folder(path):
                found: Iterator[str] = iter(self._listing.find(*IMAGE_SUFFIXES, below=path))
            elif path.lower().endswith(IMAGE_SUFFIXES):
                found = iter([path])
            else:
                found = self._listed(path, skipped)
            for image in found:
                if image not in seen:
                    seen.add(image)
                    yield image

    def _listed(self, path: str, skipped: list[Skipped]) -> Iterator[str]:
        """The images that a file names, one a line; relative names are relative to the file or to the data set's folder."""
        file = self._listing.root / path
        try:
            lines = read_text(file).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read as a list of images: {error}") from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not line:
                continue
            beside = join_path(parent_of(path), line.replace("\\", "/").removeprefix("./"))
            image = beside if beside in self._listing.files else self._resolve(line)
            if image is not None and image in self._listing.files:
                yield image
            else:
                skipped.append(Skipped(f"{file}: line {number}", f"{line[:200]!r} is no file in {self._listing.root}", line))

    def _class_names(self) -> tuple[list[str], list[str]]:
        """Class names by number, and a note if there are none."""
        if self._config is not None and self._config.names is not None:
            return self._config.names, []
        if (names := find_names(self._listing)) is not None:
            return names, []
        highest = -1
        for part in self._parts.values():
            for path in self._images(part, []):
                highest = max(highest, _highest_class(self._listing, path))
        if highest < 0:
            raise DataError(f"{self.name}: no names of classes: expected names in data.yaml, or a file classes.txt")
        note = "no file names the classes (data.yaml or classes.txt): they are called class_0 and so on"
        return [f"class_{number}" for number in range(min(highest, 9999) + 1)], [note]


class _Reader:
    """Reads the label files of images.

    Attributes:
        images: the usable ones.
        skipped: images that cannot be used.
        without_file: number of images without a label file.
        label_folders: folders with labels alone that were read from.
    """

    def __init__(self, listing: Listing, names: Sequence[str], labels: dict[str, int]) -> None:
        self.images: list[RecordBuilder] = []
        self.skipped: list[Skipped] = []
        self.without_file = 0
        self.label_folders: set[str] = set()
        self._listing = listing
        self._names = names
        self._labels = [labels.get(name) for name in names]

    def read_image(self, id: str, path: str) -> None:
        """Read the labels of an image, or skip the image."""
        label_path = _label_path(self._listing, path)
        file = f"{self._listing.root}/{path}"
        try:
            lines = [] if label_path is None else _lines(self._listing.root / label_path)
            source = "" if label_path is None else f"{self._listing.root}/{label_path}"
            builder = RecordBuilder(id, file, image_size(file), source)
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, id))
            return
        self.without_file += label_path is None
        if label_path is not None and parent_of(label_path) != parent_of(path):
            self.label_folders.add(parent_of(label_path))
        for number, line in enumerate(lines, start=1):
            if line and not line.isspace():
                self._read_line(builder, f"{source}: line {number}", line)
        self.images.append(builder)

    def _read_line(self, builder: RecordBuilder, source: str, line: str) -> None:
        try:
            label, box = parse_line(line)
        except ValueError as error:
            builder.skip(source, str(error))
            return
        if label >= len(self._names):
            last = len(self._names) - 1
            builder.skip(source, f"the class is {label}; expected 0 to {last} ({self._names[0]} to {self._names[last]})")
            return
        wanted = self._labels[label]
        if wanted is None:
            builder.leave_out(self._names[label])
            return
        height, width = builder.size
        x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        area = (x2 - x1) * (y2 - y1)
        builder.add(source, self._names[label], [x1, y1, x2, y2], wanted, crowd=False, difficult=False, area=area)


def parse_line(line: str) -> tuple[int, tuple[float, float, float, float]]:
    """Class and box (xyxy, relative to the image) of a line.

    Raises:
        ValueError: the line is not usable; the message says why.
    """
    words = line.split()
    try:
        first, *values = map(float, words)
    except ValueError:
        raise ValueError(f"{line.strip()[:60]!r}: expected numbers: class, x, y, width, height") from None
    if not all(map(math.isfinite, (first, *values))):
        raise ValueError(f"{line.strip()[:60]!r}: not a finite number")
    if not first.is_integer() or first < 0:
        raise ValueError(f"the class is {words[0]}; expected a whole number from 0")
    if len(values) < 4 or (len(values) > 4 and (len(values) % 2 or len(values) < 6)):
        hint = "; a last one for the score belongs to detections, not to labels" if len(values) == 5 else ""
        raise ValueError(
            f"{len(words)} numbers; expected 5 (class, x, y, width, height), or the class and three or more corners{hint}"
        )
    wrong = next((value for value in values if not -_TOLERANCE <= value <= 1 + _TOLERANCE), None)
    if wrong is not None:
        raise ValueError(f"{wrong:g} among the numbers of the box; expected 0 to 1, relative to the image, not pixels")
    if len(values) == 4:
        x, y, width, height = values
        if width <= 0 or height <= 0:
            raise ValueError(f"the box is {width:g} wide and {height:g} high")
        return int(first), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return int(first), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


def _lines(file: Path) -> list[str]:
    try:
        return read_text(file).splitlines()
    except OSError as error:
        raise UnreadableImage(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnreadableImage(file, "not a text file of labels") from None


def _label_folder(folder: str) -> str:
    """The folder of the labels of a folder of images: ``labels`` for the last ``images``, or the same folder."""
    before, found, after = f"/{folder}/".rpartition("/images/")
    return f"{before}/labels/{after}".strip("/") if found else folder


def _above_images(folder: str) -> str | None:
    """The folder that the last ``images`` of a path lies in; None if there is none."""
    before, found, _ = f"/{folder}/".rpartition("/images/")
    return before if found else None


def _label_path(listing: Listing, path: str) -> str | None:
    """The label file of an image; None if it has none."""
    folder, _, name = path.rpartition("/")
    stem = os.path.splitext(name)[0] + ".txt"
    label = join_path(_label_folder(folder), stem)
    if label in listing.files:
        return label
    # A folder `images` without `labels` may have both kinds of files.
    beside = join_path(folder, stem)
    return beside if beside in listing.files and not listing.has_folder(_label_folder(folder)) else None


def _labels_without_image(listing: Listing, folders: Set[str]) -> list[str]:
    """Label files in these folders that belong to no image, of this split or another: the image is missing."""
    used = {_label_path(listing, image) for image in listing.find(*IMAGE_SUFFIXES)} if folders else set()
    found = (path for path in listing.find(".txt") if parent_of(path) in folders and path not in used)
    return sorted(path for path in found if path.rpartition("/")[2] != "classes.txt")


def _highest_class(listing: Listing, path: str) -> int:
    """The highest class number in the labels of an image, without broken lines; -1 if there is none."""
    label_path = _label_path(listing, path)
    highest = -1
    with suppress(UnreadableImage):  # reported where its split is read
        for line in [] if label_path is None else _lines(listing.root / label_path):
            with suppress(ValueError):
                highest = max(highest, parse_line(line)[0])
    return highest


def _outermost(folders: Sequence[str]) -> list[str]:
    """Those of the folders that lie in no other of them."""
    chosen: list[str] = []
    for folder in sorted(folders):
        if not any(folder.startswith(f"{above}/") or not above for above in chosen):
            chosen.append(folder)
    return chosen


def has_labels(listing: Listing) -> bool:
    """Whether a folder looks like YOLO's without a ``data.yaml``: one of the first label files has a valid line."""
    paths = (_label_path(listing, join_path(folder, name)) for folder, names in listing.images.items() for name in names)
    for path in islice((path for path in paths if path is not None), 50):
        try:
            line = next((line for line in _lines(listing.root / path) if line.strip()), None)
            if line is not None:
                parse_line(line)
                return True
        except ValueError:
            continue
    return False
