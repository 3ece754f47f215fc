"""``nasdsl worker``: evaluates the trials of searches that share a folder with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import exit_on_error
from nasdsl.cli.output import pluralize

if TYPE_CHECKING:
    from nasdsl.search.workers.folder_worker import FolderWorker

LINE_EVERY = 10.0
"""Seconds between two lines where standard error is no terminal."""

Seconds = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--idle", type=Seconds, metavar="SECONDS", help="End after so long without a task.  [default: wait without end]")
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="CPU threads of an evaluation.  [default: OMP_NUM_THREADS, or all cores]",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps.  [default: as for the search]")
@click.option(
    "--cache", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder of the feature cache on this machine.  [default: that of the search]",
)  # fmt: skip
@click.option("--data", metavar="SPEC", help="Where the dataset is on this machine.  [default: as for the search]")
@click.option(
    "--backbone-weights", metavar="PATH", help="Where the backbone's weights are on this machine.  [default: as for the search]"
)
@click.option(
    "--trust-pickle", is_flag=True,
    help="Also take part in searches with an evaluation of their own, a Python pickle in DIR: whoever can write to DIR can "
    "then run any code as this user.",
)  # fmt: skip
def worker(
    folder: Path,
    idle: float | None,
    threads: int | None,
    device: str | None,
    cache: Path | None,
    data: str | None,
    backbone_weights: str | None,
    trust_pickle: bool,
) -> None:
    """Evaluate trials of the searches that were started with `--workers folder:DIR`.

    \b
    nasdsl search zoo:nas_fcos_fpn --data DIR --workers folder:/shared/search --out runs/search
    nasdsl worker /shared/search                  # any number of times, on any machine that shares the folder

    Workers may be started before the search or while it runs, and may be stopped or killed at any time: another one takes
    the trial that they had. They need the same versions of nasdsl and torch, and the images and weights at the same paths
    (or at those of --data and --backbone-weights); both are checked. A worker evaluates one trial at a time: start one for
    each GPU, with CUDA_VISIBLE_DEVICES or --device.

    Ctrl-C and SIGTERM give the evaluation under way ten seconds to end; then its trial is given back.
    """
    from nasdsl.search.workers.folder_worker import GRACE, FolderWorker, WorkerOptions

    changes = {
        "device": device, "cache": None if cache is None else str(cache.absolute()), "data": data,
        "backbone_weights": backbone_weights,
    }  # fmt: skip
    options = WorkerOptions(
        changes={name: value for name, value in changes.items() if value is not None},
        threads=threads,
        trust_pickle=trust_pickle,
        idle=idle,
    )
    display = _Display()
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if received and signum == signal.SIGINT:
            sys.exit(128 + signum)
        received.append(signum)
        # Not print: the signal may have interrupted one.
        os.write(2, f"\nthe evaluation under way has {GRACE:g} s to end; Ctrl-C again leaves at once\n".encode())

    with exit_on_error():
        member = FolderWorker(folder, options, display.say, display.show)
        display.worker = member
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, stop)
        with display:
            display.say(f"{member.name} takes trials from {folder}")
            member.run(lambda: bool(received))
    display.say(f"{member.name} ends after {_summary(member)}")
    if received:
        sys.exit(128 + received[0])


class _Display:
    """The status of a worker on standard error: in place on a terminal, a line when it is time for one elsewhere."""

    worker: FolderWorker | None = None

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("") if self._console.is_terminal else None
        self._last, self._line = time.monotonic(), ""

    def __enter__(self) -> None:
        (self._status or nullcontext()).__enter__()

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self) -> None:
        """Show the status, if it has changed."""
        assert self.worker is not None
        line = f"{self.worker.status}  {_summary(self.worker)}"
        if line == self._line:
            return
        if self._status is not None:
            self._status.update(line)
        elif time.monotonic() - self._last < LINE_EVERY:
            return
        else:
            self.say(line)
        self._last, self._line = time.monotonic(), line


def _summary(worker: FolderWorker) -> str:
    """``12 evaluations, 3.4 s each, 1 lost``."""
    pace = f", {worker.seconds / worker.evaluated:.1f} s each" if worker.evaluated else ""
    lost = f", {worker.lost} lost" if worker.lost else ""
    return f"{pluralize(worker.evaluated, 'evaluation')}{pace}{lost}"
