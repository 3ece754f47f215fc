"""The search: propose, check, evaluate, tell; and a record of each step before the next."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.check import Check, checker, rejection
from nasdsl.search.errors import ObjectiveError, SearchError
from nasdsl.search.journal import FORMAT, Journal
from nasdsl.search.leaving import GRACE, Leaving
from nasdsl.search.objective import Objective
from nasdsl.search.progress import Progress
from nasdsl.search.replay import Driver
from nasdsl.search.run import SearchRun, history_of
from nasdsl.search.stopping import Past, Population, StoppingRule, weight_of
from nasdsl.search.trial import FAILED, OK, STOPPED, Bars, Evaluate, plain
from nasdsl.search.trials import Trials
from nasdsl.search.workers import make_workers, parse_workers
from nasdsl.search.workers.pool import Finished
from nasdsl.spaces import Space, SpaceError
from nasdsl.training.stopping import Interrupted

if TYPE_CHECKING:
    from nasdsl.search.strategies import Strategy
    from nasdsl.search.workers import Workers

SAVE_EVERY: Final = 30.0
"""Seconds between two times that the strategy's state and the files for people are written."""
MUST_AGREE: Final = ("space", "backbone", "classes", "size", "strategy", "options", "seed", "objective", "stopping", "task")
"""What a search must have in common with the one that it resumes. Trials, workers, batch and limits may change."""


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
    stopping: StoppingRule | str | None = None,
    task: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    batch: int | None = None,
    evaluations: int | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
    options: Mapping[str, Any] | None = None,
    check: Check | None = None,
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Trials:
    """Search a space for the decoder of the highest reward.

    With the same seed, strategy and `batch`, and an `evaluate` that gives the same rewards, the trials are the same
    whatever the workers do: results are recorded as they come and told to the strategy in the order of the proposals, and
    proposal n is made when n - batch + 1 results have been told. Only times, and the order of the journal's lines where
    several evaluate at once, differ.

    Args:
        evaluate: from text to reward; see `nasdsl.search.trial.Evaluate`. What it raises is recorded as a failure. For
            workers other than inline it must be importable there: a function at the top level of a module, or an object
            that can be pickled.
        strategy: a name of `nasdsl.search.strategies.STRATEGIES`, an object like those, or None for the default.
        trials: proposals, duplicates and rejected ones counted.
        out: folder of the search; see `SearchRun`. None keeps nothing and leaves signals alone.
        resume: go on with the search in `out`; where there is none, begin one. It may have more trials than before.
        workers: ``inline``, ``process:N``, ``ray``, ``ray:N``, ``ray:N@ADDRESS``.
        objective: what is maximised; None is the reward. See `Objective.parse`.
        stopping: gives up evaluations that are hopeless by their ``curve``; see `StoppingRule.parse`. None: none.
        task: what rewards depend on besides the text, by name, such as `ProxyEvaluation.identity`. A search is resumed only
            where it is the same.
        timeout: seconds that an evaluation may take; not with inline workers.
        batch: proposals out at once; None is 1 for one worker and 2 a worker for several, which keeps them busy.
        evaluations: stop proposing after so many proposals that need an evaluation.
        size: height and width of the image that costs are counted for.
        options: of the strategy.
        check: from a proposal to its digest and figures; None is the whole front end, requirements and cost.
        about: kept in the journal, such as the command.
        quiet: show nothing.

    Raises:
        SearchError: the arguments make no sense, the folder holds another search, or workers do not start.
        Interrupted: SIGINT or SIGTERM came; everything is saved. Uncaught, it ends the process with code 130 or 143.
    """
    weighed = objective if isinstance(objective, Objective) else Objective.parse(objective or "reward")
    rule = StoppingRule.parse(stopping or "none") if not isinstance(stopping, StoppingRule) else stopping
    if rule is not None and any(target.cost == "latency" for target in weighed.targets):
        raise SearchError(
            "the objective weighs latency, which is known after an evaluation only, so that none can be known to be hopeless "
            "before: expected an objective without latency, or no early stopping"
        )
    parse_workers(workers)
    for name, number, least in (("trials", trials, 0), ("batch", batch, 1), ("evaluations", evaluations, 0)):
        if number is not None and number < least:
            raise SearchError(f"{name} is {number}; expected {least} or more")
    if resume and out is None:
        raise SearchError("resume needs the folder of the search")
    name, made = _strategy(strategy, space, seed, dict(options or {}))
    asked = {
        "space": space.source.text,
        "backbone": space.backbone.name,
        "classes": space.classes,
        "size": list(size),
        "strategy": name,
        "options": plain(options or {}),
        "seed": seed,
        "objective": str(weighed),
        "stopping": None if rule is None else str(rule),
        "task": None if task is None else plain(task),
    }
    how = {"trials": trials, "evaluations": evaluations, "batch": batch, "workers": workers, "timeout": timeout}
    run = None if out is None else SearchRun(Path(out))
    journal = Journal(_journal_path(run, resume))
    try:
        history = history_of(journal.records, journal.path)
        if history.start is not None:
            _same(journal.path, history.start, asked)
        driver = Driver(made, history)
        loop = _Loop(space, evaluate, weighed, rule, check or checker(space, size), run, journal, driver, trials, evaluations)
        with Leaving(active=run is not None) as leaving, Progress(trials, quiet=quiet) as shown:
            record = {**how, "about": plain(about or {}), "versions": _versions(), "time": time.time()}
            if history.start is None:
                record = {"kind": "start", "format": FORMAT, "name": space.name, **asked, **record}
            else:
                assert run is not None
                told = driver.restore(run.strategy)
                shown.say(f"resuming {run.folder} after {len(history.results)} evaluations: {told}")
                record = {"kind": "resume", "restored": told, **record}
            loop.run(leaving, shown, record, lambda: make_workers(workers, evaluate, timeout), batch)
        return history.trials()
    finally:
        journal.close()


