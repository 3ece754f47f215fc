"""The Triton kernels of the deformable convolution, without a GPU: interpreted, and compiled for two GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nasdsl.nn.deform.triton import deform_conv2d

triton = pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_interpreted() -> None:
    """Runs `triton_interpreter`, the tests of the kernels' results."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/nn/triton_interpreter.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    environment.pop("PYTEST_ADDOPTS", None)
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout
    assert "skipped" not in ran.stdout


class FakeDriver:
    """A driver with a GPU for which kernels can be compiled, but not launched."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are cached by device: never that of a real one

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiler:
    """Compiles kernels instead of launching them."""

    def __init__(self, patch: pytest.MonkeyPatch, capability: int) -> None:
        from nasdsl.nn.deform import triton_kernels

        self.compiled: dict[int, Any] = {}
        patch.setattr(triton.runtime.driver, "_active", FakeDriver(capability))
        for kernel in (triton_kernels.gather, triton_kernels.scatter):
            run = kernel.run
            patch.setattr(
                kernel, "run", lambda *args, run=run, **given: self._compile(run(*args, **(given | {"warmup": True})))
            )

    def _compile(self, kernel: Any) -> None:
        self.compiled[id(kernel)] = kernel

    def compile_layer(self, dtype: torch.dtype, channels: int, size: tuple[int, int] = (4, 4), batch: int = 1) -> list[Any]:
        """The kernels that a layer of two offset groups and its gradients newly compiled."""
        before = set(self.compiled)
        x = torch.randn(batch, channels, *size).to(dtype).requires_grad_()
        predicted = torch.randn(batch, 54, *size).to(dtype).requires_grad_()
        offset, mask = predicted.split((36, 18), 1)
        weight, bias = (torch.randn(*shape).to(dtype).requires_grad_() for shape in ((channels, channels, 3, 3), (channels,)))
        deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask).sum().backward()
        return [kernel for key, kernel in self.compiled.items() if key not in before]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Compiler:
    if not hasattr(triton, "knobs"):
        pytest.skip(f"these tests drive the compiler of a newer Triton than {triton.__version__}")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    return Compiler(monkeypatch, request.param)


def disassembled(kernel: Any, folder: Path) -> tuple[str, str]:
    """The resource usage and the instructions of a kernel."""
    tool, file = triton.knobs.nvidia.cuobjdump.path, folder / f"{kernel.metadata.name}.cubin"
    file.write_bytes(kernel.asm["cubin"])

    def ask(*options: str) -> str:
        return subprocess.run([tool, *options, str(file)], check=True, capture_output=True, text=True).stdout

    return ask("-res-usage"), ask("-sass")


@pytest.mark.long
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter compiles nothing")
@pytest.mark.parametrize("compiler", [80, 90], indirect=True)
def test_compiled(compiler: Compiler, tmp_path: Path) -> None:
    """Registers suffice, and no kernel is compiled again for another size of map.

    Pixels are read 16 bytes at a time, 8 in the backward pass of half precision.
    """
    capability = triton.runtime.driver.active.capability
    cases = [(torch.float32, 256), (torch.bfloat16, 64), (torch.float16, 64)]
    for dtype, channels in cases[: 3 if capability >= 90 else 2]:
        kernels = {kernel.metadata.name: kernel for kernel in compiler.compile_layer(dtype, channels)}
        assert set(kernels) == {"gather", "scatter"}
        assert not compiler.compile_layer(dtype, channels, (1, 5), batch=3)
        for name, kernel in kernels.items():
            usage, instructions = disassembled(kernel, tmp_path)
            assert "STACK:0 " in usage, (name, usage)
            assert not re.search(r"\b(LDL|STL)\b", instructions), name
            registers = int(re.search(r"REG:(\d+)", usage)[1])  # type: ignore[index]  # each kernel has such a line
            # At least this many warps of 32 threads fit into the 65536 registers.
            assert 65536 // (32 * registers) >= (12 if capability == 80 else 24), (name, registers)
            wide = 128 if name == "gather" or dtype == torch.float32 else 64
            assert len(re.findall(rf"\bLDG\.E\.{wide}\b", instructions)) >= 4 + (name == "scatter"), name
            assert re.search(rf"\bSTG\.E\.{wide}\b", instructions)
        added = re.findall(r"\bREDG?\.E\.ADD\.F32\S*", disassembled(kernels["scatter"], tmp_path)[1])
        # From 90 on, vectors of four. Before, 32 threads add to 32 adjacent addresses.
        assert len(added) == (4 if capability >= 90 else 16)
        assert all("x4" in instruction for instruction in added) == (capability >= 90)
        assert "STRONG.SYS" not in "".join(added)


@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter compiles nothing")
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
    deform_conv2d(**given, stride=(2, 1), dilation=(1, 2)).sum().backward()
    assert {k.metadata.name for k in compiler.compiled.values()} == (
        {"gather"} if needed == ("weight",) else {"gather", "scatter"}
    )


def test_triton_and_torchvision_are_imported_lazily() -> None:
    code = "import sys, nasdsl.nn; assert not {'triton', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
