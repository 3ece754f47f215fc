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
    assert list(shown) == [
        "pyramid_bands/__init__.py", "pyramid_bands/modules.py", "pyproject.toml", "banded.nas", "pyramid_bands/kinds.py",
        "pyramid_bands/losses.py", "quality.nas",
    ]  # fmt: skip
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


KIND = """
import sys, json
import nasdsl
decoder = nasdsl.load("quality.nas")
assert "torch" not in sys.modules
again = nasdsl.loads(decoder.canonical)
import torch
from nasdsl.export import export_detector
model = nasdsl.detector(decoder, "tiny", classes=2, seed=0, min_size=64, max_size=96, beta=1.5)
boxes = [{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}]
torch.manual_seed(0)
image = torch.rand(1, 3, 64, 96)
losses = model(image, boxes)
torch.stack(list(losses.values())).sum().backward()
model.eval()
for name in ("d.onnx", "d.py"):
    export_detector(model, name)
from nasdsl.training.proxy.loop import make_method
print(json.dumps([decoder.digest == again.digest, sorted(losses), make_method(decoder, {}).at_locations, decoder.canonical]))
"""


@pytest.mark.long  # two new processes with torch, and two exports
def test_a_kind_of_prediction(site: Path, tmp_path: Path) -> None:
    """The whole way in a process of its own: text, digest, losses, exports."""
    shutil.copy(EXAMPLE / "quality.nas", tmp_path)
    made = run(site, "-c", KIND, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    same, losses, cached, text = json.loads(made.stdout)
    assert (same, losses, cached) == (True, ["bbox_regression", "classification"], True)
    assert "predict quality_fcos(boxes=exp, kernel=1)" in text
    compiled = run(site, "-m", "nasdsl", "compile", "quality.nas", "--backbone", "tiny", "--size", "64x96", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr


@pytest.mark.parametrize(
    ("before", "after", "codes", "says"),
    [
        (
            "from nasdsl.predictions",
            "from nothing",
            ["NAS208", "NAS902"],
            "entry point `quality` of the group nasdsl.predictions",
        ),
        ('"cls_logits", "cls"', '"cls_logits", "ctr"', ["NAS318"], "cls_logits reads 'ctr'"),
        ("return PredictedMap(", "return 1 / 0, PredictedMap(", ["NAS318"], "fails in maps: ZeroDivisionError"),
        ("boxes: Literal", "share: Literal", ["NAS208", "NAS902"], "every kind has `share` already"),
    ],
)
def test_broken_kinds_are_named(site: Path, tmp_path: Path, before: str, after: str, codes: list[str], says: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    module = broken / "pyramid_bands" / "kinds.py"
    code = module.read_text(encoding="utf-8")
    assert before in code
    module.write_text(code.replace(before, after), encoding="utf-8")
    shutil.copy(EXAMPLE / "quality.nas", tmp_path)
    checked = run(broken, "-m", "nasdsl", "check", "quality.nas", cwd=tmp_path)
    assert checked.returncode == 1
    assert re.findall(r"NAS\d+", checked.stderr)[: len(codes)] == codes, checked.stderr
    assert says in checked.stderr
    assert "pyramid" in checked.stderr
    assert "internal error" not in checked.stderr


@pytest.mark.long
def test_a_method_that_cannot_be_imported_is_named(site: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    (broken / "pyramid_bands" / "losses.py").write_text("1 / 0\n", encoding="utf-8")
    shutil.copy(EXAMPLE / "quality.nas", tmp_path)
    made = run(broken, "-c", "import nasdsl; nasdsl.detector(nasdsl.load('quality.nas'), 'tiny', classes=2)", cwd=tmp_path)
    assert (
        "DetectorError: the prediction `quality_fcos` (pyramid_bands.kinds.QualityFcos of nasdsl-pyramid-bands 1.0"
        in made.stderr
    )
    assert "its method pyramid_bands.losses:QualityFcos cannot be imported: ZeroDivisionError" in made.stderr


@pytest.mark.long
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
