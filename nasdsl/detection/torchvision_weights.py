"""Weights of torchvision's FCOS and RetinaNet detectors with a ResNet and an FPN, as those of detectors of this package.

The decoders are ``zoo:fcos`` with the prediction of its improvements, ``zoo:retinanet`` and ``zoo:retinanet_v2``; the
backbones those with the stride in the 3x3. Three things are computed differently, which the conversion evens out:

- torchvision's FCOS measures boxes from a cell's corner, ours from its center: half a stride is added to the biases of the
  distances to the left and top, and subtracted from the others. A side that is nearer to the center than that is moved to it.
- Of COCO's 91 rows of the classification layer, the background's and those of the ids that no category has are left out.
- The published RetinaNet was trained with an epsilon of 0 in its frozen BatchNorms: theirs is subtracted from the variances.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from nasdsl import resources
from nasdsl.decoder import load
from nasdsl.detection.backbones import IMAGENET_MEAN, IMAGENET_STD
from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION, Fcos
from nasdsl.detection.retinanet import Retinanet

_EPSILON = 1e-5
_LEVELS = ("3", "4", "5")
_FCOS_MARK = "head.regression_head.bbox_ctrness.weight"
_ANCHORS = 9
_DEPTHS = {6: "resnet50_v1.5", 23: "resnet101_v1.5"}
"""Backbones by the number of blocks in ``layer3``."""


def is_torchvision_detector(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of an FCOS or RetinaNet of torchvision that `convert` knows, by their names."""
    names = _plain(weights)
    required = (
        "head.classification_head.cls_logits.weight",
        "head.regression_head.bbox_reg.bias",
        "backbone.fpn.extra_blocks.p6.weight",
        "backbone.fpn.extra_blocks.p7.weight",
    )
    if any(name not in names for name in required) or _backbone(names) is None or len(_laterals(names)) != 3:
        return False
    return len(names["head.regression_head.bbox_reg.bias"]) == 4 * (1 if _FCOS_MARK in names else _ANCHORS)


