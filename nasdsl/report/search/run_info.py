"""Settings, duration and versions of a search, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nasdsl.report import formatting
from nasdsl.report.search.data import Stage
from nasdsl.report.search.objectives import objective_words
from nasdsl.spaces.size import space_size


def run_info(stage: Stage) -> list[tuple[str, str]]:
    """(name, value) rows about a stage; values that the journal lacks are left out."""
    return [(name, value) for name, value in _rows(stage) if value] if stage.started else []


def _rows(stage: Stage) -> Iterator[tuple[str, str]]:
    start, options = stage.trials.start, stage.options
    about = _mapping(options.get("about")) or _mapping(start.get("about"))
    if stage.space is not None:
        decisions = formatting.count(len(stage.space.domains), "decision")
        size = space_size(stage.space.size)
        yield "space", f"{start.get('name', '')}: {decisions}, {size} decoders before requirements"
    else:
        yield "space", str(start.get("name", ""))
    yield "strategy", _with_options(str(start.get("strategy", "")), _mapping(start.get("options")))
    yield "seed", str(start.get("seed", ""))
    yield "objective", objective_words(start.get("objective", "reward"))
    yield "budgets", ", ".join(f"{budget} (whole detector)" for budget in start.get("budgets") or ())
    supernet = _mapping(_mapping(start.get("task")).get("supernet"))
    if supernet:
        steps = formatting.count(supernet["iterations"], "step")
        yield "evaluation", f"weights inherited from one network, trained once for {steps} (not in the duration)"
    yield "early stopping", str(start.get("stopping") or "")
    for name, value in about.items():
        if name != "command" and value not in (None, "", [], {}):
            yield name.replace("_", " "), _as_text(value)
    image_size = start.get("size")
    image = f"{image_size[0]} x {image_size[1]} pixels and {start.get('classes')} classes" if image_size else ""
    backbone = str(start.get("backbone", ""))
    if stage.space is not None and stage.searches_detectors:
        backbone = ", ".join(stage.space.backbones) or backbone
        if len(stage.space.sizes) > 1:
            sizes = ", ".join(f"{height} x {width}" for height, width in stage.space.sizes)
            image = f"the decoder's own size ({sizes} pixels) and {start.get('classes')} classes"
    yield "backbone", f"{backbone}{f', costs for one image of {image}' if image else ''}"
    yield "requested", "" if stage.requested is None else formatting.count(stage.requested, "trial")
    yield "workers", _as_text(options.get("workers") or "")
    yield "start", formatting.timestamp(start.get("time")) if start.get("time") else ""
    yield "duration", f"{formatting.duration(stage.seconds)}, without interruptions" if stage.seconds else ""
    if stage.seconds > 0 and len(stage.trials) > 1:
        yield "trials an hour", f"{3600 * len(stage.trials) / stage.seconds:,.0f}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in _mapping(options.get("versions")).items())
    yield "folder", str(stage.folder.resolve())
    yield "to resume", resume_command(about.get("command"), stage.folder)


def resume_command(command: Any, folder: Path) -> str:
    """The command, or call of `nasdsl.search`, that resumes a search."""
    if not isinstance(command, str) or not command:
        return f"nasdsl.search(space, evaluate, …, out={str(folder)!r}, resume=True)"
    return command if "--resume" in command.split() else f"{command} --resume"


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{k}={_as_text(v)}' for k, v in options.items())})" if options else name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
