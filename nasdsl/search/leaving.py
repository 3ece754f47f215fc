"""SIGINT and SIGTERM during a search: nothing new is begun, what is under way may end soon, and then it is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final, Self

GRACE: Final = 10.0
"""Seconds that evaluations under way have to end after a signal; then they are given up, and made again after a resume."""


class GivenUp(BaseException):
    """An evaluation in this process that did not end in time after a signal."""


class Leaving:
    """While entered, the first signal is remembered, and a second SIGINT leaves at once, with code 130.

    Args:
        active: False leaves signals as they are.

    Attributes:
        signum: the signal that came, or 0.
    """

    def __init__(self, active: bool = True) -> None:
        self.signum = 0
        self._active = active
        self._owner = os.getpid()
        self._evaluating = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if self._active and threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
            if hasattr(signal, "SIGALRM"):
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(signal, "SIGALRM") and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what signal.signal returned

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

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked worker: Ctrl-C reaches it as well, and the main process ends it
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if self.signum and signum == signal.SIGINT:
            raise SystemExit(128 + signum)
        if self.signum:
            return
        self.signum = signum
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"\nevaluations under way have {GRACE:g} s to end; Ctrl-C again leaves at once\n".encode())
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _give_up(self, signum: int, frame: FrameType | None) -> None:
        if self._evaluating and os.getpid() == self._owner:
            raise GivenUp
