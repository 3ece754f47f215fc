"""The search loop: propose, check, evaluate, observe; each step is recorded before the next."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.check import Check, make_check, rejection_reason, with_costs
from nasdsl.search.config import check_folder, check_unchanged
from nasdsl.search.costs import DetectorCosts, KnownCosts, LatencyPredictor
from nasdsl.search.early_stopping import LossCurve, LossStatistics, StoppingRule, check_objective, loss_weight
from nasdsl.search.errors import ObjectiveError, SearchError
from nasdsl.search.evaluation import Evaluate, to_plain
from nasdsl.search.history import history_of
from nasdsl.search.journal import FORMAT, Journal
from nasdsl.search.objective import Objective
from nasdsl.search.progress import SearchProgress
from nasdsl.search.results import Trials
from nasdsl.search.resume import ResumableStrategy
from nasdsl.search.run import SearchRun
from nasdsl.search.trial import FAILED, OK, STOPPED, Thresholds
from nasdsl.search.versions import versions
from nasdsl.search.workers import make_workers, parse_workers
from nasdsl.search.workers.pool import Finished
from nasdsl.spaces import Space, SpaceError
from nasdsl.training.signals import Interrupted, SignalHandler

if TYPE_CHECKING:
    from nasdsl.search.budget import Budget, BudgetedSpace
    from nasdsl.search.strategies import Strategy
    from nasdsl.search.workers import Workers

GRACE: Final = 10.0
"""Seconds that evaluations under way have to end after a signal; then they are abandoned, and repeated after a resume."""
SAVE_EVERY: Final = 30.0
"""Seconds between two writes of the strategy's state and of the files that are made from the journal."""
MUST_MATCH: Final = (
    "space", "backbone", "classes", "size", "strategy", "options", "seed", "objective", "budgets", "stopping", "task",
)  # fmt: skip
"""Settings that may not change when a search is resumed. Trials, workers, batch and limits may."""


