"""A stage of a search: a space searched with the proxy task, and the best of it fully trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.search.errors import SearchError
from nasdsl.search.full import FullTraining, train_top
from nasdsl.search.journal import read_journal
from nasdsl.search.loop import search
from nasdsl.search.objective import Objective
from nasdsl.search.proxy import ProxyEvaluation
from nasdsl.search.ranking import Entry, Ranking
from nasdsl.search.run import SearchRun, history_of
from nasdsl.search.stopping import StoppingRule
from nasdsl.search.strategies import DEFAULT_STRATEGY, StrategyError, make_strategy
from nasdsl.search.trial import Trial
from nasdsl.search.trials import Trials
from nasdsl.search.workers import parse_workers
from nasdsl.spaces import Space
from nasdsl.training import Diverged

if TYPE_CHECKING:
    from nasdsl.training.proxy import ProxySpec


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is searched.

    Attributes:
        space: of the decoders.
        proxy: what scores them.
        trials, evaluations: how many; see `nasdsl.search.search`.
        top: so many of the best are fully trained.
    """

    space: Space
    proxy: ProxySpec
    trials: int = 500
    evaluations: int | None = None
    top: int = 0

    def asked(self) -> dict[str, Any]:
        """Plain values, for ``search.json``."""
        numbers = {"trials": self.trials, "evaluations": self.evaluations, "top": self.top}
        space = self.space
        return {"name": space.name, "space": space.source.text, "classes": space.classes, **numbers}


@dataclass(frozen=True, kw_only=True)
class How:
    """How all stages of a search are searched; see `nasdsl.search.search`, which has the same names."""

    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    objective: str = "reward"
    stopping: str = "none"
    size: tuple[int, int] = DEFAULT_SIZE
    workers: str = "inline"
    batch: int | None = None
    timeout: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def check(self, space: Space) -> None:
        """See that a search of a space can start like this, before anything is spent on it.

        Raises:
            SearchError: an argument makes no sense, or does not go with another.
        """
        objective, rule = Objective.parse(self.objective), StoppingRule.parse(self.stopping)
        if rule is not None and objective.timed:
            raise SearchError(
                "the objective weighs latency, which is known after an evaluation only: expected no early stopping with it"
            )
        kind, _, _ = parse_workers(self.workers)
        if self.timeout is not None and kind == "inline":
            raise SearchError("a timeout needs workers that can be ended: process:1 instead of inline")
        try:
            make_strategy(self.strategy or DEFAULT_STRATEGY, space, self.seed, **self.options)
        except StrategyError as error:
            raise SearchError(str(error)) from None

    def asked(self) -> dict[str, Any]:
        """Plain values, for ``search.json``."""
        return {**{k: v for k, v in asdict(self).items() if k != "about"}, "size": list(self.size)}


@dataclass(frozen=True)
class Found:
    """What a stage came to.

    Attributes:
        name: ``fpn`` or ``head``; empty of a search without stages.
        folder: of it.
        trials: all of them.
        ranking: of the fully trained ones; None where none were to be trained.
    """

    name: str
    folder: Path
    trials: Trials
    ranking: Ranking | None

    @property
    def best(self) -> Trial | None:
        """The trial of the best AP where some were trained, else of the best score; None where none has one."""
        trained = self.trained
        if trained is None:
            return self.trials.best
        return next(trial for trial in self.trials if trial.number == trained.trial)

    @property
    def trained(self) -> Entry | None:
        """The training of `best`; None where it was not trained."""
        return None if self.ranking is None else self.ranking.best


def run_stage(
    stage: Stage,
    how: How,
    full: FullTraining | None,
    folder: Path,
    *,
    name: str = "",
    known: Mapping[Path, Ranking] | None = None,
    quiet: bool = False,
) -> Found:
    """Search, then train the best; what the folder holds of both already is not done again.

    Raises:
        Interrupted: SIGINT or SIGTERM came; everything is saved.
        SearchError, ProxyError, TrainingError, DataError, BackboneError: see `search`, `ProxyEvaluation` and `train_top`.
    """
    trials = finished_trials(stage, folder)
    if trials is None:
        trials = _search(stage, how, folder, quiet)
    ranking = None
    if full is not None and stage.top:
        ranking = train_top(trials.top(stage.top), full, folder / "full", how.size, known=known, quiet=quiet)
    return Found(name, folder, trials, ranking)


def finished_trials(stage: Stage, folder: Path) -> Trials | None:
    """The trials of a stage whose search is complete; None of one that is not, or was of another space.

    Raises:
        SearchError: the journal cannot be read, or the files beside it not be written.
    """
    run = SearchRun(folder)
    if not run.journal.exists():
        return None
    history = history_of(read_journal(run.journal)[0], run.journal)
    if history.start is None or history.start["space"] != stage.space.source.text or history.waiting():
        return None
    spent = stage.evaluations is not None and history.evaluations >= stage.evaluations
    if len(history.proposals) < stage.trials and not spent:
        return None
    trials = history.trials()
    run.write(trials)  # a kill may have come before that
    return trials


def _search(stage: Stage, how: How, folder: Path, quiet: bool) -> Trials:
    """Evaluations, and the features that they hold in memory, end with this function: training needs the memory."""
    weighed = Objective.parse(how.objective)
    evaluation = ProxyEvaluation(stage.proxy, how.size if weighed.timed else None, quiet=quiet)
    try:
        evaluation.prepare(keep=how.workers == "inline")
    except Diverged as error:
        raise SearchError(f"the fpn that heads are to be searched on cannot be trained: {error}") from None
    return search(
        stage.space,
        evaluation,
        how.strategy,
        stage.trials,
        how.seed,
        out=folder,
        resume=True,
        workers=how.workers,
        objective=weighed,
        stopping=how.stopping,
        task=evaluation.identity,
        timeout=how.timeout,
        batch=how.batch,
        evaluations=stage.evaluations,
        size=how.size,
        options=how.options,
        about=how.about,
        quiet=quiet,
    )
