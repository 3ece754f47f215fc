"""SIGINT and SIGTERM: finish the work under way, save, exit with the code that shells expect."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupted(SystemExit):
    """Raised when a signal has ended a training or a search and its state is saved. Uncaught, the exit code is 130 or 143.

    Attributes:
        step: the last training step, or the number of finished evaluations.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.step = step


class _GraceExpired(BaseException):
    """Ends the body of `SignalHandler.interruptible`."""


class SignalHandler:
    """Context manager that defers SIGINT and SIGTERM: the first is stored in `signum`, a second SIGINT exits with code 130.

    Outside the main thread nothing is handled, because Python allows handlers nowhere else.

    Args:
        message: what is printed to stderr at the first signal.
        grace: seconds that the body of `interruptible` may go on for after the first signal. None: without limit.
        active: False leaves the signals alone.

    Attributes:
        signum: the first signal that was received, or 0.
    """

    def __init__(
        self, message: str = "finishing the step and saving", *, grace: float | None = None, active: bool = True
    ) -> None:
        self.signum = 0
        self._message, self._active = message, active
        self._grace = grace if hasattr(signal, "SIGALRM") else None  # not on Windows
        self._interruptible = False
        self._owner = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if self._active and threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
            if self._grace is not None:
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._expire)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._grace is not None and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what signal.signal returned

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run a block that is abandoned when `grace` seconds have passed since the first signal.

        A block with signal handlers of its own may leave by `SystemExit`; its signal is then stored in `signum`.
        """
        self._interruptible = True
        try:
            yield
        except _GraceExpired:
            pass
        except SystemExit as error:
            if not isinstance(error.code, int) or error.code <= 128 or not self._before or self.signum:
                raise
            self.signum = error.code - 128
        finally:
            self._interruptible = False

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
        os.write(2, f"\n{self._message}; Ctrl-C again leaves at once\n".encode())
        if self._grace is not None:
            signal.setitimer(signal.ITIMER_REAL, self._grace)

    def _expire(self, signum: int, frame: FrameType | None) -> None:
        if self._interruptible and os.getpid() == self._owner:
            raise _GraceExpired
