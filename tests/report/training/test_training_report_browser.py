"""The page about a training in a real browser: every chart and image is drawn, without network requests and without errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import BROWSER, NO_BROWSER, Opened

from nasdsl.report.training import open_validation, page, read_training

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def files(trainings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("few", "many"):
        training = read_training(trainings / name)
        (folder / f"{name}.html").write_text(page(training, open_validation(training)), encoding="utf-8")
    return folder


@pytest.fixture(params=["light", pytest.param("dark", marks=pytest.mark.long)])
def few(request: pytest.FixtureRequest, browser: Any, files: Path) -> Iterator[Opened]:
    opened = Opened(browser, files / "few.html", request.param, 1300)
    yield opened
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [(files / "few.html").as_uri()]
    opened.tab.close()


def test_every_chart_draws_its_marks(few: Opened) -> None:
    assert few.count("#losses svg .mark-line path") == 4
    assert few.count("#losses svg .mark-symbol path") >= 4 * 6
    assert few.count("#precision_over_time svg .mark-line path") >= 3
    assert few.count("#precision_over_time svg .mark-symbol path") >= 9
    assert few.count("#learning_rate svg .mark-line path") == 1
    assert few.count("#precision_recall svg .mark-line path") == 3
    assert few.count("#f1 svg .mark-line path") >= 4
    assert few.count("#confusion svg .mark-rect path") >= 15
    assert few.count("#confusion svg .mark-text text") >= 15
    heights = few.tab.locator("#scores svg .mark-rect path").evaluate_all("bars => bars.map(b => b.getBBox().height)")
    assert max(heights) > 100
    assert few.count("#class_precision svg .mark-rect path") == 3
    few.check_chart_sizes(150)
    loaded = few.tab.locator(".pair img").evaluate_all("images => images.map(i => i.complete && i.naturalWidth)")
    assert len(loaded) >= 6
    assert all(width == 480 for width in loaded)


def test_a_tooltip_of_the_confusion_matrix(few: Opened) -> None:
    few.tab.locator("#confusion svg .mark-rect path").first.hover(force=True)
    tip = few.tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "annotated" in tip.inner_text()
    assert "of its row" in tip.inner_text()


def test_folds_open(few: Opened) -> None:
    few.tab.locator("summary", has_text="All settings of the recipe").click()
    assert few.tab.locator("td", has_text="weight_decay").is_visible()


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_window(width: int, browser: Any, files: Path) -> None:
    opened = Opened(browser, files / "many.html", "light", width)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.count("#confusion svg .mark-rect path") > 30
    for shown in (*opened.tab.locator(".plot svg.marks").all(), *opened.tab.locator(".pair img").all()):
        box = shown.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width + 1
    pairs = opened.tab.locator(".pair").first.locator("img").all()
    left, right = (image.bounding_box() for image in pairs)
    assert (left["y"] == right["y"]) is (width > 560)  # one below the other on a narrow page
    assert opened.messages == []
    opened.tab.close()
