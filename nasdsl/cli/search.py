"""``nasdsl search``: find the best decoder of a search space by short trainings, then train the best fully."""

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

from nasdsl.cli import completion
from nasdsl.cli.errors import exit_on_error, fail, warnings_as_messages
from nasdsl.cli.help import GroupedCommand
from nasdsl.cli.options import (
    CLASS_NAMES,
    DATA,
    DEVICE,
    FORMAT,
    FREEZE_AT,
    IMPROVEMENTS,
    METHOD,
    NORM,
    RECIPE,
    SETTINGS,
    SPLIT_SEED,
    SPLIT_SHARE,
    VAL_SPLIT,
    ListType,
    SizesType,
    SizeType,
    is_default,
)
from nasdsl.cli.output import echo_err
from nasdsl.cli.presets import PRESET, PRESETS, describe_preset
from nasdsl.cli.settings import proxy_table, recipe_table, show_settings_option

STAGES = {"fpn": ("fpn",), "head": ("head",), "fpn+head": ("fpn", "head")}
"""Stages of a progressive search, by the value of ``--stages``."""

OPTION_GROUPS = {
    "Preset and cost": ("preset", "estimate"),
    "Data": ("spec", "split", "split_share", "split_seed", "class_names"),
    "Search": ("trials", "evaluations", "strategy", "strategy_option", "seed", "objective", "budget", "early_stop"),
    "Detector (of several values, each trial has one)": (
        "size", "width", "backbone", "backbone_weights", "finetune_backbone",
    ),
    "Running": ("out", "resume", "workers", "batch", "timeout", "device", "cache", "memory_limit"),
    "Proxy task (the short training that scores a decoder)": (
        "iterations", "proxy_size", "proxy_batch", "proxy_learning_rate", "val_share", "reward",
        "no_mirror", "dtype", "method", "proxy", "evaluate", "supernet",
    ),
    "Full training of the best": (
        "top", "beside", "full_data", "full_split", "val_split", "full_width", "full_backbone_weights", "freeze_at", "norm",
        "recipe", "epochs", "top_minutes", "settings", "improvements",
    ),
    "Progressive search (the fpn, then the head on the best fpn)": (
        "progressive", "stages", "head_space", "fpn", "head_trials", "head_top", "head_width",
    ),
}  # fmt: skip

REWARDS = ("loss", "ap", "training_loss", "gradient_norm", "synflow", "jacobian_covariance")
"""Values of ``--reward``: those of `nasdsl.training.proxy.spec.Reward`, which needs torch."""

Share = click.FloatRange(0, 1, min_open=True, max_open=True)
Positive = click.FloatRange(0, min_open=True)


@click.command(cls=GroupedCommand, option_groups=OPTION_GROUPS)
@click.argument("file", metavar="[SPACE]", required=False, shell_complete=completion.SPACES)
@PRESET
@click.option("--estimate", is_flag=True,
              help="Say how many hours, and how much disk and memory, the search takes, from a few steps of three decoders of "
              "the space and of the trainings; search nothing and write nothing.")  # fmt: skip
@DATA
@click.option("--split", default="train", show_default=True, help="Split for the proxy task.")
@SPLIT_SHARE
@SPLIT_SEED
@CLASS_NAMES
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the search, to be written."
)
@click.option("--resume", is_flag=True, help="Continue the search in the folder, or start one if there is none.")
@click.option("--trials", type=click.IntRange(0), help="Number of trials.  [default: 500; 2,800 with --progressive]")
@click.option(
    "--evaluations",
    type=click.IntRange(0),
    help="End a stage after this many evaluated trials (duplicates and rejected ones do not count).",
)
@click.option(
    "--strategy",
    metavar="NAME",
    shell_complete=completion.STRATEGIES,
    help="Search strategy: bayes, ppo, evolution, nsga2, llm or random.  [default: bayes]",
)
@click.option(
    "--strategy-option", multiple=True, metavar="NAME=VALUE", help="Change an option of the strategy; may be repeated."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--objective",
    default="reward",
    show_default=True,
    metavar="reward|reward,COST|COST:TARGET",
    help="What to optimize: the reward; the front of the reward and one or two costs (reward,macs; reward,params,latency); or "
    "the reward weighted by costs of fpn and head against targets (macs:20G, params:2M:0:-1, latency:15ms:-0.1).",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="COST:LIMIT",
    help="Limit a cost of the whole detector, with its backbone, before it is trained: macs:2G, params:5M, or the predicted "
    "latency on one thread, latency:15ms@onnxruntime; may be repeated.",
)
@click.option(
    "--size",
    type=SizesType(SizeType(), "HxW,…"),
    help="Size that the detector resizes images to, height x width in pixels: costs are counted at it, proxy and full training "
    "train at it; `auto` is three sizes, up to the one that suits the boxes.  [default: that in SPACE; else costs are counted "
    "at 800x1088]",
)
@click.option(
    "--early-stop",
    default="none",
    show_default=True,
    metavar="none|median|quantile:Q|halving[:ETA]",
    help="Rule that stops unpromising evaluations early; see docs/search.md.",
)
@click.option("--workers", default="inline", show_default=True, metavar="inline|process:N|ray[:N][@ADDRESS]|folder:DIR",
              help="Evaluate in this process, in N processes here, on Ray, or by `nasdsl worker DIR` anywhere.")  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), help="Trials in flight at a time.  [default: 1, or 2 for each of several workers]"
)
@click.option("--timeout", type=Positive, metavar="SECONDS", help="Time limit of an evaluation; not with inline workers.")
@DEVICE
@click.option(
    "--cache", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the feature cache.  [default: OUT/features]"
)
@click.option("--memory-limit", type=click.FloatRange(0), metavar="GIB",
              help="Memory-map the feature file instead of loading it if it is larger.  [default: 4]")  # fmt: skip
