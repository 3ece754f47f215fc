"""Requirements of a latency, compared with what `nasdsl latency` measures or predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

from nasdsl.backends.cost import Size
from nasdsl.backends.requirements import latency_requirements
from nasdsl.decoder import Decoder
from nasdsl.syntax import ast


class Compared(NamedTuple):
    """A requirement, and whether a latency keeps it: None where it was measured on another runtime or at another size."""

    text: str
    kept: bool | None
    milliseconds: float

    def to_json(self) -> dict[str, Any]:
        return {"requirement": self.text, "kept": self.kept}

    @property
    def line(self) -> str:
        """The result for people."""
        if self.kept is None:
            return f"{self.text}: not compared, this is another runtime, size or batch"
        return f"{self.text}: {self.milliseconds:.3g} ms, {'kept' if self.kept else 'broken'}"


def required(decoder: Decoder | None) -> list[ast.Require]:
    """The requirements of a latency in a decoder's text."""
    return [] if decoder is None else latency_requirements(decoder.architecture.requirements)


def wanted(decoder: Decoder | None) -> tuple[str | None, Size | None]:
    """The runtime and the size that the first requirement names: what is measured where no options say otherwise."""
    for requirement in required(decoder):
        return (None if requirement.runtime is None else requirement.runtime.name), requirement.size
    return None, None


def compare(decoder: Decoder | None, runtime: str, size: Size, milliseconds: float, batch: int = 1) -> list[Compared]:
    """Compare a latency with the requirements of a decoder."""
    found = []
    for requirement in required(decoder):
        is_same = requirement.runtime is None or requirement.runtime.name == runtime
        is_same = is_same and requirement.size in (None, size) and batch == 1
        seconds, bound = milliseconds / 1000, requirement.bound.value
        kept = seconds < bound if requirement.comparison == "<" else seconds <= bound
        found.append(Compared(requirement.span.text, kept if is_same else None, milliseconds))
    return found
