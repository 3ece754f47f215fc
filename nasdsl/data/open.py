"""`voc:DIR`, `coco:DIR`, `shapes`: from the words of the command line to a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nasdsl.data.coco import open_coco
from nasdsl.data.dataset import Dataset
from nasdsl.data.errors import DataError
from nasdsl.data.shapes import open_shapes
from nasdsl.data.voc import open_voc

_FORMATS: dict[str, Callable[..., Dataset]] = {"voc": open_voc, "coco": open_coco, "shapes": open_shapes}
_USAGE = "voc:DIR, coco:DIR, shapes or shapes:COUNT"


def open_dataset(spec: str, split: str, **options: Any) -> Dataset:
    """The data set that `spec` names.

    Args:
        spec: ``voc:DIR``, ``coco:DIR``, ``shapes`` or ``shapes:COUNT``.
        split: ``train``, ``val``, ``test``, … : what the format's folder has.
        options: of `open_voc`, `open_coco` or `open_shapes`; all know ``on_error="skip" | "refuse"``.

    Raises:
        BrokenData: something in it is broken, and ``on_error="refuse"``.
        DataError: no such format, folder, split or option, or nothing usable is in it.
    """
    name, _, place = spec.partition(":")
    if name not in _FORMATS or (not place and name != "shapes"):
        raise DataError(f"{spec!r} is not a data set: expected {_USAGE}")
    known = list(inspect.signature(_FORMATS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise DataError(f"{name}: has no option {option!r}; there are: {', '.join(known)}")
    return _FORMATS[name](place, split, **options)
