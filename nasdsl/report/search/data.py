"""What a search's folder holds, read for a report; also while the search runs, and whatever of it is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nasdsl.backbones import UnknownBackbone
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.history import history_of
from nasdsl.search.journal import read_journal
from nasdsl.search.results import Trials
from nasdsl.search.run import SearchRun
from nasdsl.search.trial import Trial
from nasdsl.spaces import Space, SpaceError, loads_space

RUN_FORMAT: Final = "nasdsl search run 1"
RANKING_FORMAT: Final = "nasdsl ranking 1"


class ReportError(ValueError):
    """A folder or file that a report cannot be made of; the message says what was expected."""


@dataclass(frozen=True)
class Ranked:
    """A decoder that was trained in full, or is waiting for it.

    Attributes:
        trial: its number; None for a baseline.
        proxy_rank: place by the score of the search, from 1.
        reward: of the search.
        verdict: ``ok``, ``waiting``, ``diverged``, ``failed: reason``.
        ap, ap50: between 0 and 1.
        macs, params: of fpn and head.
        seconds: of the training.
    """

    name: str
    trial: int | None
    proxy_rank: int | None
    reward: float | None
    verdict: str
    ap: float | None
    ap50: float | None
    macs: float | None
    params: float | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Ranking:
    """Full trainings, best first."""

    metric: str
    split: str
    size: tuple[int, int] | None
    entries: tuple[Ranked, ...]

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(reward, AP) of each trained trial that has both."""
        return [(e.reward, e.ap) for e in self.entries if e.trial is not None and e.reward is not None and e.ap is not None]


