"""Who evaluates: this process, several on this machine, or a Ray cluster. Text goes out, a result comes back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from nasdsl.search.errors import WorkerError
from nasdsl.search.trial import Bars, Evaluate
from nasdsl.search.workers.pool import Finished


class Workers(Protocol):
    """What the loop knows of workers.

    Attributes:
        evaluates_here: evaluations run in this very process, within `wait`.
    """

    evaluates_here: bool

    @property
    def size(self) -> int:
        """How many evaluate at once."""
        ...

    def submit(self, number: int, text: str, bars: Bars) -> None:
        """Have a text evaluated, behind those submitted before, and given up by these bars (none: an empty mapping)."""
        ...

    def wait(self, seconds: float) -> Sequence[Finished]:
        """What has been finished; empty where nothing was within `seconds`."""
        ...

    def finish(self, seconds: float) -> Sequence[Finished]:
        """Begin nothing new, and give what is finished within `seconds` of what is under way."""
        ...

    def close(self) -> None:
        """End the workers, and what they are at."""
        ...


_SPEC = re.compile(r"(?P<kind>inline|process|ray)(?::(?P<count>[0-9]+))?(?:@(?P<address>\S+))?")


def parse_workers(spec: str) -> tuple[str, int | None, str | None]:
    """Kind, number and address of ``inline``, ``process:4``, ``ray``, ``ray:4``, ``ray@auto`` or ``ray:4@HOST:PORT``.

    Raises:
        WorkerError: it reads otherwise.
    """
    found = _SPEC.fullmatch(spec)
    count = int(found["count"]) if found and found["count"] else None
    fits = found is not None and count != 0 and not (found["address"] and found["kind"] != "ray")
    if not fits or found is None or (found["kind"] == "inline" and count) or (found["kind"] == "process" and not count):
        raise WorkerError(f"workers are {spec!r}; expected inline, process:N, ray, ray:N or ray:N@ADDRESS")
    return found["kind"], count, found["address"]


def make_workers(spec: str, evaluate: Evaluate, timeout: float | None = None) -> Workers:
    """Workers, started and ready.

    Args:
        spec: see `parse_workers`.
        timeout: seconds that an evaluation may take.

    Raises:
        WorkerError: the specification is wrong, `evaluate` cannot be sent to workers, or they do not start.
    """
    kind, count, address = parse_workers(spec)
    if timeout is not None and not timeout > 0:
        raise WorkerError(f"timeout is {timeout:g}; expected seconds above 0, or none")
    if kind == "inline":
        from nasdsl.search.workers.inline import Inline

        if timeout is not None:
            raise WorkerError("a timeout needs workers that can be ended: process:1 instead of inline")
        return Inline(evaluate)
    if kind == "process":
        from nasdsl.search.workers.process import start_processes

        assert count is not None
        return start_processes(evaluate, count, timeout)
    from nasdsl.search.workers.ray import start_actors

    return start_actors(evaluate, count, address, timeout)
