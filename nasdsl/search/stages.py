"""A stage of a search: a space searched on the proxy task, and its best decoders fully trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.search.budget import Budget, BudgetedSpace, parse_budgets
from nasdsl.search.costs import DetectorCosts
from nasdsl.search.detectors import DetectorEvaluation, DetectorKey
from nasdsl.search.early_stopping import StoppingRule, check_objective
from nasdsl.search.errors import SearchError
from nasdsl.search.full_training import FullTraining, train_top
from nasdsl.search.latency_budget import predictor_for, with_required
from nasdsl.search.loop import search
from nasdsl.search.objective import Objective
from nasdsl.search.proxy_evaluation import CHECKS, ProxyEvaluation
from nasdsl.search.ranking import Ranking, RankingEntry
from nasdsl.search.results import Trials
from nasdsl.search.run import SearchRun, load_history
from nasdsl.search.strategies import DEFAULT_STRATEGY, Aims, StrategyError, make_strategy
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.trial import Trial
from nasdsl.search.workers import parse_workers, shared_gpus_of
from nasdsl.spaces import Space, SpaceError

if TYPE_CHECKING:
    from nasdsl.search.supernet.evaluation import SupernetEvaluation
    from nasdsl.training.proxy import ProxySpec


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The space of a stage, and how many of its decoders are evaluated.

    Attributes:
        space: of the decoders.
        proxy: the proxy task that evaluates them.
        trials, evaluations: see `nasdsl.search.search`.
        top: number of the best decoders that are fully trained.
        detectors: the proxy task of each backbone and size that texts name, see `nasdsl.search.detectors.proxy_specs`. Empty:
            `proxy` evaluates all.
        supernet: evaluate decoders with the weights that they inherit from a weight-sharing network; None: by training each.
    """

    space: Space
    proxy: ProxySpec
    trials: int = 500
    evaluations: int | None = None
    top: int = 0
    detectors: Mapping[DetectorKey, ProxySpec] = field(default_factory=dict)
    supernet: SupernetSpec | None = None

    def make_evaluation(
        self, folder: Path, latency: tuple[int, int] | None, stopping: StoppingRule | None = None, *, quiet: bool
    ) -> ProxyEvaluation | DetectorEvaluation | SupernetEvaluation:
        """The evaluation of the stage's decoders.

        Args:
            folder: of the stage, for the weights of a weight-sharing network.
            latency: size of an image for which a decoder's seconds are measured; decoders that name a size are measured at
                their own. None: not measured.
            stopping: rule that evaluations may be stopped by; says the steps at which their losses are recorded.
            quiet: show no progress.
        """
        if self.supernet is not None:
            from nasdsl.search.supernet.evaluation import SupernetEvaluation
            from nasdsl.search.supernet.spec import FILE

            proxies = self.detectors or {(None, None): self.proxy}
            return SupernetEvaluation(self.space, proxies, self.supernet, folder / FILE, latency, quiet=quiet)
        made = {
            key: ProxyEvaluation(
                spec, None if latency is None else key[1] or latency, checks=_checks(spec, stopping), quiet=quiet
            )
            for key, spec in (self.detectors or {(None, None): self.proxy}).items()
        }
        return DetectorEvaluation(made) if len(made) > 1 else next(iter(made.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``search.json``."""
        numbers = {"trials": self.trials, "evaluations": self.evaluations, "top": self.top}
        space = self.space
        shared = {} if self.supernet is None else {"supernet": self.supernet.to_dict()}  # earlier searches have no such entry
        return {"name": space.name, "space": space.source.text, "classes": space.classes, **numbers, **shared}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of all stages of a search; see the parameters of `nasdsl.search.search` with the same names.

    Attributes:
        strategy: its name; None: the default.
        options: of the strategy.
        seed: of the strategy.
        objective: what is maximised; see `Objective.parse`.
        budgets: limits; see `Budget.parse`. None: none.
        stopping: early stopping; see `StoppingRule.parse`.
        size: height and width of the image that costs are counted for.
        workers: ``inline``, ``process:N``, ``ray:N`` or ``folder:DIR``.
        batch: proposals without a result at a time; None: as many as keep the workers busy.
        timeout: limit of an evaluation in seconds; None: none.
        about: further values for the journal.
    """

    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    objective: str = "reward"
    budgets: tuple[str, ...] | None = None
    stopping: str = "none"
    size: tuple[int, int] = DEFAULT_SIZE
    workers: str = "inline"
    batch: int | None = None
    timeout: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def check(self, space: Space, folder: Path) -> None:
        """Check, before any work, that a space can be searched with these settings.

        Args:
            space: the space that is searched.
            folder: of the search, for the table of a budget of latency.

        Raises:
            SearchError: a setting is invalid, or does not go with another.
        """
        objective = Objective.parse(self.objective)
        check_objective(objective, StoppingRule.parse(self.stopping))
        parse_workers(self.workers, self.timeout)
        budgets = self.budgets_of(space)
        costs = DetectorCosts(space, self.size, predictor_for(budgets, space, self.size, folder))
        aims = Aims(objective.aims, costs) if objective.aims else None
        try:
            if budgets:
                BudgetedSpace(space, budgets, costs).sample(self.seed)
            make_strategy(self.strategy or DEFAULT_STRATEGY, space, self.seed, aims, **self.options)
        except (StrategyError, SpaceError) as error:
            raise SearchError(str(error)) from None

    def budgets_of(self, space: Space) -> tuple[Budget, ...]:
        """The budgets of a search, with the latency that the text of its space requires.

        Args:
            space: the space that is searched.
        """
        return with_required(parse_budgets(self.budgets or ()), space, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``search.json``."""
        budgets = None if self.budgets is None else list(self.budgets)
        return {**{k: v for k, v in asdict(self).items() if k != "about"}, "budgets": budgets, "size": list(self.size)}


@dataclass(frozen=True)
class StageResult:
    """Result of a stage.

    Attributes:
        name: ``fpn`` or ``head``; empty for a search without stages.
        folder: of the stage.
        trials: all trials.
        ranking: of the fully trained decoders; None without full training.
    """

    name: str
    folder: Path
    trials: Trials
    ranking: Ranking | None

    @property
    def best(self) -> Trial | None:
        """The first of `ranked`; None if no trial has a reward."""
        return next(iter(self.ranked), None)

    @property
    def ranked(self) -> list[Trial]:
        """The trials that have a reward, best first: those with an AP by their AP, then the others by their score."""
        entries = () if self.ranking is None else self.ranking.entries
        numbers = [entry.trial for entry in entries if entry.ap is not None and entry.trial is not None]
        trained = [next(trial for trial in self.trials if trial.number == number) for number in numbers]
        return trained + [trial for trial in self.trials.top(len(self.trials)) if trial.number not in numbers]

    @property
    def trained(self) -> RankingEntry | None:
        """The full training of `best`; None if it has none."""
        return None if self.best is None else self.training_of(self.best)

    def training_of(self, trial: Trial) -> RankingEntry | None:
        """The full training of a trial that gave an AP; None if there is none."""
        entries = () if self.ranking is None else self.ranking.entries
        return next((entry for entry in entries if entry.trial == trial.number and entry.ap is not None), None)


def _checks(spec: ProxySpec, stopping: StoppingRule | None) -> Sequence[float]:
    """The steps at which losses are recorded, as shares of the iterations."""
    steps = None if stopping is None else stopping.checks(spec.iterations)
    return CHECKS if steps is None else [step / spec.iterations for step in steps]


def run_stage(
    stage: Stage,
    settings: SearchSettings,
    full: FullTraining | None,
    folder: Path,
    *,
    name: str = "",
    known: Mapping[Path, Ranking] | None = None,
    quiet: bool = False,
) -> StageResult:
    """Search the space of a stage, then train its best decoders; what is finished in the folder is not repeated.

    Args:
        known: rankings of other stages; see `train_top`.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; everything is saved.
        FpnError: heads cannot be searched on the fpn of the stage's proxy task.
        SearchError, ProxyError, TrainingError, DataError, BackboneError: see `search`, `ProxyEvaluation` and `train_top`.
    """
    trials = finished_trials(stage, folder)
    if trials is None:
        trials = _search(stage, settings, folder, quiet)
    ranking = None
    if full is not None and stage.top:
        ranking = train_top(trials.top(stage.top), full, folder / "full", settings.size, known=known, quiet=quiet)
    return StageResult(name, folder, trials, ranking)


def finished_trials(stage: Stage, folder: Path) -> Trials | None:
    """The trials of a stage whose search is complete; None if it is not, or was of another space.

    Raises:
        SearchError: the journal cannot be read, or the files beside it cannot be written.
    """
    run = SearchRun(folder)
    if not run.journal.exists():
        return None
    history = load_history(folder)
    if history.start is None or history.start["space"] != stage.space.source.text or history.pending():
        return None
    spent = stage.evaluations is not None and history.evaluations >= stage.evaluations
    if len(history.proposals) < stage.trials and not spent:
        return None
    trials = history.trials()
    run.write(trials)  # a kill may have prevented it
    return trials


def _search(stage: Stage, settings: SearchSettings, folder: Path, quiet: bool) -> Trials:
    """Search the space of a stage. The evaluation is freed on return, because its features take memory that training needs."""
    objective = Objective.parse(settings.objective)
    latency = settings.size if objective.needs_latency else None
    evaluation = stage.make_evaluation(folder, latency, StoppingRule.parse(settings.stopping), quiet=quiet)
    try:
        evaluation.prepare(keep=settings.workers == "inline", share_on=shared_gpus_of(settings.workers))
        budgets = settings.budgets_of(stage.space)
        return search(
            stage.space,
            evaluation,
            settings.strategy,
            stage.trials,
            settings.seed,
            out=folder,
            resume=True,
            workers=settings.workers,
            objective=objective,
            budgets=budgets,
            latency=predictor_for(budgets, stage.space, settings.size, folder),
            stopping=settings.stopping,
            task=evaluation.identity,
            timeout=settings.timeout,
            batch=settings.batch,
            evaluations=stage.evaluations,
            size=settings.size,
            options=settings.options,
            about=settings.about,
            quiet=quiet,
        )
    finally:
        evaluation.release()
