"""The search: a strategy that proposes texts of a space, workers that score them, a journal that survives anything.

``nasdsl.search(space, evaluate)`` is the whole of it for most users: this module can be called, and calls
`nasdsl.search.loop.search`. Nothing is imported before it is used, so that processes which only evaluate start quickly.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasdsl.search.early_stopping import StoppingRule
    from nasdsl.search.errors import JournalError, ObjectiveError, SearchError, WorkerError
    from nasdsl.search.full_training import FullTraining
    from nasdsl.search.loop import search
    from nasdsl.search.objective import Objective, Target
    from nasdsl.search.pareto import front
    from nasdsl.search.progressive import plain_search, progressive_search
    from nasdsl.search.proxy_evaluation import ProxyEvaluation
    from nasdsl.search.ranking import Ranking, read_ranking
    from nasdsl.search.results import Trials
    from nasdsl.search.run import SearchRun, load_trials
    from nasdsl.search.stages import How, Stage
    from nasdsl.search.trial import Evaluated, Trial

_HOME = {
    "Evaluated": "trial",
    "FullTraining": "full_training",
    "How": "stages",
    "JournalError": "errors",
    "Objective": "objective",
    "ObjectiveError": "errors",
    "ProxyEvaluation": "proxy_evaluation",
    "Ranking": "ranking",
    "SearchError": "errors",
    "SearchRun": "run",
    "Stage": "stages",
    "StoppingRule": "early_stopping",
    "Target": "objective",
    "Trial": "trial",
    "Trials": "results",
    "WorkerError": "errors",
    "front": "pareto",
    "load_trials": "run",
    "plain_search": "progressive",
    "progressive_search": "progressive",
    "read_ranking": "ranking",
    "search": "loop",
}

__all__ = [
    "Evaluated",
    "FullTraining",
    "How",
    "JournalError",
    "Objective",
    "ObjectiveError",
    "ProxyEvaluation",
    "Ranking",
    "SearchError",
    "SearchRun",
    "Stage",
    "StoppingRule",
    "Target",
    "Trial",
    "Trials",
    "WorkerError",
    "front",
    "load_trials",
    "plain_search",
    "progressive_search",
    "read_ranking",
    "search",
]


class _Callable(ModuleType):
    """``nasdsl.search`` is a package by the rules of imports, and a function for users."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module(f"{__name__}.loop").search(*args, **options)


sys.modules[__name__].__class__ = _Callable


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
