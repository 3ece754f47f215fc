"""Export a module with ``torch.export``: a .pt2 file that torch loads without nasdsl."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nasdsl.backends.export import ExportError, input_nodes, metadata, where
from nasdsl.backends.layer_errors import first_line, layer_of
from nasdsl.backends.module import DecoderModule
from nasdsl.files import write_bytes
from nasdsl.layers import CustomLayer
from nasdsl.layers.custom import describe

OLDEST_TORCH = (2, 9)
"""The first version whose ``torch.export`` leaves checks of sizes to run time, so that a program takes any size."""


def require_torch(what: str, instead: str) -> None:
    """Check that torch is new enough to trace modules for any image size.

    Args:
        what: what it is needed for, in the plural.
        instead: a sentence about what needs no newer one.

    Raises:
        ExportError: it is older than `OLDEST_TORCH`.
    """
    found = tuple(int(part) for part in str(torch.__version__).split(".")[:2])
    if found < OLDEST_TORCH:
        needed = ".".join(map(str, OLDEST_TORCH))
        raise ExportError(f"{what} need torch {needed} or newer; this is torch {torch.__version__}. {instead}")


def export_program(module: DecoderModule, path: str | Path) -> None:
    """Export a decoder in eval mode with ``torch.export`` and write it to a file.

    ``torch.export.load(path).module()`` takes a dict ``{"c3": [N, C, H/8, W/8], …}`` and returns a dict
    ``{"p3.cls_logits": …, "p3.bbox_reg": …, "p3.centerness": …, …}``, for any batch and image size. Weights keep their
    device, precision and names. `module` is not changed. The file has `nasdsl.backends.export.metadata` as the extra file
    ``nasdsl.json``.

    Args:
        module: a decoder with its weights.
        path: file to write, in an existing folder.

    Raises:
        ExportError: torch cannot trace a layer; the message names the line, and the primitive if it is a custom one. Or
            torch is older than `OLDEST_TORCH`.
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    program = trace(module)
    save_program(program, path, metadata(module.graph, module.classes))


def save_program(program: torch.export.ExportedProgram, path: str | Path, properties: Mapping[str, str]) -> None:
    """Write a program to a file, whole or not at all.

    Args:
        properties: the content of its extra file ``nasdsl.json``.

    Raises:
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    content = io.BytesIO()  # written to a full disk, torch.export.save raises an error that does not tell so
    torch.export.save(program, content, extra_files={"nasdsl.json": json.dumps(properties)})
    write_bytes(Path(path), content.getbuffer())


def trace(module: DecoderModule) -> torch.export.ExportedProgram:
    """Export a decoder in eval mode as a program in memory.

    Raises:
        ExportError: see `export_program`.
    """
    require_torch("torch.export programs (.pt2)", ".onnx and .py files need no newer one")
    coarsest = max(n.out.level for n in module.graph.nodes if n.out.level is not None)
    features = _example(module, *uneven_size(2**coarsest))
    dynamic = {"features": {name: dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC) for name in features}}
    training = [part for part in module.modules() if part.training]
    try:
        module.eval()
        with torch.no_grad():
            program = torch.export.export(
                _FlatOutputs(module),
                (features,),
                dynamic_shapes=dynamic,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:
        raise ExportError(_reason(module, error)) from error
    finally:
        for part in training:
            part.training = True
    remove_size_assertions(program)
    program.example_inputs = ((_example(module, 64, 96),), {})  # the ones of the trace are large and would be saved
    return program


class _FlatOutputs(nn.Module):
    """Decoder that returns its predictions in a flat dict: the file must not depend on the class `Prediction`."""

    def __init__(self, decoder: DecoderModule) -> None:
        super().__init__()
        self.fpn = decoder.fpn
        self.head = decoder.head

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        predictions: Mapping[str, tuple[Tensor | None, ...]] = self.head(self.fpn(features))
        return {
            f"{level}.{name}": tensor
            for level, prediction in predictions.items()
            for name, tensor in zip(("cls_logits", "bbox_reg", "centerness"), prediction, strict=True)
            if tensor is not None
        }


def uneven_size(coarsest: int) -> tuple[int, int]:
    """Height and width of an example image for a tracer: its coarsest map is 3 x 4, and no map is exactly twice the next one.

    torch treats a dimension of size 1 as a constant, so no map of the example may have one; and where a map that is cut to the
    size of a level has that size already, it takes both for the same in every image.

    Args:
        coarsest: stride of the coarsest level.
    """
    return 2 * coarsest + 1, 3 * coarsest + 1


def _example(module: DecoderModule, height: int, width: int) -> dict[str, Tensor]:
    like = next(module.parameters())
    features = {}
    for name, node in input_nodes(module.graph).items():
        assert node.out.level is not None
        stride = 2**node.out.level
        features[name] = like.new_zeros(2, node.out.width, -(-height // stride), -(-width // stride))
    return features


def remove_size_assertions(program: torch.export.ExportedProgram) -> None:
    """Remove the size assertions and stack traces that tracing recorded.

    To choose among equivalent strides, tracing checks whether a map is one pixel wide, and asserts the answer that the example
    gave: the program would refuse every image of at most 128 pixels a side. The operators themselves take any size. Stack
    traces would put the paths of this machine into the file.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.graph_module.recompile()
    for symbol, bounds in program.range_constraints.items():
        program.range_constraints[symbol] = type(bounds)(1, bounds.upper)


def _reason(module: DecoderModule, error: Exception) -> str:
    """Why tracing failed, in one line, with the layer that was running."""
    cause, running = first_line(error), layer_of(error)
    if running is None:
        return f"torch.export cannot trace the decoder {module.graph.name}: {cause}"
    layer = running.node.layer
    what = describe(type(layer)) if isinstance(layer, CustomLayer) else f"the layer {layer.kind!r}"
    return f"torch.export cannot trace {what} in {where(running.node)}: {cause}"


__all__ = ["OLDEST_TORCH", "export_program", "remove_size_assertions", "require_torch", "save_program", "trace", "uneven_size"]
