"""The pages of the site that are made: nothing that a user can call or meet lacks its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import nasdsl
import nasdsl.spaces
from nasdsl.cli import cli
from nasdsl.diagnostics.catalogue import CODES
from website import api, commands, diagnostics, markdown, navigation, repository

ROOT = Path(__file__).parents[2]
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


def leaves(command: click.Command, path: str = "nasdsl") -> Iterator[tuple[str, click.Command]]:
    """Commands by what is typed, without the groups."""
    for name, child in command.commands.items():
        if isinstance(child, click.Group):
            yield from leaves(child, f"{path} {name}")
        else:
            yield f"{path} {name}", child


# ------------------------------------------------------------------------------------------------ the generators


def test_every_command_has_a_page_with_all_its_options_and_examples() -> None:
    pages = commands.pages()
    assert set(pages) == {"commands/index.md", *(f"commands/{name}.md" for name in cli.commands)}
    for typed, command in leaves(cli):
        page = pages[f"commands/{typed.split()[1]}.md"]
        assert f"\n{typed} " in page, "how it is used"
        assert f"`nasdsl {typed.split()[1]}`" in pages["commands/index.md"]
        for option in (p for p in command.params if isinstance(p, click.Option) and not p.hidden):
            shown = [row for row in page.splitlines() if row.startswith("|") and f'<a id="{option.opts[-1]}"></a>' in row]
            assert len(shown) == 1, (typed, option.name)
            assert all(name in shown[0] for name in option.opts + option.secondary_opts)
        blocks = "\n".join(re.findall(r"```sh\n(.*?)\n```", page, re.DOTALL))
        for line in re.findall(r"^ *((?:nasdsl|torchrun|python) .*)$", command.help or "", re.MULTILINE):
            assert line.strip() in blocks, typed


def test_a_page_says_all_that_the_help_says() -> None:
    """Words of `--help train` and `--help search`, whatever is code, escaped or in a table."""
    for name in ("train", "search"):
        command = cli.commands[name]
        page = re.sub(r"<[^>]*>", " ", commands.pages()[f"commands/{name}.md"])
        words = set(re.findall(r"\w+", page.replace("\\", "")))
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert set(re.findall(r"\w+", option.help or "")) <= words, option.name


def test_every_diagnostic_has_a_page_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "findings_of_example", lambda code: [])  # tests/diagnostics has these findings
    pages = diagnostics.pages()
    assert set(pages) == {"diagnostics/index.md", *(f"diagnostics/{code}.md" for code in CODES)}
    for code, entry in CODES.items():
        page = pages[f"diagnostics/{code}.md"]
        assert page.startswith(f"# {code}: ")
        assert all(example.strip() in page for example in (entry.bad, entry.good))
        assert pages["diagnostics/index.md"].count(f"[{code}]({code}.md)") == 1
    assert list(navigation.places(diagnostics.navigation())) == ["diagnostics/index.md", *list(pages)[1:]]


def test_a_page_shows_what_is_printed() -> None:
    page = diagnostics._page(CODES["NAS306"])
    assert '<span class="nas-error">error[NAS306]</span><span class="nas-bold">: a sum of 32 and 64 channels</span>' in page
    assert "\x1b" not in page


def test_every_public_name_has_an_entry() -> None:
    entries = list(api.entries())
    assert len(set(entries)) == len(entries)
    expected = {f"nasdsl.{name}" for name in nasdsl.__all__} - {"nasdsl.__version__", "nasdsl.search"}
    expected |= {f"nasdsl.spaces.{name}" for name in nasdsl.spaces.__all__} | {"nasdsl.search.search"}
    assert expected <= set(entries)
    shown = [name for page in api.pages().values() for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert sorted(shown) == sorted(entries)
    assert "`nasdsl.__version__`" in api.pages()["api/nasdsl.md"]


# ------------------------------------------------------------------------------------------------ the navigation


def test_the_navigation_has_every_page_once() -> None:
    pages = [*commands.pages(), *api.pages(), "diagnostics/NAS101.md"]
    found = list(navigation.places(navigation.expand(NAV, {}, pages)))
    assert len(set(found)) == len(found)
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    files = {page for page in found if page.startswith("files/")}
    assert set(found) - set(pages) - files == {*written, *repository.PAGES.values()}, "pages need a place in nav of mkdocs.yml"
    assert set(pages) <= set(found)
    shown = {repository.site_path(path) for path in repository.linked_files()}
    assert files <= shown


def test_groups_of_the_navigation() -> None:
    nav: Any = [{"Start": "index.md"}, {"Things": [{"All": "things/*"}, {"Some": "some/*"}]}]
    assert navigation.expand(nav, {"some": ["some/a.md"]}, ["things/a.md", "things/b.md", "some/a.md"]) == [
        {"Start": "index.md"},
        {"Things": [{"All": ["things/a.md", "things/b.md"]}, {"Some": ["some/a.md"]}]},
    ]
    assert dict(navigation.titles(nav)) == {"index.md": "Start", "things/*": "All", "some/*": "Some"}


# ------------------------------------------------------------------------------------------------ links


def on_site(text: str, page: str = "training.md") -> str:
    return markdown.for_site(text, page, {"search.md": "Searching"}, {"nasdsl.load"}, {"train"})


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](search.md#the-report)", "[a](search.md#the-report)"),
        ("[search.md](search.md#x)", "[Searching](search.md#x)"),
        ("[here](#x) [there](https://arxiv.org)", "[here](#x) [there](https://arxiv.org)"),
        ("[`nas.lark`](../grammars/nas.lark)", "[`nas.lark`](files/grammars/nas.lark.md)"),
        ("[examples](../examples)", "[examples](files/examples/index.md)"),
        ("![](pictures/report.png)", "![](pictures/report.png)"),
        ("[![p](pictures/a.svg)](pictures/a.svg)", "[![p](pictures/a.svg)](pictures/a.svg)"),
        ("see NAS306, `NAS306`", "see [NAS306](diagnostics/NAS306.md), [`NAS306`](diagnostics/NAS306.md)"),
        ("`nasdsl train` and `nasdsl train x`", "[`nasdsl train`](commands/train.md) and `nasdsl train x`"),
        ("`nasdsl.load(path)` `nasdsl.other`", "[`nasdsl.load(path)`][nasdsl.load] `nasdsl.other`"),
        ("| `a\\|b` |", "| `a|b` |"),
        ("## `nasdsl train`, NAS306", "## `nasdsl train`, NAS306"),
        ("[NAS306 `nasdsl train`](search.md)", "[NAS306 `nasdsl train`](search.md)"),
    ],
)
def test_links(written: str, shown: str) -> None:
    assert on_site(written) == shown
    fenced = f"```sh\n{written}\n```"
    assert on_site(fenced) == fenced


def test_links_of_pages_at_other_places() -> None:
    assert on_site("[docs/search.md](docs/search.md)", "index.md") == "[Searching](search.md)"
    assert on_site("![](docs/pictures/a.svg)", "index.md") == "![](pictures/a.svg)"
    assert on_site("[a](../docs/search.md) NAS101", "files/benchmarks/results.md") == (
        "[a](../../search.md) [NAS101](../../diagnostics/NAS101.md)"
    )


def test_words_for_the_tests_become_titles() -> None:
    assert on_site("```nas file=mine.nas\nx\n```\n") == '```nas title="mine.nas"\nx\n```\n'
    assert on_site("```nas wrong NAS306 fpn\nx\n```\n") == '```nas title="wrong: NAS306"\nx\n```\n'
    assert on_site("- a\n\n  ```console\n  $ b\n  ```\n") == "- a\n\n  ```console\n  $ b\n  ```\n"
