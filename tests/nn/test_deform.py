"""Deformable convolution: every implementation that runs on a CPU against torchvision's as the oracle."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d as oracle

from nasdsl.nn import DeformConv2d, deform_conv2d
from nasdsl.nn.deform import cpu, reference, torchvision

IMPLEMENTATIONS = [pytest.param(i, id=i.__name__.rsplit(".", 1)[-1]) for i in (reference, cpu, torchvision)]
NAMES = ("x", "offset", "mask", "weight", "bias")
Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, tuple[int, int], tuple[int, int], tuple[int, int]]


def case(seed: int, dtype: torch.dtype = torch.float32, smallest: int = 4) -> Case:
    """Random sizes, strides, paddings, dilations and groups; offsets that leave the map by half its size and more."""
    rng, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    while True:
        offset_groups, groups = rng.randint(1, 4), rng.choice([1, 1, 2])
        channels, out = offset_groups * groups * rng.randint(1, 3), groups * rng.randint(1, 4)
        kernel, stride, padding, dilation = (
            (rng.randint(a, b), rng.randint(a, b)) for a, b in ((1, 4), (1, 3), (0, 3), (1, 3))
        )
        size = rng.randint(smallest, 24), rng.randint(smallest, 24)
        height, width = ((size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
        if height >= 1 and width >= 1:
            break
    batch, taps = rng.randint(1, 3), kernel[0] * kernel[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    x = normal(batch, channels, *size).requires_grad_()
    offset = (normal(batch, 2 * offset_groups * taps, height, width) * max(size) / 2).requires_grad_()
    mask = (
        torch.rand(batch, offset_groups * taps, height, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    )
    weight = normal(out, channels // groups, *kernel).requires_grad_()
    bias = normal(out).requires_grad_()
    return x, offset, mask, weight, bias, stride, padding, dilation


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).item()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few positions of one image, so that small maps are assembled from several as large ones are."""
    monkeypatch.setattr(cpu, "COLUMN_BYTES", 600)
    monkeypatch.setattr(cpu, "IMAGE_COLUMN_BYTES", 5000)
    monkeypatch.setattr(cpu, "GRADIENT_BYTES", 5000)
    monkeypatch.setattr("nasdsl.nn.deform.geometry.TAPS_PER_CHUNK", 200)


