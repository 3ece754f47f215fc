"""GPU implementations of dilated depthwise convolutions, against torch's own in float64; kernels interpreted and compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nasdsl.nn import DilatedDepthwiseConv2d
from nasdsl.nn.depthwise import autotune, space_to_batch
from nasdsl.nn.depthwise.space_to_batch import batch_to_space
from tests.nn.depthwise_cases import CASES, FORMATS, Case, compare, operands

DEPTHWISE = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("memory", FORMATS)
def test_space_to_batch(case: Case, memory: str) -> None:
    compare(space_to_batch.depthwise_conv2d, case, FORMATS[memory])


def test_space_to_batch_and_back() -> None:
    x = torch.arange(2 * 3 * 7 * 5).view(2, 3, 7, 5).float()
    blocks = space_to_batch.space_to_batch(x, 3)
    assert blocks.shape == (18, 3, 3, 2)
    assert torch.equal(blocks[2 * (1 * 3 + 2), :, 1, 0], x[0, :, 4, 2])  # row 1 + 3 * 1, column 2 + 3 * 0, of the first image
    assert not blocks[2 * (2 * 3 + 0), :, 2].any()  # row 2 + 3 * 2 is beyond the map
    assert torch.equal(batch_to_space(blocks, 3, 7, 5), x)


def test_space_to_batch_has_second_derivatives() -> None:
    x, weight, bias = operands(CASES[0], torch.contiguous_format)
    assert torch.autograd.gradgradcheck(
        lambda *given: space_to_batch.depthwise_conv2d(*given, 3), (x, weight, bias), fast_mode=True
    )


def test_space_to_batch_follows_autocast() -> None:
    x, weight, bias = (t.float().detach() for t in operands(CASES[0], torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        out = space_to_batch.depthwise_conv2d(x, weight, bias, 3)
        expected = F.conv2d(x, weight, bias, 1, 3, 3, len(weight))
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)


def test_choices_and_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DilatedDepthwiseConv2d(8, 3, 3)
    x = torch.randn(2, 8, 9, 9)
    monkeypatch.setattr(autotune, "supports", lambda x, weight, bias, dilation: autotune.all_support(x, weight, bias))
    calls: list[str] = []
    fakes = {
        name: lambda *given, name=name: calls.append(name) or autotune.plain(*given)
        for name in ("triton", "space_to_batch", "plain")
    }
    monkeypatch.setattr(autotune.TUNER, "implementations", fakes)
    for name in fakes:
        monkeypatch.setenv("NASDSL_DEPTHWISE", name)
        assert torch.equal(layer(x), autotune.plain(x, layer.weight, layer.bias, 3))
        assert calls.pop() == name
    monkeypatch.setenv("NASDSL_DEPTHWISE", "fast")
    with pytest.raises(ValueError, match="NASDSL_DEPTHWISE=fast: expected triton, space_to_batch, plain"):
        layer(x)
    monkeypatch.delenv("NASDSL_DEPTHWISE")
    torch.use_deterministic_algorithms(True)  # nothing is timed, and results do not depend on times
    try:
        layer(x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert calls == ["space_to_batch"]
    calls.clear()
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * x.numel() * 9
    torch.func.vmap(layer)(x[None])
    layer(x[0])
    layer(x[:0])
    program = torch.export.export(layer, (x,))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)
    with pytest.raises(RuntimeError, match="expected"):
        layer(torch.randn(2, 9, 9, 9))
    assert not calls


def test_kinds_of_calls_and_the_maps_that_are_compared() -> None:
    def call(*shape: int, size: int = 3, dilation: int = 3) -> autotune.DepthwiseCall:
        return autotune.DepthwiseCall((torch.empty(shape), torch.empty(shape[1], 1, size, size), None), (dilation,))

    keys = [call(2, 8, 30, 40).key, call(2, 8, 60, 40).key, call(2, 16, 30, 40).key, call(2, 8, 30, 40, size=5).key]
    assert len({*keys, call(2, 8, 30, 40, dilation=2).key}) == 5
    assert call(2, 8, 31, 41).key == keys[0]  # of the same power of two
    # Taps at both ends reach pixels.
    assert call(200, 8, 96, 90, size=5, dilation=6).small_shapes() == ((2, 8, 32, 32), (8, 1, 5, 5), None)
    assert call(1, 8, 20, 40, size=5, dilation=6).small_shapes()[0] == (1, 8, 20, 32)


triton = pytest.importorskip("triton")
from tests.nn.triton_compiler import NOT_INTERPRETED, Compiler, run_interpreted  # noqa: E402  # it needs Triton


@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_interpreted(which: str) -> None:
    run_interpreted("tests/nn/depthwise_interpreter.py", which)


@NOT_INTERPRETED
@pytest.mark.parametrize(
    ("capability", "dtype", "size", "dilation"),
    [
        (90, torch.float32, 3, 3),
        *(
            pytest.param(*which, marks=pytest.mark.long)
            for which in (
                (90, torch.float32, 5, 6),
                (90, torch.bfloat16, 3, 3),
                (90, torch.bfloat16, 5, 6),
                (80, torch.float32, 5, 6),
                (80, torch.float16, 5, 6),
            )
        ),
    ],
)
def test_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: int, dtype: torch.dtype, size: int, dilation: int
) -> None:
    """Registers suffice, no kernel is compiled again for another size of map, and each tap reads each pixel once.

    It reads 16 bytes at a time, 8 in the backward pass of half precision.
    """
    from nasdsl.nn.depthwise import triton, triton_kernels

    compiler = Compiler(monkeypatch, tmp_path, capability, (triton_kernels.convolve, triton_kernels.gradients))
    for shape in ((1, 64, 96, 96), (3, 64, 5, 7)):
        x = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(64, 1, size, size).to(dtype).requires_grad_()
        triton.depthwise_conv2d(x, weight, None, dilation).sum().backward()
    kernels = {kernel.metadata.name: kernel for kernel in compiler.compiled}
    assert (set(kernels), len(compiler.compiled)) == ({"convolve", "gradients"}, 2)
    for name, least, pixels in (("convolve", 12, 2 if dtype == torch.float32 else 1), ("gradients", 8, 1)):
        registers, instructions = compiler.registers(kernels[name]), compiler.disassembled(kernels[name])[1]
        assert 65536 // (32 * registers) >= least, (name, registers)  # warps that have registers
        wide = 64 if name == "gradients" and dtype != torch.float32 else 128
        loads = len(re.findall(rf"\bLDG\.E\.{wide}\b", instructions))
        assert loads == size**2 * (pixels + 1) + (name == "gradients"), (name, loads)  # pixels and weights, and x for gradients
        assert re.search(rf"\bSTG\.E\.{wide}\b", instructions)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", FORMATS)
def test_on_a_gpu(dtype: torch.dtype, memory: str) -> None:
    """The layer and each implementation agree with torch's own convolution in float64."""
    for size, dilation, shape in (
        (3, 3, (8, 64, 96, 96)),
        (5, 6, (8, 64, 95, 97)),
        (5, 6, (2, 32, 5, 4)),
        (7, 2, (2, 30, 33, 31)),
    ):
        x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=FORMATS[memory]).requires_grad_()
        layer = DilatedDepthwiseConv2d(shape[1], size, dilation).to("cuda", dtype)
        upstream = torch.randn_like(x)
        wanted = [x, *layer.parameters()]
        exact = autotune.plain(x.double(), *(p.double() for p in layer.parameters()), dilation)
        exact_gradients = torch.autograd.grad(exact, wanted, upstream.double())
        bound = 1e-5 if dtype == torch.float32 else 2e-2
        with torch.backends.cudnn.flags(allow_tf32=False):
            for name, implementation in {"layer": None, **autotune.TUNER.implementations}.items():
                out = layer(x) if implementation is None else implementation(x, *layer.parameters(), dilation)
                assert out.is_contiguous(memory_format=FORMATS[memory]), name
                found = [out, *torch.autograd.grad(out, wanted, upstream)]
                for one, other in zip(found, [exact, *exact_gradients], strict=True):
                    assert (one.double() - other).norm() <= bound * other.norm(), (name, shape)


@pytest.mark.gpu
def test_capture_in_a_cuda_graph() -> None:
    """Nothing is timed during a capture, and what was timed before is used in it."""
    layer, x = (
        DilatedDepthwiseConv2d(32, 3, 3).cuda(),
        torch.randn(2, 32, 40, 44, device="cuda").contiguous(memory_format=torch.channels_last),
    )
    for warm in (False, True):
        autotune.TUNER.fastest.clear()
        with torch.no_grad():
            expected = autotune.plain(x, layer.weight, layer.bias, 3)
            if warm:
                layer(x)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = layer(x)
            graph.replay()
        assert len(autotune.TUNER.fastest) == warm
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
