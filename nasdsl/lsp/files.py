"""Files of the workspace: those that use a file, and all that there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pygls.uris import from_fs_path

from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Documents
from nasdsl.semantics.files import UnreadableFile

MOST_FILES = 1000
"""Files of a workspace that are looked at."""

_SKIPPED = frozenset({"node_modules", "__pycache__", "build", "dist"})


def nas_files(folders: list[Path]) -> Iterator[Path]:
    """The `.nas` files of folders and of the folders in them, those of hidden folders left out; `MOST_FILES` at the most."""
    left = MOST_FILES
    for folder in folders:
        for root, names, files in os.walk(folder):
            names[:] = sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED)
            for file in sorted(files):
                if file.endswith(".nas"):
                    left -= 1
                    if left < 0:
                        return
                    yield Path(root, file)


def analyses_of_users(documents: Documents, home: Path) -> Iterator[tuple[str, Analysis]]:
    """What the compiler says of each other file that brings in `home`, with the file's address."""
    folders = documents.folders or [home.parent]
    known = {d.path.resolve(): d for d in documents if d.path is not None}
    paths = {path.resolve(): None for path in (*known, *nas_files(folders))}
    for path in paths:
        if path == home.resolve():
            continue
        document = known.get(path)
        if document is not None:
            analysis, uri = document.analysis, document.uri
        else:
            try:
                text = documents.read(path).text
            except UnreadableFile:
                continue
            if home.name not in text and "use" not in text and "from" not in text:  # it brings in nothing
                continue
            analysis = Analysis(text, str(path), path, documents.read, documents.settings, documents.encoding)
            uri = from_fs_path(str(path)) or ""
        if home.resolve() in {p.resolve() for p in analysis.files}:
            yield uri, analysis
