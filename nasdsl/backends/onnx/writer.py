"""Builder of an ONNX graph, whose names follow the text of the decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from nasdsl.backends.export import where
from nasdsl.ir.graph import Node

_HALF_RANGE = (-65504.0, 65504.0)
"""The finite values of float16: a larger weight becomes the largest one."""


class Writer:
    """Collects the nodes and weights of an ONNX graph.

    Inside ``with writer.at("fpn/x1.x.conv", node)`` each `op` is named like ``fpn/x1.x.conv/Mul``, and `result` renames the
    last one to ``fpn/x1.x.conv``. The part before the first slash is the section of the model.

    Args:
        half: weights and maps are float16 instead of float32.
        native_deform: deformable convolutions are ONNX's DeformConv instead of GridSample and a convolution.

    Attributes:
        nodes: of the graph, in order.
        owner: prefix of the names of weights: the path of the module that is being written in the state dict, with a dot.
    """

    def __init__(self, *, half: bool = False, native_deform: bool = False) -> None:
        """
        Args:
            half: write maps and weights as float16.
            native_deform: write deformable convolutions as ONNX's DeformConv.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.native_deform = native_deform
        self.owner = ""
        self._half = half
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._path = ""
        self._module = ""
        self._doc = ""
        self._names: set[str] = set()

    @contextmanager
    def at(self, path: str, node: Node | None = None) -> Iterator[None]:
        """Context in which nodes are named after `path` and documented with the line of `node`.

        Args:
            path: of the nodes' names.
            node: of the graph; None: no line.
        """
        self._path, self._doc = path, "" if node is None else where(node)
        yield

    @contextmanager
    def weights_of(self, path: str) -> Iterator[None]:
        """Context in which `own_weight` names parameters below `path` in the state dict.

        Args:
            path: of a module in the state dict.
        """
        before, self._module = self._module, path
        yield
        self._module = before

    def own_weight(self, name: str, value: Tensor, shape: tuple[int, ...] | None = None) -> str:
        """Add a parameter or buffer of the custom layer that is being written; `name` is that in its module.

        Args:
            name: in the layer's module, such as ``weight``.
            value: the parameter or buffer.
            shape: to write it in; None: its own.
        """
        return self.weight(f"{self._module}.{name}", value, shape)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the name of its tensor. An input ``""`` is an omitted optional input.

        Args:
            kind: of the node: an operator of ONNX, opset 20.
            inputs: names of tensors.
            attributes: of the node.
        """
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns the names of their tensors.

        Args:
            kind: of the node: an operator of ONNX, opset 20.
            inputs: names of tensors.
            outputs: how many it has.
            attributes: of the node.
        """
        name = self._unique(f"{self._path}/{kind}")
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        doc = {"doc_string": self._doc} if self._doc else {}
        self.nodes.append(onnx.helper.make_node(kind, inputs, names, name=name, **doc, **attributes))
        return names

    def result(self, tensor: str) -> str:
        """Rename `tensor`, the output of the last node, to the current path; returns the path.

        If it is not the output of a node of this path (a custom layer may return its input), an Identity node is added.

        Args:
            tensor: its name.
        """
        last = self.nodes[-1] if self.nodes else None
        if last is None or list(last.output) != [tensor] or not tensor.startswith(f"{self._path}/"):
            self.op("Identity", tensor)
            last = self.nodes[-1]
        last.name = last.output[0] = self._unique(self._path)
        return last.name

    def weight(self, name: str, value: Tensor, shape: tuple[int, ...] | None = None, *, exact: bool = False) -> str:
        """Add a parameter or buffer under its name in the state dict, once however often it is used; returns the name.

        Args:
            name: below `owner`.
            value: the parameter or buffer.
            shape: to write it in.
            exact: float32 also where `half`.
        """
        name = self.owner + name
        if name not in self._arrays:
            array = value.detach().cpu().float().numpy()
            if self._half and not exact:
                array = np.clip(array, *_HALF_RANGE).astype(np.float16)
            self._arrays[name] = array if shape is None else array.reshape(shape)
        return name

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        """Add a constant, once however often it is used; returns its name.

        Args:
            value: of any type and shape.
        """
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant.{len(self._constants)}"
            self._arrays[self._constants[key]] = value
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """Add an int64 constant [len(values)]: a shape, axes, counts.

        Args:
            values: in order.
        """
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, *, exact: bool = False) -> str:
        """Add a scalar of the type of the maps; with `exact`, a float32.

        Args:
            value: of the scalar.
            exact: float32 also where `half`.
        """
        return self.constant(np.array(value, np.float16 if self._half and not exact else np.float32))

    def exact(self, tensor: str) -> str:
        """A map as float32.

        Args:
            tensor: name of a map.
        """
        return self.op("Cast", tensor, to=onnx.TensorProto.FLOAT) if self._half else tensor

    def rounded(self, tensor: str) -> str:
        """A float32 tensor in the type of the maps.

        Args:
            tensor: name of a float32 tensor.
        """
        return self.op("Cast", tensor, to=onnx.TensorProto.FLOAT16) if self._half else tensor

    def add(self, nodes: Iterable[onnx.NodeProto], weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Add nodes and weights of another model, whose names are not used here.

        Args:
            nodes: in order.
            weights: by name.
        """
        for node in nodes:
            self._names.add(node.name)
            self.nodes.append(node)
        self._arrays.update(weights)

    def weights(self) -> list[onnx.TensorProto]:
        """All weights and constants, the initializers of the graph."""
        return [onnx.numpy_helper.from_array(array, name) for name, array in self._arrays.items()]

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name
