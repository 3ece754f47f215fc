"""The folder of a search."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasdsl.search.errors import JournalError, SearchError
from nasdsl.search.journal import FORMAT, read_journal
from nasdsl.search.objective import COSTS
from nasdsl.search.results import History, Trials, cost_of
from nasdsl.search.trial import Trial
from nasdsl.syntax.formatter import format_text

COLUMNS = (
    "number", "verdict", "reward", "score", "macs", "params", "seconds", "duplicate_of", "attempts", "worker", "proposed",
    "finished", "digest", "indices", "text",
)  # fmt: skip


@dataclass(frozen=True)
class SearchRun:
    """The folder of a search.

    Files: ``journal.jsonl`` (everything; see `nasdsl.search.journal`) and ``strategy.pt`` (the strategy's state, which
    saves replaying the journal); made from the journal, for people and other tools: ``space.nas``, ``best.nas``,
    ``pareto.json`` and ``trials.csv``.
    """

    folder: Path

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def strategy(self) -> Path:
        return self.folder / "strategy.pt"

    @property
    def space(self) -> Path:
        return self.folder / "space.nas"

    @property
    def best(self) -> Path:
        return self.folder / "best.nas"

    @property
    def pareto(self) -> Path:
        return self.folder / "pareto.json"

    @property
    def trials(self) -> Path:
        return self.folder / "trials.csv"

    def write(self, trials: Trials) -> None:
        """Write what is made from the journal; each file appears when it is whole.

        Raises:
            SearchError: a file cannot be written.
        """
        files = {self.space: str(trials.start.get("space", "")), self.pareto: _pareto(trials), self.trials: _table(trials)}
        if trials.best is not None:
            files[self.best] = _titled(trials.best)
        from nasdsl.training.checkpoint import write_atomically

        for path, text in files.items():
            data = text.encode()
            try:
                write_atomically(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
            except OSError as error:
                raise SearchError(f"cannot write {path}: {error.strerror or error}") from error


def load_trials(folder: str | Path) -> Trials:
    """The trials of a search from its folder, also while it runs: all that reports need.

    Raises:
        JournalError: there is no journal, or it is broken.
    """
    path = SearchRun(Path(folder)).journal
    if not path.exists():
        raise JournalError(f"{folder} is no search: it has no {path.name}")
    return history_of(read_journal(path)[0], path).trials()


def history_of(records: Sequence[Mapping[str, Any]], path: Path | None) -> History:
    """What the records of a journal say.

    Raises:
        JournalError: they do not fit together, or are of another format.
    """
    history = History()
    for line, record in enumerate(records, 1):
        if line == 1 and (record.get("kind") != "start" or record.get("format") != FORMAT):
            raise JournalError(f"{path} is not of the form {FORMAT!r}")
        try:
            history.add(record)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise JournalError(f"{path}:{line}: the record does not fit those before it: {error}") from None
    return history


def _titled(trial: Trial) -> str:
    score = "" if trial.score == trial.reward else f", score {trial.score:.6g}"
    macs = f", {trial.figures['macs']:,} multiply-accumulates" if "macs" in trial.figures else ""
    return format_text(f"# Trial {trial.number}: reward {trial.reward:.6g}{score}{macs}.\n{trial.text}\n")


def _pareto(trials: Trials) -> str:
    def point(trial: Trial) -> dict[str, Any]:
        costs = {cost: known for cost in COSTS if (known := cost_of(trial, cost)) is not None}
        return {"number": trial.number, "reward": trial.reward, "score": trial.score, **costs, "text": str(trial.text)}

    fronts = {cost: [point(trial) for trial in found] for cost, found in trials.fronts().items()}
    return json.dumps(fronts, indent=1, ensure_ascii=False) + "\n"


def _table(trials: Trials) -> str:
    """CSV with a column for each number among the details, as ``details.NAME``."""
    numbers = [dict(_numbers(trial.details)) for trial in trials]
    extra = sorted({name for known in numbers for name in known})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"details.{name}" for name in extra)])
    for trial, known in zip(trials, numbers, strict=True):
        row = {name: getattr(trial, name, None) for name in COLUMNS} | dict(trial.figures)
        row["indices"] = " ".join(map(str, trial.indices))
        row["text"] = str(trial.text)
        writer.writerow([*(row.get(name) for name in COLUMNS), *(known.get(name) for name in extra)])
    return text.getvalue()


def _numbers(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, v in value.items():
        if isinstance(v, Mapping):
            found += _numbers(v, f"{prefix}{name}.")
        elif isinstance(v, int | float) and not isinstance(v, bool):
            found.append((prefix + name, v))
    return found
