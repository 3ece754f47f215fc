"""Errors of the proxy task: of the task itself, and of decoders that get no reward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nasdsl.backends.layer_errors import first_line, is_out_of_memory, layer_error_message
from nasdsl.training.errors import TrainingError


class ProxyError(TrainingError):
    """A proxy task that cannot be made, or a decoder that does not fit it; the message says what to change."""


class OutOfMemory(ProxyError):
    """The decoder does not fit into memory at this batch size."""


class NonFiniteFeatures(ProxyError):
    """Features are not finite, or overflow the type that they are stored in."""


class Failed(ProxyError):
    """The decoder is valid, but torch cannot run it on this machine."""


class DeviceLost(Failed):
    """The GPU reported an error after which this process cannot use it any more, for any decoder."""


class Stopped(ProxyError):
    """The caller stopped the training early.

    Attributes:
        step: the last one.
        loss: of that step.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"stopped early, after step {step} with the loss {loss:.4g}")
        self.step, self.loss = step, loss

    def __reduce__(self) -> tuple[type, tuple[int, float]]:  # workers send it
        return type(self), (self.step, self.loss)


@contextmanager
def translate_errors(work: str) -> Iterator[None]:
    """Raise errors of torch as errors of this module.

    Args:
        work: what is computed, for the message; such as ``batches of 8 crops of 384x384``.

    Raises:
        OutOfMemory: torch ran out of memory.
        DeviceLost: CUDA reported an error.
        Failed: any other RuntimeError, and a ValueError of a layer of the decoder.
    """
    try:
        yield
        return
    except (RuntimeError, ValueError, MemoryError) as error:
        layer, reason = layer_error_message(error), first_line(error)
        if not is_out_of_memory(error):
            if reason.startswith("CUDA error"):
                raise DeviceLost(f"the GPU failed: {reason}") from error
            if isinstance(error, ValueError) and layer is None:
                raise
            raise Failed(f"torch cannot run this decoder: {layer or reason}") from error
    # Outside of the handlers, because the error keeps the tensors of its frames alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(f"not enough memory for {work}: {layer or reason}")
