"""What a reader needs to judge a search, and to run it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nasdsl.report.search import figures
from nasdsl.report.search.data import Stage


def facts(stage: Stage) -> list[tuple[str, str]]:
    """(what, value) of a stage, for a table; what the journal does not say is left out."""
    return [(what, value) for what, value in _facts(stage) if value] if stage.begun else []


def _facts(stage: Stage) -> Iterator[tuple[str, str]]:
    start, told = stage.trials.start, stage.told
    about = _mapping(told.get("about")) or _mapping(start.get("about"))
    if stage.space is not None:
        decisions = figures.count(len(stage.space.domains), "decision")
        yield "space", f"{start.get('name', '')}: {decisions}, {figures.size(stage.space.size)} fillings before requirements"
    else:
        yield "space", str(start.get("name", ""))
    yield "strategy", _with_options(str(start.get("strategy", "")), _mapping(start.get("options")))
    yield "seed", str(start.get("seed", ""))
    yield "objective", figures.objective(start.get("objective", "reward"))
    for name, value in about.items():
        if name != "command" and value not in (None, "", [], {}):
            yield name.replace("_", " "), _plain(value)
    size = start.get("size")
    image = f", costs for one image of {size[0]} x {size[1]} pixels and {start.get('classes')} classes" if size else ""
    yield "backbone", f"{start.get('backbone', '')}{image}"
    yield "trials", "" if stage.planned is None else f"{stage.planned:,} asked for"
    yield "workers", _plain(told.get("workers") or "")
    yield "began", figures.moment(start.get("time")) if start.get("time") else ""
    yield "duration", f"{figures.duration(stage.seconds)}, breaks left out" if stage.seconds else ""
    if stage.seconds > 0 and len(stage.trials) > 1:
        yield "trials an hour", f"{3600 * len(stage.trials) / stage.seconds:,.0f}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in _mapping(told.get("versions")).items())
    yield "folder", str(stage.folder.resolve())
    yield "to resume", resume_command(about.get("command"), stage.folder)


def resume_command(command: Any, folder: Path) -> str:
    """What goes on with a search."""
    if not isinstance(command, str) or not command:
        return f"nasdsl.search(space, evaluate, …, out={str(folder)!r}, resume=True)"
    return command if "--resume" in command.split() else f"{command} --resume"


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{k}={_plain(v)}' for k, v in options.items())})" if options else name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
