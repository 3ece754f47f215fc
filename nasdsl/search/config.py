"""``search.json``: the configuration of a search, written to its folder and compared when the search is resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nasdsl.files import make_folder, read_json, write_json
from nasdsl.search.errors import SearchError
from nasdsl.search.journal import lock_folder
from nasdsl.training.run import CHANGEABLE as RECIPE_MAY_CHANGE

FORMAT: Final = "nasdsl search run 1"
MAY_CHANGE: Final = RECIPE_MAY_CHANGE | {
    "batch", "command", "device", "evaluations", "memory_limit", "preset", "timeout", "top", "trials", "workers",
}  # fmt: skip
"""Settings that may change when a search is resumed: how much is computed, and where."""


@contextmanager
def open_search_folder(folder: Path, config: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Lock the folder of a search and write its ``search.json``.

    A folder without a journal has no results to lose, so it may become that of another search.

    Args:
        config: plain values by name; ``stages`` are the folders of the stages, empty for a search without stages.
        resume: go on with the search in the folder; start one if there is none.

    Raises:
        SearchError: the folder holds a search and `resume` is False, or that search has another configuration (all
            differences are named), or the folder cannot be written.
        JournalError: another search is running in the folder.
    """
    path = folder / "search.json"
    new = json.loads(json.dumps(config))
    started = is_started(folder)
    check_folder(folder, started=started, resume=resume)
    try:
        make_folder(folder)
        lock = lock_folder(path)
    except OSError as error:
        raise SearchError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        old = read_config(folder) if started else None
        if old is not None:
            check_unchanged(path, {name: value for name, value in old.items() if name != "format"}, new, MAY_CHANGE)
            if old.get("full") is not None and new.get("full") is None:
                new["full"] = old["full"]  # the runs in the folder still follow this plan
        try:
            write_json(path, {"format": FORMAT, **new})
        except OSError as error:
            raise SearchError(f"cannot write {path}: {error.strerror or error}") from error
        yield
    finally:
        lock.release()


def is_started(folder: Path) -> bool:
    """Whether the folder holds the journal of a search, or of a stage."""
    return any((place / "journal.jsonl").exists() for place in (folder, *_subfolders(folder)))


def read_config(folder: Path) -> dict[str, Any] | None:
    """Read ``search.json``; None if there is none.

    Raises:
        SearchError: it cannot be read.
    """
    path = folder / "search.json"
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SearchError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise SearchError(f"{path} is not of the format {FORMAT!r}")
    return value


def check_folder(folder: Path, *, started: bool, resume: bool) -> None:
    """Check that a search can start in a folder, or go on there.

    Args:
        started: the folder holds the journal of a search.

    Raises:
        SearchError: it cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder} is a file; expected a folder for the search")
    if started and not resume:
        raise SearchError(f"{folder} holds a search already: resume it (--resume), or choose another folder")
    if not started and (folder / "config.json").exists():
        raise SearchError(f"{folder} holds the run of a training; choose another folder")


def check_unchanged(
    path: Path | None, old: Mapping[str, Any], new: Mapping[str, Any], may_change: Collection[str] = ()
) -> None:
    """Check that the settings of a resumed search are those that it was started with.

    Full training, and decoders trained beside the best (``full.beside``), may be added or left out.

    Args:
        path: of the file with the old settings.
        may_change: names of settings that are not compared, at any depth.

    Raises:
        SearchError: they differ; the message names all differences.
    """
    differences = list(_differences(old, new, may_change, ""))
    if differences:
        raise SearchError(f"{path} is of another search; to resume it, give the same settings:\n" + "\n".join(differences))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], may_change: Collection[str], prefix: str) -> Iterator[str]:
    for name in {**old, **new}:
        place = f"{prefix}{name}"
        before, after = old.get(name), new.get(name)
        if name in may_change or before == after:
            continue
        if (before is None or after is None) and (place in ("full", "full.beside") or prefix == "full.beside."):
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, may_change, f"{place}.")
        else:
            yield f"  {place} was {_shorten(before)}, is {_shorten(after)}"


def _subfolders(folder: Path) -> list[Path]:
    """Possible folders of stages: those that an earlier ``search.json`` named may be missing from the present one."""
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _shorten(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=False).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
