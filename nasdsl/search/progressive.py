"""Progressive search: first the fpn with the original head, then the head on the best fpn.

Sections 3.3 and 4.1.1 of arXiv:1906.04423. Each stage has a folder of its own and can be left out; ``f only``, ``h only`` and
``f + h`` are the rows of the paper's Table 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from nasdsl.decoder import loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.files import read_json
from nasdsl.search.backbone_training import BackboneTraining, train_backbones
from nasdsl.search.check import rejection_reason
from nasdsl.search.config import open_search_folder
from nasdsl.search.detectors import detector_key, key_name
from nasdsl.search.early_stopping import StoppingRule
from nasdsl.search.errors import FpnError, SearchError
from nasdsl.search.full_training import FullTraining
from nasdsl.search.ranking import Ranking, RankingEntry
from nasdsl.search.run import SearchRun
from nasdsl.search.stages import SearchSettings, Stage, StageResult, run_stage
from nasdsl.search.trial import Trial
from nasdsl.spaces import Space, SpaceError
from nasdsl.syntax.formatter import format_text

FPN, HEAD = "fpn", "head"
"""Names of the stages and of their folders."""
MAX_FPNS: Final = 10
"""Fpns that the second stage tries, if heads cannot be searched on the best ones, before it gives up."""

SAMPLES_TO_FIT: Final = 3
"""Samples of the fpn's space that are tried with the head's space before a search is refused because they do not fit."""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        folder: of the search.
        stages: results of the stages, in their order.
    """

    folder: Path
    stages: tuple[StageResult, ...]

    @property
    def best(self) -> StageResult | None:
        """The stage with the best decoder: that of the best AP if any were trained, else the last one that has a reward.

        Rewards of different stages cannot be compared, because widths and features differ.
        """
        stages = [stage for stage in self.stages if stage.best is not None]
        trained = [stage for stage in stages if stage.trained is not None]
        if trained:
            return max(trained, key=_best_ap)
        return stages[-1] if stages else None


@dataclass(frozen=True)
class _FpnCandidate:
    """A decoder whose fpn heads may be searched on.

    Attributes:
        trial, digest: of the first stage; None for a decoder given by the user.
        origin: where it comes from, for the user.
    """

    text: str
    trial: int | None
    digest: str | None
    origin: str


def plain_search(
    stage: Stage, out: str | Path, settings: SearchSettings | None = None, full: FullTraining | None = None, *,
    backbones: Sequence[BackboneTraining] = (), resume: bool = False, quiet: bool = False,
) -> SearchResult:  # fmt: skip
    """Search one space on the proxy task and fully train its best decoders, as ``nasdsl search`` does.

    Args:
        stage: the space and the proxy task.
        out: folder of the search; see `nasdsl.search.run.SearchRun`. ``full/ranking.json`` ranks the trained decoders.
        settings: strategy, seed, budgets and the like; None: the defaults.
        full: how the best are fully trained; None: they are not.
        backbones: trained first; the stage's proxy tasks have their folders for the weights of their backbones.
        resume: go on with the search in the folder; start one if there is none.
        quiet: show no progress.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; everything is saved.
        SearchError: an argument is invalid, the folder holds another search, or workers do not start.
        ProxyError, TrainingError, DataError, BackboneError: see `run_stage` and `BackboneTraining.run`.
    """
    folder, settings = Path(out), settings or SearchSettings()
    config = {"stages": [], "search": stage.to_dict(), **_common_config(stage, settings, full, backbones)}
    _check(stage, settings, folder)
    with open_search_folder(folder, config, resume=resume):
        train_backbones(backbones, resume=resume, quiet=quiet)
        return SearchResult(folder, (run_stage(stage, settings, full, folder, quiet=quiet),))


