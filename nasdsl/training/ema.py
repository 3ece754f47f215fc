"""Exponential moving average of the weights, which is evaluated and saved instead of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def ema_decay(step: int, decay: float, warmup: float | None = None) -> float:
    """The decay after `step` updates: it rises to `decay`, because the initial weights must not dominate an early average.

    Args:
        warmup: time constant of the rise in steps, ``decay * (1 - exp(-step / warmup))``. None: (1 + step) / (10 + step), at
            most `decay`.
    """
    if warmup is None:
        return min(decay, (1 + step) / (10 + step))
    return decay * (1 - math.exp(-step / warmup)) if warmup else decay


def make_ema(module: nn.Module, decay: float, warmup: float | None = None) -> AveragedModel:
    """The averaged copy of a module; `update_parameters` updates it.

    Buffers of floating-point numbers, such as BatchNorm's statistics, are averaged as well; others, such as its count of
    batches, are copied.

    Args:
        warmup: see `ema_decay`.
    """

    def update(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)
            return
        # n_averaged is on the CPU whatever the device of the weights, so that reading it does not synchronise.
        ema = get_ema_multi_avg_fn(ema_decay(int(average.n_averaged), decay, warmup))  # type: ignore[no-untyped-call]  # torch's
        ema(averaged, current, None)

    average = AveragedModel(module, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]  # lists of one kind
    average.requires_grad_(False)
    return average


class WeightAverage:
    """An averaged copy of a module, like that of `make_ema`, which is updated by operations on tensors alone: on a GPU, a CUDA
    graph can repeat them.

    Attributes:
        module: the copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, share: float | Tensor) -> None:
        """Move the averages towards the weights.

        Args:
            module: has the current weights.
            share: of the current weights in the average, 0 … 1; a tensor on a GPU. The first one is 1, to copy them.
        """
        pairs = list(zip(_state(self.module), _state(module), strict=True))
        averaged, current = ([pair[i] for pair in pairs if pair[0].is_floating_point()] for i in (0, 1))
        if isinstance(share, Tensor):
            moves = torch._foreach_sub(current, averaged)
            torch._foreach_mul_(moves, share)
            torch._foreach_add_(averaged, moves)
        elif share == 1:
            torch._foreach_copy_(averaged, current)
        else:
            torch._foreach_lerp_(averaged, current, share)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
