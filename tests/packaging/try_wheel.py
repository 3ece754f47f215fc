"""Build the package, and try it as users get it: in empty environments, away from the checkout.

    python tests/packaging/try_wheel.py [--keep FOLDER]     # `make test-wheel`

Wheel and sdist are built twice, and must be the same; the wheel is installed with extras, and without torch; so is the sdist.
Needs the packages build, twine and uv, some GB of disk for torch, and the package index. Stops at the first failure.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from built_package import build, check_reproducible, check_sdist, check_wheel
from installed_servers import try_lsp, try_mcp
from running import ROOT, Environment, require, run

SEARCH = (
    "search zoo:nas_fcos_fpn --data shapes:24 --backbone tiny --width 32 --method reference_size=none --proxy-size 64 "
    "--proxy-batch 4 --iterations 3 --trials 2 --strategy random --out search"
)
TRAIN = (
    "train zoo:fcos --improvements --width 32 --backbone tiny --data shapes:16 --recipe quick --size 96x128 --epochs 1 "
    "--method reference_size=none --val-split none --out run"
)

COMMANDS = [
    "--version",
    "zoo",
    "check zoo:nas_fcos",
    "compile zoo:nas_fcos --size 256x256",
    "compile zoo:nas_fcos -o decoder.py",
    "compile zoo:nas_fcos -o decoder.onnx",
    "compile zoo:nas_fcos --width 32 --backbone tiny -o decoder.pt2",
    "render zoo:nas_fcos -o decoder.svg",
    "explain NAS306",
    "sample zoo:nas_fcos_fpn",
    TRAIN,
    "eval run --data shapes:8 --split test --workers 0",
    "detect run --data shapes:4 -o found --sheet",
    "export run -o detector.onnx",
    "export run -o detector.py",
    "latency run --rounds 3 --threads 1",
    "latency detector.onnx --rounds 3 --threads 1",
    SEARCH,
    "report search -o report.html",
    "check search/best.nas",
]
"""Commands of nasdsl that must succeed, one after the other in an empty folder."""

PRODUCED = [
    "decoder.py", "decoder.onnx", "decoder.pt2", "decoder.svg", "run/model.pt", "detector.onnx", "detector.py", "detector.pt",
    "found/sheet.png", "report.html",
]  # fmt: skip


LIGHT = [
    "--version",
    "check zoo:nas_fcos zoo:nas_fcos_fpn",
    "compile zoo:nas_fcos --size 256x256",
    "compile zoo:nas_fcos -o decoder.py",
    "render zoo:nas_fcos -o decoder.dot",
    "fmt mine.nas",
    "fmt --check mine.nas",
    "check mine.nas",
    "explain NAS306",
    "zoo",
]
"""Commands that need no torch."""

IMPORT_SECONDS = 0.15
"""CPU time that `import nasdsl` may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-", ignore_cleanup_errors=True) as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        for name in ("dist", "again"):
            shutil.rmtree(folder / name, ignore_errors=True)
        built = build(ROOT, folder / "dist")
        run(sys.executable, "-m", "twine", "check", "--strict", *built)
        check_wheel(built.wheel)
        check_sdist(built.sdist)
        check_reproducible(built, folder / "again")
        files = [try_light(Environment(folder / "light" / path.suffix[1:]), path) for path in built]
        require(files[0] == files[1], f"wheel and sdist install different files: {sorted(files[0] ^ files[1])}")
        try_whole(Environment(folder / "whole"), built.wheel)
    print("the package works")


