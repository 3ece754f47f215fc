"""timm's models as backbones: their features, and their cost, counted without weights on torch's meta device.

Imports torch. `nasdsl.backbones` imports this module when the name of a backbone begins with ``timm:``, and only then.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode

LEVELS: Final = (1, 2, 3, 4, 5)
"""Levels of the features that a network computes. Decoders read those from 2 on; level 1 shows where the stem ends."""
SIZES: Final = ((224, 288), (235, 301))
"""Sizes of images with which a model is tried: multiples of all strides, and of none."""
ANY_SIZE: Final[tuple[Mapping[str, Any], ...]] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
"""Options with which models accept images of any size; each model has at most one of them."""


_M = TypeVar("_M", bound=nn.Module)


class TimmModelError(ValueError):
    """A model of timm cannot be a backbone; the message says why."""


@dataclass(frozen=True)
class TimmModel:
    """Description of a model of timm as a backbone.

    Attributes:
        name: in timm.
        channels: of its features, ``{"c2": 64, …}``; only levels 2 to 5 that it has.
        levels: of all maps that it returns, in their order.
        indices: timm's ``out_indices`` of these maps.
        options: further arguments of ``timm.create_model``.
        channels_last: whether its maps are [N, H, W, C].
        divisor: images are padded to multiples of it, because the model rounds sizes down or refuses others; 1: not padded.
        mean, std: of RGB in 0..1, from its ``pretrained_cfg``.
        pretrained: whether timm has weights for it.
        params: number of its parameters up to its last feature.
    """

    name: str
    channels: Mapping[str, int]
    levels: tuple[int, ...]
    indices: tuple[int, ...]
    options: Mapping[str, Any]
    channels_last: bool
    divisor: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pretrained: bool
    params: int

    def build(self, *, pretrained: bool = False) -> TimmBody:
        """The network, with random weights or with timm's, which timm downloads."""
        network = _timm().create_model(
            self.name, features_only=True, out_indices=self.indices, pretrained=pretrained, **self.options
        )
        return TimmBody(network, self.levels, self.channels_last, self.divisor)

    def build_meta(self) -> TimmBody:
        """The network without memory for its weights, in evaluation mode."""
        return without_memory(self.build).eval()

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights of the whole model, as in timm's files."""
        model = without_memory(partial(_timm().create_model, self.name, **self.options))
        return {name: tuple(value.shape) for name, value in model.state_dict().items()}


class TimmBody(nn.Module):
    """A ``features_only`` model of timm whose maps have the sizes that decoders expect: ceil(H / stride) x ceil(W / stride)."""

    def __init__(self, network: nn.Module, levels: tuple[int, ...], channels_last: bool, divisor: int) -> None:
        super().__init__()
        self.network, self.levels, self.channels_last, self.divisor = network, levels, channels_last, divisor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to ``{"c1": [N, C, H/2, W/2], "c2": …}``, as far as the network has them."""
        height, width = images.shape[-2:]
        if self.divisor > 1:
            images = pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        features = {}
        for level, found in zip(self.levels, self.network(images), strict=True):
            x = found.permute(0, 3, 1, 2) if self.channels_last else found
            if self.divisor > 1:
                stride = 1 << level
                x = x[..., : -(-height // stride), : -(-width // stride)]
            features[f"c{level}"] = x
        return features


class TimmCost(NamedTuple):
    """Cost for one image.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and matrix products (attention).
        params: all parameters.
        trainable_params: those that are trained by default from pretrained weights: what is not needed for c2, or all of them
            where `freezable` has no c2.
    """

    macs: int
    params: int
    trainable_params: int


@cache
def describe(name: str) -> TimmModel:
    """The description of a model.

    Args:
        name: in timm, such as ``resnet18`` or ``resnet18.a1_in1k``.

    Raises:
        TimmModelError: timm is not installed or has no such model or weights, or the model has no maps with a stride of 4, 8,
            16 or 32, or it only takes images of one size.
    """
    timm = _timm()
    if ":" in name or "/" in name or not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise TimmModelError(
            f"timm {timm.__version__} has no model {name!r}{'; did you mean ' + ' or '.join(near) + '?' if near else ''}; "
            "timm.list_models() lists all"
        )
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        network, _, tag = name.partition(".")
        known = timm.list_pretrained(f"{network}.*")
        raise TimmModelError(
            f"timm {timm.__version__} has no weights {tag!r} of {network}; "
            + (f"it has {', '.join(known)}" if known else "it has none")
        ) from None
    problem = ""
    for options in ANY_SIZE:
        try:
            return _describe(name, options)
        except TimmModelError:
            raise
        except Exception as error:  # a model may fail in any way; TypeError: it does not know the options
            if not isinstance(error, TypeError) or not options:
                problem = problem or str(error).strip().partition("\n")[0] or type(error).__name__
    raise TimmModelError(f"timm:{name} cannot compute features of images of any size ({problem}); choose another model")


def _describe(name: str, options: Mapping[str, Any]) -> TimmModel:
    whole = without_memory(partial(_timm().create_model, name, features_only=True, **options))
    reductions = list(whole.feature_info.reduction())
    numbers = list(getattr(whole.feature_info, "out_indices", range(len(reductions))))
    # Of several maps with one stride the last is taken, as in other detectors.
    last = {reduction: number for number, reduction in zip(numbers, reductions, strict=True)}
    found = [(last[1 << level], level) for level in LEVELS if 1 << level in last]
    if not any(level > 1 for _, level in found):
        raise TimmModelError(f"timm:{name} has maps with strides {_some(reductions)}; expected some of 4, 8, 16, 32")
    config = whole.pretrained_cfg
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    undivided = TimmModel(
        name,
        channels={},
        levels=tuple(level for _, level in sorted(found)),
        indices=tuple(number for number, _ in sorted(found)),
        options=options,
        channels_last=str(getattr(whole, "output_fmt", "")).endswith("NHWC"),
        divisor=1,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        pretrained=any(config.get(key) for key in ("hf_hub_id", "url", "file")),
        params=0,
    )
    for divisor in (1, 1 << max(level for _, level in found)):
        model = replace(undivided, divisor=divisor)
        body = model.build_meta()
        try:
            maps = [_maps(body, size) for size in SIZES]
        except Exception:  # the model refuses a size
            if divisor > 1:
                raise
            continue
        if all(_has_strides(of_size, size) for of_size, size in zip(maps, SIZES, strict=True)):
            channels = {key: int(x.shape[1]) for key, x in maps[0].items() if key != "c1"}
            params = sum(p.numel() for p in body.parameters())
            return replace(model, channels=channels, params=params)
    shapes = ", ".join(f"{key} {list(x.shape[-2:])}" for key, x in maps[0].items())
    height, width = SIZES[0]
    raise TimmModelError(
        f"timm:{name} has maps whose strides are not exact: of an image of {height}x{width} they are {shapes}; choose another "
        "model"
    )


def without_memory(build: Callable[[], _M]) -> _M:
    """A network without memory for its weights."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # it reads values while it is built, as timm's ConvNeXt and Swin do, with torch 2.4
        return build().to("meta")


