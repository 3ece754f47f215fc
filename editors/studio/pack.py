"""Runs in Pyodide when the playground is built: packs the modules of wheels, compiled, and what the page shows at first."""

import compileall
import json
import py_compile
import shutil
import sys
import zipfile
from pathlib import Path

LEFT_OUT = (
    "cli", "data", "detection", "evaluation", "export", "grammar_export", "importers", "latency", "mcp", "search", "training",
    "studio/page",
)  # fmt: skip
"""Parts of the package that the page does not use."""

READ = ("nasdsl/nn", "nasdsl/backends/module.py")
"""Modules whose text is copied into PyTorch source; they need torch, and are not run."""


def pack(wheels: str, archive: str, start: str, first: str) -> None:
    site = Path("/packed")
    for wheel in Path(wheels).glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    for name in LEFT_OUT:
        shutil.rmtree(site / "nasdsl" / name)
    compileall.compile_dir(site, quiet=1, legacy=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for path in site.rglob("*.py"):
        if any(path.is_relative_to(site / name) for name in READ):
            path.with_suffix(".pyc").unlink()
        else:
            path.unlink()
    sys.path.insert(0, str(site))
    from nasdsl.studio.messages import answer  # also tries what was packed

    text = answer({"kind": "zoo", "name": first})["text"]
    result = answer({"kind": "check", "text": text})
    for request in ({"kind": "explain", "code": "NAS201"}, {"kind": "format", "text": text}):
        assert "error" not in answer(request), request
    words = answer({"kind": "start"})
    for entry in words["zoo"]:
        of_zoo = answer({"kind": "zoo", "name": entry["name"]})["text"]
        assert "picture" in answer({"kind": "check", "text": of_zoo}), entry
        assert entry["kind"] == "space" or "error" not in answer({"kind": "source", "text": of_zoo}), entry
    Path(start).write_text(json.dumps({"text": text, "result": result, "start": words}))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(site.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.writestr(
                    zipfile.ZipInfo(str(path.relative_to(site)), (2020, 1, 1, 0, 0, 0)), path.read_bytes(), zipfile.ZIP_DEFLATED
                )
