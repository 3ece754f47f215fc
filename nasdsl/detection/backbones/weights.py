"""Pre-trained weights of backbones: finding, reading and converting them, without running code from a file."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from nasdsl.backbones import StrideIn
from nasdsl.detection.backbones.extractor import IMAGENET_MEAN, IMAGENET_STD, BackboneError, Color

MSRA_MEAN: Color = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)
"""Mean of RGB in 0..1 that the MSRA weights were trained with."""
MSRA_STD: Color = (1 / 255, 1 / 255, 1 / 255)
"""They were trained on 0..255, not scaled further."""

EPS = 1e-5
"""Of the BatchNorms of all these networks."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "blobs")
"""Keys under which training programs put the weights in a file."""
ANCHORS = ("layer1.0.conv1.weight", "features.0.0.weight")
"""A weight that each family has once: what stands before it in a file stands before all of the backbone's."""
CLASSIFIER = ("fc.", "classifier.", "features.18.")
"""What follows C5 in torchvision's networks."""
MSRA_ANCHOR = "res2_0_branch2a_w"
MSRA_OTHERS = re.compile(r"(fc\d+|pred|last_out.*)_[wb]|.*_momentum|lr|model_iter|weight_order")
"""What is no part of the backbone in a file of the MSRA layout: the classifier and what its training left."""


class Checkpoint(NamedTuple):
    """What a file holds: tensors by name, and how to call the file in messages."""

    tensors: dict[str, Tensor]
    origin: str
    stride_in: StrideIn | None = None


class Loaded(NamedTuple):
    """How images must be normalised for the weights, and where the network had its strides (None: unknown)."""

    mean: Color
    std: Color
    stride_in: StrideIn | None


def torchvision_names(model: str) -> list[str]:
    """Names of the weights that torchvision has for a model of its own."""
    return [entry.name for entry in models.get_model_weights(model)]


def download(model: str, name: str) -> Checkpoint:
    """Weights of torchvision's by name (``imagenet``: the default ones), from its cache or the network.

    Raises:
        BackboneError: they could not be had; names the address.
    """
    entry = models.get_model_weights(model)["DEFAULT" if name == "imagenet" else name]
    try:
        state = entry.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except Exception as error:  # from sockets to a broken file in the cache: the user can mend all of it in the same way
        raise BackboneError(
            f"cannot get the weights {entry.name} of {model} from {entry.url}: {_first_line(error)}. "
            "Without a network, fetch that file elsewhere and give its path (--backbone-weights PATH)"
        ) from error
    return Checkpoint(_tensors(state, entry.url), entry.url, "3x3")