def search(
    space: Space,
    evaluate: Evaluate,
    strategy: str | Strategy | None = None,
    trials: int = 500,
    seed: int = 0,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    workers: str = "inline",
    objective: Objective | str | None = None,
    budgets: Iterable[Budget | str] = (),
    stopping: StoppingRule | str | None = None,
    task: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    batch: int | None = None,
    evaluations: int | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    options: Mapping[str, Any] | None = None,
    check: Check | None = None,
    costs: KnownCosts | None = None,
    latency: LatencyPredictor | None = None,
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Trials:
    """Search a space for the decoder with the highest reward, or for the front of reward and costs.

    The trials depend only on the seed, the strategy, `batch` and the rewards, not on the workers: results are recorded as they
    arrive and observed by the strategy in the order of the proposals, and proposal n is made when n - batch + 1 results
    have been observed. Only times differ, and the order of lines in the journal if several workers evaluate at once.

    Args:
        evaluate: from text to reward; see `nasdsl.search.evaluation.Evaluate`. An exception is recorded as a failure. Unless
            workers are inline it must be importable: a function at the top level of a module, or an object that can be
            pickled.
        strategy: a name in `nasdsl.search.strategies.STRATEGIES`, a strategy object, or None for the default.
        trials: number of proposals, including duplicates and rejected ones.
        out: folder of the search; see `SearchRun`. None keeps nothing and does not handle signals.
        resume: go on with the search in `out`; start one if there is none. It may have more trials than before.
        workers: ``inline``, ``process:N``, ``ray``, ``ray:N``, ``ray:N@ADDRESS`` or ``folder:DIR``.
        objective: what is maximised, or several aims; see `Objective.parse`. None: the reward.
        budgets: limits on costs of the whole detector; see `Budget.parse`. What exceeds one is rejected before its evaluation,
            and strategies that are given by name do not propose it.
        stopping: rule that stops hopeless evaluations by their ``curve``; see `StoppingRule.parse`. None: no rule.
        task: what rewards depend on besides the text, by name, such as `ProxyEvaluation.identity`. A search is resumed only
            with the same task.
        timeout: limit of an evaluation in seconds; not for inline workers.
        batch: number of proposals without a result at a time. None: 1 for one worker, 2 per worker for several, which keeps
            them busy.
        evaluations: stop proposing after so many proposals that need an evaluation.
        size: height and width of the image that costs are counted for.
        options: of the strategy.
        check: from a proposal to its digest and figures. None: the whole front end, requirements and cost.
        costs: of a filling, by name, for budgets and aims. None: those of `DetectorCosts`.
        latency: predicts the latency of a whole detector, for a budget on it or as an aim. None: there can be no such budget,
            and as an aim it is measured by the evaluation.
        about: further values for the journal, such as the command.
        quiet: show nothing.
        space: whose fillings are evaluated.
        seed: of the strategy, when it is given by name.

    Raises:
        SearchError: an argument is invalid, the folder holds another search, or workers do not start.
        Interrupted: SIGINT or SIGTERM was received; everything is saved. Uncaught, it exits with code 130 or 143.
    """
    parsed = objective if isinstance(objective, Objective) else Objective.parse(objective or "reward")
    rule = stopping if isinstance(stopping, StoppingRule) else StoppingRule.parse(stopping or "none")
    check_objective(parsed, rule)
    limits = _parse_budgets(budgets)
    parse_workers(workers, timeout)
    for name, number, least in (("trials", trials, 0), ("batch", batch, 1), ("evaluations", evaluations, 0)):
        if number is not None and number < least:
            raise SearchError(f"{name} is {number}; expected {least} or more")
    if resume and out is None:
        raise SearchError("resume needs the folder of the search")
    known = costs or DetectorCosts(space, size, latency)
    limited = _limit(space, limits, known)
    aims = (parsed.aims, known) if parsed.aims else None
    name, made = _make_strategy(strategy, limited or space, seed, aims, dict(options or {}))
    settings = {
        "space": space.source.text,
        "backbone": space.backbone.name,
        "classes": space.classes,
        "size": list(size),
        "strategy": name,
        "options": to_plain(options or {}),
        "seed": seed,
        "objective": str(parsed),
        "budgets": [str(budget) for budget in limits] or None,
        "stopping": None if rule is None else str(rule),
        "task": None if task is None else to_plain(task),
    }
    extent = {"trials": trials, "evaluations": evaluations, "batch": batch, "workers": workers, "timeout": timeout}
    run = None if out is None else SearchRun(Path(out))
    if run is not None:
        check_folder(run.folder, started=run.journal.exists() and run.journal.stat().st_size > 0, resume=resume)
    journal = Journal(None if run is None else run.journal)
    try:
        history = history_of(journal.records, journal.path)
        if history.start is not None:
            check_unchanged(journal.path, {name: history.start.get(name) for name in MUST_MATCH}, settings)
        resumable = ResumableStrategy(made, history, parsed)
        checked = check or make_check(space, size)
        checked = checked if limited is None and latency is None else with_costs(checked, known, limited)
        loop = _Loop(evaluate, parsed, rule, checked, run, journal, resumable, trials, evaluations)
        handler = SignalHandler(f"evaluations under way have {GRACE:g} s to end", grace=GRACE, active=run is not None)
        with handler as signals, SearchProgress(trials, quiet=quiet) as progress:
            record = {**extent, "about": to_plain(about or {}), "versions": versions(), "time": time.time()}
            if history.start is None:
                record = {"kind": "start", "format": FORMAT, "name": space.name, **settings, **record}
            else:
                assert run is not None
                restored = resumable.restore(run.strategy)
                progress.say(f"resuming {run.folder} after {len(history.results)} evaluations: {restored}")
                record = {"kind": "resume", "restored": restored, **record}
            identity = _identity(history.start or record)
            loop.run(signals, progress, record, lambda: make_workers(workers, evaluate, timeout, identity), batch)
        return history.trials()
    finally:
        journal.close()


class _Loop:
    """A running search."""

    def __init__(
        self,
        evaluate: Evaluate,
        objective: Objective,
        stopping: StoppingRule | None,
        check: Check,
        run: SearchRun | None,
        journal: Journal,
        strategy: ResumableStrategy,
        trials: int,
        evaluations: int | None,
    ) -> None:
        self.objective = objective
        self.stopping = stopping
        self.losses = LossStatistics()
        self._warned_of_no_curve = False
        self.check = check
        self.folder = run
        self.journal = journal
        self.strategy = strategy
        self.history = strategy.history
        self.trials = trials
        self.evaluations = evaluations
        self._saved = time.monotonic()

    def record(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Append a record to the journal, then to the history, so that a resumed search has the same history."""
        self.journal.append(record, sync=sync)
        self.history.add(record)

    def run(
        self,
        signals: SignalHandler,
        progress: SearchProgress,
        first: Mapping[str, Any],
        start_workers: Callable[[], Workers],
        batch: int | None,
    ) -> None:
        """Search from the end of the journal to the last trial, or to a signal.

        Args:
            first: record to write when the workers have started.
        """
        for number in range(self.strategy.observed):
            self._show(number, progress, resumed=True)
        pending = self.history.pending()
        workers: Workers | None = None
        try:
            if pending or not self._all_proposed():
                workers = start_workers()
                self.record(first)
                for trial in pending:
                    workers.submit(trial.number, str(trial.text), trial.thresholds)
                self._run_to_end(workers, batch or (1 if workers.size == 1 else 2 * workers.size), signals, progress)
                if signals.signum:
                    for finished in workers.finish(GRACE):
                        self._finish(finished)
            else:
                self.record(first)
                while self._observe(progress):
                    pass
        finally:
            if workers is not None:
                workers.close()
        self._save()
        progress.refresh(last=True)
        if signals.signum:
            assert self.folder is not None
            progress.say(
                f"stopped by {signal.Signals(signals.signum).name} with {len(self.history.results)} evaluations in "
                f"{self.folder.folder}; --resume (resume=True) goes on from there"
            )
            raise Interrupted(signals.signum, len(self.history.results))

    def _run_to_end(self, workers: Workers, batch: int, signals: SignalHandler, progress: SearchProgress) -> None:
        while not signals.signum:
            # Proposing before observing makes the strategy's calls independent of when results arrive.
            if not self._all_proposed() and self.strategy.proposed - self.strategy.observed < batch:
                self._propose(workers)
            elif self._observe(progress):
                if time.monotonic() - self._saved > SAVE_EVERY:
                    self._save()
            elif self.strategy.observed == len(self.history.proposals):
                return
            else:
                with signals.interruptible() if workers.evaluates_here else nullcontext():
                    for finished in workers.wait(0.5):
                        self._finish(finished)
            progress.refresh()

    def _all_proposed(self) -> bool:
        spent = self.evaluations is not None and self.history.evaluations >= self.evaluations
        return spent or self.strategy.proposed >= self.trials

    # -------------------------------------------------------------------------------------- one step

    def _propose(self, workers: Workers) -> None:
        observed = self.strategy.observed
        number = self.strategy.proposed
        text = self.strategy.propose()
        record: dict[str, Any] = {"kind": "proposal", "number": number, "observed": observed}
        note = self.strategy.note()
        if note:
            record["note"] = note
        record |= {"text": str(text), "indices": list(text.indices), "digest": None, "figures": {}, "time": time.time()}
        try:
            checked = self.check(text)
        except (DiagnosticError, SpaceError) as error:
            record["rejected"] = rejection_reason(error)
        else:
            record |= {"digest": checked.digest, "figures": dict(checked.figures)}
            original = self.history.number_of(checked.digest)
            if original is not None:
                record["duplicate_of"] = original
            elif thresholds := self._thresholds(checked.figures):
                record["bars"] = {str(step): loss for step, loss in thresholds.items()}
        self.record(record)
        proposal = self.history.proposals[number]
        if not proposal.verdict:
            workers.submit(number, str(text), proposal.thresholds)

    def _thresholds(self, figures: Mapping[str, float]) -> Thresholds:
        """The thresholds of a proposal, from what the strategy has observed, which does not depend on the workers."""
        if self.stopping is None:
            return {}
        try:
            weight = loss_weight(self.objective, figures)
        except ObjectiveError:  # the evaluation will fail for the same reason, and this sample alone
            return {}
        return self.stopping.thresholds(self.losses, weight)

    def _observe(self, progress: SearchProgress) -> bool:
        """Give the next result to the strategy; False if it is pending."""
        number = self.strategy.observed
        if number >= len(self.history.proposals) or self.history.trial(number) is None:
            return False
        self.strategy.observe()
        diagnostics = to_plain(self.strategy.strategy.diagnostics())
        if diagnostics and number not in self.history.diagnostics:
            self.record({"kind": "observed", "number": number, "diagnostics": diagnostics}, sync=False)
        self._show(number, progress)
        return True

    def _show(self, number: int, progress: SearchProgress, *, resumed: bool = False) -> None:
        """Count an observed trial in the progress and in the statistics of early stopping."""
        trial = self.history.trial(number)
        assert trial is not None
        progress.add(trial, resumed=resumed)
        if self.stopping is not None and trial.verdict in (OK, STOPPED):
            curve = LossCurve.from_trial(trial, self.objective)
            if curve is not None:
                self.losses.add(curve)
            elif not self.losses.count and not self._warned_of_no_curve:
                self._warned_of_no_curve = True
                progress.say(f"early stopping ({self.stopping}) stops nothing: the evaluation reports no curve")

    def _finish(self, finished: Finished) -> None:
        """Record a result."""
        outcome = finished.outcome
        verdict, reward, details = outcome.verdict, outcome.reward, dict(outcome.details)
        score = None
        if verdict == OK:
            assert reward is not None
            try:
                figures = self.history.proposals[finished.number].figures
                self.objective.costs(figures, details)  # checks that they are there
                score = self.objective.score(reward, {**details, **figures})
            except ObjectiveError as error:
                verdict, details = f"{FAILED}: {error}", {**details, "error": str(error)}
        if finished.lost:
            details["lost"] = list(finished.lost)
        self.record(
            {
                "kind": "result",
                "number": finished.number,
                "verdict": verdict,
                "reward": reward,
                "score": score,
                "details": details,
                "seconds": outcome.seconds,
                "attempts": finished.attempts,
                "worker": finished.worker,
                "time": time.time(),
            }
        )

    def _save(self) -> None:
        if self.folder is not None:
            self.journal.sync()  # the state is never newer than the journal: what it has observed is not observed again
            self.strategy.save(self.folder.strategy)
            self.folder.write(self.history.trials())
        self._saved = time.monotonic()


def _parse_budgets(budgets: Iterable[Budget | str]) -> tuple[Budget, ...]:
    budgets = tuple(budgets)
    if not budgets:
        return ()
    from nasdsl.search.budget import parse_budgets

    return parse_budgets(budgets)


def _limit(space: Space, budgets: tuple[Budget, ...], costs: KnownCosts) -> BudgetedSpace | None:
    """The space within budgets; None without budgets."""
    if not budgets:
        return None
    from nasdsl.search.budget import BudgetedSpace

    return BudgetedSpace(space, budgets, costs)


def _make_strategy(
    strategy: str | Strategy | None,
    space: Space,
    seed: int,
    aims: tuple[tuple[str, ...], KnownCosts] | None,
    options: dict[str, Any],
) -> tuple[str, Strategy]:
    """The name of a strategy, and the strategy.

    Args:
        aims: names of the costs to minimise, and the costs that are known.
    """
    if strategy is not None and not isinstance(strategy, str):
        if options:
            raise SearchError("options are for a strategy given by its name; a strategy object has its own")
        if aims is not None and getattr(strategy, "aims", None) is None:
            raise SearchError(
                f"the aims are reward and {' and '.join(aims[0])}, and the strategy {strategy.name!r} was made without aims"
            )
        return strategy.name, strategy
    from nasdsl.search.strategies import DEFAULT_STRATEGY, Aims, StrategyError, make_strategy

    name = strategy or DEFAULT_STRATEGY
    try:
        return name, make_strategy(name, space, seed, None if aims is None else Aims(*aims), **options)
    except StrategyError as error:
        raise SearchError(str(error)) from None


def _identity(start: Mapping[str, Any]) -> str:
    """A name for a search that a resume does not change, from the first record of its journal."""
    return sha256(json.dumps([start[name] for name in ("name", "seed", "time", "space")]).encode()).hexdigest()[:16]
