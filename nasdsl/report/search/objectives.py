"""Objectives of searches in words."""

from __future__ import annotations

from nasdsl.report import formatting
from nasdsl.search.errors import ObjectiveError
from nasdsl.search.objective import Objective

_UNITS = {"macs": "MACs", "params": "parameters", "latency": "latency"}


def objective_words(text: object) -> str:
    """An objective in words: ``MACs at 800 M (exponent -0.07)``; unchanged if it cannot be parsed."""
    try:
        objective = Objective.parse(str(text))
    except ObjectiveError:
        return str(text)
    targets, words = objective.targets, []
    if objective.aims:
        return f"the front of reward and {' and '.join(f'{_UNITS[aim]} of the detector' for aim in objective.aims)}"
    for target in targets:
        at = formatting.latency(target.target) if target.cost == "latency" else formatting.amount(target.target)
        exponents = f"exponent {target.below:g}"
        if target.above != target.below:
            exponents = f"exponents {target.below:g} below and {target.above:g} above"
        words.append(f"{_UNITS[target.cost]} at {at} ({formatting.signed(exponents)})")
    return " and ".join(words) or "the reward alone"
