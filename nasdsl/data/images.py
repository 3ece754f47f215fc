"""Any picture file to uint8 [3, H, W] RGB, upright; or a clear reason why not."""

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

# Pillow also opens formats that run other programs (EPS starts Ghostscript); a data set has no business there.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


def read_image(
    path: str | Path, *, annotated: tuple[int, int] | None = None, at_least: tuple[int, int] | None = None
) -> Tensor:
    """The picture as uint8 [3, H, W] RGB.

    Upright: EXIF's orientation is applied. Greyscale and palettes become RGB; transparent parts are laid on white; CMYK
    is converted; 16 bits are scaled to 8 (65535 becomes 255); of an animation, the first frame.

    Args:
        annotated: (H, W) that the annotation gives, checked. Where it fits only the picture as stored, not turned
            upright, the boxes were drawn on that, and it is given as stored.
        at_least: (H, W) in pixels of the upright picture; a JPEG may then be decoded at a half, quarter or eighth of its
            size, which is faster, as long as it stays at least that large.

    Raises:
        UnreadableImage: missing, truncated, not a picture, a kind of pixel without an agreed white (32-bit, float), too
            large (Pillow's bound of 179 million pixels), or not of the annotated size.
    """
    with _explained(path), Image.open(path, formats=_formats()) as picture:
        upright = _is_upright(path, picture, annotated)
        if at_least is not None and picture.format in ("JPEG", "MPO") and picture.mode in ("RGB", "L"):
            turned = upright and _orientation(picture) in _TURNED
            height, width = at_least[::-1] if turned else at_least
            picture.draft(None, (width, height))
        picture.load()
        return to_tensor(_as_rgb(path, _turned_upright(picture) if upright else picture))


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of the upright picture, from the file's header.

    Raises:
        UnreadableImage: missing, not a picture, or too large.
    """
    with _explained(path), Image.open(path, formats=_formats()) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) in _TURNED else (height, width)


def to_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture of Pillow as uint8 [3, H, W].

    It lies in memory pixel by pixel (channels last), which is four times faster to resize.
    """
    return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)


@cache
def _formats() -> tuple[str, ...]:
    """Those that this build of Pillow has."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Whatever Pillow raises on a bad file, as UnreadableImage."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on and refuses twice as many, before decoding; the refusal is enough.
            # It also warns of odd metadata, which do not concern the pixels.
            warnings.simplefilter("ignore")
            yield
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        raise UnreadableImage(path, "the file is empty" if empty else "not a picture of a known format") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(path, f"too large: {error}") from None
    except MemoryError:
        raise UnreadableImage(path, "not enough memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {reason}") from None


def _is_upright(path: str | Path, picture: Image.Image, annotated: tuple[int, int] | None) -> bool:
    """Whether EXIF's orientation is to be applied."""
    width, height = picture.size
    stored = (height, width)
    upright = (width, height) if _orientation(picture) in _TURNED else stored
    if annotated is None or annotated == upright:
        return True
    if annotated == stored:
        return False
    raise UnreadableImage(path, f"{upright[1]}x{upright[0]} pixels, but annotated as {annotated[1]}x{annotated[0]}")


def _orientation(picture: Image.Image) -> int:
    with suppress(Exception):  # a broken EXIF block says nothing about orientation
        return int(picture.getexif().get(_ORIENTATION, 1))
    return 1


def _turned_upright(picture: Image.Image) -> Image.Image:
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
