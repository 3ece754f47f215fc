"""Architecture search: a strategy proposes texts of a space, workers evaluate them, a journal records every step.

Most users need only ``nasdsl.search(space, evaluate)``: this module is callable, and calls `nasdsl.search.loop.search`. Names
are imported when they are first used, so that processes that only evaluate start quickly.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasdsl.search.backbone_training import BackboneTraining
    from nasdsl.search.budget import Budget
    from nasdsl.search.costs import LatencyPredictor
    from nasdsl.search.detectors import DetectorEvaluation, proxy_specs
    from nasdsl.search.early_stopping import StoppingRule
    from nasdsl.search.errors import BudgetError, FpnError, JournalError, ObjectiveError, SearchError, WorkerError
    from nasdsl.search.evaluation import EvaluationResult
    from nasdsl.search.full_training import FullTraining
    from nasdsl.search.loop import search
    from nasdsl.search.objective import Objective, Target
    from nasdsl.search.pareto import pareto_front
    from nasdsl.search.progressive import plain_search, progressive_search
    from nasdsl.search.proxy_evaluation import ProxyEvaluation
    from nasdsl.search.ranking import Ranking, read_ranking
    from nasdsl.search.results import Trials
    from nasdsl.search.run import SearchRun, load_trials
    from nasdsl.search.stages import SearchSettings, Stage
    from nasdsl.search.trial import Trial

_MODULES = {
    "BackboneTraining": "backbone_training",
    "Budget": "budget",
    "BudgetError": "errors",
    "DetectorEvaluation": "detectors",
    "EvaluationResult": "evaluation",
    "FpnError": "errors",
    "FullTraining": "full_training",
    "JournalError": "errors",
    "LatencyPredictor": "costs",
    "Objective": "objective",
    "ObjectiveError": "errors",
    "ProxyEvaluation": "proxy_evaluation",
    "Ranking": "ranking",
    "SearchError": "errors",
    "SearchRun": "run",
    "SearchSettings": "stages",
    "Stage": "stages",
    "StoppingRule": "early_stopping",
    "Target": "objective",
    "Trial": "trial",
    "Trials": "results",
    "WorkerError": "errors",
    "load_trials": "run",
    "pareto_front": "pareto",
    "plain_search": "progressive",
    "progressive_search": "progressive",
    "proxy_specs": "detectors",
    "read_ranking": "ranking",
    "search": "loop",
}

__all__ = [
    "BackboneTraining",
    "Budget",
    "BudgetError",
    "DetectorEvaluation",
    "EvaluationResult",
    "FpnError",
    "FullTraining",
    "JournalError",
    "LatencyPredictor",
    "Objective",
    "ObjectiveError",
    "ProxyEvaluation",
    "Ranking",
    "SearchError",
    "SearchRun",
    "SearchSettings",
    "Stage",
    "StoppingRule",
    "Target",
    "Trial",
    "Trials",
    "WorkerError",
    "load_trials",
    "pareto_front",
    "plain_search",
    "progressive_search",
    "proxy_specs",
    "read_ranking",
    "search",
]


class _CallablePackage(ModuleType):
    """The class of this package, which makes ``nasdsl.search(…)`` a call of `nasdsl.search.loop.search`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module(f"{__name__}.loop").search(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
