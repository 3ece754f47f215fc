"""Triton kernels without a GPU: compiled for one, with the machine code that comes out, and interpreted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from nasdsl.nn.triton_launch import OLDEST_TRITON

triton = pytest.importorskip("triton", minversion=".".join(map(str, OLDEST_TRITON)))
ROOT = Path(__file__).parents[2]
NOT_INTERPRETED = pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter compiles nothing")


def run_interpreted(file: str, which: str) -> None:
    """Run the tests of a file with these markers in a process in which Triton interprets kernels; all of them must pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, file]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    environment.pop("PYTEST_ADDOPTS", None)
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)
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
    """Compiles kernels instead of launching them.

    Attributes:
        capability: of the GPU, 80 or 90.
        compiled: kernels in the order in which they were first launched.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, capability: int, kernels: Iterable[Any]) -> None:
        if not hasattr(triton, "knobs"):
            pytest.skip(f"these tests drive the compiler of a newer Triton than {triton.__version__}")
        self.capability, self.folder, self._compiled = capability, folder, dict[int, Any]()
        patch.setattr(triton.knobs.cache, "dir", str(folder))
        patch.setattr(triton.runtime.driver, "_active", FakeDriver(capability))
        for kernel in kernels:
            run = kernel.run
            patch.setattr(
                kernel, "run", lambda *args, run=run, **given: self._compile(run(*args, **(given | {"warmup": True})))
            )

    def _compile(self, kernel: Any) -> None:
        self._compiled[id(kernel)] = kernel

    @property
    def compiled(self) -> list[Any]:
        return list(self._compiled.values())

    def disassembled(self, kernel: Any) -> tuple[str, str]:
        """The resource usage and the instructions of a kernel."""
        tool, file = triton.knobs.nvidia.cuobjdump.path, self.folder / f"{kernel.metadata.name}.cubin"
        file.write_bytes(kernel.asm["cubin"])

        def ask(*options: str) -> str:
            return subprocess.run([tool, *options, str(file)], check=True, capture_output=True, text=True).stdout

        return ask("-res-usage"), ask("-sass")

    def registers(self, kernel: Any) -> int:
        """Registers of a thread; asserts that none is spilled to memory."""
        usage, instructions = self.disassembled(kernel)
        assert "STACK:0 " in usage, (kernel.metadata.name, usage)
        assert not re.search(r"\b(LDL|STL)\b", instructions), kernel.metadata.name
        return int(re.search(r"REG:(\d+)", usage)[1])  # type: ignore[index]  # each kernel has such a line
