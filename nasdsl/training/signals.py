"""SIGINT and SIGTERM: finish the step, save, leave with the exit code that shells expect."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupted(SystemExit):
    """A training that a signal ended, after saving. Uncaught, it ends the process with code 130 or 143.

    Attributes:
        step: how far it got.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.step = step


class Stop:
    """While entered, the first SIGINT or SIGTERM is remembered; a second SIGINT leaves at once, with code 130.

    Attributes:
        signum: the signal that came, or 0.
        told: what people read when it comes.
    """

    told = "finishing the step and saving"

    def __init__(self) -> None:
        self.signum = 0
        self._owner = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what signal.signal returned

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
        os.write(2, f"\n{self.told}; Ctrl-C again leaves at once\n".encode())
        self._stopped()

    def _stopped(self) -> None:
        """What else happens at the first signal; nothing here."""
