"""GroupNorm that accepts maps of any size, and LayerNorm over the channels of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, also where a group has a single value: 32 channels in 32 groups on a map of one pixel.

    ``torch.nn.functional.group_norm`` rejects that case in training and in evaluation. The result is the bias, as the formula
    gives.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels at each position of a map: [N, C, H, W] to [N, C, H, W].

    Source: "A ConvNet for the 2020s", arXiv:2201.03545, section 2.6; torchvision's ``LayerNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        last = input.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
