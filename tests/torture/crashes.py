"""Power cuts and disks that fail: whatever is left of the files, our readers take it for what it is, and resuming ends right.

A case is one work (a journal, checkpoints, a training, a search, …) and one state of the disk that `torture.disk` makes, or one
write, sync or rename that fails in the midst of it. What had been acknowledged must be there; what is read must be whole.
"""

from __future__ import annotations

import errno
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("search", "training")]

from small_search import SPACE, Learner, LoggedEvaluation, comparable, logged, quick_check
from small_training import SHAPES, VAL, differences, recipe, small

from nasdsl.data import UnreadableImage
from nasdsl.files import write_bytes
from nasdsl.search import JournalError, SearchError, load_trials, search
from nasdsl.search.journal import Journal, read_journal
from nasdsl.training import CheckpointError, Run, TrainingError, train
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.proxy.cache import load_or_compute_features
from nasdsl.training.proxy.errors import ProxyError
from nasdsl.training.proxy.features import FeatureLayout, Level, Maps
from torture.disk import MODES, Call, Recorder, acknowledged, write_state
from torture.subject import Case, Report, Subject

Acknowledge = Callable[[Any], object]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


@dataclass(frozen=True)
class Work:
    """Something that writes files, and what must hold of them afterwards.

    Attributes:
        name: for the report.
        run: does it in a folder, and tells what is done; on a folder that is there already it goes on.
        check: raises AssertionError where the folder, or what `run` makes of it, is not right after a crash; given what was
            acknowledged before.
        errors: that `run` may raise where the disk fails.
    """

    name: str
    run: Callable[[Path, Acknowledge], object]
    check: Callable[[Path, list[Any]], object]
    errors: tuple[type[Exception], ...]


def nothing(_: Any) -> None:
    """Acknowledges nothing."""


# -------------------------------------------------------------------------------------------------------- journal

RECORDS = [{"kind": "start" if n == 0 else "result", "number": n, "text": "ä\u2028" * n, "reward": -n / 7} for n in range(8)]


def write_journal(folder: Path, acknowledge: Acknowledge) -> None:
    for half in (RECORDS[:5], RECORDS):
        journal = Journal(folder / "run" / "journal.jsonl")
        try:
            for number in range(len(journal.records), len(half)):
                journal.append(half[number], sync=number % 3 != 1)
                if number % 3 != 1:
                    acknowledge(number + 1)
        finally:
            journal.close()


def check_journal(folder: Path, acknowledged: list[Any]) -> None:
    path = folder / "run" / "journal.jsonl"
    read = read_journal(path)[0] if path.exists() else []
    assert read == RECORDS[: len(read)], read
    assert len(read) >= max(acknowledged, default=0), "an acknowledged record is lost"
    write_journal(folder, nothing)
    assert read_journal(path)[0] == RECORDS


# ----------------------------------------------------------------------------------------------------- checkpoints


def write_checkpoints(folder: Path, acknowledge: Acknowledge) -> None:
    loaded = load_checkpoint(folder / "checkpoint.pt")
    for step in range(1 if loaded is None else loaded.state["step"] + 1, 5):
        save_checkpoint(folder / "checkpoint.pt", {"step": step, "weights": torch.full((300,), float(step))})
        acknowledge(step)


def check_checkpoints(folder: Path, acknowledged: list[Any]) -> None:
    loaded = load_checkpoint(folder / "checkpoint.pt")
    assert loaded is not None or not acknowledged, "the checkpoint is lost"
    if loaded is not None:
        assert loaded.state["step"] >= max(acknowledged, default=0), "the checkpoint is older than before"
        assert torch.equal(loaded.state["weights"], torch.full((300,), float(loaded.state["step"])))
    write_checkpoints(folder, nothing)
    assert load_checkpoint(folder / "checkpoint.pt").state["step"] == 4  # type: ignore[union-attr]  # it is there


# ----------------------------------------------------------------------------------------------------- whole files

CONTENTS = [b"one" * 900, b"two" * 5000, b"three" * 20]


def write_files(folder: Path, acknowledge: Acknowledge) -> None:
    for number, content in enumerate(CONTENTS):
        write_bytes(folder / "table.csv", content)
        acknowledge(number)


