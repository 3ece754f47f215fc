"""GroupNorm that accepts maps of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, also where a group has a single value: 32 channels in 32 groups on a map of one pixel.

    ``torch.nn.functional.group_norm`` rejects that case in training and in evaluation. The result is the bias, as the formula
    gives.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
