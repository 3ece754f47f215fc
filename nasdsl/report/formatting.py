"""Formatting of numbers for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime

MISSING = "\N{EN DASH}"


def amount(value: float | None) -> str:
    """Three significant digits and a unit: ``1.13 G``, ``832 k``."""
    if value is None:
        return MISSING
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{_three_digits(value / scale)} {unit}"
    return _three_digits(value) if value % 1 else f"{value:.0f}"


def latency(seconds: float | None) -> str:
    """``15.2 ms``."""
    return MISSING if seconds is None else f"{_three_digits(1000 * seconds)} ms"


def _three_digits(value: float) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, 3 - whole)}f}"


def reward(value: float | None) -> str:
    """Four decimals, which suffice to tell most rewards apart, with a minus sign instead of a hyphen."""
    return MISSING if value is None else signed(f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}")


def signed(text: str) -> str:
    """The text with minus signs instead of hyphens."""
    return text.replace("-", "\N{MINUS SIGN}")


def points(value: float | None) -> str:
    """An AP between 0 and 1 in points: ``51.2``."""
    return MISSING if value is None else f"{100 * value:.1f}"


def percent(value: float) -> str:
    """A fraction in percent: ``14 %``."""
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """``2 d 03 h``, ``2 h 05 min``, ``3 min 20 s``, ``12.3 s``."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 60 else "1 min 00 s"
    whole = round(seconds)
    for size, large, small, part in ((86400, "d", "h", 3600), (3600, "h", "min", 60)):
        if whole >= size:
            return f"{whole // size} {large} {whole % size // part:02} {small}"
    return f"{whole // 60} min {whole % 60:02} s"


def timestamp(time: float | None) -> str:
    """``2025-11-25 10:20 UTC``."""
    return MISSING if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")


def count(number: int, what: str) -> str:
    """A number with a noun: ``1 trial``, ``2,800 trials``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def round_digits(value: float) -> float:
    """Round to six significant digits: enough for a chart, and half the size of the page."""
    return value if not value or not math.isfinite(value) else round(value, 5 - math.floor(math.log10(abs(value))))


def truncate(text: str, longest: int = 28) -> str:
    """The text cut to `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
