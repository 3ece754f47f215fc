"""GroupNorm for every map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, also where a group has one value: 32 channels on a map of one pixel.

    ``torch.nn.functional.group_norm`` refuses that in training and in evaluation alike. The value becomes the bias, which
    is what the formula gives.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
