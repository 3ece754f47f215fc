"""What Bayesian optimisation of a front knows about costs, and its acquisition function."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import torch
from torch import Tensor

from nasdsl.search.pareto import front_of
from nasdsl.search.strategies.gaussian_process import Features, GaussianProcess, Posterior
from nasdsl.search.strategies.improvement import HypervolumeImprovement
from nasdsl.search.strategies.mutation import draw_uniform
from nasdsl.search.strategies.strategy import Aims, Indices
from nasdsl.spaces import Space

NODES: Final = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))
"""Nodes and weights of the Gauss-Hermite quadrature of three points, for a standard normal distribution."""
MARGIN: Final = 0.1
"""How far beyond the worst point volume is counted, as a share of the range."""
COST_DRAWS: Final = 400
"""Uniform fillings whose costs set the scale of the cost in the covariance."""
COST_STEPS: Final = 32
"""Steps of that scale."""

Acquisition: TypeAlias = Callable[[Sequence[Indices]], Tensor]
"""Function from fillings to values, of which the largest is proposed; -inf for what must not be proposed."""

_Predict: TypeAlias = Callable[[Sequence[Indices]], list[tuple[float, Tensor]]]


class KnownCostTable:
    """The costs of fillings that are known before an evaluation, each computed once."""

    def __init__(self, aims: Aims) -> None:
        self._compute = aims.known
        self._known: dict[Indices, Mapping[str, float] | None] = {}

    def __call__(self, filling: Indices) -> Mapping[str, float] | None:
        if filling not in self._known:
            self._known[filling] = self._compute(filling)
        return self._known[filling]

    def column(self, name: str, fillings: Sequence[Indices]) -> Tensor:
        """A cost of fillings [n]; infinite for those that cannot be built."""
        costs = (self(filling) for filling in fillings)
        return torch.tensor([math.inf if c is None else float(c[name]) for c in costs], dtype=torch.float64)


class PricedFeatures(Features):
    """The encoding of decisions, and of each known cost as one more decision.

    A cost says more about a reward than any single decision does, so fillings of equal cost are more alike. It counts like a
    range: two fillings are as far apart as the share of uniform fillings whose costs are between theirs.
    """

    def __init__(self, space: Space, names: Sequence[str], costs: KnownCostTable) -> None:
        super().__init__(space)
        self._costs = costs
        rng = random.Random(0)
        drawn = sorted({draw_uniform(space, rng) for _ in range(COST_DRAWS)}) if names else []
        self._thresholds: dict[str, Tensor] = {}
        for name in names:
            column = costs.column(name, drawn)
            column = column[column.isfinite()]
            if len(column):
                self._thresholds[name] = column.quantile(torch.linspace(0, 1, COST_STEPS + 2, dtype=torch.float64)[1:-1])
        for _ in self._thresholds:
            self.decision = torch.cat([self.decision, torch.full((COST_STEPS,), self.count)])
            self.scale = torch.cat([self.scale, torch.full((COST_STEPS,), 1 / COST_STEPS, dtype=torch.float64)])
            self.count += 1

    def __call__(self, fillings: Sequence[Indices]) -> Tensor:
        codes = [
            (self._costs.column(name, fillings)[:, None] > thresholds).double() for name, thresholds in self._thresholds.items()
        ]
        return torch.cat([super().__call__(fillings), *codes], 1)


class FrontModel:
    """The costs of fillings, and the expected improvement of the hypervolume.

    Costs that are known before an evaluation are taken as they are: nothing about them is modelled, and they help to predict
    the reward. Of a cost that only evaluations measure, a Gaussian process models the logarithm, and the improvement is
    integrated over it by quadrature.

    Attributes:
        features: the encoding of fillings for the process of the reward.
        processes: of the measured costs, by name.
    """

    def __init__(self, space: Space, aims: Aims) -> None:
        self.aims = aims
        self._known = KnownCostTable(aims)
        known = self._known(space.sample(0).indices) or {}
        self.features = PricedFeatures(space, [name for name in aims.costs if name in known], self._known)
        self.processes = {name: GaussianProcess(space, self.features) for name in aims.costs if name not in known}

    def fit(self, fillings: Sequence[Indices], costs: Mapping[str, Tensor], steps: int) -> None:
        """Fit the processes of the measured costs to observations."""
        for name, process in self.processes.items() if len(fillings) > 1 else ():
            process.fit(self.features(fillings), _standardise(costs[name].log())[0], steps)

    def acquisition(
        self,
        posterior: Posterior,
        fillings: Sequence[Indices],
        costs: Mapping[str, Tensor],
        pending: Sequence[Indices],
    ) -> Acquisition:
        """The acquisition function given observations.

        Volume is counted from the lowest reward on the front, and up to the highest cost of all observations, each with a
        margin: decoders that cost more than those on the front so far may still belong to it.

        Args:
            posterior: of the reward.
            fillings, costs: observed samples that have a reward; costs [n] by name.
            pending: samples without a result; they count as observed with the means of the processes.
        """
        predict = self._cost_predictor(fillings, costs)
        rewards = posterior.mean(self.features(fillings))
        table = torch.stack([costs[name] for name in self.aims.costs], 1)
        if pending:
            rewards = torch.cat([rewards, posterior.mean(self.features(pending))])
            table = torch.cat([table, predict(pending)[0][1]])
        reference = table.max(0).values + MARGIN * (table.max(0).values - table.min(0).values).clamp(min=1e-9)
        front = front_of([tuple(point) for point in torch.cat([-rewards[:, None], table], 1).tolist()])
        rewards, table = rewards[front], table[front]
        lowest = float(rewards.min() - MARGIN * (rewards.max() - rewards.min()).clamp(min=0.1))
        improvement = HypervolumeImprovement(rewards, table, lowest, reference)

        def acquire(candidates: Sequence[Indices]) -> Tensor:
            mean, std = posterior(self.features(candidates))
            values = [math.log(weight) + improvement(mean, std, prices) for weight, prices in predict(candidates)]
            return torch.logsumexp(torch.stack(values), 0)

        return acquire

    def _cost_predictor(self, fillings: Sequence[Indices], costs: Mapping[str, Tensor]) -> _Predict:
        """Function from fillings to (weight, costs [n, k]) of each node of the quadrature, that of the means first."""
        models = {}
        for name, process in self.processes.items():
            values, mean, scale = _standardise(costs[name].log())
            models[name] = process.condition(self.features(fillings), values), mean, scale

        def predict(candidates: Sequence[Indices]) -> list[tuple[float, Tensor]]:
            centres: dict[str, Tensor] = {}
            spreads: dict[str, Tensor] = {}
            for name, (posterior, mean, scale) in models.items():
                at, std = posterior(self.features(candidates))
                centres[name], spreads[name] = mean + scale * at, scale * std
            known = {name: self._known.column(name, candidates) for name in self.aims.costs if name not in models}
            nodes = []
            for combination in itertools.product(NODES, repeat=len(models)):
                at_node = {
                    name: (centres[name] + z * spreads[name]).exp() for name, (z, _) in zip(models, combination, strict=True)
                }
                table = torch.stack([(known | at_node)[name] for name in self.aims.costs], 1)
                nodes.append((math.prod(weight for _, weight in combination), table))
            return sorted(nodes, key=lambda node: -node[0])

        return predict


def _standardise(values: Tensor) -> tuple[Tensor, float, float]:
    mean = float(values.mean())
    scale = max(float(values.std(correction=0)), 1e-9)
    return (values - mean) / scale, mean, scale
