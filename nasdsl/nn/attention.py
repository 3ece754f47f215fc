"""Multi-head self-attention over the positions of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention2d(nn.Module):
    """Multi-head self-attention over all positions of a map: [N, C, H, W] to [N, C, H, W].

    It computes what ``torch.nn.MultiheadAttention`` does with the map's positions as a sequence; its four projections are 1x1
    convolutions. With `position`, queries and keys are made from the map plus an embedding of row and column.

    Source: "Attention Is All You Need", arXiv:1706.03762; "DETRs Beat YOLOs on Real-time Object Detection", arXiv:2304.08069.
    """

    def __init__(self, channels: int, heads: int, position: bool = True) -> None:
        super().__init__()
        self.heads, self.position = heads, position
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        for projection in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(projection.weight)
            assert projection.bias is not None
            nn.init.zeros_(projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        placed = x + self.embedding(x) if self.position else x
        heads = (n, self.heads, channels // self.heads, height * width)
        query, key = (project(placed).reshape(heads).transpose(2, 3) for project in (self.query, self.key))
        value = self.value(x).reshape(heads).transpose(2, 3)
        found = F.scaled_dot_product_attention(query, key, value)  # [N, heads, H * W, C / heads]
        out: Tensor = self.out(found.transpose(2, 3).reshape(n, channels, height, width))
        return out

    def embedding(self, x: Tensor) -> Tensor:
        """Sine and cosine of the column, then of the row, at C / 4 frequencies from 1 down to 1 / 10000: [1, C, H, W]."""
        _, channels, height, width = x.shape
        quarter = channels // 4
        frequency = 10000 ** (-torch.arange(quarter, device=x.device, dtype=torch.float32) / quarter)
        row, column = (
            frequency[:, None] * torch.arange(length, device=x.device, dtype=torch.float32) for length in (height, width)
        )
        parts = [column.sin()[:, None], column.cos()[:, None], row.sin()[:, :, None], row.cos()[:, :, None]]
        return torch.cat([part.expand(quarter, height, width) for part in parts])[None].to(x.dtype)
