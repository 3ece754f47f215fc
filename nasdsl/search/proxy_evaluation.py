"""Evaluation on the proxy task: in any process, with a loss curve for early stopping, and latency."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from nasdsl.search.early_stopping import should_stop
from nasdsl.search.errors import FpnError, SearchError
from nasdsl.search.evaluation import EvaluationResult, to_plain
from nasdsl.search.trial import Thresholds

if TYPE_CHECKING:
    from nasdsl.training.proxy import ProxySpec, ProxyTask
    from nasdsl.training.proxy.sharing import Handles, SharedFeatures

CHECKS: Final = (0.25, 0.5, 0.75)
"""When the loss is recorded and early stopping may end the training, as shares of the iterations."""
WINDOW: Final = 0.1
"""Number of steps that a recorded loss is the mean of, as a share of the iterations."""

_NOT_IN_IDENTITY: Final = ("cache", "memory_limit", "device")
"""Settings of a spec that rewards do not depend on."""


class ProxyEvaluation:
    """Function from a decoder's text to its reward on a proxy task. It can be pickled.

    Each process makes the task at its first text, and keeps it. `prepare` makes the features beforehand; processes that the
    evaluation is sent to map their file, whatever the spec's ``memory_limit``.

    The details of a result have ``losses`` on meta-val by name, the seconds of the parts (see
    `nasdsl.training.proxy.ProxyTask`), and ``curve``: the training loss at the check steps, each the mean over the last
    `WINDOW` of the iterations up to the step. All samples train on the same crops in the same order, so at a step all curves
    are of the same batches, and only the decoders differ.

    Args:
        spec: of the task.
        latency: height and width of an image for which the seconds of a decoder's forward pass are measured (``latency`` in
            the details). None: not measured.
        checks: the check steps as shares of the iterations, above 0 and below 1.
        quiet: show no progress while features are made.

    Attributes:
        spec: of the task.
        steps: the check steps.
        identity: everything that rewards depend on besides the text, as plain values; the `task` of `search`.

    Raises:
        SearchError: an argument is out of range.
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
        self._checks = tuple(checks)
        self._task: ProxyTask | None = None
        self._features: str | None = None
        self._shared: SharedFeatures | None = None  # that this process owns
        self._handles: Mapping[str, Handles] = {}  # of those of another process, by GPU

    @property
    def identity(self) -> dict[str, Any]:
        """See the class."""
        size = None if self.latency is None else list(self.latency)
        return {**identity_of(self.spec), "latency": size, "checks": list(self.steps), "window": self._window}

    def __getstate__(self) -> dict[str, Any]:
        # A mapped file has one copy in memory, the operating system's, for all processes of a machine.
        spec = self.spec if self.spec.cache is None else replace(self.spec, memory_limit=0)
        handles = {} if self._shared is None else self._shared.handles
        return {**self.__dict__, "spec": spec, "_task": None, "_shared": None, "_handles": handles, "quiet": True}

    def settings(self) -> dict[str, Any]:
        """Plain values from which `from_settings` makes this evaluation elsewhere; they survive JSON unchanged.

        After `prepare` they have the digest of all that the features depend on.
        """
        return {
            "spec": asdict(self.spec),
            "latency": self.latency,
            "checks": self._checks,
            "features": self._features,
            "identity": self.identity,
        }

    @staticmethod
    def from_settings(settings: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> ProxyEvaluation:
        """Make an evaluation, and its features unless they are cached.

        Args:
            settings: those of another process, from its `settings`.
            changes: of the spec: where data, weights and cache are on this machine, and its device.

        Raises:
            SearchError: rewards would be others than in the process that the settings are from.
            FpnError, ProxyError, DataError, BackboneError: see `prepare`.
        """
        from nasdsl.training.proxy import ProxySpec

        spec = ProxySpec(**settings["spec"])
        latency = None if settings["latency"] is None else tuple(settings["latency"])
        same = ProxyEvaluation(spec, latency, checks=settings["checks"])
        if to_plain(same.identity) != to_plain(settings["identity"]):
            raise SearchError("the settings of the proxy task mean something else here: the versions of nasdsl differ")
        spec = replace(spec, **(changes or {}))
        spec = spec if spec.cache is None else replace(spec, memory_limit=0)  # one copy for all processes of a machine
        evaluation = ProxyEvaluation(spec, latency, checks=settings["checks"], quiet=True)
        evaluation.prepare()
        if settings["features"] not in (None, evaluation._features):
            raise SearchError(
                f"the images or the weights of the backbone are not those of the search: {spec.data} (split {spec.split}), "
                f"weights {spec.backbone_weights}"
            )
        return evaluation

    def prepare(self, *, keep: bool = True, share_on: Sequence[str] = ()) -> None:
        """Make the features that all processes need, and in the second stage train the fpn and make its pyramids.

        Args:
            keep: keep the task in this process, which will evaluate texts itself.
            share_on: names of GPUs, in whose memory this process keeps the features for processes that it is sent to; until
                `release`.

        Raises:
            FpnError: the spec's fpn diverges, does not fit into memory, cannot be run, or has a pyramid that is not finite.
            ProxyError, DataError, BackboneError: see `nasdsl.training.proxy.ProxyTask`.
        """
        from nasdsl.training.proxy import DeviceLost, Diverged, Failed, NonFiniteFeatures, OutOfMemory

        try:
            self._features = self._get_task().features_digest
        except (Diverged, Failed, NonFiniteFeatures, OutOfMemory) as error:
            if self.spec.fpn is None or isinstance(error, DeviceLost):
                raise
            raise FpnError(f"the fpn cannot be trained: {error}") from None
        if share_on and self._get_task().device.type == "cuda":
            self._shared = self._get_task().share(share_on)
        if not keep:
            self._task = None

    def release(self) -> None:
        """Free what this process keeps for others, which must be gone."""
        if self._shared is not None:
            self._shared.release()
        self._shared = None

    def __call__(self, text: str, thresholds: Thresholds | None = None) -> EvaluationResult:
        """Evaluate a decoder.

        Returns:
            Reward and details. The reward is None if the lowest loss of the curve is above the threshold of a check step.

        Raises:
            As `nasdsl.training.proxy.ProxyTask` when called.
        """
        from nasdsl.training.proxy import Stopped

        task = self._get_task()
        curve: dict[int, float] = {}
        recent: deque[float] = deque(maxlen=self._window)

        def report(step: int, loss: float) -> bool:
            recent.append(loss)
            if step not in self.steps:
                return False
            curve[step] = math.fsum(recent) / len(recent)
            return should_stop(curve, thresholds or {}, step)

        try:
            scored = task(text, report)
        except Stopped as stopped:
            return EvaluationResult(None, {"curve": _with_text_keys(curve), "stopped_at": stopped.step})
        details: dict[str, Any] = {"losses": scored.losses, "curve": _with_text_keys(curve), **scored.details}
        if self.latency is not None:
            details["latency"] = task.latency(text, self.latency)
        return EvaluationResult(scored.reward, details)

    def _get_task(self) -> ProxyTask:
        if self._task is None:
            from nasdsl.training.proxy import ProxyTask

            self._task = ProxyTask(self.spec, quiet=self.quiet)
            self._task.attach(self._handles.get(os.environ.get("CUDA_VISIBLE_DEVICES", ""), {}))
        return self._task


def identity_of(spec: ProxySpec) -> dict[str, Any]:
    """The settings of a proxy task that rewards depend on, as plain values."""
    return {name: value for name, value in spec.to_dict().items() if name not in _NOT_IN_IDENTITY}


def _with_text_keys(curve: Mapping[int, float]) -> dict[str, float]:
    return {str(step): loss for step, loss in curve.items()}
