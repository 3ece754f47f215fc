"""What a search will take: hours, disk and memory, from a few measured steps of three of its decoders and of its trainings."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from nasdsl.decoder import loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.backbone_training import BackboneTraining
from nasdsl.search.detectors import DetectorKey, detector_key
from nasdsl.search.errors import SearchError
from nasdsl.search.full_training import FullTraining
from nasdsl.search.progressive import with_fixed_fpn
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.search.workers import parse_workers
from nasdsl.spaces import Space, SpaceError

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.training.proxy import ProxySpec
    from nasdsl.training.proxy.timing import ProxyTime
    from nasdsl.training.timing import TrainingTime

SAMPLES: Final = 3
"""Decoders of a space that are measured."""
_ATTEMPTS: Final = 30
"""Samples among which these are chosen, so that they have different sizes and backbones."""
ENOUGH_SECONDS: Final = 90.0
"""Time after which no further full training is measured than the first."""
LOADED: Final = 0.8
"""Load of a core from which on it is said that others use the machine."""
TRIAL_BYTES: Final = 3000
"""About what the journal and ``trials.csv`` have of a trial beside three copies of its text."""

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a search.

    Attributes:
        name: what is done.
        seconds: how long it takes with the search's workers; None if that is unknown.
        detail: how the number comes about, for people.
    """

    name: str
    seconds: float | None
    detail: str


@dataclass(frozen=True)
class Estimate:
    """What a search takes.

    Attributes:
        parts: in their order.
        disk, memory: bytes by what they are for. Those of memory do not add up: they are needed at different times.
        notes: what the numbers do not contain, or are extrapolated from.
    """

    parts: tuple[Part, ...]
    disk: Mapping[str, int]
    memory: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all parts that are known."""
        return sum(part.seconds for part in self.parts if part.seconds is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        parts = [{"name": part.name, "seconds": part.seconds, "detail": part.detail} for part in self.parts]
        return {
            "seconds": self.seconds, "parts": parts, "disk": {**self.disk}, "memory": {**self.memory},
            "notes": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that has not begun.

    Attributes:
        data: of the proxy task.
        first: the first stage, or that of a search without stages; None if heads are searched on the fpn of `fixed`.
        heads: the stage of the heads; None without one.
        fixed: text of a decoder, where there is no first stage.
        settings, full, backbones: see `nasdsl.search.progressive_search`.
    """

    data: Dataset
    settings: SearchSettings
    first: Stage | None
    heads: Stage | None
    fixed: str | None
    full: FullTraining | None
    backbones: Sequence[BackboneTraining]

    @property
    def stages(self) -> list[Stage]:
        """The stages in their order."""
        return [stage for stage in (self.first, self.heads) if stage is not None]


@dataclass(frozen=True)
class Measured:
    """What was measured for an estimate.

    Attributes:
        proxies: by backbone and size, of the first stage.
        heads: of the second stage.
        backbones: the training of each backbone.
        full: full trainings of samples; empty where their length is given in minutes, or there are none.
        text: length of a sample's text.
        load: processes that were ready to run on this machine before it was measured; None where that is unknown.
    """

    proxies: Mapping[DetectorKey, ProxyTime]
    heads: ProxyTime | None
    backbones: Sequence[TrainingTime]
    full: Sequence[TrainingTime]
    text: int
    load: float | None = None


# ------------------------------------------------------------------------------------------------ measuring


def estimate(search: Search, say: Callable[[str], object] = lambda text: None) -> Estimate:
    """Measure and add up what a search takes. Nothing is written.

    Args:
        say: called with what is measured next.

    Raises:
        SearchError: nothing of the space could be trained.
        ProxyError, TrainingError, DataError, BackboneError: see `plain_search`.
    """
    return add_up(search, measure(search, say))


