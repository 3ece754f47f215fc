"""`docs/llms.txt` is made from the commands, the pages and the zoo."""

from __future__ import annotations

from pathlib import Path

from nasdsl.cli import COMMANDS, llms_txt

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_up_to_date() -> None:
    """Refreshed by ``python -m nasdsl.cli.llms_txt docs``."""
    assert (DOCS / "llms.txt").read_text(encoding="utf-8") == llms_txt.page(DOCS)


def test_every_command_and_every_page_is_named() -> None:
    text = llms_txt.page(DOCS)
    assert all(f"`nasdsl {command.name}`" in text for command in COMMANDS)
    for path in DOCS.glob("*.md"):
        assert f"]({path.name}): " in text
    assert all(line.split(": ", 1)[1].strip() for line in text.splitlines() if line.startswith("- ["))


def test_a_new_page_changes_it(tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("# New things\n\n    nasdsl new\n\nA page about [things](x.md). And more.\n")
    assert "- [New things](new.md): A page about things.\n" in llms_txt.page(tmp_path)


def test_a_page_that_begins_with_a_command(tmp_path: Path) -> None:
    """Its sentence is whole, behind a colon too; code and pictures are no sentences."""
    above = "# New things\n\n![A picture](x.png)\n\n```sh\nnasdsl new\n```\n\n"
    (tmp_path / "new.md").write_text(above + "`nasdsl new` makes [things](x.md): new ones. And more.\n")
    assert "- [New things](new.md): `nasdsl new` makes things: new ones.\n" in llms_txt.page(tmp_path)
