"""Recognizes the layouts of data sets' folders, to explain why a folder cannot be opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nasdsl.data.errors import DataError

_MAX_LISTED = 5
_PARTS = ("Annotations", "JPEGImages", "ImageSets", "annotations")
"""Folders inside of a data set's folder that may be given instead of it by mistake."""


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


def coco_splits(folder: Path) -> list[str]:
    """Names of the splits that have an ``annotations/instances_SPLIT.json``."""
    return sorted(path.stem.removeprefix("instances_") for path in (folder / "annotations").glob("instances_*.json"))


def voc_folders(folder: Path) -> list[Path]:
    """VOC folders: the folder itself, or else those at most two levels below it."""
    if _is_voc(folder):
        return [folder]
    return sorted(inner for pattern in ("*/", "*/*/") for inner in folder.glob(pattern) if _is_voc(inner))


def describe_layout(folder: Path) -> str:
    """What a folder holds, as a phrase to follow "found": its layout where that is a known one, else its entries."""
    if splits := coco_splits(folder):
        return f"COCO's layout with the splits {join(splits)}; open coco:{folder}"
    if voc := voc_folders(folder):
        return f"VOC's layout; open voc:{voc[0]}"
    for inner in sorted(folder.glob("*/")):
        if splits := coco_splits(inner):
            return f"COCO's layout with the splits {join(splits)} in {inner.name}; open coco:{inner}"
    if folder.name in _PARTS and (coco_splits(folder.parent) or _is_voc(folder.parent)):
        return f"a part of {folder.parent}, which has {describe_layout(folder.parent)}"
    root = folder.parent if (folder / "_annotations.coco.json").is_file() else folder
    if files := find_files(root, "*/_annotations.coco.json"):
        todo = f"copy each to annotations/instances_SPLIT.json in {root}, and open coco:{root}"
        return f"{join(files)}, Roboflow's layout of COCO; {todo}"
    if files := find_files(folder, "annotations/*.json", "*.json", "*/*.json"):
        return f"JSON files of other names: {join(files)}"
    if files := find_files(folder, "*.xml", "*/*.xml"):
        return f"XML files that are not in a folder called Annotations: {join(files)}"
    if files := find_files(folder, "data.yaml", "data.yml", "labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"):
        return f"{join(files)}, YOLO's layout, which cannot be read"
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    return join(entries) if entries else "an empty folder"


def _is_voc(folder: Path) -> bool:
    # Where case does not matter in file names, COCO's `annotations` is found as `Annotations`.
    return (folder / "Annotations").is_dir() and ("Annotations" in os.listdir(folder) or not coco_splits(folder))


def find_files(folder: Path, *patterns: str) -> Sequence[str]:
    """Files that match the first of the patterns with a match, relative to the folder, sorted."""
    for pattern in patterns:
        if files := sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern)):
            return files
    return []


def join(names: Iterable[str]) -> str:
    """The first five names, and the number of all if there are more."""
    names = list(names)
    return ", ".join(names[:_MAX_LISTED]) + (f", … ({len(names)} in all)" if len(names) > _MAX_LISTED else "")
