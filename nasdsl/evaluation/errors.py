"""The error of `nasdsl.evaluation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_LISTED: Final = 10
"""Problems that a message lists before it only counts them."""


class EvaluationError(ValueError):
    """A ground truth or results cannot be evaluated; the message says what was found, where, and what was expected."""


def raise_problems(subject: str, problems: Sequence[str]) -> None:
    """Raise an `EvaluationError` that lists the problems; do nothing where there are none."""
    if not problems:
        return
    lines = [f"{subject}: {len(problems)} {'entry is' if len(problems) == 1 else 'entries are'} wrong"]
    lines += [f"  {problem}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  and {len(problems) - MAX_LISTED} more")
    raise EvaluationError("\n".join(lines))
