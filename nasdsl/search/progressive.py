"""The progressive search: the fpn first, with the original head; then the head, on the best fpn that was found.

Sections 3.3 and 4.1.1 of arXiv:1906.04423. Each stage has a folder of its own and can be left out: ``f only``, ``h only`` and
``f + h`` are the rows of the paper's Table 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from nasdsl.decoder import loads
from nasdsl.search.config import search_folder
from nasdsl.search.errors import SearchError
from nasdsl.search.full_training import FullTraining
from nasdsl.search.ranking import Entry
from nasdsl.search.stages import Found, How, Stage, run_stage
from nasdsl.search.trial import Trial
from nasdsl.spaces import Space
from nasdsl.syntax.formatter import format_text

FPN, HEAD = "fpn", "head"
"""Names of the stages and of their folders."""


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Attributes:
        folder: of it.
        stages: what each came to, in their order.
    """

    folder: Path
    stages: tuple[Found, ...]

    @property
    def best(self) -> Found | None:
        """The stage that has the best decoder: of the best AP where decoders were trained, else the last one that has one.

        Rewards of different stages do not compare: widths differ, and so do the features.
        """
        known = [stage for stage in self.stages if stage.best is not None]
        trained = [stage for stage in known if stage.trained is not None]
        if trained:
            return max(trained, key=_ap)
        return known[-1] if known else None


def plain_search(
    stage: Stage, out: str | Path, how: How | None = None, full: FullTraining | None = None, *, resume: bool = False,
    quiet: bool = False,
) -> Outcome:  # fmt: skip
    """Search one space with the proxy task, and train the best fully: what ``nasdsl search`` does.

    Args:
        out: folder of the search; see `nasdsl.search.run.SearchRun`. ``full/ranking.json`` ranks the trained ones.
        resume: go on with the search that is there; where there is none, begin one.

    Raises:
        Interrupted: SIGINT or SIGTERM came; everything is saved.
        SearchError: the arguments make no sense, the folder holds another search, or workers do not start.
        ProxyError, TrainingError, DataError, BackboneError: see `run_stage`.
    """
    folder, how = Path(out), how or How()
    asked = {"stages": [], "search": stage.asked(), **_asked(stage, how, full)}
    _check(stage, how)
    with search_folder(folder, asked, resume=resume):
        found = run_stage(stage, how, full, folder, quiet=quiet)
        return Outcome(folder, (found,))


