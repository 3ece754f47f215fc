"""Opens data sets by their names on the command line: `voc:DIR`, `coco:DIR`, `shapes`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasdsl.data.coco import open_coco
from nasdsl.data.dataset import Dataset
from nasdsl.data.errors import DataError
from nasdsl.data.layouts import describe_layout
from nasdsl.data.shapes import open_shapes
from nasdsl.data.voc import open_voc

_FORMATS: dict[str, Callable[..., Dataset]] = {"voc": open_voc, "coco": open_coco, "shapes": open_shapes}
_EXPECTED = "expected voc:DIR, coco:DIR, shapes or shapes:COUNT"


def open_dataset(spec: str, split: str, **options: Any) -> Dataset:
    """Open the data set that `spec` names.

    Args:
        spec: ``voc:DIR``, ``coco:DIR``, ``shapes`` or ``shapes:COUNT``.
        split: ``train``, ``val``, ``test`` or any other that the folder has.
        options: of `open_voc`, `open_coco` or `open_shapes`; all of them have ``on_error="skip" | "refuse"``.

    Raises:
        BrokenData: an image or box is broken, and ``on_error="refuse"``.
        DataError: there is no such format, folder, split or option, or no usable image.
    """
    name, _, place = spec.partition(":")
    if name not in _FORMATS or (not place and name != "shapes"):
        raise DataError(f"{spec!r} is not a data set: {_EXPECTED}{_hint(spec)}")
    known = list(inspect.signature(_FORMATS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise DataError(f"{name}: has no option {option!r}; there are: {', '.join(known)}")
    return _FORMATS[name](place, split, **options)


def _hint(spec: str) -> str:
    """What an invalid `spec` was probably meant to be, to follow the error message."""
    name, _, place = spec.partition(":")
    if not spec:
        return ""
    if name.lower() in _FORMATS and name not in _FORMATS:
        return f"; formats are in lower case: {name.lower()}:{place}"
    if name in _FORMATS:
        return "; the folder is missing"
    folder = Path(spec).expanduser()
    return f"; {spec} has {describe_layout(folder)}" if folder.is_dir() else ""
