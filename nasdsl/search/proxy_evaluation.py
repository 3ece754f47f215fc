"""The proxy task as a search evaluates with it: in whichever process, with a curve, bars and latency."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from nasdsl.search.early_stopping import gives_up
from nasdsl.search.errors import SearchError
from nasdsl.search.trial import Bars, Evaluated

if TYPE_CHECKING:
    from nasdsl.training.proxy import ProxySpec, ProxyTask

CHECKS: Final = (0.25, 0.5, 0.75)
"""Where in the training the loss is recorded, and a rule of early stopping may give it up; shares of the iterations."""
WINDOW: Final = 0.1
"""Steps that a recorded loss is the mean of; as a share of the iterations."""

_NO_MATTER: Final = ("cache", "memory_limit", "device")
"""Settings of a spec that say where and how, and not what."""


class ProxyEvaluation:
    """Evaluates texts on a proxy task, and can be sent to other processes.

    Each process makes the task when it evaluates the first text, and keeps it; `prepare` has the features made before, and
    processes that it is sent to map their file, whatever the spec's ``memory_limit``.

    In the details of what it gives are ``losses`` on meta-val by name, the seconds of the parts (see `Scored`), and ``curve``:
    the smoothed training loss at the check steps, which are `checks` of the iterations. Smoothed is the mean over the last
    `WINDOW` of the iterations up to the step. All samples train on the same crops in the same order, so that at a step their
    windows hold the same batches, and what differs is the decoders.

    Args:
        spec: of the task.
        latency: height and width of an image for which the seconds of a decoder's forward pass are measured (``latency`` in
            the details). None: they are not.
        checks: shares of the iterations, above 0 and below 1.
        quiet: show nothing while features are made.

    Attributes:
        spec: of the task.
        steps: the check steps.
        identity: all that rewards depend on besides the text, as plain values; `search` takes it as `task`.

    Raises:
        SearchError: the arguments make no sense.
    """

    def __init__(
        self,
        spec: ProxySpec,
        latency: tuple[int, int] | None = None,
        *,
        checks: Sequence[float] = CHECKS,
        quiet: bool = False,
    ) -> None:
        if latency is not None and min(latency) < 1:
            raise SearchError(f"latency is to be measured for an image of {latency}; expected height and width of 1 or more")
        if not all(0 < share < 1 for share in checks):
            raise SearchError(f"the checks of the proxy task are {list(checks)}; expected numbers above 0 and below 1")
        self.spec, self.latency, self.quiet = spec, latency, quiet
        rounded = {max(1, round(share * spec.iterations)) for share in checks}
        self.steps = tuple(sorted(step for step in rounded if step < spec.iterations))
        self._window = max(1, math.ceil(WINDOW * spec.iterations))
        self._task: ProxyTask | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """See the class."""
        what = {name: value for name, value in asdict(self.spec).items() if name not in _NO_MATTER}
        size = None if self.latency is None else list(self.latency)
        return {**what, "latency": size, "checks": list(self.steps), "window": self._window}

    def __getstate__(self) -> dict[str, Any]:
        # One copy of the features in memory for all processes of a machine: that of the system, for a mapped file.
        spec = self.spec if self.spec.cache is None else replace(self.spec, memory_limit=0)
        return {**self.__dict__, "spec": spec, "_task": None, "quiet": True}

    def prepare(self, *, keep: bool = True) -> None:
        """Make what all processes need, with progress: the features, and of the second stage the trained fpn's pyramids.

        Args:
            keep: hold them in this process, which will evaluate itself.

        Raises:
            As `ProxyTask`.
        """
        task = self._made()
        if not keep:
            self._task = None
        del task

    def __call__(self, text: str, bars: Bars | None = None) -> Evaluated:
        """The reward of a decoder; None, where its lowest smoothed loss by a check step was above the bar there.

        Raises:
            As calling a `ProxyTask`.
        """
        from nasdsl.training.proxy import Stopped

        task = self._made()
        curve: dict[int, float] = {}
        recent: deque[float] = deque(maxlen=self._window)

        def report(step: int, loss: float) -> bool:
            recent.append(loss)
            if step not in self.steps:
                return False
            curve[step] = math.fsum(recent) / len(recent)
            return gives_up(curve, bars or {}, step)

        try:
            scored = task(text, report)
        except Stopped as stopped:
            return Evaluated(None, {"curve": _named(curve), "stopped_at": stopped.step})
        details: dict[str, Any] = {"losses": scored.losses, "curve": _named(curve), **scored.details}
        if self.latency is not None:
            details["latency"] = task.latency(text, self.latency)
        return Evaluated(scored.reward, details)

    def _made(self) -> ProxyTask:
        if self._task is None:
            from nasdsl.training.proxy import ProxyTask

            self._task = ProxyTask(self.spec, quiet=self.quiet)
        return self._task


def _named(curve: Mapping[int, float]) -> dict[str, float]:
    return {str(step): loss for step, loss in curve.items()}
