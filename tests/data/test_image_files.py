"""Which files paths, folders and patterns name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasdsl.data.image_files import VIDEO_SUFFIXES, find_files
from nasdsl.data.images import image_suffixes

FILES = ("a.png", "in/b.JPG", "in/deep/c.jfif", "in/deep/notes.txt", "in/d.mp4", "in[1].png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ["a.png", "in[1].png"]),
        ("in", ["in/b.JPG"]),
        ("*.png", ["a.png", "in[1].png"]),
        ("**/*", ["a.png", "in/b.JPG", "in/deep/c.jfif", "in[1].png"]),
        ("in/**/*.j*", ["in/deep/c.jfif"]),
        ("*/b.???", ["in/b.JPG"]),
        ("in[1].png", ["in[1].png"]),
        ("in[2].png", []),
        ("in/deep/notes.txt", ["in/deep/notes.txt"]),
        ("gone.png", ["gone.png"]),
    ],
)
def test_paths(folder: Path, given: str, expected: list[str]) -> None:
    for path in (folder / given, str(folder / given)):
        assert [str(file.relative_to(folder)) for file in find_files([path])] == expected


def test_each_file_once_and_videos_where_they_are_wanted(folder: Path) -> None:
    assert find_files([folder / "in" / "b.JPG", folder / "in", folder / "in"]) == [folder / "in" / "b.JPG"]
    assert find_files([folder / "in"], videos=True) == [folder / "in" / "b.JPG", folder / "in" / "d.mp4"]


def test_suffixes() -> None:
    """Of all formats that are read, and of none that runs other programs."""
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jfif"} <= image_suffixes()
    assert not {".eps", ".pdf", ".svg"} & image_suffixes()
    assert not VIDEO_SUFFIXES & image_suffixes()