def measure(search: Search, say: Callable[[str], object] = lambda text: None) -> Measured:
    """Measure a few steps of everything that a search does, in processes of their own; see `estimate`."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    kind, count, _ = parse_workers(search.settings.workers)
    own_cores = kind == "process" and "OMP_NUM_THREADS" not in os.environ  # as `start_processes` divides them
    threads = max(1, (os.cpu_count() or 1) // (count or 1)) if own_cores else None
    initial = {training.plan.backbone: _initial_weights(training) for training in search.backbones}
    texts = [] if search.first is None else _samples(search.first.space)
    specs = _specs(search)
    jobs: list[_Job] = []
    for key, spec in specs.items():
        own = [text for text in texts if key == (None, None) or detector_key(text) == key]
        jobs.append((_proxy_time, (spec, search.data, own, initial.get(spec.backbone, spec.backbone_weights), threads)))
    heads = None if search.heads is None else _heads_on_a_sample(search, search.heads, texts)
    if heads is not None:
        spec, samples = heads
        jobs.append((_proxy_time, (spec, search.data, samples, initial.get(spec.backbone, spec.backbone_weights), threads)))
    say(f"measuring features, and a few steps of {len(texts) + len(heads[1] if heads else ())} decoders on the proxy task")
    times: list[ProxyTime] = _run_jobs(jobs)
    proxies = dict(zip(specs, times, strict=False))
    if texts and not any(time.evaluations for time in proxies.values()):
        reasons = "; ".join(failure for time in times for failure in time.failures)
        raise SearchError(f"none of {len(texts)} decoders of the space could be trained: {reasons}")
    jobs = [(_backbone_time, (training,)) for training in search.backbones]
    if search.full is not None:
        first = search.first is not None and search.first.top
        trained = texts if first else _samples(search.stages[-1].space)
        trained = trained[:1] if search.full.minutes is not None else trained  # that one is for memory and disk
        jobs += [(_full_time, (search.full, text)) for text in trained]
    trainings: list[TrainingTime] = []
    if jobs:
        say(f"measuring a few steps of {len(jobs)} training{'s' * (len(jobs) > 1)}")
        trainings = _run_jobs(jobs, len(search.backbones) + 1)
    number = len(search.backbones)
    text = max(map(len, texts), default=1000)
    return Measured(proxies, times[-1] if heads is not None else None, trainings[:number], trainings[number:], text, load)


_Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]


def _run_jobs(jobs: Sequence[_Job], needed: int | None = None) -> list[Any]:
    """The results of the jobs; only those of the first `needed` once `ENOUGH_SECONDS` have passed.

    Each has a process of its own: one that has had much memory keeps it, and what comes next seems to need none.
    """
    start, found = monotonic(), []
    for number, (function, arguments) in enumerate(jobs):
        if needed is not None and number >= needed and monotonic() - start > ENOUGH_SECONDS:
            break
        found.append(in_process(function, *arguments))
    return found


def in_process(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a new process, whose memory is its own. Whatever ends the call ends the process.

    Raises:
        SearchError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        error, value = receiver.recv()
    except EOFError:
        raise SearchError("the measuring process was killed, most likely because there is too little memory") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    result: T = value
    return result


def _send_result(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sender.send((None, function(*args)))
    except KeyboardInterrupt:  # the calling process has it too
        pass
    except Exception as error:
        sender.send((error, None))


def _proxy_time(spec: ProxySpec, data: Dataset, texts: Sequence[str], weights: str | None, threads: int | None) -> ProxyTime:
    from nasdsl.training.proxy.timing import time_proxy

    return time_proxy(spec, data, texts, weights, threads)


def _backbone_time(training: BackboneTraining) -> TrainingTime:
    from nasdsl.training.timing import time_training

    data, val = training.open()
    return time_training(training.plan.make_detector(training.decoder, data), data, val, training.plan.recipe, training.device)


def _full_time(full: FullTraining, text: str) -> TrainingTime:
    from nasdsl.training.timing import time_training

    decoder, plan = full.prepare(loads(text))
    data, val = full.open()
    return time_training(plan.make_detector(decoder, data), data, val, plan.recipe, full.device)


def _heads_on_a_sample(search: Search, stage: Stage, texts: Sequence[str]) -> tuple[ProxySpec, list[str]] | None:
    """The second stage on the fpn of the first sample that heads can be searched on: its proxy task, and a few heads."""
    for text in [search.fixed] if search.fixed is not None else texts:
        with suppress(SpaceError, DiagnosticError):
            space, fixed = with_fixed_fpn(stage.space, text)
            spec = stage.detectors.get(detector_key(fixed), stage.proxy)
            return replace(spec, fpn=fixed), _samples(space)
    return None


def _initial_weights(training: BackboneTraining) -> str | None:
    """The weights that a backbone has before it is fine-tuned: times do not depend on what is learnt."""
    return training.plan.weights or training.plan.backbone_weights


def _specs(search: Search) -> Mapping[DetectorKey, ProxySpec]:
    stage = search.stages[0]
    return stage.detectors or {(None, None): stage.proxy}


def _samples(space: Space) -> list[str]:
    """Texts of a few decoders of a space, of as many sizes and backbones as can be."""
    found: dict[str, DetectorKey] = {}
    for seed in range(_ATTEMPTS):
        text = str(space.sample(seed))
        found.setdefault(text, detector_key(text))
    distinct = {key: text for text, key in reversed(found.items())}
    first = [text for text in found if text in distinct.values()]
    return [*first, *(text for text in found if text not in first)][:SAMPLES]


# ------------------------------------------------------------------------------------------------ adding up


def add_up(search: Search, measured: Measured) -> Estimate:
    """The hours, disk and memory of a search, from what was measured."""
    from nasdsl.training.proxy.estimate import estimate_features

    images, specs = len(search.data), _specs(search)
    parts: list[Part] = []
    disk: dict[str, int] = {}
    memory: dict[str, int] = {}
    notes: list[str] = []
    for training, took in zip(search.backbones, measured.backbones, strict=True):
        parts.append(Part(f"fine-tuning of {training.plan.backbone}", took.seconds, _training_detail(took)))
        disk["backbone"] = disk.get("backbone", 0) + took.disk
        _add_memory(memory, "fine-tuning of the backbone", [took.memory], [took.gpu_memory])
    each = ", ".join(f"{time.image:.3g}" for time in measured.proxies.values())
    parts.append(
        Part("features", images * sum(time.image for time in measured.proxies.values()), f"{images:,} images, {each} s each")
    )
    features = {key: estimate_features(search.data, spec).backbone for key, spec in specs.items()}
    disk["feature cache"] = sum(features.values())
    loaded = sum(size for key, size in features.items() if size <= specs[key].memory_limit)
    inline = search.settings.workers == "inline"
    if inline and loaded:
        memory["features in memory"] = loaded
    if search.first is not None:
        _add_first(search, search.first, measured, parts, memory)
    if search.heads is not None:
        _add_heads(search, search.heads, measured, parts, disk, memory)
    _add_full(search, measured, parts, disk, memory)
    trials = sum(stage.trials for stage in search.stages)
    disk["journal and tables"] = trials * (TRIAL_BYTES + 3 * measured.text)
    notes += _notes(search, measured)
    if loaded < sum(features.values()) or not inline:
        notes.append(
            "the feature file is memory-mapped: it is read from the disk again and again unless it fits into free memory"
        )
    return Estimate(tuple(parts), disk, memory, tuple(notes))


def _add_first(search: Search, stage: Stage, measured: Measured, parts: list[Part], memory: dict[str, int]) -> None:
    specs = _specs(search)
    times = {key: time for key, time in measured.proxies.items() if time.evaluations}
    name = "fpn trials" if search.heads is not None else "trials"
    if stage.supernet is not None:
        steps = [evaluation.step for time in times.values() for evaluation in time.evaluations]
        drawn = 3 if len(_widths(stage.space)) > 1 else 1
        seconds = stage.supernet.iterations * drawn * fmean(steps)
        parts.append(Part("weight-sharing network", seconds, f"{stage.supernet.iterations:,} steps of {drawn} decoders each"))
        each = [e.validation + stage.supernet.calibration * e.step for time in times.values() for e in time.evaluations]
    else:
        each = [evaluation.total(specs[key]) for key, time in times.items() for evaluation in time.evaluations]
    parts.append(_trials(name, stage, each, search.settings))
    worker = "a worker" if search.settings.workers != "inline" else "trials"
    _add_memory(memory, worker, [time.memory for time in times.values()], [time.gpu_memory for time in times.values()])


def _add_heads(
    search: Search, stage: Stage, measured: Measured, parts: list[Part], disk: dict[str, int], memory: dict[str, int]
) -> None:
    from nasdsl.training.proxy.estimate import estimate_features

    time, images = measured.heads, len(search.data)
    if time is None or not time.evaluations or time.fpn is None:
        parts.append(Part("head trials", None, "none could be measured"))
        return
    seconds = stage.proxy.iterations * time.fpn.step + images * time.pyramid
    parts.append(Part("fpn outputs", seconds, f"an fpn trained once, then {images:,} images, {time.pyramid:.3g} s each"))
    parts.append(_trials("head trials", stage, [each.total(stage.proxy) for each in time.evaluations], search.settings))
    with suppress(SpaceError, DiagnosticError):
        text = search.fixed or str(search.stages[0].space.sample(0))
        fixed = with_fixed_fpn(stage.space, text)[1]
        spec = stage.detectors.get(detector_key(fixed), stage.proxy)
        disk["fpn outputs"] = estimate_features(search.data, spec, fixed).fpn
    worker = "a worker (heads)" if search.settings.workers != "inline" else "trials of heads"
    _add_memory(memory, worker, [time.memory], [time.gpu_memory])


def _add_full(search: Search, measured: Measured, parts: list[Part], disk: dict[str, int], memory: dict[str, int]) -> None:
    if search.full is None or not measured.full:
        return
    number = sum(stage.top for stage in search.stages) + len(search.full.beside)
    if search.full.minutes is not None:
        seconds = number * 60 * search.full.minutes
        detail = f"{number} of {search.full.minutes:g} minutes"
    else:
        each = [time.seconds for time in measured.full]
        seconds = number * fmean(each)
        detail = f"{number} of {_range(each)} each: {_training_detail(measured.full[0])}"
    parts.append(Part("full trainings", seconds, detail))
    disk["full trainings"] = number * max(time.disk for time in measured.full)
    _add_memory(memory, "a full training", [time.memory for time in measured.full], [time.gpu_memory for time in measured.full])


def _trials(name: str, stage: Stage, each: Sequence[float], settings: SearchSettings) -> Part:
    """The part of a stage's trials: with several workers they run side by side."""
    evaluated = stage.trials if stage.evaluations is None else min(stage.trials, stage.evaluations)
    workers = at_once(settings.workers)
    detail = f"{evaluated:,} of {_range(each)} each" + (f", {workers} at a time" if workers > 1 else "")
    return Part(name, evaluated * fmean(each) / workers, detail)


