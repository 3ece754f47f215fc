"""Building detectors: from a decoder, from a saved config, from a file."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from nasdsl.decoder import REFERENCE_BACKBONE, Decoder, loads
from nasdsl.detection.atss import Atss
from nasdsl.detection.backbones import FeatureExtractor, make_backbone
from nasdsl.detection.detector import Detector, DetectorError, Size
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.gfl import Gfl
from nasdsl.detection.inheritance import is_same_network
from nasdsl.detection.method import FIELDS, Method
from nasdsl.detection.retinanet import Retinanet
from nasdsl.detection.tal import Tal
from nasdsl.detection.weights import SavedWeights, read_weights
from nasdsl.diagnostics import DiagnosticError
from nasdsl.machine import device_problem
from nasdsl.predictions import PredictionKind, describe_kind


def detector(
    decoder: Decoder,
    backbone: str | FeatureExtractor | None = None,
    weights: str | Path | SavedWeights | None = None,
    classes: int | Sequence[str] = 80,
    *,
    backbone_weights: str | Path | None = None,
    freeze_at: int | None = None,
    norm: str | None = None,
    category_ids: Sequence[int] | None = None,
    min_size: int | Sequence[int] | None = None,
    max_size: int | None = None,
    fixed_size: Size | None = None,
    size_divisible: int = 1,
    seed: int | None = None,
    **method: Any,
) -> Detector:
    """Build a detector from a decoder; see `Detector` for how to call it.

    Args:
        decoder: from `nasdsl.load` or `nasdsl.loads`.
        backbone: a name of `nasdsl.backbones.BACKBONES`, ``timm:NAME``, or a `FeatureExtractor` around any module. None: that
            of ``detector(backbone=…)`` in the decoder's text, or resnet50.
        weights: to start from: the folder of a run, its ``model.pt``, a file with a state dict, or one of torchvision's FCOS
            or RetinaNet; or the content of one. What its detector and this one have in common is inherited (see
            `nasdsl.detection.inheritance`); `Detector.inherited` says what, and a warning if it is not everything.
        classes: number of classes, or their names.
        backbone_weights: ``"imagenet"``, a file in torchvision's, MSRA's or timm's layout, or None for random weights.
        freeze_at: how many stages of the backbone are not trained, counting the stem; see `make_backbone`. With the `weights`
            of a detector that has this backbone, and without `backbone_weights`, the default is that detector's setting.
        norm: ``"frozen"`` or ``"train"``, for the backbone's BatchNorms; with the same default.
        category_ids: the data set's ids of the classes; by default 1, 2, ….
        min_size: of the shorter side of images in lists, in pixels; of several, a training draws one for each image, and
            evaluation takes the last. By default 800.
        max_size: of the longer side, in pixels; by default 1333.
        fixed_size: (height, width) of images in lists, instead of these. None, without `min_size` and `max_size`: that of
            ``detector(size=…)`` in the decoder's text.
        size_divisible: images in lists are padded to multiples of this; with 1, only to the largest image of the batch.
        seed: of the random weights; torch's random state is not changed. None: that state is used.
        method: options of what the decoder predicts, such as those of `nasdsl.detection.fcos.Fcos`.

    Raises:
        DetectorError, DetectionError, BackboneError, DiagnosticError, MissingFeature: the message names what does not fit.

    Warns:
        UserWarning: not all parameters are inherited from `weights`.
    """
    names = [f"class {n}" for n in range(classes)] if isinstance(classes, int) else list(classes)
    if not names:
        raise DetectorError("a detector needs at least one class")
    if backbone is None:
        backbone = decoder.backbone or REFERENCE_BACKBONE
    if fixed_size is None and min_size is None and max_size is None:
        fixed_size = decoder.size
    given = {"backbone_weights": backbone_weights, "freeze_at": freeze_at, "norm": norm}
    ignored = [name for name, value in given.items() if value is not None]
    if ignored and not isinstance(backbone, str):
        raise DetectorError(
            f"{', '.join(ignored)} cannot be given with a custom backbone: load its weights, and call its `freeze`, before"
        )
    options = make_method(decoder, method)
    decoder = make_self_contained(decoder)
    saved = None
    if weights is not None:
        saved = weights if isinstance(weights, SavedWeights) else read_weights(weights)
        name = saved.backbone.get("name")
        if name and isinstance(backbone, str) and is_same_network(name, backbone) and backbone_weights is None:
            freeze_at = saved.backbone.get("freeze_at") if freeze_at is None else freeze_at
            norm = saved.backbone.get("norm") if norm is None else norm
    backbone_config = None
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(backbone, str):
            extractor = make_backbone(backbone, backbone_weights, freeze_at=freeze_at, norm=norm)  # type: ignore[arg-type]  # `make_backbone` checks it
            backbone_config = {"name": backbone, "freeze_at": extractor.freeze_at, "norm": extractor.norm}
        else:
            extractor = backbone
        module = decoder.build(extractor.out_channels, len(names))
    result = Detector(
        extractor,
        module,
        options,
        classes=names,
        category_ids=category_ids,
        min_size=800 if min_size is None else min_size,
        max_size=1333 if max_size is None else max_size,
        fixed_size=fixed_size,
        size_divisible=size_divisible,
        config={"decoder": decoder.source.text, "backbone": backbone_config},
    )
    if saved is not None:
        result.inherited = saved.inherit(result)
        if not result.inherited.is_complete:
            warnings.warn(str(result.inherited), UserWarning, stacklevel=2)
    return result


def from_config(config: Mapping[str, Any], backbone: FeatureExtractor | None = None) -> Detector:
    """Build the detector with this `Detector.config`, with random weights.

    Raises:
        DetectorError: the detector has a custom backbone, and `backbone` is not given.
    """
    options = {k: v for k, v in config.items() if k not in ("decoder", "backbone", "method")}
    options["fixed_size"] = tuple(options["fixed_size"]) if options.get("fixed_size") else None
    named = config["backbone"]
    if backbone is None and named is None:
        raise DetectorError("this detector was built with a custom backbone; give the same one as backbone=")
    if backbone is None:
        options |= {"backbone": named["name"], "freeze_at": named["freeze_at"], "norm": named["norm"]}
    else:
        options["backbone"] = backbone
    return detector(loads(config["decoder"], "the saved decoder"), **options, **config["method"])


def load_detector(path: str | Path, backbone: FeatureExtractor | None = None, device: str | torch.device = "cpu") -> Detector:
    """Load the detector of a run's folder or of its ``model.pt``, in evaluation mode.

    Args:
        path: of the run's folder, of its ``model.pt`` or ``best.pt``.
        backbone: for a detector with a custom backbone, the same one.
        device: of the detector; ``"auto"`` is a GPU where there is one.

    Raises:
        DetectorError: the file is missing or broken, holds something else, or there is no such device.
    """
    saved = read_weights(path)
    if saved.config is None:
        raise DetectorError(f"{saved.file} has only weights; build the detector with nasdsl.detector(…, weights=…)")
    if backbone is None and "backbone" in saved.config and saved.config["backbone"] is None:
        raise DetectorError(f"{saved.file} was built with a custom backbone; give the same one as backbone=")
    try:
        detector = from_config(saved.config, backbone)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise DetectorError(f"{saved.file} has a config from which no detector can be built: {reason}") from None
    saved.load_into(detector)
    return to_device(detector, device)


def to_device(detector: Detector, device: str | torch.device) -> Detector:
    """Move a detector to a device, and put it into evaluation mode.

    Args:
        device: ``"auto"`` is a GPU where there is one.

    Raises:
        DetectorError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    problem = device_problem(str(device))
    if problem is not None:
        raise DetectorError(problem)
    return detector.eval().to(device)


