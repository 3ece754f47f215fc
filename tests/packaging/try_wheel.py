"""Build the package, and try the wheel as users get it: in an empty environment, away from the checkout.

    python tests/packaging/try_wheel.py [--keep FOLDER]     # `make test-wheel`

Needs the packages build, twine and uv, some GB of disk for torch, and the package index. Stops at the first failure.
"""

from __future__ import annotations

import argparse
import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-", ignore_cleanup_errors=True) as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        shutil.rmtree(folder / "dist", ignore_errors=True)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)  # the wheel is built from the sdist
        (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        check_wheel(wheel)
        check_sdist(sdist)
        try_commands(folder, wheel)
    print("the wheel works")


def check_wheel(wheel: Path) -> None:
    """The wheel has every file of the package, the grammar, the zoo and the licence, and no others."""
    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "nasdsl", "grammars", "genotypes"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    expected = {path if path.startswith("nasdsl/") else f"nasdsl/{path}" for path in tracked if path}
    require(names == expected, f"the wheel lacks {sorted(expected - names)} and has {sorted(names - expected)}")
    (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_string(archive.read(file).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    require(metadata["License-Expression"] == project["license"], f"the licence is {metadata['License-Expression']}")
    require(metadata.get_all("License-File") == ["LICENSE"], "the wheel names no file of the licence")
    require(any(name.endswith("/licenses/LICENSE") for name in archive.namelist()), "the licence is not in the wheel")
    require(set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"]), "extras are missing")
    require(metadata["Requires-Python"] == project["requires-python"], "Requires-Python is missing")
    require(metadata.get_all("Classifier") == project["classifiers"], "classifiers are missing")
    require(bool(metadata.get_all("Project-URL")) == ("urls" in project), "the project's addresses are missing")
    require(metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip(), "the description is not README.md")


def check_sdist(sdist: Path) -> None:
    """The sdist has what one needs to build and to test."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in ("pyproject.toml", "LICENSE", "README.md", "grammars/nas.lark", "genotypes/nas_fcos.nas", "tests/conftest.py"):
        require(path in names, f"the sdist lacks {path}")


def try_commands(folder: Path, wheel: Path) -> None:
    """Install the wheel in an empty environment, and run the commands where nothing of the checkout is."""
    home, work, environment = folder / "home", folder / "work", folder / "environment"
    for path in (home, work):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    run("uv", "pip", "install", "--quiet", "--python", environment, f"{wheel}[onnx,onnxruntime]")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NASDSL", "PYTEST"))}
    variables |= {
        "HOME": str(home),
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(home),
    }
    python = environment / "bin" / "python"
    where = run(python, "-c", "import nasdsl; print(nasdsl.__file__)", cwd=work, env=variables).strip()
    require(str(ROOT) not in where and str(environment) in where, f"nasdsl was imported from {where}")
    for command in COMMANDS:
        run(environment / "bin" / "nasdsl", *command.split(), cwd=work, env=variables)
    for name in PRODUCED:
        require((work / name).stat().st_size > 0, f"{name} is empty")
    cost = json.loads(run(python, "-m", "nasdsl", "compile", "zoo:fcos", "--format", "json", cwd=work, env=variables))
    require(cost["name"] == "fcos", f"the cost is of {cost['name']}")
    # The exports run without the package.
    run("uv", "pip", "uninstall", "--quiet", "--python", environment, "nasdsl")
    run(python, "decoder.py", cwd=work, env=variables)
    run(python, "-c", RUN_ONNX, cwd=work, env=variables)
    run(python, "-c", "import torch; torch.export.load('decoder.pt2').module()", cwd=work, env=variables)


RUN_ONNX = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])
features = {i.name: numpy.zeros((1, i.shape[1], 256 >> int(i.name[1:]), 256 >> int(i.name[1:])), numpy.float32)
            for i in session.get_inputs()}
assert all(numpy.isfinite(output).all() for output in session.run(None, features))
"""


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it prints; print all of it and exit if it fails."""
    words = [str(word) for word in command]
    shown = " ".join([Path(words[0]).name, *words[1:]])
    print(f"$ {shown if len(shown) < 160 else shown[:157] + '…'}", flush=True)
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    require(done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def require(holds: bool, message: str) -> None:
    if not holds:
        sys.exit(message)


if __name__ == "__main__":
    main()
