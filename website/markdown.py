"""Pages as GitHub shows them, changed to what MkDocs reads."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath

from website import repository

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)(?P=marks) *$", re.M | re.S)
_CODE = re.compile(r"(?P<marks>`+)(?!`)(?:.*?[^`])??(?P=marks)(?!`)", re.DOTALL)
_LINK = re.compile(r"\[(?P<text>(?:\[[^\[\]]*\]|[^\[\]])*)\]\((?P<target>[^)\s]+)\)")


def for_site(text: str, page: str, titles: Mapping[str, str], names: Collection[str], commands: Collection[str]) -> str:
    """A page with links of the site.

    Links that are relative to the page's place in the repository lead to the pages of the site; codes of diagnostics, names of
    the Python interface and commands get links to their pages.

    Args:
        text: Markdown as GitHub shows it.
        page: where it stands on the site, such as ``language.md``.
        titles: of pages, which links get whose text is the name of a file.
        names: dotted names that have an entry on a page of the interface.
        commands: names of commands that have a page.
    """

    def prose(part: str) -> str:
        part = _LINK.sub(lambda found: _link(found, page, titles), part)
        return "".join(_line(line, page, names, commands) for line in part.splitlines(keepends=True))

    return _outside(text, _FENCE, prose, _fence)


def _outside(text: str, inner: re.Pattern[str], change: Callable[[str], str], found: Callable[[re.Match[str]], str]) -> str:
    """The text with `found` done to what matches, and `change` to all between."""

    def parts() -> Iterator[str]:
        end = 0
        for match in inner.finditer(text):
            yield change(text[end : match.start()])
            yield found(match)
            end = match.end()
        yield change(text[end:])

    return "".join(parts())


def _fence(found: re.Match[str]) -> str:
    """A fenced block: ``nas file=x.nas`` becomes a block with a title, and words for the tests go away."""
    language, *words = found["info"].split() or [""]
    title = next((word.removeprefix("file=") for word in words if word.startswith("file=")), "")
    if "wrong" in words:
        title = f"wrong: {', '.join(w for w in words if w.startswith('NAS'))}"
    info = f'{language} title="{title}"' if title else language
    return f"{found['indent']}{found['marks']}{info}\n{found['text']}{found['indent']}{found['marks']}"


def _link(found: re.Match[str], page: str, titles: Mapping[str, str]) -> str:
    """A link between files of the repository as one between pages of the site."""
    target = found["target"]
    if re.match(r"[a-z][a-z+.-]*:|#", target):
        return found[0]
    here = repository.repository_path(page)
    path, mark, anchor = target.partition("#")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    place = repository.site_path(file)
    text = found["text"]
    if text in (file, path, PurePosixPath(path).name):
        text = titles.get(place, text)
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{mark}{anchor})"


def _line(line: str, page: str, names: Collection[str], commands: Collection[str]) -> str:
    if line.startswith("#") or re.match(r" {4}", line):  # headings, and code by indentation
        return line
    up = "../" * page.count("/")

    def code(found: re.Match[str]) -> str:
        inner = found[0].strip("`")
        name = re.match(r"(nasdsl\.[\w.]*\w)(?:\(.*\))?$", inner)
        command = re.fullmatch(r"nasdsl ([a-z]+)", inner)
        if name and name[1] in names:
            return f"[{found[0]}][{name[1]}]"
        if command and command[1] in commands:
            return f"[{found[0]}]({up}commands/{command[1]}.md)"
        if re.fullmatch(r"NAS\d\d\d", inner):
            return f"[{found[0]}]({up}diagnostics/{inner}.md)"
        return found[0].replace("\\|", "|") if line.lstrip().startswith("|") else found[0]

    def prose(text: str) -> str:
        return re.sub(r"\bNAS\d\d\d\b", lambda found: f"[{found[0]}]({up}diagnostics/{found[0]}.md)", text)

    def outside_of_links(text: str) -> str:
        return _outside(text, _CODE, prose, code)

    return _outside(line, _LINK, outside_of_links, lambda found: found[0])
