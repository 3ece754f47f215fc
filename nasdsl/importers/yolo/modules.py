"""Modules of model files: their arguments, and what each does to channels and levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, TypeAlias

from nasdsl.importers.yolo.model_file import Item

Argument: TypeAlias = Literal["channels", "odd", "count", "stride", "flag", "share", "factor", "mode", "any", "kernel or none"]
"""What an argument accepts. ``channels`` are multiplied by the width multiple, ``share`` is a number above 0 and at most 1."""


@dataclass(frozen=True)
class Module:
    """A module.

    Attributes:
        arguments: names, with what they accept and their defaults; None for one that must be given.
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
            "channels": ("channels", None), "kernel": ("odd", 1), "stride": ("stride", 1), "padding": ("kernel or none", None),
            "groups": ("count", 1), "dilation": ("count", 1), "activation": ("flag", True),
        }
    ),
    "Bottleneck": Module(
        {
            "channels": ("channels", None), "shortcut": ("flag", True), "groups": ("count", 1), "kernels": ("any", None),
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
    "Upsample": Module({"size": ("any", None), "factor": ("factor", 2), "mode": ("mode", "nearest")}),
    "Concat": Module({"dimension": ("any", 1)}),
    "Detect": Module({"classes": ("any", None), "anchors": ("any", None)}),
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


def wrong_argument(item: Item, accepts: Argument) -> str:
    """What an argument should be; empty if it is."""
    value = item.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    checks: Mapping[Argument, tuple[Callable[[], bool], str]] = {
        "channels": (lambda: is_count, "a number of channels"),
        "odd": (lambda: is_count and value % 2 == 1, "an odd number"),
        "count": (lambda: is_count, "a whole number of 1 or more"),
        "stride": (lambda: is_count and value in (1, 2), "1 or 2"),
        "flag": (lambda: isinstance(value, bool), "True or False"),
        "share": (lambda: is_number and 0 < value <= 1, "a number above 0 and at most 1"),
        "factor": (lambda: is_count and value in (2, 4, 8), "2, 4 or 8"),
        "mode": (lambda: value in ("nearest", "bilinear"), "nearest or bilinear"),
        "kernel or none": (
            lambda: value is None or (isinstance(value, int) and not isinstance(value, bool)),
            "a number or None",
        ),
    }
    if accepts not in checks:
        return ""
    check, expected = checks[accepts]
    return "" if check() else expected
