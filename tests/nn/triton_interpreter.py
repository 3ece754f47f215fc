"""The Triton kernels of the deformable convolution, run on a CPU by Triton's interpreter.

    TRITON_INTERPRET=1 python -m pytest tests/nn/triton_interpreter.py -m "long or not long"

Triton reads that variable when it is imported, so these tests run in processes of their own, started by `test_deform_triton`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d as oracle

from nasdsl.nn.deform import fused, reference, triton
from tests.nn.test_deform import NAMES, Case, case, compare, differentiated, relative


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few positions, and smaller blocks, so that small maps are assembled as large ones are."""
    monkeypatch.setattr(triton, "COLUMN_BYTES", 20_000)
    monkeypatch.setattr(triton, "GATHER_BLOCK", 64)
    monkeypatch.setattr(triton, "SCATTER_BLOCK", 128)
    monkeypatch.setattr(triton, "MAX_CHANNEL_BLOCK", 4)


def operands_of(channels: int, out: int, size: tuple[int, int], offset_groups: int, groups: int = 1, batch: int = 1) -> Case:
    """3x3, padding 1, of these sizes."""
    draw = torch.Generator().manual_seed(channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    tensors = (
        normal(batch, channels, *size),
        normal(batch, 18 * offset_groups, *size) * 2,
        normal(batch, 9 * offset_groups, *size).sigmoid(),
        normal(out, channels // groups, 3, 3),
        normal(out),
    )
    x, offset, mask, weight, bias = (t.requires_grad_() for t in tensors)
    return x, offset, mask, weight, bias, (1, 1), (1, 1), (1, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_values_and_gradients(seed: int) -> None:
    found = differentiated(triton.deform_conv2d, case(seed))
    compare(found, differentiated(oracle, case(seed)))
    compare(found, differentiated(reference.deform_conv2d, case(seed)))


@pytest.mark.long
@pytest.mark.usefixtures("small_chunks")
def test_chunked_results() -> None:
    compare(differentiated(triton.deform_conv2d, case(42)), differentiated(oracle, case(42)))


@pytest.mark.long
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("columns", "batch", "forward", "backward"),
    [(12_000, 5, [(5, 12)], [(3, 12), (2, 12)]), (1_200, 2, [(1, 6), (1, 6)] * 2, [(1, 4), (1, 4), (1, 4)] * 2)],
)
def test_chunks_of_several_images_and_of_one(
    columns: int, batch: int, forward: list[tuple[int, int]], backward: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[tuple[int, int]] = []
    arguments = triton.Launcher._arguments

    def count(launcher: triton.Launcher, images: slice, positions: slice, total: int) -> object:
        launched.append((images.stop - images.start, positions.stop - positions.start))
        return arguments(launcher, images, positions, total)

    monkeypatch.setattr(triton.Launcher, "_arguments", count)
    monkeypatch.setattr(triton, "COLUMN_BYTES", columns)
    operands = operands_of(4, 4, (3, 4), 2, 2, batch)
    compare(differentiated(triton.deform_conv2d, operands), differentiated(oracle, operands))
    assert launched == [*forward, *backward]


@pytest.mark.long
@pytest.mark.parametrize(("channels", "offset_groups", "groups"), [(160, 1, 1), (72, 3, 4)])
def test_wide_layers(channels: int, offset_groups: int, groups: int) -> None:
    given = operands_of(channels, 8, (3, 4), offset_groups, groups)
    compare(differentiated(triton.deform_conv2d, given), differentiated(oracle, given))


@pytest.mark.long
def test_without_mask_and_bias() -> None:
    x, offset, _, weight, _, *geometry = case(1)
    results = [function(x, offset, weight, None, *geometry) for function in (triton.deform_conv2d, oracle)]
    assert relative(*results) <= 1e-5
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (x, offset, weight)) for out in results), strict=True):
        assert relative(a, b) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    x, offset, mask, weight, bias, *geometry = case(4, dtype)
    found = differentiated(triton.deform_conv2d, (x, offset, mask, weight, bias, *geometry))
    full = tuple(t.detach().float().requires_grad_() for t in (x, offset, mask, weight, bias))
    for name, a, b in zip(("out", *NAMES), found, differentiated(oracle, (*full, *geometry)), strict=True):
        assert a.dtype == dtype
        assert ((a.float() - b).norm() / b.norm()).item() <= 2e-2, name


@pytest.mark.long
def test_autocast_multiplies_in_bfloat16_and_samples_in_float32() -> None:
    x, offset, mask, weight, bias, *geometry = case(4)
    with torch.autocast("cpu", torch.bfloat16):
        out = triton.deform_conv2d(x, offset, weight, None, *geometry, mask)
        with_bias = triton.deform_conv2d(x, offset, weight, bias, *geometry, mask)
    assert (out.dtype, with_bias.dtype) == (torch.bfloat16, torch.float32)
    expected = oracle(x, offset, weight, None, *geometry, mask)
    assert 1e-4 < ((out.float() - expected).norm() / expected.norm()).item() <= 2e-2
    found = torch.autograd.grad(out.float().square().sum(), (x, offset, mask, weight))
    wanted = torch.autograd.grad(expected.square().sum(), (x, offset, mask, weight))
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert ((a - b).norm() / b.norm()).item() <= 3e-2


