"""Reading and writing videos frame by frame, with PyAV (the extra ``video``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nasdsl.data.errors import DataError, UnreadableImage
from nasdsl.files import put_in_place

_CODECS = ("libx264", "libopenh264", "h264", "mpeg4")
"""Encoders in the order of preference; builds of FFmpeg lack one or the other."""

_TICKS = 60_000
"""Of a second in written videos: frame rates of 24, 25, 30, 50 and 60, and of those times 1000/1001, need whole numbers."""

_DEFAULT_RATE = 25.0


class UnreadableVideo(UnreadableImage):
    """A video cannot be read, or not to its end."""


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        number: from 0.
        time: when it is shown, in seconds from the first frame.
        image: uint8 [3, H, W] RGB, upright.
    """

    number: int
    time: float
    image: Tensor


class VideoReader:
    """Reads a video from its beginning to its end; a context manager.

    Attributes:
        path: of the file.
        frames: number of frames, as far as the file tells: an estimate. None: unknown.

    Raises:
        UnreadableVideo: the file is missing, no video, or has no stream of images.
        DataError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        av = import_av()
        self.path = path
        try:
            self._container = av.open(os.fspath(path))
        except FileNotFoundError:
            raise UnreadableVideo(path, "no such file") from None
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise UnreadableVideo(path, f"not a video of a known format: {_reason(error)}") from None
        if not self._container.streams.video:
            self._container.close()
            raise UnreadableVideo(path, "it has no images, only sound or data")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate
        self._rate = float(rate) if rate else _DEFAULT_RATE
        self.frames = self._count()

    def _count(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        if self._stream.duration and self._stream.time_base:
            return max(1, int(float(self._stream.duration * self._stream.time_base) * self._rate + 0.5))
        if self._container.duration:
            return max(1, int(self._container.duration / 1e6 * self._rate + 0.5))
        return None

    def read(self, every: int = 1) -> Iterator[Frame]:
        """The frames in order.

        Args:
            every: give only each frame whose number is a multiple of this: 2 gives the first, third, fifth and so on.

        Raises:
            UnreadableVideo: the file is broken from some frame on; those before have been given.
        """
        av = import_av()
        number, first = -1, 0.0
        try:
            for number, frame in enumerate(self._container.decode(self._stream)):
                time = frame.time if frame.time is not None else number / self._rate
                first = time if number == 0 else first
                if number % every == 0:
                    yield Frame(number, time - first, _to_tensor(frame))
        except (av.FFmpegError, OSError) as error:
            where = "its first frame cannot be decoded" if number < 0 else f"cannot be decoded after frame {number}"
            raise UnreadableVideo(self.path, f"{where}: {_reason(error)}") from None
        if number < 0:
            raise UnreadableVideo(self.path, "it has no frame that can be decoded")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()


class VideoWriter:
    """Writes an MP4 video; a context manager. The file has its name when all of it is written.

    All frames must be of the size of the first; sides are padded to even numbers, which the format asks for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def write(self, image: Tensor, time: float) -> None:
        """Add a frame.

        Args:
            image: uint8 [3, H, W] RGB.
            time: when it is shown, in seconds; later than those before.

        Raises:
            OSError: the file cannot be written.
        """
        av = import_av()
        height, width = image.shape[-2:]
        if height % 2 or width % 2:
            image = pad(image[None].float(), (0, width % 2, 0, height % 2), mode="replicate")[0].to(torch.uint8)
        if self._container is None:
            self._open(av, int(image.shape[-1]), int(image.shape[-2]))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), format="rgb24")
        self._last = max(self._last + 1, round(time * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def _open(self, av: Any, width: int, height: int) -> None:
        self._container = av.open(os.fspath(self._unfinished), "w", format="mp4")
        codec = next(name for name in _CODECS if _has_encoder(av, name))
        self._stream = self._container.add_stream(codec, rate=30)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = max(1_000_000, 6 * width * height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the file, also after an error, with the frames until then; without any frame no file is written."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
            put_in_place(self._unfinished, self._path)
        finally:
            self._unfinished.unlink(missing_ok=True)


def import_av() -> Any:
    """Import PyAV, which is an extra.

    Raises:
        DataError: it is not installed.
    """
    try:
        import av
        import av.error
    except ImportError:
        raise DataError("videos are read with PyAV, which is not installed: pip install 'nasdsl[video]'") from None
    return av


def _to_tensor(frame: Any) -> Tensor:
    """The frame as uint8 [3, H, W] RGB, turned as players show it."""
    array = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    return torch.from_numpy(np.ascontiguousarray(np.rot90(array, turns))).permute(2, 0, 1)


def _has_encoder(av: Any, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except Exception:  # PyAV's UnknownCodecError is of another class in some versions
        return False
    return True


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
