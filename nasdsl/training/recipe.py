"""Recipes: the hyperparameters of a training, with their descriptions."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from nasdsl.image_size import parse_size
from nasdsl.training.errors import RecipeError


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: Iterable[str] = ()
) -> Any:
    """A field of the recipe; `low` and `high` are inclusive bounds, for a tuple of each number."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters of a training. The defaults are the published schedule of FCOS and NAS-FCOS.

    That is SGD with momentum 0.9 and weight decay 1e-4, batch size 16, 90,000 steps, learning rate 0.01, divided by 10 at steps
    60,000 and 80,000, twice the learning rate and no weight decay for biases, 500 warm-up steps from a third of the learning
    rate, shorter side 800 and longer side at most 1333 pixels, horizontal flip (arXiv:1904.01355, section 4;
    arXiv:1906.04423, section 4.1, and the published configurations). The learning rate must be scaled with the batch size: for
    half the batch size, take half the learning rate and twice the steps.

    A step is one update of the weights. `SETTINGS` describes every field.

    Raises:
        RecipeError: settings are invalid; the message lists all of them.
    """

    optimizer: str = _setting("sgd", "torch.optim's SGD or AdamW", choices=("sgd", "adamw"))
    learning_rate: float = _setting(0.01, "highest learning rate; the schedule gives the fraction of it at each step", low=0)
    momentum: float = _setting(0.9, "momentum of SGD", low=0, high=1)
    betas: tuple[float, float] = _setting((0.9, 0.999), "decay rates of AdamW's running averages", low=0, high=1)
    weight_decay: float = _setting(1e-4, "weight decay; SGD adds it to the gradient, AdamW applies it to the weights", low=0)
    bias_rate: float = _setting(2.0, "factor of the learning rate for biases", low=0)
    backbone_rate: float = _setting(
        1.0, "factor of the learning rate for the backbone; to keep it fixed, freeze it (--freeze-at 5, --norm frozen)", low=0
    )
    decay_biases: bool = _setting(False, "apply weight decay to biases")
    decay_scales: bool = _setting(
        True, "apply weight decay to the weights of norms, scales and other parameters of at most one dimension"
    )
    clip_norm: float | None = _setting(
        None, "largest norm of the gradients, which are scaled down to it; null: no clipping", low=0
    )

    steps: int | None = _setting(90_000, "length of the training in steps; null: `epochs` gives it", low=1)
    epochs: float | None = _setting(None, "length of the training in epochs, if `steps` is null", low=0)
    schedule: str = _setting(
        "step", "schedule of the learning rate: lower at each milestone, one cycle up and down, cosine annealing, or constant",
        choices=("step", "one_cycle", "cosine", "constant"),
    )  # fmt: skip
    warmup_steps: int = _setting(500, "steps of linear warm-up; `one_cycle` has its own rise instead", low=0)
    warmup_start: float = _setting(1 / 3, "fraction of the learning rate at the start of the warm-up", low=0, high=1)
    milestones: tuple[float, ...] = _setting(
        (2 / 3, 8 / 9), "fractions of the training after which schedule `step` lowers the learning rate", low=0, high=1
    )
    milestone_factor: float = _setting(0.1, "factor of the learning rate at each milestone", low=0, high=1)
    cycle_rise: float = _setting(0.3, "fraction of the training in which `one_cycle` raises the learning rate", low=0, high=1)
    cycle_start: float = _setting(0.04, "fraction of the learning rate at the start of `one_cycle`", low=0, high=1)
    final_rate: float = _setting(4e-6, "fraction of the learning rate at the end of `one_cycle` and `cosine`", low=0, high=1)

    batch_size: int = _setting(16, "images in a step, over all processes and accumulated batches", low=1)
    accumulate: int = _setting(1, "batches whose gradients are accumulated for a step, to save memory", low=1)
    shorter_side: tuple[int, ...] = _setting(
        (800,), "pixels of the shorter side after resizing; of several, one is drawn for each image", low=1
    )
    longest_side: int = _setting(1333, "largest number of pixels of the longer side after resizing", low=1)
    size: tuple[int, int] | None = _setting(
        None, "height and width to resize to instead, without keeping the aspect ratio; null: keep it", low=1
    )
    recommended_size: bool = _setting(
        False, "take the size that suits the boxes of the data, which `nasdsl data` shows; a size that is given turns it off"
    )
    flip: float = _setting(0.5, "probability of a horizontal flip", low=0, high=1)
    jitter: float | tuple[float, float, float, float] = _setting(
        0.0, "strength of random changes of brightness, contrast and saturation, and a tenth of it of hue; or a list of "
        "these four", low=0, high=1,
    )  # fmt: skip
    sizes: tuple[tuple[int, int], ...] = _setting(
        (), "heights and widths of which one is drawn for each batch, such as 192x256,240x320; evaluated at `size`", low=1
    )
    scale_jitter: tuple[float, float] = _setting(
        (1.0, 1.0),
        "range of the factor by which images are enlarged at random; they are cut off or padded to their size",
        low=0,
    )
    mosaic: float = _setting(0.0, "probability that an image is joined with three others", low=0, high=1)
    close_mosaic: float = _setting(0.1, "fraction of the training, at its end, without mosaics", low=0, high=1)
    crop: tuple[int, int] | None = _setting(None, "height and width of a random crop after resizing; null: no crop", low=1)
    train_difficult: bool = _setting(True, "train on boxes marked as difficult")
    group_by_aspect: bool = _setting(True, "do not mix landscape and portrait images in a batch, so that little is padded")
    size_divisible: int = _setting(1, "pad batches to a multiple of this height and width", low=1)
    drop_last: bool = _setting(True, "drop the last batch of an epoch if it is not full, unless it is the only one")
    fast_decode: bool = _setting(False, "decode JPEGs at a fraction of their size where they are reduced as much anyway")
    workers: int = _setting(2, "processes that load images, for each training process; 0: load in the training process", low=0)
    cache: bool = _setting(False, "keep the resized images in memory if they fit; then no workers are used")

    precision: str = _setting(
        "float32", "precision of the forward pass: autocast to bfloat16, or to float16 with loss scaling",
        choices=("float32", "bfloat16", "float16"),
    )  # fmt: skip
    channels_last: bool = _setting(False, "channels-last memory format: faster convolutions on GPUs and many CPUs")
    ema: float | None = _setting(
        None, "decay of an exponential moving average of the weights, which is then evaluated; null: no average", low=0, high=1
    )
    ema_warmup: float | None = _setting(
        None,
        "steps in which the decay rises to 63 % of `ema`; null: it is at most (1 + step) / (10 + step)",
        low=0,
    )
    sync_batchnorm: bool = _setting(False, "compute BatchNorm statistics over all processes (GPUs only)")
    most_nonfinite: int = _setting(25, "stop after this many consecutive steps without finite gradients", low=1)

    seed: int = _setting(0, "seed of the order of images, the augmentation and the network's random numbers", low=0)
    log_every: int = _setting(20, "steps between two records of the log", low=1)
    checkpoint_every: int = _setting(1000, "steps between two checkpoints; 0: only when the training ends or is stopped", low=0)
    evaluate_every: float = _setting(0, "epochs between two evaluations; 0: only at the end", low=0)
    patience: int | None = _setting(
        None, "stop after this many evaluations in a row that are not the best; null: train to the end", low=1
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        problems = []
        for setting in fields(self):
            value = _as_tuples(getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
            problem = _find_problem(value, hints[setting.name], setting.metadata)
            if problem:
                problems.append(f"{setting.name} is {json.dumps(value, default=str)}: {problem}")
        if not problems:
            problems = list(self._contradictions())
        if problems:
            raise RecipeError("the recipe has invalid settings:\n" + "\n".join(f"  {problem}" for problem in problems))

    def _contradictions(self) -> Iterable[str]:
        if self.steps is None and not self.epochs:
            yield "steps is null and epochs is not given: one of them must say how long the training is"
        if self.steps is not None and self.epochs is not None:
            yield f"steps is {self.steps} and epochs is {self.epochs}: one of them must be null"
        if self.batch_size % self.accumulate:
            yield f"batch_size is {self.batch_size}, no multiple of the {self.accumulate} accumulated batches"
        if list(self.milestones) != sorted(self.milestones):
            yield f"milestones are {list(self.milestones)}: expected them in rising order"
        if self.momentum == 1 or 1 in self.betas or self.ema == 1:
            yield "momentum, betas and ema must be below 1: with 1 nothing new is ever learnt"
        if not self.learning_rate:
            yield "learning_rate is 0: nothing would be learnt"
        if not self.backbone_rate:
            yield "backbone_rate is 0: that would compute gradients for nothing; freeze the backbone instead (freeze_at)"
        if self.clip_norm == 0:
            yield "clip_norm is 0: nothing would be learnt; null clips nothing"
        if self.patience is not None and not self.evaluate_every:
            yield f"patience is {self.patience} and evaluate_every is 0: there is no evaluation before the end to stop after"
        if not self.shorter_side:
            yield "shorter_side is empty: expected at least one size in pixels"
        if self.sizes and self.size is None:
            yield "sizes are given and size is null: it says at what size the detector is evaluated"
        if not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            yield f"scale_jitter is {list(self.scale_jitter)}: expected the smallest and the largest factor, above 0"
        if isinstance(self.jitter, tuple) and self.jitter[3] > 0.5:
            yield f"jitter has {self.jitter[3]} for hue: expected 0 to 0.5, which is any hue"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and `from_dict`."""
        return {name: _as_lists(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(settings: Mapping[str, Any]) -> Recipe:
        """The recipe with these settings, and defaults for all others.

        Args:
            settings: values by name, as JSON has them.

        Raises:
            RecipeError: a setting is unknown or invalid.
        """
        return Recipe().changed(settings)

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """This recipe with other settings.

        If only one of `steps` and `epochs` is given, the other becomes null. A size of any kind turns `recommended_size` off.

        Args:
            settings: values by name, as JSON has them.

        Raises:
            RecipeError: a setting is unknown or invalid.
        """
        for name in settings:
            if name not in SETTINGS:
                near = difflib.get_close_matches(name, SETTINGS, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(SETTINGS)}"
                raise RecipeError(f"a recipe has no setting {name!r}{hint}")
        other = {"steps": "epochs", "epochs": "steps"}
        lengths = [name for name in other if settings.get(name) is not None]
        dropped: dict[str, Any] = {other[name]: None for name in lengths if len(lengths) == 1}
        if {"size", "shorter_side", "longest_side"} & settings.keys():
            dropped["recommended_size"] = False
        return replace(self, **{**dropped, **settings})

    def override(self, assignments: Iterable[str]) -> Recipe:
        """This recipe with settings of a command line: ``learning_rate=0.02``, ``size=[240,320]``, ``size=240x320``.

        Args:
            assignments: ``NAME=VALUE`` each.

        Raises:
            RecipeError: an argument is no assignment, or a setting is unknown or invalid.
        """
        settings = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise RecipeError(f"{assignment!r} is no setting: expected NAME=VALUE, such as learning_rate=0.02")
            settings[name.strip().replace("-", "_")] = _parse_value(text.strip())
        return self.changed(settings)


def _as_tuples(value: Any) -> Any:
    """The value with tuples for lists, which come from JSON."""
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _as_lists(value: Any) -> Any:
    """The value with lists for tuples, for JSON."""
    return [_as_lists(v) for v in value] if isinstance(value, tuple) else value


def _parse_value(text: str) -> Any:
    """Parse a value of the command line: JSON, ``240x320`` for a pair, ``none`` for null, else the text itself.

    ``192x256,240x320`` is a list of pairs.
    """
    pairs = [_parse_value(part) for part in text.split(",")] if "," in text and "[" not in text else []
    if pairs and all(isinstance(pair, list) for pair in pairs):
        return pairs
    size = parse_size(text)
    if size is not None:
        return list(size)
    try:
        return None if text.lower() == "none" else json.loads(text)
    except ValueError:
        return text


def _find_problem(value: Any, kind: Any, bounds: Mapping[str, Any]) -> str | None:
    """What is wrong with a value; None if it is valid."""
    if not _has_type(value, kind):
        return f"expected {_type_name(kind)}"
    if bounds["choices"] and value not in bounds["choices"]:
        return f"expected one of {', '.join(bounds['choices'])}"
    numbers = [n for n in _flat(value) if isinstance(n, int | float)]
    low, high = bounds["low"], bounds["high"]
    if low is not None and not all(low <= n < float("inf") for n in numbers):
        return f"expected {low} or more" if high is None else f"expected {low} to {high}"
    if high is not None and not all(n <= high for n in numbers):
        return f"expected {low} to {high}"
    return None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for v in value:
            yield from _flat(v)
    else:
        yield value


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_has_type(value, member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if members[-1] is Ellipsis:
            return all(_has_type(v, members[0]) for v in value)
        return len(value) == len(members) and all(_has_type(v, m) for v, m in zip(value, members, strict=True))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _type_name(kind: Any) -> str:
    """A type in words, for messages."""
    if isinstance(kind, UnionType):
        return " or ".join(_type_name(member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if get_origin(members[0]) is tuple:
            return f"a list of pairs of {_type_name(members[0]).removeprefix('2 ')}"
        name = _type_name(members[0]).removeprefix("a ")
        return f"a list of {name}s" if members[-1] is Ellipsis else f"{len(members)} {name}s"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "a word", type(None): "null"}.get(
        kind, str(kind)
    )


SETTINGS: Final[Mapping[str, str]] = {setting.name: setting.metadata["help"] for setting in fields(Recipe)}
"""Description of each setting."""

_QUICK: Final = Recipe(
    optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, bias_rate=1.0, decay_scales=False, channels_last=True,
    steps=None, epochs=12, schedule="one_cycle", warmup_steps=0, batch_size=8, size=(240, 320),
    cache=True, checkpoint_every=200, log_every=10, evaluate_every=3,
)  # fmt: skip

RECIPES: Final[Mapping[str, Recipe]] = {
    "published": Recipe(),
    "small": _QUICK.changed(
        {
            "epochs": 24,
            "batch_size": 4,
            "learning_rate": 2e-3,
            "size": None,
            "recommended_size": True,
            "scale_jitter": (0.8, 1.25),
            "mosaic": 0.3,
            "ema": 0.998,
            "evaluate_every": 4,
        }
    ),
    "quick": _QUICK,
}
"""The recipes by name.

`published` is the schedule of FCOS and of the NAS-FCOS paper on COCO. `small` is for small data of one's own, and the default
there (see `small_data`); batches, learning rate and augmentation come from the experiments in docs/training.md, "What pays on
small data", which were made at 240x320, those of the augmentation with one seed. `quick` is for comparisons in minutes without
a GPU, at 240x320."""


def find_recipe(name: str) -> Recipe:
    """The recipe with this name.

    Args:
        name: one of `RECIPES`.

    Raises:
        RecipeError: there is none.
    """
    if name not in RECIPES:
        raise RecipeError(f"there is no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]
