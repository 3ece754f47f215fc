"""AP of many decoders after full trainings on blood cells, which rewards, predictors and searches are judged by.

    python experiments/trained.py --data voc:BCCD --weights mobilenet_v2.pth

Trains what `experiments/trained.csv` lacks of `plan`, one after another, the most informative first, each in one thread with
the recipe `quick`, `--improvements` and `--freeze-at 0`; `--only fcos` takes one decoder's, `--list` shows what is missing. A
row is added when a training has been evaluated on val and test. It may be stopped at any time: the same command goes on from
the checkpoint of the training that was running. Several may run at once on the same folder; each takes other trainings.

The rows whose source is `table` were measured earlier with the same settings, and came without processor times.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

import nasdsl
from nasdsl import resources
from nasdsl.data import open_dataset
from nasdsl.decoder import Decoder
from nasdsl.detection.weights import SavedWeights
from nasdsl.lock import Lock, LockHeld
from nasdsl.training import compute_metrics, find_recipe, predict, train
from nasdsl.training.config import TrainingConfig
from nasdsl.training.errors import Diverged

TABLE: Final = Path(__file__).with_name("trained.csv")
COLUMNS: Final = (
    "decoder", "width", "size", "epochs", "seed", "ap_val", "ap_test", "macs_decoder", "macs_total", "cpu_s", "source", "text"
)  # fmt: skip
SPLITS: Final = ("val", "test")
PREDICTION: Final = "fcos(centerness=cls)"
"""Of all decoders; the training's improvements change it to that of the later FCOS for all alike."""

ZOO: Final = {
    "deform_fpn_fcos": "deform_fpn_fcos", "nas_fcos_fpn_only": "nas_fcos_fpn_only", "nas_fcos_head_only": "nas_fcos_head_only",
    "nas_fpn": "nas_fpn", "retinanet": "retinanet",
}  # fmt: skip
"""Decoders of the zoo that the first rows do not have. Those of RetinaNet predict as FCOS does."""
SAMPLES: Final = {"fpn": ("nas_fcos_fpn", 12), "head": ("nas_fcos_head", 4)}
"""Uniform samples of the paper's spaces, by the first part of their names: space, and how many (seeds 100, 101, …)."""

BASE: Final = (32, "240x320")
NOISE: Final = ("fcos", "panet", "nas_fcos", "s01", "s04", "bifpn")
"""Decoders with three seeds."""
VARIED: Final = ("fcos", "panet", "nas_fcos", "s01", "s02", "s04", "fcossep4", "bifpn")
"""Decoders at other widths and sizes."""
VARIATIONS: Final = ((32, "320x432"), (64, "240x320"), (32, "192x256"), (64, "320x432"), (64, "192x256"))


class Job(NamedTuple):
    """A training: what the first columns of a row say."""

    decoder: str
    width: int
    size: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.decoder}_{self.width}_{self.size}_{self.epochs}_s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Job:
        """Parse ``fcos,32,240x320,24,0``."""
        decoder, width, size, epochs, seed = text.split(",")
        return cls(decoder, int(width), size, int(epochs), int(seed))


def plan(known: list[str]) -> list[Job]:
    """All trainings, those from which most is learnt first.

    Args:
        known: decoders of the first rows.
    """
    others = [*ZOO, *(f"{first}{i}" for first, (_, count) in SAMPLES.items() for i in range(count))]
    some = [name for name in others if name not in ("fpn6", "fpn7", "fpn8", "fpn9", "fpn10", "fpn11")]
    every = [*(name for name in known if name not in VARIED), *VARIED, *others]
    jobs = [Job("fcos", *BASE, 6, 2)]  # repeats a row of the table under another seed
    jobs += [Job(name, *BASE, 6, 0) for name in ("deform_fpn_fcos", "head0", "fpn0")]
    jobs += [Job(name, *BASE, 24, 0) for name in ("s07", "s06")]
    jobs += [Job(name, *BASE, 6, 0) for name in some]
    jobs += [Job(name, *BASE, 24, 0) for name in every]
    jobs += [Job(name, 32, "320x432", 6, 0) for name in VARIED] + [Job(name, 64, "240x320", 6, 0) for name in VARIED]
    jobs += [Job(name, *BASE, epochs, seed) for epochs in (6, 24) for seed in (1, 2) for name in NOISE]
    jobs += [Job(name, *BASE, 48, 0) for name in ("fcos", "s04", "panet", "nas_fcos", "bifpn", "s01", "s07")]
    jobs += [Job(name, *where, 24, 0) for where in VARIATIONS for name in VARIED]
    jobs += [Job(name, *BASE, 6, 0) for name in every]
    jobs += [Job(name, *where, 6, 0) for where in VARIATIONS for name in VARIED]
    return list(dict.fromkeys(jobs))


