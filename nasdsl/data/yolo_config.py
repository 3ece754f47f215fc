"""YOLO's ``data.yaml``: where the images of each split are, and the names of the classes.

Format: https://docs.ultralytics.com/datasets/detect/. The older files of Darknet (``obj.data``, ``obj.names``) say the same.
"""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from nasdsl.data.errors import DataError
from nasdsl.data.layouts import Listing, split_name
from nasdsl.files import read_text

_MAX_BYTES = 2**20
MAX_CLASSES = 100_000
"""More than any data set has: a number of classes above it is a mistake, and a list of as many names takes memory."""
_NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels.txt")
_SPLIT_KEYS = ("train", "val", "valid", "validation", "test", "minival", "trainval")


@dataclass(frozen=True)
class YoloConfig:
    """What a ``data.yaml`` says.

    Attributes:
        file: the file.
        root: folder that the paths of the splits are relative to, and must not lead out of.
        splits: paths of each split: folders, lists of images, or images.
        names: of the classes, by index; None if the file does not name them.
        notes: what was assumed, a sentence each.
    """

    file: Path
    root: Path
    splits: Mapping[str, Sequence[str]]
    names: list[str] | None
    notes: list[str] = field(default_factory=list)


def find_config(listing: Listing) -> Path | None:
    """The ``data.yaml`` of a folder, or of the only folder in it that has one.

    Raises:
        DataError: there are several.
    """
    files = [path for path in listing.find(".yaml", ".yml", "obj.data") if path.count("/") <= 2]
    files = [path for path in files if _is_config(listing.root / path)]
    least = min((path.count("/") for path in files), default=0)
    files = [path for path in files if path.count("/") == least]
    usual = [path for path in files if path.rpartition("/")[2] in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")]
    found = usual if len(usual) == 1 else files
    if len(found) > 1:
        raise DataError(
            f"{listing.root}: has several files like data.yaml, name one of them: yolo:FILE with {', '.join(found)}"
        )
    return listing.root / found[0] if found else None


def read_config(file: Path) -> YoloConfig:
    """Read a ``data.yaml``, or a Darknet ``obj.data``.

    ``path`` is the folder of the data set; a relative one is looked for beside the file, in the working directory and in its
    folder ``datasets``. Without it, or if there is no such folder here, it is the folder of the file. Scripts for a download
    are not run.

    Raises:
        DataError: the file cannot be read, names no split, or its names of classes are not usable.
    """
    content = _parse(file)
    notes: list[str] = []
    folder = file.parent
    given = content.get("path")
    root = folder
    if isinstance(given, str) and given:
        path = Path(given.replace("\\", "/")).expanduser()
        places = [folder / path, path, Path("datasets") / path]
        found = next((place for place in places if place.is_dir()), None)
        if found is not None:
            root = Path(os.path.normpath(found))
        elif path.parts[-1:] != folder.resolve().parts[-1:]:
            notes.append(f"{file}: path: {given} is no folder here; the folder of the file is taken instead")
    elif given:
        raise DataError(f"{file}: path: {reprlib.repr(given)}; expected the folder of the data set")
    splits: dict[str, Sequence[str]] = {}
    for key in _SPLIT_KEYS:
        value = content.get(key)
        if not value:
            continue
        paths = value if isinstance(value, list) else [value]
        if not all(isinstance(path, str) and path for path in paths):
            raise DataError(
                f"{file}: {key}: expected a folder, a list of images (.txt), or several of them; "
                f"found {reprlib.repr(value):.60}"
            )
        splits["val" if split_name(key) == "val" else key] = paths
    if not splits:
        raise DataError(f"{file}: names no split; expected train: and val: with their folders of images")
    return YoloConfig(file, root, splits, _names(file, content), notes)


def find_names(listing: Listing) -> list[str] | None:
    """The names of the classes in a file such as ``classes.txt``, one a line; None if there is no such file.

    Raises:
        DataError: see `read_names`.
    """
    for name in _NAMES_FILES:
        files = [path for path in listing.find(name) if path.rpartition("/")[2] == name]
        if files:
            return read_names(listing.root / min(files, key=lambda path: (path.count("/"), path)))
    return None


def read_names(file: Path) -> list[str]:
    """Names of classes, one a line.

    Raises:
        DataError: the file cannot be read, or there are none, or two are the same.
    """
    names = [line.strip() for line in _text(file).splitlines()]
    while names and not names[-1]:
        names.pop()
    return _checked(file, names)


def _is_config(file: Path) -> bool:
    if file.suffix == ".data":
        return True
    usual = file.stem in ("data", "dataset")
    try:
        content = _parse(file)
    except DataError:
        return usual  # broken, but called as the file is called: say so
    return any(content.get(key) for key in _SPLIT_KEYS) and (usual or any(key in content for key in ("names", "nc", "path")))


def _parse(file: Path) -> dict[str, Any]:
    """The content of a file; every scalar as its text, so that a class called `no` or `1` keeps its name."""
    return _parsed(file, _text(file))


@lru_cache(maxsize=4)
def _parsed(file: Path, text: str) -> dict[str, Any]:
    """As `_parse`, of a file with this text: a data set is opened in several steps, and thousands of names take seconds."""
    if file.suffix == ".data":
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip() for key, _, value in pairs}
    import yaml  # only these files need it

    from nasdsl.yaml_files import parse_yaml

    try:
        content = parse_yaml(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read as YAML: {reason[:200]}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a mapping with train, val and names")
    return content


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{file}: has more than {_MAX_BYTES // 2**20} MiB")
        return read_text(file)
    except OSError as error:
        raise DataError(f"{file}: {'no such file' if isinstance(error, FileNotFoundError) else error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read as UTF-8: {error}") from None


def _names(file: Path, content: Mapping[str, Any]) -> list[str] | None:
    value, count = content.get("names"), content.get("nc", content.get("classes"))
    if file.suffix == ".data" and isinstance(value, str):
        places = [file.parent / value, file.parent / Path(value).name]
        return read_names(next((place for place in places if place.is_file()), places[0]))
    if count is not None and not _is_number(count):
        raise DataError(f"{file}: nc: {reprlib.repr(count)}; expected the number of classes, at most {MAX_CLASSES:,}")
    if value in (None, ""):
        return None if count is None else [f"class_{index}" for index in range(int(count))]
    if isinstance(value, dict):
        if not all(map(_is_number, value)):
            wrong = next(key for key in value if not _is_number(key))
            raise DataError(f"{file}: names: expected the classes by their numbers 0, 1, …; found {wrong:.60}")
        by_number = {int(key): name for key, name in value.items()}
        if sorted(by_number) != list(range(len(value))):
            found = ", ".join(map(str, sorted(by_number)))
            raise DataError(f"{file}: names: the numbers are {found:.60}; expected 0 to {len(value) - 1}, each once")
        value = [by_number[number] for number in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{file}: names: {reprlib.repr(value):.60}; expected a list of names, or names by number")
    if count is not None and int(count) != len(value):
        raise DataError(f"{file}: nc is {count}, but there are {len(value)} names; correct one of them")
    return _checked(file, value)


def _is_number(text: object) -> bool:
    """Whether a scalar is a number that may be one of classes."""
    return isinstance(text, str) and text.isdecimal() and len(text) < 10 and int(text) <= MAX_CLASSES


def _checked(file: Path, names: list[str]) -> list[str]:
    if not names or not all(names):
        raise DataError(f"{file}: expected the names of the classes; found {'an empty one' if names else 'none'}")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        numbers = " and ".join(str(number) for number, name in enumerate(names) if name == twice)
        raise DataError(
            f"{file}: the classes {numbers} are both named {twice!r}, and classes are told apart by name: rename one, or, if "
            "they are the same class, give one number to all their boxes"
        )
    return names
