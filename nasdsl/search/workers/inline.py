"""Evaluation in the search's own process: nothing is started, nothing is sent, and nothing can be ended from outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nasdsl.search.trial import Bars, Evaluate, run_evaluation
from nasdsl.search.workers.pool import Finished


class Inline:
    """One worker: this process. A sample that ends the process ends the search, and again after a resume."""

    size = 1
    evaluates_here = True

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._waiting: deque[tuple[int, str, Bars]] = deque()

    def submit(self, number: int, text: str, bars: Bars) -> None:
        self._waiting.append((number, text, bars))

    def wait(self, seconds: float) -> Sequence[Finished]:
        """Evaluate the next text, however long it takes."""
        if not self._waiting:
            return []
        number, text, bars = self._waiting.popleft()
        return [Finished(number, run_evaluation(self._evaluate, text, bars), "inline", 1)]

    def finish(self, seconds: float) -> Sequence[Finished]:
        return []

    def close(self) -> None:
        self._waiting.clear()
