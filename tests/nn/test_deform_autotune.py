"""Which way of the deformable convolution is taken on a GPU: with ways and times that are made up, on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nasdsl.nn import deform_conv2d
from nasdsl.nn.deform import autotune, reference, torchvision
from nasdsl.nn.deform.trial_call import Trial

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


class Ways:
    """The three, each the definition unless changed; what each was asked for, and the seconds that each is said to take."""

    def __init__(self) -> None:
        self.seconds = {"triton": 2.0, "torchvision": 3.0, "plain": 4.0}
        self.changed: dict[str, Callable[[Tensor], Tensor]] = {}
        self.asked: list[str] = []
        self.measured: list[str] = []

    def way(self, name: str) -> Callable[..., Tensor]:
        def compute(*given: object) -> Tensor:
            self.asked.append(name)
            out = reference.deform_conv2d(*given)  # type: ignore[arg-type]
            return self.changed.get(name, lambda same: same)(out)

        return compute

    def measure(self, step: Callable[[], object]) -> float:
        step()
        self.measured.append(self.asked[-1])
        return self.seconds[self.asked[-1]]

    def take(self, given: Given) -> str:
        """The way that a call is computed by."""
        x, offset, weight, bias, mask = given
        autotune.deform_conv2d(x, offset, weight, bias, (1, 1), (1, 1), (1, 1), mask)
        return self.asked[-1]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    made = Ways()
    monkeypatch.setattr(autotune, "WAYS", {name: made.way(name) for name in ("triton", "torchvision", "plain")})
    monkeypatch.setattr(autotune, "seconds", made.measure)
    monkeypatch.setattr(autotune, "capturing", lambda: False)
    monkeypatch.setattr(autotune, "_fastest", {})
    monkeypatch.setattr(autotune, "_left_out", set())
    monkeypatch.setattr(autotune.importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv(autotune.VARIABLE, raising=False)
    return made


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """No warning but those that are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("fastest", ["triton", "torchvision", "plain"])
def test_the_fastest_is_taken_and_remembered(ways: Ways, fastest: str) -> None:
    ways.seconds[fastest] = 1.0
    assert ways.take(operands()) == fastest
    assert ways.measured == ["triton", "torchvision", "plain"]
    ways.asked.clear()
    assert ways.take(operands()) == fastest
    assert ways.asked == [fastest]


def test_each_kind_of_call_is_measured_once(ways: Ways) -> None:
    kinds = [
        operands(6),
        operands(30),
        operands(6, torch.bfloat16),
        operands(6, gradient=False),
        operands(6, layout=torch.channels_last),
    ]
    for number, given in enumerate(kinds, start=1):
        ways.take(given)
        assert len(ways.measured) == 3 * number
    with torch.no_grad():  # as without gradients
        ways.take(operands(6))
    assert len(ways.measured) == 3 * len(kinds)
    with torch.autocast("cpu", torch.bfloat16):
        ways.take(operands(6))
    assert len(ways.measured) == 3 * (len(kinds) + 1)
    for given in (*kinds, operands(7), operands(29)):  # 2 * 49 positions are as good as 2 * 36
        ways.take(given)
    assert len(ways.measured) == 3 * (len(kinds) + 1)


def fail(_: Tensor) -> Tensor:
    raise RuntimeError("no compiler\nand a long story")


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(_: object, out: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * 1.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (fail, "RuntimeError: no compiler$"),
        (lambda out: out * 1.1, "its result differs from the definition's by 2.1e-01 of that"),  # the weights' gradient
        (lambda out: out * torch.nan, "differs .* by nan"),
        (WrongGradient.apply, "differs .* by 1.0e-01"),
    ],
)
def test_what_fails_or_is_wrong_is_left_out_with_one_warning(ways: Ways, change: Callable[[Tensor], Tensor], says: str) -> None:
    ways.changed["triton"] = change
    with pytest.warns(UserWarning, match=f"not computed by triton: .*{says}"):
        assert ways.take(operands()) == "torchvision"
    assert ways.measured == ["torchvision", "plain"]
    assert ways.take(operands(30)) == "torchvision"  # another kind, and no other warning


def test_where_nothing_works_the_definition_says_why(ways: Ways) -> None:
    ways.changed = dict.fromkeys(ways.seconds, fail)
    with pytest.warns(UserWarning, match="not computed by"), pytest.raises(RuntimeError, match="no compiler"):
        ways.take(operands())
    assert ways.asked[-1] == "plain"