def read_file(path: Path) -> Checkpoint:
    """The tensors of a file: what ``torch.save`` wrote, ``.npz``, or ``.safetensors``.

    Either torchvision's layout (``layer1.0.conv1.weight``; also inside ``state_dict`` or ``model``, and behind prefixes
    such as ``module.`` or ``backbone.body.``), or that of the MSRA weights of Detectron (``res2_0_branch2a_w``). Nothing in
    the file is run: pickles of anything but tensors are refused.

    Raises:
        BackboneError: the file is missing, broken, or would have to run code.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                content: Any = {name: arrays[name] for name in arrays.files}
        elif path.suffix == ".safetensors":
            content = importlib.import_module("safetensors.torch").load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # of pickles that it then refuses anyway
                content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BackboneError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except ModuleNotFoundError as error:
        raise BackboneError(f"cannot read the weights {path}: `pip install safetensors` first") from error
    except Exception as error:  # a broken file fails in as many ways as there are bytes in it
        raise BackboneError(_unreadable(path, error)) from error
    return Checkpoint(_tensors(content, str(path)), str(path))


def load(body: nn.Module, checkpoint: Checkpoint, name: str) -> Loaded:
    """Copy the weights into a body that has torchvision's parameter names.

    Weights of the MSRA layout are converted: the first convolution to RGB; a BatchNorm without statistics of its own
    (they are already in its scale and bias) to mean 0 and a variance that its epsilon makes 1.

    Args:
        body: of `networks`.
        checkpoint: what a file holds.
        name: of the backbone, for messages.

    Raises:
        BackboneError: weights are missing, unknown, mis-shaped or not finite: all of them named at once; the body is as
            it was.
    """
    expected = {k: v for k, v in body.state_dict().items() if not k.endswith("num_batches_tracked")}
    if MSRA_ANCHOR in checkpoint.tensors:
        if "conv1.weight" not in expected:
            raise BackboneError(f"{checkpoint.origin} has the MSRA layout, which only ResNets have; expected weights of {name}")
        named = {key: msra_name(key) for key in expected}
        given, unexpected = _from_msra(checkpoint, named, _has_batch_norm(body))
        loaded = Loaded(MSRA_MEAN, MSRA_STD, None if name.startswith("resnext") else "1x1")
    else:
        named = {key: key for key in expected}
        given, mean, std = _from_torchvision(checkpoint, expected)
        unexpected = [key for key in given if key not in expected]
        loaded = Loaded(mean, std, checkpoint.stride_in)

    findings = [
        _count("missing", [named[key] for key in expected if key not in given]),
        _count("unexpected", unexpected),
        _count("of another shape", [text for k, v in expected.items() if (text := _misfit(named[k], given.get(k), v))]),
        _count("not finite", [named[k] for k in expected if k in given and not given[k].isfinite().all()]),
    ]
    if any(findings):
        found = "; ".join(filter(None, findings))
        raise BackboneError(f"the weights {checkpoint.origin} do not fit {name}: {found}. Are they of another network?")
    body.load_state_dict(given, strict=False)  # strict but for num_batches_tracked, by the checks above
    return loaded


# -------------------------------------------------------------------------------------------- torchvision's layout


def _from_torchvision(checkpoint: Checkpoint, expected: Iterable[str]) -> tuple[dict[str, Tensor], Color, Color]:
    """The backbone's weights without what stands before their names, and how to normalise images for them."""
    tensors = checkpoint.tensors
    anchor = next(name for name in ANCHORS if name in expected)
    prefixes = [key[: -len(anchor)] for key in tensors if key == anchor or key.endswith(f".{anchor}")]
    if len(prefixes) > 1:
        raise BackboneError(
            f"{checkpoint.origin} holds {len(prefixes)} backbones, under {', '.join(repr(p) for p in prefixes)}; expected one"
        )
    prefix = prefixes[0] if prefixes else ""
    given = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    given = {k: v for k, v in given.items() if not k.startswith(CLASSIFIER) and not k.endswith("num_batches_tracked")}
    # A detector trained with this package knows how its images were normalised; others do as torchvision does.
    owner = prefix.removesuffix("body.")
    pixel_mean, pixel_std = (tensors.get(f"{owner}pixel_{name}") for name in ("mean", "std"))
    if prefix == owner or pixel_mean is None or pixel_std is None:
        return given, IMAGENET_MEAN, IMAGENET_STD
    return given, _color(pixel_mean), _color(pixel_std)


def _color(values: Tensor) -> Color:
    red, green, blue = values.flatten().tolist()
    return red, green, blue


# ---------------------------------------------------------------------------------------------------- MSRA layout


def msra_name(key: str) -> str:
    """What the MSRA layout calls a weight of torchvision's ResNets: ``layer1.0.conv1.weight`` is ``res2_0_branch2a_w``."""
    module, _, kind = key.rpartition(".")
    norm = {"weight": "bn_s", "bias": "bn_b", "running_mean": "bn_rm", "running_var": "bn_riv"}
    if module in ("conv1", "bn1"):
        return "conv1_w" if module == "conv1" else f"res_conv1_{norm[kind]}"
    stage, block, part, *which = module.removeprefix("layer").split(".")
    branch = "branch1" if part == "downsample" else f"branch2{'abc'[int(part[-1]) - 1]}"
    is_conv = part.startswith("conv") or which == ["0"]
    return f"res{int(stage) + 1}_{block}_{branch}_{'w' if is_conv else norm[kind]}"


