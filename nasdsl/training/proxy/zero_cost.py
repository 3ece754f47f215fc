"""Scores of decoders that are not trained: each needs one batch, forward and backward; higher is better.

They are three of those that "Zero-Cost Proxies for Lightweight NAS" compares (arXiv:2101.08134), for classifiers; here the
batch is one of crops, and the outputs are the class logits of all levels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from nasdsl.detection.method import Method
from nasdsl.detection.pyramid import Predictions
from nasdsl.training.proxy.loader import CropBatch

ZERO_COST: Final = ("gradient_norm", "synflow", "jacobian_covariance")
"""Values of `ProxySpec.reward` that are computed here."""
_STABILITY: Final = 1e-5
"""Added to eigenvalues, as in the paper's code of the Jacobian's covariance."""


def zero_cost_score(name: str, module: nn.Module, batch: CropBatch, method: Method) -> float:
    """The score of this name of a module with random weights, which are left as they are."""
    if name == "gradient_norm":
        return gradient_norm(module, batch, method)
    if name == "synflow":
        return synflow(module, batch.features)
    return jacobian_covariance(module, batch.features)


def gradient_norm(module: nn.Module, batch: CropBatch, method: Method) -> float:
    """Euclidean norm of the gradients of all parameters."""
    module.train()
    module.zero_grad()
    losses = method.losses(module(batch.features), batch.targets)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), math.inf))  # nothing is clipped; `get_total_norm` is newer
    module.zero_grad()
    return norm


def synflow(module: nn.Module, features: Mapping[str, Tensor]) -> float:
    """Logarithm of the sum of weight times gradient where weights are absolute and features are 1 (arXiv:2006.05467).

    Norms are left out, so that no path is scaled, and numbers are float64, because products of many layers are large.
    """
    linear = copy.deepcopy(module).double().eval()
    for parent in list(linear.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm | nn.LayerNorm | nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    ones = {name: torch.ones_like(maps[:1], dtype=torch.float64) for name, maps in features.items()}
    _sum_of_logits(linear(ones)).backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
    total = sum(float((p.detach() * p.grad).sum()) for p in linear.parameters() if p.grad is not None)
    return math.log(total) if total > 0 else -math.inf


def jacobian_covariance(module: nn.Module, features: Mapping[str, Tensor]) -> float:
    """How differently the crops of a batch change the outputs: from the eigenvalues of the correlations of their Jacobians.

    That is the first score of "Neural Architecture Search without Training" (arXiv:2006.04647v1).
    """
    module.train()
    inputs = {name: maps.detach().clone().requires_grad_() for name, maps in features.items()}
    gradients = torch.autograd.grad(_sum_of_logits(module(inputs)), list(inputs.values()), allow_unused=True)
    rows = torch.cat([g.flatten(1) for g in gradients if g is not None], dim=1).double()
    values = torch.linalg.eigvalsh(torch.corrcoef(rows).nan_to_num()) + _STABILITY
    values = values.clamp(min=_STABILITY)
    return -float((values.log() + 1 / values).sum())


def _sum_of_logits(predictions: Predictions) -> Tensor:
    return torch.stack([level.cls_logits.sum() for level in predictions.values()]).sum()
