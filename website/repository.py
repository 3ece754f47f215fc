"""Where the files of the repository stand on the site.

A link in a page is relative to its place in the repository, as GitHub shows it. On the site the README is the first page, pages
under ``docs`` keep their names, and other files that pages link to are shown under ``files``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

PAGES: Final = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages at other places of the site than in the repository."""

SHOWN: Final = {".py": "python", ".nas": "nas", ".lark": "text", ".toml": "toml"}
"""Kinds of files that are shown as a page, with the name of their highlighting."""

_HIDDEN = re.compile(r"(^|/)(__pycache__|\..*|.*\.egg-info)(/|$)")


def site_path(path: str) -> str:
    """Where a file or folder of the repository stands on the site; of files that are shown as a page, that page.

    Args:
        path: in the repository, such as ``docs/language.md`` or ``examples``.
    """
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    kind = posixpath.splitext(path)[1]
    return f"files/{path}.md" if kind in SHOWN or kind == ".ipynb" else f"files/{path}"


def repository_path(page: str) -> str:
    """The file of the repository that a page of the site is made of; ``docs/…`` for pages that only the site has."""
    for path, place in PAGES.items():
        if page == place:
            return path
    return page.removeprefix("files/") if page.startswith("files/") else f"docs/{page}"


def linked_files() -> Iterator[str]:
    """Files and folders outside of ``docs`` that pages link to, and all that is in these folders."""
    wanted: dict[str, None] = {}
    for page in (*PAGES, *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            if ":" not in target and path not in PAGES and not path.startswith("docs/") and (ROOT / path).exists():
                wanted[path] = None
    for path in list(wanted):
        if (ROOT / path).is_dir():
            wanted.update((p.relative_to(ROOT).as_posix(), None) for p in sorted((ROOT / path).rglob("*")))
    yield from sorted(path for path in wanted if not _HIDDEN.search(path))
