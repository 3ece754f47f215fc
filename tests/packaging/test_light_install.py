"""What works with the few packages of the light installation: an interpreter that sees these and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ASKED = ("click", "jinja2", "lark", "networkx", "pyyaml", "rich")
"""What docs/install.md asks for; their own dependencies come with them."""
DECODER = "zoo:nas_fcos"


def installed_with(packages: Iterable[str]) -> set[str]:
    """These packages and all that they need here."""
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            needed = map(Requirement, distribution(package).requires or ())
            waiting += [r.name.lower() for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to these packages."""
    folder = tmp_path_factory.mktemp("light") / "site"
    folder.mkdir()
    for package in installed_with(ASKED):
        found = distribution(package)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(Path(str(found.locate_file(top))))
    return folder


def python(site: Path, cwd: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NASDSL"))}
    variables |= {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "PATH": os.defpath}
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=cwd, env=variables, input=stdin, capture_output=True, text=True, timeout=120
    )  # fmt: skip


def test_the_environment_has_no_torch(site: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.util import find_spec\n"
        "for name in ('torch', 'torchvision', 'numpy', 'PIL', 'matplotlib', 'altair', 'pycocotools', 'filelock'):\n"
        "    assert find_spec(name) is None, name"
    )
    ran = python(site, tmp_path, "-c", code)
    assert ran.returncode == 0, ran.stderr


COMMANDS = [
    "--help",
    "--version",
    f"check {DECODER} zoo:fcos_family",
    f"compile {DECODER} --width 64 --backbone mobilenet_v2 --size 320x400",
    f"compile {DECODER} --format json",
    f"compile {DECODER} -o out.py",
    f"render {DECODER} -o out.dot",
    f"render {DECODER} -o out.mmd",
    "sample zoo:nas_fcos_fpn -n 3",
    "explain NAS201",
    "zoo",
    "import nas-fcos [[3,3,4,4,1],[2,3,4,3,1],[1,2,4,3,1]]",
    "env",
    "studio --help",
]


NEED_MORE = [
    ("data shapes", "numpy"),
    ("train zoo:fcos --backbone tiny --data shapes --out run", "torch"),
    ("search zoo:nas_fcos_fpn --backbone tiny --data shapes --out run", "numpy"),
    (f"compile {DECODER} -o out.onnx", "torch"),
]
RUN_ALL = """
import json, sys
from click.testing import CliRunner
from nasdsl import cli
runs = {}
for command in json.load(sys.stdin):
    sys.argv[1:] = command.split()
    runner = CliRunner()
    with runner.isolation() as (out, err, _):
        try:
            cli.main()
        except SystemExit as exit:
            code = exit.code
        runs[command] = code, out.getvalue().decode(), err.getvalue().decode()
assert not {"torch", "numpy", "PIL"} & set(sys.modules)
print(json.dumps(runs))
"""


@pytest.fixture(scope="module")
def runs(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Exit code, standard output and standard error of all commands, which run in one process."""
    folder = tmp_path_factory.mktemp("runs")
    ran = python(site, folder, "-c", RUN_ALL, stdin=json.dumps([*COMMANDS, *(command for command, _ in NEED_MORE)]))
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in folder.iterdir() if path.stat().st_size > 0} == {"out.py", "out.dot", "out.mmd"}
    found: dict[str, tuple[int, str, str]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_up_to_cost_picture_and_source(command: str, runs: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = runs[command]
    assert code == 0, err
    assert out or "wrote" in err


@pytest.mark.parametrize(("command", "package"), NEED_MORE)
def test_what_needs_more_says_what_to_install(command: str, package: str, runs: dict[str, tuple[int, str, str]]) -> None:
    code, _, err = runs[command]
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"nasdsl: this needs the package {package}, which is not installed")
    assert "pip install nasdsl" in last


def test_the_source_is_the_same_as_with_torch(site: Path, tmp_path: Path) -> None:
    """For every layer that a file may need a definition for: each decoder of the zoo."""
    code = (
        "from pathlib import Path; import nasdsl; from nasdsl.backends.source import emit_source\n"
        f"for path in sorted(Path({str(ROOT / 'genotypes')!r}).glob('*.nas')):\n"
        "    graph = nasdsl.load(path).lower({'c2': 256, 'c3': 512, 'c4': 1024, 'c5': 2048})\n"
        "    print(emit_source(graph, 80))"
    )
    light = python(site, tmp_path, "-c", code)
    assert light.returncode == 0, light.stderr
    full = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert light.stdout == full.stdout
    assert "class Decoder" in light.stdout


def test_the_studio_answers(site: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from nasdsl.folder import Folder; from nasdsl.studio.server import StudioServer\n"
        "from nasdsl.studio.text_file import Files; server = StudioServer(Files(Folder.open('.')))\n"
        "text = server.ask({'kind': 'zoo', 'name': 'nas_fcos'})['text']\n"
        "assert 'picture' in server.ask({'kind': 'check', 'text': text})\n"
        "assert 'class Decoder' in server.ask({'kind': 'source', 'text': text})['text']\n"
        "assert not {'torch', 'numpy', 'networkx', 'lsprotocol'} & set(sys.modules)"
    )
    ran = python(site, tmp_path, "-c", code)
    assert ran.returncode == 0, ran.stderr


def test_text_can_be_formatted_in_place(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.nas").write_text((ROOT / "genotypes" / "fcos.nas").read_text().replace("    ", "  "))
    assert python(site, tmp_path, "-m", "nasdsl", "fmt", "mine.nas").returncode == 0
    assert (tmp_path / "mine.nas").read_text() == (ROOT / "genotypes" / "fcos.nas").read_text()
