"""Budgets: limits on the costs of the whole detector, which are kept before anything is trained."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nasdsl.search.costs import DetectorCosts, KnownCosts
from nasdsl.search.errors import BudgetError
from nasdsl.search.objective import AIMS, parse_amount
from nasdsl.search.strategies.mutation import mutate
from nasdsl.spaces import Filled, Space, SpaceError

UNIFORM_DRAWS: Final = 1000
"""Uniform fillings that are drawn for a sample within the budget before one is looked for by descent."""
DESCENTS: Final = 20
"""Descents that are tried before a space is given up as one in which nothing is within the budget."""
PATIENCE: Final = 200
"""Mutants in a row that do not lower the excess, after which a descent is given up."""

_WORDS: Final = {"macs": "multiply-accumulates", "params": "parameters", "latency": "seconds"}


@dataclass(frozen=True)
class Budget:
    """The largest cost of a whole detector, with its backbone, for one image.

    Attributes:
        cost: ``macs``, ``params`` or ``latency``.
        limit: in multiply-accumulates, parameters, or seconds.
        runtime: of a latency, such as ``onnxruntime``; empty for the default.

    Raises:
        BudgetError: a value is out of range.
    """

    cost: str
    limit: float
    runtime: str = ""

    def __post_init__(self) -> None:
        if self.cost not in AIMS:
            raise BudgetError(f"a budget limits {self.cost!r}; expected one of {', '.join(AIMS)}, such as macs:2G")
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise BudgetError(f"the budget of {self.cost} is {self.limit:g}; expected a number above 0")
        if self.runtime and self.cost != "latency":
            raise BudgetError(f"the budget of {self.cost} names the runtime {self.runtime!r}; only a latency has one")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse ``macs:2G``, ``params:5M``, ``latency:15ms`` or ``latency:15ms@onnxruntime``.

        Args:
            text: as on the command line.

        Raises:
            BudgetError: the text has another form, or a value is out of range.
        """
        cost, _, rest = text.strip().partition(":")
        amount, at, runtime = rest.partition("@")
        unit = amount.lstrip("0123456789.e+-")
        try:
            if (at and not runtime) or (unit and unit.endswith("s") != (cost == "latency")):
                raise ValueError
            limit = parse_amount(amount)
        except ValueError:
            raise BudgetError(
                f"the budget is {text!r}; expected COST:LIMIT, such as macs:2G, params:5M or latency:15ms@onnxruntime"
            ) from None
        return cls(cost, limit, runtime)

    def __str__(self) -> str:
        """The text from which `parse` makes this budget."""
        return f"{self.cost}:{self.limit:.12g}" + (f"@{self.runtime}" if self.runtime else "")

    @property
    def words(self) -> str:
        """The budget in words, for messages."""
        return f"{_amount(self.cost, self.limit)} with the backbone" + (f" on {self.runtime}" if self.runtime else "")


def parse_budgets(texts: Iterable[str | Budget]) -> tuple[Budget, ...]:
    """Parse budgets, at most one for each cost.

    Raises:
        BudgetError: a text is invalid, or a cost has two budgets.
    """
    budgets = tuple(text if isinstance(text, Budget) else Budget.parse(text) for text in texts)
    costs = [budget.cost for budget in budgets]
    for cost in costs:
        if costs.count(cost) > 1:
            raise BudgetError(f"{cost} has two budgets; expected one for each cost")
    return budgets