def at_once(workers: str) -> int:
    """Evaluations that run side by side; 1 where their number is not known."""
    kind, count, _ = parse_workers(workers)
    return count if count is not None and kind in ("process", "ray") else 1


def _range(seconds: Sequence[float]) -> str:
    """``12 s (8 to 20)``: mean, lowest and highest."""
    from nasdsl.training.progress import about_duration

    low, high = min(seconds), max(seconds)
    if fmean(seconds) >= 120:
        spread = f" ({about_duration(low)} to {about_duration(high)})" if about_duration(low) != about_duration(high) else ""
        return about_duration(fmean(seconds)) + spread
    spread = f" ({low:.3g} to {high:.3g})" if f"{low:.3g}" != f"{high:.3g}" else ""
    return f"{fmean(seconds):.3g} s{spread}"


def _training_detail(time: TrainingTime) -> str:
    evaluations = f" and {time.evaluations} evaluation{'s' * (time.evaluations > 1)}" if time.evaluations else ""
    return f"{time.steps:,} steps of {time.step:.3g} s{evaluations}"


def _widths(space: Space) -> set[int]:
    return {loads(str(space.sample(seed))).architecture.fpn.width for seed in range(_ATTEMPTS)}


def _add_memory(memory: dict[str, int], name: str, values: Sequence[int | None], gpu: Sequence[int | None]) -> None:
    for key, found in ((name, values), (f"{name}, GPU", gpu)):
        known = [value for value in found if value is not None]
        if known:
            memory[key] = max(memory.get(key, 0), *known)


def _notes(search: Search, measured: Measured) -> list[str]:
    """What the numbers leave out."""
    notes = []
    settings = search.settings
    kind, count, _ = parse_workers(settings.workers)
    if kind == "folder" or (kind == "ray" and count is None):
        notes.append(f"trials are those of one worker: divide by how many there are ({settings.workers})")
    shares = [time.share for time in [*measured.proxies.values(), *([measured.heads] if measured.heads else [])]]
    shares += [time.share for time in [*measured.backbones, *measured.full]]
    if min(shares, default=1.0) < 1:
        notes.append("batches too large for a quick measurement were measured in part, and time and memory extrapolated")
    if measured.load is not None and measured.load > LOADED * (os.cpu_count() or 1):
        notes.append(
            f"other processes used this machine while it was measured (load {measured.load:.1f} on {os.cpu_count()} cores): "
            "alone it is faster"
        )
    if settings.stopping != "none":
        notes.append("trials that are stopped early take less")
    if settings.budgets:
        notes.append("the measured decoders may be over the budgets; those of the search are not")
    failures = [failure for time in measured.proxies.values() for failure in time.failures]
    notes += [f"not measured: {failure}" for failure in dict.fromkeys(failures)]
    return notes