def try_light(environment: Environment, package: Path) -> set[str]:
    """Install wheel or sdist without torch, as docs/install.md says, and try what works without. Returns what is installed."""
    page = (ROOT / "docs" / "install.md").read_text()
    asked = re.search(r"^pip install ([a-z0-9 ]+) && pip install --no-deps nasdsl", page, re.MULTILINE)
    require(asked is not None, "docs/install.md does not say what is installed without torch")
    assert asked is not None
    environment.install(*asked[1].split())
    environment.install("--no-deps", str(package))
    environment.check_place()
    require(environment.nasdsl("--version") == environment.python("-m", "nasdsl", "--version"), "python -m nasdsl differs")
    (environment.work / "mine.nas").write_text(environment.nasdsl("sample zoo:nas_fcos_head"))
    for command in LIGHT:
        environment.nasdsl(command)
    require("class Decoder" in (environment.work / "decoder.py").read_text(), "decoder.py has no decoder")
    require("digraph" in (environment.work / "decoder.dot").read_text(), "decoder.dot has no graph")
    require("needs the package torch" in environment.nasdsl("compile zoo:fcos -o decoder.onnx", code=2), "torch is not named")
    try_shell(environment)
    lines = environment.python("-m", "pygments", "-l", "nas", "-f", "html", "mine.nas")
    require('<span class="k' in lines, "Pygments colours no word of the language")
    versions = json.loads(environment.nasdsl("env --format json"))
    require(versions["torch"] == "not installed", f"`nasdsl env` says that torch is {versions['torch']}")
    seconds = min(float(environment.python("-c", IMPORT_TIME)) for _ in range(5))
    require(seconds < IMPORT_SECONDS, f"`import nasdsl` takes {seconds:.3f} s; expected at most {IMPORT_SECONDS}")
    print(f"`import nasdsl` takes {seconds:.3f} s", flush=True)
    return set(environment.python("-c", INSTALLED_FILES).split())


def try_shell(environment: Environment) -> None:
    """Completion in shells, and the grammar."""
    for shell in ("bash", "zsh", "fish"):
        require("_NASDSL_COMPLETE" in environment.nasdsl(f"completion {shell}"), f"{shell} completes nothing")
    variables = {"_NASDSL_COMPLETE": "bash_complete", "COMP_WORDS": "nasdsl ren", "COMP_CWORD": "1"}
    words = run(environment.program("nasdsl"), cwd=environment.work, env={**environment.variables, **variables})
    require(words == "plain,render\n", f"`nasdsl ren` is completed to {words!r}")
    grammar = environment.nasdsl("grammar")
    code = "import sys; from lark import Lark; Lark(sys.stdin.read(), parser='lalr').parse(open('mine.nas').read())"
    environment.python("-c", code, stdin=grammar)


def try_whole(environment: Environment, wheel: Path) -> None:
    """Install the wheel with extras, and run the commands and servers."""
    environment.install(f"{wheel}[onnx,onnxruntime,lsp,mcp]")
    environment.check_place()
    for command in COMMANDS:
        environment.nasdsl(command)
    for name in PRODUCED:
        require((environment.work / name).stat().st_size > 0, f"{name} is empty")
    cost = json.loads(environment.python("-m", "nasdsl", "compile", "zoo:fcos", "--format", "json"))
    require(cost["name"] == "fcos", f"the cost is of {cost['name']}")
    try_lsp(environment)
    try_mcp(environment)
    environment.remove()  # the exports run without the package
    environment.python("decoder.py")
    environment.python("-c", RUN_ONNX)
    environment.python("-c", "import torch; torch.export.load('decoder.pt2').module()")


IMPORT_TIME = "import time; start = time.process_time(); import nasdsl; print(time.process_time() - start)"
INSTALLED_FILES = """
from importlib.metadata import files
print(*(f"{path}:{path.hash.value}" for path in files("nasdsl") if path.hash and path.parts[0] == "nasdsl"))
"""
RUN_ONNX = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])
features = {i.name: numpy.zeros((1, i.shape[1], 256 >> int(i.name[1:]), 256 >> int(i.name[1:])), numpy.float32)
            for i in session.get_inputs()}
assert all(numpy.isfinite(output).all() for output in session.run(None, features))
"""


if __name__ == "__main__":
    main()
