"""Pre-trained weights of backbones: downloading, reading and converting them, without running code from a file."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from nasdsl.backbones import StrideIn
from nasdsl.detection.backbones.extractor import IMAGENET_MEAN, IMAGENET_STD, BackboneError, Color
from nasdsl.files import MAX_BYTES, open_plain
from nasdsl.torch_files import load_torch_file

MSRA_MEAN: Color = (122.7717 / 255, 115.9465 / 255, 102.9801 / 255)
"""Mean of RGB in 0..1 for the MSRA weights."""
MSRA_STD: Color = (1 / 255, 1 / 255, 1 / 255)
"""The MSRA weights were trained on 0..255, without further scaling."""

EPS = 1e-5
"""Epsilon of the BatchNorms of all these networks."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "blobs")
"""Keys under which training programs store the weights in a file."""
FIRST_WEIGHTS = ("layer1.0.conv1.weight", "features.0.0.weight")
"""A weight that each family has once; its prefix in a file is that of all weights of the backbone."""
CLASSIFIER = ("fc.", "classifier.", "features.18.")
"""Prefixes of the layers after C5 in torchvision's networks."""
MSRA_FIRST_WEIGHT = "res2_0_branch2a_w"
MSRA_IGNORED = re.compile(r"(fc\d+|pred|last_out.*)_[wb]|.*_momentum|lr|model_iter|weight_order")
"""Entries of the MSRA layout that are not part of the backbone: the classifier and the state of its training."""


class Checkpoint(NamedTuple):
    """Content of a file: tensors by name, the file's name for messages, and where its network has the stride, if known."""

    tensors: dict[str, Tensor]
    origin: str
    stride_in: StrideIn | None = None


class LoadedWeights(NamedTuple):
    """Normalisation of images for the loaded weights, and where their network had the stride (None: unknown)."""

    mean: Color
    std: Color
    stride_in: StrideIn | None


def torchvision_names(model: str) -> list[str]:
    """Names of torchvision's weights for one of its models."""
    return [entry.name for entry in models.get_model_weights(model)]


def download(model: str, name: str) -> Checkpoint:
    """Weights of torchvision by name (``imagenet``: the default ones), from its cache or the network.

    Raises:
        BackboneError: the download failed; the message has the URL.
    """
    entry = models.get_model_weights(model)["DEFAULT" if name == "imagenet" else name]
    try:
        state = entry.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except Exception as error:  # from sockets to a broken file in the cache: the remedy is the same
        raise BackboneError(
            f"cannot get the weights {entry.name} of {model} from {entry.url}: {first_line(error)}. "
            "Without a network, download that file elsewhere and pass its path (--backbone-weights PATH)"
        ) from error
    return Checkpoint(_tensors(state, entry.url), entry.url, "3x3")


def read_file(path: Path) -> Checkpoint:
    """Read the tensors of a file of ``torch.save``, ``.npz`` or ``.safetensors``.

    The layout is torchvision's (``layer1.0.conv1.weight``; also inside ``state_dict`` or ``model``, and with prefixes such as
    ``module.`` or ``backbone.body.``), or that of the MSRA weights of Detectron (``res2_0_branch2a_w``). No code in the file
    is run: pickles of anything but tensors are refused.

    Raises:
        BackboneError: the file is missing or broken, or reading it would run code.
    """
    try:
        if path.suffix == ".npz":
            with open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
                sizes = [part.file_size for part in arrays.zip.infolist()]  # they may be compressed
                if sum(sizes) > MAX_BYTES:
                    raise ValueError(f"its arrays have {sum(sizes) / 1e9:.0f} GB")
                content: Any = {name: arrays[name] for name in arrays.files}
        elif path.suffix == ".safetensors":
            content = importlib.import_module("safetensors.torch").load_file(path)
        else:
            content = load_torch_file(path)
    except OSError as error:
        raise BackboneError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except ModuleNotFoundError as error:
        raise BackboneError(f"cannot read the weights {path}: `pip install safetensors` first") from error
    except Exception as error:  # a broken file can raise anything
        raise BackboneError(_unreadable_message(path, error)) from error
    return Checkpoint(_tensors(content, str(path)), str(path))


