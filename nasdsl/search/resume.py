"""The strategy of a search, as far as the journal has taken it.

A strategy sees nothing but calls of `propose` and `observe`, and their order is fixed: proposal n comes when so many
results have been told as its record says. So its state follows from the journal. A state on the disk only saves time.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.search.errors import JournalError, SearchError
from nasdsl.search.results import History
from nasdsl.search.trial import Trial
from nasdsl.spaces import Filled

if TYPE_CHECKING:
    from nasdsl.search.strategies import Strategy


class OtherProposal(Exception):
    """Replaying, the strategy proposed something else than the journal has."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Driver:
    """Drives a strategy along a history.

    Attributes:
        proposed, observed: how many proposals it has made, and how many results it has been told.
    """

    def __init__(self, strategy: Strategy, history: History) -> None:
        self.strategy = strategy
        self.history = history
        self.proposed = self.observed = 0
        self._initial = copy.deepcopy(strategy.state())

    def propose(self) -> Filled:
        """The next proposal."""
        with _one_thread():
            text = self.strategy.propose()
        self.proposed += 1
        return text

    def observe(self) -> Trial:
        """Tell the strategy the next result, which must be known."""
        trial = self.history.trial(self.observed)
        if trial is None:
            raise JournalError(
                f"the journal has proposals that were made after the result of trial {self.observed}, and not it"
            )
        with _one_thread():
            self.strategy.observe(trial.text, trial.score)
        self.observed += 1
        return trial

    def restore(self, snapshot: Path) -> str:
        """Bring the strategy to where the journal ends; how that was done, for people.

        The state on the disk is taken if it belongs to this journal, and the rest replayed; if there is none, or if the
        replay shows that it was another, everything is replayed. Each proposal is compared with the journal's. Where they
        differ even so, as they may between machines or versions of torch, the strategy is told all results, which it can
        learn from without having proposed them, and goes on from there to other proposals than it would have made.
        """
        count = len(self.history.proposals)
        state = self._read(snapshot)
        if state is not None:
            try:
                self.strategy.load(state["strategy"])
                self.proposed, self.observed = state["proposed"], state["observed"]
                self._replay()
                return f"the strategy's state was loaded, {count - state['proposed']} proposals replayed"
            except (OtherProposal, ValueError):  # ValueError: the state is none that this version reads
                self.strategy.load(copy.deepcopy(self._initial))
        self.proposed = self.observed = 0
        try:
            self._replay()
            return f"{count} proposals replayed"
        except OtherProposal as error:
            other = error.number
        self.strategy.load(copy.deepcopy(self._initial))
        self.proposed, self.observed = count, 0
        while self.observed < count and self.history.trial(self.observed) is not None:
            self.observe()
        began = ", ".join(f"{name} {v}" for name, v in (self.history.start or {}).get("versions", {}).items())
        return (
            f"replayed, the strategy proposes another trial {other} than it did (with {began}); it was told all results "
            "instead and goes on from there, with other proposals than without the break"
        )

    def _replay(self) -> None:
        history = self.history
        while self.proposed < len(history.proposals):
            number = self.proposed
            while self.observed < history.observed[number]:
                self.observe()
            text = self.propose()
            known = history.proposals[number].text
            if (text, tuple(text.indices)) != (known, known.indices):
                raise OtherProposal(number)

    def save(self, snapshot: Path) -> None:
        """Put the state on the disk.

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
            save_checkpoint(snapshot, state)
        except CheckpointError as error:
            raise SearchError(str(error)) from None

    def _read(self, snapshot: Path) -> dict[str, Any] | None:
        """The state on the disk; None where there is none that can be read and belongs to this journal."""
        from nasdsl.training.checkpoint import load_checkpoint
        from nasdsl.training.errors import CheckpointError

        try:
            loaded = load_checkpoint(snapshot)
        except CheckpointError:
            return None
        if loaded is None:
            return None
        proposed, observed = loaded.state["proposed"], loaded.state["observed"]
        if proposed > len(self.history.proposals) or loaded.state["of"] != self._fingerprint(proposed, observed):
            return None
        return loaded.state

    def _fingerprint(self, proposed: int, observed: int) -> str:
        """Of everything that the strategy has proposed and been told."""
        found = hashlib.sha256()
        for number in range(proposed):
            trial = self.history.trial(number) if number < observed else self.history.proposals[number]
            if trial is None:
                return "unknown"
            found.update(f"{number} {self.history.observed[number]} {trial.text} {trial.score!r}\n".encode())
        return found.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over several threads may differ in their last digit from run to run, and the networks here are small."""
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
