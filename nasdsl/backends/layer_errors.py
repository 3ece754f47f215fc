"""Errors that a layer raises while a built decoder runs, with the layer's place in the decoder's text. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from nasdsl.ir.graph import Node

_ATTRIBUTE = "nasdsl_layer"
_FEW_VALUES = "more than 1 value per channel"
"""In torch's message about a BatchNorm that is trained on a single value."""


class RunningLayer(NamedTuple):
    """A layer that was running when an error was raised.

    Attributes:
        node: its node in the graph.
        shapes: of its operands.
    """

    node: Node
    shapes: tuple[tuple[int, ...], ...]

    @property
    def on(self) -> str:
        return ", ".join(str(list(shape)) for shape in self.shapes)


def attach(error: Exception, layer: RunningLayer) -> None:
    """Record in an error which layer was running: for `layer_of`, and as a note that tracebacks show."""
    setattr(error, _ATTRIBUTE, layer)
    span = layer.node.span
    error.add_note(f"while running {layer.node.id} ({span}: {span.text}) on {layer.on}")


def layer_of(error: BaseException) -> RunningLayer | None:
    """The layer that was running when this error was raised; None for errors from elsewhere."""
    layer: RunningLayer | None = getattr(error, _ATTRIBUTE, None)
    return layer


def layer_error_message(error: BaseException) -> str | None:
    """One line for people: file, line and column, the value, shapes and reason. None for errors from outside of layers."""
    layer = layer_of(error)
    if layer is None:
        return None
    span, reason = layer.node.span, first_line(error)
    if not isinstance(error, RuntimeError | ValueError):  # torch's say it all, a KeyError is only its key
        reason = f"{type(error).__name__}: {reason}"
    text = " ".join(span.text.split())
    text = text if len(text) <= 90 else text[:89] + "…"
    advice = ""
    if _FEW_VALUES in reason:
        advice = "; a BatchNorm cannot be trained on one pixel of one image: use a larger batch, or no norm here (norm=none)"
    return f"{span}: {layer.node.id} (in `{text}`) cannot be computed from {layer.on}: {reason}{advice}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is torch's or Python's way to say that memory is not enough, on any device."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    reason = first_line(error)
    return isinstance(error, RuntimeError) and ("bad_alloc" in reason or ("allocate" in reason and "memory" in reason))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
