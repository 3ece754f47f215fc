"""`search.json`: what a folder is for, and whether a resumed search is still the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from nasdsl.search.config import FORMAT, read_asked, search_folder
from nasdsl.search.errors import JournalError, SearchError

ASKED: dict[str, Any] = {
    "stages": ["fpn"],
    "search": {"fpn": {"space": "decoder …", "trials": 5, "top": 1}},
    "how": {"seed": 0, "workers": "inline"},
    "proxy": {"size": 64, "cache": "a", "method": {}},
    "full": {"data": "shapes", "recipe": {"epochs": 1, "workers": 2}, "beside": {"fcos": "decoder fcos …"}},
    "command": "nasdsl search",
}


def changed(place: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(ASKED)
    *path, name = place.split(".")
    part = made
    for step in path:
        part = part[step]
    part[name] = value
    return made


def begin(folder: Path, asked: dict[str, Any] = ASKED) -> None:
    with search_folder(folder, asked, resume=False):
        (folder / "fpn").mkdir()
        (folder / "fpn" / "journal.jsonl").touch()


def asked_again(folder: Path, asked: dict[str, Any]) -> None:
    begin(folder)
    with search_folder(folder, asked, resume=True):
        pass


def test_it_says_what_was_asked_for(out: Path) -> None:
    with search_folder(out, ASKED, resume=False):
        assert json.loads((out / "search.json").read_text()) == {"format": FORMAT, **ASKED}
    assert read_asked(out) == {"format": FORMAT, **ASKED}
    assert read_asked(out.parent) is None


@pytest.mark.parametrize(
    ("place", "value", "told"),
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
def test_differences_are_named(place: str, value: Any, told: str, out: Path) -> None:
    with pytest.raises(SearchError, match="is of another search; to resume it, ask the same as then") as error:
        asked_again(out, changed(place, value))
    assert told in str(error.value)
    assert str(error.value).count("\n") == 1, "and nothing else"
    assert read_asked(out) == {"format": FORMAT, **ASKED}, "the file stays"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("search.fpn.trials", 9), ("search.fpn.top", 3), ("how.workers", "process:2"), ("proxy.cache", "b"),
        ("full.recipe.workers", 0), ("command", "another"), ("full.beside", {"fcos": "decoder fcos …", "bifpn": "decoder b"}),
    ],
)  # fmt: skip
def test_how_much_and_where_may_change(place: str, value: Any, out: Path) -> None:
    asked_again(out, changed(place, value))
    assert read_asked(out) == {"format": FORMAT, **changed(place, value)}


def test_full_training_may_come_later_and_is_then_kept(out: Path) -> None:
    without = changed("full", None)
    begin(out, without)
    for asked in (ASKED, without):
        with search_folder(out, asked, resume=True):
            pass
        assert read_asked(out) == {"format": FORMAT, **ASKED}


def test_other_folders_are_refused(out: Path) -> None:
    begin(out)
    with pytest.raises(SearchError, match="holds a search already: resume it"), search_folder(out, ASKED, resume=False):
        pass
    (out / "search.json").write_text("{}")
    with pytest.raises(SearchError, match="not of the form"), search_folder(out, ASKED, resume=True):
        pass
    run = out.parent / "run"
    run.mkdir()
    (run / "config.json").touch()
    with pytest.raises(SearchError, match="run of a training"), search_folder(run, ASKED, resume=False):
        pass
    file = out.parent / "file"
    file.touch()
    with pytest.raises(SearchError, match="is a file"), search_folder(file, ASKED, resume=False):
        pass


def test_a_folder_in_which_nothing_was_begun_may_become_another_search(out: Path) -> None:
    for seed, resume in ((0, False), (1, False), (2, True)):
        with search_folder(out, changed("how.seed", seed), resume=resume):
            pass
        assert read_asked(out) == {"format": FORMAT, **changed("how.seed", seed)}


def test_one_search_at_a_time(out: Path) -> None:
    with (
        search_folder(out, ASKED, resume=False),
        pytest.raises(JournalError, match=r"searching in .* already"),
        search_folder(out, ASKED, resume=True),
    ):
        pass
    with search_folder(out, ASKED, resume=True):
        pass
