"""Models of timm as backbones, with their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from nasdsl.backbones import TIMM, UnknownBackbone
from nasdsl.detection.backbones.extractor import BackboneError, FeatureExtractor
from nasdsl.detection.backbones.weights import Checkpoint, check_fit, first_line, read_file, saved_normalization
from nasdsl.timm_models import TimmBody, TimmModel, TimmModelError, describe, freezable

Norms = Literal["frozen", "train"]

_OWN_PREFIX = "backbone.body.network."
"""Prefix of the weights in the files of this package's detectors."""


def make_timm_backbone(
    name: str, weights: str | Path | None = None, *, freeze_at: int | None = None, norm: Norms | None = None
) -> FeatureExtractor:
    """Build a backbone from a model of timm that has ``features_only=True``.

    Images are normalised as its ``pretrained_cfg`` says, or as by the detector whose file has the weights. Its features are
    c2 … c5, as far as it has maps with a stride of 4, 8, 16 and 32. Where it rounds sizes down or refuses sizes that are not
    multiples of its strides, images are padded and maps are cropped.

    Args:
        name: ``timm:NAME``.
        weights: None (random), ``"imagenet"`` (timm's, which timm downloads), or the path of a file with the weights of the
            whole model or of this backbone in timm's layout (``.pth``, ``.safetensors``), or of a detector of this package.
        freeze_at: the part that is not trained. 0: none; 1: all that the map of stride 2 is computed from; 2 to 5: the same
            for c2 to c5. Only for models that compute one map from the other. Default: 2 with weights, 0 without.
        norm: ``"frozen"``: BatchNorms are constants; ``"train"``: those outside the frozen part are trained (the default).

    Raises:
        UnknownBackbone: timm is not installed, has no such model, or the model cannot be a backbone.
        BackboneError: an argument is out of range or does not fit the model, or the weights cannot be downloaded, read or
            loaded.
    """
    if norm not in (None, "frozen", "train"):
        raise BackboneError(f"norm is {norm!r}, expected 'frozen' or 'train'")
    try:
        model = describe(name.removeprefix(TIMM))
        frozen = _frozen(name, freezable(model.name), weights is not None, freeze_at)
        body = _download(name, model) if weights == "imagenet" else model.build()
    except TimmModelError as error:
        raise UnknownBackbone(str(error)) from None
    mean, std = model.mean, model.std
    if weights is not None and weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.exists():
            raise BackboneError(f"no weights {str(weights)!r}: there is no such file; 'imagenet' is timm's weights for {name}")
        checkpoint = read_file(path)
        load(body, model, checkpoint, name)
        mean, std = saved_normalization(checkpoint.tensors) or (mean, std)
    if norm == "frozen":
        if not any(isinstance(part, nn.BatchNorm2d) for part in body.modules()):
            raise BackboneError(
                f"norm is 'frozen', and {name} has no BatchNorms; expected 'train' (its norms have no statistics)"
            )
        from timm.layers import freeze_batch_norm_2d

        body.network = freeze_batch_norm_2d(body.network)
    try:
        extractor = FeatureExtractor(body, tuple(model.channels), model.channels, mean, std)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"{name} cannot compute features of a small image: {first_line(error)}") from error
    level, parts = frozen
    extractor.freeze(*parts)
    extractor.name, extractor.freeze_at, extractor.norm = name, level, norm or "train"
    return extractor


def _frozen(
    name: str, parts: Mapping[int, tuple[str, ...]], has_weights: bool, freeze_at: int | None
) -> tuple[int, tuple[str, ...]]:
    """The value of `freeze_at` and the modules that it freezes."""
    if freeze_at is None:
        freeze_at = 2 if has_weights and 2 in parts else 0
    if freeze_at == 0:
        return 0, ()
    if freeze_at not in parts:
        known = ", ".join(map(str, (0, *parts)))
        why = "" if parts else ": it computes its maps side by side"
        raise BackboneError(f"freeze_at is {freeze_at!r}, and for {name} it can be {known}{why}")
    return freeze_at, parts[freeze_at]


def _download(name: str, model: TimmModel) -> TimmBody:
    if not model.pretrained:
        raise BackboneError(f"timm has no pretrained weights of {name}; expected 'none' or a file")
    try:
        return model.build(pretrained=True)
    except Exception as error:  # from sockets to a broken file in the cache: the remedy is the same
        raise BackboneError(
            f"timm cannot get the weights of {name}: {first_line(error)}. Without a network, download them elsewhere (from "
            f"https://huggingface.co/timm) and pass the file's path (--backbone-weights PATH)"
        ) from error


def load(body: TimmBody, model: TimmModel, checkpoint: Checkpoint, name: str) -> None:
    """Load the weights of a file in timm's layout. Those of layers after the last feature are not used.

    Raises:
        BackboneError: weights are missing, unexpected, of a wrong shape or not finite; the message names them, and the body is
            unchanged.
    """
    tensors = dict(_unprefixed(checkpoint.tensors))
    expected = {k: v for k, v in body.network.state_dict().items() if not k.endswith("num_batches_tracked")}
    whole = model.parameter_shapes()
    named = {key: _whole_name(key, value, whole) for key, value in expected.items()}
    if expected.keys() <= tensors.keys():  # of this backbone alone
        named = {key: key for key in expected}
    given = {key: tensors[named[key]] for key in expected if named[key] in tensors}
    used = {*named.values(), *whole}
    unexpected = [key for key in tensors if key not in used and not key.endswith("num_batches_tracked")]
    check_fit(expected, given, named, unexpected, checkpoint.origin, name)
    body.network.load_state_dict(given, strict=False)  # the checks above are strict but for num_batches_tracked


def _unprefixed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights without the prefix of DataParallel; of a detector of this package, those of the backbone."""
    own = any(key.startswith(_OWN_PREFIX) for key in tensors)
    prefix = _OWN_PREFIX if own else "module." if all(key.startswith("module.") for key in tensors) else ""
    for key, value in tensors.items():
        if key.startswith(prefix):
            yield key.removeprefix(prefix), value


def _whole_name(key: str, value: Tensor, whole: Mapping[str, tuple[int, ...]]) -> str:
    """The name in the whole model of a weight of its ``features_only`` form, in which timm renames some modules.

    ``stages_0.blocks.0.conv.weight`` is ``stages.0.blocks.0.conv.weight`` there, and ``model.norm.weight`` is ``norm.weight``.
    """
    first, dot, rest = key.partition(".")
    names = [key, rest, *(f"{first[:i]}.{first[i + 1 :]}{dot}{rest}" for i, letter in enumerate(first) if letter == "_")]
    return next((name for name in names if whole.get(name) == tuple(value.shape)), key)