def progressive_search(
    out: str | Path,
    fpn: Stage | None,
    head: Stage | None,
    settings: SearchSettings | None = None,
    full: FullTraining | None = None,
    *,
    on: str | None = None,
    backbones: Sequence[BackboneTraining] = (),
    resume: bool = False,
    quiet: bool = False,
) -> SearchResult:
    """Search the fpn, then the head on the best fpn, as ``nasdsl search --progressive`` does.

    The best fpn is that of the decoder with the best AP if any were fully trained, else with the best score. For the second
    stage it is brought to the width of the head's space and trained once, with its own head, as the first stage trains
    decoders. Then heads are trained alone, on its pyramids, which are computed once. If the fpn diverges at that width, cannot
    be trained, or leaves no head that keeps the requirements of the head's space, the next best is taken;
    ``head/failed_fpns.json`` lists those that failed.

    Args:
        out: folder of the search. The stages are in ``fpn/`` and ``head/``, each with the files of a search; ``head/fpn.nas``
            is the decoder whose fpn heads are searched on, ``best.nas`` the best decoder of both stages.
        fpn: the first stage. None: no first stage; heads are searched on the fpn of `on`.
        head: the second stage; inputs and fpn of its space are replaced. None: no second stage.
        settings: strategy, seed, budgets and the like; None: the defaults.
        full: how the best are fully trained; None: they are not.
        on: text of a decoder, if there is no first stage.
        backbones: see `plain_search`.
        resume: go on with the search in the folder; start one if there is none.
        quiet: show no progress.

    Raises:
        FpnError: heads cannot be searched on the fpn of `on`, or on any of the best fpns.
        SpaceError, DiagnosticError: fpn and head's space do not fit together.
        Interrupted, SearchError, ProxyError, TrainingError, DataError, BackboneError: see `plain_search`.
    """
    if (fpn is None) == (on is None) or (fpn is None and head is None):
        raise SearchError("a progressive search has an fpn stage, or a text whose fpn the heads are searched on")
    folder, settings = Path(out), settings or SearchSettings()
    stages = {name: stage for name, stage in ((FPN, fpn), (HEAD, head)) if stage is not None}
    for stage in stages.values():
        _check(stage, settings, folder)
    if head is not None and on is not None:
        with_fixed_fpn(head.space, on)
    elif head is not None and fpn is not None:
        _check_fit(head.space, fpn.space)
    first = next(iter(stages.values()))
    config = {
        "stages": list(stages),
        "search": {name: stage.to_dict() for name, stage in stages.items()},
        "fpn": on,
        **_common_config(first, settings, full, backbones),
    }
    with open_search_folder(folder, config, resume=resume):
        train_backbones(backbones, resume=resume, quiet=quiet)
        results: list[StageResult] = []
        if fpn is not None:
            _say(f"stage fpn: {fpn.space.name}", quiet)
            results.append(run_stage(fpn, settings, full, folder / FPN, name=FPN, quiet=quiet))
            _write_best(SearchResult(folder, tuple(results)), full)
        if head is not None:
            known = {stage.folder / "full": stage.ranking for stage in results if stage.ranking is not None}
            fpns = _candidates(results[0]) if on is None else [_FpnCandidate(on, None, None, "the decoder that was named")]
            results.append(_search_heads(fpns, head, settings, full, folder / HEAD, known, quiet))
        result = SearchResult(folder, tuple(results))
        _write_best(result, full)
        return result


def with_fixed_fpn(space: Space, text: str) -> tuple[Space, str]:
    """Replace the fpn of a space of heads by that of a decoder, at the width of the space's fpn, for the same detector.

    Returns:
        The space, and the text of the decoder at that width.

    Raises:
        SpaceError, DiagnosticError: they do not fit together, or no head on this fpn keeps the requirements.
    """
    width = space.load(space.sample(0)).architecture.fpn.width
    decoder = loads(text, "the fpn's text").with_width(width)
    fixed = decoder.source.text
    made = space.with_fpn(fixed)
    sizes, backbones = [decoder.size] if decoder.size else [], [decoder.backbone] if decoder.backbone else []
    return made.with_detector(sizes, backbones), fixed


