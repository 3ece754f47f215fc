"""Detectors made: from a decoder, from a saved configuration, from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from nasdsl.decoder import Decoder, loads
from nasdsl.detection.backbones import FeatureExtractor, make_backbone
from nasdsl.detection.detector import Detector, DetectorError, Method, Size
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.retinanet import Retinanet
from nasdsl.detection.weights import read_weights
from nasdsl.diagnostics import DiagnosticError
from nasdsl.semantics.architecture import Fcos as FcosPrediction


def detector(
    decoder: Decoder,
    backbone: str | FeatureExtractor = "resnet50",
    weights: str | Path | None = None,
    classes: int | Sequence[str] = 80,
    *,
    backbone_weights: str | Path | None = None,
    freeze_at: int | None = None,
    norm: str | None = None,
    category_ids: Sequence[int] | None = None,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    fixed_size: Size | None = None,
    size_divisible: int = 1,
    seed: int | None = None,
    **method: Any,
) -> Detector:
    """A detector of a decoder, in torchvision's detection convention; see `Detector`.

    Args:
        decoder: from `nasdsl.load` or `nasdsl.loads`.
        backbone: a name of `nasdsl.backbones.BACKBONES`, or a `FeatureExtractor` around any module.
        weights: a trained detector's weights: a run's folder, its ``model.pt``, or a file with a state dict. Where the
            classes differ in number, all but their prediction is taken.
        classes: number of classes, or their names.
        backbone_weights: ``"imagenet"``, a file in torchvision's or MSRA's layout, or None for random ones.
        freeze_at, norm: what of the backbone stays fixed; see `make_backbone`. With the `weights` of a detector that has
            the same backbone, and without `backbone_weights`, by default as there.
        category_ids: what the data set calls the classes; 1, 2, … by default.
        min_size, max_size: of the shorter and the longer side of pictures in lists, in pixels.
        fixed_size: height and width instead of these.
        size_divisible: pictures in lists are padded to multiples of this; 1 pads no more than batching needs.
        seed: decides the random weights, and leaves torch's random state alone; None: that state decides.
        method: options of `nasdsl.detection.fcos.Fcos` or `nasdsl.detection.retinanet.Retinanet`.

    Raises:
        DetectorError, DetectionError, BackboneError, DiagnosticError, MissingFeature: what does not fit, by name.
    """
    names = [f"class {n}" for n in range(classes)] if isinstance(classes, int) else list(classes)
    if not names:
        raise DetectorError("a detector needs at least one class")
    given = {"backbone_weights": backbone_weights, "freeze_at": freeze_at, "norm": norm}
    ignored = [name for name, value in given.items() if value is not None]
    if ignored and not isinstance(backbone, str):
        raise DetectorError(
            f"{', '.join(ignored)} cannot be given with a backbone of your own: load its weights, and call its `freeze`, before"
        )
    options = _method(decoder, method)
    decoder = self_contained(decoder)
    saved = None
    if weights is not None:
        saved = read_weights(weights)
        if saved.backbone.get("name") == backbone and backbone_weights is None:
            freeze_at = saved.backbone.get("freeze_at") if freeze_at is None else freeze_at
            norm = saved.backbone.get("norm") if norm is None else norm
    described = None
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(backbone, str):
            extractor = make_backbone(backbone, backbone_weights, freeze_at=freeze_at, norm=norm)  # type: ignore[arg-type]
            described = {"name": backbone, "freeze_at": extractor.freeze_at, "norm": extractor.norm}
        else:
            extractor = backbone
        module = decoder.build(extractor.out_channels, len(names))
    made = Detector(
        extractor,
        module,
        options,
        classes=names,
        category_ids=category_ids,
        min_size=min_size,
        max_size=max_size,
        fixed_size=fixed_size,
        size_divisible=size_divisible,
        config={"decoder": decoder.source.text, "backbone": described},
    )
    if saved is not None:
        saved.give_to(made)
    return made


def from_config(config: Mapping[str, Any], backbone: FeatureExtractor | None = None) -> Detector:
    """The detector that has this `Detector.config`, with random weights.

    Raises:
        DetectorError: it was made with a backbone of your own, and `backbone` is not given.
    """
    rest = {k: v for k, v in config.items() if k not in ("decoder", "backbone", "method")}
    rest["fixed_size"] = tuple(rest["fixed_size"]) if rest.get("fixed_size") else None
    named = config["backbone"]
    if backbone is None and named is None:
        raise DetectorError("this detector was made with a backbone of your own; give the same one as backbone=")
    if backbone is None:
        rest |= {"backbone": named["name"], "freeze_at": named["freeze_at"], "norm": named["norm"]}
    else:
        rest["backbone"] = backbone
    return detector(loads(config["decoder"], "the saved decoder"), **rest, **config["method"])


def load_detector(path: str | Path, backbone: FeatureExtractor | None = None, device: str | torch.device = "cpu") -> Detector:
    """The detector of a run's folder or of its ``model.pt``, in evaluation mode.

    Args:
        backbone: for a detector that was made with a backbone of your own, the same one.
        device: where it shall be; ``"auto"`` is a GPU where there is one.

    Raises:
        DetectorError: no such file, a broken one, one of another kind, or no such device.
    """
    saved = read_weights(path)
    if saved.config is None:
        raise DetectorError(f"{saved.file} has weights alone; make the detector by nasdsl.detector(…, weights=…)")
    if backbone is None and "backbone" in saved.config and saved.config["backbone"] is None:
        raise DetectorError(f"{saved.file} was made with a backbone of your own; give the same one as backbone=")
    try:
        detector = from_config(saved.config, backbone)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise DetectorError(f"{saved.file} has a config of which no detector can be made: {reason}") from None
    saved.fill(detector)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return detector.eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise DetectorError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def self_contained(decoder: Decoder) -> Decoder:
    """The decoder from one text, which can be kept with its weights: names of parameters follow the text.

    That is its own text, or the canonical one where this takes parts from other files.
    """
    try:
        same = loads(decoder.source.text, decoder.source.name)
        if same.digest == decoder.digest:
            return same
    except DiagnosticError:
        pass
    return loads(decoder.canonical, f"{decoder.source.name} (canonical text)")


def _method(decoder: Decoder, options: Mapping[str, Any]) -> Method:
    """FCOS or RetinaNet, as the text's `predict` says."""
    predict = decoder.architecture.predict
    kind = Fcos if isinstance(predict, FcosPrediction) else Retinanet
    hints = get_type_hints(kind)
    unknown = sorted(set(options) - set(hints))
    if unknown:
        raise DetectorError(f"unknown option {', '.join(unknown)}; {kind.__name__} has {', '.join(hints)}")
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for name, value in made.items():
        if not _is_a(value, hints[name]):
            expected = str(hints[name]) if get_args(hints[name]) else hints[name].__name__
            raise DetectorError(f"{name} is {value!r}; expected {expected.replace('typing.', '')}, not negative")
    if isinstance(predict, FcosPrediction):
        return Fcos(**made)
    if made.setdefault("anchors", predict.anchors) != predict.anchors:
        raise DetectorError(f"anchors is {made['anchors']}; the decoder's text says {predict.anchors}, change it there")
    return Retinanet(**made)


def _is_a(value: Any, kind: Any) -> bool:
    """Whether an option has its type; a whole number is a float as well, and no number is below 0 or infinite."""
    if get_origin(kind) is UnionType:
        return any(_is_a(value, member) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(member, get_args(kind)[0]) for member in value)
    if kind in (int, float):
        types = (int, float) if kind is float else int
        return isinstance(value, types) and not isinstance(value, bool) and 0 <= value < float("inf")
    return isinstance(value, kind)
