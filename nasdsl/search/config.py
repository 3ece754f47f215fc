"""``search.json``: what a search's folder is for, and whether a search that is resumed is still the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nasdsl.search.errors import SearchError
from nasdsl.search.journal import Lock
from nasdsl.training.run import FREE as FREE_IN_RECIPES
from nasdsl.training.run import write_json

FORMAT: Final = "nasdsl search run 1"
FREE: Final = FREE_IN_RECIPES | {
    "batch", "command", "device", "evaluations", "memory_limit", "timeout", "top", "trials", "workers",
}  # fmt: skip
"""What may change when a search is resumed: how much, and where it is computed."""
GROWING: Final = ("full", "full.beside")
"""What may come later: full training, and decoders that are trained beside."""


@contextmanager
def search_folder(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """A folder of one search, kept from other processes meanwhile; ``search.json`` in it says what was asked for.

    What has no journal yet holds nothing that could be lost, and may become another search.

    Args:
        asked: plain values by name; ``stages`` are the folders of its stages, none of a search without.
        resume: go on with the search that is there; where there is none, begin one.

    Raises:
        SearchError: the folder holds a search already, or another one, or cannot be written. Differences are named.
    """
    path = folder / "search.json"
    wanted = json.loads(json.dumps(asked))
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder} is a file; expected a folder for the search")
    begun = any((folder / name / "journal.jsonl").exists() for name in ("", *_stages(folder)))
    if begun and not resume:
        raise SearchError(f"{folder} holds a search already: resume it (--resume), or choose another folder")
    if (folder / "config.json").exists():
        raise SearchError(f"{folder} holds the run of a training; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / f".{path.name}.lock")
    except OSError as error:
        raise SearchError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        before = read_asked(folder) if begun else None
        if before is not None:
            _same(path, before, wanted)
            if before.get("full") is not None and wanted.get("full") is None:
                wanted["full"] = before["full"]  # the runs that are there are still of this plan
        try:
            write_json(path, {"format": FORMAT, **wanted})
        except OSError as error:
            raise SearchError(f"cannot write {path}: {error.strerror or error}") from error
        yield
    finally:
        lock.release()


def _stages(folder: Path) -> list[str]:
    """Folders of stages, of which ``search.json`` may not tell any more."""
    return [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def read_asked(folder: Path) -> dict[str, Any] | None:
    """What ``search.json`` of a folder says; None where there is none.

    Raises:
        SearchError: it cannot be read.
    """
    path = folder / "search.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SearchError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise SearchError(f"{path} is not of the form {FORMAT!r}")
    return value


def _same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises SearchError where a search that is to be resumed was another."""
    found = list(_differences(before, now, ""))
    if found:
        raise SearchError(f"{path} is of another search; to resume it, ask the same as then:\n" + "\n".join(found))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in {**before, **now}:
        place = f"{prefix}{name}"
        was, is_ = before.get(name), now.get(name)
        if name in FREE or place == "format" or was == is_:
            continue
        if (place in GROWING or prefix == "full.beside.") and (was is None or is_ is None):
            continue
        if isinstance(was, Mapping) and isinstance(is_, Mapping):
            yield from _differences(was, is_, f"{place}.")
        else:
            yield f"  {place} was {_short(was)}, is {_short(is_)}"


def _short(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=False).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
