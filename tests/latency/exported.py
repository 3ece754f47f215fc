"""Small exported detectors, in the form of `nasdsl export`, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

FOUND = 4
"""Scores above 0 of each image, of `ROWS`."""
ROWS = 6


def onnx_detector(path: Path, *, size: tuple[int, int] | None = None, dtype: int = TensorProto.FLOAT) -> Path:
    """A file with one convolution for each of two sections and constant scores.

    Args:
        size: height and width that it takes; None takes any.
    """
    rng = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {"w1": rng.normal(size=(8, 3, 3, 3)), "w2": rng.normal(size=(4, 8, 1, 1))}
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0, 0]], dtype=kind)
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["features"], name="backbone.conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["features", "w2"], ["predictions"], name="head.p3.conv"),
        helper.make_node("GlobalAveragePool", ["predictions"], ["pooled"], name="postprocess.pool"),
        helper.make_node("Squeeze", ["pooled", "axes"], ["flat"], name="postprocess.squeeze"),
        helper.make_node("Gather", ["flat", "zero"], ["first"], name="postprocess.first", axis=1),
        helper.make_node("Mul", ["first", "nothing"], ["nought"], name="postprocess.nothing"),
        helper.make_node("Add", ["nought", "constant"], ["scores"], name="postprocess.scores"),
    ]
    constants = {
        **{name: value.astype(kind) for name, value in weights.items()},
        "axes": np.array([2, 3]), "zero": np.array([0]), "nothing": np.zeros(1, kind), "constant": scores,
    }  # fmt: skip
    shape = ["N", 3, *(size or ("H", "W"))]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("scores", dtype, ["N", ROWS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    helper.set_model_props(model, {"digest": "0123456789abcdef", "decoder": "small", "size": "[48, 64]"})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def onnx_pixels(path: Path, dtype: int = TensorProto.FLOAT) -> Path:
    """A file without metadata that takes any size, and computes for the size 48x64 alone: its scores are the pixels."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["scores"], name="reshape")],
        "pixels",
        [helper.make_tensor_value_info("images", dtype, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("scores", dtype, None)],
        [numpy_helper.from_array(np.array([1, 3 * 48 * 64]), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), str(path))
    return path


class SmallDetector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pooled = self.backbone(images).mean((2, 3))
        scores = pooled.new_tensor([0.9, 0.8, 0.7, 0.6, 0, 0]) + 0 * pooled[:, :1]
        return {"boxes": scores[..., None].repeat(1, 1, 4), "scores": scores, "labels": scores.long()}


def program(path: Path) -> Path:
    """A program of ``torch.export`` for any batch and size."""
    dynamic = {"images": {0: torch.export.Dim("N", min=1, max=64), 2: torch.export.Dim("H", min=8, max=4096)}}
    dynamic["images"][3] = torch.export.Dim("W", min=8, max=4096)
    traced = torch.export.export(SmallDetector().eval(), (torch.zeros(2, 3, 48, 64),), dynamic_shapes=dynamic)
    extra = {"nasdsl.json": json.dumps({"digest": "0123456789abcdef", "size": "[48, 64]"})}
    torch.export.save(traced, path, extra_files=extra)
    return path


class SmallDecoder(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"p3.cls_logits": features["c3"] + 1, "p4.cls_logits": features["c4"] + 1}


def decoder_program(path: Path) -> Path:
    """A program of a decoder alone, as `nasdsl compile` writes it."""
    features = {"c3": torch.zeros(1, 4, 8, 8), "c4": torch.zeros(1, 4, 4, 4)}
    torch.export.save(torch.export.export(SmallDecoder().eval(), (features,)), path)
    return path
