"""A search space as an objective of Optuna. ``pip install 'nasdsl[optuna]'``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from nasdsl.spaces.adapters.decisions import AdapterError, Evaluate, decision_names, excess, load_package, reward_of, walk
from nasdsl.spaces.space import Filled, Space

_EXCESS: Final = "requirements_excess"


class OptunaProblem:
    """An objective that suggests the decisions of a space; Optuna maximizes it.

    A decision is suggested under a fixed name (`decision_names`): a range as an integer, any other as a categorical with the
    texts of the alternatives. Decisions inside an alternative that is not chosen are not suggested. So a sampler should be one
    that supports conditional parameters, such as ``TPESampler(multivariate=True, group=True)``::

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(multivariate=True, group=True))
        study.optimize(OptunaProblem(space, evaluate), n_trials=100)
        print(study.best_trial.user_attrs["text"])

    A decoder that breaks a requirement of the space or cannot be built is not evaluated, and the trial is pruned, as is one
    whose reward is missing or not finite. Samplers that know constraints learn by how much it breaks them (before Optuna 5,
    give them ``constraints_func=problem.constraints``). Trials have the text, and the evaluation's details as far as JSON has
    them, in their user attributes.

    Args:
        space: whose fillings Optuna samples.
        evaluate: from text to reward, higher is better.

    Raises:
        MissingExtra: Optuna is not installed.
    """

    def __init__(self, space: Space, evaluate: Evaluate) -> None:
        self.space, self.evaluate = space, evaluate
        self.names = decision_names(space)
        self._optuna: Any = load_package("optuna", "optuna")
        self._choices = [_distinct(domain.alternatives) for domain in space.domains]
        self.distributions = {name: self._distribution(at) for at, name in enumerate(self.names)}

    def __call__(self, trial: Any) -> float:
        """Evaluate a trial of Optuna.

        Raises:
            optuna.TrialPruned: the decoder breaks a requirement, or has no reward.
        """
        text = self.suggest(trial)
        trial.set_user_attr("text", str(text))
        broken = excess(self.space, text.indices)
        trial.set_user_attr(_EXCESS, broken)
        if hasattr(trial, "set_constraint"):  # from Optuna 5 on; before, samplers call `constraints`
            for number, amount in enumerate(broken):
                trial.set_constraint(f"requirement {number}", amount)
        if max(broken) > 0:
            raise self._optuna.TrialPruned("the decoder breaks a requirement, or cannot be built")
        reward, details = reward_of(self.evaluate(text))
        for name, value in details.items():
            if _is_plain(value):
                trial.set_user_attr(name, value)
        if reward is None:
            raise self._optuna.TrialPruned("the evaluation has no reward")
        return reward

    def suggest(self, trial: Any) -> Filled:
        """Suggest all active decisions of a trial; the text of the decoder.

        Args:
            trial: an ``optuna.Trial``.
        """

        def choose(at: int) -> int:
            name, distribution = self.names[at], self.distributions[self.names[at]]
            if isinstance(distribution, self._optuna.distributions.IntDistribution):
                value = trial.suggest_int(name, distribution.low, distribution.high)
                return self._index(at, value)
            return self._index(at, trial.suggest_categorical(name, distribution.choices))

        return walk(self.space, choose)

    @staticmethod
    def constraints(trial: Any) -> list[float]:
        """By how much a finished trial breaks each requirement, for ``constraints_func`` of a sampler.

        Args:
            trial: an ``optuna.trial.FrozenTrial`` of this problem.
        """
        found: list[float] = trial.user_attrs.get(_EXCESS, [1.0])
        return found

    def params(self, text: str) -> dict[str, Any]:
        """The parameters of a decoder of the space, for ``study.enqueue_trial``.

        Args:
            text: a filling of the space.

        Raises:
            SpaceError, DiagnosticError: the text is no decoder of the space.
        """
        indices = self.space.encode(text)
        active = self.space.active(indices)
        return {self.names[at]: self._value(at, index) for at, index in enumerate(indices) if active[at]}

    def text(self, params: Mapping[str, Any]) -> Filled:
        """The text of the decoder with these parameters, such as ``study.best_params``.

        Args:
            params: values by the names of `decision_names`.

        Raises:
            AdapterError: a parameter is missing, or has a value that the decision does not have.
        """

        def choose(at: int) -> int:
            if self.names[at] not in params:
                raise AdapterError(f"the parameters lack {self.names[at]!r}, a decision of {self.space.name}")
            return self._index(at, params[self.names[at]])

        return walk(self.space, choose)

    def finished_trial(self, text: str, reward: float) -> Any:
        """A finished trial for ``study.add_trial``: results of another search, for a study to start from.

        Args:
            text: a filling of the space.
            reward: what its evaluation gave.
        """
        params = self.params(text)
        return self._optuna.trial.create_trial(
            params=params,
            distributions={name: self.distributions[name] for name in params},
            value=reward,
            user_attrs={"text": str(text), _EXCESS: excess(self.space, self.space.encode(text))},
        )

    def _distribution(self, at: int) -> Any:
        """An integer for a range, else a categorical."""
        domain, distributions = self.space.domains[at], self._optuna.distributions
        if domain.kind == "range" and domain.size > 1:
            return distributions.IntDistribution(int(domain.alternatives[0]), int(domain.alternatives[-1]))
        return distributions.CategoricalDistribution(self._choices[at])

    def _value(self, at: int, index: int) -> Any:
        distribution = self.distributions[self.names[at]]
        if isinstance(distribution, self._optuna.distributions.IntDistribution):
            return distribution.low + index
        return self._choices[at][index]

    def _index(self, at: int, value: Any) -> int:
        values = [self._value(at, index) for index in range(self.space.domains[at].size)]
        if value not in values:
            raise AdapterError(f"{self.names[at]} is {value!r}; expected one of {', '.join(map(str, values))}")
        return values.index(value)


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of alternatives, with their numbers where two are the same."""
    return texts if len(set(texts)) == len(texts) else tuple(f"{number}: {text}" for number, text in enumerate(texts))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