class Converted(NamedTuple):
    """Weights of a torchvision detector as those of this package.

    Attributes:
        weights: under the names of this package.
        config: `Detector.config` of the detector that they are of.
        holder: options on the command line that make this detector.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]
    holder: str


def convert(weights: Mapping[str, Tensor]) -> Converted:
    """Convert the weights of a torchvision detector.

    Args:
        weights: for which `is_torchvision_detector` is true.
    """
    names = _plain(weights)
    is_fcos = _FCOS_MARK in names
    has_norm = "head.classification_head.conv.0.1.weight" in names
    new = {key: names[key] for key in names if key.startswith("backbone.body.")}
    if not is_fcos and "head.classification_head.conv.2.weight" in names:  # the names of the published file
        new |= {key: value - _EPSILON for key, value in new.items() if key.endswith(".running_var")}
    for name, color in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
        new[f"backbone.{name}"] = torch.tensor(color).view(3, 1, 1)
    for place, level in enumerate(_LEVELS):
        for kind, short in (("inner_blocks", "l"), ("layer_blocks", "p")):
            for tensor in ("weight", "bias"):
                old = f"backbone.fpn.{kind}.{place}"
                key = f"{old}.0.{tensor}" if f"{old}.0.{tensor}" in names else f"{old}.{tensor}"
                new[f"decoder.fpn.{short}{level}.conv.{tensor}"] = names[key]
    for level in ("p6", "p7"):
        for tensor in ("weight", "bias"):
            new[f"decoder.fpn.{level}.conv.{tensor}"] = names[f"backbone.fpn.extra_blocks.{level}.{tensor}"]
    for part, tower in (("classification_head", "cls"), ("regression_head", "box")):
        for key, value in names.items():
            if key.startswith(f"head.{part}.conv."):
                new[f"decoder.head.{tower}.{_layer(key.removeprefix(f'head.{part}.conv.'), is_fcos)}"] = value
    for tensor in ("weight", "bias"):
        new[f"decoder.head.bbox_reg.{tensor}"] = names[f"head.regression_head.bbox_reg.{tensor}"]
        if is_fcos:
            new[f"decoder.head.centerness.{tensor}"] = names[f"head.regression_head.bbox_ctrness.{tensor}"]
    anchors = 1 if is_fcos else _ANCHORS
    if is_fcos:
        bias = new["decoder.head.bbox_reg.bias"]
        new["decoder.head.bbox_reg.bias"] = bias + bias.new_tensor([0.5, 0.5, -0.5, -0.5])
        new |= {f"decoder.head.scale.p{level}": bias.new_ones(()) for level in range(3, 8)}
    count = len(names["head.classification_head.cls_logits.bias"]) // anchors
    classes, category_ids, rows = _classes(count)
    for tensor in ("weight", "bias"):
        value = names[f"head.classification_head.cls_logits.{tensor}"]
        new[f"decoder.head.cls_logits.{tensor}"] = value.view(anchors, count, *value.shape[1:])[:, rows].flatten(0, 1)
    decoder = load(resources.folder("genotypes") / f"{_zoo_name(is_fcos, has_norm)}.nas")
    if is_fcos:
        decoder = decoder.with_prediction(IMPROVED_PREDICTION)
    config = {
        "decoder": decoder.source.text,
        "backbone": {"name": _backbone(names), "freeze_at": 2, "norm": "frozen"},
        "classes": classes,
        "category_ids": category_ids,
        "min_size": [800],
        "max_size": 1333,
        "fixed_size": None,
        "size_divisible": 32,
        "method": asdict(Fcos(reference_size=None, **IMPROVED) if is_fcos else Retinanet(anchors=_ANCHORS)),
    }
    name = f"zoo:{decoder.name}{' --improvements' if is_fcos else ''}"
    return Converted(new, config, f"{name} --backbone {_backbone(names)}")


def _zoo_name(is_fcos: bool, has_norm: bool) -> str:
    if is_fcos:
        return "fcos"
    return "retinanet_v2" if has_norm else "retinanet"


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of a model in DataParallel."""
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _laterals(names: Mapping[str, Tensor]) -> set[str]:
    return {found[1] for key in names if (found := re.match(r"backbone\.fpn\.inner_blocks\.(\d+)\.", key))}


def _backbone(names: Mapping[str, Tensor]) -> str | None:
    """The name of the backbone; None if it is none of ours."""
    blocks = {found[1] for key in names if (found := re.match(r"backbone\.body\.layer3\.(\d+)\.conv3\.", key))}
    return _DEPTHS.get(len(blocks))


def _layer(name: str, is_fcos: bool) -> str:
    """Name of a tensor of a tower, such as ``0.conv.weight``.

    Layers are numbered through in FCOS (convolution, norm, ReLU) and old RetinaNets (convolution, ReLU); in later ones a
    layer is a convolution (0) and its norm (1).
    """
    *places, tensor = name.split(".")
    if len(places) == 2:
        return f"{places[0]}.{('conv', 'norm')[int(places[1])]}.{tensor}"
    layer, inside = divmod(int(places[0]), 3 if is_fcos else 2)
    return f"{layer}.{('conv', 'norm')[inside]}.{tensor}"


def _classes(count: int) -> tuple[list[str], list[int], list[int]]:
    """Names, category ids and rows of the classes of a classification layer with so many rows for each anchor.

    91 rows are COCO's, in the order of its category ids. Of others the names are not known; what torchvision's users call
    the background is not left out, because some have none.
    """
    coco: list[str] = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if count != len(coco):
        rows = list(range(count))
        return [f"class {row}" for row in rows], rows, rows
    rows = [row for row, name in enumerate(coco) if name not in ("__background__", "N/A")]
    return [coco[row] for row in rows], rows, rows
