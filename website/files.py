"""Pages of files outside of ``docs`` that pages link to: sources, notebooks, folders."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from website.repository import ROOT, SHOWN


def folder_page(path: str, names: list[str]) -> str:
    """The list of a folder's files, each with the first sentence of what it says about itself.

    Args:
        path: of the folder, in the repository.
        names: what is in it; those of folders end with a stroke.
    """
    lines = [f"# {path}", ""]
    for name in names:
        about = _about(f"{path}/{name}")
        lines.append(f"- [{name}]({name})" + (f": {about}" if about else ""))
    return "\n".join(lines) + "\n"


def source_page(path: str) -> str:
    """A file as highlighted text."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# {path}\n\n{fence(text, SHOWN[ROOT.joinpath(path).suffix])}"


def notebook_page(path: str) -> str:
    """A notebook's texts, its code, and what it has printed and shown."""
    notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code":
            parts.append(fence(text, "python"))
            parts += [shown for output in cell["outputs"] if (shown := _output(output))]
    if not parts or not parts[0].startswith("# "):
        parts.insert(0, f"# {path}")
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return fence("".join(output["text"]), "text")
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
    if "text/html" in data:
        return '<div class="notebook-output">' + re.sub(r"\n\s*\n", "\n", data["text/html"].strip()) + "</div>"
    if "image/png" in data:
        encoded = base64.b64encode(base64.b64decode(data["image/png"])).decode()
        return f'<img class="notebook-output" alt="What the cell shows" src="data:image/png;base64,{encoded}">'
    return fence(data["text/plain"], "text") if "text/plain" in data else ""


def fence(text: str, language: str) -> str:
    """A fenced block, whose fence is longer than any in the text."""
    longest = max(map(len, re.findall(r"^ *(`{3,})", text, re.MULTILINE)), default=2)
    marks = "`" * (longest + 1)
    return f"{marks}{language}\n{text.rstrip()}\n{marks}\n"


def _about(path: str) -> str:
    """What a file says about itself in its first line."""
    file = ROOT / path
    if file.suffix == ".py" and (found := re.match(r'"""(.*?[.:])(\s|"""|$)', file.read_text(encoding="utf-8"))):
        return found[1].rstrip(":")
    if file.suffix == ".nas" and (found := re.match(r"# (.*)", file.read_text(encoding="utf-8"))):
        return found[1].rstrip(".:")
    if file.suffix == ".ipynb":
        first = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
        return first.splitlines()[0].lstrip("# ")
    return ""
