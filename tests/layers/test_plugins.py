"""Installed packages that add primitives: entry points as installers write them, used by the real command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nasdsl.layers import plugins

GOOD = """
from dataclasses import dataclass
from nasdsl.layers import Cost, CustomLayer, primitive

@primitive("{name}")
@dataclass(frozen=True, slots=True)
class {cls}(CustomLayer):
    {fields}

    def infer(self, inputs):
        return inputs[0]

    def cost(self, inputs, out, area):
        return Cost()
"""


def module(name: str = "shuffle", cls: str = "Shuffle", fields: str = "groups: int = 2") -> str:
    return GOOD.format(name=name, cls=cls, fields=fields)


def install(site: Path, package: str, code: str | None, *, version: str = "1.0", value: str | None = None) -> None:
    """A package with one module and the metadata that installers write; without `code` the module is missing."""
    name = package.replace("-", "_")
    if code is not None:
        (site / f"{name}.py").write_text(code)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[nasdsl.primitives]\n{name}_entry = {value or name}\n")


def text(*calls: str) -> str:
    outputs = ", ".join(f"p{level} = {call}" for level, call in enumerate(calls, 3))
    return (
        f"decoder d {{\n  input c3\n  fpn(width=64, norm=bn) {{ output {outputs} }}\n"
        "  head(width=64, norm=gn) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "nasdsl", *arguments], cwd=site, env={**os.environ, "PYTHONPATH": path}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def check(site: Path, *texts: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    """The command's run, and its findings as JSON."""
    names = [f"t{i}.nas" for i in range(len(texts))]
    for name, content in zip(names, texts, strict=True):
        (site / name).write_text(content)
    report = json.loads(run(site, "check", "--format", "json", *names).stdout)
    return run(site, "check", *names), report["diagnostics"]


def test_a_primitive_of_an_installed_package(tmp_path: Path) -> None:
    install(tmp_path, "nasdsl-shuffle", module())
    ran, findings = check(tmp_path, text("shuffle(c3, groups=4)"))
    assert (ran.returncode, findings) == (0, []), ran.stderr


FAILING = {
    "a package that it lacks": ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
    "a name that another package has no more": ("from nasdsl.layers import gone\n", "ImportError: cannot import name 'gone'"),
    "a syntax error": ("def f(:\n", "SyntaxError: "),
    "a program's end": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "a module that is not there": (None, "ModuleNotFoundError: No module named 'nasdsl_broken'"),
    "a class that breaks the contract": (module(fields="p: list = None"), "nasdsl_broken.Shuffle: field `p`: its type is list"),
    "a class without a decorator": (module().replace("@dataclass(frozen=True, slots=True)", ""), "is not a dataclass"),
    "a name of the prelude": (
        module("conv_3x3"),
        "the name 'conv_3x3' of the primitive nasdsl_broken.Shuffle is that of an op",
    ),
    "a mutable default": (module(fields="p: list = []"), "ValueError: mutable default"),
}


@pytest.mark.parametrize(
    "name",
    [
        n
        if n in ("a package that it lacks", "a program's end", "a name of the prelude")
        else pytest.param(n, marks=pytest.mark.long)
        for n in FAILING
    ],
)
def test_a_package_that_fails_is_one_warning_with_its_error_beside_the_unknown_op(name: str, tmp_path: Path) -> None:
    code, error = FAILING[name]
    install(tmp_path, "nasdsl-broken", code, version="2.1")
    ran, findings = check(tmp_path, text("shufle(c3)", "shufle(c3)"))
    assert "internal error" not in ran.stderr
    assert ran.returncode == 1
    assert [d["code"] for d in findings] == ["NAS201", "NAS902", "NAS201"], "in the order of the text"
    warning = findings[1]
    assert warning["severity"] == "warning"
    assert warning["message"].startswith("the primitives of nasdsl-broken 2.1 cannot be loaded: ")
    assert error in warning["message"]
    assert (warning["line"], warning["column"]) == (findings[0]["line"], findings[0]["column"])
    assert "nasdsl_broken_entry" in warning["help"]
    assert ran.stderr.count("warning[NAS902]") == 1


