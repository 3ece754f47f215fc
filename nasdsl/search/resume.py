"""Resuming a search: the strategy is brought back to its state at the end of the journal.

A strategy is driven only by calls of `propose` and `observe`, and the journal fixes their order: the record of a proposal says
how many results the strategy had observed. So its state follows from the journal; a saved state only saves time.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nasdsl.search.errors import JournalError, SearchError
from nasdsl.search.history import History
from nasdsl.search.objective import Objective
from nasdsl.search.trial import Trial
from nasdsl.spaces import Filled

if TYPE_CHECKING:
    from nasdsl.search.strategies import FrontStrategy, Strategy
    from nasdsl.search.strategies.strategy import RecordedStrategy


class ProposalMismatch(Exception):
    """Replaying the journal, the strategy proposed something else than is recorded."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class ResumableStrategy:
    """A strategy together with its position in a history.

    Args:
        objective: of the search; with several aims the strategy observes the costs as well.

    Attributes:
        proposed, observed: how many proposals the strategy has made, and how many results it has observed.
    """

    def __init__(self, strategy: Strategy, history: History, objective: Objective | None = None) -> None:
        self.strategy = strategy
        self.objective = objective or Objective()
        self.history = history
        self.proposed = self.observed = 0
        self._initial = copy.deepcopy(strategy.state())

    def propose(self) -> Filled:
        """Make the next proposal."""
        with _single_thread():
            text = self.strategy.propose()
        self.proposed += 1
        return text

    def observe(self) -> Trial:
        """Give the next result to the strategy.

        Raises:
            JournalError: it is pending, though the journal has proposals that depend on it.
        """
        trial = self.history.trial(self.observed)
        if trial is None:
            raise JournalError(
                f"the journal has proposals that were made after the result of trial {self.observed}, but not that result"
            )
        with _single_thread():
            if self.objective.aims:
                costs = None if trial.score is None else self.objective.costs(trial.figures, trial.details)
                cast("FrontStrategy", self.strategy).observe(trial.text, trial.score, costs)
            else:
                self.strategy.observe(trial.text, trial.score)
        self.observed += 1
        return trial

    def restore(self, path: Path) -> str:
        """Bring the strategy to the end of the journal.

        The saved state is loaded if it belongs to this journal, and the rest is replayed; without such a state, or if the
        replay does not fit it, the whole journal is replayed. Each proposal is compared with the recorded one. If they differ
        after all, as they may between machines or versions of torch, the strategy observes all results instead, as a strategy
        can do without having proposed them, and its next proposals are not those of an uninterrupted search.

        Args:
            path: of the saved state.

        Returns:
            How it was done, for the user.
        """
        count = len(self.history.proposals)
        state = self._load(path)
        if state is not None:
            try:
                self.strategy.load(state["strategy"])
                self.proposed, self.observed = state["proposed"], state["observed"]
                self._replay()
                return f"the strategy's state was loaded, {count - state['proposed']} proposals replayed"
            except (ProposalMismatch, ValueError):  # ValueError: this version cannot read the state
                self.strategy.load(copy.deepcopy(self._initial))
        self.proposed = self.observed = 0
        try:
            self._replay()
            return f"{count} proposals replayed"
        except ProposalMismatch as error:
            number = error.number
        self.strategy.load(copy.deepcopy(self._initial))
        self.proposed, self.observed = count, 0
        while self.observed < count and self.history.trial(self.observed) is not None:
            self.observe()
        versions = ", ".join(f"{name} {v}" for name, v in (self.history.start or {}).get("versions", {}).items())
        return (
            f"on replay the strategy proposed another trial {number} than before (with {versions}); it was given all results "
            "instead, and its next proposals are not those of an uninterrupted search"
        )

    def note(self) -> dict[str, Any]:
        """What the journal records with the last proposal; empty for a strategy that can make it again."""
        return cast("RecordedStrategy", self.strategy).note() if hasattr(self.strategy, "note") else {}

    def _replay(self) -> None:
        history = self.history
        while self.proposed < len(history.proposals):
            number = self.proposed
            while self.observed < history.observed_before[number]:
                self.observe()
            if hasattr(self.strategy, "repropose"):
                cast("RecordedStrategy", self.strategy).repropose(history.proposals[number].text, history.notes.get(number, {}))
                self.proposed += 1
                continue
            # The indices are what a strategy proposes; how the space spells them may differ between versions.
            if tuple(self.propose().indices) != tuple(history.proposals[number].text.indices):
                raise ProposalMismatch(number)

    def save(self, path: Path) -> None:
        """Save the state.

        Raises:
            SearchError: it cannot be written.
        """
        from nasdsl.training.checkpoint import save_checkpoint
        from nasdsl.training.errors import CheckpointError

        state = {
            "step": self.observed,
            "proposed": self.proposed,
            "observed": self.observed,
            "of": self._fingerprint(self.proposed, self.observed),
            "strategy": self.strategy.state(),
        }
        try:
            save_checkpoint(path, state)
        except CheckpointError as error:
            raise SearchError(str(error)) from None

    def _load(self, path: Path) -> dict[str, Any] | None:
        """The saved state; None if there is none that can be read and belongs to this journal."""
        from nasdsl.training.checkpoint import load_checkpoint
        from nasdsl.training.errors import CheckpointError

        try:
            loaded = load_checkpoint(path)
        except CheckpointError:
            return None
        if loaded is None:
            return None
        proposed, observed = loaded.state["proposed"], loaded.state["observed"]
        if proposed > len(self.history.proposals) or loaded.state["of"] != self._fingerprint(proposed, observed):
            return None
        return loaded.state

    def _fingerprint(self, proposed: int, observed: int) -> str:
        """Hash of all proposals and results that the strategy's state depends on."""
        digest = hashlib.sha256()
        for number in range(proposed):
            trial = self.history.trial(number) if number < observed else self.history.proposals[number]
            if trial is None:
                return "unknown"
            line = f"{number} {self.history.observed_before[number]} {trial.text} {trial.score!r}"
            if self.objective.aims and trial.score is not None:
                line += f" {self.objective.costs(trial.figures, trial.details)}"
            digest.update(f"{line}\n".encode())
        return digest.hexdigest()


@contextmanager
def _single_thread() -> Iterator[None]:
    """Run torch on one thread: sums over several may differ in their last digit from run to run, and the networks are small."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    if before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before != 1:
            torch.set_num_threads(before)