@dataclass(frozen=True)
class Table:
    """The file of results."""

    path: Path

    def rows(self) -> list[dict[str, str]]:
        """All rows as text by column; none if there is no file."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def done(self) -> set[Job]:
        """The trainings that have a row."""
        return {Job(r["decoder"], int(r["width"]), r["size"], int(r["epochs"]), int(r["seed"])) for r in self.rows()}

    def add(self, values: dict[str, object]) -> None:
        """Append a row in one write, so that processes do not mix theirs."""
        line = io.StringIO()
        writer = csv.DictWriter(line, COLUMNS, lineterminator="\n")
        if not self.path.exists():
            writer.writeheader()
        writer.writerow(values)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.getvalue().encode())
        finally:
            os.close(handle)

    def decoders(self) -> dict[str, Decoder]:
        """All decoders by name: those of the table, the zoo's, and samples."""
        texts: dict[str, str] = {}
        for row in self.rows():
            texts.setdefault(row["decoder"], row["text"])
        found = {name: nasdsl.loads(text, name) for name, text in texts.items()}
        folder = resources.folder("genotypes")
        for name, file in ZOO.items():
            found.setdefault(name, nasdsl.load(folder / f"{file}.nas").with_prediction(PREDICTION))
        for first, (file, count) in SAMPLES.items():
            space = nasdsl.load_space(folder / "spaces" / f"{file}.nas", backbone="mobilenet_v2", classes=3)
            for i in range(count):
                if f"{first}{i}" not in found:
                    found[f"{first}{i}"] = space.load(space.sample(100 + i))
        return found


def run(
    job: Job, decoder: Decoder, given: argparse.Namespace, folder: Path, start: SavedWeights | None = None
) -> dict[str, object] | None:
    """Train and evaluate; returns the row, or None if the training diverges.

    Args:
        start: weights to start from, besides those of the backbone.
    """
    height, width = map(int, job.size.split("x"))
    recipe = find_recipe("quick").changed(
        {"epochs": job.epochs, "size": (height, width), "seed": job.seed, "evaluate_every": 0, "checkpoint_every": 100}
    )
    config = TrainingConfig(
        data=given.data, val_split=None, classes=given.classes, backbone="mobilenet_v2",
        backbone_weights=given.weights, freeze_at=0, width=job.width, recipe=recipe, improvements=True,
    )  # fmt: skip
    trained = train_in_full(config, decoder, folder, given.splits, start)
    if trained is None:
        return None
    plain = decoder.with_width(job.width)  # without the improvements' prediction: the text is that of the decoder
    cost = plain.cost(size=(height, width), backbone="mobilenet_v2", classes=trained.classes)
    decoder_macs = cost.fpn.macs + cost.head.macs
    ap = {f"ap_{split}": round(value, 1) for split, value in trained.ap.items()}
    return {
        **job._asdict(), **ap, "macs_decoder": decoder_macs, "macs_total": decoder_macs + cost.backbone.macs,
        "cpu_s": trained.cpu_s, "source": "trained.py", "text": " ".join(plain.canonical.split()),
    }  # fmt: skip


