"""The navigation: what ``nav`` in mkdocs.yml says, with the pages that are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def expand(entry: Any, grouped: Mapping[str, list[Any]], pages: Sequence[str]) -> Any:
    """A part of ``nav`` in which each ``folder/*`` has become the list of the pages in that folder.

    Args:
        entry: a page, a list of entries, or a title with one of both.
        grouped: lists of folders whose pages stand in groups.
        pages: places of all pages that are made, in order.
    """
    if isinstance(entry, list):
        return [expand(part, grouped, pages) for part in entry]
    if isinstance(entry, dict):
        return {title: expand(part, grouped, pages) for title, part in entry.items()}
    folder, star, _ = entry.partition("/*")
    if not star:
        return entry
    return grouped.get(folder) or [page for page in pages if page.startswith(f"{folder}/")]


def titles(entry: Any) -> Iterator[tuple[str, str]]:
    """Pages with the titles that they have in a part of ``nav``."""
    for part in entry if isinstance(entry, list) else [entry]:
        for title, inner in part.items() if isinstance(part, dict) else ():
            if isinstance(inner, str):
                yield inner, title
            else:
                yield from titles(inner)


def places(entry: Any) -> Iterator[str]:
    """The pages of a part of ``nav``, those without a title too."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from places(part)