class _Loop:
    """A search under way."""

    def __init__(
        self,
        space: Space,
        evaluate: Evaluate,
        objective: Objective,
        stopping: StoppingRule | None,
        check: Check,
        run: SearchRun | None,
        journal: Journal,
        driver: Driver,
        trials: int,
        evaluations: int | None,
    ) -> None:
        self.objective = objective
        self.stopping = stopping
        self.past = Population()
        self._told_of_curves = False
        self.check = check
        self.folder = run
        self.journal = journal
        self.driver = driver
        self.history = driver.history
        self.trials = trials
        self.evaluations = evaluations
        self._saved = time.monotonic()

    def record(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write a record, then take it in: what a resumed search reads is what this one went by."""
        self.journal.append(record, sync=sync)
        self.history.add(record)

    def run(
        self, leaving: Leaving, shown: Progress, first: Mapping[str, Any], start: Callable[[], Workers], batch: int | None
    ) -> None:
        """From where the journal ends to the last trial, or to a signal. `first` is recorded when workers have started."""
        for number in range(self.driver.observed):
            self._show(number, shown, now=False)
        waiting = self.history.waiting()
        workers: Workers | None = None
        try:
            if waiting or not self._proposed_all():
                workers = start()
                self.record(first)
                for trial in waiting:
                    workers.submit(trial.number, str(trial.text), trial.bars)
                self._until_done(workers, batch or (1 if workers.size == 1 else 2 * workers.size), leaving, shown)
                if leaving.signum:
                    for finished in workers.finish(GRACE):
                        self._finish(finished)
            else:
                self.record(first)
                while self._observe(shown):
                    pass
        finally:
            if workers is not None:
                workers.close()
        self._save()
        shown.show(last=True)
        if leaving.signum:
            assert self.folder is not None
            shown.say(
                f"stopped by {signal.Signals(leaving.signum).name} with {len(self.history.results)} evaluations in "
                f"{self.folder.folder}; --resume (resume=True) goes on from there"
            )
            raise Interrupted(leaving.signum, len(self.history.results))

    def _until_done(self, workers: Workers, batch: int, leaving: Leaving, shown: Progress) -> None:
        while not leaving.signum:
            # The order of these two is what makes the strategy's calls independent of when results come.
            if not self._proposed_all() and self.driver.proposed - self.driver.observed < batch:
                self._propose(workers)
            elif self._observe(shown):
                if time.monotonic() - self._saved > SAVE_EVERY:
                    self._save()
            elif self.driver.observed == len(self.history.proposals):
                return
            else:
                with leaving.evaluating() if workers.evaluates_here else nullcontext():
                    for finished in workers.wait(0.5):
                        self._finish(finished)
            shown.show()

    def _proposed_all(self) -> bool:
        spent = self.evaluations is not None and self.history.evaluations >= self.evaluations
        return spent or self.driver.proposed >= self.trials

    # -------------------------------------------------------------------------------------- one step

    def _propose(self, workers: Workers) -> None:
        observed = self.driver.observed
        number = self.driver.proposed
        text = self.driver.propose()
        record: dict[str, Any] = {"kind": "proposal", "number": number, "observed": observed}
        record |= {"text": str(text), "indices": list(text.indices), "digest": None, "figures": {}, "time": time.time()}
        try:
            checked = self.check(text)
        except (DiagnosticError, SpaceError) as error:
            record["rejected"] = rejection(error)
        else:
            record |= {"digest": checked.digest, "figures": dict(checked.figures)}
            first = self.history.first(checked.digest)
            if first is not None:
                record["duplicate_of"] = first
            elif bars := self._bars(checked.figures):
                record["bars"] = {str(step): loss for step, loss in bars.items()}
        self.record(record)
        proposed = self.history.proposals[number]
        if not proposed.verdict:
            workers.submit(number, str(text), proposed.bars)

    def _bars(self, figures: Mapping[str, float]) -> Bars:
        """Of a proposal with these figures, from what the strategy has been told by now: whatever workers do, the same."""
        return {} if self.stopping is None else self.stopping.bars(self.past, weight_of(self.objective, figures))

    def _observe(self, shown: Progress) -> bool:
        """Tell the strategy the next result, if that is known."""
        number = self.driver.observed
        if number >= len(self.history.proposals) or self.history.trial(number) is None:
            return False
        self.driver.observe()
        diagnostics = plain(self.driver.strategy.diagnostics())
        if diagnostics and number not in self.history.diagnosed:
            self.record({"kind": "observed", "number": number, "diagnostics": diagnostics}, sync=False)
        self._show(number, shown)
        return True

    def _show(self, number: int, shown: Progress, *, now: bool = True) -> None:
        trial = self.history.trial(number)
        assert trial is not None
        shown.count(trial, now=now)
        if self.stopping is not None and trial.verdict in (OK, STOPPED):
            past = Past.of(trial, self.objective)
            if past is not None:
                self.past.add(past)
            elif not self.past.count and not self._told_of_curves:
                self._told_of_curves = True
                shown.say(f"early stopping ({self.stopping}) has nothing to go by: the evaluation reports no curve")

    def _finish(self, finished: Finished) -> None:
        outcome = finished.outcome
        verdict, reward, details = outcome.verdict, outcome.reward, dict(outcome.details)
        score = None
        if verdict == OK:
            assert reward is not None
            try:
                score = self.objective.score(reward, {**details, **self.history.proposals[finished.number].figures})
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
            self.driver.save(self.folder.strategy)
            self.folder.write(self.history.trials())
        self._saved = time.monotonic()


# -------------------------------------------------------------------------------------- before it begins


def _strategy(strategy: str | Strategy | None, space: Space, seed: int, options: dict[str, Any]) -> tuple[str, Strategy]:
    if strategy is not None and not isinstance(strategy, str):
        if options:
            raise SearchError("options are for a strategy that is named; this one is made already")
        return strategy.name, strategy
    from nasdsl.search.strategies import DEFAULT_STRATEGY, StrategyError, make_strategy

    name = strategy or DEFAULT_STRATEGY
    try:
        return name, make_strategy(name, space, seed, **options)
    except StrategyError as error:
        raise SearchError(str(error)) from None


def _journal_path(run: SearchRun | None, resume: bool) -> Path | None:
    """Where the journal is, or will be."""
    if run is None:
        return None
    if run.folder.exists() and not run.folder.is_dir():
        raise SearchError(f"{run.folder} is a file; expected a folder for the search")
    if run.journal.exists() and run.journal.stat().st_size and not resume:
        raise SearchError(f"{run.folder} holds a search already: resume it (--resume), or choose another folder")
    if not run.journal.exists() and (run.folder / "config.json").exists():
        raise SearchError(f"{run.folder} holds the run of a training; choose another folder")
    return run.journal


def _same(journal: Path | None, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises SearchError where a search that is to be resumed was another."""
    differences: list[str] = []
    for name in MUST_AGREE:
        was, is_ = before.get(name), now[name]
        if isinstance(was, dict) and isinstance(is_, dict):
            differences += [
                f"  {name}.{key} was {_short(was.get(key))}, is {_short(is_.get(key))}"
                for key in {**was, **is_}
                if was.get(key) != is_.get(key)
            ]
        elif was != is_:
            differences.append(f"  {name} was {_short(was)}, is {_short(is_)}")
    if differences:
        raise SearchError(f"{journal} is of another search; to resume it, ask the same as then:\n" + "\n".join(differences))


def _short(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=False).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("nasdsl", "torch", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}
