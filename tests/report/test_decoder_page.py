"""The page of a decoder in a browser: folded boxes open, and boxes, rows and lines find each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser_page import BROWSER, NO_BROWSER, Opened

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.backends import diagrams
from nasdsl.backends.cost import cost

pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

ROOT = Path(__file__).parents[2]


def open_page(browser: Any, folder: Path, name: str, **options: Any) -> Opened:
    known = backbone("resnet50")
    graph = nasdsl.load(ROOT / "genotypes" / f"{name}.nas").lower(known.out_channels)
    path = folder / f"{name}.html"
    diagrams.write(graph, cost(graph, (256, 320), 80, known), path, **options)
    return Opened(browser, path, "light", 1200)


def shown(tab: Any) -> str:
    """The id of the picture that is visible."""
    visible = [picture.get_attribute("id") for picture in tab.query_selector_all(".picture") if picture.is_visible()]
    assert len(visible) == 1
    return str(visible[0])


def buttons(tab: Any) -> list[str]:
    return [button.inner_text() for button in tab.query_selector_all("nav button")]


def test_folded_boxes_open(browser: Any, tmp_path: Path) -> None:
    page = open_page(browser, tmp_path, "nas_fpn")
    tab = page.tab
    assert shown(tab) == "v0"
    assert buttons(tab) == ["overview", "everything"]
    box = tab.query_selector("#v0 .opens")
    place = box.bounding_box()
    center = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    tab.mouse.move(*center)
    assert len(tab.query_selector_all("tr.hit")) == 49  # seven cells of seven values
    tab.mouse.down()
    tab.mouse.move(center[0] + 40, center[1])
    tab.mouse.up()
    assert shown(tab) == "v0"  # a drag opens nothing
    tab.mouse.dblclick(200, 300)  # fits it again
    tab.mouse.click(*center)
    assert shown(tab) == "v1"
    assert buttons(tab) == ["overview", "repeat 7", "everything"]
    tab.query_selector_all("#v1 .opens")[2].focus()
    tab.keyboard.press("Enter")
    assert buttons(tab) == ["overview", "repeat 7", "turn 3", "everything"]
    tab.query_selector('tr:has-text("cells_3.q5")').hover()
    assert len(tab.query_selector_all(f"#{shown(tab)} .node.hit")) == 1
    tab.click("nav button:has-text('everything')")
    assert len(tab.query_selector_all(f"#{shown(tab)} .opens")) == 0
    tab.click("nav button:has-text('overview')")
    assert shown(tab) == "v0"
    assert not page.messages
    assert all(url.startswith("file:") for url in page.requests)


def test_a_page_without_groups_has_no_buttons(browser: Any, tmp_path: Path) -> None:
    page = open_page(browser, tmp_path, "fcos")
    assert buttons(page.tab) == []
    assert shown(page.tab) == "v0"
    assert not page.messages
