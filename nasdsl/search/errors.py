"""What can be wrong with a search that is no fault of the code."""

from __future__ import annotations


class SearchError(ValueError):
    """A search that cannot start or go on; the message says what was found, where, and what to do."""


class JournalError(SearchError):
    """A journal that cannot be read or written, or that another search is writing."""


class WorkerError(SearchError):
    """Workers that cannot be started, or an evaluation that cannot be sent to them."""


class ObjectiveError(SearchError):
    """An objective that makes no sense."""
