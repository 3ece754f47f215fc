"""Reading of files of ``torch.save`` that a stranger may have made: no code of theirs is run, and the work is bounded."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from nasdsl.files import open_plain

MAX_REPEATED: Final = 256 << 20
"""Bytes of all tensors that are larger than what the file holds of them."""


def load_torch_file(path: str | Path) -> Any:
    """The content of a file of ``torch.save``, tensors on the CPU: tensors, numbers, texts, and lists and mappings of these.

    Raises:
        OSError: it cannot be read, or is no plain file.
        pickle.UnpicklingError: it holds anything else, which could run code.
        ValueError: a part is damaged, compressed, or there twice, or a tensor is larger than what the file holds of it.
        RuntimeError, EOFError and others: it is broken.
    """
    with open_plain(path) as file:
        if zipfile.is_zipfile(file):
            _check_archive(file)
        file.seek(0)
        with warnings.catch_warnings(action="ignore"):  # about old formats
            content = torch.load(file, map_location="cpu", weights_only=True)
    _check_sizes(content)
    return content


def _check_archive(file: IO[bytes]) -> None:
    """Check that the parts of the archive are what they are said to be, none larger than the file: `torch.load` does not."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed, which torch.save does not do")
        if sum(part.file_size for part in parts) > size:
            raise ValueError("its parts are together larger than the file")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is wrong")


def _check_sizes(content: Any) -> None:
    """Check how much tensors repeat their numbers, as expanded ones do: copies of a few bytes can take gigabytes."""
    seen: set[int] = set()
    waiting = [content]
    repeated = 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # a pickle may refer to one list many times, in lists of lists
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            size = value.numel() * value.element_size() if value.layout == torch.strided else 0
            repeated += size if size > value.untyped_storage().nbytes() else 0
            if repeated > MAX_REPEATED:
                raise ValueError(
                    f"a tensor of the shape {tuple(value.shape)} repeats the few numbers that the file holds of it; at most "
                    f"{MAX_REPEATED >> 20} MiB of such tensors are read"
                )
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
