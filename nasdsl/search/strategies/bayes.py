"""Bayesian optimisation: a Gaussian process guesses, and a local search finds where it promises most."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from nasdsl.search.strategies.gaussian_process import GaussianProcess, Posterior, log_expected_improvement
from nasdsl.search.strategies.strategy import (
    Indices,
    StrategyError,
    begin_state,
    draw,
    finite,
    joined,
    loading,
    mutated,
    neighbours,
    normal_scores,
)
from nasdsl.spaces import Filled, Space


class BayesianSearch:
    """Expected improvement of a Gaussian process over the decisions that count, climbed by single changes.

    The process learns normal scores, so that rewards matter by their rank alone and failures are bad samples like others.
    Candidates are uniform samples and mutants of the best; the most promising are improved by single changes, several at
    once where that is better, until no neighbour is better. What has been observed or is out is not proposed again; what is
    out counts as observed with the value that the process expects (the "believer"), so that a batch spreads.

    Args:
        initial: observations before the first guess; until then samples are uniform.
        candidates: how many samples and mutants are compared before the climb.
        climbs: how many of them are improved.
        most: observations that the process takes in: beyond, the better half of these and the latest. Costs grow with its
            cube.
    """

    name: ClassVar[str] = "bayes"

    def __init__(
        self, space: Space, seed: int = 0, *, initial: int = 20, candidates: int = 200, climbs: int = 3, most: int = 500
    ) -> None:
        if initial < 2 or climbs < 1 or candidates < climbs or most < initial:
            raise StrategyError(
                f"initial={initial}, candidates={candidates}, climbs={climbs}, most={most}; expected initial from 2 to most, "
                "and climbs from 1 to candidates"
            )
        self.space = space
        self.initial = initial
        self.candidates = candidates
        self.climbs = climbs
        self.most = most
        self._rng = random.Random(seed)
        self._process = GaussianProcess(space)
        self._fitted = 0  # observations at the last fit
        self._observed: list[tuple[Indices, float | None]] = []
        self._out: Counter[Indices] = Counter()

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        seen = {indices for indices, _ in self._observed}.union(self._out)
        chosen = None
        if len(self._observed) >= self.initial and self.space.domains:
            chosen = self._climb(*self._believe(), seen)
        text = self._fresh(seen) if chosen is None else self.space.decode(chosen)
        self._out[text.indices] += 1
        return text

    def observe(self, text: Filled, reward: float | None) -> None:
        self._out[text.indices] -= 1
        self._out = +self._out
        self._observed.append((text.indices, finite(reward)))

    def _fresh(self, seen: set[Indices]) -> Filled:
        """A uniform sample, a new one where a few draws find one."""
        text = self.space.sample(self._rng)
        for _ in range(20):
            if text.indices not in seen:
                break
            text = self.space.sample(self._rng)
        return text

    # ------------------------------------------------------------------------------------------ what is believed

    def _data(self) -> tuple[list[Indices], Tensor]:
        """The fillings that the process takes in, and their scores."""
        scores = normal_scores([reward for _, reward in self._observed])
        count = len(scores)
        if count <= self.most:
            return [indices for indices, _ in self._observed], scores
        taken = torch.zeros(count, dtype=torch.bool)
        taken[scores.argsort(descending=True, stable=True)[: self.most // 2]] = True
        taken[torch.nonzero(~taken)[taken.sum() - self.most :]] = True
        return [self._observed[place][0] for place in torch.nonzero(taken)[:, 0].tolist()], scores[taken]

    def _believe(self) -> tuple[Posterior, float]:
        """The process given everything, and the score to beat: the best that it believes of anything observed."""
        fillings, scores = self._data()
        x = self._process.features(fillings)
        if len(self._observed) >= self._fitted + max(5, self._fitted // 10):
            self._process.fit(x, scores, steps=30 if self._fitted else 100)
            self._fitted = len(self._observed)
        posterior = self._process.condition(x, scores)
        best = float(posterior.mean(x).max())
        if self._out:
            out = self._process.features(list(self._out))
            posterior = self._process.condition(torch.cat([x, out]), torch.cat([scores, posterior.mean(out)]))
        return posterior, best

    # ------------------------------------------------------------------------------------------ where to look

    def _climb(self, posterior: Posterior, best: float, seen: set[Indices]) -> Indices | None:
        """A filling of large expected improvement that is new and keeps the requirements; None where none turned up.

        All climbs go up side by side. A step is the best single change, or the best two, four, eight and so on together
        where that is better still; requirements are asked last, because they take longest.
        """

        def promises(fillings: set[Indices]) -> dict[Indices, float]:
            new = sorted(fillings - seen)
            if not new:
                return {}
            found = log_expected_improvement(*posterior(self._process.features(new)), best).tolist()
            return dict(zip(new, found, strict=True))

        def kept(promise: dict[Indices, float], above: float) -> Iterator[tuple[float, Indices]]:
            """Those that promise more, best first."""
            ranked = sorted(((p, filling) for filling, p in promise.items() if p > above), reverse=True)
            return (item for item in ranked if self.space.keeps(item[1]))

        climbing = list(islice(kept(promises(self._candidates()), -math.inf), self.climbs))
        ended: list[tuple[float, Indices]] = []
        while climbing:
            around = [list(neighbours(self.space, filling, self._rng)) for _, filling in climbing]
            single = promises(set(chain.from_iterable(around)))
            better: list[list[Indices]] = []
            for (promise, _), others in zip(climbing, around, strict=True):
                better.append(sorted((o for o in others if single.get(o, -math.inf) > promise), key=lambda o: (-single[o], o)))
            together = [list(joined(self.space, at[1], others)) for at, others in zip(climbing, better, strict=True)]
            joint = promises(set(chain.from_iterable(together)))
            reached: set[tuple[float, Indices]] = set()
            for at, ones, several in zip(climbing, better, together, strict=True):
                rivals = {o: single[o] for o in ones} | {o: joint[o] for o in several if o in joint}
                step = next(kept(rivals, at[0]), None)
                if step is None:
                    ended.append(at)
                else:
                    reached.add(step)
            climbing = sorted(reached)
        return max(ended)[1] if ended else None

    def _candidates(self) -> set[Indices]:
        best = sorted(self._observed, key=lambda item: float("inf") if item[1] is None else -item[1])[:10]
        found = {draw(self.space, self._rng) for _ in range(self.candidates // 2)}
        for place in range(self.candidates - self.candidates // 2):
            child = mutated(self.space, best[place % len(best)][0], self._rng)
            while self._rng.random() < 0.5:
                child = mutated(self.space, child, self._rng)
            found.add(child)
        return found

    # ------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        return {
            **begin_state(self.name, self.space, self._rng),
            "fitted": self._fitted,
            "parameters": self._process.parameters.tolist(),
            "observed": [[list(indices), reward] for indices, reward in self._observed],
            "out": [[list(indices), count] for indices, count in self._out.items()],
        }

    def load(self, state: dict[str, Any]) -> None:
        with loading(state, self.name, self.space, self._rng):
            self._fitted = state["fitted"]
            self._process.parameters = torch.tensor(state["parameters"], dtype=torch.float64)
            self._observed = [(tuple(indices), reward) for indices, reward in state["observed"]]
            self._out = Counter({tuple(indices): count for indices, count in state["out"]})

    def diagnostics(self) -> dict[str, float]:
        if not self._fitted:
            return {}
        parameters = self._process.parameters.exp()
        return {
            "amplitude": float(parameters[-2]),
            "noise": float(parameters[-1]),
            "largest_weight": float(parameters[:-2].max()),
        }
