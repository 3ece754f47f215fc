"""A deformable convolution whose offsets are given, against the one that predicts its own and against torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from nasdsl.nn import DeformConv2d, GuidedDeformConv2d

SETTINGS = {"stride": 2, "dilation": 2, "groups": 2, "offset_groups": 4}


def test_with_the_offsets_that_the_other_predicts_it_gives_the_same() -> None:
    torch.manual_seed(0)
    own, given, x = DeformConv2d(16, 8, 3, **SETTINGS), GuidedDeformConv2d(16, 8, 3, **SETTINGS), torch.randn(2, 16, 9, 7)
    nn.init.normal_(own.offset.weight, std=0.2)
    weights = {name: value for name, value in own.state_dict().items() if not name.startswith("offset.")}
    given.load_state_dict(weights)
    assert torch.equal(own(x), given(x, own.offset(x)))


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torchvisions(masked: bool) -> None:
    torch.manual_seed(0)
    module, x = GuidedDeformConv2d(16, 8, 3, **SETTINGS), torch.randn(2, 16, 9, 7)
    taps = 4 * 9
    predicted = torch.randn(2, (3 if masked else 2) * taps, 5, 4)
    offset, mask = predicted[:, : 2 * taps], predicted[:, 2 * taps :].sigmoid() if masked else None
    expected = deform_conv2d(x, offset, module.weight, module.bias, 2, 2, 2, mask)
    torch.testing.assert_close(module(x, predicted), expected, atol=1e-5, rtol=1e-5)
    given = torch.zeros_like(predicted, requires_grad=True)
    module(x, given).sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0
