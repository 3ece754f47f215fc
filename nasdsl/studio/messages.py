"""What the page asks of the compiler, and the answers: JSON in, JSON out.

The worker of the playground and the server of the studio answer with the same function.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from nasdsl import resources
from nasdsl.decoder import load_source
from nasdsl.diagnostics import DiagnosticError, Source, explain, is_message, printable
from nasdsl.semantics.files import zoo_file
from nasdsl.studio.result import CLASSES, check, graph_of
from nasdsl.studio.settings import BadRequest, read_settings
from nasdsl.studio.words import start
from nasdsl.syntax.formatter import format_text
from nasdsl.syntax.rewriting import with_width

MAX_TEXT: Final = 200_000
"""Characters of the longest text."""


class Place:
    """Where texts lie.

    Args:
        folder: the folder whose files a text may use; None, as in a browser: it may use none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name


NOWHERE: Final = Place()


def answer(request: Any, place: Place = NOWHERE) -> dict[str, Any]:
    """Answer a request: an object with its ``kind``, and what this kind needs.

    ======== =============================================== ======================================================
    kind     needs                                           answer
    ======== =============================================== ======================================================
    start                                                    see `nasdsl.studio.words.start`
    check    text; backbone, size, width, view, seed, name   see `nasdsl.studio.result.check`; ``milliseconds``
    format   text                                            ``text``, or ``error`` where it has syntax errors
    source   text; backbone, size, width                     ``text``: the decoder in PyTorch
    zoo      name                                            ``text``
    explain  code                                            ``text``
    ======== =============================================== ======================================================

    Every answer may be ``{"error": …}`` in its place: a line for the one who asked.
    """
    if not isinstance(request, dict):
        return {"error": "expected an object with a `kind`"}
    kind = request.get("kind")
    found = _ANSWERS.get(kind) if isinstance(kind, str) else None
    if found is None:
        return {"error": f"there is no request {printable(str(kind)[:40])!r}; expected one of {', '.join(_ANSWERS)}"}
    try:
        return found(request, place)
    except DiagnosticError as error:
        first = error.diagnostics[0]
        return {"error": f"{first.message} (line {first.span.line})"}
    except (ValueError, OSError) as error:
        if not is_message(error):
            raise
        return {"error": str(error)}


def answer_json(request: str) -> str:
    """`answer` for callers that are not Python: the worker of the playground."""
    return json.dumps(answer(json.loads(request)))


def _check(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    began = time.perf_counter()
    source, path = _source(request, place)
    result = check(
        source,
        read_settings(request),
        path=path,
        root=place.folder,
        view=_number(request, "view"),
        seed=_number(request, "seed"),
    )
    return {**result, "milliseconds": round(1000 * (time.perf_counter() - began), 1)}


def _format(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    try:
        return {"text": format_text(_source(request, place)[0].text)}
    except DiagnosticError:
        return {"error": "a text with syntax errors is not formatted"}


def _source_code(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    from nasdsl import __version__
    from nasdsl.backends.source import emit_source

    settings = read_settings(request)
    source, path = _source(request, place)
    if settings.width is not None:
        source = with_width(source, settings.width)
    decoder = load_source(source, path, place.folder)
    graph, _ = graph_of(decoder, settings)
    try:
        return {"text": emit_source(graph, CLASSES, text=source.text, version=__version__), "name": decoder.name}
    except TypeError as error:  # a layer of a package that has no source
        return {"error": str(error)}


def _zoo(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    found = Path(zoo_file(f"zoo:{request.get('name')}"))
    return {"text": found.read_text(encoding="utf-8"), "kind": resources.kind(found)}


def _explain(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    code = str(request.get("code"))[:40]
    text = explain(code)
    if text is None:
        raise BadRequest(f"there is no diagnostic {printable(code)!r}")
    return {"text": text}


def _start(request: Mapping[str, Any], place: Place) -> dict[str, Any]:
    return start()


_ANSWERS: Final[Mapping[str, Callable[[Mapping[str, Any], Place], dict[str, Any]]]] = {
    "start": _start, "check": _check, "format": _format, "source": _source_code, "zoo": _zoo, "explain": _explain,
}  # fmt: skip


def _source(request: Mapping[str, Any], place: Place) -> tuple[Source, Path | None]:
    """The text of a request, and the file that it is of, or would be."""
    text = request.get("text")
    if not isinstance(text, str):
        raise BadRequest("expected a `text`")
    if len(text) > MAX_TEXT:
        raise BadRequest(f"the text has {len(text):,} characters; at most {MAX_TEXT:,} are read")
    name = request.get("name") or "untitled.nas"
    if not isinstance(name, str) or "\0" in name or Path(name).name != name:
        raise BadRequest("expected the `name` of a file, without a folder")
    return Source(name, text), place.path(name)


def _number(request: Mapping[str, Any], name: str) -> int:
    found = request.get(name, 0)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 2**32:
        raise BadRequest(f"{name} is {printable(str(found)[:40])!r}; expected a number from 0 on")
    return found
