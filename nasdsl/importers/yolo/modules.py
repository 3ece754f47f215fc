"""Modules of model files: their arguments, and what each does to channels and levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal, TypeAlias

Argument: TypeAlias = Literal[
    "channels",
    "odd",
    "count",
    "stride",
    "flag",
    "share",
    "factor",
    "mode",
    "padding",
    "none",
    "one",
    "classes",
    "anchors",
    "any",
]
"""What an argument accepts; see `ACCEPTS`. ``channels`` are multiplied by the width multiple."""


MAX_CHANNELS: Final = 65_536
"""Most channels of a layer in the language."""
MAX_KERNEL: Final = 63
"""Largest kernel of a convolution in the language."""


@dataclass(frozen=True)
class Module:
    """A module.

    Attributes:
        arguments: names, with what they accept and their defaults; ``channels`` must be given.
        in_repeats: the repeats are a number inside of the module, and not modules in a row.
        in_head: the head can have it; others are known for their channels and strides, as layers of a backbone.
    """

    arguments: Mapping[str, tuple[Argument, object]]
    in_repeats: bool = False
    in_head: bool = True


_CSP: Final[Mapping[str, tuple[Argument, object]]] = {
    "channels": ("channels", None), "shortcut": ("flag", True), "groups": ("count", 1), "share": ("share", 0.5),
}  # fmt: skip

MODULES: Final[Mapping[str, Module]] = {
    "Conv": Module(
        {
            "channels": ("channels", None), "kernel": ("odd", 1), "stride": ("stride", 1), "padding": ("padding", None),
            "groups": ("count", 1), "dilation": ("count", 1), "activation": ("flag", True),
        }
    ),
    "Bottleneck": Module(
        {
            "channels": ("channels", None), "shortcut": ("flag", True), "groups": ("count", 1), "kernels": ("none", None),
            "share": ("share", 0.5),
        }
    ),
    "C3": Module(_CSP, in_repeats=True),
    "C2f": Module({**_CSP, "shortcut": ("flag", False)}, in_repeats=True),
    "C3k2": Module(
        {
            "channels": ("channels", None), "c3k": ("flag", False), "share": ("share", 0.5), "groups": ("count", 1),
            "shortcut": ("flag", True),
        },
        in_repeats=True,
    ),
    "SPPF": Module({"channels": ("channels", None), "kernel": ("odd", 5)}),
    "Upsample": Module({"size": ("none", None), "factor": ("factor", 2), "mode": ("mode", "nearest")}),
    "Concat": Module({"dimension": ("one", 1)}),
    "Detect": Module({"classes": ("classes", "nc"), "anchors": ("anchors", None)}),
    "C2PSA": Module({"channels": ("channels", None)}, in_repeats=True, in_head=False),
    "C2": Module({"channels": ("channels", None)}, in_repeats=True, in_head=False),
    "SPP": Module({"channels": ("channels", None), "kernels": ("any", None)}, in_head=False),
    "Focus": Module({"channels": ("channels", None), "kernel": ("odd", 1)}, in_head=False),
}  # fmt: skip
"""Modules by name."""


def scaled_channels(given: float, multiple: float, most: float) -> int:
    """Channels of a module: at most `most`, times the multiple, rounded up to a multiple of 8."""
    return max(8, ceil(min(given, most) * multiple / 8) * 8)


def scaled_repeats(given: int, multiple: float) -> int:
    """Repeats of a module: one stays one, more are multiplied and rounded, and stay at least one."""
    return max(round(given * multiple), 1) if given > 1 else given


def _is_count(value: Any, most: int = MAX_CHANNELS) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


ACCEPTS: Final[Mapping[Argument, tuple[Callable[[Any], bool], str]]] = {
    "channels": (_is_count, f"a number of channels, at most {MAX_CHANNELS}"),
    "odd": (lambda value: _is_count(value, MAX_KERNEL) and value % 2 == 1, f"an odd number, at most {MAX_KERNEL}"),
    "count": (_is_count, f"1 to {MAX_CHANNELS}"),
    "stride": (lambda value: _is_count(value) and value in (1, 2), "1 or 2"),
    "flag": (lambda value: isinstance(value, bool), "True or False"),
    "share": (_is_share, "a number above 0 and at most 1"),
    "factor": (lambda value: _is_count(value) and value in (2, 4, 8), "2, 4 or 8"),
    "mode": (lambda value: value in ("nearest", "bilinear"), "nearest or bilinear"),
    "padding": (lambda value: value is None or value == 0 or _is_count(value), "a number or None"),
    "none": (lambda value: value is None, "None: other values cannot be converted"),
    "one": (lambda value: _is_count(value) and value == 1, "1, the channels"),
    "classes": (lambda value: value == "nc" or _is_count(value), "nc, or a number of classes"),
    "anchors": (lambda value: value is None or isinstance(value, str | list), "anchors, or a list of them"),
    "any": (lambda value: True, ""),
}
"""For each kind of argument, whether it accepts a value, and what it accepts in words."""
