"""The autotuner, with deformable convolutions on a CPU, fake implementations and fake times."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nasdsl.nn import autotune, deform_conv2d
from nasdsl.nn.deform import autotune as deform_autotune
from nasdsl.nn.deform import reference, torchvision
from nasdsl.nn.deform.autotune import TUNER, DeformCall

Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def operands(
    size: int = 6,
    dtype: torch.dtype = torch.float32,
    *,
    gradient: bool = True,
    layout: torch.memory_format = torch.contiguous_format,
) -> Given:
    """x, offset, weight, bias, mask."""
    draw = torch.Generator().manual_seed(size)
    shapes = (2, 8, size, size), (2, 36, size, size), (4, 8, 3, 3), (4,), (2, 18, size, size)
    x, offset, weight, bias, mask = (torch.randn(s, generator=draw).to(dtype).requires_grad_(gradient) for s in shapes)
    return x.to(memory_format=layout), offset, weight, bias, mask


NAMES = ("fused", "triton", "torchvision", "plain")


class FakeImplementations:
    """The four names, each the reference unless changed; records the calls, and pretends each to take so many seconds."""

    def __init__(self) -> None:
        self.seconds = {"fused": 2.0, "triton": 2.5, "torchvision": 3.0, "plain": 4.0}
        self.changed: dict[str, Callable[[Tensor], Tensor]] = {}
        self.called: list[str] = []
        self.timed: list[str] = []
        self.best: list[float] = []

    def implementation(self, name: str) -> Callable[..., Tensor]:
        def compute(*given: Any) -> Tensor:
            self.called.append(name)
            out = reference.deform_conv2d(*given)
            return self.changed.get(name, lambda same: same)(out)

        return compute

    def time(self, step: Callable[[], object], best: float) -> float:
        step()
        self.timed.append(self.called[-1])
        self.best.append(best)
        return self.seconds[self.called[-1]]

    def used(self, given: Given) -> str:
        """The implementation that computes a call."""
        x, offset, weight, bias, mask = given
        deform_autotune.deform_conv2d(x, offset, weight, bias, (1, 1), (1, 1), (1, 1), mask)
        return self.called[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeImplementations:
    fake = FakeImplementations()
    tuner = replace(TUNER, implementations={name: fake.implementation(name) for name in NAMES}, fastest={}, rejected=set())
    monkeypatch.setattr(deform_autotune, "TUNER", tuner)
    monkeypatch.setattr(autotune, "seconds", fake.time)
    monkeypatch.setattr(autotune, "is_capturing", lambda: False)
    monkeypatch.setattr(autotune.importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv(TUNER.variable, raising=False)
    return fake


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Unexpected warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("fastest", NAMES)
def test_the_fastest_is_used_and_remembered(fake: FakeImplementations, fastest: str) -> None:
    fake.seconds[fastest] = 1.0
    assert fake.used(operands()) == fastest
    assert fake.timed == list(NAMES)
    assert fake.best == [math.inf, *(min(list(fake.seconds.values())[:number]) for number in (1, 2, 3))]
    fake.called.clear()
    assert fake.used(operands()) == fastest
    assert fake.called == [fastest]


def test_operands_that_are_not_given_are_not_made_up(fake: FakeImplementations) -> None:
    x, offset, weight, _, _ = operands()
    fake.seconds["plain"] = 1.0
    deform_autotune.deform_conv2d(x, offset, weight, None, (1, 1), (1, 1), (1, 1), None)
    assert fake.called[-1] == "plain"
    assert fake.timed == list(NAMES)


def test_what_another_thread_has_timed_meanwhile_is_not_timed_again(
    fake: FakeImplementations, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        """A lock that another thread had, which has timed the same call."""

        def __enter__(self) -> None:
            tuner = deform_autotune.TUNER
            (x, offset, weight, bias, mask) = operands()
            call = DeformCall((x, offset, mask, weight, bias), ((1, 1), (1, 1), (1, 1)))
            tuner.fastest[call.key] = "triton"

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(deform_autotune.TUNER, "lock", Other())
    assert fake.used(operands()) == "triton"
    assert fake.timed == []


def test_each_shape_class_is_timed_once(fake: FakeImplementations) -> None:
    calls = [
        operands(6),
        operands(30),
        operands(6, torch.bfloat16),
        operands(6, gradient=False),
        operands(6, layout=torch.channels_last),
    ]
    for number, given in enumerate(calls, start=1):
        fake.used(given)
        assert len(fake.timed) == 4 * number
    with torch.no_grad():  # as without gradients
        fake.used(operands(6))
    assert len(fake.timed) == 4 * len(calls)
    with torch.autocast("cpu", torch.bfloat16):
        fake.used(operands(6))
    assert len(fake.timed) == 4 * (len(calls) + 1)
    for given in (*calls, operands(7), operands(29)):  # 2 * 49 positions are of the class of 2 * 36
        fake.used(given)
    assert len(fake.timed) == 4 * (len(calls) + 1)


def fail(_: Tensor) -> Tensor:
    raise RuntimeError("no compiler\nand a long explanation")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(_: object, out: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:  # type: ignore[override]  # torch declares one for any number of gradients
        return gradient * 1.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (fail, "RuntimeError: no compiler$"),
        (lambda out: out * 1.1, "its result differs from the reference by 2.1e-01 of its norm"),  # the weights' gradient
        (lambda out: out * torch.nan, "differs .* by nan"),
        (WrongGradient.apply, "differs .* by 1.0e-01"),
    ],
)
def test_an_implementation_that_fails_or_is_wrong_is_rejected_with_one_warning(
    fake: FakeImplementations, change: Callable[[Tensor], Tensor], says: str
) -> None:
    fake.changed["fused"] = change
    with pytest.warns(UserWarning, match=f"does not use fused: .*{says}"):
        assert fake.used(operands()) == "triton"
    assert fake.timed == ["triton", "torchvision", "plain"]
    assert fake.used(operands(30)) == "triton"  # another shape class, and no further warning


def test_where_nothing_works_the_reference_raises(fake: FakeImplementations) -> None:
    fake.changed = dict.fromkeys(fake.seconds, fail)
    with pytest.warns(UserWarning, match="does not use"), pytest.raises(RuntimeError, match="no compiler"):
        fake.used(operands())
    assert fake.called[-1] == "plain"


def test_packages_that_are_not_installed_are_not_tried(fake: FakeImplementations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune.importlib.util, "find_spec", lambda name: None)
    assert fake.used(operands()) == "plain"
    assert fake.timed == ["plain"]


def test_the_environment_variable_forces_an_implementation(fake: FakeImplementations, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(TUNER.variable, name)
        assert fake.used(operands()) == name
    assert not fake.timed
    fake.changed["plain"] = fail
    with pytest.raises(RuntimeError, match="no compiler"):
        fake.used(operands())
    monkeypatch.setenv(TUNER.variable, "cuda")
    with pytest.raises(ValueError, match="NASDSL_DEFORM=cuda: expected fused, triton, torchvision, plain"):
        fake.used(operands())


def test_nothing_is_timed_while_a_cuda_graph_is_captured(fake: FakeImplementations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "is_capturing", lambda: True)
    assert fake.used(operands()) == "plain"
    assert not fake.timed
    monkeypatch.setattr(autotune, "is_capturing", lambda: False)
    assert fake.used(operands()) == "fused"  # the above is not remembered
    monkeypatch.setattr(autotune, "is_capturing", lambda: True)
    assert fake.used(operands()) == "fused"


def test_hooks_and_modes_of_the_caller_do_not_see_the_timing(fake: FakeImplementations) -> None:
    packed: list[Tensor] = []
    called: list[object] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(function)
            return function(*args, **(kwargs or {}))

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor

    counts = []
    state = torch.get_rng_state()
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), Watch():
            fake.used(operands())
        counts.append(len(packed))
        packed.clear()
    assert len(fake.timed) == 4
    assert counts[0] == counts[1]
    assert called
    assert torch.equal(torch.get_rng_state(), state)


def test_timing_in_inference_mode(fake: FakeImplementations) -> None:
    with torch.inference_mode():
        assert fake.used(operands(gradient=False)) == "fused"
    assert len(fake.timed) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("lower", [None, torch.bfloat16])
def test_correct_implementations_are_within_the_tolerance(dtype: torch.dtype, lower: torch.dtype | None) -> None:
    x, offset, weight, bias, mask = operands(40, dtype)
    with torch.autocast("cpu", lower, enabled=lower is not None):
        call = DeformCall((x, offset, mask, weight, bias), ((2, 1), (1, 0), (1, 2)))
    error = call.relative_error(torchvision.deform_conv2d, reference.deform_conv2d)
    assert error < call.tolerance / 4
    assert call.relative_error(lambda x, *rest: torchvision.deform_conv2d(x.flip(3), *rest), reference.deform_conv2d) > 0.5


def test_when_there_is_a_choice() -> None:
    x, offset, weight, bias, mask = operands()

    def supported(**other: Tensor) -> bool:
        return deform_autotune.all_support(**({"x": x, "offset": offset, "mask": mask, "weight": weight, "bias": bias} | other))

    assert supported()
    assert not deform_autotune.supports(x, offset, mask, weight, bias)  # on a CPU
    wrapped = getattr(torch.nn, "Buffer", torch.nn.Parameter)  # Buffer is new in torch 2.5
    wrong = [
        {"offset": offset[:1]}, {"offset": offset[:, :-1]}, {"offset": offset[..., :-1]}, {"mask": mask[:, :-1]},
        {"mask": mask[:1]}, {"weight": weight[:, :5]}, {"weight": weight[:3, :4]}, {"weight": weight.double()},
        {"bias": bias[:-1]}, {"x": x[:0], "offset": offset[:0], "mask": mask[:0]}, {"x": wrapped(x.to("meta"))},
    ]  # fmt: skip
    for other in wrong:
        assert not supported(**other), other
    torch.use_deterministic_algorithms(True)
    try:
        assert not supported()
    finally:
        torch.use_deterministic_algorithms(False)
    with FlopCounterMode(display=False):
        assert not supported()
    seen = []
    torch.func.vmap(lambda bias: seen.append(supported(bias=bias)) or bias)(bias.detach().expand(2, 4))
    assert seen == [False]


def test_the_function_dispatches_to_the_autotuner(monkeypatch: pytest.MonkeyPatch) -> None:
    x, offset, weight, bias, mask = operands()
    monkeypatch.setattr(deform_autotune, "supports", lambda *_: True)
    monkeypatch.setattr(deform_autotune, "deform_conv2d", lambda *_: x)
    assert deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask) is x


class FakeEvent:
    """An event of a GPU whose calls take what `times` says, in seconds, one after another."""

    times: Iterator[float]

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, _: FakeEvent) -> float:
        return 1000 * next(self.times)


def test_the_shortest_of_several_calls_counts_and_hopeless_ones_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for best, taken, expected in (
        (math.inf, [5.0, 3.0, 4.0, 2.0, 6.0], 2.0),
        (2.4, [5.0], 5.0),
        (2.6, [5.0, 1.0, 5.0, 5.0, 5.0], 1.0),
    ):
        FakeEvent.times = iter(taken)
        calls.clear()
        assert autotune.seconds(lambda: calls.append(None), best) == expected
        assert len(calls) == 1 + len(taken)  # the first one warms up
        assert not list(FakeEvent.times)
