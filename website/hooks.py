"""What MkDocs calls while it builds the site: pages that are not written by hand, and links of those that are.

Made are the first page (the README) and the changelog, the commands (`website.commands`), the Python interface
(`website.api`), the diagnostics (`website.diagnostics`), and the files that pages link to (`website.files`). Nothing of it is
written to ``docs``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.nav import Link, Navigation, Section
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

sys.path.insert(0, str(Path(__file__).parents[1]))  # `mkdocs` does not look for modules in its folder

from nasdsl.cli import COMMANDS
from website import api, commands, diagnostics, files, markdown, navigation, repository

PLAYGROUND: Final = "playground/index.html"

_NAMES = frozenset(api.entries())
_COMMANDS = frozenset(command.name or "" for command in COMMANDS)
_made: dict[str, str] = {}
_titles: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, and name headings as GitHub does, so that links to them work on both."""
    _made.clear()
    _made.update(commands.pages() | api.pages() | diagnostics.pages())
    config.nav = navigation.expand(config.nav, {"diagnostics": diagnostics.navigation()}, list(_made))
    _titles.clear()
    _titles.update(navigation.titles(config.nav))
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(all_files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the files outside of ``docs``."""
    for path, place in repository.PAGES.items():
        all_files.append(File.generated(config, place, content=(repository.ROOT / path).read_text(encoding="utf-8")))
    for place, text in _made.items():
        all_files.append(File.generated(config, place, content=text))
    hidden = InclusionLevel.NOT_IN_NAV
    linked = list(repository.linked_files())
    for path in linked:
        place, file = repository.site_path(path), repository.ROOT / path
        if file.is_dir():
            names = [p + "/" * (repository.ROOT / path / p).is_dir() for p in _inside(path, linked)]
            made = File.generated(config, place, content=files.folder_page(path, names), inclusion=hidden)
        elif file.suffix == ".ipynb":
            made = File.generated(config, place, content=files.notebook_page(path), inclusion=hidden)
        elif file.suffix in repository.SHOWN:
            made = File.generated(config, place, content=files.source_page(path), inclusion=hidden)
        else:
            made = File.generated(config, place, abs_src_path=str(file), inclusion=hidden)
        all_files.append(made)
    return all_files


def _inside(folder: str, paths: list[str]) -> list[str]:
    """Names of the files and folders that lie in a folder."""
    return [p.removeprefix(f"{folder}/") for p in paths if p.rpartition("/")[0] == folder]


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Link the playground, where `make playground` has built it: it is no page of the documentation, but a program."""
    if files.get_file_from_path(PLAYGROUND) is not None:
        (editors,) = (item for item in nav.items if isinstance(item, Section) and item.title == "Editors")
        link = Link("Playground", PLAYGROUND)
        link.parent = editors
        editors.children.append(link)
    return nav


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change links to those of the site; see `website.markdown`."""
    if page.file.src_uri.startswith(("commands/", "api/", "diagnostics/")):
        return text
    return markdown.for_site(text, page.file.src_uri, _titles, _NAMES, _COMMANDS)
