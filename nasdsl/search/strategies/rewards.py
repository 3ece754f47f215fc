"""Rewards as strategies learn them: failures as None, numbers by their rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def finite_or_none(reward: float | None) -> float | None:
    """The reward if it is finite; None, which stands for a failure, if not."""
    return float(reward) if reward is not None and math.isfinite(reward) else None


def normal_scores(rewards: Sequence[float | None]) -> Tensor:
    """Replace rewards by quantiles of the normal distribution: the i-th smallest of n by the quantile (i - 1/2)/n.

    Only the order of the rewards matters, neither their unit nor outliers. Equal rewards share the mean of their ranks;
    failures (None) are equal to each other, and smaller than any number.

    Returns:
        float64 [n].
    """
    if not rewards:
        return torch.zeros(0, dtype=torch.float64)
    lowest = float("-inf")
    values = torch.tensor([lowest if r is None else r for r in rewards], dtype=torch.float64)
    _, group, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0)
    rank = last.double() - (count - 1) / 2  # from 1; the mean rank in each group of equal values
    scores: Tensor = torch.special.ndtri((rank[group] - 0.5) / len(rewards))
    return scores