@click.option(
    "--backbone",
    type=ListType(click.STRING, "NAME,…"),
    shell_complete=completion.BACKBONES,
    help="Backbone; timm:NAME is a model of timm.  [default: that in SPACE, or resnet50]",
)
@click.option(
    "--backbone-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    help="Weights of the frozen backbone: torchvision's, random, a file, or the folder of a training with this backbone.",
)
@click.option("--finetune-backbone", type=click.FloatRange(0), metavar="EPOCHS",
              help="First train FCOS on the search's data for so many epochs, by the recipe of the full training, and freeze "
              "its backbone.  [default: do not]")  # fmt: skip
@click.option("--width", type=ListType(click.IntRange(1), "N,…"), help="Channels of fpn and head.  [default: those in SPACE]")
@click.option("--iterations", type=click.IntRange(1), help="Training steps.  [default: 60 for small data, else 300]")
@click.option("--proxy-size", type=click.IntRange(1), metavar="PIXELS",
              help="Train the proxy on smaller images: their shorter side; of several sizes, that of the largest, and the "
              "others are scaled alike.  [default: the detector's size, or 128 for small data, else 384]")  # fmt: skip
@click.option("--proxy-batch", type=click.IntRange(1), help="Batch size in crops.  [default: 8 for small data, else 200]")
@click.option(
    "--proxy-learning-rate", type=Positive, help="Learning rate of Adam.  [default: 0.002 for small data, else 0.0008]"
)
@click.option("--val-share", type=Share, help="Share of the images held out to compute rewards.  [default: 0.3]")
@click.option("--reward", type=click.Choice(REWARDS), default="loss", show_default=True,
              help="Reward: minus the loss, or AP, on held-out images; minus the mean training loss; the others train nothing.",
)  # fmt: skip
@click.option("--no-mirror", is_flag=True, help="Do not train on mirrored images; halves the cache.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]),
              help="Data type of the cached features.  [default: float16]")  # fmt: skip
@click.option("--evaluate", type=click.Choice(["proxy", "supernet"]), default="proxy", show_default=True,
              help="Score a decoder by training it (proxy), or by the weights that it inherits from one network, trained once "
              "for the whole space (supernet).")  # fmt: skip
@click.option("--supernet", multiple=True, metavar="NAME=VALUE",
              help="Change a setting of the supernet's training (iterations, paths, learning_rate, calibration, seed).",
)  # fmt: skip
@METHOD
@click.option("--proxy", multiple=True, metavar="NAME=VALUE", help="Change any setting of the proxy task; may be repeated.")
@click.option(
    "--top", type=click.IntRange(0), help="Number of the best decoders to train fully.  [default: 0; 20 with --progressive]"
)
@click.option("--beside", multiple=True, metavar="FILE",
              help="Also train this decoder at the same width, for comparison, such as zoo:fcos; may be repeated.")  # fmt: skip
@click.option("--full-data", metavar="SPEC", help="Dataset.  [default: that of the search]")
@click.option("--full-split", help="Split to train on.  [default: --split, or train with --full-data]")
@VAL_SPLIT
@click.option("--full-width", type=click.IntRange(1), help="Channels of fpn and head.  [default: those of the search]")
@click.option("--full-backbone-weights", metavar="imagenet|none|PATH",
              help="Initial weights of the backbone.  [default: --backbone-weights, or imagenet if that is a training]",
)  # fmt: skip
@FREEZE_AT
@NORM
@RECIPE
@click.option("--epochs", type=Positive, help="Length of the training in epochs.  [default: the recipe's]")
@click.option(
    "--top-minutes", type=Positive, metavar="MINUTES", help="Length of each training in minutes, instead of --epochs."
)
@SETTINGS
@IMPROVEMENTS
@click.option("--progressive", is_flag=True, help="Search the fpn in SPACE (default: zoo:nas_fcos_fpn), then the head.")
@click.option("--stages", type=click.Choice(list(STAGES)), help="Run only these stages of a progressive search.")
@click.option("--head-space", default="zoo:nas_fcos_head", show_default=True, metavar="FILE",
              help="Search space of the head; its fpn is replaced by the best one found.")  # fmt: skip
