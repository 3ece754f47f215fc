"""Kills at random instants: the same command with ``--resume`` then ends with the results of one that was not killed.

A case runs one command, kills it once or twice, looks at what is there (no process, no half file), and lets it end.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("cli", "search", "training")]

from killed_searches import journal, ranked
from small_spaces import BESIDE, FPN_SPACE

from torture.processes import Command, killed
from torture.subject import Case, Report, Subject

SEARCH = [
    "--data", "shapes:8", "--backbone", "tiny", "--iterations", "2", "--proxy-size", "64", "--proxy-batch", "4",
    "--size", "64x64", "--strategy", "random", "--trials", "5", "--batch", "2", "--top", "1", "--recipe", "quick",
    "--epochs", "2", "--set", "size=64x64", "--set", "workers=0", "--set", "batch_size=4",
    "--set", "log_every=1", "--set", "checkpoint_every=1",
]  # fmt: skip
TRAIN = [
    "--backbone", "tiny", "--width", "32", "--recipe", "quick", "--size", "64x64", "--batch-size", "4", "--epochs", "3",
    "--workers", "0", "--data", "shapes:8", "--val-split", "train", "--set", "log_every=1", "--set", "checkpoint_every=1",
    "--set", "evaluate_every=1",
]  # fmt: skip
WORKERS = {"inline": "inline", "process": "process:2", "folder": "folder:{folder}/shared", "ray": "ray:2"}
"""``--workers`` of a search, by the name of the kind."""
VARYING = ("time", "seconds", "seconds_left", "images_per_s", "waiting")


@dataclass(frozen=True)
class Work:
    """A command that is killed.

    Attributes:
        arguments: of the command, given the folder of the case and the one of what was prepared.
        resume: what is added when it is run again.
        results: of the folder; equal for all that end.
        keeps: what of a folder must still be there, byte for byte, when the command goes on.
        workers: arguments of a worker that is beside it.
        ends_within: seconds after its death in which the processes that it started must have ended. Ray's agents look for their
            server for 60 seconds before they give up (``gcs_rpc_server_reconnect_timeout_s``).
        weight: how often it is chosen; as often each of search, with each kind of workers, train, export, report, cache.
    """

    name: str
    arguments: Callable[[Path, Path], list[str] | Callable[[], object]]
    results: Callable[[Path], Any]
    resume: tuple[str, ...] = ()
    keeps: Callable[[Path], list[bytes]] = lambda folder: []
    now: Callable[[Path], bytes] = lambda folder: b""
    workers: Callable[[Path], list[str]] | None = None
    weight: int = 1
    ends_within: float = 30


def search(workers: str, folder: Path, prepared: Path) -> list[str]:
    where = ["--workers", workers.format(folder=folder), "--out", str(folder / "run")]
    return ["search", str(prepared / "space.nas"), *SEARCH, "--beside", str(prepared / "plain.nas"), *where]


def of_search(folder: Path) -> Any:
    """Proposals and results in their order by number, the ranking, the best decoder and the table."""
    run = folder / "run"
    records = sorted(journal(run), key=lambda record: (record["kind"], record["number"]))
    for record in records:
        for name in ("worker", "attempts", "observed", "crc"):
            record.pop(name, None)
    with open(run / "trials.csv", newline="") as file:
        table = [{name: row[name] for name in ("number", "verdict", "reward", "score", "text")} for row in csv.DictReader(file)]
    return records, ranked(run), (run / "best.nas").read_text(), table


def finished(folder: Path) -> list[bytes]:
    """The lines of the journal, without one that is not complete."""
    file = folder / "run" / "journal.jsonl"
    return file.read_bytes().splitlines(keepends=True)[: file.read_bytes().count(b"\n")] if file.exists() else []


def of_journal(folder: Path) -> bytes:
    file = folder / "run" / "journal.jsonl"
    return file.read_bytes() if file.exists() else b""


def train(folder: Path, prepared: Path) -> list[str]:
    return ["train", str(prepared / "plain.nas"), *TRAIN, "--out", str(folder / "run")]


def of_training(folder: Path) -> Any:
    """Weights, log and metrics."""
    import torch

    from nasdsl.training.logger import read_log

    run = folder / "run"
    log = [{name: value for name, value in record.items() if name not in VARYING} for record in read_log(run / "log.jsonl")]
    models = [torch.load(run / name, weights_only=True)["model"] for name in ("model.pt", "best.pt")]
    weights = [{name: tensor.numpy().tobytes() for name, tensor in model.items()} for model in models]
    return log, weights, (run / "metrics.json").read_bytes(), (run / "results.json").read_bytes()


def trained(folder: Path) -> list[bytes]:
    """The lines of the log up to the last checkpoint: these steps must not be made again."""
    from nasdsl.training.checkpoint import load_checkpoint

    loaded, log = load_checkpoint(folder / "run" / "checkpoint.pt"), folder / "run" / "log.jsonl"
    if loaded is None:
        return []
    lines = log.read_bytes().splitlines(keepends=True)[: log.read_bytes().count(b"\n")]
    return [line for line in lines if json.loads(line)["step"] <= loaded.state["step"]]


def of_log(folder: Path) -> bytes:
    file = folder / "run" / "log.jsonl"
    return file.read_bytes() if file.exists() else b""


def export(suffix: str, folder: Path, prepared: Path) -> list[str]:
    return ["export", str(prepared / "trained" / "run"), "-o", str(folder / f"detector{suffix}")]


def of_export(suffix: str, folder: Path) -> Any:
    """The bytes; of a program of torch, which has an archive's own times, the parts."""
    file = folder / f"detector{suffix}"
    if suffix == ".pt2":
        with zipfile.ZipFile(file) as archive:
            return sorted((name, archive.read(name)) for name in archive.namelist() if "data/weights" in name)
    return file.read_bytes()


