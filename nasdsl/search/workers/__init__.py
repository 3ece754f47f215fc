"""Workers that evaluate texts: this process, others on this machine, actors of a Ray cluster, or those of a shared folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Evaluate
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers.pool import Finished


class Workers(Protocol):
    """The interface between the search loop and its workers.

    Attributes:
        evaluates_here: evaluations run in this process, within `wait`.
    """

    evaluates_here: bool

    @property
    def size(self) -> int:
        """How many texts are evaluated at once."""
        ...

    def submit(self, number: int, text: str, thresholds: Thresholds) -> None:
        """Queue a text for evaluation.

        Args:
            thresholds: of early stopping; empty without.
        """
        ...

    def wait(self, seconds: float) -> Sequence[Finished]:
        """Wait for results; empty if there are none within `seconds`."""
        ...

    def finish(self, seconds: float) -> Sequence[Finished]:
        """Drop the queue, and return the results of running evaluations that end within `seconds`."""
        ...

    def close(self) -> None:
        """Stop the workers and their evaluations."""
        ...


_SPEC = re.compile(r"(?P<kind>inline|process|ray)(?::(?P<count>[0-9]+))?(?:@(?P<address>\S+))?")


def parse_workers(spec: str, timeout: float | None = None) -> tuple[str, int | None, str | None]:
    """Parse ``inline``, ``process:4``, ``ray``, ``ray:4``, ``ray@auto``, ``ray:4@HOST:PORT`` or ``folder:DIR``.

    Args:
        timeout: limit of an evaluation in seconds, checked with the specification.

    Returns:
        Kind, number, and address or folder.

    Raises:
        WorkerError: the text has another form, or such workers cannot have this timeout.
    """
    if timeout is not None and not timeout > 0:
        raise WorkerError(f"timeout is {timeout:g}; expected seconds above 0, or none")
    if spec.startswith("folder:") and spec != "folder:":
        return "folder", None, spec.removeprefix("folder:")
    match = _SPEC.fullmatch(spec)
    count = int(match["count"]) if match and match["count"] else None
    is_valid = match is not None and count != 0 and not (match["address"] and match["kind"] != "ray")
    if not is_valid or match is None or (match["kind"] == "inline" and count) or (match["kind"] == "process" and not count):
        raise WorkerError(f"workers are {spec!r}; expected inline, process:N, ray, ray:N, ray:N@ADDRESS or folder:DIR")
    if timeout is not None and match["kind"] == "inline":
        raise WorkerError("a timeout needs workers that can be ended: process:1 instead of inline")
    return match["kind"], count, match["address"]


def shared_gpus_of(spec: str) -> list[str]:
    """The GPUs on which several workers of a specification are going to evaluate.

    Raises:
        WorkerError: see `parse_workers`.
    """
    kind, count, _ = parse_workers(spec)
    if kind != "process" or count is None:
        return []
    from nasdsl.search.workers.process import shared_gpus

    return shared_gpus(count)


def make_workers(spec: str, evaluate: Evaluate, timeout: float | None = None, identity: str | None = None) -> Workers:
    """Start workers, and return them when they are ready. (Those of a folder are started by others, at any time.)

    Args:
        spec: see `parse_workers`.
        timeout: limit of an evaluation in seconds.
        identity: of the search; a search that is resumed with the same finds results of workers in a folder. None: a new one.

    Raises:
        WorkerError: the specification is invalid, `evaluate` cannot be sent to workers, or they do not start.
    """
    kind, count, address = parse_workers(spec, timeout)
    if kind == "inline":
        from nasdsl.search.workers.inline import InlineWorker

        return InlineWorker(evaluate)
    if kind == "process":
        from nasdsl.search.workers.process import start_processes

        assert count is not None
        return start_processes(evaluate, count, timeout)
    if kind == "folder":
        from nasdsl.search.workers.folder import FolderWorkers

        assert address is not None
        return FolderWorkers(Path(address), evaluate, timeout, identity or uuid4().hex[:16])
    from nasdsl.search.workers.ray import start_actors

    return start_actors(evaluate, count, address, timeout)
