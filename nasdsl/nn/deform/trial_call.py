"""A deformable convolution to try ways of computing it on: like a call's, with numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nasdsl.nn.deform.implementation import Pair
from nasdsl.nn.memory_format import layout_of

Operands = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]
"""x, offset, mask, weight, bias."""
Geometry = tuple[Pair, Pair, Pair]
"""stride, padding, dilation."""
SPREAD = 2.0
"""Standard deviation of the offsets, in pixels: about what layers learn."""
CHECKED = 24
"""Height and width of a result that is compared with the definition's, which may lack the memory for a larger one."""


def kind_of(operands: Operands, geometry: Geometry) -> Hashable:
    """What the speed of a way depends on, near enough.

    Of calls that differ only in how many positions there are, by less than twice, one is measured: the pictures of a data
    set have many sizes.
    """
    x, offset, _, weight, _ = operands
    gradients = torch.is_grad_enabled()
    like = tuple(None if t is None else (t.dtype, layout_of(t), gradients and t.requires_grad) for t in operands)
    positions = x.shape[0] * offset.shape[2] * offset.shape[3]
    return x.device, like, weight.shape, x.shape[1], offset.shape[1], positions.bit_length(), geometry, _autocast(x)


def _autocast(x: Tensor) -> torch.dtype | None:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class _Like(NamedTuple):
    """A tensor, but for the numbers in it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: torch.memory_format
    gradient: bool


class Trial:
    def __init__(self, operands: Operands, geometry: Geometry) -> None:
        gradients = torch.is_grad_enabled()
        self.device, self.geometry, self.autocast = operands[0].device, geometry, _autocast(operands[0])
        self.x, self.offset, self.mask, self.weight, self.bias = (
            None if t is None else _Like(tuple(t.shape), t.dtype, layout_of(t), gradients and t.requires_grad) for t in operands
        )

    @property
    def bound(self) -> float:
        """What the result may differ by, as a part of the definition's; a wrong one differs by about 1.

        A product in TensorFloat-32, which torch can be told to take, has 10 bits, one in bfloat16 has 7.
        """
        assert self.x is not None
        return 5e-2 if self.autocast is not None or self.x.dtype.itemsize == 2 else 1e-2

    def error(self, way: Callable[..., Tensor], definition: Callable[..., Tensor]) -> float:
        """The most that the result or a gradient differs by, as a part of the definition's; for two pictures, small ones."""
        assert self.x is not None
        assert self.weight is not None
        stride, padding, dilation = self.geometry
        size, result = [], []
        for axis in (0, 1):
            reach = dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            size.append(min(self.x.shape[2 + axis], reach + stride[axis] * (CHECKED - 1)))
            result.append((size[axis] + 2 * padding[axis] - reach) // stride[axis] + 1)
        batch = min(self.x.shape[0], 2)
        found, expected = (self._run(w, self._stand_ins(batch, size, result)) for w in (way, definition))
        pairs = [(a.double(), b.double()) for a, b in zip(found, expected, strict=True)]
        errors = [(a - b).norm() / b.norm().clamp_min(1e-6) for a, b in pairs]
        return float(torch.stack(errors).max())  # no number, if one of them is none

    def step(self, way: Callable[..., Tensor]) -> Callable[[], object]:
        """The whole call, with the gradients that it will need."""
        assert self.x is not None
        assert self.offset is not None
        operands = self._stand_ins(self.x.shape[0], self.x.shape[2:], self.offset.shape[2:])
        return lambda: self._run(way, operands)

    def _run(self, way: Callable[..., Tensor], operands: list[Tensor | None]) -> list[Tensor]:
        """The result and the gradients."""
        x, offset, mask, weight, bias = operands
        wanted = [t for t in operands if t is not None and t.requires_grad]
        with torch.set_grad_enabled(bool(wanted)):
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False):
                out = way(x, offset, weight, bias, *self.geometry, mask)
            return [out.detach(), *(torch.autograd.grad(out, wanted, out.detach()) if wanted else ())]

    def _stand_ins(self, batch: int, size: Sequence[int], result: Sequence[int]) -> list[Tensor | None]:
        """Operands of so many pictures of such a size, the same each time."""
        draw = torch.Generator(self.device).manual_seed(0)
        given: list[Tensor | None] = []
        for name in ("x", "offset", "mask", "weight", "bias"):
            like: _Like | None = getattr(self, name)
            if like is None:
                given.append(None)
                continue
            shape = like.shape if name in ("weight", "bias") else (batch, like.shape[1], *(size if name == "x" else result))
            tensor = torch.empty(shape, dtype=like.dtype, device=self.device, memory_format=like.layout).normal_(generator=draw)
            if name == "offset":
                # Never near a whole pixel: the gradient jumps there, and rounding would decide.
                tensor.mul_(SPREAD).round_().add_(torch.rand(shape, generator=draw, device=self.device) / 2 + 0.25)
            elif name == "mask":
                tensor.sigmoid_()
            elif name == "weight":
                tensor.div_(tensor[0].numel() ** 0.5)
            given.append(tensor.requires_grad_(like.gradient))
        return given
