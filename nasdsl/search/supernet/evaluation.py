"""Evaluation of a search by a weight-sharing network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasdsl.search.detectors import DetectorKey, detector_key, key_name
from nasdsl.search.evaluation import EvaluationResult
from nasdsl.search.proxy_evaluation import identity_of
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.training import Supernet
from nasdsl.spaces import Space
from nasdsl.training.proxy.spec import ProxySpec


class SupernetEvaluation:
    """Function from a decoder's text to its reward with the weights that it inherits. It can be pickled.

    `prepare` trains the network; processes that the evaluation is sent to load its weights.

    Args:
        space: of the decoders.
        proxies: data, crops and reward of each backbone and image size that texts name, see `Supernet`. Numbers of iterations
            and seeds, learning rate, schedule and average of these are not used.
        spec: of the network's training.
        path: file of the weights.
        latency: height and width of an image for which the seconds of a decoder's forward pass are measured; decoders that
            name a size are measured at their own. None: not measured.
        quiet: show no progress.

    Attributes:
        identity: everything that rewards depend on besides the text, as plain values; the `task` of `search`.
    """

    def __init__(
        self,
        space: Space,
        proxies: Mapping[DetectorKey, ProxySpec],
        spec: SupernetSpec,
        path: Path,
        latency: tuple[int, int] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.space, self.proxies, self.spec, self.path = space, dict(proxies), spec, path
        self.latency, self.quiet = latency, quiet
        self._supernet: Supernet | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """See the class."""
        tasks = {key_name(key): identity_of(spec) for key, spec in self.proxies.items()}
        return {
            "supernet": self.spec.to_dict(),
            "tasks": tasks,
            "latency": None if self.latency is None else list(self.latency),
        }

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files have one copy in memory for all processes.
        proxies = {key: spec if spec.cache is None else replace(spec, memory_limit=0) for key, spec in self.proxies.items()}
        return {**self.__dict__, "proxies": proxies, "_supernet": None, "quiet": True}

    def prepare(self, *, keep: bool = True, share_on: Sequence[str] = ()) -> None:
        """Train the network, or go on with its training.

        Args:
            keep: keep it in this process, which will evaluate texts itself.
            share_on: not used: processes have the network and its features for themselves.

        Raises:
            Interrupted: SIGINT or SIGTERM was received; the weights are saved.
            Diverged, SearchError, CheckpointError: see `Supernet.train`.
            ProxyError, DataError, BackboneError: see `nasdsl.training.proxy.ProxyTask`.
        """
        self._get()
        if not keep:
            self._supernet = None

    def release(self) -> None:
        """Nothing is kept for others."""

    def __call__(self, text: str) -> EvaluationResult:
        """Evaluate a decoder of the space."""
        supernet = self._get()
        scored = supernet.score(text)
        details: dict[str, Any] = {"losses": scored.losses, **scored.details}
        if self.latency is not None:
            details["latency"] = supernet.task_of(text).latency(text, detector_key(text)[1] or self.latency)
        return EvaluationResult(scored.reward, details)

    def _get(self) -> Supernet:
        if self._supernet is None:
            from nasdsl.training.proxy import ProxyTask

            tasks = {key: ProxyTask(spec, quiet=self.quiet) for key, spec in self.proxies.items()}
            supernet = Supernet(self.space, tasks, self.spec, self.path, quiet=self.quiet)
            supernet.train()
            self._supernet = supernet
        return self._supernet
