"""The files of a data set's folder, and what they tell about its form and its splits."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from nasdsl.data.errors import DataError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
WHOLE = "all"
"""Name of the whole of a data set that has no splits."""

_MAX_LISTED = 5
_MAX_DEPTH = 10
_SPLIT = re.compile(r"(trainval|training|train|validation|valid|val|testing|test)(?:[-_ ]?((?:19|20)\d\d))?", re.IGNORECASE)
_SAME_SPLIT = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}

_BESIDE_SPLIT = frozenset(
    "images image img imgs pictures photos jpg annotations annotation annots xml labels data set dataset split".split()
)
"""Words that a folder of a split may have in its name besides."""


class Listing:
    """All files below a folder, read once.

    Hidden files and folders, and those that macOS adds to archives, are left out. Links to folders are followed.

    Attributes:
        root: the folder.
        folders: names of the files in each folder, sorted; folders are relative to `root` with ``/``, and ``""`` is `root`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, list[str]] = {}
        self._scan("", 0, set())
        self.folders = dict(sorted(self.folders.items()))

    def _scan(self, folder: str, depth: int, above: set[tuple[int, int]]) -> None:
        path = self.root / folder
        try:
            status = path.stat()
            with os.scandir(path) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries if not _is_hidden(entry.name)]
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        if (status.st_dev, status.st_ino) in above:  # a link to a folder that it lies in
            return
        self.folders[folder] = sorted(name for name, is_folder in found if not is_folder)
        if depth < _MAX_DEPTH:
            inner = above | {(status.st_dev, status.st_ino)}
            for name in sorted(name for name, is_folder in found if is_folder):
                self._scan(join_path(folder, name), depth + 1, inner)

    @cached_property
    def files(self) -> frozenset[str]:
        """Paths of all files, relative to the folder."""
        return frozenset(join_path(folder, name) for folder, names in self.folders.items() for name in names)

    def find(self, *suffixes: str, below: str = "") -> list[str]:
        """Paths of the files with one of these suffixes, in lower or upper case; sorted by folder and name.

        Args:
            suffixes: in lower case, such as ``.json``.
            below: only files in this folder and in those inside of it.
        """
        return [
            join_path(folder, name)
            for folder, names in self.folders.items()
            if not below or folder == below or folder.startswith(f"{below}/")
            for name in names
            if name.lower().endswith(suffixes)
        ]

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """Names of the image files of each folder that has some."""
        found = {
            folder: [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)] for folder, names in self.folders.items()
        }
        return {folder: names for folder, names in found.items() if names}

    def has_folder(self, folder: str) -> bool:
        """Whether there is this folder, relative to `root`.

        Args:
            folder: relative to `root`.
        """
        return folder in self.folders

    def describe(self) -> str:
        """What the folder holds, as a phrase to follow "found": images, and files by their suffix."""
        images = sum(map(len, self.images.values()))
        others: dict[str, list[str]] = {}
        for path in self.files:
            if not path.lower().endswith(IMAGE_SUFFIXES):
                others.setdefault(os.path.splitext(path)[1].lower(), []).append(path)
        parts = []
        if images:
            folders = list_few(folder or "the folder itself" for folder in self.images)
            parts.append(f"{images} image{'' if images == 1 else 's'} in {folders}")
        for suffix, paths in sorted(others.items(), key=lambda item: -len(item[1]))[:_MAX_LISTED]:
            few = list_few(sorted(paths)) if len(paths) <= 2 else f"{len(paths)} {suffix or 'other'} files such as {min(paths)}"
            parts.append(few)
        return ", ".join(parts) if parts else "no files"


def existing_folder(place: str | Path) -> Path:
    """The folder of a data set; a leading ``~``, which shells do not expand after ``voc:``, is expanded.

    Raises:
        DataError: there is no such folder.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{place}: a file; expected the folder of the data set")
    raise DataError(f"{place}: no such folder")


def split_name(text: str) -> str | None:
    """The usual name of a split that a folder or file is called after: ``val`` for ``valid``, ``train`` for ``train2017``."""
    matched = _SPLIT.fullmatch(text)
    if matched is None:
        return None
    name = matched[1].lower()
    return _SAME_SPLIT.get(name, name)


def split_in(text: str) -> str | None:
    """The split that one of the words of a file name is, as it is spelled: ``train`` of ``annotations_train.json``."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", text) if split_name(word)]
    return words[0] if words else None


def split_folder(path: str) -> str | None:
    """The split that the first folder in a relative path is called after that is: ``train``, or ``train_images``."""
    for part in path.split("/"):
        words = re.split(r"[-_. ]+", part)
        named = [word for word in words if split_name(word)]
        if split_name(part) or (len(named) == 1 and all(word in named or word.lower() in _BESIDE_SPLIT for word in words)):
            return part if split_name(part) else named[0]
    return None


def find_split(asked: str, names: Iterable[str]) -> str | None:
    """The split that is asked for: of the same name, or else another spelling without or with a year (the last of several)."""
    names = list(names)
    if asked in names:
        return asked
    if asked not in (split_name(asked), *_SAME_SPLIT):
        return None
    same = [name for name in names if split_name(name) == split_name(asked)]
    return min(same, key=lambda name: (name[-1].isdigit(), [-ord(letter) for letter in name])) if same else None


def join_path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def parent_of(path: str) -> str:
    """The folder of a relative path."""
    return path.rpartition("/")[0]


def common_folder(folders: Iterable[str]) -> str:
    """The deepest folder that all of these are or lie in."""
    folders = list(folders)
    return posixpath.commonpath(folders) if folders else ""


def inside(path: str) -> str | None:
    """A path out of an annotation file, relative to the folder of the data set, with ``/``; None if it leads out of it.

    Windows' rules hold as well, where ``\\`` separates and ``C:x`` is outside of the folder.
    """
    slashed = path.replace("\\", "/")
    if slashed.startswith("/") or slashed[1:2] == ":":
        return None
    parts: list[str] = []
    for part in slashed.split("/"):
        if part == "..":
            return None
        if part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def common_ids(paths: Sequence[str]) -> Iterator[str]:
    """An id for each of several different files: its path below their common folder, without suffix if that is unique."""
    base = common_folder(map(parent_of, paths))
    start = len(base) + 1 if base else 0
    seen: set[str] = set()
    for path in paths:
        id = os.path.splitext(path[start:])[0]
        if id in seen:
            id = path[start:]
        seen.add(id)
        yield id


def list_few(names: Iterable[str]) -> str:
    """The first five names, and the number of all if there are more."""
    names = list(names)
    return ", ".join(names[:_MAX_LISTED]) + (f", … ({len(names)} in all)" if len(names) > _MAX_LISTED else "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link that leads nowhere, or to itself, is a file that cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
