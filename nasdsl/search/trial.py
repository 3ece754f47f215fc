"""The record of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from nasdsl.spaces import Filled

OK: Final = "ok"
DUPLICATE: Final = "duplicate"
REJECTED: Final = "rejected"
DIVERGED: Final = "diverged"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
"""Verdicts. A failure is written ``failed: reason``."""

Thresholds: TypeAlias = Mapping[int, float]
"""Loss by step. An evaluation is stopped at such a step if its lowest loss in ``curve`` up to it is above the threshold."""


@dataclass(frozen=True)
class Trial:
    """A proposal of the strategy and its result.

    Attributes:
        number: from 0, in the order of proposals.
        text: of the decoder, on one line; `indices` are its decisions.
        digest: of the decoder; equal for texts that compute the same. None if the text does not check.
        verdict: ``ok``, ``duplicate`` (the results are those of trial `duplicate_of`), ``rejected`` (does not check, or breaks
            a requirement; not evaluated), ``diverged`` (the reward was not finite), ``stopped`` (by early stopping; see
            `nasdsl.search.early_stopping`) or ``failed: reason``.
        reward: as returned by the evaluation; None if there is none, never a substitute.
        score: the reward, weighted by the costs of the objective; what a strategy maximises.
        details: of the evaluation. A failure has ``error`` and, unless that is all there is to know, ``traceback``; a rejected
            text ``error``; a stopped evaluation ``curve`` and ``stopped_at``.
        figures: ``macs`` and ``params`` of fpn and head for one image, ``macs_total`` and ``params_total`` with the backbone.
        duplicate_of: number of the trial with the same results; None for others.
        thresholds: of early stopping, for this evaluation; empty without.
        seconds: duration of the evaluation; 0 without one.
        proposed, finished: Unix time.
        attempts: evaluations started, including those of workers that died or hung.
        worker: name of the worker that returned the result.
        diagnostics: of the strategy, after it had observed this trial.
    """

    number: int
    text: Filled
    digest: str | None
    verdict: str
    reward: float | None = None
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    duplicate_of: int | None = None
    thresholds: Thresholds = field(default_factory=dict)
    seconds: float = 0.0
    proposed: float = 0.0
    finished: float = 0.0
    attempts: int = 0
    worker: str = ""
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def indices(self) -> tuple[int, ...]:
        """The decisions of the text."""
        return self.text.indices

    @property
    def evaluated(self) -> bool:
        """Whether it was evaluated, with whatever result."""
        return self.verdict not in (DUPLICATE, REJECTED)
