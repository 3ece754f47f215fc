"""Layers of torch made where they are used, for decoders that are written once more from their papers.

A reference is a function of `Layers` and of features: run for the first time it makes the layers, so that they are known in the
order of execution, which is how the weights of a decoder's module come into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

Features = Mapping[str, Tensor]
Reference = Callable[["Layers", Features], list[Tensor]]
"""Features of the backbone to all maps of the pyramid, then classes and boxes (and centerness) of one level after another."""

ACTIVATIONS: Mapping[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x, "relu": F.relu, "silu": F.silu, "gelu": F.gelu, "sigmoid": torch.sigmoid
}  # fmt: skip


class Layers(nn.Module):
    """Layers with weights, made at the first run; those of a name are one set for all its uses.

    Attributes:
        width: of the decoder's sections.
        scalars: number of learnable factors that the reference leaves out, because they are 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.made = nn.ModuleList()
        self.named: dict[str, nn.Module] = {}
        self.unnamed: list[nn.Module] = []
        self.next: int | None = None
        self.scalars = 0

    def restart(self) -> None:
        """Begin another run: the next layer is the first again."""
        self.next = 0

    def use(
        self, kind: Callable[..., nn.Module], *args: Any, like: Tensor, name: str | None = None, **options: Any
    ) -> nn.Module:
        """The next layer of the run, or the one of this name."""
        if name is not None and name in self.named:
            return self.named[name]
        if self.next is not None:
            self.next += 1
            return self.unnamed[self.next - 1]
        layer = kind(*args, **options, device=like.device).eval()
        self.made.append(layer)
        if name is None:
            self.unnamed.append(layer)
        else:
            self.named[name] = layer
        return layer

    def conv(
        self,
        x: Tensor,
        width: int,
        k: int = 1,
        norm: str | None = None,
        act: str | None = None,
        bias: bool | None = None,
        name: str | None = None,
        **options: int,
    ) -> Tensor:
        """Convolution, norm ("bn", "gn", "gn16"), activation; a bias where no norm follows, unless `bias` says so."""
        padding = options.get("dilation", 1) * (k // 2)
        bias = norm is None if bias is None else bias
        conv = self.use(nn.Conv2d, x.shape[1], width, k, padding=padding, bias=bias, like=x, name=name, **options)
        return ACTIVATIONS[act](self.norm(conv(x), norm, name and f"{name}.norm"))

    def norm(self, x: Tensor, norm: str | None, name: str | None = None) -> Tensor:
        if norm is None:
            return x
        groups = {"gn": 32, "gn16": 16}.get(norm)
        args = (groups, x.shape[1]) if groups else (x.shape[-1 if norm == "ln" else 1],)
        kind = {"bn": nn.BatchNorm2d, "ln": nn.LayerNorm}.get(norm, nn.GroupNorm)
        layer = self.use(kind, *args, like=x, name=name)
        result: Tensor = layer(x)
        return result

    def linear(self, x: Tensor, width: int) -> Tensor:
        result: Tensor = self.use(nn.Linear, x.shape[-1], width, like=x)(x)
        return result


def weighted_modules(module: nn.Module, run: Callable[[], object]) -> list[nn.Module]:
    """The modules that have weights of their own, in the order in which `run` executes them for the first time."""
    seen: list[nn.Module] = []
    hooks = [
        part.register_forward_hook(lambda part, *_: None if part in seen else seen.append(part))
        for part in module.modules()
        if "weight" in part._parameters
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def randomize(module: nn.Module) -> None:
    """Weights that keep signals alive, norms and biases that show."""
    random = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=random))
        elif value.ndim == 1:
            value.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * torch.randn(value.shape, generator=random))
        elif value.ndim > 1:
            value.copy_(torch.randn(value.shape, generator=random) * value[0].numel() ** -0.5)


@torch.no_grad()
def copy_weights(sources: Sequence[nn.Module], targets: Sequence[nn.Module]) -> None:
    """Module by module; a 1x1 convolution has the weights of a linear layer."""
    for source, target in zip(sources, targets, strict=True):
        values = source.state_dict()
        for name, value in target.state_dict().items():
            value.copy_(values[name].view_as(value))


def count(reference: Reference, width: int, channels: Mapping[str, int], size: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a reference, counted by torch on an image of this size, without running it."""
    layers = Layers(width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        reference(layers, maps(channels, size, "meta"))
    return sum(p.numel() for p in layers.parameters()) + layers.scalars, counter.get_total_flops() // 2


def maps(channels: Mapping[str, int], size: tuple[int, int], device: str = "cpu") -> dict[str, Tensor]:
    """Random features of an image of this size."""
    shapes = {name: (1, width, *(-(-side // 2 ** int(name[1:])) for side in size)) for name, width in channels.items()}
    if device == "meta":
        return {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
    random = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
