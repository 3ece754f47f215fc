"""Export a module as an ONNX file. Names follow the text, every node names its line, and sizes are dynamic.

It is written node by node with the package ``onnx``, not with torch's exporter: so the file does not depend on the version of
torch, equal weights give equal bytes, and no example size is built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nasdsl.backends.export import MissingExtra, input_nodes, metadata
from nasdsl.backends.module import DecoderModule
from nasdsl.files import write_bytes

try:
    import onnx

    from nasdsl.backends.onnx.decoder import write_decoder
    from nasdsl.backends.onnx.layers import OPSET
    from nasdsl.backends.onnx.writer import Writer
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "onnx":
        raise
    raise MissingExtra("writing ONNX needs the package onnx: pip install 'nasdsl[onnx]'") from None


def export_onnx(module: DecoderModule, path: str | Path) -> None:
    """Export a decoder in eval mode and write it as an ONNX file (opset 20, float32).

    Inputs are ``c3`` [batch, channels, height_8, width_8] and so on, outputs ``p3.cls_logits`` [batch, classes, height_8,
    width_8] and so on, as in `nasdsl.backends.module.Prediction`. Weights have the names of the module's ``state_dict()``;
    those of half or double precision become float32. `module` is not changed.

    Args:
        module: a decoder with its weights.
        path: file to write, in an existing folder.

    Raises:
        ExportError: a `CustomLayer` defines no ``onnx`` method. (A missing package ``onnx`` raises `MissingExtra` when
            this module is imported.)
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    save_model(onnx_model(module), path)


def onnx_model(module: DecoderModule) -> onnx.ModelProto:
    """Export a decoder in eval mode as an ONNX model in memory.

    Raises:
        ExportError: see `export_onnx`.
    """
    graph = module.graph
    writer = Writer()
    inputs = input_nodes(graph)
    written = write_decoder(writer, module, {name: name for name in inputs})
    outputs = [
        _value(written[level][prediction.name], prediction.channels(module.classes), graph.levels[level])
        for level in written
        for prediction in graph.head.predictions
    ]
    return make_model(
        writer,
        graph.name,
        [_value(name, node.out.width, node.out.level) for name, node in inputs.items()],
        outputs,
        metadata(graph, module.classes),
    )


_IR_VERSION = 9
"""The oldest IR version that has opset 20: a newer one would needlessly exclude runtimes."""


def make_model(
    writer: Writer,
    name: str,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    properties: Mapping[str, str],
) -> onnx.ModelProto:
    """The model of the nodes and weights of a writer, checked.

    Args:
        properties: the model's ``metadata_props``.
    """
    graph = onnx.helper.make_graph(writer.nodes, name, inputs, outputs, writer.weights())
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="nasdsl"
    )
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    return model


def save_model(model: onnx.ModelProto, path: str | Path) -> None:
    """Write a model to a file, whole or not at all; equal models give equal bytes.

    Raises:
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    content = model.SerializeToString(deterministic=True)
    write_bytes(Path(path), content)


def _value(name: str, channels: int, level: int | None) -> onnx.ValueInfoProto:
    """Input or output of the model. Maps of one level have the same names for height and width, so runtimes know they are
    equal."""
    assert level is not None, f"{name} is no map"
    shape: list[str | int | None] = ["batch", channels, f"height_{2**level}", f"width_{2**level}"]
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


__all__ = ["OPSET", "Writer", "export_onnx", "make_model", "onnx_model", "save_model"]
