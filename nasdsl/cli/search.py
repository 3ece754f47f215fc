"""search: the best decoder of a space, by short trainings on cached features, and full ones of the best."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import click

from nasdsl.cli.errors import fail, plain_warnings, refusals
from nasdsl.cli.help import Grouped
from nasdsl.cli.options import (
    BACKBONE,
    DATA,
    DEVICE,
    FORMAT,
    FREEZE_AT,
    IMPROVEMENTS,
    METHOD,
    NORM,
    RECIPE,
    SETTINGS,
    VAL_SPLIT,
    SizeType,
    is_default,
)
from nasdsl.cli.output import say
from nasdsl.cli.settings import proxy_table, recipe_table, show_settings

STAGES = {"fpn": ("fpn",), "head": ("head",), "fpn+head": ("fpn", "head")}
"""Stages of a progressive search by the words of ``--stages``."""

HEADINGS = {
    "Data": ("spec", "split"),
    "Search": (
        "trials", "evaluations", "strategy", "strategy_option", "seed", "objective", "size", "early_stop", "width",
    ),
    "Running": ("out", "resume", "workers", "batch", "timeout", "device", "cache", "memory_limit"),
    "Proxy task (the short training that scores a decoder)": (
        "backbone", "backbone_weights", "iterations", "proxy_size", "proxy_batch", "proxy_learning_rate", "val_share", "reward",
        "no_mirror", "dtype", "method", "proxy",
    ),
    "Full training of the best": (
        "top", "beside", "full_data", "full_split", "val_split", "full_width", "full_backbone_weights", "freeze_at", "norm",
        "recipe", "epochs", "settings", "improvements",
    ),
    "Progressive search (the fpn, then the head on the best fpn)": (
        "progressive", "stages", "head_space", "fpn", "head_trials", "head_top", "head_width",
    ),
}  # fmt: skip

Share = click.FloatRange(0, 1, min_open=True, max_open=True)
Positive = click.FloatRange(0, min_open=True)


@click.command(cls=Grouped, headings=HEADINGS)
@click.argument("file", metavar="[SPACE]", required=False)
@DATA
@click.option("--split", default="train", show_default=True, help="Part of the data for the proxy task.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the search.")
@click.option("--resume", is_flag=True, help="Go on with the search in the folder; begin one where there is none.")
@click.option("--trials", type=click.IntRange(0), help="Proposals.  [default: 500; 2,800 with --progressive]")
@click.option(
    "--evaluations", type=click.IntRange(0), help="End a stage after so many that are neither duplicates nor rejected."
)
@click.option("--strategy", metavar="NAME", help="bayes, ppo, evolution or random.  [default: bayes]")
@click.option("--strategy-option", multiple=True, metavar="NAME=VALUE", help="An option of the strategy; may be repeated.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Decides everything random.")
@click.option(
    "--objective",
    default="reward",
    show_default=True,
    metavar="reward|COST:TARGET",
    help="Weigh the reward against macs, params or latency: macs:20G, params:2M:0:-1, latency:15ms:-0.1.",
)
@click.option(
    "--size",
    type=SizeType(),
    default="800x1088",
    show_default=True,
    help="Height x width of the image that costs are counted for.",
)
@click.option(
    "--early-stop",
    default="none",
    show_default=True,
    metavar="none|median|quantile:Q",
    help="Give hopeless trainings up; see docs/search.md.",
)
@click.option("--workers", default="inline", show_default=True, metavar="inline|process:N|ray[:N][@ADDRESS]",
              help="Who evaluates: this process, N others on this machine, or Ray's.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1), help="Proposals out at once.  [default: 1, or 2 a worker of several]")
@click.option("--timeout", type=Positive, metavar="SECONDS", help="Limit of an evaluation; not with inline workers.")
@DEVICE
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder of features.  [default: OUT/features]")
@click.option("--memory-limit", type=click.FloatRange(0), metavar="GIB",
              help="Features that are larger stay in their file and are mapped.  [default: 4]")  # fmt: skip
@BACKBONE
@click.option(
    "--backbone-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    help="Of the frozen backbone: torchvision's, random, a file, or a training's folder, whose detector has this backbone.",
)
@click.option("--width", type=click.IntRange(1), help="Width of fpn and head, instead of the space's.")
@click.option("--iterations", type=click.IntRange(1), help="Steps of the short training.  [default: 300]")
@click.option("--proxy-size", type=click.IntRange(1), metavar="PIXELS",
              help="Shorter side of pictures and side of crops.  [default: 384]")  # fmt: skip
@click.option("--proxy-batch", type=click.IntRange(1), help="Crops a step.  [default: 200]")
@click.option("--proxy-learning-rate", type=Positive, help="Of Adam.  [default: 0.0008]")
@click.option("--val-share", type=Share, help="Share of the pictures that rewards are measured on.  [default: 0.3]")
@click.option("--reward", type=click.Choice(["loss", "ap"]), default="loss", show_default=True,
              help="Minus the losses, or AP, on these.")  # fmt: skip
@click.option("--no-mirror", is_flag=True, help="No mirrored pictures: half as large a cache.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]),
              help="Of the features in the cache.  [default: float16]")  # fmt: skip
@METHOD
@click.option("--proxy", multiple=True, metavar="NAME=VALUE", help="Any setting of the proxy task; may be repeated.")
@click.option("--top", type=click.IntRange(0), help="So many of the best are trained.  [default: 0; 20 with --progressive]")
@click.option("--beside", multiple=True, metavar="FILE",
              help="Train this decoder beside them, at their width, such as zoo:fcos; may be repeated.")  # fmt: skip
@click.option("--full-data", metavar="SPEC", help="Data of the full training.  [default: that of the search]")
@click.option("--full-split", help="Part of it to train on.  [default: --split, or train with --full-data]")
@VAL_SPLIT
@click.option("--full-width", type=click.IntRange(1), help="Width of fpn and head there.  [default: that of the search]")
@click.option("--full-backbone-weights", metavar="imagenet|none|PATH",
              help="What the backbone starts from there.  [default: as above, or imagenet where that is a training's folder]",
)  # fmt: skip
@FREEZE_AT
@NORM
@RECIPE
@click.option("--epochs", type=Positive, help="Length in passes over the data.  [default: the recipe's]")
@SETTINGS
@IMPROVEMENTS
@click.option("--progressive", is_flag=True, help="Both stages: SPACE (by default zoo:nas_fcos_fpn), then the head.")
@click.option("--stages", type=click.Choice(list(STAGES)), help="These stages of a progressive search.")
@click.option("--head-space", default="zoo:nas_fcos_head", show_default=True, metavar="FILE",
              help="Space of the second stage; its fpn is replaced by the best one.")  # fmt: skip
@click.option("--fpn", metavar="FILE", help="Decoder whose fpn --stages head takes.  [default: zoo:fcos]")
@click.option("--head-trials", type=click.IntRange(0), default=600, show_default=True, help="Proposals of the second stage.")
@click.option("--head-top", type=click.IntRange(0), default=10, show_default=True, help="Heads that are fully trained.")
@click.option("--head-width", type=click.IntRange(1), help="Width of the second stage.  [default: the head space's]")
@show_settings(proxy_table, recipe_table)
@FORMAT
def search(file: str | None, format_: str, **given: Any) -> None:
    """Search a space for the best decoder.

    \b
    nasdsl search zoo:nas_fcos_fpn --data voc:DIR --backbone mobilenet_v2 --width 32 --trials 100 --top 3 \\
        --beside zoo:fcos --recipe quick --out runs/search
    nasdsl search zoo:nas_fcos_fpn --data voc:VOC2007 --objective macs:20G --workers process:8 --out runs/fpn
    nasdsl search --progressive --data voc:VOC2007 --full-data coco:COCO --full-width 256 --out runs/nas_fcos
    nasdsl search --stages head --fpn zoo:bifpn --data voc:VOC2007 --out runs/head_only

    SPACE is a decoder with holes: a path, or zoo:NAME. Each proposal is checked, costed, trained for some steps on features
    of a frozen backbone that are computed once, and scored on pictures that were held back. The best are then trained
    fully and ranked by AP (--top).

    Ctrl-C, SIGTERM or a kill lose nothing that was finished: the same command with --resume goes on. Standard output gets
    the best trials, `nasdsl report` makes a page of the folder, and its best.nas is what `nasdsl train` takes.
    """
    asked = SimpleNamespace(**given, file=file)
    asked.chosen = STAGES[asked.stages] if asked.stages else STAGES["fpn+head"] if asked.progressive else ()
    _refuse_contradictions(asked)
    from nasdsl.cli import search_setup
    from nasdsl.cli.search_output import show

    with _leaving(asked), refusals(), plain_warnings():
        outcome, proxy = search_setup.run(asked)
        show(outcome, asked, proxy, format_)


def _refuse_contradictions(asked: SimpleNamespace) -> None:
    """Options that would be ignored."""
    if not asked.chosen and asked.file is None:
        fail("SPACE is missing: a path, or zoo:NAME such as zoo:nas_fcos_fpn; `nasdsl zoo` lists the spaces")
    if not asked.chosen:
        for option in ("fpn", "head_space", "head_trials", "head_top", "head_width"):
            if not is_default(option):
                fail(f"--{option.replace('_', '-')} is for a progressive search: add --progressive, or --stages head")
    if asked.chosen == ("head",):
        for option in ("trials", "top", "width"):
            if not is_default(option) and is_default(f"head_{option}"):
                fail(f"--{option} is for the stage of the fpn, which --stages head leaves out: take --head-{option}")
        if asked.file is not None:
            on = asked.fpn or "zoo:fcos"
            say(f"{asked.file} is not searched: --stages head searches {asked.head_space} on the fpn of {on}")
    elif asked.fpn is not None:
        fail("--fpn is for --stages head; with the stage of the fpn, heads are searched on the best one that it finds")


@contextmanager
def _leaving(asked: SimpleNamespace) -> Iterator[None]:
    """SIGINT and SIGTERM end the command with the code that shells expect, between searches and trainings as well; these
    handle signals themselves, and save first."""

    def leave(signum: int, frame: FrameType | None) -> None:
        told = f"\nstopped by {signal.Signals(signum).name}; what is finished is in {asked.out}: --resume goes on from there\n"
        os.write(2, told.encode())  # not print: the signal may have come in the middle of one
        sys.exit(128 + signum)

    before = {signum: signal.signal(signum, leave) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