def make_self_contained(decoder: Decoder) -> Decoder:
    """The decoder from a single text that can be saved with its weights: parameter names depend on the text.

    That is its own text, or the canonical text if its own one imports from other files.
    """
    try:
        same = loads(decoder.source.text, decoder.source.name)
        if same.digest == decoder.digest:
            return same
    except DiagnosticError:
        pass
    return loads(decoder.canonical, f"{decoder.source.name} (canonical text)")


def make_method(decoder: Decoder, options: Mapping[str, Any]) -> Method:
    """The method of what the text's `predict` names, with these options.

    Raises:
        DetectorError: an option is not known, has a wrong type, or contradicts the text; a package's class fails.
        DetectionError: an option has an invalid value.
    """
    predict = decoder.architecture.predict
    cls = _method_class(predict)
    hints = get_type_hints(cls)
    fixed = predict.method_options()
    own = [field.name for field in fields(cls)]
    unknown = sorted(set(options) - set(own))
    for name in unknown:
        other = next((known for known in _BUILT_IN if name in get_type_hints(known)), None)
        if other is not None:
            raise DetectorError(
                f"{name} is an option of {other.__name__}, and the decoder's text says `predict {predict.kind}`: leave it out; "
                f"{cls.__name__} has {', '.join(own)}"
            )
    if unknown:
        raise DetectorError(f"unknown option {', '.join(unknown)}; {cls.__name__} has {', '.join(own)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    for name, value in values.items():
        if not _has_type(value, hints[name]):
            expected = str(hints[name]) if get_args(hints[name]) else hints[name].__name__
            raise DetectorError(f"{name} is {value!r}; expected {expected.replace('typing.', '')}, not negative")
        if name in fixed and value != fixed[name]:
            raise DetectorError(f"{name} is {value!r}; the decoder's text says {fixed[name]!r}, change it there")
    return cls(**{**values, **fixed})


_BUILT_IN: tuple[type[Method], ...] = (Fcos, Retinanet, Atss, Gfl, Tal)


def _method_class(kind: PredictionKind) -> type[Method]:
    """The class of a kind's method.

    Raises:
        DetectorError: a package's kind has none, or one that is not complete; the message names it.
    """
    module, _, name = kind.method.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise DetectorError(f"{describe_kind(type(kind))}: its method {kind.method} cannot be imported: {message}") from error
    if not (isinstance(found, type) and issubclass(found, Method) and hasattr(found, "__dataclass_fields__")):
        raise DetectorError(f"{describe_kind(type(kind))}: its method {kind.method} is no dataclass derived from Method")
    missing = [*sorted(found.__abstractmethods__), *(name for name in FIELDS if name not in found.__dataclass_fields__)]
    if missing:
        raise DetectorError(f"{describe_kind(type(kind))}: its method {kind.method} does not define {', '.join(missing)}")
    return found


def _has_type(value: Any, kind: Any) -> bool:
    """Whether an option has its type; an int is also a float, and numbers must be finite and not negative."""
    if get_origin(kind) is UnionType:
        return any(_has_type(value, member) for member in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_has_type(member, get_args(kind)[0]) for member in value)
    if kind in (int, float):
        types = (int, float) if kind is float else int
        return isinstance(value, types) and not isinstance(value, bool) and 0 <= value < float("inf")
    return isinstance(value, kind)
