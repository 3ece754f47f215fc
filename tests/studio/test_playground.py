"""The playground, built by npm and opened in a real browser; and the page in the package, built from the same sources."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import BROWSER
from filelock import FileLock
from studio_page import Page

from nasdsl import loads, resources
from nasdsl.studio.messages import answer
from nasdsl.syntax.formatter import format_text

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "editors" / "studio"
NPM = shutil.which("npm")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(NPM is None, reason="NO NPM: the page was not built; install node and npm"),
]
in_browser = pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: the playground was not tested: apt-get install chromium")


def npm(*arguments: str) -> None:
    assert NPM is not None
    ran = subprocess.run(
        [NPM, *arguments],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHON": sys.executable},
    )
    said = ran.stdout[-3000:] + ran.stderr[-3000:]
    if ran.returncode and re.search(UNREACHABLE, said):
        pytest.skip(f"NO REGISTRY: npm or pip could not reach its packages: {said[-300:]}")
    assert ran.returncode == 0, said


UNREACHABLE = (
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|name resolution|Max retries exceeded"
)


@pytest.fixture(scope="session")
def _packages() -> None:
    with FileLock(SOURCES / ".npm.lock"):  # several processes of the tests install them once
        if not (SOURCES / "node_modules" / "esbuild").is_dir():
            npm("ci", "--no-audit", "--no-fund")


@pytest.fixture(scope="module")
def site(_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the playground, and nothing but files."""
    folder = tmp_path_factory.mktemp("site") / "playground"
    npm("run", "playground", "--", str(folder))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder.parent)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/playground/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(site: str, browser: Any) -> Iterator[Page]:
    made = Page(browser, site)
    yield made
    made.close()


@pytest.mark.usefixtures("_packages")
def test_the_page_in_the_package_is_built_from_its_sources(tmp_path: Path) -> None:
    npm("run", "build", "--", str(tmp_path / "page"))
    committed = ROOT / "nasdsl" / "studio" / "page"
    built = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert sorted(built) == sorted(path.name for path in committed.iterdir())
    different = [name for name, data in built.items() if data != (committed / name).read_bytes()]
    assert different == [], "run `make studio-page` and commit what it builds"


@in_browser
def test_the_compiler_in_the_browser(page: Page) -> None:
    text = resources.zoo()["nas_fcos"].read_text()
    assert page.text == text
    assert page.macs() == loads(text).cost().total.macs
    assert page.tab.locator("#digest").inner_text() == loads(text).digest[:12]
    page.write(text.replace("dconv_3x3(c5)", "dcnv_3x3(c5)", 1))
    item = page.shown("#findings-list > li", "unknown op")
    assert "did you mean dconv_3x3?" in item.inner_text()
    before = page.drawn()
    item.locator(".fix").click()
    page.status("no findings")
    page.redrawn(before)
    page.write(text.replace("  ", "      "))
    page.tab.click("#format")
    page.becomes(format_text(text))
    page.status("no findings")
    page.tab.select_option("#backbone", "mobilenet_v2")
    page.tab.fill("#size", "320x400")
    page.tab.fill("#width", "64")
    wanted = loads(text).with_width(64)
    page.shown("#view", "320x400 px")
    page.shown("#digest", wanted.digest[:12])
    assert page.macs() == wanted.cost((320, 400), "mobilenet_v2").total.macs
    page.tab.click("details.menu summary")
    with page.tab.expect_download() as download:
        page.tab.click("#source")
    expected = answer({"kind": "source", "text": text, "backbone": "mobilenet_v2", "width": 64})["text"]
    assert Path(download.value.path()).read_text(encoding="utf-8") == expected


@in_browser
def test_the_zoo_and_its_spaces(page: Page) -> None:
    for name in ("fcos_family", "opanas", "yolox"):
        _pick(page, name)


def _pick(page: Page, name: str) -> None:
    """Start from a text of the zoo."""
    page.tab.click("#zoo")
    page.tab.fill("#zoo-filter", name)
    page.tab.click(f'#zoo-list button[data-name="{name}"]')
    page.shown("#toast.shown", f"{name} from the zoo")
    text = resources.zoo()[name].read_text()
    assert page.text == text[: len(page.text)]  # the editor holds the lines in sight, and some more
    expected = answer({"kind": "check", "text": text})
    page.shown("#digest", expected["digest"][:12])
    if "space" in expected:
        page.shown("#space-size", expected["space"]["fillings"])
    else:
        page.tab.locator("#space").wait_for(state="hidden")


@in_browser
def test_a_link_holds_all(page: Page, browser: Any) -> None:
    text = resources.zoo()["fcos"].read_text() + "# “ü” 🐢\n"
    page.write(text)
    page.tab.select_option("#backbone", "tiny")
    page.tab.fill("#size", "320x400")
    page.tab.fill("#width", "32")
    page.tab.click("#theme")
    page.tab.click("#theme")
    page.tab.click("#share")
    page.shown("#toast.shown", "copied the link")
    link = page.tab.evaluate("navigator.clipboard.readText()")
    assert link == page.tab.url
    assert len(link) < 2_000
    other = Page(browser, link)
    assert other.text == text
    assert other.tab.locator("html").get_attribute("data-theme") == "dark"
    for name, value in (("backbone", "tiny"), ("size", "320x400"), ("width", "32")):
        assert other.tab.locator(f"#{name}").input_value() == value
    expected = loads(text).with_width(32)
    assert other.macs() == expected.cost((320, 400), "tiny").total.macs
    other.close()


@in_browser
def test_a_damaged_link(site: str, browser: Any) -> None:
    for fragment in ("1.AAAA", "1.%%%", "2.abc", "x", "1." + "A" * 50_000):
        page = Page(browser, f"{site}#{fragment}")
        assert page.text == resources.zoo()["nas_fcos"].read_text()
        page.close()


@in_browser
def test_a_text_of_a_stranger_runs_nothing(page: Page) -> None:
    name = "x" * 20
    page.write(
        f'decoder {name} {{ input c3 # <img src=x onerror=alert(1)> "]; evil [URL="javascript:alert(1)"\n'
        "  fpn(width=32) { output p3 = conv_3x3(c3) } # </text><script>alert(1)</script>\n"
        '  head(width=32) { conv_3x3 } predict fcos }\nop f(x) = <b onclick="alert(1)">(x)\n'
    )
    page.status("error")
    assert page.tab.locator("#findings-list b[onclick], #view script, #view [onclick], #view a[href]").count() == 0


@in_browser
def test_the_second_visit_needs_no_network(site: str, browser: Any) -> None:
    """And starts with Python's memory as the build has left it, in which everything works as in a new one."""
    page = Page(browser, site)
    page.tab.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.context.set_offline(True)
    page.tab.close()
    page.open(site)
    assert page.macs() == loads(page.text).cost().total.macs
    _pick(page, "opanas")
    _pick(page, "fcos")
    text = resources.zoo()["fcos"].read_text()
    page.write(text.replace("conv_3x3(", "cnv_3x3(", 1).replace("  ", "      "))
    page.shown("#findings-list > li", "unknown op").locator(".code").click()
    page.shown("#explain-text", "NAS201")
    page.tab.keyboard.press("Escape")
    page.tab.locator("#findings-list .fix").first.click()
    page.status("no findings")
    page.tab.click("#format")
    page.becomes(format_text(text))
    page.tab.click("details.menu summary")
    with page.tab.expect_download() as download:
        page.tab.click("#source")
    expected = answer({"kind": "source", "text": text})["text"]
    assert Path(download.value.path()).read_text(encoding="utf-8") == expected
    page.close()
