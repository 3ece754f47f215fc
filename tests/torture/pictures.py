"""Data sets with a broken picture or annotation, through the commands that read them: survived, named, and within memory.

A case is one of `broken_sets` and one command.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from small_spaces import BESIDE

from torture.broken_sets import ALL, CLASSES, FINE, NAMED, PICTURE_CHANGES, PICTURES, SECRET, Annotation, Set, changes_of
from torture.kills import TRAIN
from torture.processes import Command
from torture.subject import Case, Report, Subject

MEGABYTES = 1500
SECONDS = 60.0
"""Of processor time, for one command."""


class Commands:
    """Runs the commands.

    Args:
        folder: for what is prepared, and the cases.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "plain.nas").write_text(BESIDE)
        good = self.make(folder / "good", "voc", random.Random(0))
        good.write()
        command = Command(self.training(good, folder / "run"), folder / "log")
        assert command.run() == 0, (folder / "log").read_text()

    def make(self, root: Path, form: str, rng: random.Random) -> Set:
        entries = [Annotation(f"im{n}.png", boxes=[(CLASSES[n % 2], 5 + n, 6, 40, 30 + n)]) for n in range(PICTURES)]
        return Set(root, form, rng, entries)

    def training(self, given: Set, out: Path) -> list[str]:
        data = ["--data", str(given.root), "--steps", "1", "--val-split", "val", "--out", str(out)]
        return ["train", str(self.folder / "plain.nas"), *_without(TRAIN, "--data", "--epochs", "--val-split"), *data]

    def command(self, given: Set, which: str, out: Path) -> list[str]:
        run = str(self.folder / "run")
        match which:
            case "data":
                return ["data", str(given.root)]
            case "train":
                return self.training(given, out)
            case "eval":
                return ["eval", run, "--data", str(given.root), "--workers", "0"]
        return ["detect", run, str(given.pictures / "*"), "-o", str(out)]

    def case(self, number: int, report: Report) -> None:
        form, name = ALL[number % len(ALL)]
        which = ("data", "train", "detect", "eval")[number // len(ALL) % 4]
        place = self.folder / f"case {number}"
        place.mkdir()
        broken = self.make(place / "set", form, random.Random(number))
        change, expected = changes_of(form)[name]
        named = change(broken)
        broken.write()
        report.about(f"{form}, {name}: {which}")
        report.count(f"commands, {which}")
        command = Command(self.command(broken, which, place / "out"), place / "log")
        start = time.monotonic()
        command.start()
        code, seconds, megabytes = waited(command)
        said = (place / "log").read_text(errors="replace")
        report.seconds[which] = max(seconds, report.seconds.get(which, 0.0))
        report.count("refused", code != 0)

        def wrong(what: str) -> None:
            report.finding(f"{report.text}: {what}: {' / '.join(said.splitlines()[-8:])[-1200:]}")

        if "Traceback" in said or "internal error" in said or code not in (0, 1, 2):
            wrong(f"it ends with code {code}")
        if SECRET in said:
            wrong("it reads a file that is not its own")
        if megabytes > MEGABYTES:
            wrong(f"it takes {megabytes:.0f} MB")
        if seconds > SECONDS:
            wrong(f"it takes {seconds:.0f} s of processor time, {time.monotonic() - start:.0f} s on the clock")
        reads_picture = which == "detect"
        if expected == NAMED and not (reads_picture and name not in PICTURE_CHANGES) and name not in ("another size",):
            is_gone = reads_picture and name in ("missing",)
            if named not in said and Path(named).stem not in said and not is_gone:
                wrong(f"it does not name {named}")
        if expected == FINE and code != 0:
            wrong(f"it ends with code {code}, and nothing is wrong")
        if code and not said.strip():
            wrong("it says nothing")


def _without(arguments: list[str], *options: str) -> list[str]:
    """Arguments without some options and their values."""
    left, skip = [], False
    for argument in arguments:
        if skip or argument in options:
            skip = not skip
            continue
        left.append(argument)
    return left


def waited(command: Command, seconds: float = 600) -> tuple[int, float, float]:
    """Exit code, seconds of processor time and megabytes at the peak of a command."""
    end = time.monotonic() + seconds
    while True:
        pid, status, used = os.wait4(command.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        if time.monotonic() > end:
            command.kill()
        time.sleep(0.01)


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Import what the commands need, and train a detector in a few steps."""
    import torch

    import nasdsl.cli.data
    import nasdsl.cli.detect
    import nasdsl.cli.eval
    import nasdsl.cli.train
    import nasdsl.training
    import nasdsl.training.predict  # noqa: F401  # for those that are forked

    torch.set_num_threads(1)
    yield Commands(folder).case


SUBJECT = Subject("pictures", "commands", 4 * len(ALL), start, hang=900, per_process=200)
