"""Pauses of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause the garbage collector, as a context or as a decorator, ``@paused_collector()``.

    Trees and graphs have no cycles: what is dropped is freed at once, and a collection finds next to nothing. While many
    objects are made there would be one each time that their number has grown by a quarter, which takes more than half of the
    time of a long text. Pause for one text at a time: a check leaves some hundred objects in cycles, of local functions that
    call themselves.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
