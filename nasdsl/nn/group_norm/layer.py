"""GroupNorm: a layer, which dispatches to an implementation."""

from __future__ import annotations

from torch import Tensor

from nasdsl.nn import norm
from nasdsl.nn.group_norm import autotune


class GroupNorm(norm.GroupNorm):
    """torch's GroupNorm for maps of any size, [N, C, H, W] to [N, C, H, W], in their memory format also on a GPU.

    torch's own gives channels-first maps there, and the convolutions around it copy them back and forth.
    """

    def forward(self, input: Tensor) -> Tensor:
        if autotune.supports(input, self.weight, self.bias):
            return autotune.group_norm(input, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(input)
