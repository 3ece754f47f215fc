"""Exponential moving average of the weights, which is evaluated and saved instead of the weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def ema_decay(step: int, decay: float) -> float:
    """(1 + step) / (10 + step), at most `decay`: early on, the average must not be dominated by the initial weights."""
    return min(decay, (1 + step) / (10 + step))


def make_ema(module: nn.Module, decay: float) -> AveragedModel:
    """The averaged copy of a module; `update_parameters` updates it, with buffers such as BatchNorm's statistics."""

    def update(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        # n_averaged is on the CPU whatever the device of the weights, so that reading it does not synchronise.
        get_ema_multi_avg_fn(ema_decay(int(average.n_averaged), decay))(averaged, current, None)  # type: ignore[no-untyped-call]

    average = AveragedModel(module, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]  # lists of one kind
    average.requires_grad_(False)
    return average