def report(folder: Path, prepared: Path) -> list[str]:
    return ["report", str(prepared / "trained" / "run"), "-o", str(folder / "page.html"), "--charts", str(folder / "charts")]


def of_report(folder: Path) -> Any:
    return sorted(path.name for path in folder.rglob("*.*g")), "</html>" in (folder / "page.html").read_text()


def cache(folder: Path, prepared: Path) -> Callable[[], object]:
    from torture.crashes import features

    return lambda: features(folder, lambda picture: time.sleep(0.01))


def of_cache(folder: Path) -> Any:
    computed: list[int] = []
    from torture.crashes import features

    return features(folder, computed.append).numpy().tobytes(), computed


WORKS = (
    *(
        Work(
            f"search, {name}", partial(search, workers), of_search, ("--resume",), finished, of_journal, weight=3,
            ends_within=75 if name == "ray" else 30,
            workers=(lambda folder: ["worker", str(folder / "shared"), "--idle", "60"]) if name == "folder" else None,
        )
        for name, workers in WORKERS.items()
    ),
    Work("train", train, of_training, ("--resume",), trained, of_log, weight=3),
    Work("feature cache", cache, of_cache, weight=3),
    *(Work(f"export {suffix}", partial(export, suffix), partial(of_export, suffix)) for suffix in (".onnx", ".py", ".pt2")),
    Work("report", report, of_report, weight=3),
)  # fmt: skip
WITHOUT_RAY = tuple(work.name for work in WORKS if "ray" not in work.name)


@dataclass
class Unbroken:
    """What a work takes and gives when nobody kills it."""

    seconds: float
    writes: int
    results: Any


