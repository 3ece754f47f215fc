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
    from nasdsl.search.errors import JournalError, ObjectiveError, SearchError, WorkerError
    from nasdsl.search.loop import search
    from nasdsl.search.objective import Objective, Target
    from nasdsl.search.pareto import front
    from nasdsl.search.proxy import ProxyEvaluation
    from nasdsl.search.run import SearchRun, load_trials
    from nasdsl.search.stopping import StoppingRule
    from nasdsl.search.trial import Evaluated, Trial
    from nasdsl.search.trials import Trials

_HOME = {
    "Evaluated": "trial",
    "JournalError": "errors",
    "Objective": "objective",
    "ObjectiveError": "errors",
    "ProxyEvaluation": "proxy",
    "SearchError": "errors",
    "SearchRun": "run",
    "StoppingRule": "stopping",
    "Target": "objective",
    "Trial": "trial",
    "Trials": "trials",
    "WorkerError": "errors",
    "front": "pareto",
    "load_trials": "run",
    "search": "loop",
}

__all__ = [
    "Evaluated",
    "JournalError",
    "Objective",
    "ObjectiveError",
    "ProxyEvaluation",
    "SearchError",
    "SearchRun",
    "StoppingRule",
    "Target",
    "Trial",
    "Trials",
    "WorkerError",
    "front",
    "load_trials",
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
