"""Self-attention over a map, against torch's MultiheadAttention and a plain softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nasdsl.nn import SelfAttention2d


def sequence(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
def test_it_is_multi_head_attention(heads: int, position: bool) -> None:
    torch.manual_seed(0)
    module, x = SelfAttention2d(16, heads, position), torch.randn(2, 16, 3, 5)
    for part in module.children():
        nn.init.normal_(part.bias)
    theirs = nn.MultiheadAttention(16, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight.flatten(1) for p in (module.query, module.key, module.value)]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in (module.query, module.key, module.value)]))
        theirs.out_proj.weight.copy_(module.out.weight.flatten(1))
        theirs.out_proj.bias.copy_(module.out.bias)
    placed = sequence(x + module.embedding(x)) if position else sequence(x)
    expected, _ = theirs(placed, placed, sequence(x))
    torch.testing.assert_close(sequence(module(x)), expected)


def test_the_embedding_is_that_of_a_loop() -> None:
    """Of RT-DETR's encoder: sine and cosine of the column, then of the row."""
    module = SelfAttention2d(12, 1)
    found = module.embedding(torch.zeros(1, 12, 3, 4))
    for row in range(3):
        for column in range(4):
            for f in range(3):
                omega = 1 / 10000 ** (f / 3)
                values = [math.sin(column * omega), math.cos(column * omega), math.sin(row * omega), math.cos(row * omega)]
                torch.testing.assert_close(found[0, f::3, row, column], torch.tensor(values))


def test_without_positions_the_order_of_pixels_does_not_matter() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 4, 4)
    for position in (False, True):
        module = SelfAttention2d(8, 2, position)
        swapped = module(x.flip(2)).flip(2)
        assert torch.allclose(swapped, module(x), atol=1e-6) is not position
