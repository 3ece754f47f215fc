"""Reading image files of every kind, and errors of unreadable ones."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasdsl.data.errors import UnreadableImage
from nasdsl.data.images import image_size, read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
# What is stored, so that the EXIF orientation of that number makes it RGB again (EXIF 2.32, section 4.6.4).
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),  # to be turned clockwise
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def _chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_is_not_changed(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    image = read_image(_save(tmp_path / f"a.{suffix}", Image.fromarray(RGB), **options))
    assert image.dtype == torch.uint8
    assert torch.equal(image, _chw(RGB))


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "a.png", Image.fromarray(STORED[orientation](RGB).copy()), exif=exif)
    assert torch.equal(read_image(path), _chw(RGB))
    assert image_size(path) == (6, 8)


def test_the_annotated_size_decides_about_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = STORED[6](RGB).copy()
    path = _save(tmp_path / "a.png", Image.fromarray(stored), exif=exif)
    assert torch.equal(read_image(path, annotated=(6, 8)), _chw(RGB))
    assert torch.equal(read_image(path, annotated=(8, 6)), _chw(stored))
    with pytest.raises(UnreadableImage, match=r"8x6 pixels, but annotated as 9x7"):
        read_image(path, annotated=(7, 9))


def test_greyscale_palette_and_bits(tmp_path: Path) -> None:
    grey = RGB[:, :, 0]
    three = _chw(np.repeat(grey[:, :, None], 3, axis=2))
    assert torch.equal(read_image(_save(tmp_path / "grey.png", Image.fromarray(grey))), three)
    palette = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert torch.equal(read_image(_save(tmp_path / "palette.png", palette)), _chw(RGB))
    bits = Image.fromarray(grey).convert("1")
    assert torch.equal(read_image(_save(tmp_path / "bits.png", bits)), _chw(np.array(bits.convert("RGB"))))


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    alpha = np.full((6, 8, 1), 255, dtype=np.uint8)
    alpha[:3] = 0
    alpha[5] = 128
    image = read_image(_save(tmp_path / "a.png", Image.fromarray(np.concatenate([RGB, alpha], axis=2)))).to(torch.int)
    assert (image[:, :3] == 255).all()
    assert torch.equal(image[:, 3:5], _chw(RGB).to(torch.int)[:, 3:5])
    half = (_chw(RGB).to(torch.float) * 128 + 255 * 127) / 255
    assert (image[:, 5] - half[:, 5]).abs().max() <= 1
    grey = Image.fromarray(np.concatenate([RGB[:, :, :1], alpha], axis=2), "LA")
    assert (read_image(_save(tmp_path / "la.png", grey))[:, :3] == 255).all()
    palette = Image.new("P", (8, 6), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert (read_image(_save(tmp_path / "p.png", palette, transparency=1)) == 255).all()


def test_cmyk(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    image = read_image(_save(tmp_path / "a.jpg", flat.convert("CMYK"), quality=100))
    assert (image.to(torch.int) - torch.tensor([200, 40, 90]).view(3, 1, 1)).abs().max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_cut(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 257, 32896, 65535, 65407, 250, 510]], dtype=np.uint16)
    image = read_image(_save(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    expected = torch.from_numpy(np.round(values / 65535 * 255).astype(np.uint8))
    assert all(torch.equal(channel, expected) for channel in image)


def test_a_jpeg_may_be_decoded_smaller_but_not_too_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.array(Image.fromarray(RGB).resize((96, 64), Image.Resampling.BICUBIC))
    path = _save(tmp_path / "a.jpg", Image.fromarray(np.rot90(upright, 1).copy()), exif=exif, quality=95)
    full = read_image(path)
    assert full.shape == (3, 64, 96)
    half = read_image(path, annotated=(64, 96), at_least=(32, 48))
    assert half.shape == (3, 32, 48)
    assert (half.float() - torch.nn.functional.avg_pool2d(full.float(), 2)).abs().mean() < 3
    assert read_image(path, at_least=(33, 40)).shape == (3, 64, 96)
    assert read_image(path, at_least=(32, 49)).shape == (3, 64, 96)


def _huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + struct.pack(">I", 99)
        + b"IDAT"
    )


def _truncated(path: Path) -> None:
    _save(path, Image.fromarray(RGB).resize((200, 200)), format="JPEG")
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "truncated": (_truncated, "truncated"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("<html>404</html>"), "not an image"),
    "postscript": (lambda path: _save(path, Image.fromarray(RGB), format="EPS"), "not an image"),
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "directory"),
    "bomb": (lambda path: path.write_bytes(_huge_png()), "too large: .*3600000000 pixels"),
    "float": (lambda path: _save(path, Image.fromarray(RGB[:, :, 0].astype(np.float32)), format="TIFF"), "no agreed white"),
    "int32": (lambda path: _save(path, Image.fromarray(RGB[:, :, 0].astype(np.int32)), format="TIFF"), "no agreed white"),
}


@pytest.mark.parametrize("what", BAD)
def test_reasons_of_unreadable_files(tmp_path: Path, what: str) -> None:
    make, reason = BAD[what]
    path = tmp_path / "bad.jpg"
    make(path)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.file, again.reason) == (str(caught.value), str(path), caught.value.reason)


def test_truncated_jpegs_are_unreadable(tmp_path: Path) -> None:
    whole = _save(tmp_path / "a.jpg", Image.fromarray(RGB).resize((64, 64)), quality=90).read_bytes()
    path = tmp_path / "cut.jpg"
    for length in range(0, len(whole) - 16, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImage):
            read_image(path)


def test_an_image_for_which_memory_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.png", Image.fromarray(RGB))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(UnreadableImage, match=r"a\.png: not enough memory to decode it"):
        read_image(path)
