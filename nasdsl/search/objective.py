"""The objective of a search: the reward, or the reward weighted by costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nasdsl.search.errors import ObjectiveError

COSTS: Final = ("macs", "params", "latency", "macs_total", "params_total")
"""``macs`` and ``params`` of fpn and head are counted, ``macs_total`` and ``params_total`` with the backbone; ``latency``
(seconds) is read from the details of the evaluation."""
EXPONENT: Final = -0.07
"""MnasNet's: doubling the cost must be worth 5 % of quality."""

_UNITS: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER: Final = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(k|M|G|T|s|ms|us)?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A cost and the target that it is weighed against.

    Attributes:
        cost: one of `COSTS`.
        target: in multiply-accumulates, parameters, or seconds.
        below, above: exponent of cost / target for costs up to the target, and for costs above it. Zero or less.

    Raises:
        ObjectiveError: a value is out of range.
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
        """(cost / target) ** exponent; infinite where that is beyond the range of floating-point numbers."""
        ratio = max(cost / self.target, 1e-9)
        try:
            return float(ratio ** (self.below if ratio <= 1 else self.above))
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Objective:
    """A weighted product of quality and costs, as in MnasNet (arXiv:1807.11626), equation 2.

    MnasNet maximises accuracy * weight, where weight is the product of the targets' weights. A reward may also be a negative
    loss. Its quality is 1 / loss, and minus the inverse of quality * weight is reward / weight. So the score is

        reward * weight for rewards of at least 0, reward / weight for negative ones.

    It is in units of the reward, rises with the reward, falls with each cost, and equals the reward if all costs are at their
    targets. As with any product, costs weigh little when losses are near 0.

    Attributes:
        targets: if empty, the score is the reward.

    Raises:
        ObjectiveError: a cost is named twice.
    """

    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        names = [target.cost for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ObjectiveError(f"{name} is weighed twice; expected each cost once")

    @property
    def needs_latency(self) -> bool:
        """Whether it weighs latency, which must be measured."""
        return any(target.cost == "latency" for target in self.targets)

    def score(self, reward: float, costs: Mapping[str, Any]) -> float:
        """The score of a reward.

        Raises:
            ObjectiveError: a cost of the objective is missing from `costs` or not a number, or the score is not finite.
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
        score = reward * weight if reward >= 0 else reward / weight if weight else -math.inf
        if not math.isfinite(score):
            raise ObjectiveError(f"the score is {score}, because the costs weigh {weight:g}; expected exponents nearer to 0")
        return score

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Parse ``reward``, or ``COST:TARGET[:EXPONENT[:EXPONENT ABOVE]]``, several separated by commas.

        ``macs:20G`` has the exponent -0.07 below and above the target, ``latency:15ms:-0.1`` has -0.1, and ``params:2M:0:-1``
        counts only what exceeds the target, in proportion.

        Raises:
            ObjectiveError: the text has another form, or a value is out of range.
        """
        if text.strip() in ("", "reward"):
            return cls()
        return cls(tuple(_parse_target(part.strip()) for part in text.split(",")))

    def __str__(self) -> str:
        """The text from which `parse` makes this objective."""
        return ",".join(f"{t.cost}:{t.target:.12g}:{t.below:.12g}:{t.above:.12g}" for t in self.targets) or "reward"


def _parse_target(text: str) -> Target:
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
