"""Collects ONNX nodes and weights, and names them after the place in the text that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from nasdsl.backends.export import where
from nasdsl.ir.graph import Node


class Writer:
    """The nodes of an ONNX graph under construction.

    Inside ``with writer.at("fpn.x1.x.conv", node)`` each `op` is called ``fpn.x1.x.conv/Mul``, and `result` gives the last
    one the name ``fpn.x1.x.conv`` itself.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._path = ""
        self._doc = ""
        self._names: set[str] = set()

    @contextmanager
    def at(self, path: str, node: Node | None = None) -> Iterator[None]:
        """What is written inside belongs to `path`, and to the line of the node."""
        self._path, self._doc = path, "" if node is None else where(node)
        yield

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Write a node with one output; returns the name of that tensor. An input ``""`` is one left out."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Write a node with several outputs; returns the names of those tensors."""
        name = self._free(f"{self._path}/{kind}")
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        doc = {"doc_string": self._doc} if self._doc else {}
        self.nodes.append(onnx.helper.make_node(kind, inputs, names, name=name, **doc, **attributes))
        return names

    def result(self, tensor: str) -> str:
        """Give the tensor that the last node has written the name of the path.

        A layer that ends in none of its own nodes (``custom`` ones may) gets an Identity, so that the name exists.
        """
        last = self.nodes[-1] if self.nodes else None
        if last is None or list(last.output) != [tensor] or not tensor.startswith(f"{self._path}/"):
            self.op("Identity", tensor)
            last = self.nodes[-1]
        last.name = last.output[0] = self._free(self._path)
        return self._path

    def weight(self, name: str, value: Tensor, shape: tuple[int, ...] | None = None) -> str:
        """A parameter or buffer under its name in the state dict, written once however often it is used."""
        if name not in self._arrays:
            array = value.detach().cpu().float().numpy()
            self._arrays[name] = array if shape is None else array.reshape(shape)
        return name

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        """A constant, written once however often it is used."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant.{len(self._constants)}"
            self._arrays[self._constants[key]] = value
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """A constant [len(values)] of int64: shapes, axes, counts."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant scalar of float32."""
        return self.constant(np.array(value, np.float32))

    def weights(self) -> list[onnx.TensorProto]:
        return [onnx.numpy_helper.from_array(array, name) for name, array in self._arrays.items()]

    def _free(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name
