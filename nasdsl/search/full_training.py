"""Full training of what a search found, and of decoders to compare with: each a run of its own, ranked by AP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nasdsl.data import Dataset
from nasdsl.decoder import Decoder, loads
from nasdsl.detection.making import self_contained
from nasdsl.search.errors import SearchError
from nasdsl.search.ranking import WAITING, Entry, Ranking, read_ranking
from nasdsl.search.trial import FAILED, OK, Trial, verdict_of
from nasdsl.training import CheckpointError, Run, RunError, train
from nasdsl.training.plan import Plan
from nasdsl.training.progress import duration

if TYPE_CHECKING:
    from nasdsl.training import Outcome


@dataclass(frozen=True)
class FullTraining:
    """How the best decoders of a search are fully trained.

    Attributes:
        plan: of each training; it must have a `val_split`. Its width None: that of the search.
        beside: decoders to compare with, by name, trained at the same width.
        device: None is a GPU where there is one.
        about: kept in each run's ``config.json``.
    """

    plan: Plan
    beside: Mapping[str, Decoder] = field(default_factory=dict)
    device: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> tuple[Dataset, Dataset]:
        """The pictures to train and to evaluate on.

        Raises:
            DataError: there are none.
            SearchError: the plan evaluates nothing.
        """
        training = self.plan.open_training()
        validation = self.plan.open_validation(training)
        if validation is None:
            raise SearchError("a ranking needs pictures to evaluate on: expected the name of a part of the data as val_split")
        return training, validation


def train_top(
    trials: Sequence[Trial],
    how: FullTraining,
    folder: Path,
    size: tuple[int, int],
    *,
    known: Mapping[Path, Ranking] | None = None,
    quiet: bool = False,
) -> Ranking:
    """Train decoders fully, one after the other, and rank them. What is finished already is not trained again.

    ``folder/ranking.json`` is written after each. A training that diverges or fails is recorded there, and the others go
    on; removed together with its folder from the disk, it is tried again.

    Args:
        trials: of the search, best first.
        size: height and width of the image that costs are counted for.
        known: rankings of this search's other stages by folder, with the same plan: a decoder that was trained beside them and
            would be trained here in the same way has its result from there.

    Raises:
        Interrupted: SIGINT or SIGTERM came; everything is saved.
        SearchError, RunError, CheckpointError, OSError: folder or ranking cannot be read or written, or are of others.
        DataError: pictures cannot be had.
    """
    entries = [_of_trial(trial, rank) for rank, trial in enumerate(trials, 1)]
    width = _width(entries, how)
    entries += [_beside(name, decoder, width) for name, decoder in how.beside.items()]
    if not entries:
        return Ranking(how.plan.val_split or "", size, ())
    path = folder / "ranking.json"
    before = read_ranking(path)
    folder.mkdir(parents=True, exist_ok=True)
    ranking = Ranking(how.plan.val_split or "", size, tuple(_kept(entry, before, folder) for entry in entries))
    for entry in ranking.entries:
        if entry.verdict == WAITING and (same := _known(entry, how.plan, known or {}, folder)) is not None:
            ranking = ranking.changed(same)
    ranking.write(path)
    waiting = [entry for entry in entries if _entry(ranking, entry.name).verdict == WAITING]
    say = _silent if quiet else _say
    done: list[float] = [entry.seconds for entry in ranking.entries if entry.verdict == OK]
    training, validation = how.open() if waiting else (None, None)
    for number, entry in enumerate(waiting):
        place = len(entries) - len(waiting) + number + 1
        left = f"; about {duration(sum(done) / len(done) * (len(waiting) - number))} left for all" if done else ""
        say(f"full training {place} of {len(entries)}: {entry.name}{left}")
        assert training is not None
        assert validation is not None
        finished = _train(entry, how, training, validation, folder, size, quiet)
        ranking = ranking.changed(finished)
        ranking.write(path)
        if finished.verdict == OK:
            done.append(finished.seconds)
        else:
            say(f"{entry.name}: {finished.verdict}")
    return ranking


def _train(
    entry: Entry, how: FullTraining, training: Dataset, validation: Dataset, folder: Path, size: tuple[int, int], quiet: bool
) -> Entry:
    """Train one decoder; whatever is wrong with it becomes its verdict."""
    plan = how.plan
    try:
        decoder = plan.adapted(loads(entry.text, entry.name))
        cost = decoder.cost(size, plan.backbone, len(training.classes)).decoder
        entry = replace(entry, text=decoder.source.text, macs=cost.macs, params=cost.params)
        detector = plan.detector(decoder, training)
        about = {**how.about, "data": plan.data, "split": plan.split, "decoder": entry.name}
        run = Run(folder / entry.folder)
        outcome = train(
            detector, training, plan.recipe, run.folder, validation, resume=run.config.exists(), device=how.device, about=about,
            quiet=quiet,
        )  # fmt: skip
    except (RunError, CheckpointError, OSError):  # no fault of the decoder's
        raise
    except Exception as error:
        seconds = _seconds(folder / entry.folder, plan)
        return replace(entry, verdict=verdict_of(error), error=f"{type(error).__name__}: {error}", seconds=seconds)
    return _measured(entry, outcome, plan)


def _measured(entry: Entry, outcome: Outcome, plan: Plan) -> Entry:
    seconds = _seconds(outcome.run.folder, plan)
    coco = outcome.evaluation.coco if outcome.evaluation is not None else None
    if coco is None or coco.ap != coco.ap:
        error = "there are no boxes to evaluate on"
        return replace(entry, verdict=f"{FAILED}: {error}", error=error, seconds=seconds)
    return replace(entry, verdict=OK, ap=coco.ap, ap50=coco.ap50, seconds=seconds)


def _of_trial(trial: Trial, rank: int) -> Entry:
    name = f"trial_{trial.number}"
    return Entry(name, trial.number, rank, trial.reward, WAITING, None, None, None, None, 0.0, str(trial.text), name, None)


def _beside(name: str, decoder: Decoder, width: int | None) -> Entry:
    decoder = self_contained(decoder if width is None else decoder.with_width(width))
    return Entry(name, None, None, None, WAITING, None, None, None, None, 0.0, decoder.source.text, name, None)


def _width(entries: Sequence[Entry], how: FullTraining) -> int | None:
    """Of the decoders that others are trained beside."""
    if how.plan.width is not None or not entries:
        return how.plan.width
    return loads(entries[0].text).architecture.fpn.width


def _kept(entry: Entry, before: Ranking | None, folder: Path) -> Entry:
    """What an earlier process recorded of this decoder, if that still holds."""
    old = before.named(entry.name) if before is not None else None
    if old is None or old.verdict == WAITING or not (folder / old.folder).is_dir():
        return entry
    return replace(old, proxy_rank=entry.proxy_rank)  # with more trials, it may have another rank now


def _known(entry: Entry, plan: Plan, known: Mapping[Path, Ranking], folder: Path) -> Entry | None:
    """What another stage found out about a decoder trained beside, if it was the same at the same width."""
    for place, ranking in known.items():
        old = None if entry.found else ranking.named(entry.name)
        if old is not None and old.verdict == OK and plan.adapted(loads(entry.text)).source.text == old.text:
            return replace(old, folder=os.path.relpath(place / old.folder, folder))
    return None


def _entry(ranking: Ranking, name: str) -> Entry:
    found = ranking.named(name)
    assert found is not None
    return found


def _seconds(run: Path, plan: Plan) -> float:
    """Of training, from the run's log, which goes on over breaks; 0 where there is none."""
    total, before = 0.0, 0
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0.0
    for record in map(json.loads, lines):
        if record["event"] == "train":
            total += (record["step"] - before) * plan.recipe.batch_size / record["images_per_s"]
            before = record["step"]
    return total


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _silent(text: str) -> None:
    pass
