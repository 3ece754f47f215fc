"""The state of a search, built from the records of its journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasdsl.search.errors import JournalError
from nasdsl.search.journal import FORMAT
from nasdsl.search.results import Trials
from nasdsl.search.trial import DUPLICATE, REJECTED, Trial
from nasdsl.spaces import Filled


class History:
    """Proposals and results of a search. A running search and a resumed one build it from the same records.

    Attributes:
        start: the first record; None before it is added.
        proposals: trials by number, without results; those still to be evaluated have an empty verdict.
        results: evaluated trials by number.
        observed_before: for each proposal, how many results the strategy had observed when it was made.
        evaluations: how many proposals need an evaluation, or needed one.
        diagnostics: of the strategy, by the number of the trial that it had observed last.
        notes: of the strategy, by the number of the proposal; see `RecordedStrategy.note`.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.proposals: list[Trial] = []
        self.results: dict[int, Trial] = {}
        self.observed_before: list[int] = []
        self.evaluations = 0
        self.diagnostics: dict[int, dict[str, float]] = {}
        self.notes: dict[int, dict[str, Any]] = {}
        self._by_digest: dict[str, int] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a record.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it does not fit those before it.
        """
        match record["kind"]:
            case "start":
                self.start = dict(record)
            case "proposal":
                self._add_proposal(record)
            case "result":
                number = int(record["number"])
                if number in self.results:
                    raise ValueError(f"a second result of trial {number}")
                names = ("verdict", "reward", "score", "details", "seconds", "attempts", "worker")
                values = {name: record[name] for name in names}
                self.results[number] = replace(self.proposals[number], finished=record["time"], **values)
            case "observed":
                self.diagnostics[int(record["number"])] = dict(record["diagnostics"])
            case _:  # of a later version
                pass

    def _add_proposal(self, record: Mapping[str, Any]) -> None:
        number = len(self.proposals)
        if record["number"] != number:
            raise ValueError(f"trial {record['number']} where {number} was expected")
        rejected, original = record.get("rejected"), record.get("duplicate_of")
        digest = record["digest"]
        trial = Trial(
            number,
            Filled(record["text"], record["indices"]),
            digest,
            verdict=REJECTED if rejected is not None else DUPLICATE if original is not None else "",
            details={} if rejected is None else {"error": rejected},
            figures=record["figures"],
            duplicate_of=original,
            thresholds={int(step): float(loss) for step, loss in record.get("bars", {}).items()},
            proposed=record["time"],
        )
        self.proposals.append(trial)
        if "note" in record:
            self.notes[number] = dict(record["note"])
        self.observed_before.append(int(record["observed"]))
        if not trial.verdict:
            self._by_digest[digest] = number
            self.evaluations += 1

    def number_of(self, digest: str) -> int | None:
        """The number of the evaluated trial with this digest."""
        return self._by_digest.get(digest)

    def pending(self) -> list[Trial]:
        """Proposals whose evaluation has no result yet, by number."""
        return [trial for trial in self.proposals if not trial.verdict and trial.number not in self.results]

    def trial(self, number: int) -> Trial | None:
        """A trial with its verdict; None while it is pending."""
        trial = self.proposals[number]
        if trial.duplicate_of is not None:
            original = self.results.get(trial.duplicate_of)
            if original is None:
                return None
            finished = max(trial.proposed, original.finished)
            trial = replace(trial, finished=finished, reward=original.reward, score=original.score, details=original.details)
        elif trial.verdict == REJECTED:
            trial = replace(trial, finished=trial.proposed)
        else:
            result = self.results.get(number)
            if result is None:
                return None
            trial = result
        return replace(trial, diagnostics=self.diagnostics.get(number, {}))

    def __iter__(self) -> Iterator[Trial]:
        for number in range(len(self.proposals)):
            trial = self.trial(number)
            if trial is not None:
                yield trial

    def trials(self) -> Trials:
        """All trials that have a verdict."""
        return Trials(list(self), self.start or {})


def history_of(records: Sequence[Mapping[str, Any]], path: Path | None) -> History:
    """Build the history from the records of a journal.

    Args:
        path: of the journal, for messages.

    Raises:
        JournalError: the records contradict each other, or are of another format.
    """
    history = History()
    for line, record in enumerate(records, 1):
        if line == 1 and (record.get("kind") != "start" or record.get("format") != FORMAT):
            raise JournalError(f"{path} is not of the format {FORMAT!r}")
        try:
            history.add(record)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise JournalError(f"{path}:{line}: the record does not fit those before it: {error}") from None
    return history
