"""Evaluation of a search by a weight-sharing network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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
        proxy: data, crops and reward; its numbers of iterations and seeds, learning rate and average are not used.
        spec: of the network's training.
        path: file of the weights.
        quiet: show no progress.

    Attributes:
        identity: everything that rewards depend on besides the text, as plain values; the `task` of `search`.
    """

    def __init__(self, space: Space, proxy: ProxySpec, spec: SupernetSpec, path: Path, *, quiet: bool = False) -> None:
        self.space, self.proxy, self.spec, self.path, self.quiet = space, proxy, spec, path, quiet
        self._supernet: Supernet | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """See the class."""
        return {**identity_of(self.proxy), "supernet": self.spec.to_dict()}

    def __getstate__(self) -> dict[str, Any]:
        proxy = self.proxy if self.proxy.cache is None else replace(self.proxy, memory_limit=0)  # mapped, one copy for all
        return {**self.__dict__, "proxy": proxy, "_supernet": None, "quiet": True}

    def prepare(self, *, keep: bool = True) -> None:
        """Train the network, or go on with its training.

        Args:
            keep: keep it in this process, which will evaluate texts itself.

        Raises:
            Interrupted: SIGINT or SIGTERM was received; the weights are saved.
            Diverged, SearchError, CheckpointError: see `Supernet.train`.
            ProxyError, DataError, BackboneError: see `nasdsl.training.proxy.ProxyTask`.
        """
        self._get()
        if not keep:
            self._supernet = None

    def __call__(self, text: str) -> EvaluationResult:
        """Evaluate a decoder of the space."""
        scored = self._get().score(text)
        return EvaluationResult(scored.reward, {"losses": scored.losses, **scored.details})

    def _get(self) -> Supernet:
        if self._supernet is None:
            from nasdsl.training.proxy import ProxyTask

            supernet = Supernet(self.space, ProxyTask(self.proxy, quiet=self.quiet), self.spec, self.path, quiet=self.quiet)
            supernet.train()
            self._supernet = supernet
        return self._supernet
