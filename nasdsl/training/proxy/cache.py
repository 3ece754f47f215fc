"""Cache of features: in memory, or in a file that processes share and that an interrupted process can resume.

Each key has a folder of its own, so that features made under other conditions are never read::

    features.bin    the numbers, picture after picture; only appended to
    progress.json   how many pictures are on the disk, while the cache is incomplete
    features.json   the key and the skipped pictures; exists when the cache is complete
    fpn.pt          in the second stage: the trained fpn
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from nasdsl.data import UnreadableImage
from nasdsl.files import make_folder, read_json, sync_folder, write_bytes
from nasdsl.training.progress import ProgressBar
from nasdsl.training.proxy.errors import NonFiniteFeatures, ProxyError
from nasdsl.training.proxy.feature_batches import FeatureFunction
from nasdsl.training.proxy.features import FeatureLayout, Features, Maps

FORMAT: Final = 1
"""Version of the file and of how features are computed; part of every key, so a new version makes all features anew."""
SYNC_EVERY: Final = 5.0
"""Seconds between two times that the file and its progress are flushed to the disk."""


def load_or_compute_features(
    description: str,
    key: Mapping[str, Any],
    layout: FeatureLayout,
    compute: FeatureFunction,
    dtype: torch.dtype,
    *,
    cache: str | Path | None,
    memory_limit: int,
    quiet: bool = False,
) -> Features:
    """The features of all pictures: those cached under this key, or else computed now.

    Args:
        description: for the progress display and messages.
        key: all that the features depend on, as plain values.
        cache: folder of all caches. None: keep the features in memory.
        memory_limit: bytes of features that may be held in memory.

    Raises:
        NonFiniteFeatures: features are not finite.
        ProxyError: there is not enough memory or disk space, or the folder cannot be written.
    """
    size = layout.offsets[-1] * dtype.itemsize
    with ProgressBar(description, len(layout.padded_sizes), quiet) as progress:
        if cache is None:
            if size > memory_limit:
                raise ProxyError(
                    f"{description} take {_gigabytes(size)} of memory, and memory_limit is {_gigabytes(memory_limit)}: name a "
                    "folder as cache, or take fewer levels, dtype float16, or mirror=False"
                )
            values, skipped = torch.empty(layout.offsets[-1], dtype=dtype), dict[int, str]()
            pictures = range(len(layout.padded_sizes))
            for picture, maps in zip(pictures, compute(pictures), strict=True):
                numbers = _numbers_of(picture, maps, layout, dtype, skipped)
                values[layout.offsets[picture] : layout.offsets[picture + 1]] = numbers
                progress.update(picture + 1)
            return Features(values, layout, skipped, mapped=False)
        folder = _CacheFolder(cache_folder(cache, key), json.loads(json.dumps(key)), size)
        try:
            return _load_or_compute(folder, layout, compute, dtype, size <= memory_limit, progress)
        except OSError as error:
            raise ProxyError(f"{description} cannot be kept in {folder.path}: {error.strerror or error}") from error


def _load_or_compute(
    folder: _CacheFolder,
    layout: FeatureLayout,
    compute: FeatureFunction,
    dtype: torch.dtype,
    in_memory: bool,
    progress: ProgressBar,
) -> Features:
    skipped = folder.read_skipped(progress)
    if skipped is None:
        make_folder(folder.path)
        with _lock(folder.path / "lock", progress):
            skipped = folder.read_skipped(progress)  # another process may have finished them meanwhile
            if skipped is None:
                folder.invalidate()
                skipped = _compute_file(folder, layout, compute, dtype, progress)
    # Not torch.from_file: its mapping is writable, so that the system refuses one that is larger than its memory.
    mapped = np.memmap(folder.values, np.uint8, mode="r")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # the array is read-only
        values = torch.from_numpy(mapped).view(dtype)
    return Features(values.clone() if in_memory else values, layout, skipped, mapped=not in_memory)


def _compute_file(
    folder: _CacheFolder, layout: FeatureLayout, compute: FeatureFunction, dtype: torch.dtype, progress: ProgressBar
) -> dict[int, str]:
    """Append the missing pictures to the file; return the index and reason of unreadable ones."""
    done, skipped = folder.read_progress()
    if not folder.values.exists() or folder.values.stat().st_size < layout.offsets[done] * dtype.itemsize:
        done, skipped = 0, {}
    missing = folder.size - layout.offsets[done] * dtype.itemsize
    if shutil.disk_usage(folder.path).free < missing:
        raise ProxyError(f"{folder.path} has no space for the {_gigabytes(missing)} of features that are to be made")
    progress.resume(done)
    with open(folder.values, "r+b" if done else "wb") as file:
        file.truncate(layout.offsets[done] * dtype.itemsize)
        file.seek(0, os.SEEK_END)
        synced = time.monotonic()
        try:
            pictures = range(done, len(layout.padded_sizes))
            for picture, maps in zip(pictures, compute(pictures), strict=True):
                numbers = _numbers_of(picture, maps, layout, dtype, skipped)
                file.write(numbers.view(torch.uint8).numpy().tobytes())
                done = picture + 1
                progress.update(done)
                if time.monotonic() - synced >= SYNC_EVERY:
                    folder.write_progress(file, done, skipped)
                    synced = time.monotonic()
        finally:
            folder.write_progress(file, done, skipped)
    folder.finish(skipped)
    return skipped


def _numbers_of(
    picture: int, maps: Maps | UnreadableImage, layout: FeatureLayout, dtype: torch.dtype, skipped: dict[int, str]
) -> Tensor:
    """All numbers of a picture [n], in the order of the layout; zeros for an unreadable one, which is added to `skipped`."""
    if isinstance(maps, UnreadableImage):
        skipped[picture] = str(maps)
        return torch.zeros(layout.offsets[picture + 1] - layout.offsets[picture], dtype=dtype)
    parts = []
    for copy in range(layout.copies):
        for name, (_, channels) in layout.levels.items():
            found, expected = tuple(maps[name].shape), (layout.copies, channels, *layout.shape(picture, name))
            if found != expected:
                raise ProxyError(f"{name} of image {picture} has the shape {list(found)}; expected {list(expected)}")
            parts.append(maps[name][copy].permute(1, 2, 0).reshape(-1).to(dtype))
    numbers = torch.cat(parts).cpu()
    if not bool(numbers.isfinite().all()):
        stored = str(dtype).removeprefix("torch.")
        remedy = "take other weights" if stored == "float32" else "take dtype float32, or other weights"
        raise NonFiniteFeatures(f"features of image {picture} are not finite in {stored}: {remedy}")
    return numbers


class _CacheFolder:
    """The files of one key.

    Args:
        size: of the complete features.bin, in bytes.
    """

    def __init__(self, path: Path, key: Any, size: int) -> None:
        self.path, self.key, self.size = path, key, size
        self.values = self.path / "features.bin"
        self._finished, self._progress = self.path / "features.json", self.path / "progress.json"

    def read_skipped(self, progress: ProgressBar) -> dict[int, str] | None:
        """Index and reason of unreadable pictures; None if the cache is not complete."""
        state = self._read(self._finished)
        if state is None:
            return None
        if not self.values.exists() or self.values.stat().st_size != self.size:
            progress.print(f"{self.values} has not the size that {self._finished.name} expects: it is made anew")
            return None
        return _with_int_keys(state["skipped"])

    def read_progress(self) -> tuple[int, dict[int, str]]:
        """Number of pictures on the disk; index and reason of unreadable ones."""
        state = self._read(self._progress)
        return (0, {}) if state is None else (int(state["pictures"]), _with_int_keys(state["skipped"]))

    def write_progress(self, file: Any, pictures: int, skipped: Mapping[int, str]) -> None:
        """Flush the file to the disk, then record how many pictures it holds."""
        file.flush()
        os.fsync(file.fileno())
        self._write(self._progress, {"pictures": pictures, "skipped": skipped})

    def invalidate(self) -> None:
        """Remove the mark of a complete cache whose file is made anew: it must not be there when that has its size again."""
        if self._finished.exists():
            self._finished.unlink()
            sync_folder(self.path)

    def finish(self, skipped: Mapping[int, str]) -> None:
        """Mark the cache as complete."""
        self._write(self._finished, {"skipped": skipped, "torch": torch.__version__})
        self._progress.unlink(missing_ok=True)

    def _read(self, file: Path) -> dict[str, Any] | None:
        """The content of a JSON file; None if it is missing, broken or of another key."""
        try:
            state = read_json(file)
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) and state.get("key") == self.key else None

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        text = json.dumps({**state, "key": self.key}, indent=1)
        write_bytes(path, text.encode())


def digest(key: Any) -> str:
    """SHA-256 of plain values: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def cache_folder(cache: str | Path, key: Mapping[str, Any]) -> Path:
    """The folder of a key in the folder of all caches; of a key with an image size, named after it and the backbone."""
    name = digest({"format": FORMAT, **key})[:16]
    if "image_size" in key:
        backbone = re.sub(r"[^A-Za-z0-9_.-]", "_", str(key["backbone"]))
        name = "-".join([backbone, "x".join(map(str, key["image_size"])), name])
    return Path(cache).expanduser() / name


@contextmanager
def _lock(path: Path, progress: ProgressBar) -> Iterator[None]:
    """Exclusive lock between processes, released if its owner dies. Where files cannot be locked, nothing is locked."""
    try:
        import fcntl
    except ImportError:  # on Windows: let one process make the features before others start
        yield
        return
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.print("another process is making the features: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network file systems
            pass
        yield


def _with_int_keys(skipped: Mapping[str, str]) -> dict[int, str]:
    return {int(picture): reason for picture, reason in skipped.items()}


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
