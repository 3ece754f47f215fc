"""What the feature cache of a search will take, said before the search starts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import fail
from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.training.proxy.estimate import FeatureSize
    from nasdsl.training.proxy.spec import ProxySpec

STRIDE = 32
"""The largest stride of the cached features, which divides the sides of crops."""
WORTH_SAYING = 2**30
"""Bytes from which on the size is said."""


def report_feature_cache(dataset: Dataset, specs: Sequence[ProxySpec], fpn: str | None, *, only_say: bool = False) -> None:
    """Print the size of the features if it is large, and exit if the disk has too little space for them.

    Args:
        dataset: the data of the proxy tasks.
        specs: the proxy task of each backbone and image size; all have one cache.
        fpn: text of a decoder like that of the second stage; None without.
        only_say: do not exit.
    """
    from nasdsl.training.proxy.memory import available_memory

    spec, size = specs[0], _estimate(dataset, specs, fpn)
    if size.total < WORTH_SAYING or spec.cache is None:
        return
    folder = Path(spec.cache)
    levels = ", ".join(spec.levels or ("all levels",))
    backbones = ", ".join(dict.fromkeys(one.backbone for one in specs))
    mirrored = " and their mirror images" if spec.mirror else ""
    sizes = f" at {len(specs)} sizes or backbones" if len(specs) > 1 else ""
    second = f", and the outputs of the fpn {_gib(size.fpn)} in the second stage" if size.fpn else ""
    echo_err(
        f"features of {size.images:,} images{mirrored} ({levels} of {backbones}, {spec.dtype}){sizes} take "
        f"{_gib(size.backbone)}{second}, in {folder}"
    )
    free, made = shutil.disk_usage(_existing(folder)).free, sum(file.stat().st_size for file in folder.glob("*/features.bin"))
    if free + made < size.total:
        there = f", and {_gib(made)} are made already" if made else ""
        problem = f"the disk of {folder} has {_gib(free)} free{there}: {_advice(dataset, specs, fpn)}"
        if not only_say:
            fail(problem)
        echo_err(f"warning: {problem}")
    memory = available_memory()
    if memory is not None and size.backbone > memory:
        echo_err(
            f"warning: they are read from the disk again and again, because {_gib(memory)} of memory are free: take a fast "
            f"disk, or {_advice(dataset, specs, fpn)}"
        )


def _estimate(dataset: Dataset, specs: Sequence[ProxySpec], fpn: str | None) -> FeatureSize:
    """The features of all tasks together; heads are trained on the fpn outputs of one of them, the largest."""
    from nasdsl.training.proxy.estimate import FeatureSize, estimate_features

    each = [estimate_features(dataset, spec, fpn) for spec in specs]
    return FeatureSize(len(dataset), sum(one.backbone for one in each), max(one.fpn for one in each))


def _advice(dataset: Dataset, specs: Sequence[ProxySpec], fpn: str | None) -> str:
    """What takes less, with its size."""
    from nasdsl.training.proxy.errors import ProxyError

    spec = specs[0]
    side = max(_shorter_side(one) for one in specs)
    smaller = max(STRIDE, side * 2 // 3 // STRIDE * STRIDE)
    less: dict[str, list[ProxySpec]] = {f"--proxy-size {smaller}": [_scaled(one, smaller / side) for one in specs]}
    changes: dict[str, dict[str, Any]] = {}
    if spec.mirror:
        changes["--no-mirror"] = {"mirror": False}
    if spec.dtype == "float32":
        changes["--dtype float16"] = {"dtype": "float16"}
    if any(one.backbone != "mobilenet_v2" for one in specs):
        changes["--backbone mobilenet_v2"] = {"backbone": "mobilenet_v2"}
    less |= {option: [replace(one, **values) for one in specs] for option, values in changes.items()}
    found = []
    for option, changed in less.items():
        with suppress(ProxyError):  # this backbone has no such level, or the size is no multiple of a stride
            found.append(f"{option} ({_gib(_estimate(dataset, changed, fpn).total)})")
    if spec.levels is not None and "c2" in spec.levels:
        levels = tuple(level for level in spec.levels if level != "c2")
        without = _estimate(
            dataset, [replace(one, levels=levels) for one in specs], None if fpn is None or "c2" in fpn else fpn
        )
        found.append(f"a SPACE that does not read c2 ({_gib(without.total)})")
    return f"choose a larger disk with --cache DIR, or {', '.join(found)}"


def _shorter_side(spec: ProxySpec) -> int:
    """Of its images, in pixels."""
    return spec.size if spec.image_size is None else min(spec.image_size)


def _scaled(spec: ProxySpec, factor: float) -> ProxySpec:
    """The task with smaller images, and crops that fit into them."""
    image = None if spec.image_size is None else (round(spec.image_size[0] * factor), round(spec.image_size[1] * factor))
    side = round(_shorter_side(spec) * factor)
    return replace(spec, image_size=image, size=max(STRIDE, side // STRIDE * STRIDE), longest=round(spec.longest * factor))


def _existing(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gib(size: int) -> str:
    return f"{size / 2**30:,.0f} GiB" if size >= 10 * 2**30 else f"{size / 2**30:.1f} GiB"