def _maps(body: TimmBody, size: tuple[int, int]) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = body(torch.zeros(1, 3, *size, device="meta"))
    return found


def _has_strides(maps: Mapping[str, Tensor], size: tuple[int, int]) -> bool:
    return all(tuple(x.shape[-2:]) == tuple(-(-length // (1 << int(key[1:]))) for length in size) for key, x in maps.items())


@cache
def cost(name: str, size: tuple[int, int]) -> TimmCost:
    """Cost of a model for one image of `size` (height, width), from the operations that torch would run.

    Raises:
        TimmModelError: as in `describe`.
    """
    model = describe(name)
    body = model.build_meta()
    try:
        with FlopCounterMode(display=False) as counter:
            _maps(body, size)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TimmModelError(f"timm:{name} cannot take images of {size[0]}x{size[1]}: {reason}") from None
    frozen = freezable(name).get(2, ())
    untrained = {id(p) for part in frozen for p in body.get_submodule(part).parameters()}
    trained = sum(p.numel() for p in body.parameters() if id(p) not in untrained)
    return TimmCost(counter.get_total_flops() // 2, model.params, trained)


@cache
def freezable(name: str) -> dict[int, tuple[str, ...]]:
    """By level, the modules of `TimmBody` without which the map of this level cannot be computed: what `freeze_at` freezes.

    A level is left out where the model does not compute later maps from that of the level, but maps in parallel (HRNet).
    """
    body = describe(name).build_meta()
    parameters = list(body.parameters())
    maps = body(torch.zeros(1, 3, *SIZES[0], device="meta"))
    needed: dict[int, set[int]] = {}
    for level in body.levels:
        gradients = torch.autograd.grad(maps[f"c{level}"].sum(), parameters, allow_unused=True, retain_graph=True)
        needed[level] = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    return {
        level: _largest_modules(body, ids)
        for level, ids in needed.items()
        if all(ids < needed[later] for later in body.levels if later > level)
    }


def _largest_modules(module: nn.Module, ids: set[int], name: str = "") -> tuple[str, ...]:
    """Names of the outermost modules all of whose parameters are among `ids`."""
    own = [id(p) for p in module.parameters()]
    if own and ids.issuperset(own):
        return (name,)
    children = module.named_children()
    return tuple(found for child, part in children for found in _largest_modules(part, ids, f"{name}.{child}".lstrip(".")))


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise TimmModelError(f"backbones of timm need timm ({error}): pip install 'nasdsl[timm]'") from None
    return timm


def _some(values: list[int]) -> str:
    return ", ".join(map(str, sorted(set(values)))) or "none"
