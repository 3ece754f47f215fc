"""A trial, and what an evaluation may give."""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from nasdsl.spaces import Filled

OK: Final = "ok"
DUPLICATE: Final = "duplicate"
REJECTED: Final = "rejected"
DIVERGED: Final = "diverged"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
"""Verdicts. A failed one reads ``failed: reason``."""

LONGEST: Final = 4000
"""Characters that are kept of what an error says, and of its traceback."""

_OUT_OF_MEMORY: Final = f"{FAILED}: out of memory"
_SIGNALLED: Final = (128 + signal.SIGINT, 128 + signal.SIGTERM)


@dataclass(frozen=True)
class Evaluated:
    """A reward and what else is worth keeping.

    Attributes:
        reward: higher is better; one that is not finite counts as diverged. None is for an evaluation that was given up by
            its bars; then the details have ``stopped_at``, the step.
        details: losses, figures, whatever a report may want. ``latency`` (seconds) is what objectives on latency read, and
            ``curve``, the loss by step (``{"100": 1.73, …}``), what rules of early stopping read.
    """

    reward: float | None
    details: Mapping[str, Any] = field(default_factory=dict)


Bars: TypeAlias = Mapping[int, float]
"""Of steps, the losses above which an evaluation is given up: where its lowest loss in ``curve`` by then is above."""
Evaluate: TypeAlias = Callable[..., "float | Evaluated | Mapping[str, Any]"]
"""From the text of a decoder to its reward, with or without details (a mapping has them beside ``reward``). It may raise.

It is called with the text alone; where a rule of early stopping has set bars for the text, with those as well:
``evaluate(text, bars)``. A rule sets bars only where evaluations have reported a ``curve``, so that one that takes nothing but
the text must report none.
"""


@dataclass(frozen=True)
class Trial:
    """One proposal of the strategy and what became of it.

    Attributes:
        number: from 0, in the order of proposals.
        text: of the decoder, on one line; `indices` are its decisions.
        digest: of the decoder; the same for texts that compute the same. None for a text that does not check.
        verdict: ``ok``, ``duplicate`` (has the results of trial `duplicate_of`), ``rejected`` (does not check, or breaks a
            requirement; never evaluated), ``diverged`` (the reward was not finite), ``stopped`` (given up early; see
            `nasdsl.search.early_stopping`) or ``failed: reason``.
        reward: what the evaluation gave; None where it gave none. Never a stand-in number.
        score: what the strategy was told: the reward, weighed against costs where there is an objective.
        details: of the evaluation; of a failure ``error`` and, unless that says it all, ``traceback``; of a rejected text
            ``error``; of one that was stopped ``curve`` and ``stopped_at``.
        figures: ``macs`` and ``params`` of fpn and head for one image.
        bars: that it was evaluated with; empty without early stopping.
        seconds: that the evaluation took; 0 where there was none.
        proposed, finished: when (Unix time).
        attempts: evaluations begun, by a worker that died or hung as well.
        worker: which gave the result.
        diagnostics: of the strategy, after it had learned from this trial.
    """

    number: int
    text: Filled
    digest: str | None
    verdict: str
    reward: float | None = None
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    duplicate_of: int | None = None
    bars: Bars = field(default_factory=dict)
    seconds: float = 0.0
    proposed: float = 0.0
    finished: float = 0.0
    attempts: int = 0
    worker: str = ""
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def indices(self) -> tuple[int, ...]:
        """The decisions that the text stands for."""
        return self.text.indices

    @property
    def evaluated(self) -> bool:
        """Whether an evaluation was spent on it."""
        return self.verdict not in (DUPLICATE, REJECTED)


@dataclass(frozen=True)
class Outcome:
    """What came of one evaluation: plain values, which survive JSON unchanged.

    Attributes:
        garbage: `evaluate` returned something that is no reward, or its device is lost to this process: the worker is ended,
            and where there are several, another one tries.
    """

    verdict: str
    reward: float | None
    details: dict[str, Any]
    seconds: float
    garbage: bool = False


class _Garbage(ValueError):
    """Not a reward."""


def run_evaluation(evaluate: Evaluate, text: str, bars: Bars | None = None) -> Outcome:
    """Evaluate, whatever happens. Only Ctrl-C, and leaving after a signal, come through."""
    began = time.perf_counter()

    def outcome(verdict: str, reward: float | None, details: dict[str, Any], garbage: bool = False) -> Outcome:
        return Outcome(verdict, reward, details, time.perf_counter() - began, garbage)

    try:
        found = _read(evaluate(text, bars) if bars else evaluate(text))
    except _Garbage as error:
        return outcome(f"{FAILED}: {error}", None, {"error": str(error)}, garbage=True)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code in _SIGNALLED:  # as nasdsl.training leaves after a signal
            raise
        verdict, details = verdict_of(error), {"error": f"{type(error).__name__}: {error}"[:LONGEST]}
        if verdict not in (DIVERGED, _OUT_OF_MEMORY):  # no faults of anybody's code
            details["traceback"] = traceback.format_exc(limit=-20)[-LONGEST:]
        return outcome(verdict, None, details, garbage="DeviceLost" in _kinds(error))
    if found.reward is None:
        return outcome(STOPPED, None, dict(found.details))
    if not math.isfinite(found.reward):
        return outcome(DIVERGED, None, {"error": f"the reward is {found.reward}", **found.details})
    return outcome(OK, found.reward, dict(found.details))


def verdict_of(error: BaseException) -> str:
    """The verdict on a decoder whose training raised this."""
    kinds = _kinds(error)
    if "Diverged" in kinds:
        return DIVERGED
    if kinds & {"MemoryError", "OutOfMemoryError"}:
        return _OUT_OF_MEMORY
    said = " ".join(str(error).split())
    return f"{FAILED}: {type(error).__name__}{': ' if said else ''}{said if len(said) <= 160 else said[:159] + '…'}"


def _kinds(error: BaseException) -> set[str]:
    """Names of its classes: those of torch and nasdsl.training are not imported for this."""
    return {kind.__name__ for kind in type(error).__mro__}


def _read(value: Any) -> Evaluated:
    """What `evaluate` returned.

    Raises:
        _Garbage: it is none of the things that it may be.
    """
    reward: Any
    details: Any
    if isinstance(value, Evaluated):
        reward, details = value.reward, value.details
    elif isinstance(value, Mapping):
        rest = {name: v for name, v in value.items() if name not in ("reward", "details")}
        reward, details = value.get("reward"), value.get("details", {})
        details = {**rest, **details} if isinstance(details, Mapping) else {**rest, "details": details}
    else:
        reward, details = value, {}
    number = _scalar(reward)
    if number is None and isinstance(details, Mapping) and isinstance(details.get("stopped_at"), int):
        return Evaluated(None, plain(details))
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _Garbage(f"evaluate returned {_short(value)}; expected a number, Evaluated, or a mapping with `reward`")
    return Evaluated(float(number), plain(details))


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of numpy and torch become Python's, those that are not finite null, the rest text."""
    value = _scalar(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(name): plain(v) for name, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return str(value)


def _scalar(value: Any) -> Any:
    """A number of numpy or torch as Python's; anything else as it is."""
    if isinstance(value, float | int) and type(value).__module__ == "builtins":
        return value
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "item") and len(shape) == 0:
        return value.item()
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