def test_what_is_not_installed_is_no_candidate(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune.importlib.util, "find_spec", lambda name: None)
    assert ways.take(operands()) == "plain"
    assert ways.measured == ["plain"]


def test_the_user_can_fix_it(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("triton", "torchvision", "plain"):
        monkeypatch.setenv(autotune.VARIABLE, name)
        assert ways.take(operands()) == name
    assert not ways.measured
    ways.changed["plain"] = fail
    with pytest.raises(RuntimeError, match="no compiler"):
        ways.take(operands())
    monkeypatch.setenv(autotune.VARIABLE, "cuda")
    with pytest.raises(ValueError, match="NASDSL_DEFORM=cuda: there is triton, torchvision, plain"):
        ways.take(operands())


def test_while_a_graph_is_captured_nothing_is_measured(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "capturing", lambda: True)
    assert ways.take(operands()) == "plain"
    assert not ways.measured
    monkeypatch.setattr(autotune, "capturing", lambda: False)
    assert ways.take(operands()) == "triton"  # not spoiled by the above
    monkeypatch.setattr(autotune, "capturing", lambda: True)
    assert ways.take(operands()) == "triton"


def test_nothing_of_the_caller_sees_the_measurement(ways: Ways) -> None:
    packed: list[Tensor] = []
    called: list[object] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: object, types: object, args: object = (), kwargs: object = None) -> object:
            called.append(function)
            return function(*args, **(kwargs or {}))  # type: ignore[operator, misc]

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor

    counts = []
    state = torch.get_rng_state()
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), Watch():
            ways.take(operands())
        counts.append(len(packed))
        packed.clear()
    assert len(ways.measured) == 3
    assert counts[0] == counts[1]
    assert called
    assert torch.equal(torch.get_rng_state(), state)


def test_it_can_be_measured_in_inference_mode(ways: Ways) -> None:
    with torch.inference_mode():
        assert ways.take(operands(gradient=False)) == "triton"
    assert len(ways.measured) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("lower", [None, torch.bfloat16])
def test_ways_that_are_right_differ_by_less_than_the_bound(dtype: torch.dtype, lower: torch.dtype | None) -> None:
    x, offset, weight, bias, mask = operands(40, dtype)
    with torch.autocast("cpu", lower, enabled=lower is not None):
        trial = Trial((x, offset, mask, weight, bias), ((2, 1), (1, 0), (1, 2)))
    error = trial.error(torchvision.deform_conv2d, reference.deform_conv2d)
    assert error < trial.bound / 4
    assert trial.error(lambda x, *rest: torchvision.deform_conv2d(x.flip(3), *rest), reference.deform_conv2d) > 0.5


def test_when_there_is_a_choice() -> None:
    x, offset, weight, bias, mask = operands()

    def free(**other: Tensor) -> bool:
        return autotune.open_to_all(**({"x": x, "offset": offset, "mask": mask, "weight": weight, "bias": bias} | other))

    assert free()
    assert not autotune.suits(x, offset, mask, weight, bias)  # on a CPU
    wrong = [
        {"offset": offset[:1]}, {"offset": offset[:, :-1]}, {"offset": offset[..., :-1]}, {"mask": mask[:, :-1]},
        {"mask": mask[:1]}, {"weight": weight[:, :5]}, {"weight": weight[:3, :4]}, {"weight": weight.double()},
        {"bias": bias[:-1]}, {"x": x[:0], "offset": offset[:0], "mask": mask[:0]}, {"x": torch.nn.Buffer(x.to("meta"))},
    ]  # fmt: skip
    for other in wrong:
        assert not free(**other), other
    torch.use_deterministic_algorithms(True)
    try:
        assert not free()
    finally:
        torch.use_deterministic_algorithms(False)
    with FlopCounterMode(display=False):
        assert not free()
    seen = []
    torch.func.vmap(lambda bias: seen.append(free(bias=bias)) or bias)(bias.detach().expand(2, 4))
    assert seen == [False]


def test_the_function_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, offset, weight, bias, mask = operands()
    monkeypatch.setattr(autotune, "suits", lambda *_: True)
    monkeypatch.setattr(autotune, "deform_conv2d", lambda *_: x)
    assert deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask) is x
