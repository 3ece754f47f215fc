"""Presets of `nasdsl search`: named values of its options. What the user gives on the command line wins."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

import click

Value = str | float | bool | tuple[str, ...]

PRESETS: Final[Mapping[str, Mapping[str, Value]]] = {
    # Sections 3.3, 4.1.1 and 4.1.2 of arXiv:1906.04423. Widths of 64 and 128 are those of the two spaces; averaging of 0.9 and
    # the meta-val of 1,715 of 5,715 images are the proxy task's defaults. The paper does not say for how long the backbone is
    # fine-tuned ("using the training strategies of FCOS"), nor which one it is: 12 epochs are FCOS's schedule on COCO.
    "nas-fcos": {
        "progressive": True,
        "file": "zoo:nas_fcos_fpn",
        "head_space": "zoo:nas_fcos_head",
        "strategy": "ppo",
        "trials": 2800,
        "top": 20,
        "head_trials": 600,
        "head_top": 10,
        "backbone": "resnet50",
        "finetune_backbone": 12,
        "proxy_size": 384,
        "proxy_batch": 200,
        "iterations": 300,
        "proxy_learning_rate": 8e-4,
        "full_width": 256,
        "recipe": "published",
        "improvements": False,
    },
    # The proxy task is that of small data, on images half as large as the detector's. Detectors of several sizes have a front,
    # because with the reward alone the largest would be the best; docs/presets.md has what it takes. GFL's prediction was
    # worth more on small data than the choice of pyramid and head: docs/results.md.
    "quick": {
        "file": "zoo:gfl_family",
        "strategy": "bayes",
        "objective": "reward,macs",
        "trials": 150,
        "backbone": "mobilenet_v2",
        "size": "auto",
        "width": "32,64",
        "proxy_size": 192,
        "proxy_batch": 8,
        "iterations": 60,
        "proxy_learning_rate": 0.002,
        "workers": "process:2",
        "top": 3,
        "beside": ("zoo:gfl",),
        "top_minutes": 30,
    },
}
"""Values of options, by the names of the command's parameters."""

SUMMARIES: Final = {
    "nas-fcos": "the paper's search: fpn, then head, the backbone fine-tuned first (for GPUs; --full-data coco:COCO)",
    "quick": "size, width, pyramid and head of a detector for images of your own, in an evening on two cores",
}

_UNIMPORTANT: Final = ("file", "head_space")
"""Values that are not shown as options: the first is an argument, the other has the same default."""


def _apply(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **PRESETS[value]}
    return value


PRESET = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    is_eager=True,
    callback=_apply,
    help="Values of other options, which are printed; those that you give win. "
    + "; ".join(f"{name}: {text}" for name, text in SUMMARIES.items())
    + ". See docs/presets.md.",
)


def describe_preset(name: str) -> str:
    """What a preset chose in the running command, as options, and what it left to the user."""
    from nasdsl.cli.options import is_default

    ctx = click.get_current_context()
    values = PRESETS[name]
    names = {param.name: param for param in ctx.command.params if isinstance(param, click.Option)}
    chosen = [_as_option(names[option], value) for option, value in values.items() if option in names and is_default(option)]
    given = [_flag(names[option]) for option in values if option in names and not is_default(option)]
    space = f"{values['file']} " if is_default("file") else ""
    but = f" (yours: {', '.join(given)})" if given else ""
    return f"preset {name}: {space}{' '.join(text for text in chosen if text)}{but}"


def _flag(option: click.Option) -> str:
    return option.opts[0]


def _as_option(option: click.Option, value: Any) -> str:
    """An option as one would type it; empty for one that need not be shown."""
    if option.name in _UNIMPORTANT:
        return ""
    if isinstance(value, bool):
        return (option.opts if value else option.secondary_opts)[0]
    if isinstance(value, tuple):
        return " ".join(f"{_flag(option)} {shlex.quote(each)}" for each in value)
    return f"{_flag(option)} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}"