class BudgetedSpace(Space):
    """A space whose fillings keep its requirements and budgets.

    Strategies that respect the requirements of a space so respect budgets, and know them before they propose anything.

    Args:
        space: without budgets.
        budgets: at least one.
        costs: of the fillings.

    Raises:
        BudgetError: a cost of a budget is not known before an evaluation, or the backbone alone is above a budget.
    """

    def __init__(self, space: Space, budgets: Sequence[Budget], costs: KnownCosts) -> None:
        super().__init__(space.program, space.source, space.backbone, space.classes, space.path)
        self.on_rejections = space.on_rejections
        self.budgets, self.costs = tuple(budgets), costs
        if isinstance(costs, DetectorCosts):
            self._check_backbone(costs)

    def _check_backbone(self, costs: DetectorCosts) -> None:
        for budget in self.budgets:
            if budget.cost not in costs.names:
                raise BudgetError(
                    f"the budget is {budget}, and {budget.cost} is not known before an evaluation here; "
                    f"expected a budget of {' or '.join(costs.names)}"
                )
            alone = costs.backbone.get(budget.cost, 0.0)
            if alone >= budget.limit:
                names = " or ".join(self.backbones) or self.backbone.name
                raise BudgetError(
                    f"the backbone {names} alone has {_amount(budget.cost, alone)}, and the budget is {budget}; "
                    "expected a larger budget, a smaller image or a smaller backbone"
                )

    def keeps(self, indices: Sequence[int]) -> bool:
        """Whether a filling can be built, keeps the requirements, and is within the budgets."""
        return super().keeps(indices) and self.excess(indices) <= 1

    def excess(self, indices: Sequence[int]) -> float:
        """The largest share of a budget that a filling takes, 1 at a budget; infinite for one that cannot be built."""
        costs = self._costs(indices)
        return math.inf if costs is None else self._share(costs)

    def _costs(self, indices: Sequence[int]) -> Mapping[str, float] | None:
        """The costs of a filling, with all that the budgets limit."""
        costs = self.costs(tuple(indices))
        if costs is None:
            return None
        for budget in self.budgets:
            if budget.cost not in costs:
                raise BudgetError(
                    f"the budget is {budget}, and the costs that are known do not have {budget.cost}; "
                    f"expected a budget of {' or '.join(costs) or 'nothing'}"
                )
        return costs

    def over_budget(self, indices: Sequence[int]) -> str | None:
        """Which budget a filling exceeds, and by what; None if it exceeds none."""
        costs = self._costs(indices)
        for budget in self.budgets if costs is not None else ():
            assert costs is not None
            if costs[budget.cost] > budget.limit:
                return f"over the budget: it has {_amount(budget.cost, costs[budget.cost])}, expected at most {budget.words}"
        return None

    def sample(self, seed: int | random.Random | None = None, *, attempts: int | None = None) -> Filled:
        """A uniform sample of the fillings within the budget; where they are fewer than one in a thousand, by descent.

        A descent starts from the filling with the least excess among 30 uniform ones, and takes each mutant that is not above
        the present one, until it is within the budget. It is not uniform: it prefers fillings near the budget.

        Raises:
            SpaceError: there is none, or none was found.
        """
        rng = seed if isinstance(seed, random.Random) else random.Random(seed)
        try:
            return super().sample(rng, attempts=UNIFORM_DRAWS if attempts is None else attempts)
        except SpaceError:
            if attempts is not None or not self.domains:
                raise SpaceError(f"{self._nothing_within(())}") from None
        reached: list[tuple[int, ...]] = []
        for _ in range(DESCENTS):
            filling = self._descend(rng)
            if self.keeps(filling):
                return self.decode(filling)
            reached.append(filling)
        raise SpaceError(self._nothing_within(reached))

    def _descend(self, rng: random.Random) -> tuple[int, ...]:
        def excess(filling: tuple[int, ...]) -> float:
            return self.excess(filling) if Space.keeps(self, filling) else math.inf

        starts = [tuple(domain.draw(rng) for domain in self.domains) for _ in range(30)]
        starts = [tuple(i if a else 0 for i, a in zip(s, self.active(s), strict=True)) for s in starts]
        present, filling = min(((excess(start), start) for start in starts), key=lambda item: item[0])
        vain = 0
        while present > 1 and vain < PATIENCE:
            mutant = mutate(self, filling, rng)
            value = excess(mutant)
            vain = 0 if value < present else vain + 1
            if value <= present:
                present, filling = value, mutant
        return filling

    def _nothing_within(self, reached: Sequence[tuple[int, ...]]) -> str:
        budgets = " and ".join(budget.words for budget in self.budgets)
        costs = min((c for f in reached if (c := self.costs(f)) is not None), key=self._share, default=None)
        least = ""
        if costs is not None:
            least = f"; the smallest has {' and '.join(_amount(b.cost, costs[b.cost]) for b in self.budgets)}"
        return f"no decoder of {self.name} with at most {budgets} was found{least}"

    def _share(self, costs: Mapping[str, float]) -> float:
        return max(costs[budget.cost] / budget.limit for budget in self.budgets)

    def _rejection(self, indices: Sequence[int]) -> str:
        return super()._rejection(indices) if not Space.keeps(self, indices) else f"is {self.over_budget(indices)}"


def _amount(cost: str, value: float) -> str:
    if cost == "latency":
        return f"{1000 * value:.4g} ms"
    scale, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= s), (1.0, ""))
    return f"{value / scale:.4g}{unit} {_WORDS[cost]}"