class UnbrokenWorks:
    """The works, each once without a kill, as soon as a case needs it.

    Args:
        folder: for what is prepared.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unbroken: dict[str, Unbroken] = {}
        (folder / "space.nas").write_text(FPN_SPACE)
        (folder / "plain.nas").write_text(BESIDE)

    def of(self, work: Work) -> Unbroken:
        """The results of a work that was not killed."""
        if "trained" not in {path.name for path in self.folder.iterdir()} and work.name.startswith(("export", "report")):
            (self.folder / "trained").mkdir()
            ended = Command(list(train(self.folder / "trained", self.folder)), self.folder / "log").run()
            assert ended == 0, (self.folder / "log").read_text()
        if work.name.startswith("search") and "search, inline" in self.unbroken and work.name not in self.unbroken:
            inline = self.unbroken["search, inline"]
            self.unbroken[work.name] = Unbroken(4 * inline.seconds, inline.writes, inline.results)
        if work.name not in self.unbroken:
            truth = next(w for w in WORKS if w.name == "search, inline") if work.name.startswith("search") else work
            folder = self.folder / truth.name
            folder.mkdir()
            command = Command(truth.arguments(folder, self.folder), folder / "log", counter=folder / "writes")
            start, ended = time.monotonic(), command.run()
            assert ended == 0, (folder / "log").read_text()
            seconds = time.monotonic() - start
            self.unbroken[truth.name] = Unbroken(seconds, int((folder / "writes").read_text() or 0), truth.results(folder))
            return self.of(work)
        return self.unbroken[work.name]

    def case(self, number: int, report: Report, only: tuple[str, ...] | None = None) -> None:
        """Kill one command, and let it end.

        Args:
            only: names of works; None: all.
        """
        rng = random.Random(number)
        works = [work for work in WORKS if only is None or work.name in only]
        work = rng.choices(works, [work.weight for work in works])[0]
        unbroken, folder = self.of(work), self.folder / f"case {number}"
        folder.mkdir()
        report.about(f"{work.name}, case {number}")
        worker = None
        try:
            if work.workers is not None:
                worker = Command(work.workers(folder), folder / "worker log")
                worker.start()
            first = list(work.keeps(folder))
            for turn in range(rng.choice((1, 1, 2))):
                command = self._command(work, folder, resume=turn > 0)
                code = killed(command, rng, unbroken.seconds, unbroken.writes)
                report.count(f"kills, {work.name}", code == -9)
                if code not in (0, -9):
                    report.finding(f"{report.text}: it ended with code {code}: {tail(folder)}")
                if left := command.left_behind(work.ends_within):
                    report.finding(f"{report.text}: its death leaves processes: {left}")
                    command.kill_all()
                for file, problem in half_files(folder):
                    report.finding(f"{report.text}: {file}: {problem}")
                self._kept(work, folder, first, report)
                first = list(work.keeps(folder))
            command = self._command(work, folder, resume=True)
            with report.step(work.name):
                code = command.run()
            if code:
                report.finding(f"{report.text}: resumed, it ended with code {code}: {tail(folder)}")
                return
            self._kept(work, folder, first, report)
            if work.results(folder) != unbroken.results:
                report.finding(f"{report.text}: the results are not those of a command that was not killed")
        finally:
            if worker is not None:
                worker.kill()
                worker.wait()
                if left := worker.left_behind():
                    report.finding(f"{report.text}: the death of a worker leaves processes: {left}")
                    worker.kill_all()
            shutil.rmtree(folder, ignore_errors=True)

    def _command(self, work: Work, folder: Path, *, resume: bool) -> Command:
        arguments = work.arguments(folder, self.folder)
        if resume and not callable(arguments):
            arguments = [*arguments, *work.resume]
        return Command(arguments, folder / "log")

    @staticmethod
    def _kept(work: Work, folder: Path, before: list[bytes], report: Report) -> None:
        """What was finished before must be there as it was: neither lost nor made again."""
        now = work.now(folder)
        if before and not now.startswith(b"".join(before)):
            report.finding(f"{report.text}: what was finished was lost or made again")


def tail(folder: Path) -> str:
    return " / ".join((folder / "log").read_text(errors="replace").splitlines()[-6:])


def half_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that are there under their names and are not whole."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or "shared" in path.parts or "charts" in path.parts:
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix in (".pt", ".pt2"):
                with zipfile.ZipFile(path) as archive:
                    assert archive.testzip() is None
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
            elif path.suffix == ".py":
                compile(path.read_text(), path.name, "exec")
            elif path.suffix == ".onnx":
                import onnx

                onnx.checker.check_model(onnx.load(path))
            elif path.suffix == ".nas":
                from nasdsl.diagnostics import Source
                from nasdsl.syntax.parser import parse

                assert not parse(Source(path.name, path.read_text())).problems
            elif path.suffix == ".csv":
                assert path.read_text().endswith("\n")
        except Exception as error:
            yield str(path.relative_to(folder)), f"half a file: {type(error).__name__}: {error}"


@contextmanager
def start(folder: Path, only: tuple[str, ...] | None = None) -> Iterator[Case]:
    """Import what all commands need, so that those that are forked have it."""
    import torch

    import nasdsl.cli.search
    import nasdsl.cli.train
    import nasdsl.search
    import nasdsl.search.full_training
    import nasdsl.training.proxy  # noqa: F401  # for those that are forked

    torch.set_num_threads(1)
    unbroken = UnbrokenWorks(folder)
    yield lambda number, report: unbroken.case(number, report, only)


SUBJECT = Subject("kills", "commands", 720, start, hang=3600, per_process=100)
