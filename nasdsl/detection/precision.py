"""Precisions of inference: the type of weights and maps, and whether products of float32 may be in TensorFloat-32."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch.nn import functional as F

Precision: TypeAlias = Literal["float32", "tf32", "bfloat16", "float16"]
"""``tf32``: tensors are float32, and factors of their products have 10 bits, which GPUs multiply faster."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_TF32_CAPABILITY = (8, 0)

_settings_lock = threading.RLock()
"""torch's settings are of the whole process."""


class PrecisionError(ValueError):
    """A precision that is not known, or that a device does not have; the message says which ones there are."""


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of weights and maps."""
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device cannot compute in.

    Raises:
        PrecisionError: so; or there is no such precision.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(f"precision is {precision!r}; expected {', '.join(PRECISIONS)}")
    if precision == "tf32":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < _TF32_CAPABILITY:
            raise PrecisionError(
                f"precision is 'tf32', which {device} does not have: it is a mode of NVIDIA's GPUs from Ampere on; put the "
                "detector on one before, or take float32"
            )
    elif precision != "float32":
        dtype = dtype_of(precision)
        try:
            x = torch.zeros(8, 8, 3, 3, dtype=dtype, device=device)
            F.conv2d(x, x, padding=1)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise PrecisionError(f"precision is {precision!r}, which {device} does not have here ({reason})") from error


@contextmanager
def products_of(precision: Precision | None, device: torch.device) -> Iterator[None]:
    """A block in which products of float32 on a GPU are in TensorFloat-32 with ``tf32``, and are not with ``float32``.

    With others nothing changes. These are settings of the process: other threads that run torch itself meanwhile see them, and
    those that are in such a block wait.
    """
    if device.type != "cuda" or precision not in ("float32", "tf32"):
        yield
        return
    with _settings_lock:
        restore = _read_settings()
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        try:
            yield
        finally:
            restore()


def _read_settings() -> Callable[[], None]:
    """A function that restores torch's settings of float32 products, which from torch 2.9 on have a newer form too."""
    saved: list[tuple[Any, str, Any]] = []
    backends: Any = torch.backends
    for holder, name in (
        (backends.cudnn, "allow_tf32"),
        (backends.cuda.matmul, "allow_tf32"),
        (getattr(backends.cudnn, "conv", None), "fp32_precision"),
        (getattr(backends.cudnn, "rnn", None), "fp32_precision"),
        (backends.cuda.matmul, "fp32_precision"),
    ):
        # The older form cannot be read where the newer one says what it cannot express; an old torch has no newer form.
        with suppress(RuntimeError, AttributeError):
            saved.append((holder, name, getattr(holder, name)))

    def restore() -> None:
        for holder, name, value in saved:
            setattr(holder, name, value)

    return restore
