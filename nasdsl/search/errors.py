"""Errors of a search that its user can mend."""

from __future__ import annotations


class SearchError(ValueError):
    """A search cannot start or go on; the message says what was found, where, and what to do."""


class JournalError(SearchError):
    """A journal cannot be read or written, or another search is writing it."""


class WorkerError(SearchError):
    """Workers cannot be started, or an evaluation cannot be sent to them."""


class ObjectiveError(SearchError):
    """An objective is invalid, or a cost that it weighs is missing."""


class BudgetError(SearchError):
    """A budget is invalid, or nothing can be within it."""


class FpnError(SearchError):
    """Heads cannot be searched on an fpn, because it cannot be trained or its features cannot be used."""
