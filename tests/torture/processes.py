"""Commands of nasdsl in processes of their own, which are killed at random instants, and what these leave behind."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
import types
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "NASDSL_TORTURE"
"""Environment variable by which the processes of a command are found."""
WRITES = ("write", "fsync", "replace", "rename", "link", "unlink", "mkdir")
"""Calls of `os` before which a process may be killed."""


@dataclass
class Command:
    """A command of nasdsl in a process that is forked from this one, so that it does not import torch once more.

    Args:
        arguments: as on the command line; or a function that is called instead.
        log: file for what it prints.
        kill_before: number of the call of `WRITES` before which it is killed; None: never.
        counter: file that gets the number of its calls of `WRITES`.
    """

    arguments: list[str] | Callable[[], object]
    log: Path
    kill_before: int | None = None
    counter: Path | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    pid: int = 0

    def start(self) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            self._be_the_command()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _be_the_command(self) -> None:
        os.setsid()
        os.environ[MARK] = self.mark
        file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.modules["__main__"] = types.ModuleType("__main__")  # so that spawned workers do not import that of the torture
        if self.kill_before is not None:
            die_before(self.kill_before)
        if self.counter is not None:
            count_writes(self.counter)
        if callable(self.arguments):
            self.arguments()
        else:
            from nasdsl.cli import main

            sys.argv = ["nasdsl", *self.arguments]
            main()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 600) -> int:
        """Its exit code; negative: the signal that ended it. After so many seconds it is killed, with the code of that."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.005)

    def run(self) -> int:
        """Start it and wait for its end."""
        self.start()
        return self.wait()

    def left_behind(self, seconds: float = 30) -> list[str]:
        """The command lines of processes that it started and that do not end within so many seconds."""
        end = time.monotonic() + seconds
        while (found := self._descendants()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def _descendants(self) -> list[str]:
        found = []
        wanted = f"{MARK}={self.mark}".encode()
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found += [line] if line else []  # a zombie has none
        return found

    def kill_all(self) -> None:
        """End all processes that it started."""
        wanted = f"{MARK}={self.mark}".encode()
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    if wanted in (process / "environ").read_bytes().split(b"\0"):
                        os.kill(int(process.name), signal.SIGKILL)


def die_before(number: int) -> None:
    """Let this process be killed before a call that changes files."""
    left = [number]

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return call

    for name in WRITES:
        setattr(os, name, patched(getattr(os, name)))


def count_writes(file: Path) -> None:
    """Let this process count, in a file, its calls that change files."""
    counter = os.open(file, os.O_WRONLY | os.O_CREAT)
    write, count = os.write, [0]

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            count[0] += 1
            os.pwrite(counter, b"%d" % count[0], 0)
            return real(*arguments, **more)

        return call

    for name in WRITES:
        setattr(os, name, patched(write if name == "write" else getattr(os, name)))


def killed(command: Command, rng: random.Random, seconds: float, writes: int) -> int:
    """The exit code of a command that is killed at a random instant: before one of its writes, or after a part of its time."""
    if writes and rng.random() < 0.5:
        command.kill_before = rng.randrange(writes)
        return command.run()
    command.start()
    time.sleep(seconds * rng.random())
    command.kill()
    return command.wait()
