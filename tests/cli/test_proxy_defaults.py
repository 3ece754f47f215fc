"""The proxy task where `nasdsl search` is given none: for small data, the paper's, and that of an earlier search."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from in_process import invoke
from small_spaces import FPN_SPACE

from nasdsl.cli.search import REWARDS
from nasdsl.training.proxy import ProxySpec
from nasdsl.training.proxy.defaults import SMALL, describe
from nasdsl.training.proxy.spec import Reward

GIVEN = ["--data", "shapes:12", "--backbone", "tiny", "--backbone-weights", "none"]
PAPER = {"size": 384, "batch_size": 200, "iterations": 300, "learning_rate": 8e-4}


@pytest.fixture
def spec_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProxySpec]:
    """The proxy task of a command, whose search is not run."""
    (tmp_path / "fpn.nas").write_text(FPN_SPACE)
    found: list[ProxySpec] = []

    def keep(*args: Any, **options: Any) -> None:
        stages = [arg for arg in args if hasattr(arg, "proxy")]
        found.append(stages[0].proxy)
        raise SystemExit(0)

    monkeypatch.setattr("nasdsl.cli.search_setup.plain_search", keep)
    monkeypatch.setattr("nasdsl.cli.search_setup.progressive_search", keep)

    def run(*arguments: str) -> ProxySpec:
        result = invoke("search", str(tmp_path / "fpn.nas"), *GIVEN, "--out", str(tmp_path / "run"), *arguments)
        assert result.exit_code == 0, result.output
        return found[-1]

    return run


def settings(spec: ProxySpec, names: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in names}


def test_small_data_have_a_short_proxy_task(spec_of: Callable[..., ProxySpec], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    assert settings(spec, SMALL) == SMALL
    assert spec.longest == round(SMALL["size"] * 1333 / 800)
    changed = spec_of("--iterations", "7", "--proxy-size", "96", "--proxy", "batch_size=5")
    expected = {**SMALL, "iterations": 7, "size": 96, "batch_size": 5}
    assert settings(changed, SMALL) == expected
    assert spec_of("--memory-limit", "1.5").memory_limit == 3 * 2**29
    monkeypatch.setattr("nasdsl.training.proxy.defaults.SMALL_DATA", 12)
    assert settings(spec_of(), PAPER) == PAPER


def test_the_proxy_task_is_said() -> None:
    given = ProxySpec("shapes", **SMALL)
    assert describe(given) == "60 steps of 8 crops of 128x128 pixels; the reward is minus the loss"
    assert describe(replace(given, seeds=2, reward="ap")).endswith("pixels with 2 seeds; the reward is AP")
    assert describe(replace(given, reward_losses=("classification", "iou"))).endswith("is minus classification and iou")
    whole = replace(given, image_size=(96, 128), whole_images=True)
    assert describe(whole) == "60 steps of 8 images of 96x128 pixels; the reward is minus the loss"
    assert describe(replace(given, reward="synflow")) == "synflow of 8 crops of 128x128 pixels, without training"


def test_a_progressive_search_has_the_papers(spec_of: Callable[..., ProxySpec]) -> None:
    spec = spec_of("--progressive", "--top", "0", "--head-top", "0")
    assert settings(spec, PAPER) == PAPER
    assert settings(spec, SMALL) == settings(ProxySpec("shapes"), SMALL)


def test_a_resumed_search_keeps_what_it_was_started_with(spec_of: Callable[..., ProxySpec], tmp_path: Path) -> None:
    """search.json of an earlier version, whose defaults were the paper's for all data."""
    folder = tmp_path / "run"
    folder.mkdir()
    recorded = ProxySpec("shapes:12", backbone="tiny", cache=str(folder / "features"), iterations=3).to_dict()
    (folder / "search.json").write_text(json.dumps({"format": "nasdsl search run 1", "proxy": recorded}))
    spec = spec_of("--resume", "--iterations", "3", "--no-mirror")
    assert settings(spec, PAPER) == {**PAPER, "iterations": 3}
    assert spec.to_dict().keys() == recorded.keys()
    assert not spec.mirror
    assert settings(spec_of("--resume", "--iterations", "4"), PAPER) == {**PAPER, "iterations": 4}, "named as a difference"


def test_the_help_names_the_defaults_and_the_rewards() -> None:
    assert get_args(Reward) == REWARDS
    words = " ".join(invoke("search", "--help").output.split())
    paper = ProxySpec("shapes")
    for name in PAPER:
        default = f"{SMALL[name]:g} for small data, else {getattr(paper, name):g}]"
        assert f"[default: {default}" in words or f"[default: the detector's size, or {default}" in words


def test_without_a_search_to_resume_the_defaults_are_those_of_now(spec_of: Callable[..., ProxySpec]) -> None:
    assert settings(spec_of("--resume"), SMALL) == SMALL