def _check(stage: Stage, settings: SearchSettings, folder: Path) -> None:
    """Raise SearchError if there is nothing to search, or a setting is invalid."""
    if not stage.space.domains:
        raise SearchError(f"`{stage.space.name}` has no holes, so that there is nothing to search: `nasdsl train` trains it")
    settings.check(stage.space, folder)
    if (rule := StoppingRule.parse(settings.stopping)) is not None:
        rule.checks(stage.proxy.iterations)


def _check_fit(heads: Space, fpns: Space) -> None:
    """Check, before any work, that heads can be searched on the fpn of at least one of a few samples.

    Raises:
        SpaceError, DiagnosticError: they can be on none.
    """
    for seed in range(SAMPLES_TO_FIT):
        try:
            with_fixed_fpn(heads, str(fpns.sample(seed)))
            return
        except (SpaceError, DiagnosticError):
            if seed == SAMPLES_TO_FIT - 1:
                raise


def _common_config(
    first: Stage, settings: SearchSettings, full: FullTraining | None, backbones: Sequence[BackboneTraining]
) -> dict[str, Any]:
    """The part of ``search.json`` that all stages share."""
    proxy: Mapping[str, Any] = {name: value for name, value in first.proxy.to_dict().items() if name != "fpn"}
    full_config = None
    if full is not None:
        beside = {name: decoder.source.text for name, decoder in full.beside.items()}
        full_config = {**full.plan.to_dict(), "beside": beside, "device": full.device}
        if full.minutes is not None:
            full_config["minutes"] = full.minutes
    config = {"how": settings.to_dict(), "proxy": proxy, "full": full_config, **settings.about}
    if backbones:  # other searches have no such entry
        config["backbones"] = {training.plan.backbone: training.to_dict() for training in backbones}
    if first.detectors:  # searches of earlier versions have none
        names = ("backbone", "backbone_weights", "image_size", "size")
        config["detectors"] = {
            key_name(key): {name: getattr(spec, name) for name in names} for key, spec in first.detectors.items()
        }
    return config


# ------------------------------------------------------------------------------------------------ the second stage


def _search_heads(
    fpns: Sequence[_FpnCandidate],
    head: Stage,
    settings: SearchSettings,
    full: FullTraining | None,
    folder: Path,
    known: Mapping[Path, Ranking],
    quiet: bool,
) -> StageResult:
    """Search heads on the first of several fpns that can be used, and say which cannot.

    Args:
        fpns: best first.
        folder: of the stage.

    Raises:
        FpnError: none of the first `MAX_FPNS` can be used, besides those that failed before a resume.
        SearchError: heads were searched on another fpn.
    """
    failures = _read_failures(folder)
    failed_before = {failure["digest"] for failure in failures}
    left = [fpn for fpn in fpns if fpn.digest is None or fpn.digest not in failed_before]
    for fpn in left[:MAX_FPNS]:
        try:
            space, fixed = with_fixed_fpn(head.space, fpn.text)
            _write_fpn(folder / "fpn.nas", fixed, fpn.origin, failures)
            _say(f"stage head: {space.name} on the fpn of {fpn.origin}", quiet)
            proxy = head.detectors.get(detector_key(fixed), head.proxy)
            stage = replace(head, space=space, proxy=replace(proxy, fpn=fixed), detectors={})
            return run_stage(stage, settings, full, folder, name=HEAD, known=known, quiet=quiet)
        except (FpnError, SpaceError, DiagnosticError) as error:
            if fpn.trial is None or SearchRun(folder).journal.exists():  # no other fpn can take its place
                raise
            reason = str(error) if isinstance(error, FpnError) else rejection_reason(error)
        _say(f"heads cannot be searched on the fpn of {fpn.origin}: {reason}", quiet)
        failures.append({"trial": fpn.trial, "digest": fpn.digest, "error": reason})
        _write(folder / "failed_fpns.json", json.dumps(failures, indent=1, ensure_ascii=False) + "\n")
    raise FpnError(
        f"heads cannot be searched on any of the {len(failures)} best fpns, see {folder / 'failed_fpns.json'}; the last: "
        f"{failures[-1]['error']}. "
        + ("--resume (resume=True) tries the next ones" if len(left) > MAX_FPNS else "No other trial has a reward")
    )


