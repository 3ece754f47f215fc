"""Acquisition functions of Bayesian optimisation: expected improvement, and expected improvement of the hypervolume."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

CHUNK: Final = 2_000_000
"""Numbers in the largest tensor that is made at a time."""


def log_expected_improvement(mean: Tensor, std: Tensor, best: float | Tensor) -> Tensor:
    """Logarithm of the expected improvement E[max(0, f - best)] for normal f, also where that underflows to 0.

    With z = (mean - best)/std it is log(std) + log(phi(z) + z*Phi(z)); far below, phi(z) + z*Phi(z) ~ phi(z)/z^2.
    """
    z = (mean - best) / std
    log_phi = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    near = z.clamp(min=-6)
    exact = (torch.exp(-0.5 * near.square()) / math.sqrt(2 * math.pi) + near * torch.special.ndtr(near)).clamp(min=1e-300).log()
    far = log_phi - 2 * z.clamp(max=-6).abs().log()
    return std.log() + torch.where(z > -6, exact, far)


class HypervolumeImprovement:
    """The expected growth of the volume that a front dominates by a sample whose costs are known and whose reward is normal.

    At a level f of the reward, the front dominates a region of the costs: that of its points with rewards of at least f. A
    sample with costs c adds what its own region [c, reference] has beyond that one, g(c, f), for all levels up to its reward.
    g is constant between the rewards of the front and rises with f. So the expected improvement of the hypervolume is a sum of
    ordinary expected improvements over the rewards of the front, with the steps of g as weights: exact, and in one dimension
    whatever the number of costs. (Acquisitions that model costs as well integrate over all of them: Yang et al. 2019.)

    Args:
        rewards: of the front [m].
        costs: of the front [m, 1] or [m, 2].
        lowest: reward from which volume is counted.
        reference: costs up to which volume is counted [1] or [2].
    """

    def __init__(self, rewards: Tensor, costs: Tensor, lowest: float, reference: Tensor) -> None:
        inside = (rewards > lowest) & (costs < reference).all(1)
        rewards, costs = rewards[inside], costs[inside]
        order = rewards.argsort(stable=True)
        self.reference = reference
        self.levels = torch.cat([rewards.new_tensor([lowest]), rewards[order]])
        if costs.shape[1] == 1:  # cheapest point at each level: those from the level on, and the reference
            column = torch.cat([costs[order, 0], reference])
            self._cheapest = column.flip(0).cummin(0).values.flip(0)
        else:
            self._set_staircases(costs[order])

    def _set_staircases(self, costs: Tensor) -> None:
        """The lower edge of the dominated region at each level: y by the segments of x between the front's points."""
        by_x = costs[:, 0].argsort(stable=True)
        x, y = costs[by_x, 0], costs[by_x, 1]
        level = torch.arange(len(costs) + 1)[:, None]
        y = torch.where(by_x[None] >= level, y[None], self.reference[1])  # a point counts up to its own level
        first = self.reference[1].expand(len(costs) + 1, 1)
        self._edges = torch.cat([x.new_tensor([-math.inf]), x, self.reference[:1]])  # [m + 2]
        self._heights = torch.cat([first, y], 1).cummin(1).values  # [levels, segments]

    def gains(self, costs: Tensor) -> Tensor:
        """g for samples with these costs [n, k] at each level: [n, m + 1]."""
        if costs.shape[1] == 1:
            return (self._cheapest - costs).clamp(min=0)
        begin = torch.maximum(self._edges[:-1], costs[:, :1])
        widths = (self._edges[1:] - begin).clamp(min=0)  # [n, segments]
        size = max(1, CHUNK // self._heights.numel())
        parts = [
            torch.einsum("ns,nls->nl", w, (self._heights - y[:, None, None]).clamp(min=0))
            for w, y in zip(torch.split(widths, size), torch.split(costs[:, 1], size), strict=True)
        ]
        return torch.cat(parts) if parts else costs.new_zeros(0, len(self.levels))

    def __call__(self, mean: Tensor, std: Tensor, costs: Tensor) -> Tensor:
        """Logarithm of the expected improvement of the hypervolume [n], -inf if there can be none.

        Args:
            mean, std: of the reward [n].
            costs: [n, k].
        """
        gains = self.gains(costs)
        steps = torch.cat([gains[:, :1], gains.diff(dim=1)], 1).clamp(min=0)
        improvement = log_expected_improvement(mean[:, None], std[:, None], self.levels)
        return torch.logsumexp(steps.log() + improvement, 1)
