"""Fine-tuning of a backbone on the data of a search, before it is frozen: the training of a detector, as `nasdsl train` does.

Section 4.1.1 of arXiv:1906.04423: FCOS is trained on the proxy data first, and its backbone makes the cached features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from nasdsl.data import Dataset, NoSplit, split_record
from nasdsl.decoder import Decoder
from nasdsl.files import read_json, write_json
from nasdsl.training import Run, train
from nasdsl.training.config import TrainingConfig
from nasdsl.training.run import check_new

FOLDER: Final = "backbone"
"""Folder in that of a search, with the run of the training, or one run a backbone."""
_RECORD: Final = "finished.json"


@dataclass(frozen=True)
class BackboneTraining:
    """Training of a detector whose backbone a search then freezes.

    Attributes:
        plan: of the training. Where its data have no `val_split`, the detector is not evaluated.
        decoder: of the detector, as `TrainingConfig.prepare_decoder` returned it.
        folder: of the run.
        device: None: a GPU if there is one.
        about: further values for the run's ``config.json``.
    """

    plan: TrainingConfig
    decoder: Decoder
    folder: Path
    device: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``search.json``."""
        return {**self.plan.to_dict(), "decoder": self.decoder.source.text}

    def open(self) -> tuple[Dataset, Dataset | None]:
        """Open the data sets to train and to evaluate on.

        Raises:
            DataError: a data set cannot be opened.
        """
        training, validation = self.plan.open_train_dataset(), None
        with suppress(NoSplit):
            validation = self.plan.open_val_dataset(training)
        return training, validation

    def run(self, *, resume: bool, quiet: bool = False) -> None:
        """Train the detector, or go on with its training; do nothing if it is finished.

        Args:
            resume: a run in the folder may be gone on with.
            quiet: show no progress.

        Raises:
            Interrupted: SIGINT or SIGTERM was received; the run is saved.
            TrainingError: the folder holds the run of another training, or the training diverged.
            DataError, BackboneError, OSError: see `nasdsl.training.train`.
        """
        run, plan = Run(self.folder), self.plan
        if not resume:
            check_new(run)
        if self._is_finished(run):
            return
        if not quiet:
            Console(stderr=True).print(
                f"fine-tuning {plan.backbone} with {self.decoder.name} at width {self.decoder.architecture.fpn.width} on "
                f"{plan.data} ({plan.split}), in {self.folder}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        training, validation = self.open()
        about = {
            **self.about, "data": plan.data, "split": plan.split, **split_record(training.made), "decoder": self.decoder.name
        }  # fmt: skip
        train(
            plan.make_detector(self.decoder, training), training, plan.recipe, self.folder, validation,
            resume=run.config.exists(), device=self.device, about=about, quiet=quiet,
        )  # fmt: skip
        write_json(self.folder / _RECORD, self.to_dict())

    def _is_finished(self, run: Run) -> bool:
        """Whether this training, with the same settings, has ended in the folder."""
        try:
            recorded = read_json(self.folder / _RECORD)
        except (OSError, ValueError):
            return False
        return bool(run.model.exists() and recorded == json.loads(json.dumps(self.to_dict())))


def train_backbones(backbones: Sequence[BackboneTraining], *, resume: bool, quiet: bool = False) -> None:
    """Fine-tune the backbones of a search, one after the other; see `BackboneTraining.run`."""
    for backbone in backbones:
        backbone.run(resume=resume, quiet=quiet)
