"""Evaluations: what they take and return, and how an exception becomes a verdict."""

from __future__ import annotations

import math
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from nasdsl.backends.layer_errors import layer_error_message
from nasdsl.search.trial import DIVERGED, FAILED, OK, STOPPED, Thresholds

MAX_MESSAGE: Final = 4000
"""Characters that are kept of an error's message, and of its traceback."""

_OUT_OF_MEMORY: Final = f"{FAILED}: out of memory"
_SIGNAL_EXIT_CODES: Final = (128 + signal.SIGINT, 128 + signal.SIGTERM)


@dataclass(frozen=True)
class EvaluationResult:
    """Reward and details of an evaluation.

    Attributes:
        reward: higher is better; a reward that is not finite counts as diverged. None if the evaluation was stopped by its
            thresholds; then the details have ``stopped_at``, the step.
        details: losses, figures, whatever a report may show. Objectives on latency read ``latency`` (seconds), early stopping
            reads ``curve``, the loss by step (``{"100": 1.73, …}``).
    """

    reward: float | None
    details: Mapping[str, Any] = field(default_factory=dict)


Evaluate: TypeAlias = Callable[..., "float | EvaluationResult | Mapping[str, Any]"]
"""Function from the text of a decoder to its reward, or to a mapping with ``reward`` and details. It may raise.

It is called as ``evaluate(text)``, or as ``evaluate(text, thresholds)`` if early stopping has thresholds for the text. There
are thresholds only if earlier evaluations have reported a ``curve``, so a function that takes only a text must not report one.
"""


@dataclass(frozen=True)
class Outcome:
    """Verdict, reward and details of one evaluation, as plain values that survive JSON unchanged.

    Attributes:
        retry: `evaluate` returned something other than a reward, or this process has lost its device: the worker is replaced,
            and the text is evaluated once more, by another worker if there are several.
    """

    verdict: str
    reward: float | None
    details: dict[str, Any]
    seconds: float
    retry: bool = False


class _NotAReward(ValueError):
    """Returned by `evaluate` where a reward was expected."""


def run_evaluation(evaluate: Evaluate, text: str, thresholds: Thresholds | None = None) -> Outcome:
    """Evaluate a text and turn any exception into a verdict.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SystemExit: `evaluate` exits because of a signal, as `nasdsl.training` does.
    """
    start = time.perf_counter()

    def outcome(verdict: str, reward: float | None, details: dict[str, Any], retry: bool = False) -> Outcome:
        return Outcome(verdict, reward, details, time.perf_counter() - start, retry)

    try:
        result = _as_result(evaluate(text, thresholds) if thresholds else evaluate(text))
    except _NotAReward as error:
        return outcome(f"{FAILED}: {error}", None, {"error": str(error)}, retry=True)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code in _SIGNAL_EXIT_CODES:
            raise
        verdict, details = verdict_for(error), {"error": f"{type(error).__name__}: {error}"[:MAX_MESSAGE]}
        if verdict not in (DIVERGED, _OUT_OF_MEMORY):  # a traceback says nothing more about those
            details["traceback"] = traceback.format_exc(limit=-20)[-MAX_MESSAGE:]
        return outcome(verdict, None, details, retry="DeviceLost" in _class_names(error))
    if result.reward is None:
        return outcome(STOPPED, None, dict(result.details))
    if not math.isfinite(result.reward):
        return outcome(DIVERGED, None, {"error": f"the reward is {result.reward}", **result.details})
    return outcome(OK, result.reward, dict(result.details))


def verdict_for(error: BaseException) -> str:
    """The verdict on a decoder whose training raised this error."""
    names = _class_names(error)
    if "Diverged" in names:
        return DIVERGED
    if names & {"MemoryError", "OutOfMemoryError"}:
        return _OUT_OF_MEMORY
    message = " ".join((layer_error_message(error) or str(error)).split())
    return f"{FAILED}: {type(error).__name__}{': ' if message else ''}{_shorten(message, 160)}"


def _class_names(error: BaseException) -> set[str]:
    """Names of the error's classes: torch and nasdsl.training need not be imported to compare with them."""
    return {kind.__name__ for kind in type(error).__mro__}


def _as_result(value: Any) -> EvaluationResult:
    """Convert the return value of `evaluate`.

    Raises:
        _NotAReward: it is none of the things that `Evaluate` may return.
    """
    reward: Any
    details: Any
    if isinstance(value, EvaluationResult):
        reward, details = value.reward, value.details
    elif isinstance(value, Mapping):
        rest = {name: v for name, v in value.items() if name not in ("reward", "details")}
        reward, details = value.get("reward"), value.get("details", {})
        details = {**rest, **details} if isinstance(details, Mapping) else {**rest, "details": details}
    else:
        reward, details = value, {}
    number = _as_scalar(reward)
    if number is None and isinstance(details, Mapping) and isinstance(details.get("stopped_at"), int):
        return EvaluationResult(None, to_plain(details))
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _NotAReward(
            f"evaluate returned {_shorten(repr(value), 60)}; expected a number, EvaluationResult, or a mapping with `reward`"
        )
    return EvaluationResult(float(number), to_plain(details))


def to_plain(value: Any) -> Any:
    """Convert a value to what JSON can hold: numpy and torch numbers to Python's, non-finite ones to None, the rest to text."""
    value = _as_scalar(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(name): to_plain(v) for name, v in value.items()}
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(v) for v in value]
    return str(value)


def _as_scalar(value: Any) -> Any:
    """Convert a 0-d array or tensor to a Python number; return anything else unchanged."""
    if isinstance(value, float | int) and type(value).__module__ == "builtins":
        return value
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "item") and len(shape) == 0:
        return value.item()
    return value


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
