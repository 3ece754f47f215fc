"""The Triton kernels of GroupNorm, run on a CPU by Triton's interpreter, against torch's own in float64.

    TRITON_INTERPRET=1 python -m pytest tests/nn/group_norm_interpreter.py -m "long or not long"

Triton reads that variable when it is imported, so these tests run in processes of their own, started by `test_group_norm`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nasdsl.nn.group_norm import triton
from nasdsl.nn.group_norm.triton import group_norm

EPS = 1e-5


def operands(*shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, channels-last, weight and bias."""
    draw = torch.Generator().manual_seed(sum(shape))
    x, weight, bias = (torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for s in (shape, shape[1], shape[1]))
    return [t.requires_grad_() for t in (x.contiguous(memory_format=torch.channels_last), weight, bias)]


def compare(given: list[Tensor], groups: int, bound: float = 1e-12) -> None:
    out = group_norm(*given, groups, EPS)
    exact = torch.group_norm(given[0].double(), groups, given[1].double(), given[2].double(), EPS)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    found, wanted = (torch.autograd.grad(t, given, upstream.to(t.dtype)) for t in (out, exact))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other, like in zip((out, *found), (exact, *wanted), (given[0], *given), strict=True):
        assert one.dtype == like.dtype
        assert (one.double() - other.double()).norm() <= bound * other.double().norm() + 1e-9 * bound


@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 12, 5, 4), 3),
        pytest.param((1, 64, 3, 5), 32, marks=pytest.mark.long),
        pytest.param((2, 6, 1, 7), 1, marks=pytest.mark.long),
        pytest.param((1, 70, 2, 2), 7, marks=pytest.mark.long),  # more than one block of channels, groups across blocks
    ],
)
def test_values_and_gradients(shape: tuple[int, ...], groups: int) -> None:
    compare(operands(*shape), groups)


@pytest.mark.long
@pytest.mark.parametrize("programs", [1, 8, 10**6])
def test_parts_of_an_image(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BLOCK", 16), ("MAX_CHANNEL_BLOCK", 4), ("PROGRAMS", programs), ("SUMS", 8)):
        monkeypatch.setattr(triton, name, value)
    compare(operands(2, 6, 5, 3), 2)


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_precisions(dtype: torch.dtype, bound: float) -> None:
    compare(operands(2, 12, 5, 4, dtype=dtype), 3, bound)


@pytest.mark.long
def test_no_digits_are_lost_where_the_mean_is_large() -> None:
    x, weight, bias = operands(1, 4, 6, 5, dtype=torch.float32)
    far = (x.detach() + 1000).contiguous(memory_format=torch.channels_last)
    exact = torch.group_norm(far.double(), 2, weight.double(), bias.double(), EPS)
    assert (group_norm(far, weight, bias, 2, EPS) - exact).norm() <= 3e-4 * exact.norm()  # 1000 itself has 6e-5


@pytest.mark.long
def test_autocast_needed_gradients_and_second_derivatives() -> None:
    x, weight, bias = operands(2, 12, 5, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = group_norm(x.bfloat16(), weight, bias, 3, EPS)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.group_norm(x.bfloat16().float(), 3, weight, bias, EPS))
    expected = torch.autograd.grad(torch.group_norm(x, 3, weight, bias, EPS).square().sum(), (x, weight, bias))
    for needed in ((0,), (1,), (2,), (1, 2)):
        given = [t.detach().requires_grad_(number in needed) for number, t in enumerate((x, weight, bias))]
        group_norm(*given, 3, EPS).square().sum().backward()
        for number, (tensor, gradient) in enumerate(zip(given, expected, strict=True)):
            assert (tensor.grad is not None) == (number in needed)
            if tensor.grad is not None:
                torch.testing.assert_close(tensor.grad, gradient, rtol=1e-4, atol=1e-5)
    double = operands(1, 4, 3, 2)
    assert torch.autograd.gradgradcheck(lambda *given: group_norm(*given, 2, EPS), double, fast_mode=True)
