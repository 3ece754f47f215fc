"""Evaluation in the process of the search: nothing to start or to send, and no way to end an evaluation from outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nasdsl.search.evaluation import Evaluate, run_evaluation
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers.pool import Finished


class InlineWorker:
    """This process as the only worker. A sample that crashes the process ends the search, and again after a resume."""

    size = 1
    evaluates_here = True

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._queue: deque[tuple[int, str, Thresholds]] = deque()

    def submit(self, number: int, text: str, thresholds: Thresholds) -> None:
        self._queue.append((number, text, thresholds))

    def wait(self, seconds: float) -> Sequence[Finished]:
        """Evaluate the next text, however long it takes."""
        if not self._queue:
            return []
        number, text, thresholds = self._queue.popleft()
        return [Finished(number, run_evaluation(self._evaluate, text, thresholds), "inline", 1)]

    def finish(self, seconds: float) -> Sequence[Finished]:
        return []

    def close(self) -> None:
        self._queue.clear()
