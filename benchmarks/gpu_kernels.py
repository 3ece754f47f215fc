"""Tables of `gpu.py` about single layers: dilated depthwise and deformable convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from deform import layers, operands
from gpu_timing import Rates, Run, Table, milliseconds, relative_error
from torch import Tensor, nn

from nasdsl.detection.precision import products_of
from nasdsl.nn import DilatedDepthwiseConv2d, deform_conv2d
from nasdsl.nn.deform import reference

FORMATS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def gradients(function: Callable[[], Tensor], inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The output and the gradients of the inputs."""
    out = function()
    return [out, *torch.autograd.grad(out, inputs, upstream.to(out.dtype))]


def without_gradients(function: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return function()


def depthwise_table(table: Table, rates: Rates) -> None:
    """Dilated depthwise convolutions of the proxy task against torch's in both memory formats."""
    batch, channels, side = (1, 8, 12) if table.small else (200, 64, 96)
    for size, dilation in ((3, 3), (5, 6)):
        for precision, dtype in DTYPES.items():
            name = f"{size}x{size}, dilation {dilation}, {precision}"
            if table.has_time(name, 2):
                with table.part(name):
                    _depthwise(table, rates, (batch, channels, side), size, dilation, precision, dtype)


def _depthwise(
    table: Table, rates: Rates, shape: tuple[int, int, int], size: int, dilation: int, precision: str, dtype: torch.dtype
) -> None:
    batch, channels, side = shape
    device = table.device
    torch.manual_seed(0)
    ours = DilatedDepthwiseConv2d(channels, size, dilation, bias=False).to(device)
    x, upstream = (torch.randn(batch, channels, side, side, device=device) for _ in range(2))

    def on(
        layer: nn.Module, layout: torch.memory_format, kind: torch.dtype
    ) -> tuple[Callable[[], Tensor], list[Tensor], Tensor]:
        theirs = nn.Conv2d(
            channels, channels, size, 1, dilation * (size - 1) // 2, dilation, channels, bias=False, device=device
        )
        made = DilatedDepthwiseConv2d(channels, size, dilation, bias=False).to(device) if layer is ours else theirs
        made.load_state_dict(ours.state_dict())
        made = made.to(kind)
        given, above = (t.to(kind, memory_format=layout) for t in (x, upstream))
        given.requires_grad_()
        return partial(made, given), [given, *made.parameters()], above

    calls = {"ours": on(ours, torch.channels_last, dtype)}
    calls |= {f"torch, {name}": on(nn.Identity(), layout, dtype) for name, layout in FORMATS.items()}
    exact = gradients(*on(nn.Identity(), torch.contiguous_format, torch.float64))
    error = relative_error(gradients(*calls["ours"]), exact)
    del exact
    forward: dict[str, Run] = {name: partial(without_gradients, call[0]) for name, call in calls.items()}
    whole: dict[str, Run] = {name: partial(gradients, *call) for name, call in calls.items()}
    of_map = batch * channels * side * side * dtype.itemsize
    for what, runs, passes in (("forward", forward, 2), ("forward + backward", whole, 5)):
        found = milliseconds(runs, table, min(2.0, table.left / 4))
        rival = min((found[name] for name in found if name != "ours"), default=None)
        table.add(
            layer=f"{size}x{size}, dilation {dilation}, {precision}, {what}",
            **{"ours, ms": found.get("ours")},
            **{f"torch {name}, ms": found.get(f"torch, {name}") for name in FORMATS},
            **_ratios(found.get("ours"), rival, rates.floor(precision, 0, passes * of_map), error),
        )


def deform_table(table: Table, rates: Rates) -> None:
    """Deformable convolutions against torchvision's; an ordinary convolution beside."""
    shapes = ("8x6x6x2",) if table.small else ("256x100x136x1", "64x48x48x8", "64x48x48x200")
    for shape in shapes:
        for precision, dtype in DTYPES.items():
            name = f"{shape}, {precision}"
            if table.has_time(name, 2):
                with table.part(name), products_of("float32", table.device):
                    _deform(table, rates, shape, precision, dtype)
        name = f"{shape}, layer"
        if table.has_time(name, 2):
            with table.part(name), products_of("float32", table.device):
                _layer(table, shape)


def _deform(table: Table, rates: Rates, shape: str, precision: str, dtype: torch.dtype) -> None:
    given, (upstream,) = operands(shape, "nhwc", table.device.type)
    on_rows = [t.detach().to(dtype).requires_grad_() for t in given]

    def call(function: Any, values: list[Tensor]) -> Tensor:
        x, offset, mask, weight, bias = values
        out: Tensor = function(x, offset, weight, bias, padding=(1, 1), mask=mask)
        return out

    def torchvisions(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, padding: Any, mask: Tensor) -> Tensor:
        # In half precision it would round positions to whole pixels, so it computes in float32, as its users have to.
        exact = [t.float() for t in (x, offset, weight, bias, mask)]
        out: Tensor = torchvision.ops.deform_conv2d(*exact[:4], padding=padding, mask=exact[4])
        return out.to(x.dtype)

    exact_operands = [t.detach().double().requires_grad_() for t in on_rows]
    ordinary = partial(nn.functional.conv2d, on_rows[0], on_rows[3], on_rows[4], padding=1)
    error = relative_error(
        gradients(partial(call, deform_conv2d, on_rows), on_rows, upstream),
        gradients(partial(call, reference.deform_conv2d, exact_operands), exact_operands, upstream),
    )
    calls: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "ours": (partial(call, deform_conv2d, on_rows), on_rows),
        "torchvision": (partial(call, torchvisions, on_rows), on_rows),
        "ordinary": (ordinary, [on_rows[0], on_rows[3], on_rows[4]]),
    }
    x, offset, mask, weight, _ = on_rows
    macs = weight.numel() * x.shape[0] * x.shape[2] * x.shape[3]
    moved = (2 * x.numel() + offset.numel() + mask.numel()) * dtype.itemsize
    for what, backward in (("forward", False), ("forward + backward", True)):
        runs: dict[str, Run] = {
            name: partial(gradients, function, inputs, upstream) if backward else partial(without_gradients, function)
            for name, (function, inputs) in calls.items()
        }
        found = milliseconds(runs, table, min(1.5, table.left / 6))
        factor = 3 if backward else 1
        table.add(
            layer=f"{shape}, {precision}, {what}",
            **{f"{name}, ms": found.get(name) for name in calls},
            **_ratios(
                found.get("ours"), found.get("torchvision"), rates.floor(precision, factor * macs, factor * moved), error
            ),
        )


def _layer(table: Table, shape: str) -> None:
    """The layer with the convolution that predicts offsets and mask; float32."""
    implementations, inputs, upstream = layers(shape, "nhwc", table.device.type)

    def backward(step: Callable[[], Tensor]) -> None:
        for tensor in inputs:
            tensor.grad = None
        step().backward(upstream)  # type: ignore[no-untyped-call]  # torch's own

    for what in ("forward", "forward + backward"):
        runs: dict[str, Run] = {
            name: partial(without_gradients if what == "forward" else backward, step) for name, step in implementations.items()
        }
        found = milliseconds(runs, table, min(1.5, table.left / 6))
        table.add(
            layer=f"{shape}, float32, whole layer, {what}",
            **{f"{name}, ms": found.get(name) for name in ("ours", "torchvision")},
            **_ratios(found.get("ours"), found.get("torchvision"), None, None),
        )


def _ratios(ours: float | None, rival: float | None, floor: float | None, error: float | None) -> dict[str, float | None]:
    return {
        "rival / ours": rival / ours if ours and rival else None,
        "floor, ms": floor,
        "ours / floor": ours / floor if ours and floor else None,
        "error against float64": error,
    }
