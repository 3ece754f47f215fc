"""Early stopping: evaluations whose training losses are hopeless end before their last step.

A rule compares the loss of a training, at a few steps, with the losses of earlier samples at the same steps. The thresholds of
a proposal follow from the results that the strategy had observed by then, and are written into the journal with the proposal.
So they do not depend on the workers, and are the same after a resume.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nasdsl.search.errors import ObjectiveError, SearchError
from nasdsl.search.objective import Objective
from nasdsl.search.trial import OK, STOPPED, Thresholds, Trial

WARMUP: Final = 20
"""Default number of samples that are evaluated to their end before a rule stops any."""
REDUCTION_FACTOR: Final = 2
"""Default of successive halving."""

_FORM: Final = re.compile(
    r"(?:(?P<median>median)|quantile:(?P<level>[0-9.]+)|halving(?::(?P<factor>[0-9]+))?)(?::(?P<warmup>[0-9]+))?"
    r"(?::(?P<resource>[0-9]+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class LossCurve:
    """The training losses of an evaluated sample.

    Attributes:
        losses: by step, ascending, times the sample's `loss_weight`; of a stopped sample up to the step where it was stopped.
        finished: whether it was evaluated to its end.
    """

    losses: Mapping[int, float]
    finished: bool

    @classmethod
    def from_trial(cls, trial: Trial, objective: Objective) -> LossCurve | None:
        """The curve of a trial; None if it was not evaluated, failed, or reports no curve."""
        losses = read_curve(trial.details)
        if trial.verdict not in (OK, STOPPED) or not losses:
            return None
        try:
            weight = loss_weight(objective, trial.figures)
        except ObjectiveError:
            return None
        return cls({step: loss * weight for step, loss in losses.items()}, trial.verdict == OK)


class LossStatistics:
    """What a rule needs to know about the losses of all earlier samples.

    Attributes:
        count, finished: number of samples, and of those that were evaluated to their end.
        lowest: by step, for each sample that reached the step its lowest loss up to there, ascending.
        means: by step, for each finished sample the mean of its losses up to there, ascending.
    """

    def __init__(self, curves: Iterable[LossCurve] = ()) -> None:
        self.count = self.finished = 0
        self.lowest: dict[int, list[float]] = {}
        self.means: dict[int, list[float]] = {}
        for curve in curves:
            self.add(curve)

    def add(self, curve: LossCurve) -> None:
        """Add a sample."""
        self.count += 1
        self.finished += curve.finished
        lowest, total = math.inf, 0.0
        for number, (step, loss) in enumerate(curve.losses.items(), 1):
            lowest, total = min(lowest, loss), total + loss
            insort(self.lowest.setdefault(step, []), lowest)
            if curve.finished:
                insort(self.means.setdefault(step, []), total / number)


@dataclass(frozen=True)
class StoppingRule:
    """A rule that stops an evaluation at a step if its lowest loss up to there is above a threshold.

    ``median`` is the median stopping rule of Vizier (Golovin et al., KDD 2017, section 3.2.2): the best value of a trial up to
    a step must not be worse than the median, over all completed trials, of the mean of the values reported up to that step.
    The values are the losses of the curve. As losses fall, the mean over all steps up to a late one is far above the losses
    there, so the rule stops few samples later than at the first step. Stopped samples are not completed and do not count, so
    the threshold falls as the search goes on, and more samples are stopped.

    ``quantile`` compares losses at the same step: the threshold is the `level`-quantile of the lowest losses up to that step of
    all earlier samples, where samples that were stopped before it count as worse than all others. So about 1 - `level` of
    similar samples are stopped, whatever the number of steps that are checked and the length of the search.

    ``halving`` is asynchronous successive halving (ASHA, arXiv:1810.05934) as Optuna's ``SuccessiveHalvingPruner`` does it: at
    each rung only the best 1 / `reduction_factor` of the samples that have come to it go on, at least one. The rungs are the
    first check steps at or after `min_resource`, `min_resource` times `reduction_factor`, and so on. ASHA pauses a sample at a
    rung, and lets it go on when later ones are worse; here, as there, it is stopped for good.

    No rule stops a sample that is the best so far at a step. All see only training losses, and not the last steps;
    `nasdsl.search.early_stopping_replay` measures on a search without a rule what a rule would have cost.

    Attributes:
        kind: ``median``, ``quantile`` or ``halving``.
        level: of the quantile, above 0 and below 1.
        warmup: samples that must have been evaluated to their end before any is stopped; 1 or more.
        reduction_factor: of halving, 2 or more.
        min_resource: training steps of the first rung of halving; None: the first check step.

    Raises:
        SearchError: a value is out of range.
    """

    kind: Literal["median", "quantile", "halving"] = "median"
    level: float = 0.5
    warmup: int = WARMUP
    reduction_factor: int = REDUCTION_FACTOR
    min_resource: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise SearchError(f"the quantile of the stopping rule is {self.level:g}; expected a number above 0 and below 1")
        if self.warmup < 1:
            raise SearchError(f"the stopping rule's warm-up is {self.warmup} samples; expected 1 or more")
        if self.reduction_factor < 2:
            raise SearchError(f"the reduction factor of halving is {self.reduction_factor}; expected 2 or more")
        if self.min_resource is not None and self.min_resource < 1:
            raise SearchError(f"the first rung of halving is at step {self.min_resource}; expected 1 or more")

    @classmethod
    def parse(cls, text: str) -> StoppingRule | None:
        """Parse ``none``, ``median``, ``quantile:0.7`` (stop what is not among the best 70 %), ``halving:3`` (at each rung stop
        what is not among the best third), or one with its own warm-up: ``median:30``, ``quantile:0.7:30``, ``halving:3:30``; of
        halving, also with the step of the first rung: ``halving:3:30:10``.

        Args:
            text: as on the command line.

        Raises:
            SearchError: the text has another form, or a value is out of range.
        """
        if text == "none":
            return None
        match = _FORM.fullmatch(text)
        try:
            if match is None or (match["resource"] and not text.startswith("halving")):
                raise ValueError
            level = float(match["level"] or 0.5)
        except ValueError:
            raise SearchError(
                f"early stopping is {text!r}; expected none, median[:WARMUP], quantile:Q[:WARMUP] or "
                "halving[:ETA[:WARMUP[:MIN_RESOURCE]]], such as quantile:0.7:20"
            ) from None
        warmup = int(match["warmup"] or WARMUP)
        if match["median"] or match["level"]:
            return cls("median" if match["median"] else "quantile", level, warmup)
        resource = int(match["resource"]) if match["resource"] else None
        return cls("halving", level, warmup, int(match["factor"] or REDUCTION_FACTOR), resource)

    def __str__(self) -> str:
        """The text from which `parse` makes this rule."""
        match self.kind:
            case "median":
                parts: tuple[str | int, ...] = (self.warmup,)
            case "quantile":
                parts = (f"{self.level:.12g}", self.warmup)
            case "halving":
                parts = (self.reduction_factor, self.warmup, *(() if self.min_resource is None else (self.min_resource,)))
        return ":".join(map(str, (self.kind, *parts)))

    def checks(self, iterations: int) -> tuple[int, ...] | None:
        """The steps at which this rule needs the losses of a training of so many steps; None if it takes any.

        Args:
            iterations: steps of the whole training.

        Raises:
            SearchError: there is none before the end.
        """
        if self.min_resource is None:
            return None
        if self.min_resource >= iterations:
            raise SearchError(
                f"the first rung of {self} is at step {self.min_resource}, and an evaluation has {iterations} steps; expected "
                f"a step before {iterations}"
            )
        return tuple(self._resources(iterations - 1))

    def thresholds(self, earlier: LossStatistics, weight: float = 1.0) -> Thresholds:
        """The thresholds of the next sample; empty during the warm-up.

        Args:
            earlier: losses of the samples before.
            weight: `loss_weight` of the sample.
        """
        if earlier.finished < self.warmup:
            return {}
        if self.kind == "median":
            return {step: statistics.median(means) / weight for step, means in sorted(earlier.means.items())}
        if self.kind == "halving":
            rungs = {step: earlier.lowest[step] for step in self._rungs(sorted(earlier.lowest))}
            # With this sample, one more than `low` has come to the rung.
            places = {step: max(1, (len(low) + 1) // self.reduction_factor) for step, low in rungs.items()}
            return {step: low[places[step] - 1] / weight for step, low in rungs.items()}
        rank = math.ceil(self.level * earlier.count - 1e-9)  # 0.55 * 20 is 11, not more
        # Where the rank falls among the samples that were stopped before the step, nothing is stopped.
        return {step: low[rank - 1] / weight for step, low in sorted(earlier.lowest.items()) if rank <= len(low)}

    def _rungs(self, steps: Sequence[int]) -> list[int]:
        """The rungs of halving among the check steps, ascending."""
        if not steps:
            return []
        resources = self._resources(steps[-1], first=max(1, steps[0]))
        return sorted({next(step for step in steps if step >= resource) for resource in resources})

    def _resources(self, last: int, first: int = 1) -> list[int]:
        """The training steps of the rungs up to the last step."""
        resource, found = self.min_resource or first, list[int]()
        while resource <= last:
            found.append(resource)
            resource *= self.reduction_factor
        return found


def should_stop(losses: Mapping[int, float], thresholds: Thresholds, step: int) -> bool:
    """Whether to stop an evaluation at a step, given its losses up to there."""
    return step in thresholds and bool(losses) and min(losses.values()) > thresholds[step]


def check_objective(objective: Objective, rule: StoppingRule | None) -> None:
    """Check that a rule can be used with an objective.

    Raises:
        SearchError: it cannot.
    """
    if rule is not None and objective.aims:
        raise SearchError(
            f"the aims are {objective}, and early stopping ({rule}) compares losses alone, so it would stop cheap decoders "
            "that belong to the front: expected the reward as the only aim, or no early stopping"
        )
    if rule is not None and objective.needs_latency:
        raise SearchError(
            "the objective weighs latency, which is measured after an evaluation, so early stopping cannot compare losses "
            "before its end: expected an objective without latency, or no early stopping"
        )


def loss_weight(objective: Objective, figures: Mapping[str, Any]) -> float:
    """Factor on the losses of a decoder with these figures, which makes losses compare as scores do.

    Raises:
        ObjectiveError: see `Objective.score`.
    """
    return -objective.score(-1.0, figures)


def read_curve(details: Mapping[str, Any]) -> dict[int, float]:
    """The ``curve`` in the details of an evaluation, by step, ascending; empty if there is none.

    Whatever is not a loss by a whole step is left out: details may come from anybody's evaluation.
    """
    curve = details.get("curve")
    if not isinstance(curve, Mapping):
        return {}
    losses = {
        int(step): float(loss)
        for step, loss in curve.items()
        if re.fullmatch("[0-9]+", str(step), re.ASCII) and isinstance(loss, int | float)
    }
    return dict(sorted(losses.items()))
