"""Shapes of dilated depthwise convolutions with their results in float64, for tests with and without Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


class Case(NamedTuple):
    """Shape of the maps, kernel size and dilation."""

    n: int
    channels: int
    height: int
    width: int
    size: int
    dilation: int

    def __str__(self) -> str:
        return "x".join(map(str, self[:4])) + f" k{self.size} d{self.dilation}"


CASES = [
    Case(2, 8, 9, 12, 3, 3),  # a multiple of the dilation, and not
    Case(1, 5, 26, 25, 5, 6),  # channels that are no power of two
    Case(2, 3, 5, 4, 5, 6),  # smaller than the reach of the kernel, and than the dilation
    Case(3, 1, 1, 1, 3, 2),  # one pixel
    Case(1, 2, 1, 40, 3, 7),  # one row
    Case(1, 2, 40, 1, 5, 2),  # one column
    Case(1, 40, 14, 11, 3, 2),  # more than one block of channels
    Case(1, 4, 13, 15, 7, 2),  # more taps than a program of the gradients has
    Case(1, 2, 6, 7, 1, 3),  # a single tap
]


def operands(case: Case, memory: torch.memory_format, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias, which require gradients."""
    draw = torch.Generator().manual_seed(sum(case))
    shapes = case[:4], (case.channels, 1, case.size, case.size), (case.channels,)
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes)
    return x.contiguous(memory_format=memory).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def compare(
    function: Callable[[Tensor, Tensor, Tensor | None, int], Tensor],
    case: Case,
    memory: torch.memory_format,
    dtype: torch.dtype = torch.float64,
    bound: float = 1e-12,
) -> None:
    """Assert that value and gradients, with and without bias, are torch's up to `bound` of their norm, and keep the format."""
    x, weight, bias = operands(case, memory, dtype)
    padding = case.dilation * (case.size // 2)
    for given in ((x, weight, bias), (x, weight, None)):
        inputs = [t for t in given if t is not None]
        exact = [None if t is None else t.double() for t in given]
        expected = F.conv2d(*exact, 1, padding, case.dilation, case.channels)
        out = function(*given, case.dilation)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=memory)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = torch.autograd.grad(out, inputs, upstream.to(dtype).contiguous(memory_format=memory))
        wanted = torch.autograd.grad(expected, inputs, upstream.to(dtype).double())
        for one, other in zip((out, *found), (expected, *wanted), strict=True):
            assert one.dtype == dtype
            assert (one.double() - other.double()).norm() <= bound * other.double().norm() + 1e-300