def _candidates(fpns: StageResult) -> list[_FpnCandidate]:
    """The decoders of the first stage that have a reward, best first.

    Raises:
        SearchError: there are none.
    """
    ranked = fpns.ranked
    if not ranked:
        raise SearchError(
            f"none of the {len(fpns.trials)} trials in {fpns.folder} has a reward, so that there is no fpn for heads; "
            f"{fpns.folder / 'trials.csv'} has their verdicts"
        )
    return [
        _FpnCandidate(
            str(trial.text),
            trial.number,
            trial.digest,
            f"trial {trial.number} of the stage {fpns.name}, {_quality(trial, fpns.training_of(trial))}",
        )
        for trial in ranked
    ]


def _read_failures(folder: Path) -> list[dict[str, Any]]:
    """The fpns that heads could not be searched on, from ``failed_fpns.json``."""
    path = folder / "failed_fpns.json"
    try:
        failures = read_json(path)
        return [{name: failure[name] for name in ("trial", "digest", "error")} for failure in failures]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} cannot be read: {error}; remove it and resume, to try these fpns again") from None


def _write_fpn(path: Path, text: str, origin: str, failures: Sequence[object]) -> None:
    """Write ``fpn.nas``, the decoder whose fpn heads are searched on.

    Raises:
        SearchError: heads were searched on another fpn.
    """
    note = "# Better ones failed: see failed_fpns.json.\n" if failures else ""
    new = format_text(f"# The fpn that heads are searched on: {origin}.\n{note}{text}\n")
    with suppress(FileNotFoundError):
        old = path.read_text(encoding="utf-8")
        if loads(old).digest == loads(new).digest:
            return
        if SearchRun(path.parent).journal.exists():
            raise SearchError(
                f"{path.parent} has heads on another fpn than {origin}, which is now the best: the first stage has more "
                "trials or trainings than when heads were begun. Choose another folder, or the earlier numbers"
            )
    _write(path, new)


def _write_best(result: SearchResult, full: FullTraining | None) -> None:
    """Write ``best.nas``: the best decoder of all stages, under a comment that says where it comes from."""
    stage = result.best
    if stage is None or stage.best is None:
        return
    trained = stage.trained
    text = str(stage.best.text) if trained is None else trained.text
    lines = [f"# Trial {stage.best.number} of the stage {stage.name}: {_quality(stage.best, trained)}."]
    if stage.name == HEAD:
        lines.append(f"# {HEAD}/fpn.nas says where its fpn comes from.")
    if trained is not None and full is not None:
        where = f"{stage.name}/full/{trained.folder}"
        lines.append(f"# Trained on {full.plan.data}, evaluated on its part {full.plan.val_split}: {where}.")
    _write(result.folder / "best.nas", format_text("\n".join([*lines, text, ""])))


def _quality(trial: Trial, trained: RankingEntry | None) -> str:
    ap = "" if trained is None or trained.ap is None else f"AP {100 * trained.ap:.1f} after full training, "
    return f"{ap}reward {trial.reward:.6g}"


def _best_ap(stage: StageResult) -> float:
    trained = stage.trained
    return -1.0 if trained is None or trained.ap is None else trained.ap


def _write(path: Path, text: str) -> None:
    from nasdsl.files import make_folder, write_bytes

    try:
        make_folder(path.parent)
        write_bytes(path, text.encode())
    except OSError as error:
        raise SearchError(f"cannot write {path}: {error.strerror or error}") from error


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
