"""Search spaces as problems for other optimizers: Optuna and NePS, each an extra.

``pip install 'nasdsl[optuna]'`` or ``'nasdsl[neps]'``. Both adapters ask only for the decisions that are active: those inside
an alternative exist only where it is chosen. Names of decisions do not change as long as the text of the space does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasdsl.spaces.adapters.decisions import AdapterError, MissingExtra, decision_names
    from nasdsl.spaces.adapters.neps import NepsProblem
    from nasdsl.spaces.adapters.optuna import OptunaProblem

_MODULES = {
    "AdapterError": "decisions",
    "MissingExtra": "decisions",
    "NepsProblem": "neps",
    "OptunaProblem": "optuna",
    "decision_names": "decisions",
}

__all__ = ["AdapterError", "MissingExtra", "NepsProblem", "OptunaProblem", "decision_names"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