@dataclass(frozen=True)
class Stage:
    """One search of a run.

    Attributes:
        name: ``fpn``, ``head``; empty for a plain search.
        trials: those that have a verdict.
        begun: whether there is a journal with a first record.
        space: what was searched; None where its text cannot be read, and `unread` says why.
        waiting: proposals whose evaluation is under way.
        planned: trials asked for; None where that is not recorded.
        done: whether nothing is left to be searched.
        seconds: from first to last record, breaks before a resume left out.
        last: Unix time of the last record.
        told: options of the search as it was last started: trials, workers, batch, versions, about.
    """

    name: str
    folder: Path
    trials: Trials
    begun: bool
    space: Space | None
    unread: str
    waiting: int
    planned: int | None
    done: bool
    seconds: float
    last: float | None
    told: Mapping[str, Any]
    ranking: Ranking | None

    @property
    def weighs(self) -> tuple[str, ...]:
        """The costs that the objective weighs."""
        objective = str(self.trials.start.get("objective", "reward"))
        return tuple(part.partition(":")[0] for part in objective.split(",") if ":" in part)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by verdict, failures counted together."""
        return Counter(verdict_of(trial) for trial in self.trials)

    @property
    def trained(self) -> dict[int, Ranked]:
        """Full trainings by trial."""
        return {} if self.ranking is None else {e.trial: e for e in self.ranking.entries if e.trial is not None}


@dataclass(frozen=True)
class Search:
    """A run, plain or progressive.

    Attributes:
        asked: ``search.json``; empty where there is none.
        stages: one without a name, or each of a progressive search, begun or not.
        best: text of the best decoder; None while there is none.
        best_file: where that text lies; None for one that no file holds yet.
    """

    folder: Path
    asked: Mapping[str, Any]
    stages: tuple[Stage, ...]
    best: str | None
    best_file: Path | None


def verdict_of(trial: Trial) -> str:
    """The kind of a verdict: that of ``failed: reason`` is ``failed``."""
    return trial.verdict.partition(":")[0]


def read_search(folder: str | Path) -> Search:
    """Read a run.

    Raises:
        ReportError: the folder is no search, or a file of it is of another form.
        JournalError: a journal is broken.
    """
    folder = Path(folder)
    asked = _asked(folder)
    names = asked.get("stages") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise ReportError(f"{folder / 'search.json'}: `stages` is {names!r}; expected a list of folders")
    stages = tuple(_stage(name, folder / name) for name in names or [""])
    file = SearchRun(folder).best
    best: str | None = None
    if file.is_file():
        best = _text(file)
    else:
        found = next((stage.trials.best for stage in reversed(stages) if stage.trials.best is not None), None)
        best = None if found is None else str(found.text)
    return Search(folder, asked, stages, best, file if file.is_file() else None)


def _asked(folder: Path) -> Mapping[str, Any]:
    file = folder / "search.json"
    if not file.is_file():
        if SearchRun(folder).journal.is_file():
            return {}
        what = "there is no such folder" if not folder.exists() else "it has neither search.json nor journal.jsonl"
        raise ReportError(f"{folder} is no search: {what}; expected the folder given to `nasdsl search --out`")
    return _json(file, RUN_FORMAT)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ReportError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _json(file: Path, form: str) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(file))
    except ValueError as error:
        raise ReportError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != form:
        raise ReportError(f"{file} is not of the form {form!r}")
    return found


# ---------------------------------------------------------------------------------------------------- a stage


def _stage(name: str, folder: Path) -> Stage:
    run = SearchRun(folder)
    records = read_journal(run.journal)[0] if run.journal.is_file() else []
    history = history_of(records, run.journal)
    trials = history.trials()
    told: Mapping[str, Any] = next((r for r in reversed(records) if r["kind"] in ("start", "resume")), {})
    planned, limit = (told.get(what) if isinstance(told.get(what), int) else None for what in ("trials", "evaluations"))
    proposed = planned is not None and len(history.proposals) >= planned
    spent = limit is not None and history.evaluations >= limit
    space, unread = _space(trials.start)
    sessions = _sessions(records)
    return Stage(
        name,
        folder,
        trials,
        begun=bool(records),
        space=space,
        unread=unread,
        waiting=len(history.pending()),
        planned=planned,
        done=bool(records) and (proposed or spent) and len(trials) == len(history.proposals),
        seconds=sum(end - begin for begin, end in sessions),
        last=sessions[-1][1] if sessions else None,
        told=told,
        ranking=_ranking(folder / "full" / "ranking.json"),
    )


def _space(start: Mapping[str, Any]) -> tuple[Space | None, str]:
    if not start:
        return None, ""
    try:
        return loads_space(str(start["space"]), backbone=start["backbone"], classes=start["classes"]), ""
    except (DiagnosticError, UnknownBackbone, SpaceError, KeyError) as error:
        return None, " ".join(str(error).split())[:200]


def _sessions(records: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """When the search ran: (first, last) record of each time that it was started."""
    found: list[tuple[float, float]] = []
    for record in records:
        time = record.get("time")
        if isinstance(time, bool) or not isinstance(time, int | float):
            continue
        if record["kind"] in ("start", "resume") or not found:
            found.append((time, time))
        else:
            found[-1] = (found[-1][0], max(found[-1][1], time))
    return found


def _ranking(file: Path) -> Ranking | None:
    if not file.is_file():
        return None
    found = _json(file, RANKING_FORMAT)
    try:
        entries = tuple(_ranked(entry) for entry in found["entries"])
        size = found.get("size")
        return Ranking(
            str(found.get("metric", "AP")), str(found.get("split", "")), tuple(size) if size else None, entries
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{file} does not read as {RANKING_FORMAT!r}: {type(error).__name__}: {error}") from error


def _ranked(entry: Mapping[str, Any]) -> Ranked:
    def number(name: str) -> float | None:
        value = entry.get(name)
        return None if isinstance(value, bool) or not isinstance(value, int | float) else value

    trial, rank = entry.get("trial"), entry.get("proxy_rank")
    return Ranked(
        str(entry["name"]),
        None if trial is None else int(trial),
        None if rank is None else int(rank),
        number("reward"),
        str(entry["verdict"]),
        number("ap"),
        number("ap50"),
        number("macs"),
        number("params"),
        number("seconds"),
        None if entry.get("error") is None else str(entry["error"]),
    )
