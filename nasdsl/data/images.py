"""Reading image files as uint8 [3, H, W] RGB, upright."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from nasdsl.data.errors import UnreadableImage
from nasdsl.files import open_plain

# Not all that Pillow opens: some formats run other programs (EPS starts Ghostscript).
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
_TRANSPOSED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def read_image(
    path: str | Path, *, annotated: tuple[int, int] | None = None, at_least: tuple[int, int] | None = None
) -> Tensor:
    """Read an image as uint8 [3, H, W] RGB.

    EXIF's orientation is applied. Greyscale, palettes and CMYK are converted to RGB; transparent parts become white; 16 bits
    are scaled to 8 (65535 to 255); of an animation, the first frame is read.

    Args:
        path: of the file.
        annotated: (H, W) from the annotation, which is checked. Where it fits only the image as stored, without EXIF's
            orientation, the boxes were drawn on that, and the orientation is not applied.
        at_least: (H, W) of the upright image. A JPEG may then be decoded at a half, quarter or eighth of its size, which is
            faster, as long as it stays at least that large.

    Raises:
        UnreadableImage: the file is missing, truncated, not an image, has pixels without a defined white (32-bit, float), is
            too large (Pillow's limit of 179 million pixels), or is not of the annotated size.
    """
    with _pillow_errors(path), open_plain(path) as file, Image.open(file, formats=_formats()) as picture:
        upright = _uses_orientation(path, picture, annotated)
        if at_least is not None and picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L"):
            transposed = upright and _orientation(picture) in _TRANSPOSED
            height, width = at_least[::-1] if transposed else at_least
            picture.draft(None, (width, height))
        picture.load()
        return to_tensor(_as_rgb(path, _upright(picture) if upright else picture))


def pil_to_tensor(image: Image.Image, name: str = "the image") -> Tensor:
    """Convert any image of Pillow to uint8 [3, H, W] RGB, as `read_image` does: upright, transparent parts white.

    Args:
        name: what error messages call it.

    Raises:
        UnreadableImage: it cannot be decoded, or has pixels without a defined white.
    """
    with _pillow_errors(name):
        return to_tensor(_as_rgb(name, _upright(image)))


def image_suffixes() -> frozenset[str]:
    """Endings of the files that `read_image` can read with this build of Pillow: ``.jpg``, ``.png``, …"""
    formats = _formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (H, W) of the upright image from its header.

    Raises:
        UnreadableImage: the file is missing, not an image, or too large.
    """
    with _pillow_errors(path), open_plain(path) as file, Image.open(file, formats=_formats()) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) in _TRANSPOSED else (height, width)


def to_tensor(picture: Image.Image) -> Tensor:
    """Convert an RGB image of Pillow to uint8 [3, H, W], channels last in memory: that is four times faster to resize."""
    return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)


@cache
def _formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _pillow_errors(path: str | Path) -> Iterator[None]:
    """Raise Pillow's errors about a file as UnreadableImage."""
    try:
        with warnings.catch_warnings():
            # Of more than 89 million pixels (twice as many are an error), and of odd metadata, which do not matter here.
            warnings.simplefilter("ignore")
            yield
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        raise UnreadableImage(path, "the file is empty" if empty else "not an image of a known format") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(path, f"too large: {error}") from None
    except MemoryError:
        raise UnreadableImage(path, "not enough memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {reason}") from None


def _uses_orientation(path: str | Path, picture: Image.Image, annotated: tuple[int, int] | None) -> bool:
    """Whether to apply EXIF's orientation."""
    width, height = picture.size
    stored = (height, width)
    upright = (width, height) if _orientation(picture) in _TRANSPOSED else stored
    if annotated is None or annotated == upright:
        return True
    if annotated == stored:
        return False
    raise UnreadableImage(path, f"{upright[1]}x{upright[0]} pixels, but annotated as {annotated[1]}x{annotated[0]}")


def _orientation(picture: Image.Image) -> int:
    with suppress(Exception):  # Pillow raises many kinds of errors for broken EXIF data
        return int(picture.getexif().get(_ORIENTATION, 1))
    return 1


def _upright(picture: Image.Image) -> Image.Image:
    if _orientation(picture) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _as_rgb(path: str | Path, picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode == "RGB" and not picture.has_transparency_data:
        return picture
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        values = np.asarray(picture).astype(np.uint32).clip(0, 65535)
        grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(grey, "L").convert("RGB")
    if mode in ("I", "F"):
        kind = "integers" if mode == "I" else "floating-point numbers"
        raise UnreadableImage(path, f"its pixels are 32-bit {kind}, which have no agreed white; convert it to 8 or 16 bits")
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return picture.convert("RGB")
