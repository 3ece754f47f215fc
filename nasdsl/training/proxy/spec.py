"""Settings of a proxy task."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

import torch

from nasdsl.training.proxy.errors import ProxyError

Reward: TypeAlias = Literal["loss", "ap", "training_loss", "gradient_norm", "synflow", "jacobian_covariance"]
Schedule: TypeAlias = Literal["constant", "cosine", "one_cycle"]

DTYPES: Final[Mapping[str, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""Types that features can be stored in."""
PRECISIONS: Final = ("auto", "float32", "bfloat16")

_ADDED: Final[Mapping[str, Any]] = {
    "schedule": "constant", "seeds": 1, "reward_losses": None, "unassigned_loss": None, "improvements": False,
    "image_size": None, "whole_images": False,
}  # fmt: skip
"""Settings that came after the first searches were made, with the values that these had."""


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """Settings of a proxy task. The defaults are those of the paper (arXiv:1906.04423, section 4.1.1).

    Attributes:
        data: the data set, as for `nasdsl.data.open_dataset`: ``voc:DIR`` …
        split: split of the data that is divided into meta-train and meta-val.
        classes, split_share, split_seed: further arguments of `nasdsl.data.open_dataset`.
        val_share: share of the pictures that are meta-val, drawn with `seed`; by default the paper's 1,715 of 5,715.
        backbone: name of a backbone, see `nasdsl.backbones.BACKBONES`. All of it is frozen.
        backbone_weights: weights as for `make_backbone`, or a run (or its ``model.pt``) whose detector has this backbone: the
            paper fine-tunes the backbone on the proxy data first. None: random weights, drawn with `seed`.
        size: pixels of the shorter side of pictures and of both sides of crops; a multiple of the largest stride.
        image_size: (height, width) that pictures are resized to, without keeping their aspect ratio; then `size` is the side of
            crops alone. None: their shorter side is `size`.
        whole_images: train and evaluate on whole images of `image_size`, padded to a multiple of the largest stride, instead of
            on square crops: losses at several sizes compare, which those of crops with other shares of the image do not.
        longest: largest number of pixels of the longer side; larger pictures are resized further, and padded to the crop. The
            default has the same ratio to 384 as 1333 has to 800 in the full schedule.
        mirror: train on mirrored pictures half of the time. Their features are stored as well, which doubles the space.
        levels: features to store, ``("c3", "c4", "c5")``; the search space must not read others. None: all of the backbone.
        iterations, batch_size, learning_rate: of the training, with Adam and without weight decay.
        schedule: of the learning rate: ``constant``, ``cosine`` (falls to 0) or ``one_cycle`` (rises for three tenths of the
            training, then falls to 0).
        average: decay of the average of the weights that is evaluated (`nasdsl.training.ema`). None: no averaging.
        seed: seed of the split, the order of crops and random weights.
        seeds: number of trainings of a decoder, with the seeds `seed`, `seed` + 1, …; the reward is their mean. Heads on the
            outputs of an fpn have one split, because the fpn was trained on its meta-train.
        reward: ``loss`` is minus the sum of the losses on meta-val, ``ap`` COCO's AP on meta-val, ``training_loss`` minus the
            mean of the training losses of all steps: how fast a decoder learns. ``gradient_norm``, ``synflow`` and
            ``jacobian_covariance`` train nothing, see `nasdsl.training.proxy.zero_cost`.
        reward_losses: the losses that ``loss`` sums, ``("classification", "bbox_regression")``. None: all.
        unassigned_loss: what a box of meta-val counts in ``loss`` that FCOS, ATSS or GFL assigns to no location; 2.8 is about
            the loss of a decoder that has learnt nothing. Without it, rewards at different sizes do not compare: in small
            pictures fewer boxes are assigned, and what cannot be learnt costs no loss. None: such boxes do not count.
        improvements: train decoders that predict as FCOS does with FCOS's improvements: another prediction, center sampling and
            the GIoU loss, as the full training does with its setting of this name.
        method: options of what the decoders predict, such as those of `nasdsl.detection.fcos.Fcos`.
        precision: precision of the computation; ``bfloat16`` is mixed precision. ``auto`` becomes bfloat16 where the device
        is a GPU
            that has it, and float32 elsewhere: here and now, so that all processes of a search have the same.
        channels_last: use the channels-last memory format.
        device: device of the computation; ``auto`` is a GPU if there is one.
        dtype: type that features are stored in; ``float16`` and ``bfloat16`` need half the space.
        cache: folder in which features are stored. None: they are kept in memory and lost afterwards.
        memory_limit: bytes; a larger cache is not read into memory but memory-mapped, so that processes share it.
        fpn: text of the decoder whose fpn outputs are computed once, to train heads alone; see `ProxyTask.with_fpn`.

    Raises:
        ProxyError: settings are invalid; the message lists all of them.
    """

    data: str
    split: str = "train"
    val_share: float = 1715 / 5715
    backbone: str = "resnet50"
    backbone_weights: str | None = None
    size: int = 384
    longest: int = 640
    mirror: bool = True
    levels: tuple[str, ...] | None = None
    iterations: int = 300
    batch_size: int = 200
    learning_rate: float = 8e-4
    average: float | None = 0.9
    schedule: Schedule = "constant"
    seed: int = 0
    seeds: int = 1
    reward: Reward = "loss"
    reward_losses: tuple[str, ...] | None = None
    unassigned_loss: float | None = None
    improvements: bool = False
    method: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "auto"
    channels_last: bool = True
    device: str = "auto"
    dtype: str = "float16"
    cache: str | None = None
    memory_limit: int = 4 * 2**30
    fpn: str | None = None
    classes: tuple[str, ...] | None = None
    split_share: float | None = None
    split_seed: int | None = None
    image_size: tuple[int, int] | None = None
    whole_images: bool = False

    def __post_init__(self) -> None:
        if self.image_size is not None:
            object.__setattr__(self, "image_size", (self.image_size[0], self.image_size[1]))
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))  # JSON has lists
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.reward_losses is not None:
            object.__setattr__(self, "reward_losses", tuple(self.reward_losses))
        if self.precision == "auto":
            object.__setattr__(self, "precision", "bfloat16" if _has_bfloat16(self.device) else "float32")
        problems = [f"{name} is {getattr(self, name)!r}; expected {expected}" for name, expected in self._problems()]
        if problems:
            raise ProxyError("the proxy task cannot be made: " + "; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which are compared when a search is resumed.

        Settings that earlier searches did not have are left out where they have the values of these, so that they can be
        resumed.
        """
        return {k: v for k, v in asdict(self).items() if k not in _ADDED or v != _ADDED[k]}

    def _problems(self) -> list[tuple[str, str]]:
        """Name and expected value of each invalid setting."""
        expected = {
            "val_share": ("a number between 0 and 1", 0 < self.val_share < 1),
            "size": ("1 or more pixels", self.size >= 1),
            "image_size": (
                "height and width of 1 or more pixels, or None",
                self.image_size is None or min(self.image_size) >= 1,
            ),
            "whole_images": ("False without image_size", self.image_size is not None or not self.whole_images),
            "longest": ("at least as many pixels as size", self.longest >= self.size),
            "levels": ("names such as c3, or None", self.levels is None or len(self.levels) > 0),
            "iterations": ("1 or more", self.iterations >= 1),
            "batch_size": ("1 or more", self.batch_size >= 1),
            "learning_rate": ("a number above 0", 0 < self.learning_rate < math.inf),
            "average": ("at least 0 and below 1, or None", self.average is None or 0 <= self.average < 1),
            "schedule": (" or ".join(get_args(Schedule)), self.schedule in get_args(Schedule)),
            "seeds": ("1 or more", self.seeds >= 1),
            "reward": (", ".join(get_args(Reward)), self.reward in get_args(Reward)),
            "reward_losses": ("names of losses, or None", self.reward_losses is None or len(self.reward_losses) > 0),
            "unassigned_loss": (
                "a number of 0 or more, or None",
                self.unassigned_loss is None or 0 <= self.unassigned_loss < math.inf,
            ),
            "precision": (" or ".join(PRECISIONS), self.precision in PRECISIONS),
            "dtype": (", ".join(DTYPES), self.dtype in DTYPES),
            "memory_limit": ("0 or more bytes", self.memory_limit >= 0),
        }
        return [(name, wanted) for name, (wanted, right) in expected.items() if not right]


def _has_bfloat16(device: str) -> bool:
    """Whether a device is a GPU that computes in bfloat16: NVIDIA's do from compute capability 8 on."""
    match = re.fullmatch(r"auto|cuda(?::(?P<number>\d+))?", device)
    if match is None:
        return False
    number = int(match["number"] or 0)
    return torch.cuda.device_count() > number and torch.cuda.get_device_capability(number)[0] >= 8


def setting_descriptions() -> dict[str, str]:
    """Description of each setting, from the docstring of `ProxySpec`."""
    text = inspect.getdoc(ProxySpec) or ""
    found: dict[str, str] = {}
    entries = re.split(r"\n    (?=\w[\w, ]*: )", text.partition("Attributes:")[2].partition("\n\n")[0])
    for entry in entries[1:]:
        names, _, words = entry.partition(": ")
        found |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return found
