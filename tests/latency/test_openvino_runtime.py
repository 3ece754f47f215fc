"""What OpenVINO leaves in the process."""

from __future__ import annotations

import ctypes
import gc
import sys

import pytest

pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

from nasdsl.latency.openvino_runtime import compile_model, core  # noqa: E402  # it imports openvino


class SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack() -> int | None:
    """The address of this thread's other stack for signals."""
    found = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    address: int | None = found.address
    return address


def compiled() -> object:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return compile_model(core().read_model(model.SerializeToString()), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the structure of sigaltstack is Linux's")
def test_signals_have_a_stack_as_long_as_the_process_lives() -> None:
    """Whichever model goes first. With a core for each, the stack of the first would be set, and freed, when both are gone."""
    first = compiled()
    of_the_first = signal_stack()
    second = compiled()
    assert signal_stack() == of_the_first
    del first
    gc.collect()
    assert signal_stack() == of_the_first
    del second
    gc.collect()
    assert signal_stack() == of_the_first
