"""All trials of a search, and how they follow from a journal's records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from nasdsl.search.objective import COSTS
from nasdsl.search.pareto import front
from nasdsl.search.trial import DIVERGED, DUPLICATE, FAILED, OK, REJECTED, STOPPED, Trial
from nasdsl.spaces import Filled


class Trials(Sequence[Trial]):
    """The trials that have a verdict, by number.

    Attributes:
        start: the journal's first record: space, strategy, seed, objective, versions.
    """

    def __init__(self, trials: Sequence[Trial], start: Mapping[str, Any]) -> None:
        self._trials = tuple(trials)
        self.start = start

    @overload
    def __getitem__(self, at: int) -> Trial: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Trial, ...]: ...
    def __getitem__(self, at: int | slice) -> Trial | tuple[Trial, ...]:
        return self._trials[at]

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        best = self.best
        return f"<Trials: {len(self)}, best {'none' if best is None else f'{best.score:.6g}'}>"

    @property
    def best(self) -> Trial | None:
        """The evaluated trial of the highest score, the first of equals; None where none has one."""
        return max(self.ok, key=lambda trial: (_known(trial.score), -trial.number), default=None)

    @property
    def ok(self) -> list[Trial]:
        """Those that were evaluated and have a reward; duplicates are not among them."""
        return [trial for trial in self if trial.verdict == OK]

    def top(self, count: int) -> list[Trial]:
        """The best of different decoders, best first."""
        return sorted(self.ok, key=lambda trial: (-_known(trial.score), trial.number))[:count]

    def front(self, cost: str = "macs") -> list[Trial]:
        """The Pareto front of reward against a cost of `nasdsl.search.objective.COSTS`, by rising cost."""
        return front(self.ok, lambda trial: trial.reward, lambda trial: cost_of(trial, cost))

    def fronts(self) -> dict[str, list[Trial]]:
        """The front against each cost that is known."""
        return {cost: found for cost in COSTS if (found := self.front(cost))}

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by verdict, failures counted together."""
        found = dict.fromkeys((OK, DUPLICATE, REJECTED, DIVERGED, STOPPED, FAILED), 0)
        for trial in self:
            found[trial.verdict.partition(":")[0]] += 1
        return found


def cost_of(trial: Trial, cost: str) -> float | None:
    """A cost of a trial, or None where it is not known."""
    value = trial.details.get(cost) if cost == "latency" else trial.figures.get(cost)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _known(score: float | None) -> float:
    assert score is not None
    return score


class History:
    """What the records of a journal say. A running search and a resumed one build it from the same records.

    Attributes:
        start: the first record, or None.
        proposals: the texts with what was found out about them before any evaluation, by number.
        results: of evaluations, by number.
        observed: for each proposal, how many results the strategy had been told before it.
        evaluations: how many of the proposals need, or needed, one.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] | None = None
        self.proposals: list[Trial] = []
        self.results: dict[int, Trial] = {}
        self.observed: list[int] = []
        self.evaluations = 0
        self.diagnosed: set[int] = set()
        self._diagnostics: dict[int, dict[str, float]] = {}
        self._first: dict[str, int] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in a record.

        Raises:
            ValueError, KeyError, TypeError: it does not fit those before it.
        """
        match record["kind"]:
            case "start":
                self.start = dict(record)
            case "proposal":
                self._propose(record)
            case "result":
                number = int(record["number"])
                if number in self.results:
                    raise ValueError(f"a second result of trial {number}")
                names = ("verdict", "reward", "score", "details", "seconds", "attempts", "worker")
                known = {name: record[name] for name in names}
                self.results[number] = replace(self.proposals[number], finished=record["time"], **known)
            case "observed":
                number = int(record["number"])
                self.diagnosed.add(number)
                self._diagnostics[number] = dict(record["diagnostics"])
            case _:  # of a later version
                pass

    def _propose(self, record: Mapping[str, Any]) -> None:
        number = len(self.proposals)
        if record["number"] != number:
            raise ValueError(f"trial {record['number']} where {number} was expected")
        rejected, first = record.get("rejected"), record.get("duplicate_of")
        digest = record["digest"]
        trial = Trial(
            number,
            Filled(record["text"], record["indices"]),
            digest,
            verdict=REJECTED if rejected is not None else DUPLICATE if first is not None else "",
            details={} if rejected is None else {"error": rejected},
            figures=record["figures"],
            duplicate_of=first,
            bars={int(step): float(loss) for step, loss in record.get("bars", {}).items()},
            proposed=record["time"],
        )
        self.proposals.append(trial)
        self.observed.append(int(record["observed"]))
        if not trial.verdict:
            self._first[digest] = number
            self.evaluations += 1

    def first(self, digest: str) -> int | None:
        """The number of the first trial with this digest."""
        return self._first.get(digest)

    def waiting(self) -> list[Trial]:
        """Proposals whose evaluation has no result yet, in their order."""
        return [trial for trial in self.proposals if not trial.verdict and trial.number not in self.results]

    def trial(self, number: int) -> Trial | None:
        """A trial with its verdict; None while that is not known."""
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
            found = self.results.get(number)
            if found is None:
                return None
            trial = found
        return replace(trial, diagnostics=self._diagnostics.get(number, {}))

    def __iter__(self) -> Iterator[Trial]:
        for number in range(len(self.proposals)):
            trial = self.trial(number)
            if trial is not None:
                yield trial

    def trials(self) -> Trials:
        """All trials that have a verdict."""
        return Trials(list(self), self.start or {})
