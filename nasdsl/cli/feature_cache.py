"""What the feature cache of a search will take, said before the search starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import fail
from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.training.proxy.spec import ProxySpec

WORTH_SAYING = 2**30
"""Bytes from which on the size is said."""


def report_feature_cache(spec: ProxySpec, fpn: str | None) -> None:
    """Print the size of the features if it is large, and exit if the disk has too little space for them.

    Args:
        fpn: text of a decoder like that of the second stage; None without.
    """
    from nasdsl.training.proxy.estimate import estimate_features
    from nasdsl.training.proxy.memory import available_memory

    size = estimate_features(spec, fpn)
    if size.total < WORTH_SAYING or spec.cache is None:
        return
    folder = Path(spec.cache)
    levels = ", ".join(spec.levels or ("all levels",))
    mirrored = " and their mirror images" if spec.mirror else ""
    second = f", and the outputs of the fpn {_gib(size.fpn)} in the second stage" if size.fpn else ""
    echo_err(
        f"features of {size.images:,} images{mirrored} ({levels} of {spec.backbone}, {spec.dtype}) take {_gib(size.backbone)}"
        f"{second}, in {folder}"
    )
    free, made = shutil.disk_usage(_existing(folder)).free, sum(file.stat().st_size for file in folder.glob("*/features.bin"))
    if free + made < size.total:
        there = f", and {_gib(made)} are made already" if made else ""
        fail(f"the disk of {folder} has {_gib(free)} free{there}: {_advice(spec, fpn)}")
    memory = available_memory()
    if memory is not None and size.backbone > memory:
        echo_err(
            f"warning: they are read from the disk again and again, because {_gib(memory)} of memory are free: take a fast "
            f"disk, or {_advice(spec, fpn)}"
        )


def _advice(spec: ProxySpec, fpn: str | None) -> str:
    """What takes less, with its size."""
    from nasdsl.training.proxy.errors import ProxyError
    from nasdsl.training.proxy.estimate import estimate_features

    stride = 32
    smaller = max(stride, spec.size * 2 // 3 // stride * stride)
    changes: dict[str, dict[str, Any]] = {
        f"--proxy-size {smaller}": {"size": smaller, "longest": round(smaller * spec.longest / spec.size)}
    }
    if spec.mirror:
        changes["--no-mirror"] = {"mirror": False}
    if spec.dtype == "float32":
        changes["--dtype float16"] = {"dtype": "float16"}
    if spec.backbone != "mobilenet_v2":
        changes["--backbone mobilenet_v2"] = {"backbone": "mobilenet_v2"}
    found = []
    for option, values in changes.items():
        try:
            found.append(f"{option} ({_gib(estimate_features(replace(spec, **values), fpn).total)})")
        except ProxyError:  # this backbone has no such level, or the size is no multiple of a stride
            continue
    if spec.levels is not None and "c2" in spec.levels:
        levels = tuple(level for level in spec.levels if level != "c2")
        size = estimate_features(replace(spec, levels=levels), fpn if fpn is None or "c2" not in fpn else None).total
        found.append(f"a SPACE that does not read c2 ({_gib(size)})")
    return f"choose a larger disk with --cache DIR, or {', '.join(found)}"


def _existing(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gib(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB" if size >= 10 * 2**30 else f"{size / 2**30:.1f} GiB"
