"""`search.json`: the configuration of a search, and what a resumed search may change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from nasdsl.files import unfinished_path
from nasdsl.search.config import FORMAT, open_search_folder, read_config
from nasdsl.search.errors import JournalError, SearchError

CONFIG: dict[str, Any] = {
    "stages": ["fpn"],
    "search": {"fpn": {"space": "decoder …", "trials": 5, "top": 1}},
    "how": {"seed": 0, "workers": "inline"},
    "proxy": {"size": 64, "cache": "a", "method": {}},
    "full": {"data": "shapes", "recipe": {"epochs": 1, "workers": 2}, "beside": {"fcos": "decoder fcos …"}},
    "command": "nasdsl search",
}


def changed(place: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *path, name = place.split(".")
    part = config
    for step in path:
        part = part[step]
    part[name] = value
    return config


def start(folder: Path, config: dict[str, Any] = CONFIG) -> None:
    with open_search_folder(folder, config, resume=False):
        (folder / "fpn").mkdir()
        (folder / "fpn" / "journal.jsonl").touch()


def resume_with(folder: Path, config: dict[str, Any]) -> None:
    start(folder)
    with open_search_folder(folder, config, resume=True):
        pass


def test_the_file_holds_the_configuration(out: Path) -> None:
    with open_search_folder(out, CONFIG, resume=False):
        assert json.loads((out / "search.json").read_text()) == {"format": FORMAT, **CONFIG}
    assert read_config(out) == {"format": FORMAT, **CONFIG}
    assert read_config(out.parent) is None


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("how.seed", 1, "how.seed was 0, is 1"),
        ("proxy.size", 128, "proxy.size was 64, is 128"),
        ("proxy.method", {"center_radius": 1.5}, "proxy.method.center_radius was null, is 1.5"),
        ("search.fpn.space", "decoder b", 'search.fpn.space was "decoder …", is "decoder b"'),
        ("stages", ["fpn", "head"], 'stages was ["fpn"], is ["fpn", "head"]'),
        ("full.recipe.epochs", 2, "full.recipe.epochs was 1, is 2"),
        ("full.beside.fcos", "decoder other", "full.beside.fcos was"),
    ],
)
def test_differences_are_named(place: str, value: Any, message: str, out: Path) -> None:
    with pytest.raises(SearchError, match="is of another search; to resume it, give the same settings") as error:
        resume_with(out, changed(place, value))
    assert message in str(error.value)
    assert str(error.value).count("\n") == 1, "and nothing else"
    assert read_config(out) == {"format": FORMAT, **CONFIG}, "the file stays"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("search.fpn.trials", 9), ("search.fpn.top", 3), ("how.workers", "process:2"), ("proxy.cache", "b"),
        ("full.recipe.workers", 0), ("command", "another"), ("full.beside", {"fcos": "decoder fcos …", "bifpn": "decoder b"}),
    ],
)  # fmt: skip
def test_extent_and_place_of_the_work_may_change(place: str, value: Any, out: Path) -> None:
    resume_with(out, changed(place, value))
    assert read_config(out) == {"format": FORMAT, **changed(place, value)}


def test_full_training_may_be_added_later_and_is_then_kept(out: Path) -> None:
    without = changed("full", None)
    start(out, without)
    for config in (CONFIG, without):
        with open_search_folder(out, config, resume=True):
            pass
        assert read_config(out) == {"format": FORMAT, **CONFIG}


def test_other_folders_are_refused(out: Path) -> None:
    start(out)
    with pytest.raises(SearchError, match="holds a search already: resume it"), open_search_folder(out, CONFIG, resume=False):
        pass
    (out / "search.json").write_text("{}")
    with pytest.raises(SearchError, match="not of the format"), open_search_folder(out, CONFIG, resume=True):
        pass
    run = out.parent / "run"
    run.mkdir()
    (run / "config.json").touch()
    with pytest.raises(SearchError, match="run of a training"), open_search_folder(run, CONFIG, resume=False):
        pass
    file = out.parent / "file"
    file.touch()
    with pytest.raises(SearchError, match="is a file"), open_search_folder(file, CONFIG, resume=False):
        pass


def test_a_folder_that_cannot_be_written_is_named(out: Path) -> None:
    (out.parent / "file").touch()
    below = out.parent / "file" / "search"
    with (
        pytest.raises(SearchError, match=f"^cannot write to {below}: File exists$"),
        open_search_folder(below, CONFIG, resume=False),
    ):
        pass
    unfinished_path(out / "search.json").mkdir(parents=True)
    with (
        pytest.raises(SearchError, match=f"^cannot write {out / 'search.json'}: Is a directory$"),
        open_search_folder(out, CONFIG, resume=False),
    ):
        pass
    unfinished_path(out / "search.json").rmdir()
    start(out)  # the lock is free


def test_a_folder_without_a_journal_may_become_another_search(out: Path) -> None:
    for seed, resume in ((0, False), (1, False), (2, True)):
        with open_search_folder(out, changed("how.seed", seed), resume=resume):
            pass
        assert read_config(out) == {"format": FORMAT, **changed("how.seed", seed)}


def test_one_search_at_a_time(out: Path) -> None:
    with (
        open_search_folder(out, CONFIG, resume=False),
        pytest.raises(JournalError, match=r"searching in .* already"),
        open_search_folder(out, CONFIG, resume=True),
    ):
        pass
    with open_search_folder(out, CONFIG, resume=True):
        pass
