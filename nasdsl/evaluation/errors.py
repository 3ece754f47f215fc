"""What is wrong with a ground truth or with results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SHOWN: Final = 10
"""Findings that a message lists before it only counts the rest."""


class EvaluationError(ValueError):
    """A ground truth or results that cannot be evaluated. The message says what was found, where, and what was expected."""


def refuse(subject: str, findings: Sequence[str]) -> None:
    """Raises an `EvaluationError` that lists the first findings and counts the rest; does nothing where there are none."""
    if not findings:
        return
    lines = [f"{subject}: {len(findings)} {'entry is' if len(findings) == 1 else 'entries are'} wrong"]
    lines += [f"  {finding}" for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN} more")
    raise EvaluationError("\n".join(lines))
