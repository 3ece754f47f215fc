"""From the options of `nasdsl search` to what the library takes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import fail
from nasdsl.cli.files import load_decoder, path_of
from nasdsl.cli.options import assignments, command_line, is_default
from nasdsl.cli.output import say
from nasdsl.cli.training_plan import random_backbone_warning, starting_weights
from nasdsl.search.progressive import Outcome, plain_search, progressive_search
from nasdsl.search.stages import How, Stage
from nasdsl.spaces import Space, load_space
from nasdsl.training.proxy.spec import ProxySpec

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.decoder import Decoder
    from nasdsl.search.full import FullTraining

PAPER_TRIALS, PAPER_TOP, PLAIN_TRIALS = 2800, 20, 500
"""Section 4.1.1 of arXiv:1906.04423: architectures of the first stage, and how many are trained fully. And without stages."""

_OWN = {
    "iterations": "iterations", "proxy_size": "size", "proxy_batch": "batch_size", "proxy_learning_rate": "learning_rate",
    "val_share": "val_share", "dtype": "dtype", "device": "device",
}  # fmt: skip
"""Options that are settings of the proxy task, where they are given."""


def run(asked: SimpleNamespace) -> tuple[Outcome, ProxySpec]:
    """Search as asked; what came of it, and the proxy task."""
    from nasdsl.data import open_dataset

    data = open_dataset(asked.spec, asked.split)
    say("\n".join(data.summary()))
    space = None if asked.chosen == ("head",) else _space(asked.file or "zoo:nas_fcos_fpn", asked.width, asked, data)
    head = _space(asked.head_space, asked.head_width, asked, data) if "head" in asked.chosen else None
    on = _fixed(asked.fpn or "zoo:fcos") if space is None else None
    first = space or on
    assert first is not None
    proxy = proxy_spec(asked, first.inputs)
    trials, top = (PAPER_TRIALS, PAPER_TOP) if asked.chosen else (PLAIN_TRIALS, 0)
    trials, top = (d if value is None else value for value, d in ((asked.trials, trials), (asked.top, top)))
    how = _how(asked)
    stage = Stage(space=space, proxy=proxy, trials=trials, evaluations=asked.evaluations, top=top) if space else None
    heads = None
    if head is not None:
        heads = Stage(space=head, proxy=proxy, trials=asked.head_trials, evaluations=asked.evaluations, top=asked.head_top)
    full = _full(asked, [at for at in (stage, heads) if at is not None])
    if not asked.chosen:
        assert stage is not None
        return plain_search(stage, asked.out, how, full, resume=asked.resume), proxy
    text = str(on.decode(())) if on is not None else None
    return progressive_search(asked.out, stage, heads, how, full, on=text, resume=asked.resume), proxy


def proxy_spec(asked: SimpleNamespace, levels: tuple[str, ...]) -> ProxySpec:
    """The proxy task."""
    given: dict[str, Any] = {to: getattr(asked, name) for name, to in _OWN.items() if getattr(asked, name) is not None}
    if "size" in given:  # the bound of the longer side, to the shorter one as in the full schedule
        given["longest"] = round(given["size"] * 1333 / 800)
    if asked.memory_limit is not None:
        given["memory_limit"] = int(asked.memory_limit * 2**30)
    given |= {
        "split": asked.split,
        "backbone": asked.backbone,
        "backbone_weights": _weights(asked),
        "levels": tuple(sorted(levels)),
        "mirror": not asked.no_mirror,
        "reward": asked.reward,
        "seed": asked.seed,
        "method": assignments("--method", asked.method, "center_radius=1.5"),
        "cache": str((asked.cache or asked.out / "features").absolute()),
    }
    changes = assignments("--proxy", asked.proxy, "average=0.9")
    known = [field.name for field in dataclasses.fields(ProxySpec) if field.name not in ("data", "fpn")]
    unknown = [name for name in changes if name not in known]
    if unknown:
        fail(f"--proxy {unknown[0]}: the proxy task has no such setting; it has {', '.join(known)}")
    try:
        return ProxySpec(asked.spec, **{**given, **changes})
    except TypeError as error:  # a word where a number is compared
        fail(f"--proxy: a value is of the wrong kind ({error})")


def _space(file: str, width: int | None, asked: SimpleNamespace, data: Dataset) -> Space:
    """A space for this backbone and these classes, at this width."""
    space = load_space(path_of(file), backbone=asked.backbone, classes=len(data.classes))
    if not space.domains:
        fail(f"{file} has no holes, so that there is nothing to search: `nasdsl train` trains it")
    return space if width is None else space.with_width(width)


def _fixed(file: str) -> Space:
    """A decoder without holes, as the space of which it is the only one."""
    space = load_space(path_of(file))
    if space.domains:
        fail(f"{file} has holes; expected a decoder without, whose fpn heads are searched on")
    return space


def _how(asked: SimpleNamespace) -> How:
    return How(
        strategy=asked.strategy,
        options=assignments("--strategy-option", asked.strategy_option, "population=50"),
        seed=asked.seed,
        objective=asked.objective,
        stopping=asked.early_stop,
        size=asked.size,
        workers=asked.workers,
        batch=asked.batch,
        timeout=asked.timeout,
        about={"command": command_line()},
    )


def _full(asked: SimpleNamespace, stages: list[Stage]) -> FullTraining | None:
    """How the best are trained; None where none are to be. What cannot be trained is refused before anything is searched."""
    if not any(stage.top for stage in stages):
        if asked.beside:
            fail("--beside is trained beside the best of the search: say with --top how many of those")
        return None
    from nasdsl.search.full import FullTraining
    from nasdsl.training.plan import Plan
    from nasdsl.training.recipe import find_recipe

    shortcuts = {"seed": asked.seed} | ({} if asked.epochs is None else {"epochs": asked.epochs})
    plan = Plan(
        data=asked.full_data or asked.spec,
        split=asked.full_split or ("train" if asked.full_data else asked.split),
        val_split=None if asked.val_split == "none" else asked.val_split,
        backbone=asked.backbone,
        backbone_weights=_full_weights(asked),
        freeze_at=asked.freeze_at,
        norm=asked.norm,
        width=asked.full_width,
        recipe=find_recipe(asked.recipe).changed(shortcuts).override(asked.settings),
        method=assignments("--method", asked.method, "center_radius=1.5"),
        improvements=asked.improvements,
    )
    full = FullTraining(plan, _beside(asked.beside), asked.device, {"command": command_line()})
    full.open()
    for stage in stages:
        text = stage.space.sample(0)
        width = stage.space.load(text).architecture.fpn.width
        for decoder in (stage.space.load(text), *(beside.with_width(width) for beside in full.beside.values())):
            plan.adapted(decoder)
    random_backbone_warning(plan)
    return full


def _beside(files: tuple[str, ...]) -> dict[str, Decoder]:
    """Decoders by the names of their folders."""
    found: dict[str, Decoder] = {}
    for file in files:
        decoder = load_decoder(file)
        if decoder.architecture.open_holes:
            fail(f"--beside {file} has holes; expected a decoder without")
        name, number = decoder.name, 1
        while name in found or re.fullmatch(r"trial_\d+", name):
            number += 1
            name = f"{decoder.name}_beside_{number}"
        found[name] = decoder
    return found


def _weights(asked: SimpleNamespace) -> str | None:
    """Of the frozen backbone."""
    named = not is_default("backbone_weights")
    return starting_weights(asked.backbone_weights, asked.backbone, asked=named)


def _full_weights(asked: SimpleNamespace) -> str | None:
    """Of the backbone in the full training: those of the search, unless they are of a detector."""
    if asked.full_backbone_weights is not None:
        return starting_weights(asked.full_backbone_weights, asked.backbone, asked=True)
    weights = _weights(asked)
    of_run = weights is not None and (Path(weights).is_dir() or Path(weights).name == "model.pt")
    return starting_weights("imagenet", asked.backbone, asked=False) if of_run else weights