def differentiated(function: Callable[..., Tensor], case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The output and the gradients of the five operands."""
    x, offset, mask, weight, bias, *geometry = case
    out = function(x, offset, weight, bias, *geometry, mask)
    grad_output = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, (x, offset, mask, weight, bias), grad_output)]


def compare(found: list[Tensor], expected: list[Tensor], bound: float = 1e-5) -> None:
    for name, a, b in zip(("out", *NAMES), found, expected, strict=True):
        assert a.shape == b.shape, name
        assert relative(a, b) <= bound, name


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_values_and_gradients(implementation: ModuleType, seed: int) -> None:
    compare(differentiated(implementation.deform_conv2d, case(seed)), differentiated(oracle, case(seed)))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("seed", range(40))
def test_chunked_results(seed: int) -> None:
    compare(differentiated(cpu.deform_conv2d, case(seed)), differentiated(oracle, case(seed)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_mask_and_bias(implementation: ModuleType, seed: int) -> None:
    x, offset, _, weight, _, stride, padding, dilation = case(seed)
    found = implementation.deform_conv2d(x, offset, weight, None, stride, padding, dilation)
    expected = oracle(x, offset, weight, None, stride, padding, dilation)
    assert relative(found, expected) <= 1e-5
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (x, offset, weight)) for out in (found, expected)), strict=True):
        assert relative(a, b) <= 1e-5


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("seed", range(8))
def test_bfloat16_is_close(implementation: ModuleType, seed: int) -> None:
    """Half precision runs on a CPU (unlike torchvision's) and is within 2e-2 of float32 on the same numbers."""
    x, offset, mask, weight, bias, *geometry = case(seed, torch.bfloat16)
    found = differentiated(implementation.deform_conv2d, (x, offset, mask, weight, bias, *geometry))
    full = tuple(t.detach().float().requires_grad_() for t in (x, offset, mask, weight, bias))
    for name, a, b in zip(("out", *NAMES), found, differentiated(oracle, (*full, *geometry)), strict=True):
        assert a.dtype == torch.bfloat16
        if implementation is reference and name == "offset":
            # Offsets of so few digits are often whole pixels, where grid_sample's rounding decides between two slopes.
            continue
        assert ((a.float() - b).norm() / b.norm()).item() <= 2e-2


def test_autocast_multiplies_in_bfloat16_and_samples_in_float32() -> None:
    for implementation in (reference, cpu):
        x, offset, mask, weight, bias, *geometry = case(5)
        with torch.autocast("cpu", torch.bfloat16):
            out = implementation.deform_conv2d(x, offset, weight, None, *geometry, mask)
            with_bias = implementation.deform_conv2d(x, offset, weight, bias, *geometry, mask)
        assert (out.dtype, with_bias.dtype) == (torch.bfloat16, torch.float32)
        expected = oracle(x, offset, weight, None, *geometry, mask)
        assert 1e-4 < ((out.float() - expected).norm() / expected.norm()).item() <= 2e-2
        found = torch.autograd.grad(out.float().square().sum(), (x, offset, mask, weight))
        wanted = torch.autograd.grad(expected.square().sum(), (x, offset, mask, weight))
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == torch.float32
            assert ((a - b).norm() / b.norm()).item() <= 3e-2


def needs_second_derivatives() -> None:
    """Skip a test where torch has no second derivative of `grid_sample`: 2.9 and older."""
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    grid = torch.zeros(1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.grid_sample(x, grid, align_corners=False).sum(), x, create_graph=True)
    try:
        slope.sum().backward()
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__}: {error}")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_derivatives(implementation: ModuleType) -> None:
    x, offset, mask, weight, bias, *geometry = case(3, torch.float64)
    operands = tuple(t.detach().requires_grad_() for t in (x, offset, mask, weight, bias))

    def function(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return implementation.deform_conv2d(x, offset, weight, bias, *geometry, mask)

    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    needs_second_derivatives()
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


def test_second_derivative_where_one_operand_makes_another() -> None:
    """Offsets are usually computed from x, which then affects the output along two paths."""
    needs_second_derivatives()
    x, offset, mask, weight, bias, *geometry = case(3, torch.float64)

    def penalty(implementation: ModuleType) -> Tensor:
        out = implementation.deform_conv2d(x, offset * x.mean(), weight, bias, *geometry, mask * x.std())
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    assert relative(penalty(cpu), penalty(reference)) <= 1e-9


@pytest.mark.parametrize("needed", [c for n in (1, 2) for c in itertools.combinations(NAMES, n)], ids="+".join)
def test_only_the_gradients_that_are_needed(needed: tuple[str, ...]) -> None:
    x, offset, mask, weight, bias, *geometry = case(11)
    given = dict(zip(NAMES, (t.detach() for t in (x, offset, mask, weight, bias)), strict=True))
    for name in needed:
        given[name].requires_grad_()
    found = cpu.deform_conv2d(given["x"], given["offset"], given["weight"], given["bias"], *geometry, given["mask"])
    grad_output = torch.randn(found.shape, generator=torch.Generator().manual_seed(7))
    found.backward(grad_output)
    expected = differentiated(oracle, (x, offset, mask, weight, bias, *geometry))
    for name, gradient in zip(NAMES, expected[1:], strict=True):
        grad = given[name].grad
        assert (grad is not None) == (name in needed)
        assert grad is None or relative(grad, gradient) <= 1e-5


def test_unneeded_gradients_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError

    x, offset, mask, weight, bias, *geometry = (t.detach() if isinstance(t, Tensor) else t for t in case(11))
    frozen = cpu.deform_conv2d(x, offset, weight.requires_grad_(), bias.requires_grad_(), *geometry, mask)
    moved = cpu.deform_conv2d(x, offset.requires_grad_(), weight.detach(), None, *geometry, mask)
    only_bias = cpu.deform_conv2d(x, offset.detach(), weight.detach(), bias, *geometry, mask)
    monkeypatch.setattr(cpu, "SortedTaps", forbidden)
    moved.sum().backward()
    monkeypatch.setattr(cpu.Taps, "backward", forbidden)
    frozen.sum().backward()
    monkeypatch.setattr(cpu, "Taps", forbidden)
    only_bias.sum().backward()


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
    found = cpu.deform_conv2d(x, offset, weight, padding=(5, 5), mask=mask)
    expected = oracle(x, offset, weight, padding=5, mask=mask)
    assert relative(found, expected) <= 1e-12
    grad_output = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(out, (x, offset, mask, weight), grad_output) for out in (found, expected))
    for name, a, b in zip(NAMES, ours, theirs, strict=False):
        assert relative(a, b) <= 1e-12, name


@pytest.mark.parametrize("far", [1e4, 1e9, 1e30, float("inf"), -float("inf")])
def test_positions_far_outside_read_zeros(far: float) -> None:
    x, offset = torch.randn(2, 8, 5, 6), torch.zeros(2, 18, 5, 6)
    offset[:, ::2] = far
    out = cpu.deform_conv2d(x, offset, torch.randn(4, 8, 3, 3), torch.ones(4), padding=(1, 1))
    assert torch.equal(out, torch.ones(2, 4, 5, 6))


def test_a_nan_offset_affects_only_its_own_position() -> None:
    """A training that diverges must produce NaN, and must not read out of bounds."""
    x, offset, weight = torch.randn(2, 8, 5, 6), torch.zeros(2, 18, 5, 6), torch.randn(4, 8, 3, 3)
    offset[1, 4, 2, 3] = float("nan")
    offset.requires_grad_()
    out = cpu.deform_conv2d(x, offset, weight, padding=(1, 1))
    expected = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    expected[1, :, 2, 3] = True
    assert torch.equal(out.isnan(), expected)
    out.sum().backward()


def test_two_runs_are_bitwise_equal() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (differentiated(cpu.deform_conv2d, case(17)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_formats(layout: torch.memory_format) -> None:
    """The output and each gradient have the memory format of their tensor; values do not depend on it."""
    x, offset, mask, weight, bias, *geometry = case(21)
    laid = tuple(t.detach().contiguous(memory_format=layout).requires_grad_() for t in (x, offset, mask, weight))
    found = differentiated(cpu.deform_conv2d, (*laid, bias, *geometry))
    compare(found, differentiated(oracle, (x, offset, mask, weight, bias, *geometry)))
    for tensor in found[:4]:
        assert tensor.is_contiguous(memory_format=layout)


def test_non_contiguous_operands() -> None:
    x, offset, mask, weight, bias, *geometry = case(23)
    apart = tuple(torch.stack((t.detach(), t.detach()), -1)[..., 0].requires_grad_() for t in (x, offset, mask, weight, bias))
    assert not any(t.is_contiguous() for t in apart[:2])
    compare(
        differentiated(cpu.deform_conv2d, (*apart, *geometry)),
        differentiated(oracle, (x, offset, mask, weight, bias, *geometry)),
    )


def test_the_fast_implementation_is_used_where_it_can_be() -> None:
    x, offset, weight = torch.randn(2, 16, 50, 50), torch.zeros(2, 36, 50, 50), nn.Parameter(torch.randn(4, 16, 3, 3))
    assert cpu.supports(x, offset, None, weight, None)
    assert not cpu.supports(x[:1], offset[:1], None, weight, None)  # so few elements that the reference is as fast
    assert not cpu.supports(x[:0], offset[:0], None, weight, None)
    assert not cpu.supports(x[:, :8], offset, None, weight[:, :8], None)  # rows of four channels
    assert not cpu.supports(x.to("meta"), offset.to("meta"), None, weight.to("meta"), None)
    assert not cpu.supports(x, offset[:, :-1], None, weight, None)
    assert not cpu.supports(x, offset, None, weight.double(), None)
    assert deform_conv2d(x[:0], offset[:0], weight, padding=(1, 1)).shape == (0, 4, 50, 50)
    assert "_Function" in type(deform_conv2d(x, offset, weight, padding=(1, 1)).grad_fn).__name__


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:2])  # the counter does not know torchvision's operator
def test_flops_are_counted(implementation: ModuleType) -> None:
    """torch's counter sees the FLOPs of an ordinary convolution, three times as many with a backward pass."""
    x, offset = torch.randn(2, 16, 6, 7, requires_grad=True), torch.randn(2, 36, 6, 7, requires_grad=True)
    weight = torch.randn(4, 16, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = implementation.deform_conv2d(x, offset, weight, padding=(1, 1))
        assert counter.get_total_flops() == 2 * out.numel() * 16 * 9
        out.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * out.numel() * 16 * 9


def test_export_and_compilation_use_the_reference() -> None:
    layer = DeformConv2d(16, 4, 3).eval()
    example = torch.randn(2, 16, 50, 50)  # large enough for the fast implementation
    program = torch.export.export(layer, (example,), strict=False)
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("grid_sampler" in target for target in targets)
    assert not any("embedding_bag" in target for target in targets)
    assert torch.allclose(program.module()(example), layer(example), atol=1e-5)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(example), layer(example), atol=1e-5)


@pytest.mark.parametrize(("k", "stride", "dilation", "groups"), [(3, 1, 1, 1), (3, 2, 1, 2), (5, 1, 2, 1), (1, 1, 1, 1)])
def test_module_starts_as_half_a_convolution(k: int, stride: int, dilation: int, groups: int) -> None:
    """Offsets start at 0 and the mask at 0.5, so a new layer is an ordinary convolution with halved weights."""
    torch.manual_seed(0)
    layer = DeformConv2d(8, 6, k, stride, dilation, groups, offset_groups=2)
    x = torch.randn(2, 8, 17, 12)
    padding = dilation * (k - 1) // 2
    expected = torch.nn.functional.conv2d(x, layer.weight / 2, layer.bias, stride, padding, dilation, groups)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert layer(x).shape[2:] == (-(-17 // stride), -(-12 // stride))


def test_module_uses_offset_and_mask_in_their_order() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 4, 3, offset_groups=2)
    torch.nn.init.normal_(layer.offset.weight, std=0.5)
    x = torch.randn(1, 4, 9, 9)
    predicted = layer.offset(x)
    offset, mask = predicted[:, :36], predicted[:, 36:].sigmoid()
    assert torch.allclose(layer(x), oracle(x, offset, layer.weight, layer.bias, padding=1, mask=mask), atol=1e-5)


def test_one_pixel_maps() -> None:
    layer = DeformConv2d(4, 4, 3)
    for size in ((1, 1), (1, 7), (7, 1)):
        x, offset = torch.randn(1, 4, *size), torch.randn(1, 18, *size)
        expected = oracle(x, offset, layer.weight, layer.bias, padding=1)
        assert torch.allclose(deform_conv2d(x, offset, layer.weight, layer.bias, padding=(1, 1)), expected, atol=1e-5)
