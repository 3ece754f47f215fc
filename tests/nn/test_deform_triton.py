"""The Triton kernels of the deformable convolution, without a GPU: interpreted, and compiled for two GPUs. And on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nasdsl.nn import deform_conv2d
from nasdsl.nn.deform import fused, reference, triton
from nasdsl.nn.deform.autotune import TUNER

pytest.importorskip("triton")
from tests.nn.triton_compiler import NOT_INTERPRETED, ROOT, Compiler, run_interpreted


@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_interpreted(which: str) -> None:
    """Runs `triton_interpreter`, the tests of the kernels' results."""
    run_interpreted("tests/nn/triton_interpreter.py", which)


def test_few_programs_have_fewer_channels_each() -> None:
    """Down to a least number, so that more of a GPU's processors have one."""
    blocks = {positions: fused._out_block(256, 1, positions, 2) for positions in (1, 64, 128, 1000)}
    assert blocks == {1: 64, 64: 64, 128: 128, 1000: 256}
    assert fused._out_block(4, 1, 1, 4) == 16


def test_double_precision_goes_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread does not have the registers for it."""
    monkeypatch.setattr(fused.columns, "forward", lambda *given: given)
    given: Any = (*(torch.zeros(1) for _ in range(5)), None)
    assert fused._forward(*given, torch.float64) == (*given, torch.float64)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Compiler:
    from nasdsl.nn.deform import triton_kernels

    kernels = triton_kernels.gather, triton_kernels.scatter, triton_kernels.convolve
    return Compiler(monkeypatch, tmp_path, request.param, kernels)


def compile_layer(
    compiler: Compiler,
    dtype: torch.dtype,
    channels: int,
    size: tuple[int, int] = (4, 4),
    batch: int = 1,
    implementation: Any = triton,
) -> list[Any]:
    """The kernels that a layer of two offset groups and its gradients newly compiled."""
    before = len(compiler.compiled)
    x = torch.randn(batch, channels, *size).to(dtype).requires_grad_()
    predicted = torch.randn(batch, 54, *size).to(dtype).requires_grad_()
    offset, mask = predicted.split((36, 18), 1)
    weight, bias = (torch.randn(*shape).to(dtype).requires_grad_() for shape in ((channels, channels, 3, 3), (channels,)))
    out = implementation.deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask)
    if implementation is triton:
        out.sum().backward()
    return compiler.compiled[before:]


@pytest.mark.long
@NOT_INTERPRETED
@pytest.mark.parametrize("compiler", [80, 90], indirect=True)
def test_compiled(compiler: Compiler) -> None:
    """Registers suffice, and no kernel is compiled again for another size of map.

    Pixels are read 16 bytes at a time, 8 in the backward pass of half precision.
    """
    capability = compiler.capability
    cases = [(torch.float32, 256), (torch.bfloat16, 64), (torch.float16, 64)]
    for dtype, channels in cases[: 3 if capability >= 90 else 2]:
        kernels = {kernel.metadata.name: kernel for kernel in compile_layer(compiler, dtype, channels)}
        assert set(kernels) == {"gather", "scatter"}
        assert not compile_layer(compiler, dtype, channels, (1, 5), batch=3)
        for name, kernel in kernels.items():
            registers, instructions = compiler.registers(kernel), compiler.disassembled(kernel)[1]
            # At least this many warps of 32 threads fit into the 65536 registers.
            assert 65536 // (32 * registers) >= (12 if capability == 80 else 24), (name, registers)
            wide = 128 if name == "gather" or dtype == torch.float32 else 64
            assert len(re.findall(rf"\bLDG\.E\.{wide}\b", instructions)) >= 4 + (name == "scatter"), name
            assert re.search(rf"\bSTG\.E\.{wide}\b", instructions)
        added = re.findall(r"\bREDG?\.E\.ADD\.F32\S*", compiler.disassembled(kernels["scatter"])[1])
        # From 90 on, vectors of four. Before, 32 threads add to 32 adjacent addresses.
        assert len(added) == (4 if capability >= 90 else 16)
        assert all("x4" in instruction for instruction in added) == (capability >= 90)
        assert "STRONG.SYS" not in "".join(added)


@pytest.mark.long
@NOT_INTERPRETED
@pytest.mark.parametrize("compiler", [80, 90], indirect=True)
@pytest.mark.parametrize(
    ("dtype", "channels"), [(torch.float32, 256), (torch.float32, 64), (torch.bfloat16, 256), (torch.float16, 64)]
)
def test_the_fused_kernel_compiled(compiler: Compiler, dtype: torch.dtype, channels: int) -> None:
    """Registers suffice, products use tensor cores, pixels are read 16 bytes at a time, no size of map compiles it again."""
    (kernel,) = compile_layer(compiler, dtype, channels, (200, 120), implementation=fused)
    assert not compile_layer(compiler, dtype, channels, (120, 201), implementation=fused)
    compiler.registers(kernel)
    instructions = compiler.disassembled(kernel)[1]
    assert re.search(r"\bHGMMA\b" if compiler.capability >= 90 else r"\bHMMA\b", instructions)
    assert len(re.findall(r"\bLDG\.E\.128\b", instructions)) >= 4


@pytest.mark.long
@NOT_INTERPRETED
@pytest.mark.parametrize("compiler", [90], indirect=True)
@pytest.mark.parametrize(
    ("dtype", "kernel", "groups", "needed"),
    [
        (torch.float64, (1, 1), 2, ("x", "weight")),
        (torch.float32, (2, 5), 4, ("offset",)),
        (torch.bfloat16, (3, 3), 1, ("weight",)),
        (torch.float16, (1, 3), 1, ("x",)),
    ],
)
def test_every_configuration_compiles(
    compiler: Compiler, dtype: torch.dtype, kernel: tuple[int, int], groups: int, needed: tuple[str, ...]
) -> None:
    """The interpreter accepts types and shapes that the compiler rejects. No mask, 3 channels per offset group."""
    shapes = {"x": (2, 12, 6, 7), "offset": (2, 8 * kernel[0] * kernel[1], 5, 5), "weight": (4, 12 // groups, *kernel)}
    given = {name: torch.randn(shape).to(dtype).requires_grad_(name in needed) for name, shape in shapes.items()}
    triton.deform_conv2d(**given, stride=(2, 1), dilation=(1, 2)).sum().backward()
    expected = {"gather"} if needed == ("weight",) else {"gather", "scatter"}
    assert {kernel.metadata.name for kernel in compiler.compiled} == expected
    fused.deform_conv2d(**given, stride=(2, 1), dilation=(1, 2))
    if dtype != torch.float64:
        expected.add("convolve")
    assert {kernel.metadata.name for kernel in compiler.compiled} == expected


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_on_a_gpu(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Every implementation, and what is chosen, agrees with the reference in float64."""
    bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
    for shape, out, offset_groups, groups in (
        ((2, 64, 48, 40), 64, 2, 1),
        ((1, 256, 25, 34), 256, 2, 1),
        ((3, 24, 7, 5), 36, 1, 3),
    ):
        torch.manual_seed(0)
        n, channels, *size = shape
        tensors = {
            "x": torch.randn(shape), "offset": torch.randn(n, 18 * offset_groups, *size) * 2 + 0.5,
            "weight": torch.randn(out, channels // groups, 3, 3) / channels, "bias": torch.randn(out),
            "mask": torch.rand(n, 9 * offset_groups, *size),
        }  # fmt: skip
        given = {name: t.to("cuda", dtype).requires_grad_() for name, t in tensors.items()}
        given["x"] = given["x"].detach().contiguous(memory_format=layout).requires_grad_()
        inputs = list(given.values())
        exact = reference.deform_conv2d(**{name: t.double() for name, t in given.items()}, padding=(1, 1))
        upstream = torch.randn_like(exact).to(dtype)
        wanted = [exact, *torch.autograd.grad(exact, inputs, upstream.double())]
        for name, implementation in {"chosen": deform_conv2d, **TUNER.implementations}.items():
            found = implementation(**given, padding=(1, 1))
            gradients = torch.autograd.grad(found, inputs, upstream)
            for one, other in zip([found, *gradients], wanted, strict=True):
                assert (one.double() - other).norm() <= bound * other.norm(), (name, shape)


def test_triton_and_torchvision_are_imported_lazily() -> None:
    code = "import sys, nasdsl.nn; assert not {'triton', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
