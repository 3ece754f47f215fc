"""The folder of a search: its files, and how they are read and written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasdsl.search.errors import JournalError, SearchError
from nasdsl.search.history import History, history_of
from nasdsl.search.journal import read_journal
from nasdsl.search.objective import AIMS, COSTS
from nasdsl.search.results import Trials, aim_of, cost_of
from nasdsl.search.trial import Trial
from nasdsl.syntax.formatter import format_text

COLUMNS = (
    "number", "verdict", "reward", "score", "macs", "params", "macs_total", "params_total", "latency_total", "seconds",
    "duplicate_of", "attempts", "worker", "proposed", "finished", "digest", "indices", "text",
)  # fmt: skip


@dataclass(frozen=True)
class SearchRun:
    """The folder of a search.

    ``journal.jsonl`` is the whole search (see `nasdsl.search.journal`), ``strategy.pt`` the state of the strategy, which saves
    replaying the journal. The other files are made from the journal, for people and other programs: ``space.nas``,
    ``best.nas``, ``pareto.json``, ``trials.csv``, and with several aims ``front.csv``.

    Args:
        folder: the ``--out`` of a search.
    """

    folder: Path

    @property
    def journal(self) -> Path:
        """The journal, ``journal.jsonl``."""
        return self.folder / "journal.jsonl"

    @property
    def strategy(self) -> Path:
        """The state of the strategy, ``strategy.pt``."""
        return self.folder / "strategy.pt"

    @property
    def space(self) -> Path:
        """The text of the space, ``space.nas``."""
        return self.folder / "space.nas"

    @property
    def best(self) -> Path:
        """The best decoder, ``best.nas``."""
        return self.folder / "best.nas"

    @property
    def pareto(self) -> Path:
        """The front of reward and costs, ``pareto.json``."""
        return self.folder / "pareto.json"

    @property
    def front(self) -> Path:
        """The front of several aims as a table, ``front.csv``."""
        return self.folder / "front.csv"

    @property
    def trials(self) -> Path:
        """All trials as a table, ``trials.csv``."""
        return self.folder / "trials.csv"

    def write(self, trials: Trials) -> None:
        """Write the files that are made from the journal, each atomically.

        Args:
            trials: all trials of the search.

        Raises:
            SearchError: a file cannot be written.
        """
        files = {self.space: str(trials.start.get("space", "")), self.pareto: _pareto(trials), self.trials: _csv(trials)}
        if trials.best is not None:
            files[self.best] = _with_comment(trials.best)
        if trials.aims:
            files[self.front] = _front(trials)
        from nasdsl.files import write_bytes

        for path, text in files.items():
            try:
                write_bytes(path, text.encode())
            except OSError as error:
                raise SearchError(f"cannot write {path}: {error.strerror or error}") from error


def load_history(folder: str | Path) -> History:
    """Read the journal of a search, also while the search is running.

    Raises:
        JournalError: there is no journal, or it is broken.
    """
    path = SearchRun(Path(folder)).journal
    if not path.exists():
        raise JournalError(f"{folder} is no search: it has no {path.name}")
    return history_of(read_journal(path)[0], path)


def load_trials(folder: str | Path) -> Trials:
    """Read the trials of a search from its folder, also while the search is running.

    Args:
        folder: the ``--out`` of a search.

    Raises:
        JournalError: there is no journal, or it is broken.
    """
    return load_history(folder).trials()


def _with_comment(trial: Trial) -> str:
    """The formatted text of a trial under a comment with its reward."""
    score = "" if trial.score == trial.reward else f", score {trial.score:.6g}"
    macs = f", {trial.figures['macs']:,} multiply-accumulates" if "macs" in trial.figures else ""
    if "macs_total" in trial.figures:
        macs += f" ({trial.figures['macs_total']:,} with the backbone)"
    if "latency_total" in trial.figures:
        macs += f", predicted {1000 * trial.figures['latency_total']:.4g} ms"
    return format_text(f"# Trial {trial.number}: reward {trial.reward:.6g}{score}{macs}.\n{trial.text}\n")


def _pareto(trials: Trials) -> str:
    def point(trial: Trial) -> dict[str, Any]:
        costs = {cost: value for cost in COSTS if (value := cost_of(trial, cost)) is not None}
        return {"number": trial.number, "reward": trial.reward, "score": trial.score, **costs, "text": str(trial.text)}

    fronts = {cost: [point(trial) for trial in front] for cost, front in trials.fronts().items()}
    return json.dumps(fronts, indent=1, ensure_ascii=False) + "\n"


def _front(trials: Trials) -> str:
    """CSV of the front of the aims, by rising first cost; ``rank`` is the place in `Trials.top`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "rank", "reward", *(AIMS[aim] for aim in trials.aims), "digest", "text"])
    front = trials.front()
    order = {trial.number: rank for rank, trial in enumerate(trials.top(len(front)), 1)}
    for trial in front:
        costs = (format(aim_of(trial, aim), ".12g") for aim in trials.aims)
        writer.writerow([trial.number, order[trial.number], trial.reward, *costs, trial.digest, str(trial.text)])
    return text.getvalue()


def _csv(trials: Trials) -> str:
    """CSV with a column for each number among the details, as ``details.NAME``."""
    numbers = [dict(_flat_numbers(trial.details)) for trial in trials]
    extra = sorted({name for values in numbers for name in values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"details.{name}" for name in extra)])
    for trial, values in zip(trials, numbers, strict=True):
        row = {name: getattr(trial, name, None) for name in COLUMNS} | dict(trial.figures)
        row["indices"] = " ".join(map(str, trial.indices))
        row["text"] = str(trial.text)
        writer.writerow([*(row.get(name) for name in COLUMNS), *(values.get(name) for name in extra)])
    return text.getvalue()


def _flat_numbers(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """The numbers of nested mappings, with their keys joined by dots."""
    numbers: list[tuple[str, float]] = []
    for name, v in value.items():
        if isinstance(v, Mapping):
            numbers += _flat_numbers(v, f"{prefix}{name}.")
        elif isinstance(v, int | float) and not isinstance(v, bool):
            numbers.append((prefix + name, v))
    return numbers