def load(body: nn.Module, checkpoint: Checkpoint, name: str) -> LoadedWeights:
    """Load weights into a body that has torchvision's parameter names.

    Weights of the MSRA layout are converted: the first convolution to RGB; BatchNorms without statistics (which are already
    merged into scale and bias) get the mean 0 and a variance that becomes 1 with epsilon.

    Args:
        body: a network of `nasdsl.detection.backbones.networks`.
        checkpoint: from `read_file` or `download`.
        name: of the backbone, for messages.

    Raises:
        BackboneError: weights are missing, unexpected, of a wrong shape or not finite; the message names all of them, and the
            body is unchanged.
    """
    expected = {k: v for k, v in body.state_dict().items() if not k.endswith("num_batches_tracked")}
    if MSRA_FIRST_WEIGHT in checkpoint.tensors:
        if "conv1.weight" not in expected:
            raise BackboneError(f"{checkpoint.origin} has the MSRA layout, which only ResNets have; expected weights of {name}")
        named = {key: msra_name(key) for key in expected}
        given, unexpected = _from_msra(checkpoint, named, _has_batch_norm(body))
        loaded = LoadedWeights(MSRA_MEAN, MSRA_STD, None if name.startswith("resnext") else "1x1")
    else:
        named = {key: key for key in expected}
        given, mean, std = _from_torchvision(checkpoint, expected)
        unexpected = [key for key in given if key not in expected]
        loaded = LoadedWeights(mean, std, checkpoint.stride_in)

    check_fit(expected, given, named, unexpected, checkpoint.origin, name)
    body.load_state_dict(given, strict=False)  # the checks above are strict but for num_batches_tracked
    return loaded


def check_fit(
    expected: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    named: Mapping[str, str],
    unexpected: list[str],
    origin: str,
    name: str,
) -> None:
    """Check that weights fit a network.

    Args:
        expected: the network's own weights.
        given: by the same names, those of a file.
        named: names in the file by names in the network.
        unexpected: further names in the file.
        origin, name: of the file and of the backbone, for the message.

    Raises:
        BackboneError: weights are missing, unexpected, of a wrong shape or not finite; the message names them.
    """
    problems = [
        _counted("missing", [named[key] for key in expected if key not in given]),
        _counted("unexpected", unexpected),
        _counted(
            "of another shape", [text for k, v in expected.items() if (text := _shape_mismatch(named[k], given.get(k), v))]
        ),
        _counted("not finite", [named[k] for k in expected if k in given and not given[k].isfinite().all()]),
    ]
    if any(problems):
        listed = "; ".join(filter(None, problems))
        raise BackboneError(f"the weights {origin} do not fit {name}: {listed}. Are they for another network?")


# -------------------------------------------------------------------------------------------- torchvision's layout


def _from_torchvision(checkpoint: Checkpoint, expected: Iterable[str]) -> tuple[dict[str, Tensor], Color, Color]:
    """The backbone's weights without their prefix, and the mean and standard deviation for normalising images."""
    tensors = checkpoint.tensors
    first = next(name for name in FIRST_WEIGHTS if name in expected)
    prefixes = [key[: -len(first)] for key in tensors if key == first or key.endswith(f".{first}")]
    if len(prefixes) > 1:
        raise BackboneError(
            f"{checkpoint.origin} holds {len(prefixes)} backbones, under {', '.join(repr(p) for p in prefixes)}; expected one"
        )
    prefix = prefixes[0] if prefixes else ""
    given = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    given = {k: v for k, v in given.items() if not k.startswith(CLASSIFIER) and not k.endswith("num_batches_tracked")}
    owner = prefix.removesuffix("body.")
    own = saved_normalization(tensors, owner) if prefix != owner else None
    return given, *(own or (IMAGENET_MEAN, IMAGENET_STD))


