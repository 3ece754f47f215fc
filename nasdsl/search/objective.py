"""The objective of a search: the reward, the reward weighted by costs, or the front of reward and costs."""

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
AIMS: Final = {"macs": "macs_total", "params": "params_total", "latency": "latency_total"}
"""The costs that a search with several aims minimises, and that budgets limit, with the trials' figures that hold them. They
are those of the whole detector with its backbone, for one image. Without a predicted latency, it is the measured one of fpn
and head in the evaluation's details."""
MOST_COSTS: Final = 2
"""Costs that a search can minimise beside the reward."""
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
        """(cost / target) ** exponent; infinite where that is beyond the range of floating-point numbers.

        Args:
            cost: in the unit of the target.
        """
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

    With `aims` there is no single best decoder: the search looks for the front of those that none is better than in the reward
    and in all of these costs.

    Attributes:
        targets: if empty, the score is the reward.
        aims: costs that are minimised while the reward is maximised; keys of `AIMS`.

    Raises:
        ObjectiveError: a cost is unknown or named twice, there are too many, or costs are both weighed and minimised.
    """

    targets: tuple[Target, ...] = ()
    aims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [target.cost for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ObjectiveError(f"{name} is weighed twice; expected each cost once")
        for name in self.aims:
            if name not in AIMS:
                raise ObjectiveError(f"unknown aim {name!r}; expected reward with one or two of {', '.join(AIMS)}")
            if self.aims.count(name) > 1:
                raise ObjectiveError(f"{name} is named twice; expected each aim once")
        if len(self.aims) > MOST_COSTS:
            raise ObjectiveError(
                f"the aims are reward and {len(self.aims)} costs ({', '.join(self.aims)}); expected at most {MOST_COSTS} "
                "costs: limit another by --budget"
            )
        if self.aims and self.targets:
            raise ObjectiveError("costs are weighed against targets and minimised as aims; expected one of the two")

    @property
    def needs_latency(self) -> bool:
        """Whether it weighs or minimises latency."""
        return "latency" in (*self.aims, *(target.cost for target in self.targets))

    def score(self, reward: float, costs: Mapping[str, Any]) -> float:
        """The score of a reward.

        Args:
            reward: of the evaluation, higher is better.
            costs: by name; more than the objective needs are allowed.

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

    def costs(self, figures: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, float]:
        """The costs of a trial that are aims, by name.

        Args:
            figures: costs that follow from the text, by name.
            details: what the evaluation has measured, by name.

        Raises:
            ObjectiveError: one is missing or not a number.
        """
        found: dict[str, float] = {}
        for aim in self.aims:
            cost = aim_cost(aim, figures, details)
            if cost is None:
                raise ObjectiveError(f"the objective minimises {aim}, and neither the check nor the evaluation gives a number")
            found[aim] = cost
        return found

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Parse ``reward``, ``reward,COST[,COST]``, or ``COST:TARGET[:EXPONENT[:EXPONENT ABOVE]]`` (several with commas).

        ``reward,macs`` has two aims, the reward and the multiply-accumulates of the whole detector. ``macs:20G`` weighs the
        reward; it has the exponent -0.07 below and above the target, ``latency:15ms:-0.1`` has -0.1, and ``params:2M:0:-1``
        counts only what exceeds the target, in proportion.

        Args:
            text: as on the command line.

        Raises:
            ObjectiveError: the text has another form, or a value is out of range.
        """
        if text.strip() in ("", "reward"):
            return cls()
        parts = [part.strip() for part in text.split(",")]
        if "reward" in parts:
            aims = tuple(part for part in parts if part != "reward")
            if len(aims) < len(parts) - 1:
                raise ObjectiveError(f"{text!r}: reward is named twice; expected each aim once")
            for part in aims:
                if ":" in part:
                    raise ObjectiveError(
                        f"{text!r}: {part} has a target, and beside reward a cost is minimised without one; expected reward,"
                        f"{part.partition(':')[0]} for the front, or {part} to weigh the reward, or --budget to limit a cost"
                    )
            return cls(aims=aims)
        return cls(tuple(_parse_target(part.strip()) for part in text.split(",")))

    def __str__(self) -> str:
        """The text from which `parse` makes this objective."""
        if self.aims:
            return ",".join(("reward", *self.aims))
        return ",".join(f"{t.cost}:{t.target:.12g}:{t.below:.12g}:{t.above:.12g}" for t in self.targets) or "reward"


def aim_cost(aim: str, figures: Mapping[str, Any], details: Mapping[str, Any]) -> float | None:
    """A cost of a trial by its name in `AIMS`; None if it has none."""
    value = figures.get(AIMS[aim])
    if value is None and aim == "latency":
        value = details.get("latency")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _parse_target(text: str) -> Target:
    cost, *rest = text.split(":")
    if not 1 <= len(rest) <= 3:
        hint = f", or reward,{cost} for the front of both" if cost in AIMS and not rest else ""
        raise ObjectiveError(f"{text!r}: expected COST:TARGET or COST:TARGET:EXPONENT, such as macs:20G:-0.07{hint}")
    try:
        target = parse_amount(rest[0])
        exponents = [float(exponent) for exponent in rest[1:]] or [EXPONENT]
    except ValueError:
        raise ObjectiveError(f"{text!r}: expected numbers, such as macs:20G:-0.07 or latency:15ms") from None
    return Target(cost, target, exponents[0], exponents[-1])


def parse_amount(text: str) -> float:
    """Parse a number with a unit: ``2G``, ``5M``, ``15ms``.

    Raises:
        ValueError: it has another form.
    """
    amount = _NUMBER.fullmatch(text)
    if amount is None:
        raise ValueError(text)
    return float(amount[1]) * _UNITS[amount[2] or ""]