@click.option("--fpn", metavar="FILE", help="Decoder whose fpn --stages head uses.  [default: zoo:fcos]")
@click.option("--head-trials", type=click.IntRange(0), default=600, show_default=True, help="Number of trials of the head.")
@click.option(
    "--head-top", type=click.IntRange(0), default=10, show_default=True, help="Number of the best heads to train fully."
)
@click.option("--head-width", type=click.IntRange(1), help="Channels of fpn and head.  [default: those of the head space]")
@show_settings_option(proxy_table, recipe_table)
@FORMAT
def search(file: str | None, format_: str, **given: Any) -> None:
    """Search a space for the best decoder.

    SPACE is a decoder with holes: a .nas file, zoo:NAME, or the folder of a search (its space.nas).

    \b
    nasdsl search --preset quick --data DIR --out runs/quick
    nasdsl search --preset nas-fcos --data voc:VOC2012 --full-data coco:COCO --workers process:8 --out runs/nas_fcos
    nasdsl search zoo:nas_fcos_fpn --data DIR --backbone mobilenet_v2 --width 32 --trials 100 --top 3 \\
        --beside zoo:fcos --recipe quick --out runs/search
    nasdsl search zoo:nas_fcos_fpn --data DIR --backbone mobilenet_v2 --size 192x256,240x320 --width 32,64,96 \\
        --trials 200 --top 3 --top-minutes 30 --out runs/detectors
    nasdsl search zoo:nas_fcos_fpn --data voc:VOC2007 --objective macs:20G --workers process:8 --out runs/fpn
    nasdsl search --stages head --fpn zoo:bifpn --data voc:VOC2007 --out runs/head_only

    Each trial is a decoder from SPACE. It is checked, trained for a few hundred steps on cached features of a frozen
    backbone (the proxy task), and scored on held-out images. With --top, the best are then trained fully and ranked by
    AP.

    With several values of --size, --width and --backbone the search decides on them too, beside the holes of SPACE. The text
    of a trial names its own, and `nasdsl train` takes them from it.

    A search that is stopped (Ctrl-C, SIGTERM, a crash) loses only unfinished trials: the same command with --resume
    continues it. The best trials are printed to standard output; `nasdsl report` makes a page about the search, and
    `nasdsl train` trains the best decoder in its folder.
    """
    options = SimpleNamespace(**given, file=file)
    if options.preset:
        echo_err(describe_preset(options.preset))
    options.stage_names = STAGES[options.stages] if options.stages else STAGES["fpn+head"] if options.progressive else ()
    _refuse_ignored_options(options)
    from nasdsl.cli import search_setup
    from nasdsl.cli.search_output import print_outcome

    with _exit_on_signals(options), exit_on_error(), warnings_as_messages():
        prepared = search_setup.prepare(options)
        from nasdsl.cli.search_estimate import announce_costs, print_estimate

        if options.estimate:
            print_estimate(prepared, options, format_)
            return
        if options.preset:
            announce_costs(prepared)
        print_outcome(prepared.run(), options, prepared.proxy, format_)


def _refuse_ignored_options(options: SimpleNamespace) -> None:
    """Exit on options that would be ignored."""
    if options.evaluate == "supernet" and options.stage_names:
        fail("--evaluate supernet is for a search without stages; a progressive search trains heads on a fixed fpn")
    if options.evaluate == "supernet" and options.early_stop != "none":
        fail("--early-stop is for decoders that are trained one by one; --evaluate supernet trains none of them")
    if options.evaluate != "supernet" and options.supernet:
        fail("--supernet is for --evaluate supernet")
    if not options.stage_names and options.file is None:
        presets = " or ".join(PRESETS)
        fail(
            "SPACE is missing: give a file or zoo:NAME, such as zoo:nas_fcos_fpn (`nasdsl zoo` lists the spaces), or --preset "
            + presets
        )
    if not options.stage_names:
        for option in ("fpn", "head_space", "head_trials", "head_top", "head_width"):
            if not is_default(option):
                fail(f"--{option.replace('_', '-')} is for a progressive search: add --progressive, or --stages head")
    if options.stage_names == ("head",):
        for option in ("trials", "top", "width"):
            if not is_default(option) and is_default(f"head_{option}"):
                fail(f"--{option} is for the fpn stage, which --stages head leaves out: use --head-{option}")
        if options.file is not None and not is_default("file"):
            on = options.fpn or "zoo:fcos"
            echo_err(f"{options.file} is not searched: --stages head searches {options.head_space} on the fpn of {on}")
    elif options.fpn is not None:
        fail("--fpn is for --stages head; the other stages search heads on the best fpn they find")


@contextmanager
def _exit_on_signals(options: SimpleNamespace) -> Iterator[None]:
    """Exit on SIGINT and SIGTERM with the code that shells expect, 128 + signal number.

    Searches and trainings handle these signals themselves and save first; this is for the time between them.
    """

    def exit_now(signum: int, frame: FrameType | None) -> None:
        kept = (
            "nothing was written"
            if options.estimate
            else f"what is finished is in {options.out}: --resume continues from there"
        )
        message = f"\nstopped by {signal.Signals(signum).name}; {kept}\n"
        os.write(2, message.encode())  # not print: the signal may have interrupted one
        sys.exit(128 + signum)

    before = {signum: signal.signal(signum, exit_now) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
