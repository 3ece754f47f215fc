"""The page of `nasdsl studio` in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import BROWSER
from studio_page import Page

from nasdsl import load, loads, resources
from nasdsl.syntax.formatter import format_text

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        BROWSER is None, reason="NO BROWSER: the page was not tested in one. Install Chromium: apt-get install chromium"
    ),
]

TEXT = resources.zoo()["fcos"].read_text()
Opens = Callable[..., Page]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.nas"
    path.write_text(TEXT)
    return path


@pytest.fixture
def opens(studio: Callable[..., str], browser: Any) -> Iterator[Opens]:
    """Opens a page of a studio with arguments; at the end there was nothing on its console."""
    pages: list[Page] = []

    def start(*arguments: str, **options: Any) -> Page:
        pages.append(Page(browser, studio(*arguments), **options))
        return pages[-1]

    yield start
    for page in pages:
        page.close()


def test_a_mistake_is_found_shown_and_fixed(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    assert page.text == TEXT
    page.status("no findings")
    page.undo()  # opening is nothing to undo
    assert page.text == TEXT
    before = page.drawn()
    page.write(TEXT.replace("conv_3x3(", "cnv_3x3(", 1))
    page.status("error")
    item = page.shown("#findings-list > li", "unknown op")
    assert page.tab.locator(".cm-lintRange-error").count() >= 1
    assert "did you mean conv_3x3?" in item.inner_text()
    page.shown("#note", "as it was before the mistake")
    assert page.drawn() == before
    item.locator(".code").click()
    page.shown("#explain-text", "NAS201")
    page.tab.keyboard.press("Escape")
    item.locator(".fix").click()
    page.status("no findings")
    page.redrawn(before)
    assert page.text == TEXT
    assert page.tab.locator("#note").is_hidden()


def test_picture_and_costs_follow_text_and_settings(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    expected = load(file)
    assert page.macs() == expected.cost().total.macs
    assert page.tab.locator("#digest").inner_text() == expected.digest[:12]
    before = page.drawn()
    text = TEXT.replace("  predict", "  require params <= 9G\n  predict").replace("conv_3x3", "sep_3x3")
    page.write(text)
    page.redrawn(before)
    assert page.tab.locator("g.node", has_text="sep_3x3").count() > 3
    assert page.macs() == loads(text).cost().total.macs
    page.tab.select_option("#backbone", "mobilenet_v2")
    page.tab.fill("#size", "320x400")
    page.tab.fill("#width", "64")
    wanted = loads(text).with_width(64)
    page.shown("#digest", wanted.digest[:12])
    page.shown("#view", "320x400 px")
    table = wanted.cost((320, 400), "mobilenet_v2")
    assert [page.macs(part) for part in ("backbone", "fpn", "head")] == [table.backbone.macs, table.fpn.macs, table.head.macs]
    page.tab.fill("#size", "320")
    page.shown("#setting-problem", "`320` is no size")
    page.tab.fill("#size", "")
    page.shown("#view", "800x1088 px")


def test_boxes_lines_and_rows_belong_together(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    page.tab.click("#table-toggle")
    page.tab.locator("g.node", has_text="p6").first.hover()
    assert "output p6" in page.shown(".cm-marked", "p6").inner_text()
    assert "p6" in page.tab.locator("#values tr.hit").first.inner_text()
    page.tab.locator("#values tr", has_text="p7").first.hover()
    page.shown("g.node.hit", "p7")
    page.tab.locator(".cm-line", has_text="output p6").click()
    page.shown("g.node.hit", "p6")


def test_a_folded_box_opens(opens: Opens, tmp_path: Path) -> None:
    page = opens("zoo:bifpn")
    before, boxes = page.drawn(), page.tab.locator("g.node").count()
    page.tab.locator("g.node.opens").first.click()
    page.redrawn(before)
    assert page.tab.locator("g.node").count() > boxes
    page.tab.click("#views button:has-text('overview')")
    page.redrawn(before + 1)
    assert page.tab.locator("g.node").count() == boxes


def test_a_space_is_sampled(opens: Opens) -> None:
    page = opens("zoo:nas_fcos_head")
    page.shown("#space-size", "326,592 decoders, 7 decisions")
    digest = page.tab.locator("#digest").inner_text()
    before = page.drawn()
    page.tab.click("#sample-next")
    page.shown("#sample-title", "sample 1")
    page.redrawn(before)
    other = page.tab.locator("#digest").inner_text()
    assert other != digest
    page.tab.click("#sample-edit")
    page.tab.locator("#space").wait_for(state="hidden")
    page.status("no findings")
    assert "?" not in page.text
    assert page.tab.locator("#digest").inner_text() == other
    page.undo()
    page.shown("#space-size", "326,592 decoders")


def test_format_completion_and_hover(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    page.write(TEXT.replace("  ", "     "))
    page.tab.click("#format")
    page.becomes(format_text(TEXT))
    page.status("no findings")
    page.tab.locator(".cm-line", has_text="output p6").click()
    page.tab.keyboard.press("End")
    page.tab.keyboard.press("Enter")
    page.tab.keyboard.type("zz = dcon")
    page.shown(".cm-tooltip-autocomplete li[aria-selected]", "dconv_3x3")
    page.tab.wait_for_timeout(200)  # a list that has just come up takes no Enter yet
    page.tab.keyboard.press("Enter")
    assert "zz = dconv_3x3" in page.text
    page.tab.locator(".cm-line span", has_text="dconv_3x3").first.hover()
    page.shown(".cm-tooltip-hover", "deform_conv")


def test_saving_and_changes_on_the_disk(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    assert page.tab.locator("#save").is_disabled()
    page.write(TEXT + "# mine\n")
    assert page.tab.locator("#dirty").is_visible()
    page.tab.keyboard.press("Control+s")
    page.shown("#toast.shown", "saved mine.nas")
    assert file.read_text() == TEXT + "# mine\n"
    page.tab.locator("#dirty").wait_for(state="hidden")
    file.write_text(TEXT + "# of another editor\n")  # comes in by itself, since nothing here is unsaved
    page.shown(".cm-line", "# of another editor")
    assert page.tab.locator("#dirty").is_hidden()
    assert page.tab.locator("#conflict").is_hidden()
    file.unlink()
    page.shown("#toast.shown", "was removed")
    assert "# of another editor" in page.text
    page.tab.click("#save")
    page.tab.locator("#dirty").wait_for(state="hidden")
    assert file.read_text() == TEXT + "# of another editor\n"


def _collide(page: Page, file: Path) -> tuple[str, str]:
    mine, theirs = TEXT + "# mine\n", TEXT + "# theirs\n"
    page.write(mine)
    file.write_text(theirs)
    page.tab.locator("#conflict").wait_for()
    page.tab.keyboard.press("Control+s")
    page.shown("#toast.shown", "choose first")
    assert (file.read_text(), page.text) == (theirs, mine)
    return mine, theirs


def test_both_have_changed_and_the_disk_wins(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    mine, theirs = _collide(page, file)
    page.tab.click("#compare")
    page.shown(".cm-deletedChunk", "# theirs")
    page.tab.click("#take-theirs")
    page.shown(".cm-line", "# theirs")
    assert page.text == theirs
    page.tab.locator("#conflict").wait_for(state="hidden")
    page.undo()
    page.shown(".cm-line", "# mine")
    assert page.text == mine
    assert file.read_text() == theirs


def test_both_have_changed_and_mine_wins(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    mine, theirs = _collide(page, file)
    page.tab.click("#keep-mine")
    page.tab.locator("#conflict").wait_for(state="hidden")
    page.shown("#toast.shown", "Your text is on the disk")
    assert (file.read_text(), page.text) == (mine, mine)
    page.undo()
    page.shown(".cm-line", "# theirs")
    assert page.text == theirs


def test_both_have_changed_and_both_are_kept(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    mine, theirs = _collide(page, file)
    (file.parent / "taken.nas").write_text("# there already\n")
    page.tab.click("#save-beside")
    page.tab.fill("#save-name", "taken")
    page.tab.click("#save-do")
    page.shown("#save-problem", "taken.nas exists")
    page.tab.fill("#save-name", "../other.nas")
    page.tab.click("#save-do")
    page.shown("#save-problem", "without a folder")
    page.tab.fill("#save-name", "other")
    page.tab.click("#save-do")
    page.shown("#file-name", "other.nas")
    assert ((file.parent / "other.nas").read_text(), file.read_text()) == (mine, theirs)
    assert (file.parent / "taken.nas").read_text() == "# there already\n"
    assert page.tab.locator("#conflict").is_hidden()


def test_an_untitled_text(opens: Opens, tmp_path: Path) -> None:
    page = opens()
    page.status("no findings")
    page.shown("#file-name", "untitled")
    page.tab.keyboard.press("Control+s")
    page.tab.fill("#save-name", "first.nas")
    page.tab.keyboard.press("Enter")
    page.shown("#file-name", "first.nas")
    saved = (tmp_path / "first.nas").read_text()
    assert saved == format_text(saved) == page.text
    page.tab.wait_for_timeout(500)  # the address follows
    page.tab.reload()
    page.ready()
    page.shown("#file-name", "first.nas")
    assert page.text == saved


def test_a_used_file(opens: Opens, file: Path) -> None:
    (file.parent / "ops.nas").write_text("op conv_mine(x) = conv_3x3(x)\n")
    file.write_text('use "ops.nas"\n' + TEXT.replace("conv_3x3(", "conv_mine(", 1))
    page = opens("mine.nas")
    page.status("no findings")
    page.write('use "../secret.nas"\n' + TEXT)
    page.shown("#findings-list", "leads out of the folder")


def test_the_studio_has_ended(studio: Callable[..., str], browser: Any, file: Path) -> None:
    page = Page(browser, studio("mine.nas"))
    page.tab.route("**/ask", lambda route: route.abort())
    page.shown("#gone", "does not answer")
    page.write("decoder")
    page.shown("#note", "nasdsl studio has ended")
    assert page.text == "decoder"
    page.tab.unroute("**/ask")
    page.tab.locator("#gone").wait_for(state="hidden")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 820, 1500])
def test_every_width_and_both_themes(width: int, scheme: str, opens: Opens, file: Path) -> None:
    page = opens("mine.nas", width=width, scheme=scheme)
    tab = page.tab
    background = tab.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]
    for pane in ("text", "picture", "costs") if width <= 820 else ("",):
        if pane:
            tab.click(f"#tabs button[data-pane={pane}]")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.documentElement.scrollHeight") <= 850
        assert tab.locator(".cm-content").is_visible() == (pane in ("", "text"))
        assert tab.locator(".picture").is_visible() == (pane in ("", "picture"))
        assert tab.locator("#tiles").is_visible() == (pane != "text")
        assert tab.locator("#values").is_visible() == (pane == "costs")
    colours = []
    for _ in range(3):
        tab.click("#theme")
        colours.append(tab.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(15, 19, 24)", background]


def test_the_picture_moves_and_fits(opens: Opens, file: Path) -> None:
    page = opens("mine.nas")
    view = page.tab.locator("svg.picture")

    def box() -> list[float]:
        return [float(number) for number in re.split(r"\s+", view.get_attribute("viewBox"))]

    whole = box()
    page.tab.click("#zoom-in")
    assert box()[2] < whole[2]
    frame = view.bounding_box()
    assert frame is not None
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + 30
    left = box()[0]
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x - 60, y, steps=3)
    page.tab.mouse.up()
    assert box()[0] > left
    page.tab.mouse.wheel(0, 300)
    page.tab.click("#zoom-fit")
    assert box() == whole


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390)])
def test_texts_of_the_picture_are_legible_on_a_phone(width: int, height: int, opens: Opens, tmp_path: Path) -> None:
    (tmp_path / "wide.nas").write_text(resources.zoo()["nas_fcos"].read_text())
    page = opens("wide.nas", width=width, height=height)
    texts = page.tab.locator(".picture g.node text")

    def smallest() -> float:
        return min(texts.evaluate_all("texts => texts.map(text => text.getBoundingClientRect().height)"))

    def seen() -> bool:
        """Whether the last box lies within the picture's pane."""
        frames = [page.tab.locator(name).last.bounding_box() for name in ("#view", ".picture g.node")]
        (left, width), (x, wide) = ((frame["x"], frame["width"]) for frame in frames if frame is not None)
        return left <= x and x + wide <= left + width

    first = smallest()
    assert first > 4.5  # before any pinch, of pixels that phones divide by three
    page.tab.click("#zoom-fit")
    assert seen()
    assert smallest() < first
    page.tab.set_viewport_size({"width": height, "height": width})
    page.tab.wait_for_timeout(200)
    assert seen()  # who asked for all of it keeps it when the phone is turned
