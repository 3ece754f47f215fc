"""What a search maximises: the reward, or the reward weighed against costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nasdsl.search.errors import ObjectiveError

COSTS: Final = ("macs", "params", "latency")
"""``macs`` and ``params`` of fpn and head are counted; ``latency`` (seconds) is what the evaluation reports in its details."""
EXPONENT: Final = -0.07
"""Of MnasNet: twice the cost is worth 5 % of the quality."""

_UNITS: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER: Final = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(k|M|G|T|s|ms|us)?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A cost to be weighed.

    Attributes:
        cost: one of `COSTS`.
        target: in multiply-accumulates, parameters, or seconds.
        below, above: exponent of cost / target where the cost is at most the target, and where it is more. Zero or less.
    """

    cost: str
    target: float
    below: float = EXPONENT
    above: float = EXPONENT

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise ObjectiveError(f"unknown cost {self.cost!r}; expected {', '.join(COSTS)}")
        if not (math.isfinite(self.target) and self.target > 0):
            raise ObjectiveError(f"the target for {self.cost} is {self.target:g}; expected a number above 0")
        for exponent in (self.below, self.above):
            if not (math.isfinite(exponent) and exponent <= 0):
                raise ObjectiveError(
                    f"an exponent for {self.cost} is {exponent:g}; expected 0 or less, because the weight (cost / target) ** "
                    "exponent must fall as the cost rises"
                )

    def weight(self, cost: float) -> float:
        """(cost / target) ** exponent."""
        ratio = max(cost / self.target, 1e-9)
        return float(ratio ** (self.below if ratio <= 1 else self.above))


@dataclass(frozen=True)
class Objective:
    """A weighted product of quality and costs, as in MnasNet (arXiv:1807.11626), equation 2.

    There, quality is an accuracy, and the objective is quality * weight with the product of the targets' weights. Here
    rewards may be negative losses as well. A reward below 0 stands for the quality 1 / loss, and the objective is minus
    the inverse of 1 / loss * weight, which is reward / weight. So the score is

        reward * weight where the reward is at least 0, reward / weight where it is below:

    in units of the reward, rising with the reward and falling with each cost whatever the sign, and the reward itself where
    all costs are at their targets. Where losses are near 0, costs weigh little: a product has this property.

    Attributes:
        targets: empty: the score is the reward.
    """

    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        names = [target.cost for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ObjectiveError(f"{name} is weighed twice; expected each cost once")

    @property
    def timed(self) -> bool:
        """Whether it weighs latency, which has to be measured."""
        return any(target.cost == "latency" for target in self.targets)

    def score(self, reward: float, costs: Mapping[str, Any]) -> float:
        """The score of a reward.

        Raises:
            ObjectiveError: a cost that is weighed is not among `costs`, or no number.
        """
        weight = 1.0
        for target in self.targets:
            cost = costs.get(target.cost)
            if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
                raise ObjectiveError(
                    f"the objective weighs {target.cost}, and the evaluation's details have "
                    f"{'none' if cost is None else repr(cost)}"
                )
            weight *= target.weight(cost)
        return reward * weight if reward >= 0 else reward / weight

    @classmethod
    def parse(cls, text: str) -> Objective:
        """An objective from ``reward`` or ``COST:TARGET[:EXPONENT[:EXPONENT ABOVE]]``, several separated by commas.

        ``macs:20G`` weighs with the exponent -0.07 on both sides, ``latency:15ms:-0.1`` with another one, and
        ``params:2M:0:-1`` counts only what is above the target, in full.

        Raises:
            ObjectiveError: it reads otherwise.
        """
        if text.strip() in ("", "reward"):
            return cls()
        return cls(tuple(_target(part.strip()) for part in text.split(",")))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return ",".join(f"{t.cost}:{t.target:.12g}:{t.below:.12g}:{t.above:.12g}" for t in self.targets) or "reward"


def _target(text: str) -> Target:
    cost, *rest = text.split(":")
    if not 1 <= len(rest) <= 3:
        raise ObjectiveError(f"{text!r}: expected COST:TARGET or COST:TARGET:EXPONENT, such as macs:20G:-0.07")
    amount = _NUMBER.fullmatch(rest[0])
    try:
        if amount is None:
            raise ValueError
        target = float(amount[1]) * _UNITS[amount[2] or ""]
        exponents = [float(exponent) for exponent in rest[1:]] or [EXPONENT]
    except ValueError:
        raise ObjectiveError(f"{text!r}: expected numbers, such as macs:20G:-0.07 or latency:15ms") from None
    return Target(cost, target, exponents[0], exponents[-1])
