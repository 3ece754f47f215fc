"""The example package of docs/plugins.md, installed as users install it, and run through every back end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from nasdsl.layers import CUSTOM, plugins

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def run(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed by pip from a copy of its source, without the network."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = "-m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --target".split()
    made = subprocess.run([sys.executable, *pip, target, source], text=True, capture_output=True, check=False)
    if "No module named 'setuptools'" in made.stderr or "No module named pip" in made.stderr:
        pytest.skip("pip and setuptools are needed to install the example package")
    assert made.returncode == 0, made.stderr
    return target


def test_the_page_shows_the_files_of_the_package() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    assert list(shown) == ["pyramid_bands/__init__.py", "pyramid_bands/modules.py", "pyproject.toml", "banded.nas"]
    for name, text in shown.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_the_command_finds_it(site: Path, tmp_path: Path) -> None:
    for name in ("banded", "banded_space"):
        shutil.copy(EXAMPLE / f"{name}.nas", tmp_path)
    checked = run(site, "-m", "nasdsl", "check", "--format", "json", "banded.nas", "banded_space.nas", cwd=tmp_path)
    assert json.loads(checked.stdout) == {"ok": True, "diagnostics": []}, checked.stderr
    sampled = run(site, "-m", "nasdsl", "sample", "banded_space.nas", cwd=tmp_path)
    assert sampled.stdout.startswith("decoder banded_space { input c3, c4, c5; fpn(width=32, norm=bn) { low, detail = bands(")


def test_without_the_package_its_ops_are_unknown(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "banded.nas", tmp_path)
    checked = run(tmp_path, "-m", "nasdsl", "check", "banded.nas", cwd=tmp_path)
    assert checked.returncode == 1
    assert "unknown op `bands`" in checked.stderr


def test_findings_name_package_and_entry_point(site: Path, tmp_path: Path) -> None:
    text = (EXAMPLE / "banded.nas").read_text(encoding="utf-8")
    (tmp_path / "even.nas").write_text(text.replace("k=5", "k=4"))
    checked = run(site, "-m", "nasdsl", "check", "even.nas", cwd=tmp_path)
    assert (checked.returncode, "k is 4; expected an odd number" in checked.stderr) == (1, True), checked.stderr
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    module = broken / "pyramid_bands" / "__init__.py"
    code = module.read_text(encoding="utf-8")
    for before, after, says in (
        ("return Feature(x.level - 1, x.width)", "return None", "infer returns None; expected a Feature"),
        ('@primitive("learned_up", sized=True)', '@primitive("learned_up")', "register it by @primitive(…, sized=True)"),
    ):
        assert before in code
        module.write_text(code.replace(before, after), encoding="utf-8")
        shutil.copy(EXAMPLE / "banded.nas", tmp_path)
        checked = run(broken, "-m", "nasdsl", "check", "banded.nas", cwd=tmp_path)
        assert checked.returncode == 1
        assert says in checked.stderr
        assert "`learned_up` (pyramid_bands.LearnedUp of nasdsl-pyramid-bands 1.0, entry point `bands`)" in checked.stderr
        assert "internal error" not in checked.stderr


def test_every_back_end(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, to which the folder is added as an environment with the package."""
    import plugin_back_ends

    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(plugins, "_failures", {})
    assert "pyramid_bands" not in sys.modules
    with mock.patch.dict(CUSTOM, clear=True):
        try:
            plugin_back_ends.main(EXAMPLE, tmp_path)
            assert sys.modules["pyramid_bands"].__file__ == str(site / "pyramid_bands" / "__init__.py")
        finally:  # of this package alone: torch's modules can be imported once
            for name in [n for n in sys.modules if n.partition(".")[0] == "pyramid_bands"]:
                del sys.modules[name]
