"""The page in a real browser: every chart is drawn, without network requests and without errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import BROWSER, NO_BROWSER, Opened

from nasdsl.report.search import page, read_search
from nasdsl.search.run import load_trials

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def files(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("plain", "progressive"):
        (folder / f"{name}.html").write_text(page(read_search(runs / name), top=3), encoding="utf-8")
    return folder


@pytest.fixture(params=["light", "dark"])
def plain(request: pytest.FixtureRequest, browser: Any, files: Path) -> Iterator[Opened]:
    opened = Opened(browser, files / "plain.html", request.param, 1300)
    yield opened
    assert opened.messages == []
    assert opened.requests == [(files / "plain.html").as_uri()]
    opened.tab.close()


def test_every_chart_draws_its_marks(plain: Opened, runs: Path) -> None:
    trials = load_trials(runs / "plain")
    rewards = sum(trial.reward is not None for trial in trials)
    assert plain.count("#reward svg .mark-symbol path") >= rewards
    assert plain.count("#reward svg .mark-line path") >= 2
    assert plain.count("#score svg .mark-symbol path") >= rewards
    assert plain.count("#sharing svg .mark-symbol path") >= 3
    assert plain.count("#choice_0 svg .mark-line path") >= 6
    assert plain.count("#reward_macs svg .mark-symbol path") >= len(trials.ok) + len(trials.front("macs"))
    assert plain.count("#reward_latency svg .mark-symbol path") >= len(trials.ok)
    assert plain.count("#trainings svg .mark-symbol path") >= 4
    assert plain.count("svg.diagram") == 3
    plain.check_chart_sizes(200)


def test_a_fold_opens_and_draws(plain: Opened) -> None:
    drawn = "#search-diagnostics .plot svg .mark-line path"
    assert plain.count(drawn) == 0
    plain.tab.locator("#search-diagnostics > summary").click()
    plain.tab.wait_for_function(f"document.querySelectorAll({drawn!r}).length >= 6")


def test_a_link_opens_the_decoder(plain: Opened) -> None:
    link = plain.tab.locator("table a").nth(2)
    target = link.get_attribute("href")
    assert not plain.tab.locator(target).evaluate("fold => fold.open")
    link.click()
    plain.tab.wait_for_function(f"document.querySelector({target!r}).open")


def test_a_tooltip_names_the_trial(plain: Opened, runs: Path) -> None:
    best = load_trials(runs / "plain").best
    assert best is not None
    plain.tab.locator("#reward_macs svg .mark-symbol path[aria-roledescription='point']").last.hover(force=True)
    tip = plain.tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert f"{best.number}" in tip.inner_text()
    assert "MACs" in tip.inner_text()


def test_the_copy_button(plain: Opened) -> None:
    plain.tab.locator("#best .copy").click()
    plain.tab.wait_for_function("['Copied', 'Selected'].includes(document.querySelector('#best .copy').textContent)")


def test_colours_follow_the_system_theme(browser: Any, files: Path) -> None:
    opened = Opened(browser, files / "plain.html", "light", 1300)
    line = "getComputedStyle(document.querySelector('#sharing svg .mark-line path')).stroke"
    ground = "getComputedStyle(document.body).backgroundColor"
    light = [opened.tab.evaluate(what) for what in (line, ground)]
    opened.tab.emulate_media(color_scheme="dark")
    opened.tab.wait_for_function("[...document.querySelectorAll('#sharing .plot')].every(p => p.dataset.drawn === 'dark')")
    dark = [opened.tab.evaluate(what) for what in (line, ground)]
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert opened.messages == []
    opened.tab.close()


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_window(width: int, browser: Any, files: Path) -> None:
    opened = Opened(browser, files / "progressive.html", "light", width)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.count("#fpn-reward svg .mark-symbol path") > 20
    assert opened.count("#head-sharing svg .mark-symbol path") >= 1
    for plot in opened.tab.locator(".plot svg.marks").all():
        box = plot.bounding_box()
        assert box is None or box["x"] + box["width"] <= width + 1
    assert opened.messages == []
    opened.tab.close()