def check_files(folder: Path, acknowledged: list[Any]) -> None:
    path = folder / "table.csv"
    assert path.exists() or not acknowledged, "the file is lost"
    if path.exists():
        assert path.read_bytes() in CONTENTS[max(acknowledged, default=0) :], "half a file, or an older one"
    write_files(folder, nothing)
    assert path.read_bytes() == CONTENTS[-1]


# -------------------------------------------------------------------------------------------------------- features

LAYOUT = FeatureLayout({"c3": Level(8, 2), "c4": Level(16, 3)}, [(32, 32 + 16 * i) for i in range(5)], 2)


def features(folder: Path, computed: Callable[[int], object] = nothing, sync_every: float = 0.0) -> torch.Tensor:
    """The features of five pictures, kept in the folder."""

    def compute(pictures: Sequence[int]) -> Iterator[Maps | UnreadableImage]:
        for picture in pictures:
            computed(picture)
            generator = torch.Generator().manual_seed(picture)
            yield {
                name: torch.rand(2, level.channels, *LAYOUT.shape(picture, name), generator=generator)
                for name, level in LAYOUT.levels.items()
            }

    with mock.patch("nasdsl.training.proxy.cache.SYNC_EVERY", sync_every):
        made = load_or_compute_features(
            "features", {"of": "torture"}, LAYOUT, compute, torch.float32, cache=folder, memory_limit=1 << 20, quiet=True
        )
    return made._values.clone()


def write_features(folder: Path, acknowledge: Acknowledge) -> None:
    features(folder, lambda picture: acknowledge(picture))  # when a picture begins, those before are on the disk
    acknowledge(len(LAYOUT.padded_sizes))


def cut_and_write_features(folder: Path, acknowledge: Acknowledge) -> None:
    """A complete cache whose file somebody has cut is made anew: the mark of the complete one must not count any more."""
    features(folder)
    for values in folder.glob("*/features.bin"):
        with open(values, "rb+") as file:
            file.truncate(100)
    features(folder, sync_every=3600)  # so that the pictures are not on the disk one by one
    acknowledge(0)


def check_features(folder: Path, acknowledged: list[Any]) -> None:
    again: list[int] = []
    found = features(folder, again.append)
    assert torch.equal(found, TRUE_FEATURES), "features that were not computed"
    assert not set(again) & set(range(max(acknowledged, default=0))), "features that were on the disk were computed again"


# ------------------------------------------------------------------------------------------------ trainings, searches


def run_training(folder: Path, acknowledge: Acknowledge) -> None:
    settings = recipe(epochs=2, checkpoint_every=2, evaluate_every=1, log_every=1)
    train(small(), SHAPES, settings, folder / "run", VAL, resume=True, device="cpu", quiet=True)
    acknowledge("trained")


def of_training(folder: Path) -> dict[str, Any]:
    """What of a training must not depend on what happened to it."""
    run = Run(folder / "run")
    loaded = load_checkpoint(run.checkpoint)
    assert loaded is not None
    from nasdsl.training.logger import read_log

    varying = ("seconds", "seconds_left", "images_per_s", "waiting")
    log = [{name: value for name, value in record.items() if name not in varying} for record in read_log(run.log)]
    models = {file.name: torch.load(file, weights_only=True)["model"] for file in (run.model, run.best)}
    return {
        "state": loaded.state,
        "log": log,
        **models,
        "metrics": run.metrics.read_bytes(),
        "results": run.results.read_bytes(),
    }


def check_training(folder: Path, acknowledged: list[Any]) -> None:
    log = Run(folder / "run").log
    before = log.read_bytes() if "trained" in acknowledged else b""
    run_training(folder, nothing)
    found = differences(of_training(folder), TRUE_TRAINING)
    assert not found, f"not as without a crash: {', '.join(found)}"
    assert not before or log.read_bytes().startswith(before[: before.index(b"\n")]), "a finished training was made again"


def run_search(folder: Path, acknowledge: Acknowledge, log: Path | None = None) -> None:
    real = Journal.append

    def append(journal: Journal, record: Any, *, sync: bool = True) -> None:
        real(journal, record, sync=sync)
        if record["kind"] == "result":
            acknowledge(journal_text(journal, record))

    def journal_text(journal: Journal, record: Any) -> str:
        assert journal.path is not None
        texts = {r["number"]: r["text"] for r in read_journal(journal.path)[0] if r["kind"] == "proposal"}
        return str(texts[record["number"]])

    with mock.patch.object(Journal, "append", append), mock.patch("nasdsl.search.loop.SAVE_EVERY", 0.0):
        search(
            SPACE, LoggedEvaluation(log or Path("/dev/null")), Learner(SPACE), 12, out=folder / "run", resume=True, batch=2,
            check=quick_check, quiet=True,
        )  # fmt: skip


