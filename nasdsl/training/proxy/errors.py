"""The verdicts on a decoder that gets no reward, and what can be wrong with the task itself."""

from __future__ import annotations

from nasdsl.training.errors import TrainingError


class ProxyError(TrainingError):
    """A proxy task that cannot be made, or a text that does not fit it; the message says what to change."""


class OutOfMemory(ProxyError):
    """A decoder that does not fit into memory at this batch size."""


class NonFiniteFeatures(ProxyError):
    """Features that are not finite, or not in the type of numbers that they are kept in."""


class Failed(ProxyError):
    """A decoder that checks, and that torch cannot run here."""


class DeviceLost(Failed):
    """A GPU that reports an error after which a process can compute nothing on it any more, whatever the decoder is."""


class Stopped(ProxyError):
    """A decoder whose training the caller gave up.

    Attributes:
        step: the last one.
        loss: of that step.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"stopped early, after step {step} with the loss {loss:.4g}")
        self.step, self.loss = step, loss

    def __reduce__(self) -> tuple[type, tuple[int, float]]:  # workers send it
        return type(self), (self.step, self.loss)
