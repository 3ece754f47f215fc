"""How to train: every number in one frozen value, with what it means."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from nasdsl.training.errors import RecipeError


def _setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: Iterable[str] = ()
) -> Any:
    """A field of the recipe; `low` and `high` are inclusive bounds, of each number in a tuple."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a detector is trained. The defaults are the published schedule of FCOS and NAS-FCOS.

    That is SGD with momentum 0.9 and weight decay 1e-4, batch 16, learning rate 0.01, 90,000 steps, a tenth of it from
    step 60,000 and again from 80,000, biases with the double rate and no decay, 500 warm-up steps from a third of the
    rate, shorter side 800 and longer side at most 1333 pixels, horizontal flip (arXiv:1904.01355, section 4;
    arXiv:1906.04423, section 4.1, and the published configurations). The learning rate belongs to the batch size: with
    half the pictures in a batch, take half of it and twice the steps.

    A step is one update of the weights. `SETTINGS` describes every field.

    Raises:
        RecipeError: some settings make no sense; the message lists all of them.
    """

    optimizer: str = _setting("sgd", "how weights follow gradients", choices=("sgd", "adamw"))
    learning_rate: float = _setting(0.01, "the highest rate; `schedule` says how much of it applies at a step", low=0)
    momentum: float = _setting(0.9, "how much of its last step SGD takes again", low=0, high=1)
    betas: tuple[float, float] = _setting((0.9, 0.999), "decay of AdamW's running means", low=0, high=1)
    weight_decay: float = _setting(1e-4, "added to the gradient by SGD, apart from it by AdamW", low=0)
    bias_rate: float = _setting(2.0, "biases learn with this multiple of the rate", low=0)
    decay_biases: bool = _setting(False, "whether weight decay applies to biases")
    decay_scales: bool = _setting(
        True, "whether it applies to weights of norms, scales and the like: all of one dimension or none"
    )
    clip_norm: float | None = _setting(None, "gradients are scaled down to this norm; null: never", low=0)

    steps: int | None = _setting(90_000, "length of the training; null: `epochs` tells", low=1)
    epochs: float | None = _setting(None, "length in passes over the data, where `steps` is null", low=0)
    schedule: str = _setting(
        "step", "how the rate changes: in steps down, up and down once, down along a cosine, not at all",
        choices=("step", "one_cycle", "cosine", "constant"),
    )  # fmt: skip
    warmup_steps: int = _setting(500, "the rate rises linearly for so long; `one_cycle` has its own rise", low=0)
    warmup_start: float = _setting(1 / 3, "fraction of the rate that the warm-up offsets with", low=0, high=1)
    milestones: tuple[float, ...] = _setting(
        (2 / 3, 8 / 9), "fractions of the training after which the rate of schedule `step` falls", low=0, high=1
    )
    milestone_factor: float = _setting(0.1, "by which factor it falls", low=0, high=1)
    cycle_rise: float = _setting(0.3, "fraction of the training in which the rate of `one_cycle` rises", low=0, high=1)
    cycle_start: float = _setting(0.04, "fraction of the rate that `one_cycle` offsets with", low=0, high=1)
    final_rate: float = _setting(4e-6, "fraction of the rate that `one_cycle` and `cosine` end with", low=0, high=1)

    batch_size: int = _setting(16, "pictures a step, over all processes and accumulated batches", low=1)
    accumulate: int = _setting(1, "batches whose gradients are summed for one step, to save memory", low=1)
    shorter_side: tuple[int, ...] = _setting((800,), "shorter side in pixels; one of them is drawn for each picture", low=1)
    longest_side: int = _setting(1333, "the longer side is at most this", low=1)
    size: tuple[int, int] | None = _setting(None, "height and width instead of both sides: the aspect is not kept", low=1)
    flip: float = _setting(0.5, "probability of a horizontal flip", low=0, high=1)
    jitter: float = _setting(0.0, "strength of random brightness, contrast and saturation", low=0, high=1)
    crop: tuple[int, int] | None = _setting(None, "height and width of a random crop after resizing", low=1)
    train_difficult: bool = _setting(True, "whether boxes marked as difficult are trained on")
    group_by_aspect: bool = _setting(True, "wide and high pictures come in batches of their own, so that little is padded")
    size_divisible: int = _setting(1, "batches are padded to a multiple of this", low=1)
    drop_last: bool = _setting(True, "leave out a last batch that is not full, unless it is the only one")
    fast_decode: bool = _setting(False, "JPEGs may be decoded at a fraction of their size where they shrink as much")
    workers: int = _setting(2, "processes that load pictures, for each training process; 0: none", low=0)
    cache: bool = _setting(False, "keep the resized pictures in memory where they fit; no workers are used then")

    precision: str = _setting(
        "float32", "of the forward pass: autocast to bfloat16, or to float16 with a scaled loss",
        choices=("float32", "bfloat16", "float16"),
    )  # fmt: skip
    channels_last: bool = _setting(False, "memory format NHWC: faster convolutions on GPUs and many CPUs")
    ema: float | None = _setting(
        None, "decay of an exponential moving average of the weights, which is then evaluated", low=0, high=1
    )
    sync_batchnorm: bool = _setting(False, "BatchNorm statistics over all processes (GPUs only)")
    most_nonfinite: int = _setting(25, "stop after so many steps in a row without finite gradients", low=1)

    seed: int = _setting(0, "decides the order of pictures, flips, and what the network draws", low=0)
    log_every: int = _setting(20, "steps between two lines of the log", low=1)
    checkpoint_every: int = _setting(1000, "steps between two checkpoints; 0: only when the training ends or is stopped", low=0)
    evaluate_every: int = _setting(0, "epochs between two evaluations; 0: only at the end", low=0)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        problems = []
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, list):  # from JSON
                value = tuple(value)
                object.__setattr__(self, setting.name, value)
            problem = _problem(value, hints[setting.name], setting.metadata)
            if problem:
                problems.append(f"{setting.name} is {json.dumps(value, default=str)}: {problem}")
        if not problems:
            problems = list(self._contradictions())
        if problems:
            raise RecipeError("the recipe cannot be followed:\n" + "\n".join(f"  {problem}" for problem in problems))

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
        if self.clip_norm == 0:
            yield "clip_norm is 0: nothing would be learnt; null clips nothing"
        if not self.shorter_side:
            yield "shorter_side is empty: expected at least one size in pixels"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` is the way back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(settings: Mapping[str, Any]) -> Recipe:
        """The recipe with these settings; those not named keep the defaults.

        Raises:
            RecipeError: an unknown setting, or one that makes no sense.
        """
        return Recipe().changed(settings)

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """This recipe with other settings. Of `steps` and `epochs` the one given replaces the other.

        Raises:
            RecipeError: an unknown setting, or one that makes no sense.
        """
        for name in settings:
            if name not in SETTINGS:
                near = difflib.get_close_matches(name, SETTINGS, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(SETTINGS)}"
                raise RecipeError(f"a recipe has no setting {name!r}{hint}")
        other = {"steps": "epochs", "epochs": "steps"}
        lengths = [name for name in other if settings.get(name) is not None]
        dropped = {other[name]: None for name in lengths if len(lengths) == 1}
        return replace(self, **{**settings, **dropped})

    def override(self, assignments: Iterable[str]) -> Recipe:
        """This recipe with settings as on a command line: ``learning_rate=0.02``, ``size=[240,320]``, ``size=240x320``.

        Raises:
            RecipeError: no assignment, an unknown setting, or one that makes no sense.
        """
        settings = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise RecipeError(f"{assignment!r} is no setting: expected NAME=VALUE, such as learning_rate=0.02")
            settings[name.strip().replace("-", "_")] = _value(text.strip())
        return self.changed(settings)


def _value(text: str) -> Any:
    """A value of the command line: JSON, ``240x320`` for a pair, ``none`` for nothing, else the text itself."""
    first, x, second = text.partition("x")
    if x and first.isdecimal() and second.isdecimal():
        return [int(first), int(second)]
    try:
        return None if text.lower() == "none" else json.loads(text)
    except ValueError:
        return text


def _problem(value: Any, kind: Any, bounds: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, or None."""
    if not _fits(value, kind):
        return f"expected {_name(kind)}"
    if bounds["choices"] and value not in bounds["choices"]:
        return f"expected one of {', '.join(bounds['choices'])}"
    numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if isinstance(n, int | float)]
    low, high = bounds["low"], bounds["high"]
    if low is not None and not all(low <= n < float("inf") for n in numbers):
        return f"expected {low} or more" if high is None else f"expected {low} to {high}"
    if high is not None and not all(n <= high for n in numbers):
        return f"expected {low} to {high}"
    return None


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if not isinstance(value, tuple):
            return False
        if members[-1] is Ellipsis:
            return all(_fits(v, members[0]) for v in value)
        return len(value) == len(members) and all(_fits(v, m) for v, m in zip(value, members, strict=True))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _name(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, UnionType):
        return " or ".join(_name(member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        members = get_args(kind)
        name = _name(members[0]).removeprefix("a ")
        return f"a list of {name}s" if members[-1] is Ellipsis else f"{len(members)} {name}s"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "a word", type(None): "null"}.get(
        kind, str(kind)
    )


SETTINGS: Final[Mapping[str, str]] = {setting.name: setting.metadata["help"] for setting in fields(Recipe)}
"""What each setting means."""

RECIPES: Final[Mapping[str, Recipe]] = {
    "published": Recipe(),
    "quick": Recipe(
        optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, bias_rate=1.0, decay_scales=False, channels_last=True,
        steps=None, epochs=12, schedule="one_cycle", warmup_steps=0, batch_size=8, size=(240, 320),
        cache=True, checkpoint_every=200, log_every=10,
    ),
}  # fmt: skip
"""`published` is the paper's schedule; `quick` trains small sets at 240x320 in minutes without a GPU."""


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        RecipeError: there is none.
    """
    if name not in RECIPES:
        raise RecipeError(f"there is no recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]