def saved_normalization(tensors: Mapping[str, Tensor], owner: str = "backbone.") -> tuple[Color, Color] | None:
    """Mean and standard deviation of the images of a detector of this package, whose weights contain them; None of others."""
    mean, std = (tensors.get(f"{owner}pixel_{name}") for name in ("mean", "std"))
    return None if mean is None or std is None else (_color(mean), _color(std))


def _color(values: Tensor) -> Color:
    red, green, blue = values.flatten().tolist()
    return red, green, blue


# ---------------------------------------------------------------------------------------------------- MSRA layout


def msra_name(key: str) -> str:
    """The name in the MSRA layout of a weight of torchvision's ResNets: ``res2_0_branch2a_w`` for ``layer1.0.conv1.weight``."""
    module, _, kind = key.rpartition(".")
    norm = {"weight": "bn_s", "bias": "bn_b", "running_mean": "bn_rm", "running_var": "bn_riv"}
    if module in ("conv1", "bn1"):
        return "conv1_w" if module == "conv1" else f"res_conv1_{norm[kind]}"
    stage, block, part, *which = module.removeprefix("layer").split(".")
    branch = "branch1" if part == "downsample" else f"branch2{'abc'[int(part[-1]) - 1]}"
    is_conv = part.startswith("conv") or which == ["0"]
    return f"res{int(stage) + 1}_{block}_{branch}_{'w' if is_conv else norm[kind]}"


def _from_msra(checkpoint: Checkpoint, named: Mapping[str, str], trains_norms: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The backbone's weights by torchvision's names, and the unexpected names in the file."""
    tensors = checkpoint.tensors
    given = {key: tensors[name] for key, name in named.items() if name in tensors}
    used = {*named.values(), "conv1_b"}
    unexpected = [name for name in tensors if name not in used and not MSRA_IGNORED.fullmatch(name)]
    if not any(name.endswith("_bn_rm") for name in tensors):
        if trains_norms:
            raise BackboneError(
                f"{checkpoint.origin} has no BatchNorm statistics, so its BatchNorms cannot be trained; use norm='frozen'"
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
        # norm(w x + b) is norm(w x) plus the norm's scale times b, which goes into its bias.
        scale = given["bn1.weight"] * (given["bn1.running_var"] + EPS).rsqrt()
        given["bn1.bias"] = given["bn1.bias"] + scale * tensors["conv1_b"]
    return given, unexpected


def _has_batch_norm(body: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in body.modules())


# ------------------------------------------------------------------------------------------------------- messages


def _tensors(content: object, origin: str) -> dict[str, Tensor]:
    """The tensors of a file by name, unwrapped from the dicts of training programs."""
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


def _shape_mismatch(name: str, tensor: Tensor | None, expected: Tensor) -> str | None:
    if tensor is None or (tensor.shape == expected.shape and tensor.is_floating_point()):
        return None
    dtype = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{name} {list(tensor.shape)}{dtype}, expected {list(expected.shape)}"


def _counted(what: str, names: list[str]) -> str | None:
    return f"{len(names)} {what} ({_some(names)})" if names else None


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit] + (["…"] if len(names) > limit else [])) or "none"


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _unreadable_message(path: Path, error: Exception) -> str:
    if path.suffix in (".npz", ".safetensors"):
        return f"cannot read the weights {path}: {first_line(error)}"
    return (
        f"cannot read the weights {path}: the file is broken, or holds more than tensors. Other pickles (such as Detectron's "
        "R-50.pkl) can run any code when they are loaded, so they are refused. One that you trust can be converted once:\n"
        f"  {conversion_command(path)}"
    )


def conversion_command(path: Path) -> str:
    """A shell command that converts a pickle of arrays to a ``.npz`` file beside it."""
    return (
        f"python -c \"import numpy as np, pickle; d = pickle.load(open({str(path)!r}, 'rb'), encoding='latin1'); "
        f"np.savez({str(path.with_suffix('.npz'))!r}, "
        "**{k: v for k, v in d.get('blobs', d).items() if isinstance(v, np.ndarray)})\""
    )