def test_a_package_that_fails_says_nothing_of_texts_that_need_none(tmp_path: Path) -> None:
    install(tmp_path, "nasdsl-broken", "1 / 0\n")
    install(tmp_path, "nasdsl-shuffle", module())
    ran, findings = check(tmp_path, text("shuffle(conv_3x3(c3))"))
    assert (ran.returncode, findings) == (0, []), ran.stderr


def test_every_text_with_an_unknown_op_says_it(tmp_path: Path) -> None:
    """The package is imported once a process; a reader of the second file's findings sees the reason too."""
    install(tmp_path, "nasdsl-broken", "print('imported', file=__import__('sys').stderr)\n1 / 0\n")
    ran, findings = check(tmp_path, text("shuffle(c3)"), text("conv_3x3(c3)"), text("skip(shuffle(c3))"))
    assert [(d["file"], d["code"]) for d in findings] == [
        ("t0.nas", "NAS201"), ("t0.nas", "NAS902"), ("t2.nas", "NAS201"), ("t2.nas", "NAS902"),
    ]  # fmt: skip
    assert ran.stderr.count("imported") == 1


def test_two_packages_of_one_name(tmp_path: Path) -> None:
    for package in ("nasdsl-one", "nasdsl-two"):
        install(tmp_path, package, module())
    ran, findings = check(tmp_path, text("shuffle(c3)"))
    assert (ran.returncode, findings) == (0, []), "one of them is there"
    _, findings = check(tmp_path, text("typo(c3)"))
    assert [d["code"] for d in findings] == ["NAS201", "NAS902"]
    assert "the name 'shuffle' of the primitive" in findings[1]["message"]
    assert "nasdsl_one.Shuffle" in findings[1]["message"]
    assert "nasdsl_two.Shuffle" in findings[1]["message"]


def test_a_package_that_reads_a_text_when_it_is_imported(tmp_path: Path) -> None:
    reading = (
        module() + f"\nimport nasdsl\nnasdsl.loads({text('shuffle(c3)')!r})\ntry:\n    nasdsl.loads({text('typo(c3)')!r})\n"
    )
    install(tmp_path, "nasdsl-reads", reading + "except nasdsl.DiagnosticError:\n    pass\n")
    ran, findings = check(tmp_path, text("shuffle(c3)"))
    assert (ran.returncode, findings) == (0, []), ran.stderr


def test_metadata_without_a_name(tmp_path: Path) -> None:
    install(tmp_path, "nasdsl-broken", "1 / 0\n")
    (tmp_path / "nasdsl_broken-1.0.dist-info" / "METADATA").unlink()
    ran, findings = check(tmp_path, text("typo(c3)"))
    assert "internal error" not in ran.stderr
    assert [d["code"] for d in findings] == ["NAS201", "NAS902"]
    assert "nasdsl_broken" in findings[1]["message"]
    assert "ZeroDivisionError" in findings[1]["message"]


@pytest.mark.parametrize("command", [["compile"], ["render"], ["sample"]])
def test_other_commands_name_the_op_too(command: list[str], tmp_path: Path) -> None:
    install(tmp_path, "nasdsl-broken", "1 / 0\n")
    (tmp_path / "t.nas").write_text(text("shuffle(c3)"))
    ran = run(tmp_path, *command, "t.nas")
    assert ran.returncode == 1, ran.stderr
    assert "error[NAS201]" in ran.stderr
    assert ran.stderr.count("warning[NAS902]") == 1
    assert "internal error" not in ran.stderr


def test_an_interrupted_import_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_failures", {})

    def interrupted(group: str) -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.metadata, "entry_points", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plugins.load_plugins()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    assert plugins.load_plugins() == ()


class Entry:
    """An entry point whose package's metadata cannot be read, and whose module the program has imported before."""

    name, value, module = "shuffle", "somewhere.layers:Shuffle", "somewhere.layers"

    @property
    def dist(self) -> None:
        raise OSError("no metadata")

    def load(self) -> None:
        pass


def test_a_module_that_was_imported_before_its_package_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes are the package's, and nobody else's are."""
    monkeypatch.setattr(plugins, "_failures", {})
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry()])
    made = {
        module: type("Made", (), {"__module__": module, "origin": ""}) for module in ("somewhere.layers", "somewhere.layers2")
    }
    assert plugins.load_plugins("nasdsl.some", made) == ()
    assert [getattr(cls, "origin", None) for cls in made.values()] == ["somewhere.layers, entry point `shuffle`", ""]
