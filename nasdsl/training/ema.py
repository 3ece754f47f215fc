"""The exponential moving average of the weights, which is evaluated and saved in place of the weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def ema_decay(step: int, decay: float) -> float:
    """(1 + step) / (10 + step), at most `decay`: a young average must not cling to the weights that it started with."""
    return min(decay, (1 + step) / (10 + step))


def make_ema(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of a module whose `update_parameters` follows it, buffers such as BatchNorm's statistics included."""

    def follow(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        # The count lies on the CPU whatever the weights do, so that reading it waits for nothing.
        get_ema_multi_avg_fn(ema_decay(int(average.n_averaged), decay))(averaged, current, None)  # type: ignore[no-untyped-call]

    average = AveragedModel(module, multi_avg_fn=follow, use_buffers=True)  # type: ignore[arg-type]  # lists of one kind
    average.requires_grad_(False)
    return average