@pytest.mark.long
def test_a_backward_pass_under_autocast_keeps_the_precision_of_the_forward_pass() -> None:
    given = case(4)
    x, offset, mask, weight, bias, *geometry = given
    out = triton.deform_conv2d(x, offset, weight, bias, *geometry, mask)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(out, (x, offset, mask, weight, bias), upstream)
    compare([out.detach(), *found], differentiated(oracle, given))


@pytest.mark.long
def test_derivatives() -> None:
    x, offset, mask, weight, bias, *geometry = case(6, torch.float64)
    operands = tuple(t.detach().requires_grad_() for t in (x, offset, mask, weight, bias))

    def function(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return triton.deform_conv2d(x, offset, weight, bias, *geometry, mask)

    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.long
def test_only_the_gradients_that_are_needed() -> None:
    x, offset, mask, weight, bias, *geometry = case(7)
    expected = differentiated(oracle, (x, offset, mask, weight, bias, *geometry))
    for needed in (*((name,) for name in NAMES), ("x", "offset"), ("mask", "weight"), ("x", "weight")):
        given = dict(zip(NAMES, (t.detach() for t in (x, offset, mask, weight, bias)), strict=True))
        for name in needed:
            given[name].requires_grad_()
        found = triton.deform_conv2d(given["x"], given["offset"], given["weight"], given["bias"], *geometry, given["mask"])
        found.backward(torch.randn(found.shape, generator=torch.Generator().manual_seed(7)))
        for name, gradient in zip(NAMES, expected[1:], strict=True):
            grad = given[name].grad
            assert (grad is not None) == (name in needed)
            assert grad is None or relative(grad, gradient) <= 1e-5, needed


@pytest.mark.long
def test_positions_on_pixels_and_on_the_border() -> None:
    """The derivative jumps there; it must be the one-sided derivative that torchvision takes."""
    rows_at = torch.tensor([-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0, 4.5, 5.0])
    columns_at = torch.tensor([-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 1.0, 1.5, 3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0])
    wanted = torch.stack(torch.meshgrid(rows_at, columns_at, indexing="ij"))
    regular = torch.stack(torch.meshgrid(torch.arange(14) - 5, torch.arange(15) - 5, indexing="ij"))
    offset = (wanted - regular).unsqueeze(0).double().requires_grad_()
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, 4, 5, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(3, 8, 1, 1, generator=draw, dtype=torch.float64).requires_grad_()
    mask = torch.rand(1, 1, 14, 15, generator=draw, dtype=torch.float64).requires_grad_()
    found = triton.deform_conv2d(x, offset, weight, padding=(5, 5), mask=mask)
    expected = oracle(x, offset, weight, padding=5, mask=mask)
    assert relative(found, expected) <= 1e-12
    upstream = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(out, (x, offset, mask, weight), upstream) for out in (found, expected))
    for name, a, b in zip(NAMES, ours, theirs, strict=False):
        assert relative(a, b) <= 1e-12, name


@pytest.mark.long
@pytest.mark.parametrize("far", [1e4, 1e9, 1e30, float("inf"), -float("inf")])
def test_positions_far_outside_read_zeros(far: float) -> None:
    x, offset = torch.randn(2, 8, 5, 6, requires_grad=True), torch.zeros(2, 18, 5, 6)
    offset[:, ::2] = far
    out = triton.deform_conv2d(x, offset.requires_grad_(), torch.randn(4, 8, 3, 3), torch.ones(4), padding=(1, 1))
    assert torch.equal(out, torch.ones(2, 4, 5, 6))
    for gradient in torch.autograd.grad(out.sum(), (x, offset)):
        assert not gradient.any()


@pytest.mark.long
def test_a_nan_offset_affects_only_its_own_position() -> None:
    """A training that diverges must produce NaN, and must not read out of bounds."""
    x, offset, weight = torch.randn(2, 8, 5, 6, requires_grad=True), torch.zeros(2, 18, 5, 6), torch.randn(4, 8, 3, 3)
    offset[1, 4, 2, 3] = float("nan")
    out = triton.deform_conv2d(x, offset.requires_grad_(), weight, padding=(1, 1))
    expected = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    expected[1, :, 2, 3] = True
    assert torch.equal(out.isnan(), expected)
    of_x, of_offset = torch.autograd.grad(out.sum(), (x, offset))
    assert of_offset[1, 4:6, 2, 3].isnan().any()
    assert of_offset.isnan().sum() <= 2
    assert not of_x.isnan().any()