class Trained(NamedTuple):
    """A full training: AP in percent by split, processor seconds, and the number of classes of the data."""

    ap: dict[str, float]
    cpu_s: int
    classes: int


def train_in_full(
    config: TrainingConfig, decoder: Decoder, folder: Path, splits: Sequence[str], start: SavedWeights | None = None
) -> Trained | None:
    """Train a decoder, or go on with its training in the folder, and evaluate it; None if the training diverges.

    Args:
        start: weights to start from, besides those of the backbone.
    """
    data, prepared = config.open_train_dataset(), config.prepare_decoder(decoder)
    detector, out = config.make_detector(prepared, data, start), folder / "run"
    try:
        with counted_seconds(folder) as seconds:
            train(detector, data, config.recipe, out, device="cpu", quiet=True, resume=True)
    except Diverged as error:
        print(f"{folder.name}: {error}", flush=True)
        return None
    trained, ap = nasdsl.load_detector(out), {}
    for split in splits:
        dataset = open_dataset(config.data, split, classes=data.classes)
        measured = compute_metrics(predict(trained, dataset, batch_size=8), dataset, ["coco"]).coco
        assert measured is not None
        ap[split] = 100 * float(measured.ap)
    return Trained(ap, round(seconds()), len(data.classes))


@contextmanager
def counted_seconds(folder: Path) -> Iterator[Callable[[], float]]:
    """Count processor seconds of work that may be interrupted: those before are kept in a file of the folder."""
    file, began = folder / "cpu_s.txt", time.process_time()
    before = float(file.read_text()) if file.exists() else 0.0
    total = before

    try:
        yield lambda: total
    finally:
        total = before + time.process_time() - began
        file.write_text(f"{total:.1f}")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if there is no file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _missing(table: Table, jobs: list[Job], work: Path) -> Iterator[tuple[Job, Lock]]:
    """Trainings that nobody has made or is making, each locked."""
    for job in jobs:
        folder = work / job.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(folder / "lock")
        except LockHeld:
            continue
        try:
            if job not in table.done():
                yield job, lock
        finally:
            lock.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="SPEC of BCCD, with the splits train, val and test")
    parser.add_argument("--weights", required=True, help="weights of MobileNetV2")
    parser.add_argument("--table", type=Path, default=TABLE, help="file of results (default: beside this file)")
    parser.add_argument("--job", action="append", metavar="DECODER,WIDTH,SIZE,EPOCHS,SEED", help="train these, not the plan")
    parser.add_argument("--classes", nargs="+", help="of other data (default: all)")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="to evaluate on (default: val and test)")
    parser.add_argument("--work", type=Path, default=Path("runs/trained"), help="folder of unfinished trainings")
    parser.add_argument("--only", action="append", metavar="DECODER", help="train these decoders only")
    parser.add_argument("--trainings", type=int, help="stop after this many")
    parser.add_argument("--list", action="store_true", help="show what is missing, in order")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table, decoders = Table(given.table), Table(TABLE).decoders()
    first = list(dict.fromkeys(row["decoder"] for row in Table(TABLE).rows() if row["source"] == "table"))
    jobs = [Job.parse(text) for text in given.job] if given.job else plan(first)
    jobs = [job for job in jobs if not given.only or job.decoder in given.only]
    given.classes = tuple(given.classes) if given.classes else None
    if given.list:
        missing = [job for job in jobs if job not in table.done()]
        print("\n".join(job.name for job in missing), f"\n{len(missing)} of {len(jobs)} trainings are missing", sep="")
        return
    trained = 0
    for job, _ in _missing(table, jobs, given.work):
        began = time.perf_counter()
        row = run(job, decoders[job.decoder], given, given.work / job.name)
        if row is None:
            continue
        table.add(row)
        shutil.rmtree(given.work / job.name / "run")
        print(
            f"{job.name}: AP {row['ap_val']} on val, {row['ap_test']} on test, {time.perf_counter() - began:.0f} s", flush=True
        )
        trained += 1
        if trained == given.trainings:
            return


if __name__ == "__main__":
    main()
