"""`FeatureExtractor`, the interface between backbones and decoders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Color: TypeAlias = tuple[float, float, float]

IMAGENET_MEAN: Color = (0.485, 0.456, 0.406)
"""Mean of RGB in 0..1 for torchvision's weights."""
IMAGENET_STD: Color = (0.229, 0.224, 0.225)
"""Standard deviation of RGB in 0..1 for torchvision's weights."""


STRIDES = tuple(1 << level for level in range(10))


class BackboneError(ValueError):
    """A backbone cannot be built like this; the message says what was found, what was expected and what to change."""


class FeatureExtractor(nn.Module):
    """A backbone with named features: normalised images [N, 3, H, W] to ``{"c2": [N, C, H/4, W/4], …}``.

    Feature ``c<k>`` has stride ``2**k``; where H or W is not a multiple of the stride, the networks of `make_backbone` round
    up. Networks that split their input into patches often round down: pad their images to multiples of the stride.

    It wraps any network whose forward returns a dict with the names of the features, or a list or tuple in their order.
    From timm::

        body = timm.create_model("convnext_tiny", features_only=True, pretrained=True)
        backbone = FeatureExtractor(body, ("c2", "c3", "c4", "c5"))

    and from torchvision::

        model = torchvision.models.efficientnet_b0(weights="DEFAULT")
        taps = {"features.2": "c2", "features.3": "c3", "features.5": "c4", "features.8": "c5"}
        backbone = FeatureExtractor(create_feature_extractor(model, taps), ("c2", "c3", "c4", "c5"))
        backbone.freeze("features.0", "features.1")

    Attributes:
        body: the network.
        features: names of the features, as given.
        out_channels: channels of each feature.
        pixel_mean, pixel_std: [3, 1, 1], RGB in 0..1. Buffers, so that checkpoints contain the normalisation of their weights.
        name, freeze_at, norm: arguments of `make_backbone` that build the same network again, without weights; None for
            custom networks.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        body: nn.Module,
        features: Sequence[str],
        out_channels: Mapping[str, int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Run `body` once on a small image of zeros, and check the number, strides and channels of the features.

        Args:
            body: the network.
            features: names of the features, ``c<level>``.
            out_channels: expected channels of each feature. None: not checked.
            mean: of R, G and B in 0..1, with which the body expects its input to be normalised.
            std: of R, G and B in 0..1, likewise.

        Raises:
            BackboneError: the body's features are not as described.
        """
        super().__init__()
        self.body = body
        self.features = tuple(features)
        self.name: str | None = None
        self.freeze_at: int | None = None
        self.norm: Literal["frozen", "train"] | None = None
        self._frozen: tuple[str, ...] = ()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                raise BackboneError(f"{name} is {tuple(values)}, expected three numbers{' above 0' * (name == 'std')}: R, G, B")
            self.register_buffer(f"pixel_{name}", torch.tensor([float(v) for v in values]).view(3, 1, 1))
        self.out_channels = self._probe(out_channels)

    @property
    def mean(self) -> Color:
        """Mean of R, G and B in 0..1."""
        return _color(self.pixel_mean)

    @property
    def std(self) -> Color:
        """Standard deviation of R, G and B in 0..1."""
        return _color(self.pixel_std)

    def normalize(self, images: Tensor) -> Tensor:
        """RGB images [..., 3, H, W], uint8 in 0..255 or floating point in 0..1, to the input of `forward`.

        Args:
            images: [..., 3, H, W], RGB.
        """
        scaled = images if images.is_floating_point() else images.to(self.pixel_mean.dtype) / 255
        return (scaled - self.pixel_mean) / self.pixel_std

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [N, 3, H, W] to ``{"c2": [N, C, H/4, W/4], …}``.

        Args:
            images: [N, 3, H, W], as `normalize` gives them.
        """
        outputs = self.body(images)
        if isinstance(outputs, Mapping):
            missing = [name for name in self.features if name not in outputs]
            if missing:
                raise BackboneError(
                    f"the body returns no {', '.join(missing)}; it returns {', '.join(map(str, outputs)) or 'nothing'}"
                )
            return {name: outputs[name] for name in self.features}
        if not isinstance(outputs, (list, tuple)):  # torch.compile of torch 2.4 knows no unions
            raise BackboneError(f"the body returns a {type(outputs).__name__}, expected a dict or a list of features")
        if len(outputs) != len(self.features):
            raise BackboneError(
                f"the body returns {len(outputs)} features, expected {len(self.features)}: {', '.join(self.features)}"
            )
        return dict(zip(self.features, outputs, strict=True))

    def freeze(self, *names: str) -> None:
        """Freeze these modules of the body, by name ("" is the whole body).

        Their parameters get no gradients, and they stay in evaluation mode, so that BatchNorms keep their statistics.

        Args:
            names: of modules of the body, such as ``layer1``.

        Raises:
            BackboneError: the body has no module of this name.
        """
        for name in names:
            try:
                part = self.body.get_submodule(name)
            except AttributeError:
                children = ", ".join(n for n, _ in self.body.named_children())
                raise BackboneError(f"the body has no module {name!r} to freeze; it has {children}") from None
            part.requires_grad_(False)
        self._frozen += tuple(name for name in names if name not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Set training or evaluation mode; frozen modules stay in evaluation mode.

        Args:
            mode: True: training mode, False: evaluation mode.
        """
        super().train(mode)
        for name in self._frozen:
            self.body.get_submodule(name).eval()
        return self

    def _probe(self, expected: Mapping[str, int] | None) -> dict[str, int]:
        """Channels of each feature, by running the body once.

        Raises:
            BackboneError: a feature does not have the stride of its name, or the expected channels.
        """
        levels = {name: _level(name) for name in self.features}
        if not levels or len(levels) < len(self.features):
            raise BackboneError(f"the features are {', '.join(self.features) or 'none'}; expected names such as c3, each once")
        # Two by three cells of the coarsest level: reveals swapped height and width, and rounding at any level.
        size = (2 << max(levels.values()), 3 << max(levels.values()))
        parameter = next((p for p in self.body.parameters() if p.is_floating_point()), torch.empty(0))
        with torch.no_grad(), eval_mode(self.body):
            outputs = self(torch.zeros(1, 3, *size, dtype=parameter.dtype, device=parameter.device))
        for name, level in levels.items():
            shape, stride = tuple(outputs[name].shape), 1 << level
            if len(shape) == 4 and shape[2:] == (size[0] // stride, size[1] // stride):
                continue
            other = next((s for s in STRIDES if shape[2:] == tuple(-(-length // s) for length in size)), None)
            if other is not None:
                raise BackboneError(f"feature {name} has stride {other}, expected {stride}")
            wanted = f"[1, channels, {size[0] // stride}, {size[1] // stride}] (stride {stride})"
            raise BackboneError(f"feature {name} of a {size[0]}x{size[1]} image has shape {list(shape)}, expected {wanted}")
        channels = {name: int(outputs[name].shape[1]) for name in self.features}
        if expected is None:
            return channels
        if set(expected) != set(channels):
            raise BackboneError(f"out_channels has {', '.join(expected) or 'nothing'}; expected {', '.join(channels)}")
        for name, count in channels.items():
            if expected[name] != count:
                raise BackboneError(f"feature {name} has {count} channels, expected {expected[name]}")
        return channels


def _level(name: str) -> int:
    match = re.fullmatch(r"c(\d)", name)
    if match is None:
        raise BackboneError(f"a feature is called {name!r}, expected c<level>, such as c3 for stride 8")
    return int(match[1])


def _color(buffer: Tensor) -> Color:
    """The three values, rounded to the precision of float32, so that 0.485 is returned as 0.485."""
    red, green, blue = (round(v, 7) for v in buffer.flatten().tolist())
    return red, green, blue


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, after which the mode of every submodule is restored; BatchNorms are not updated in it."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        # First by `train`, which a network may override, then for each submodule.
        module.train(modes[module])
        for part, mode in modes.items():
            part.training = mode
