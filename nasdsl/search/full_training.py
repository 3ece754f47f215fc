"""Full training of the best decoders of a search, and of others to compare with: each a run of its own, ranked by AP."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nasdsl.data import Dataset, split_record
from nasdsl.decoder import Decoder, loads
from nasdsl.detection.factory import make_self_contained
from nasdsl.diagnostics import DiagnosticError
from nasdsl.files import make_folder
from nasdsl.search.errors import SearchError
from nasdsl.search.evaluation import verdict_for
from nasdsl.search.ranking import WAITING, Ranking, RankingEntry, read_ranking
from nasdsl.search.trial import FAILED, OK, Trial
from nasdsl.training import CheckpointError, Run, RunError, TrainingError, train
from nasdsl.training.config import TrainingConfig
from nasdsl.training.logger import read_log
from nasdsl.training.progress import duration

if TYPE_CHECKING:
    from nasdsl.training import TrainingResult


@dataclass(frozen=True)
class FullTraining:
    """Settings of the full training of the best decoders of a search.

    Attributes:
        plan: of each training; it must have a `val_split`. If its width is None, decoders keep the width of the search.
        beside: decoders to compare with, by name, trained at the width of the search's best, and for the detector that it
            names, unless they name their own.
        device: None: a GPU if there is one.
        about: further values for each run's ``config.json``.
        minutes: length of each training, instead of the recipe's; see `nasdsl.training.train`.
        backbone_weights: initial weights by name of the backbone, for decoders that name theirs. Others have the plan's.
        keep_size: decoders that name a size are trained at that of the plan's recipe all the same.
    """

    plan: TrainingConfig
    beside: Mapping[str, Decoder] = field(default_factory=dict)
    device: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None
    backbone_weights: Mapping[str, str | None] = field(default_factory=dict)
    keep_size: bool = False

    def prepare(self, decoder: Decoder) -> tuple[Decoder, TrainingConfig]:
        """The decoder as it is trained, and its plan: with the backbone and the size that its text names.

        Args:
            decoder: as it was searched.

        Raises:
            DiagnosticError, TrainingError: see `TrainingConfig.prepare_decoder`.
        """
        plan = self.plan
        if self.keep_size and decoder.size is not None and plan.recipe.size is not None:
            decoder = decoder.with_detector(plan.recipe.size)
        if decoder.size is not None:
            plan = replace(plan, recipe=plan.recipe.changed({"size": decoder.size}))
        if decoder.backbone is not None:
            weights = self.backbone_weights.get(decoder.backbone, plan.backbone_weights)
            plan = replace(plan, backbone=decoder.backbone, backbone_weights=weights)
        return plan.prepare_decoder(decoder), plan

    def open(self) -> tuple[Dataset, Dataset]:
        """Open the data sets to train and to evaluate on.

        Raises:
            DataError: a data set cannot be opened.
            SearchError: the plan has no `val_split`.
        """
        training = self.plan.open_train_dataset()
        validation = self.plan.open_val_dataset(training)
        if validation is None:
            raise SearchError("a ranking needs images to evaluate on: expected the name of a part of the data as val_split")
        return training, validation


def train_top(
    trials: Sequence[Trial],
    full: FullTraining,
    folder: Path,
    size: tuple[int, int],
    *,
    known: Mapping[Path, Ranking] | None = None,
    quiet: bool = False,
) -> Ranking:
    """Train decoders fully, one after the other, and rank them. Finished trainings are not repeated.

    ``folder/ranking.json`` is written after each training. A training that diverges or fails is recorded there, and the others
    go on; to repeat it, remove its folder.

    Args:
        trials: of the search, best first.
        size: height and width of the image that costs are counted for, where a decoder names none.
        known: rankings of other stages by folder, made with the same plan. A decoder trained beside that would be trained here
            in the same way takes its result from there.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; everything is saved.
        SearchError, RunError, CheckpointError, OSError: a folder or the ranking cannot be read or written, or is of another
            training.
        DataError: a data set cannot be opened.
    """
    entries = [_entry_of_trial(trial, rank) for rank, trial in enumerate(trials, 1)]
    best = loads(entries[0].text) if entries else None
    entries += [_entry_beside(name, decoder, best, full.plan.width) for name, decoder in full.beside.items()]
    if not entries:
        return Ranking(full.plan.val_split or "", size, ())
    path = folder / "ranking.json"
    old = read_ranking(path)
    make_folder(folder)
    ranking = Ranking(full.plan.val_split or "", size, tuple(_recorded(entry, old, folder) for entry in entries))
    for entry in ranking.entries:
        if entry.verdict == WAITING and (same := _from_other_stage(entry, full, known or {}, folder)) is not None:
            ranking = ranking.with_entry(same)
    ranking.write(path)
    waiting = [entry for entry in entries if _get(ranking, entry.name).verdict == WAITING]
    seconds: list[float] = [entry.seconds for entry in ranking.entries if entry.verdict == OK]
    training, validation = full.open() if waiting else (None, None)
    for number, entry in enumerate(waiting):
        place = len(entries) - len(waiting) + number + 1
        each = 60 * full.minutes if full.minutes else sum(seconds) / len(seconds) if seconds else 0.0
        left = f"; about {duration(each * (len(waiting) - number))} left for all" if each else ""
        _say(f"full training {place} of {len(entries)}: {entry.name}{left}", quiet)
        assert training is not None
        assert validation is not None
        finished = _train(entry, full, training, validation, folder, size, quiet)
        ranking = ranking.with_entry(finished)
        ranking.write(path)
        if finished.verdict == OK:
            seconds.append(finished.seconds)
        else:
            _say(f"{entry.name}: {finished.verdict}", quiet)
    return ranking


def _train(
    entry: RankingEntry,
    full: FullTraining,
    training: Dataset,
    validation: Dataset,
    folder: Path,
    size: tuple[int, int],
    quiet: bool,
) -> RankingEntry:
    """Train one decoder; an error that is its own becomes its verdict."""
    plan = full.plan
    try:
        decoder, plan = full.prepare(loads(entry.text, entry.name))
        cost = decoder.cost(decoder.size or size, plan.backbone, len(training.classes))
        entry = replace(
            entry, text=decoder.source.text, macs=cost.decoder.macs, params=cost.decoder.params, macs_total=cost.total.macs,
            params_total=cost.total.params,
        )  # fmt: skip
        detector = plan.make_detector(decoder, training)
        about = {**full.about, "data": plan.data, "split": plan.split, **split_record(training.made), "decoder": entry.name}
        run = Run(folder / entry.folder)
        outcome = train(
            detector, training, plan.recipe, run.folder, validation, minutes=full.minutes, resume=run.config.exists(),
            device=full.device, about=about, quiet=quiet,
        )  # fmt: skip
    except (RunError, CheckpointError, OSError):  # not the decoder's
        raise
    except Exception as error:
        return _failed(entry, error, _seconds(folder / entry.folder, plan))
    return _measured(entry, outcome, plan)


def _failed(entry: RankingEntry, error: Exception, seconds: float = 0.0) -> RankingEntry:
    return replace(entry, verdict=verdict_for(error), error=f"{type(error).__name__}: {error}", seconds=seconds)


def _measured(entry: RankingEntry, outcome: TrainingResult, plan: TrainingConfig) -> RankingEntry:
    """The entry with the result of its training."""
    seconds = _seconds(outcome.run.folder, plan)
    coco = outcome.evaluation.coco if outcome.evaluation is not None else None
    if coco is None or coco.ap != coco.ap:
        error = "there are no boxes to evaluate on"
        return replace(entry, verdict=f"{FAILED}: {error}", error=error, seconds=seconds)
    return replace(entry, verdict=OK, ap=coco.ap, ap50=coco.ap50, seconds=seconds)


def _entry_of_trial(trial: Trial, rank: int) -> RankingEntry:
    name = f"trial_{trial.number}"
    return RankingEntry(
        name, trial.number, rank, trial.reward, WAITING, None, None, None, None, 0.0, str(trial.text), name, None
    )


def _entry_beside(name: str, decoder: Decoder, best: Decoder | None, width: int | None) -> RankingEntry:
    """The entry of a decoder trained beside; a failed one if it cannot have this width or detector.

    Args:
        best: of the search's decoders, whose width, size and backbone it gets; None leaves them as they are.
        width: that of all trainings, instead of the best's.
    """
    entry = RankingEntry(name, None, None, None, WAITING, None, None, None, None, 0.0, decoder.source.text, name, None)
    width = width if width is not None or best is None else best.architecture.fpn.width
    try:
        decoder = decoder if width is None else decoder.with_width(width)
        if best is not None:
            decoder = decoder.with_detector(None if decoder.size else best.size, None if decoder.backbone else best.backbone)
        decoder = make_self_contained(decoder)
    except DiagnosticError as error:
        return _failed(entry, error)
    return replace(entry, text=decoder.source.text)


def _recorded(entry: RankingEntry, old: Ranking | None, folder: Path) -> RankingEntry:
    """The recorded result of an earlier training of this decoder, if its folder is still there; else the entry."""
    recorded = old.get(entry.name) if old is not None else None
    if recorded is None or recorded.verdict == WAITING or not (folder / recorded.folder).is_dir():
        return entry
    return replace(recorded, proxy_rank=entry.proxy_rank)  # which more trials may have changed


def _from_other_stage(
    entry: RankingEntry, full: FullTraining, known: Mapping[Path, Ranking], folder: Path
) -> RankingEntry | None:
    """The result of a decoder trained beside in another stage, if it was the same decoder at the same width."""
    if entry.from_search:
        return None
    for place, ranking in known.items():
        other = ranking.get(entry.name)
        if other is None or other.verdict != OK:
            continue
        with suppress(DiagnosticError, TrainingError):  # what cannot be adapted fails in its own training
            if full.prepare(loads(entry.text))[0].source.text == other.text:
                return replace(other, folder=os.path.relpath(place / other.folder, folder))
    return None


def _get(ranking: Ranking, name: str) -> RankingEntry:
    entry = ranking.get(name)
    assert entry is not None
    return entry


def _seconds(run: Path, plan: TrainingConfig) -> float:
    """Seconds of training, summed over interruptions, from the run's log; 0 if there is none."""
    total, before = 0.0, 0
    for record in read_log(Run(run).log):
        if record["event"] == "train":
            # Logs of nasdsl 0.1 have no seconds, and count every batch as a full one.
            full_batches = (record["step"] - before) * plan.recipe.batch_size
            total += record["seconds"] if "seconds" in record else full_batches / record["images_per_s"]
            before = record["step"]
    return total


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
