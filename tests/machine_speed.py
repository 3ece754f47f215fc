"""How slow this machine is, so that bounds in seconds mean the same on each."""

from __future__ import annotations

import time

NOMINAL = 0.08
"""Processor seconds that `_work` takes on the core for which the bounds are meant."""


def slowness() -> float:
    """By how much longer this core takes now for plain Python than the nominal one; 1 where it is faster.

    To be asked right beside what is bounded: a shared core has another speed a few minutes later.
    """
    return max(1.0, min(_work() for _ in range(3)) / NOMINAL)


def _work() -> float:
    start, kept = time.process_time(), {}
    for number in range(1_000_000):
        kept[number & 1023] = (number, str(number))
    return time.process_time() - start
