"""Where a folder keeps VOC's XML files, their images and their splits."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nasdsl.data.errors import DataError, UnreadableImage
from nasdsl.data.layouts import (
    IMAGE_SUFFIXES,
    Listing,
    common_folder,
    common_ids,
    inside,
    join_path,
    parent_of,
    split_folder,
    split_name,
)
from nasdsl.files import read_text


@dataclass(frozen=True)
class VocEntry:
    """An annotation of a split.

    Attributes:
        id: of the image.
        annotation: the XML file.
        stem: of both files.
        listing, folders: where the image is searched for, in this order.
        problem: why it cannot be used; None if it can.
    """

    id: str
    annotation: Path
    stem: str
    listing: Listing
    folders: Sequence[str]
    problem: str | None = None

    def find_image(self, written: str) -> str:
        """Path of the image, by the stem first: the name in the annotation is often wrong after renaming.

        Args:
            written: the name in the annotation.

        Raises:
            UnreadableImage: there is none.
        """
        suffix = os.path.splitext(written)[1]
        names = [self.stem + suffix, *(self.stem + known for known in IMAGE_SUFFIXES)]
        names += [self.stem + known.upper() for known in IMAGE_SUFFIXES]
        names += [self.stem] if self.stem.lower().endswith(IMAGE_SUFFIXES) else []  # of a.jpg.xml
        names.append(written)
        for folder in self.folders:
            for name in names:
                path = join_path(folder, name)
                if path in self.listing.files and "." in name:
                    return f"{self.listing.root}/{path}"
        expected = join_path(self.folders[0] if self.folders else "", self.stem + (suffix or ".jpg"))
        raise UnreadableImage(f"{self.listing.root}/{expected}", "no such file")


class VocLayout:
    """Annotations, images and splits of a folder.

    - VOC's own: ``Annotations/``, ``JPEGImages/`` beside it, and ``ImageSets/Main/SPLIT.txt`` with the names of each split.
    - Annotations and images in any two folders, or in one. An image belongs to the annotation of the same name.
    - With folders called ``train``, ``valid``, … above or below those, which are the splits.

    The folder of the data set may lie inside of `listing`.

    Attributes:
        root: folder of the data set.
        annotations: the folder that has all annotations.
        splits: names of the splits.
    """

    def __init__(self, listing: Listing) -> None:
        files = listing.find(".xml")
        own = sorted({folder for path in files if (folder := _annotations_folder(path)) is not None})
        if own:
            files = [path for path in files if _annotations_folder(path) is not None]
            if len(own) > 1 and not all(split_folder(folder) for folder in own):
                several = ", ".join(f"{listing.root}/{parent_of(folder)}" for folder in own)
                raise DataError(f"{listing.root}: holds several VOC folders, name one of them: {several}")
        if not files:
            raise DataError(
                f"{listing.root}: not a VOC folder: expected an XML file for each image, found {listing.describe()}"
            )
        self._listing = listing
        self._files = files
        self._base = parent_of(own[0]) if len(own) == 1 else ""
        self._top = own[0] if len(own) == 1 else common_folder(map(parent_of, files))
        self.root = listing.root / self._base
        self.annotations = listing.root / self._top
        self._lists = self._find_lists()
        self._by_folder = {} if self._lists else self._group_by_folder()
        self.splits = tuple(self._lists or self._by_folder)

    def annotation_files(self) -> list[Path]:
        """All annotations, of all splits."""
        return [self._listing.root / path for path in self._files]

    def entries(self, split: str | None) -> Iterator[VocEntry]:
        """The annotations of a split, or all (None)."""
        if split is not None and self._lists:
            yield from self._listed(self._lists[split])
            return
        paths = self._files if split is None else self._by_folder[split]
        for id, path in zip(common_ids(paths), paths, strict=True):
            yield self._entry(id, path)

    def notes(self, split: str | None) -> list[str]:
        """What is remarkable about a split."""
        left = len(self._files) - sum(map(len, self._by_folder.values()))
        if self._by_folder and left:
            return [f"annotations in no folder of a split, not used: {left}"]
        if split is None:
            stems = {os.path.splitext(path.rpartition("/")[2])[0] for path in self._files}
            folders = {folder for path in self._files for folder in self._image_folders[parent_of(path)]}
            names = [name for folder in folders for name in self._listing.images.get(folder, ())]
            if without := sum(os.path.splitext(name)[0] not in stems for name in names):
                return [f"images without an annotation, not used: {without}"]
        return []

    def missing_split(self, split: str) -> str:
        """See `Source.missing_split`."""
        if self._lists:
            folder = parent_of(next(iter(self._lists.values())))
            return f"{self._listing.root / folder}/{split}.txt: no such split"
        return f"{self.root}: no such split as {split!r}"

    def _find_lists(self) -> dict[str, str]:
        """Files with the names of the images of a split."""
        for folder in ("ImageSets/Main", "ImageSets"):
            place = join_path(self._base, folder)
            if found := {os.path.splitext(name)[0]: name for name in self._texts(place)}:
                return {split: join_path(place, name) for split, name in found.items()}
        found = {os.path.splitext(name)[0]: name for name in self._texts(self._base)}
        return {split: join_path(self._base, name) for split, name in found.items() if split_name(split)}

    def _texts(self, folder: str) -> list[str]:
        return [name for name in self._listing.folders.get(folder, ()) if name.endswith(".txt")]

    def _group_by_folder(self) -> dict[str, list[str]]:
        """Annotations by the folder that is called after a split, above them or else above their images."""
        groups: dict[str, list[str]] = {}
        for path in self._files:
            name = split_folder(parent_of(path)) or self._split_of_image(path)
            if name is not None:
                groups.setdefault(name, []).append(path)
        return dict(sorted(groups.items()))

    def _split_of_image(self, path: str) -> str | None:
        stem = os.path.splitext(path.rpartition("/")[2])[0]
        for folder in self._image_folders[parent_of(path)]:
            if (name := split_folder(folder)) and stem in self._stems[folder]:
                return name
        return None

    def _listed(self, file: str) -> Iterator[VocEntry]:
        """The annotations that a file names; lines may have a second column, as in the lists for each class."""
        path = self._listing.root / file
        try:
            lines = read_text(path).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        start = len(self._top) + 1 if self._top else 0
        paths = {os.path.splitext(path[start:])[0]: path for path in self._files}
        seen: set[str] = set()
        # Names may contain blanks: only a last column of 1, 0 or -1 is not part of them.
        for name in (re.sub(r"\s+(1|0|-1)$", "", line.strip()) for line in lines if line.strip()):
            stem, suffix = os.path.splitext(name)
            id = stem if name not in paths and suffix.lower() in (".xml", *IMAGE_SUFFIXES) else name
            problem = None
            if id in seen:
                problem = "the split names it twice"
            elif id not in paths:
                problem = "no such annotation" if inside(id) is not None else "the split names a file outside of the folder"
            seen.add(id)
            if problem is None:
                yield self._entry(id, paths[id])
            else:
                yield VocEntry(id, self.annotations / f"{id}.xml", id, self._listing, (), problem)

    def _entry(self, id: str, path: str) -> VocEntry:
        stem = os.path.splitext(path.rpartition("/")[2])[0]
        return VocEntry(id, self._listing.root / path, stem, self._listing, self._image_folders[parent_of(path)])

    @cached_property
    def _stems(self) -> dict[str, set[str]]:
        """Stems of the images in each folder."""
        return {folder: {os.path.splitext(name)[0] for name in names} for folder, names in self._listing.images.items()}

    @cached_property
    def _image_folders(self) -> dict[str, list[str]]:
        """For each folder of annotations, the folders of their images."""
        stems: dict[str, set[str]] = {}
        for path in self._files:
            folder, _, name = path.rpartition("/")
            stems.setdefault(folder, set()).add(os.path.splitext(name)[0])
        containing: dict[str, list[str]] = {}
        for folder, names in self._stems.items():
            for name in names:
                containing.setdefault(name, []).append(folder)
        return {folder: self._folders_for(folder, names, containing) for folder, names in stems.items()}

    def _folders_for(self, annotations: str, stems: set[str], containing: dict[str, list[str]]) -> list[str]:
        above, own, below = annotations.rpartition("Annotations")
        if own and (standard := f"{above}JPEGImages") in self._listing.folders:
            nested = standard + below
            return [nested, standard] if below and nested in self._listing.folders else [standard]
        split = _split_of(annotations)
        counts: Counter[str] = Counter()
        for stem in stems:
            for folder in containing.get(stem, ()):
                if split is None or _split_of(folder) in (None, split):
                    counts[folder] += 1
        ranked = sorted(counts, key=lambda folder: (-counts[folder], folder != annotations, folder.count("/"), folder))
        chosen: list[str] = []
        covered: set[str] = set()
        for folder in ranked:
            # A folder with other files of the same names, such as masks, is no second folder of images.
            names = self._stems[folder] & stems
            if split is None and (of_folder := _split_of(folder)) is not None:
                names = {join_path(of_folder, name) for name in names}
            if not names & covered:
                chosen.append(folder)
                covered |= names
        # Without a common name, the names in the annotations may still be those of the images.
        return chosen or [folder for folder in self._listing.images if split is None or _split_of(folder) in (None, split)]


def _split_of(folder: str) -> str | None:
    """The usual name of the split that a folder is called after."""
    found = split_folder(folder)
    return None if found is None else split_name(found)


def _annotations_folder(path: str) -> str | None:
    """VOC's folder ``Annotations`` that a path lies in."""
    parts = path.split("/")[:-1]
    return "/".join(parts[: parts.index("Annotations") + 1]) if "Annotations" in parts else None
