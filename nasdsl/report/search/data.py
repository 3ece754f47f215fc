"""Reads the folder of a search for a report, also while the search is running, or if files are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nasdsl.backbones import UnknownBackbone
from nasdsl.diagnostics import DiagnosticError
from nasdsl.report.reading import ReportError, read_object, read_text
from nasdsl.search.history import history_of
from nasdsl.search.journal import read_journal
from nasdsl.search.results import Trials
from nasdsl.search.run import SearchRun
from nasdsl.search.trial import Trial
from nasdsl.spaces import Space, SpaceError, loads_space

RUN_FORMAT: Final = "nasdsl search run 1"
RANKING_FORMAT: Final = "nasdsl ranking 1"


@dataclass(frozen=True)
class RankedDecoder:
    """A decoder that is fully trained, or will be.

    Attributes:
        trial: number of its trial; None for a baseline.
        proxy_rank: rank by the score of the search, from 1.
        reward: in the search.
        verdict: ``ok``, ``waiting``, ``diverged``, ``failed: reason``.
        ap, ap50: between 0 and 1.
        macs, params: of fpn and head.
        macs_total, params_total: with the backbone.
        seconds: of the training.
        folder: of the training; stages share that of a decoder that is trained once for both.
        text: of the decoder as trained.
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
    folder: Path | None
    error: str | None
    text: str = ""
    macs_total: float | None = None
    params_total: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Decoders by AP after full training, best first."""

    metric: str
    split: str
    size: tuple[int, int] | None
    entries: tuple[RankedDecoder, ...]

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(reward, AP) of each trial that has both."""
        return [(e.reward, e.ap) for e in self.entries if e.trial is not None and e.reward is not None and e.ap is not None]


@dataclass(frozen=True)
class Stage:
    """One search of a run.

    Attributes:
        name: ``fpn``, ``head``; empty for a plain search.
        trials: those that have a verdict.
        started: whether the journal has a record.
        space: the search space; None if its text cannot be parsed.
        space_error: why it cannot be parsed.
        pending: number of proposals without a result.
        requested: number of trials that the search shall make; None if that is not recorded.
        finished: whether no trial is left.
        seconds: from the first to the last record, without interruptions before a resume.
        last: Unix time of the last record.
        options: of the last start of the search: trials, workers, batch, versions, about.
    """

    name: str
    folder: Path
    trials: Trials
    started: bool
    space: Space | None
    space_error: str
    pending: int
    requested: int | None
    finished: bool
    seconds: float
    last: float | None
    options: Mapping[str, Any]
    ranking: Ranking | None

    @property
    def objective_costs(self) -> tuple[str, ...]:
        """The costs that are part of the objective."""
        objective = str(self.trials.start.get("objective", "reward"))
        return tuple(part.partition(":")[0] for part in objective.split(",") if ":" in part)

    @property
    def searches_detectors(self) -> bool:
        """Whether trials differ in image size or backbone, so that only costs of the whole detector compare."""
        return self.space is not None and (len(self.space.sizes) > 1 or len(self.space.backbones) > 1)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by kind of verdict."""
        return Counter(verdict_of(trial) for trial in self.trials)

    @property
    def full_trainings(self) -> dict[int, RankedDecoder]:
        """Full trainings by number of the trial."""
        return {} if self.ranking is None else {e.trial: e for e in self.ranking.entries if e.trial is not None}


@dataclass(frozen=True)
class Search:
    """A plain or progressive search.

    Attributes:
        config: the content of ``search.json``; empty if there is none.
        stages: one without a name, or all of a progressive search, also those that have not started.
        best: text of the best decoder; None if there is none yet.
        best_file: the file of that text; None if it is in no file yet.
    """

    folder: Path
    config: Mapping[str, Any]
    stages: tuple[Stage, ...]
    best: str | None
    best_file: Path | None


def verdict_of(trial: Trial) -> str:
    """The kind of a trial's verdict, which is ``failed`` for ``failed: reason``."""
    return trial.verdict.partition(":")[0]


