"""Errors of torch in a layer: the message names the value and the line of the text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nasdsl
from nasdsl.backends.inference import for_inference
from nasdsl.backends.layer_errors import is_out_of_memory, layer_error_message, layer_of
from nasdsl.backends.module import DecoderModule

TEXT = """decoder d {
  input c3
  fpn(width=32, norm=bn) {
    x1 = conv_3x3(c3)
    gated = mul(x1, sigmoid(conv_1x1(global_pool(c3, kind=avg))))
    output p3 = gated
  }
  head(width=32, norm=none) { conv_3x3 -> conv_1x1 }
  predict fcos
}
"""


@pytest.fixture
def module() -> DecoderModule:
    return nasdsl.loads(TEXT, "gate.nas").build({"c3": 16}, 3)


def message_of(module: DecoderModule, features: Tensor) -> str:
    with pytest.raises((RuntimeError, ValueError)) as raised:
        module({"c3": features})
    message = layer_error_message(raised.value)
    assert message is not None
    assert "\n" not in message
    file, line, column, layer = message.partition(" (in")[0].replace(" ", "").split(":")
    assert raised.value.__notes__[0].startswith(f"while running {layer} ({file}:{line}:{column}: ")
    return message


def test_a_batchnorm_on_one_pixel_of_one_image(module: DecoderModule) -> None:
    message = message_of(module.train(), torch.randn(1, 16, 8, 8))
    assert message.startswith("gate.nas:5:29: gated.norm (in `conv_1x1(global_pool(c3, kind=avg))`) cannot be computed")
    assert "from [1, 32, 1, 1]: Expected more than 1 value per channel when training" in message
    assert message.endswith("use a larger batch, or no norm here (norm=none)")
    module({"c3": torch.randn(2, 16, 8, 8)})
    module.eval()({"c3": torch.randn(1, 16, 8, 8)})


@pytest.mark.parametrize("inference", [False, True])
def test_a_feature_of_another_width(module: DecoderModule, inference: bool) -> None:
    message = message_of(for_inference(module) if inference else module, torch.randn(2, 7, 8, 8))
    assert message.startswith("gate.nas:2:9: c3.conv (in `c3`) cannot be computed from [2, 7, 8, 8]: ")
    assert "channels" in message
    assert "larger batch" not in message


def test_a_layer_of_the_head_that_does_not_fit_into_memory(module: DecoderModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(layer: object, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore")

    pyramid = module.eval().pyramid({"c3": torch.randn(1, 16, 8, 8)})
    monkeypatch.setattr(torch.nn.Conv2d, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        module.head(pyramid)
    message = layer_error_message(raised.value)
    assert message is not None
    assert message.startswith("gate.nas:8:31: conv (in `conv_3x3`) cannot be computed from [1, 32, 8, 8]: CUDA out of memory.")
    assert is_out_of_memory(raised.value)


def test_an_error_that_is_not_torchs_keeps_its_type_in_the_message(
    module: DecoderModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(layer: object, x: Tensor) -> Tensor:
        raise KeyError("k")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", fail)
    with pytest.raises(KeyError) as raised:
        module({"c3": torch.randn(1, 16, 8, 8)})
    assert str(layer_error_message(raised.value)).endswith(": KeyError: 'k'")


def test_errors_from_elsewhere_have_no_layer() -> None:
    error = RuntimeError("two\nlines")
    assert layer_of(error) is None
    assert layer_error_message(error) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Sizes of tensors must match"), False),
        (ValueError("cannot allocate memory"), False),
    ],
)
def test_too_little_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