@pytest.mark.long
def test_memory_formats() -> None:
    """The output and each gradient have the memory format of their tensor; values do not depend on it."""
    x, offset, mask, weight, bias, *geometry = case(4)
    expected = differentiated(oracle, (x, offset, mask, weight, bias, *geometry))
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = tuple(t.detach().contiguous(memory_format=layout).requires_grad_() for t in (x, offset, mask, weight))
        found = differentiated(triton.deform_conv2d, (*laid, bias, *geometry))
        compare(found, expected)
        for tensor in found[:5]:
            assert tensor.is_contiguous(memory_format=layout)


@pytest.mark.long
def test_non_contiguous_operands() -> None:
    x, offset, mask, weight, bias, *geometry = case(6)
    expected = differentiated(oracle, (x, offset, mask, weight, bias, *geometry))
    gaps = tuple(torch.stack((t.detach(), t.detach()), -1)[..., 0].requires_grad_() for t in (x, offset, mask, weight, bias))
    turned = tuple(t.detach().mT.contiguous().mT.requires_grad_() for t in (x, offset, mask, weight))
    both = torch.cat((offset, mask), 1).detach().requires_grad_()
    halves = both.split((offset.shape[1], mask.shape[1]), 1)
    assert not any(t.is_contiguous() for t in (*gaps[:2], *turned[:2], *(h[:2] for h in halves if len(h) > 1)))
    for given in ((*gaps, *geometry), (*turned, bias, *geometry), (x, *halves, weight, bias, *geometry)):
        compare(differentiated(triton.deform_conv2d, given), expected)


@pytest.mark.long
def test_flops_are_counted() -> None:
    x, offset = torch.randn(2, 16, 3, 4, requires_grad=True), torch.randn(2, 36, 3, 4, requires_grad=True)
    weight = torch.randn(4, 16, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = triton.deform_conv2d(x, offset, weight, padding=(1, 1))
        assert counter.get_total_flops() == 2 * out.numel() * 16 * 9
        out.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * out.numel() * 16 * 9


def value(function: Callable[..., Tensor], given: Case) -> Tensor:
    x, offset, mask, weight, bias, *geometry = given
    with torch.no_grad():
        return function(x, offset, weight, bias, *geometry, mask)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_values(layout: torch.memory_format) -> None:
    """Two offset groups and two groups that divide the channels differently; more outputs than a program has."""
    x, *rest = operands_of(12, 8, (3, 4), 3, 2, batch=2)
    given = (x.detach().contiguous(memory_format=layout), *rest)
    found = value(fused.deform_conv2d, given)
    assert relative(found, value(oracle, given)) <= 1e-6
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_fused_values_and_gradients(seed: int) -> None:
    compare(differentiated(fused.deform_conv2d, case(seed)), differentiated(oracle, case(seed)))


@pytest.mark.long
def test_fused_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles of positions, of channels and of outputs, the last of each not whole."""
    monkeypatch.setattr(fused, "BLOCK", 16)
    monkeypatch.setattr(fused, "MAX_OUT_BYTES", 64)
    monkeypatch.setattr(fused, "CHANNEL_BYTES", 64)
    given = operands_of(40, 20, (5, 5), 2)
    assert relative(value(fused.deform_conv2d, given), value(oracle, given)) <= 1e-6


@pytest.mark.long
def test_fused_precisions() -> None:
    """Positions and sums are in float32; autocast gives its type, or that of the bias. Nothing interprets bfloat16."""
    x, offset, mask, weight, bias, *geometry = case(4)
    expected = value(oracle, (x, offset, mask, weight, bias, *geometry))
    with torch.autocast("cpu", torch.float16):
        out = value(fused.deform_conv2d, (x, offset, mask, weight, bias, *geometry))
        without = value(fused.deform_conv2d, (x, offset, mask, weight, None, *geometry))
    assert (out.dtype, without.dtype) == (torch.float32, torch.float16)
    assert 1e-5 < relative(out, expected) <= 5e-3
    half = tuple(t.half() for t in (x, offset, mask, weight, bias))
    assert (
        relative(
            value(fused.deform_conv2d, (*half, *geometry)).float(), value(reference.deform_conv2d, (*half, *geometry)).float()
        )
        <= 5e-3
    )
    double = tuple(t.double() for t in (x, offset, mask, weight, bias))
    assert relative(value(fused.deform_conv2d, (*double, *geometry)), value(oracle, (*double, *geometry))) <= 1e-12


@pytest.mark.long
def test_fused_positions_outside_and_nan() -> None:
    x, offset, weight = torch.randn(2, 8, 5, 6), torch.zeros(2, 18, 5, 6), torch.randn(4, 8, 3, 3)
    offset[0, ::2], offset[1, 4, 2, 3] = float("inf"), float("nan")
    out = fused.deform_conv2d(x, offset, weight, torch.ones(4), padding=(1, 1))
    assert torch.equal(out[0], torch.ones(4, 5, 6))
    expected = torch.zeros(4, 5, 6, dtype=torch.bool)
    expected[:, 2, 3] = True
    assert torch.equal(out[1].isnan(), expected)