def progressive_search(
    out: str | Path,
    fpn: Stage | None,
    head: Stage | None,
    how: How | None = None,
    full: FullTraining | None = None,
    *,
    on: str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Search the fpn, then the head on the best one: what ``nasdsl search --progressive`` does.

    The best fpn is that of the decoder of the best AP where some were trained, else of the best score. For the second stage
    it is brought to the width of the head's space and trained once as the first stage trains decoders, with its own head;
    then heads are trained alone, on its pyramid, which is computed once.

    Args:
        out: folder of the search. The stages are in ``fpn/`` and ``head/``, each with the files of a search;
            ``head/fpn.nas`` is the decoder whose fpn the heads are on, ``best.nas`` the best of all.
        fpn: the first stage. None: it is left out, and heads are searched on the fpn of `on`.
        head: the second stage; inputs and fpn of its space are replaced. None: it is left out.
        on: text of a decoder, for the second stage alone.
        resume: go on in the stage where the search ended; where there is none, begin one.

    Raises:
        As `plain_search`; SpaceError or DiagnosticError where the fpn and the head's space do not fit together.
    """
    if (fpn is None) == (on is None) or (fpn is None and head is None):
        raise SearchError("a progressive search has an fpn stage, or a text whose fpn the heads are searched on")
    folder, how = Path(out), how or How()
    stages = {name: stage for name, stage in ((FPN, fpn), (HEAD, head)) if stage is not None}
    for stage in stages.values():
        _check(stage, how)
    if head is not None:  # what does not fit is told before any work
        heads_on(head.space, on or str(fpn.space.sample(0)))  # type: ignore[union-attr]  # one of them is there
    first = next(iter(stages.values()))
    asked = {
        "stages": list(stages),
        "search": {name: stage.asked() for name, stage in stages.items()},
        "fpn": on,
        **_asked(first, how, full),
    }
    with search_folder(folder, asked, resume=resume):
        found: list[Found] = []
        if fpn is not None:
            _say(f"stage fpn: {fpn.space.name}", quiet)
            found.append(run_stage(fpn, how, full, folder / FPN, name=FPN, quiet=quiet))
            _write_best(Outcome(folder, tuple(found)), full)
        if head is not None:
            text, origin = (on, "the decoder that was named") if not found else _winner(found[0])
            assert text is not None
            space, fixed = heads_on(head.space, text)
            _keep_fpn(folder / HEAD / "fpn.nas", fixed, origin)
            _say(f"stage head: {space.name} on the fpn of {origin}", quiet)
            stage = replace(head, space=space, proxy=replace(head.proxy, fpn=fixed))
            known = {at.folder / "full": at.ranking for at in found if at.ranking is not None}
            found.append(run_stage(stage, how, full, folder / HEAD, name=HEAD, known=known, quiet=quiet))
        outcome = Outcome(folder, tuple(found))
        _write_best(outcome, full)
        return outcome


def heads_on(space: Space, text: str) -> tuple[Space, str]:
    """A space of heads on the fpn of a decoder, both at the width that the space's fpn has; and the decoder at that width.

    Raises:
        SpaceError, DiagnosticError: they do not fit together.
    """
    width = space.load(space.sample(0)).architecture.fpn.width
    fixed = loads(text, "the fpn's text").with_width(width).source.text
    return space.with_fpn(fixed), fixed


def _check(stage: Stage, how: How) -> None:
    """Raises SearchError where there is nothing to search, or no way to."""
    if not stage.space.domains:
        raise SearchError(f"`{stage.space.name}` has no holes, so that there is nothing to search: `nasdsl train` trains it")
    how.check(stage.space)


def _asked(first: Stage, how: How, full: FullTraining | None) -> dict[str, Any]:
    """What all stages share, as plain values."""
    proxy: Mapping[str, Any] = {name: value for name, value in asdict(first.proxy).items() if name != "fpn"}
    trained = None
    if full is not None:
        beside = {name: decoder.source.text for name, decoder in full.beside.items()}
        trained = {**full.plan.to_dict(), "beside": beside, "device": full.device}
    return {"how": how.asked(), "proxy": proxy, "full": trained, **how.about}


def _winner(stage: Found) -> tuple[str, str]:
    """The text of a stage's best decoder, and what it is.

    Raises:
        SearchError: there is none.
    """
    trial = stage.best
    if trial is None:
        raise SearchError(
            f"none of the {len(stage.trials)} trials in {stage.folder} has a reward, so that there is no fpn for heads; "
            f"{stage.folder / 'trials.csv'} says what became of them"
        )
    return str(trial.text), f"trial {trial.number} of the stage {stage.name}, {_worth(trial, stage.trained)}"


def _keep_fpn(path: Path, text: str, origin: str) -> None:
    """Write down the decoder whose fpn heads are searched on.

    Raises:
        SearchError: they have been searched on another one.
    """
    new = format_text(f"# The fpn that heads are searched on: {origin}.\n{text}\n")
    with suppress(FileNotFoundError):
        old = path.read_text(encoding="utf-8")
        if loads(old).digest != loads(new).digest:
            raise SearchError(
                f"{path.parent} has heads on another fpn than {origin}, which is the best by now: the stage before has more "
                "trials or trainings than when they were begun. Take another folder, or ask for as many as then"
            )
        return
    _write(path, new)


def _write_best(outcome: Outcome, full: FullTraining | None) -> None:
    """``best.nas``: the best decoder of all, with where it comes from."""
    stage = outcome.best
    if stage is None or stage.best is None:
        return
    trained = stage.trained
    text = str(stage.best.text) if trained is None else trained.text
    lines = [f"# Trial {stage.best.number} of the stage {stage.name}: {_worth(stage.best, trained)}."]
    if stage.name == HEAD:
        lines.append(f"# {HEAD}/fpn.nas says where its fpn comes from.")
    if trained is not None and full is not None:
        where = f"{stage.name}/full/{trained.folder}"
        lines.append(f"# Trained on {full.plan.data}, evaluated on its part {full.plan.val_split}: {where}.")
    _write(outcome.folder / "best.nas", format_text("\n".join([*lines, text, ""])))


def _worth(trial: Trial, trained: Entry | None) -> str:
    ap = "" if trained is None or trained.ap is None else f"AP {100 * trained.ap:.1f} after full training, "
    return f"{ap}reward {trial.reward:.6g}"


def _ap(stage: Found) -> float:
    trained = stage.trained
    return -1.0 if trained is None or trained.ap is None else trained.ap


def _write(path: Path, text: str) -> None:
    from nasdsl.training.checkpoint import write_atomically

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise SearchError(f"cannot write {path}: {error.strerror or error}") from error


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