def read_search(folder: str | Path) -> Search:
    """Read the folder of a search.

    Args:
        folder: the ``--out`` of a search.

    Raises:
        ReportError: the folder is no search, or one of its files has another format.
        JournalError: a journal is broken.
    """
    folder = Path(folder)
    config = _config(folder)
    names = config.get("stages") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_folder_name(name) for name in names):
        raise ReportError(f"{folder / 'search.json'}: `stages` is {names!r}; expected a list of folders")
    stages = tuple(_stage(name, folder / name) for name in names or [""])
    file = SearchRun(folder).best
    best: str | None = None
    if file.is_file():
        best = read_text(file)
    else:
        found = next((stage.trials.best for stage in reversed(stages) if stage.trials.best is not None), None)
        best = None if found is None else str(found.text)
    return Search(folder, config, stages, best, file if file.is_file() else None)


def _is_folder_name(name: str) -> bool:
    """Whether a name is that of a folder in the search's own: `search.json` may come from elsewhere, and name any place."""
    return bool(name) and name != ".." and Path(name).name == name


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / "search.json"
    if not file.is_file():
        if SearchRun(folder).journal.is_file():
            return {}
        what = "there is no such folder" if not folder.exists() else "it has neither search.json nor journal.jsonl"
        raise ReportError(f"{folder} is no search: {what}; expected the folder given to `nasdsl search --out`")
    return read_object(file, RUN_FORMAT)


# ---------------------------------------------------------------------------------------------------- a stage


def stage_of(trials: Trials) -> Stage:
    """A finished search of which nothing but its trials is known."""
    space, space_error = _space(trials.start)
    return Stage(
        "",
        Path(),
        trials,
        started=True,
        space=space,
        space_error=space_error,
        pending=0,
        requested=None,
        finished=True,
        seconds=sum(trial.seconds for trial in trials),
        last=None,
        options={},
        ranking=None,
    )


def _stage(name: str, folder: Path) -> Stage:
    run = SearchRun(folder)
    records = read_journal(run.journal)[0] if run.journal.is_file() else []
    history = history_of(records, run.journal)
    trials = history.trials()
    options: Mapping[str, Any] = next((r for r in reversed(records) if r["kind"] in ("start", "resume")), {})
    requested, limit = (options.get(what) if isinstance(options.get(what), int) else None for what in ("trials", "evaluations"))
    proposed = requested is not None and len(history.proposals) >= requested
    spent = limit is not None and history.evaluations >= limit
    space, space_error = _space(trials.start)
    sessions = _sessions(records)
    return Stage(
        name,
        folder,
        trials,
        started=bool(records),
        space=space,
        space_error=space_error,
        pending=len(history.pending()),
        requested=requested,
        finished=bool(records) and (proposed or spent) and len(trials) == len(history.proposals),
        seconds=sum(end - begin for begin, end in sessions),
        last=sessions[-1][1] if sessions else None,
        options=options,
        ranking=_ranking(folder / "full" / "ranking.json"),
    )


def _space(start: Mapping[str, Any]) -> tuple[Space | None, str]:
    if not start:
        return None, ""
    try:
        text, classes = str(start["space"]), start["classes"]
        space = loads_space(text, classes=classes)  # which has backbones of its own, or
        return space if space.backbones else loads_space(text, backbone=start["backbone"], classes=classes), ""
    except (DiagnosticError, UnknownBackbone, SpaceError, KeyError) as error:
        return None, " ".join(str(error).split())[:200]


def _sessions(records: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(first, last) time of the records of each session; a search has one more session for each resume."""
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
    found = read_object(file, RANKING_FORMAT)
    try:
        entries = tuple(_ranked(entry, file.parent) for entry in found["entries"])
        size = found.get("size")
        return Ranking(
            str(found.get("metric", "AP")), str(found.get("split", "")), tuple(size) if size else None, entries
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{file} does not read as {RANKING_FORMAT!r}: {type(error).__name__}: {error}") from error


def _ranked(entry: Mapping[str, Any], parent: Path) -> RankedDecoder:
    def number(name: str) -> float | None:
        value = entry.get(name)
        return None if isinstance(value, bool) or not isinstance(value, int | float) else value

    trial, rank = entry.get("trial"), entry.get("proxy_rank")
    return RankedDecoder(
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
        (parent / str(entry["folder"])).resolve() if entry.get("folder") else None,
        None if entry.get("error") is None else str(entry["error"]),
        str(entry.get("text") or ""),
        number("macs_total"),
        number("params_total"),
    )
