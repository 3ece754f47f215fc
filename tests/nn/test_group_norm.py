"""GroupNorm on a GPU: what is left to torch, and the Triton kernels, interpreted, compiled, and on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasdsl.nn import GroupNorm
from nasdsl.nn.group_norm import autotune

LAST = torch.channels_last


def test_choices_and_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = GroupNorm(4, 8), torch.randn(2, 8, 5, 4).contiguous(memory_format=LAST)
    expected = torch.nn.functional.group_norm(x, 4, layer.weight, layer.bias, layer.eps)
    monkeypatch.setattr(autotune, "supports", autotune.all_support)
    calls: list[str] = []
    fakes = {name: lambda *given, name=name: calls.append(name) or autotune.plain(*given) for name in ("triton", "plain")}
    monkeypatch.setattr(autotune.TUNER, "implementations", fakes)
    for name in fakes:
        monkeypatch.setenv("NASDSL_GROUP_NORM", name)
        found = layer(x)
        assert calls.pop() == name
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):  # maps in half precision, weights in float32
        layer(x.bfloat16())
    assert calls.pop() == name
    layer(x.contiguous())  # in channels-first format torch's own copies nothing
    layer(x[:0])
    with FlopCounterMode(display=False):
        layer(x)
    GroupNorm(4, 8, affine=False)(x)
    assert autotune.all_support(x, layer.weight, layer.bias)
    assert not autotune.all_support(x, layer.weight.to("meta"), layer.bias)
    assert not autotune.all_support(x, layer.weight.detach().long(), layer.bias)
    torch.export.export(layer, (x,))
    with pytest.raises(RuntimeError, match="Expected weight to be a vector"):
        layer(torch.randn(2, 12, 5, 4).contiguous(memory_format=LAST))
    assert not calls


triton = pytest.importorskip("triton")
from tests.nn.triton_compiler import NOT_INTERPRETED, Compiler, run_interpreted  # noqa: E402  # it needs Triton


@pytest.mark.parametrize("which", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_interpreted(which: str) -> None:
    run_interpreted("tests/nn/group_norm_interpreter.py", which)


@pytest.mark.long
@NOT_INTERPRETED
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: int, dtype: torch.dtype) -> None:
    """Registers suffice, and no kernel is compiled again for another size of map."""
    from nasdsl.nn.group_norm import triton, triton_kernels

    names = ("moments", "statistics", "normalize", "gradient_sums", "gradient_means", "input_gradient")
    compiler = Compiler(monkeypatch, tmp_path, capability, [getattr(triton_kernels, name) for name in names])
    for shape in ((1, 256, 40, 52), (3, 256, 5, 7)):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=LAST).requires_grad_()
        weight, bias = (torch.randn(256, requires_grad=True) for _ in range(2))
        triton.group_norm(x, weight, bias, 32, 1e-5).sum().backward()
    assert [kernel.metadata.name for kernel in compiler.compiled] == list(names)
    for kernel in compiler.compiled:
        assert compiler.registers(kernel) <= 168, kernel.metadata.name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    """Every implementation, and the layer, agrees with torch's own in float64, and keeps channels-last maps."""
    bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype]
    for shape in ((2, 256, 100, 136), (8, 64, 13, 17), (1, 32, 1, 1)):
        x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=LAST).requires_grad_()
        layer = GroupNorm(32, shape[1]).to("cuda", dtype)
        torch.nn.init.normal_(layer.weight)
        upstream = torch.randn_like(x)
        wanted = [x, *layer.parameters()]
        exact = autotune.plain(x.double(), layer.weight.double(), layer.bias.double(), 32, layer.eps)
        exact_gradients = torch.autograd.grad(exact, wanted, upstream.double())
        for name, implementation in {"layer": None, **autotune.TUNER.implementations}.items():
            out = layer(x) if implementation is None else implementation(x, layer.weight, layer.bias, 32, layer.eps)
            assert out.is_contiguous(memory_format=LAST), name
            found = [out, *torch.autograd.grad(out, wanted, upstream)]
            for one, other in zip(found, [exact, *exact_gradients], strict=True):
                assert (one.double() - other).norm() <= bound * other.norm() + 1e-3, (name, shape)
