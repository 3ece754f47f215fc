"""Bayesian optimisation: a local search for the filling with the largest expected improvement under a Gaussian process.

The improvement is that of the best reward, or with several aims that of the hypervolume that the front dominates.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from nasdsl.search.pareto import fronts_of
from nasdsl.search.strategies.front_model import Acquisition, FrontModel
from nasdsl.search.strategies.gaussian_process import GaussianProcess, Posterior
from nasdsl.search.strategies.improvement import log_expected_improvement
from nasdsl.search.strategies.mutation import combine_changes, draw_uniform, mutate, neighbours
from nasdsl.search.strategies.rewards import finite_or_none, normal_scores
from nasdsl.search.strategies.strategy import Aims, Costs, Indices, StrategyError, base_state, load_base_state
from nasdsl.spaces import Filled, Space


class BayesianSearch:
    """Proposes the filling with the largest expected improvement under a Gaussian process over the decisions.

    The process is fitted to normal scores, so that only the order of rewards matters and failures are bad samples like others.
    Expected improvement is maximised by hill climbing: candidates are uniform samples and mutants of the best observations; the
    best candidates are improved by changes of one decision, or of several at once where that is better, until no neighbour is
    better. Fillings that were observed or are pending are not proposed again. Pending ones count as observed with the mean of
    the process (the "kriging believer"), so that the proposals of a batch differ.

    With several aims it proposes the filling with the largest expected improvement of the hypervolume that the front of reward
    and costs dominates. Costs that are known before an evaluation are not modelled; see `FrontModel`.

    Args:
        initial: observations before the process is used; until then proposals are uniform samples.
        candidates: number of uniform samples and mutants.
        climbs: how many of them hill climbing starts from.
        most: observations that the process is fitted to, the better half of these and the latest. The cost grows with its cube.
    """

    name: ClassVar[str] = "bayes"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        aims: Aims | None = None,
        *,
        initial: int = 20,
        candidates: int = 200,
        climbs: int = 3,
        most: int = 500,
    ) -> None:
        if initial < 2 or climbs < 1 or candidates < climbs or most < initial:
            raise StrategyError(
                f"initial={initial}, candidates={candidates}, climbs={climbs}, most={most}; expected initial from 2 to most, "
                "and climbs from 1 to candidates"
            )
        self.space = space
        self.aims = aims
        self.initial = initial
        self.candidates = candidates
        self.climbs = climbs
        self.most = most
        self._rng = random.Random(seed)
        self._front = None if aims is None else FrontModel(space, aims)
        self._process = GaussianProcess(space) if self._front is None else GaussianProcess(space, self._front.features)
        self._fitted = 0  # observations at the last fit
        self._observed: list[tuple[Indices, float | None]] = []
        self._costs: list[Costs] = []  # of all observations, with several aims; empty for one without a reward
        self._pending: Counter[Indices] = Counter()

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        seen = {indices for indices, _ in self._observed}.union(self._pending)
        chosen = None
        if len(self._observed) >= self.initial and self.space.domains:
            acquisition = self._acquisition()
            chosen = None if acquisition is None else self._maximize(acquisition, seen)
        text = self._sample_unseen(seen) if chosen is None else self.space.decode(chosen)
        self._pending[text.indices] += 1
        return text

    def observe(self, text: Filled, reward: float | None, costs: Costs | None = None) -> None:
        self._pending[text.indices] -= 1
        self._pending = +self._pending
        value = finite_or_none(reward)
        if self.aims is not None:
            given = costs or {}
            self._costs.append({} if value is None else {name: float(given[name]) for name in self.aims.costs})
        self._observed.append((text.indices, value))

    def _sample_unseen(self, seen: set[Indices]) -> Filled:
        """Draw a uniform sample, one not seen before if a few draws yield one."""
        text = self.space.sample(self._rng)
        for _ in range(20):
            if text.indices not in seen:
                break
            text = self.space.sample(self._rng)
        return text

    # ------------------------------------------------------------------------------------------ the process

    def _places(self) -> list[int]:
        """The observations that the process is fitted to."""
        count = len(self._observed)
        if count <= self.most:
            return list(range(count))
        best = set(self._best(self.most // 2))
        rest = [place for place in range(count) if place not in best]
        return sorted([*best, *rest[len(best) - self.most :]])

    def _data(self) -> tuple[list[Indices], Tensor]:
        """The fillings that the process is fitted to, and their scores."""
        places = self._places()
        scores = normal_scores([reward for _, reward in self._observed])
        return [self._observed[place][0] for place in places], scores[places]

    def _best(self, count: int) -> list[int]:
        """The places of the best observations: those with the highest rewards, or front by front, best first."""
        rewards = [-math.inf if reward is None else reward for _, reward in self._observed]
        if self.aims is None:
            return sorted(range(len(rewards)), key=lambda place: -rewards[place])[:count]
        valid = [place for place, costs in enumerate(self._costs) if costs]
        best: list[int] = []
        for front in fronts_of([self.aims.point(rewards[place], self._costs[place]) for place in valid]):
            best += [valid[place] for place in front]
            if len(best) >= count:
                break
        return best[:count]

    def _priced(self) -> tuple[list[Indices], dict[str, Tensor]]:
        """The fillings among `_places` that have a reward, and their costs by name."""
        assert self.aims is not None
        places = [place for place in self._places() if self._costs[place]]
        columns = {
            name: torch.tensor([self._costs[place][name] for place in places], dtype=torch.float64) for name in self.aims.costs
        }
        return [self._observed[place][0] for place in places], columns

    def _fit(self) -> tuple[Posterior, float]:
        """The process given observed and pending fillings, and the score to improve: its largest mean at an observed one."""
        fillings, scores = self._data()
        x = self._process.features(fillings)
        if len(self._observed) >= self._fitted + max(5, self._fitted // 10):
            steps = 30 if self._fitted else 100
            self._process.fit(x, scores, steps)
            if self._front is not None:
                self._front.fit(*self._priced(), steps)
            self._fitted = len(self._observed)
        posterior = self._process.condition(x, scores)
        best = float(posterior.mean(x).max())
        if self._pending:
            pending = self._process.features(list(self._pending))
            posterior = self._process.condition(torch.cat([x, pending]), torch.cat([scores, posterior.mean(pending)]))
        return posterior, best

    # ------------------------------------------------------------------------------------------ the acquisition

    def _acquisition(self) -> Acquisition | None:
        """The acquisition function given what was observed; None if several aims have too few observations with a reward."""
        posterior, best = self._fit()
        if self._front is None:
            return lambda fillings: log_expected_improvement(*posterior(self._process.features(fillings)), best)
        fillings, costs = self._priced()
        if len(fillings) < 2:
            return None
        return self._front.acquisition(posterior, fillings, costs, list(self._pending))

    def _maximize(self, acquire: Acquisition, seen: set[Indices]) -> Indices | None:
        """Find a filling with a large acquisition value that is not in `seen` and keeps the requirements; None if none is.

        All climbs run as one batch. A step takes the best change of one decision, or the best two, four, eight and so on
        together if that is better. Requirements are checked last, because they take longest.
        """

        def acquisition(fillings: set[Indices]) -> dict[Indices, float]:
            """Values of the fillings that are not in `seen`."""
            new = sorted(fillings - seen)
            if not new:
                return {}
            return dict(zip(new, acquire(new).tolist(), strict=True))

        def feasible(values: dict[Indices, float], above: float) -> Iterator[tuple[float, Indices]]:
            """The fillings with values above a bound that keep the requirements, best first."""
            ranked = sorted(((value, filling) for filling, value in values.items() if value > above), reverse=True)
            return (item for item in ranked if self.space.keeps(item[1]))

        climbing = list(islice(feasible(acquisition(self._candidates()), -math.inf), self.climbs))
        summits: list[tuple[float, Indices]] = []
        while climbing:
            around = [list(neighbours(self.space, filling, self._rng)) for _, filling in climbing]
            single = acquisition(set(chain.from_iterable(around)))
            better: list[list[Indices]] = []
            for (value, _), others in zip(climbing, around, strict=True):
                better.append(sorted((o for o in others if single.get(o, -math.inf) > value), key=lambda o: (-single[o], o)))
            combined = [list(combine_changes(self.space, at[1], others)) for at, others in zip(climbing, better, strict=True)]
            joint = acquisition(set(chain.from_iterable(combined)))
            reached: set[tuple[float, Indices]] = set()
            for at, ones, several in zip(climbing, better, combined, strict=True):
                values = {o: single[o] for o in ones} | {o: joint[o] for o in several if o in joint}
                step = next(feasible(values, at[0]), None)
                if step is None:
                    summits.append(at)
                else:
                    reached.add(step)
            climbing = sorted(reached)
        return max(summits)[1] if summits else None

    def _candidates(self) -> set[Indices]:
        best = [self._observed[place][0] for place in self._best(10 if self.aims is None else 30)]
        candidates = {draw_uniform(self.space, self._rng) for _ in range(self.candidates // 2)}
        for place in range(self.candidates - self.candidates // 2):
            child = mutate(self.space, best[place % len(best)], self._rng)
            while self._rng.random() < 0.5:
                child = mutate(self.space, child, self._rng)
            candidates.add(child)
        return candidates

    # ------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        front: dict[str, Any] = {}
        if self._front is not None:
            front["costs"] = [dict(costs) for costs in self._costs]
            front["cost_parameters"] = {name: p.parameters.tolist() for name, p in self._front.processes.items()}
        return {
            **base_state(self.name, self.space, self._rng),
            **front,
            "fitted": self._fitted,
            "parameters": self._process.parameters.tolist(),
            "observed": [[list(indices), reward] for indices, reward in self._observed],
            "out": [[list(indices), count] for indices, count in self._pending.items()],
        }

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            self._fitted = state["fitted"]
            self._process.parameters = torch.tensor(state["parameters"], dtype=torch.float64)
            self._observed = [(tuple(indices), reward) for indices, reward in state["observed"]]
            self._pending = Counter({tuple(indices): count for indices, count in state["out"]})
            if self._front is not None:
                self._costs = [dict(costs) for costs in state["costs"]]
                for name, process in self._front.processes.items():
                    process.parameters = torch.tensor(state["cost_parameters"][name], dtype=torch.float64)

    def diagnostics(self) -> dict[str, float]:
        if not self._fitted:
            return {}
        parameters = self._process.parameters.exp()
        return {
            "amplitude": float(parameters[-2]),
            "noise": float(parameters[-1]),
            "largest_weight": float(parameters[:-2].max()),
        }