def _from_msra(checkpoint: Checkpoint, named: Mapping[str, str], trains_norms: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The backbone's weights by torchvision's names, and the names in the file that nothing is known of."""
    tensors = checkpoint.tensors
    given = {key: tensors[name] for key, name in named.items() if name in tensors}
    used = {*named.values(), "conv1_b"}
    unexpected = [name for name in tensors if name not in used and not MSRA_OTHERS.fullmatch(name)]
    if not any(name.endswith("_bn_rm") for name in tensors):
        if trains_norms:
            raise BackboneError(
                f"{checkpoint.origin} has no statistics of its BatchNorms, so they cannot be trained; use norm='frozen'"
            )
        for key in named:
            scale = given.get(f"{key.rpartition('.')[0]}.weight")
            if scale is not None and key.endswith("running_mean"):
                given[key] = torch.zeros_like(scale)
            elif scale is not None and key.endswith("running_var"):
                given[key] = torch.full_like(scale, 1 - EPS)
    if "conv1.weight" in given:
        given["conv1.weight"] = given["conv1.weight"].flip(1)  # from BGR
    if "conv1_b" in tensors and {"bn1.weight", "bn1.bias", "bn1.running_var"} <= given.keys():
        # The norm of w x + b is that of w x, with b through the norm's scale in its bias.
        scale = given["bn1.weight"] * (given["bn1.running_var"] + EPS).rsqrt()
        given["bn1.bias"] = given["bn1.bias"] + scale * tensors["conv1_b"]
    return given, unexpected


def _has_batch_norm(body: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in body.modules())


# ------------------------------------------------------------------------------------------------------- messages


def _tensors(content: object, origin: str) -> dict[str, Tensor]:
    """The tensors of a file by name, out of whatever a training program wrapped them in."""
    while isinstance(content, Mapping) and (wrapped := [content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)]):
        content = wrapped[0]
    if not isinstance(content, Mapping):
        raise BackboneError(f"{origin} holds a {type(content).__name__}, expected a dict of tensors by name")
    tensors = {
        key: torch.as_tensor(value)
        for key, value in content.items()
        if isinstance(key, str)
        and (isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub"))
    }
    if not tensors:
        raise BackboneError(f"{origin} holds no tensors by name; its keys are {_some(list(map(str, content)))}")
    return tensors


def _misfit(name: str, found: Tensor | None, expected: Tensor) -> str | None:
    if found is None or (found.shape == expected.shape and found.is_floating_point()):
        return None
    kind = "" if found.is_floating_point() else f" of {str(found.dtype).removeprefix('torch.')}"
    return f"{name} {list(found.shape)}{kind}, expected {list(expected.shape)}"


def _count(what: str, names: list[str]) -> str | None:
    return f"{len(names)} {what} ({_some(names)})" if names else None


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit] + (["…"] if len(names) > limit else [])) or "none"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _unreadable(path: Path, error: Exception) -> str:
    if path.suffix in (".npz", ".safetensors"):
        return f"cannot read the weights {path}: {_first_line(error)}"
    return (
        f"cannot read the weights {path}: the file is broken, or holds more than tensors. Other pickles (such as Detectron's "
        "R-50.pkl) can run any code when they are opened, so they are not. One that you trust can be converted once:\n"
        f"  {conversion(path)}"
    )


def conversion(path: Path) -> str:
    """A command that turns a pickle of arrays into a ``.npz`` beside it."""
    return (
        f"python -c \"import numpy as np, pickle; d = pickle.load(open({str(path)!r}, 'rb'), encoding='latin1'); "
        f"np.savez({str(path.with_suffix('.npz'))!r}, "
        "**{k: v for k, v in d.get('blobs', d).items() if isinstance(v, np.ndarray)})\""
    )
