"""Finding the images and videos that paths, folders and patterns name."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from nasdsl.data.images import image_suffixes

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
"""Endings of the files that are taken for videos."""


def is_video(file: Path) -> bool:
    """Whether a file is taken for a video, by its name."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def find_files(paths: Iterable[str | Path], *, videos: bool = False) -> list[Path]:
    """The files that are named, each once, in the order of the names.

    A folder stands for the images in it, but not in the folders below it; a pattern (``photos/**/*.jpg``, where ``**`` is any
    number of folders) for the images that it matches. Both are sorted. Any other path is taken as it is, whether or not there
    is such a file.

    Args:
        videos: folders and patterns also stand for videos.
    """
    suffixes = image_suffixes() | (VIDEO_SUFFIXES if videos else frozenset())

    def images(files: Iterable[Path]) -> list[Path]:
        return sorted(file for file in files if file.suffix.lower() in suffixes and file.is_file())

    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found += images(path.iterdir())
        elif glob.has_magic(os.fspath(given)) and not path.exists():
            found += images(Path(match) for match in glob.iglob(os.fspath(given), recursive=True))
        else:
            found.append(path)
    return list(dict.fromkeys(found))
