"""The Triton kernels of dilated depthwise convolutions, run on a CPU by Triton's interpreter.

    TRITON_INTERPRET=1 python -m pytest tests/nn/depthwise_interpreter.py -m "long or not long"

Triton reads that variable when it is imported, so these tests run in processes of their own, started by `test_depthwise_gpu`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasdsl.nn.depthwise import triton
from nasdsl.nn.depthwise.triton import depthwise_conv2d
from tests.nn.depthwise_cases import CASES, FORMATS, Case, compare, operands


@pytest.mark.parametrize(
    "case", [*CASES[:1], CASES[2], *(pytest.param(c, marks=pytest.mark.long) for c in (CASES[1], *CASES[3:]))], ids=str
)
def test_values_and_gradients(case: Case) -> None:
    compare(depthwise_conv2d, case, torch.channels_last)


@pytest.mark.long
@pytest.mark.parametrize("blocks", [(64, 32, 1), (64, 64, 10**6), (32, 32, 16)])
def test_several_tiles_and_programs_for_a_class_of_rows(blocks: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With few programs wanted each class has one, with many each tile has."""
    for name, value in zip(("BLOCK", "GRADIENT_BLOCK", "PROGRAMS"), blocks, strict=True):
        monkeypatch.setattr(triton, name, value)
    monkeypatch.setattr(triton, "CHANNEL_BYTES", 32)
    compare(depthwise_conv2d, Case(2, 6, 7, 6, 3, 2), torch.channels_last)


@pytest.mark.long
def test_channels_first_and_gaps() -> None:
    compare(depthwise_conv2d, CASES[0], FORMATS["channels first"])
    x, weight, bias = operands(CASES[0], torch.channels_last)
    gaps = torch.stack((x, x), -1)[..., 0]
    assert torch.equal(depthwise_conv2d(gaps, weight, bias, 3), depthwise_conv2d(x, weight, bias, 3))


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_precisions(dtype: torch.dtype, bound: float) -> None:
    """Sums are in float32; only results are rounded."""
    compare(depthwise_conv2d, CASES[1], torch.channels_last, dtype, bound)


@pytest.mark.long
def test_only_the_gradients_that_are_needed() -> None:
    x, weight, bias = operands(CASES[0], torch.channels_last)
    expected = torch.autograd.grad(F.conv2d(x, weight, bias, 1, 3, 3, 8).square().sum(), (x, weight, bias))
    for needed in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        given = [t.detach().requires_grad_(number in needed) for number, t in enumerate((x, weight, bias))]
        depthwise_conv2d(*given, 3).square().sum().backward()
        for number, (tensor, gradient) in enumerate(zip(given, expected, strict=True)):
            assert (tensor.grad is not None) == (number in needed)
            if tensor.grad is not None:
                torch.testing.assert_close(tensor.grad, gradient)


def test_autocast_gives_its_type_and_gradients_those_of_the_operands() -> None:
    x, weight, bias = operands(CASES[0], torch.channels_last, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise_conv2d(x, weight, bias, 3)
    assert out.dtype == torch.bfloat16
    expected = F.conv2d(x, weight, bias, 1, 3, 3, 8)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)
    found, wanted = (torch.autograd.grad(t.float().sum(), (x, weight, bias)) for t in (out, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.long
def test_the_same_gradients_twice_and_second_derivatives() -> None:
    x, weight, bias = operands(CASES[0], torch.channels_last)

    def function(*given: Tensor) -> Tensor:
        return depthwise_conv2d(*given, 3)

    first, second = (torch.autograd.grad(function(x, weight, bias).square().sum(), (x, weight, bias)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias), fast_mode=True)


def test_maps_that_32_bits_cannot_count_are_refused() -> None:
    x = torch.empty(1, 1).expand(1, 2**31).view(1, 1, 2**16, 2**15)
    with pytest.raises(ValueError, match="2147483648 elements; expected fewer"):
        depthwise_conv2d(x, torch.ones(1, 1, 3, 3), None, 2)
