"""SIGINT and SIGTERM during a search: nothing new is begun, what is under way may end soon, and then it is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final, Self

from nasdsl.training.signals import Stop

GRACE: Final = 10.0
"""Seconds that evaluations under way have to end after a signal; then they are given up, and made again after a resume."""


class GivenUp(BaseException):
    """An evaluation in this process that did not end in time after a signal."""


class Leaving(Stop):
    """As in a training, with a time limit for the evaluations that are under way.

    Args:
        active: False leaves signals as they are.
    """

    told = f"evaluations under way have {GRACE:g} s to end"

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self._active = active
        self._evaluating = False

    def __enter__(self) -> Self:
        if self._active:
            super().__enter__()
        if self._before and hasattr(signal, "SIGALRM"):
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(signal, "SIGALRM") and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        super().__exit__(kind, error, trace)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within, an evaluation may be running in this process; it is given up when its time is over."""
        self._evaluating = True
        try:
            yield
        except GivenUp:
            pass
        except SystemExit as leaving:  # the evaluation has a handler of its own, as nasdsl.training has
            if not isinstance(leaving.code, int) or leaving.code <= 128 or not self._before or self.signum:
                raise
            self.signum = leaving.code - 128
        finally:
            self._evaluating = False

    def _stopped(self) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _give_up(self, signum: int, frame: FrameType | None) -> None:
        if self._evaluating and os.getpid() == self._owner:
            raise GivenUp