def check_search(folder: Path, acknowledged: list[Any]) -> None:
    log = folder / "evaluated"
    run_search(folder, nothing, log)
    assert comparable(load_trials(folder / "run")) == TRUE_TRIALS, "not the trials of a search without a crash"
    assert not set(logged(log, "begin")) & set(acknowledged), "a finished evaluation was repeated"


TRUE_FEATURES: torch.Tensor
TRUE_TRAINING: dict[str, Any]
TRUE_TRIALS: list[Any]

WORKS = (
    Work("journal", write_journal, check_journal, (JournalError,)),
    Work("checkpoints", write_checkpoints, check_checkpoints, (CheckpointError,)),
    Work("whole files", write_files, check_files, (OSError,)),
    Work("feature cache", write_features, check_features, (ProxyError,)),
    Work("feature cache made anew", cut_and_write_features, check_features, (ProxyError,)),
    Work("search", run_search, check_search, (SearchError,)),
    Work("training", run_training, check_training, (OSError, TrainingError)),
)
SLOW = ("search", "training")


def record(work: Work, folder: Path, **failing: Any) -> Recorder:
    """Do the work, from nothing, with its calls recorded."""
    recorder = Recorder(folder, **failing)
    folder.mkdir()
    with recorder.recording():
        if failing:
            with suppress(*work.errors):
                work.run(folder, recorder.mark)
        else:
            work.run(folder, recorder.mark)
    return recorder


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Do every work once without a crash, and record it."""
    global TRUE_FEATURES, TRUE_TRAINING, TRUE_TRIALS
    torch.set_num_threads(1)
    recorded = {work.name: record(work, folder / work.name).calls for work in WORKS}
    TRUE_FEATURES = features(folder / "feature cache")
    TRUE_TRAINING = of_training(folder / "training")
    TRUE_TRIALS = comparable(load_trials(folder / "search" / "run"))

    def case(number: int, report: Report) -> None:
        rng = random.Random(number)
        work = choose(rng)
        state = folder / f"case {number}"
        try:
            if rng.random() < 0.25:
                fail(work, recorded[work.name], rng, state, report)
            else:
                crash(work, recorded[work.name], rng, state, report)
        finally:
            shutil.rmtree(state, ignore_errors=True)

    yield case


def choose(rng: random.Random) -> Work:
    """A work; quick ones more often."""
    return rng.choices(WORKS, [1 if work.name in SLOW else 4 for work in WORKS])[0]


def crash(work: Work, calls: list[Call], rng: random.Random, state: Path, report: Report) -> None:
    """A power cut before a call."""
    until, mode = rng.randrange(len(calls) + 1), rng.choice(MODES)
    report.about(f"{work.name}: power cut before call {until} of {len(calls)}, on the disk: {mode}")
    report.count(f"power cuts, {work.name}")
    write_state(calls, until, mode, rng, state)
    with report.step(work.name):
        judge(work, state, acknowledged(calls, until), report)


def fail(work: Work, calls: list[Call], rng: random.Random, state: Path, report: Report) -> None:
    """A write, sync or rename that fails; the files are then those of a process that ended."""
    at, error = rng.randrange(sum(call.kind in ("write", "sync") for call in calls)), rng.choice(ERRORS)
    report.about(f"{work.name}: call {at} fails with {errno.errorcode[error]}")
    report.count(f"failing disks, {work.name}")
    with report.step(work.name):
        recorder = record(work, state, fail_at=at, error=error)
        judge(work, state, acknowledged(recorder.calls, len(recorder.calls)), report)


def judge(work: Work, state: Path, acknowledged: list[Any], report: Report) -> None:
    try:
        work.check(state, acknowledged)
    except Exception as error:  # whatever a reader raises is what a user would see
        report.finding(f"{report.text}: {type(error).__name__}: {error}")


SUBJECT = Subject("crashes", "power cuts and failing disks", 20_000, start, megabytes=1500, per_process=2000)
