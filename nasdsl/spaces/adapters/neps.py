"""A search space as a pipeline space of NePS. ``pip install 'nasdsl[neps]'``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nasdsl.spaces.adapters.decisions import AdapterError, Evaluate, decision_names, excess, load_package, reward_of, walk
from nasdsl.spaces.domain import Domain
from nasdsl.spaces.space import Filled, Space


@dataclass(frozen=True)
class Chosen:
    """An alternative with decisions inside of it.

    Attributes:
        index: of the alternative.
        inner: the decisions inside, by name.
    """

    index: int
    inner: Mapping[str, Any] = field(default_factory=dict)


def chosen(index: int, **inner: Any) -> Chosen:
    """The operator of NePS's operations; at the top level of a module, so that spaces can be pickled."""
    return Chosen(index, inner)


class NepsProblem:
    """A pipeline space and an evaluation for ``neps.run``, which minimizes; so the objective is minus the reward.

    A decision is a categorical over the numbers of its alternatives. Decisions inside of an alternative are arguments of an
    operation, which NePS samples only where it is chosen (those in the turns of a `repeat` are always sampled, and ignored
    where there is no such turn); its algorithms for such spaces are ``neps_random_search`` and
    ``neps_regularized_evolution``. Bayesian optimization needs a flat space (`flat`), in which every decision is sampled and
    those that are not active are ignored::

        problem = NepsProblem(space, evaluate)
        neps.run(problem.evaluate_pipeline, problem.pipeline_space, root_directory="runs/neps",
                 worker_evaluations_to_spend=100, optimizer="neps_regularized_evolution")

    A decoder that breaks a requirement of the space or cannot be built is not evaluated; its objective is `penalty`, as is that
    of one whose reward is missing or not finite.

    Args:
        evaluate: from text to reward, higher is better.
        flat: sample all decisions.
        penalty: the objective without a reward. It should be worse than any real one.

    Attributes:
        pipeline_space: for NePS.
        space: whose fillings NePS samples.

    Raises:
        MissingExtra: NePS is not installed.
    """

    def __init__(self, space: Space, evaluate: Evaluate, *, flat: bool = False, penalty: float = 1e6) -> None:
        if not math.isfinite(penalty):
            raise AdapterError(f"the penalty is {penalty}; expected a finite number")
        self._neps: Any = load_package("neps", "neps")
        self.space, self.evaluate, self.flat, self.penalty = space, evaluate, flat, penalty
        self.names = decision_names(space)
        self._parents = [_parent(space, domain) for domain in space.domains]
        self.pipeline_space: Any = self._neps.PipelineSpace()
        for domain in space.domains:
            if flat or self._parents[domain.index] is None:
                setattr(self.pipeline_space, self.names[domain.index], self._categorical(domain.index))

    def evaluate_pipeline(self, **config: Any) -> dict[str, Any]:
        """Evaluate what NePS has sampled; its objective, and the text and the reward for NePS's files.

        Args:
            config: what NePS has sampled, by name.
        """
        text = self.text(config)
        if max(excess(self.space, text.indices)) > 0:
            return {"objective_to_minimize": self.penalty, "info_dict": {"text": str(text), "reward": None}}
        reward, _ = reward_of(self.evaluate(text))
        objective = self.penalty if reward is None else -reward
        return {"objective_to_minimize": objective, "info_dict": {"text": str(text), "reward": reward}}

    def text(self, config: Mapping[str, Any]) -> Filled:
        """The text of the decoder of a configuration: the arguments of `evaluate_pipeline`, or a ``trial.config`` of NePS.

        Args:
            config: values by name.

        Raises:
            AdapterError: it is no configuration of this space.
        """
        converter = self._spaces().NepsCompatConverter
        sampled = converter.from_neps_config(config).predefined_samplings
        if sampled:
            config = self._resolve(lambda path: sampled[path])[0]
        values: dict[str, int] = {}
        _collect(config, values)

        def choose(at: int) -> int:
            value = values.get(self.names[at])
            if value is None or not 0 <= value < self.space.domains[at].size:
                raise AdapterError(f"{self.names[at]} is {value}; expected 0 to {self.space.domains[at].size - 1}")
            return value

        return walk(self.space, choose)

    def config(self, text: str) -> dict[str, Any]:
        """The configuration of a decoder of the space, as in ``trial.config``, for ``AskAndTell.tell_custom``.

        Args:
            text: a filling of the space.

        Raises:
            SpaceError, DiagnosticError: the text is no decoder of the space.
        """
        indices = self.space.encode(text)
        if self.flat:
            return dict(zip(self.names, indices, strict=True))
        at = {name: index for index, name in enumerate(self.names)}
        context = self._resolve(lambda path: indices[at[_name_in(path)]])[1]
        return dict(self._spaces().NepsCompatConverter.to_neps_config(context))

    def _spaces(self) -> Any:
        return load_package("neps.space.neps_spaces.neps_space", "neps")

    def _resolve(self, choose: Callable[[str], int]) -> tuple[dict[str, Any], Any]:
        """Resolve the space with given samples: the arguments of `evaluate_pipeline`, and NePS's context."""

        missing: list[str] = []

        def sample(*, domain_obj: Any, current_path: str) -> int:
            try:
                return choose(current_path)
            except KeyError:
                missing.append(_name_in(current_path))
                raise

        spaces = self._spaces()
        try:
            resolved, context = spaces.resolve(self.pipeline_space, domain_sampler=sample)
        except Exception:  # whatever NePS makes of it
            if not missing:
                raise
            raise AdapterError(f"the configuration has no value for {missing[0]}, a decision of {self.space.name}") from None
        convert, operation = spaces.convert_operation_to_callable, self._neps.Operation
        values = resolved.get_attrs().items()
        return {name: convert(value) if isinstance(value, operation) else value for name, value in values}, context

    def _categorical(self, at: int) -> Any:
        """The categorical of a decision, with those inside its alternatives."""
        domain = self.space.domains[at]
        if self.flat:
            return self._neps.Categorical(choices=tuple(range(domain.size)))
        choices = []
        for index in range(domain.size):
            inner = [d.index for d in self.space.domains if self._parents[d.index] == (at, index)]
            kwargs = {self.names[i]: self._categorical(i) for i in inner}
            choices.append(self._neps.Operation(operator=chosen, args=(index,), kwargs=kwargs) if inner else index)
        return self._neps.Categorical(choices=tuple(choices))


def _parent(space: Space, domain: Domain) -> tuple[int, int] | None:
    """The decision and alternative inside of which a decision stands; None for one of several alternatives, or of none."""
    cases = domain.condition.cases
    if domain.condition.is_always or len(cases) != 1:
        return None
    *rest, (number, alternatives) = cases[0]
    is_inside = len(alternatives) == 1 and space.domains[number].condition.cases == (tuple(rest),)
    return (number, next(iter(alternatives))) if is_inside else None


def _name_in(path: str) -> str:
    """The name of the decision in a sampling path: ``Resolvable.d3_op.…kwargs{d5_conv}::categorical__4``."""
    name: str = re.findall(r"d\d+_\w+", path.rpartition("::")[0])[-1]
    return name


def _collect(config: Mapping[str, Any], values: dict[str, int]) -> None:
    """All decisions of nested configurations, by name."""
    for name, value in config.items():
        if isinstance(value, Chosen):
            values[name] = value.index
            _collect(value.inner, values)
        elif isinstance(value, int) and not isinstance(value, bool):
            values[name] = value
