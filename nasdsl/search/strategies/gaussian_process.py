"""A Gaussian process over the fillings of a space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nasdsl.search.strategies.activity import Activity
from nasdsl.search.strategies.strategy import Indices
from nasdsl.spaces import Space


class Features:
    """Encodes fillings as 0/1 features whose weighted Hamming distance is the distance of the fillings.

    Two alternatives of a choice or of a pool are at distance 1, two numbers of a range at their difference over the length of
    the range, and a decision that is active in only one of two fillings adds up to 1. Decisions inactive in both add nothing.

    Attributes:
        count: number of decisions.
        decision: int64 [features], the decision of each feature.
        scale: float64 [features], the distance added by a feature in which two fillings differ.
    """

    def __init__(self, space: Space) -> None:
        self.count = len(space.domains)
        self._activity = Activity(space)
        self._codes: list[Tensor] = []
        decision: list[int] = []
        scale: list[float] = []
        for domain in space.domains:
            size = domain.size
            if domain.kind == "range":  # thermometer code: two numbers differ in as many bits as they are steps apart
                code = torch.ones(size, size, dtype=torch.float64).tril(-1)[:, : size - 1]
                steps = [1.0 / max(1, size - 1)] * code.shape[1]
            else:
                code = torch.eye(size, dtype=torch.float64)  # one-hot: two bits differ
                steps = [0.5] * size
            if not domain.condition.is_always:  # one more bit: whether it is active
                code = torch.cat([code, torch.ones(size, 1, dtype=torch.float64)], 1)
                steps.append(0.5)
            self._codes.append(code)
            decision += [domain.index] * len(steps)
            scale += steps
        self.decision = torch.tensor(decision, dtype=torch.long)
        self.scale = torch.tensor(scale, dtype=torch.float64)

    def __call__(self, fillings: Sequence[Indices]) -> Tensor:
        """Encode fillings: float64 [n, features]."""
        indices = torch.tensor(fillings, dtype=torch.long).reshape(len(fillings), len(self._codes))
        decisions = indices.unbind(1)
        columns = [torch.zeros(len(fillings), 0, dtype=torch.float64)]
        for place, code in enumerate(self._codes):
            column = code[decisions[place]]
            if not self._activity.is_always(place):
                column = column * self._activity.of(place, decisions, len(fillings))[:, None]
            columns.append(column)
        return torch.cat(columns, 1)


def distances(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted Hamming distances of 0/1 features: [n, f], [m, f], [f] -> [n, m]."""
    separate = (x @ weight)[:, None] + (y @ weight)
    return torch.addmm(separate, x * weight, y.T, alpha=-2).clamp(min=0)


class GaussianProcess:
    """A Gaussian process with mean 0, covariance amplitude * exp(-sum over decisions of weight * distance), and noise.

    The kernel is the exponential of a weighted Hamming distance with one weight per decision, as in COMBO (arXiv:1902.00448)
    and CASMOPOLITAN (arXiv:2102.07188). Parameters are maximum a posteriori estimates under log-normal priors. The prior of the
    weights is scaled by the number of decisions (arXiv:2402.02229), so that fillings that differ everywhere have the same
    correlation in small and in large spaces.

    Args:
        features: the encoding of the fillings. None: `Features` of the space.

    Attributes:
        parameters: float64 [decisions + 2], logarithms of a weight per decision, of the amplitude, and of the noise.
    """

    def __init__(self, space: Space, features: Features | None = None) -> None:
        self.features = features or Features(space)
        count = self.features.count
        self.prior_mean = torch.tensor([math.log(3 / max(1, count))] * count + [0.0, math.log(1e-3)], dtype=torch.float64)
        self.prior_std = torch.tensor([1.0] * count + [0.5, 1.0], dtype=torch.float64)
        self.parameters = self.prior_mean.clone()

    def log_posterior(self, parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Log posterior density of parameters given values y [n] at features x [n, f], up to a constant."""
        factor = self._factor(parameters, x)
        white = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
        evidence: Tensor = -0.5 * white.square().sum() - factor.diagonal().log().sum()
        prior = -0.5 * ((parameters - self.prior_mean) / self.prior_std).square().sum()
        return evidence + prior

    def _kernel(self, parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        weight = parameters[:-2].exp()[self.features.decision] * self.features.scale
        return (parameters[-2] - distances(x, y, weight)).exp()

    def _factor(self, parameters: Tensor, x: Tensor) -> Tensor:
        noise = parameters[-1].exp() + 1e-6
        factor: Tensor = torch.linalg.cholesky(self._kernel(parameters, x, x) + noise * torch.eye(len(x), dtype=x.dtype))
        return factor

    def fit(self, x: Tensor, y: Tensor, steps: int) -> None:
        """Improve the parameters by `steps` steps of Adam, starting from their present values."""
        parameters = self.parameters.clone().requires_grad_()
        optimizer = torch.optim.Adam([parameters], lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = -self.log_posterior(parameters, x, y)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            optimizer.step()
        self.parameters = parameters.detach()

    def condition(self, x: Tensor, y: Tensor) -> Posterior:
        """The posterior given values y [n] at features x [n, f]."""
        return Posterior(self, x, y)


class Posterior:
    """A Gaussian process conditioned on values."""

    def __init__(self, process: GaussianProcess, x: Tensor, y: Tensor) -> None:
        self.process = process
        self.x = x
        self._factor = process._factor(process.parameters, x)
        self._weights = torch.cholesky_solve(y[:, None], self._factor)[:, 0]

    def mean(self, x: Tensor) -> Tensor:
        """Mean at features x [m, f]: [m]. Its cost grows with n, that of the deviation with the square of n."""
        return self._weights @ self.process._kernel(self.process.parameters, self.x, x)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [m] and standard deviation [m] without noise at features x [m, f]."""
        kernel = self.process._kernel(self.process.parameters, self.x, x)
        white = torch.linalg.solve_triangular(self._factor, kernel, upper=False)
        variance = self.process.parameters[-2].exp() - white.square().sum(0)
        return self._weights @ kernel, variance.clamp(min=1e-12).sqrt()
