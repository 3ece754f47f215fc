"""The command line as other programs rely on it: exit codes, what goes to which stream, the fields of JSON, quick starts."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from findings import JSON_FIELDS
from in_process import refused
from machine_speed import slowness
from zoo_files import ZOO

import nasdsl as package
from nasdsl.backends import diagrams
from nasdsl.cli import main
from nasdsl.cli.errors import warnings_as_messages
from nasdsl.cli.help import GroupedCommand
from nasdsl.cli.options import ListType, NamesType, SizeType
from nasdsl.cli.output import MAX_DIAGNOSTICS, print_diagnostics, progress_bar
from nasdsl.decoder import loads
from nasdsl.diagnostics import DiagnosticError

GOOD = (
    "decoder d {\n  input c3, c4\n  fpn(width=64, norm=bn) {\n    output p3 = conv_3x3(c3)\n  }\n"
    "  head(width=64, norm=gn) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
)
BAD = GOOD.replace("conv_3x3(c3)", "cnv_3x3(c3)")
SPACE = GOOD.replace("conv_3x3(c3)", "?(conv_1x1 | conv_3x3 | sep_3x3)(c3)")
WARNED = GOOD.replace("    output", "    x1 = conv_3x3(c4)\n    output")


def nasdsl(*arguments: str, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "NASDSL_TRACEBACK")}
    return subprocess.run(
        [sys.executable, "-m", "nasdsl", *arguments],
        cwd=cwd, input=stdin, capture_output=True, text=True, timeout=120, env={**clean, **environment},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("bad", BAD), ("warned", WARNED)):
        (tmp_path / f"{name}.nas").write_text(text)
    return tmp_path


# ----------------------------------------------------------------------------------------------------------- check


def test_a_file_without_mistakes(folder: Path) -> None:
    ran = nasdsl("check", "good.nas", cwd=folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1 file checked, nothing to report\n", "")


def test_findings_go_to_standard_error(folder: Path) -> None:
    ran = nasdsl("check", "bad.nas", cwd=folder)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error[NAS201]: unknown op `cnv_3x3`\n --> bad.nas:4:17\n".replace("\n -->", "\n  -->"))
    assert "did you mean `conv_3x3`?" in ran.stderr
    assert ran.stderr.endswith("1 error, 0 warnings in 1 file\n")


def test_a_warning_does_not_fail(folder: Path) -> None:
    ran = nasdsl("check", "warned.nas", cwd=folder)
    assert ran.returncode == 0
    assert ran.stderr.startswith("warning[NAS901]")
    assert "0 errors, 1 warning in 1 file" in ran.stderr


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (["good.nas", "good.nas"], 0), (["good.nas", "warned.nas"], 0), (["good.nas", "bad.nas", "good.nas"], 1),
        (["bad.nas", "missing.nas"], 2), (["missing.nas", "bad.nas"], 2), (["missing.nas", "good.nas"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)  # fmt: skip
def test_several_files_are_all_checked(files: list[str], code: int, folder: Path) -> None:
    ran = nasdsl("check", *files, cwd=folder)
    assert ran.returncode == code
    assert ("bad.nas:4:17" in ran.stderr) == ("bad.nas" in files)
    assert ("nasdsl: missing.nas: no such file" in ran.stderr) == ("missing.nas" in files)
    assert not ran.stdout or code == 0


def test_check_as_json(folder: Path) -> None:
    for name, code, found in (("good", 0, []), ("bad", 1, ["NAS201"]), ("warned", 0, ["NAS901"])):
        ran = nasdsl("check", "--format", "json", f"{name}.nas", cwd=folder)
        assert (ran.returncode, ran.stderr) == (code, "")
        report = json.loads(ran.stdout)
        assert set(report) == {"ok", "diagnostics"}
        assert report["ok"] is (code == 0)
        assert [d["code"] for d in report["diagnostics"]] == found
        for finding in report["diagnostics"]:
            assert set(finding) == JSON_FIELDS
            assert finding["file"] == f"{name}.nas"
    finding = json.loads(nasdsl("check", "--format", "json", "bad.nas", cwd=folder).stdout)["diagnostics"][0]
    expected = {"line": 4, "column": 17, "end_line": 4, "end_column": 24, "severity": "error", "fix": "conv_3x3", "related": []}
    assert {k: finding[k] for k in expected} == expected


def test_an_unreadable_file_as_json(folder: Path) -> None:
    ran = nasdsl("check", "--format", "json", "missing.nas", "bad.nas", cwd=folder)
    assert ran.returncode == 2
    assert ran.stderr == "nasdsl: missing.nas: no such file\n"
    report = json.loads(ran.stdout)
    assert report["ok"] is False
    assert [d["code"] for d in report["diagnostics"]] == ["NAS201"]


def test_standard_input(folder: Path) -> None:
    assert nasdsl("check", "-", cwd=folder, stdin=GOOD).returncode == 0
    ran = nasdsl("check", "-", cwd=folder, stdin=BAD)
    assert ran.returncode == 1
    assert "--> <stdin>:4:17" in ran.stderr
    assert json.loads(nasdsl("compile", "-", "--format", "json", cwd=folder, stdin=GOOD).stdout)["name"] == "d"


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal to write to")
@pytest.mark.parametrize(("environment", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["plain", "NO_COLOR"])
def test_color_on_a_terminal_only_and_not_with_no_color(environment: dict[str, str], colored: bool, folder: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    ran = subprocess.run(
        [sys.executable, "-m", "nasdsl", "check", "bad.nas"],
        cwd=folder, stdout=subprocess.PIPE, stderr=theirs, env={**clean, **environment}, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert ran.returncode == 1
    assert ("\x1b[" in shown) == colored
    assert "\x1b[" not in nasdsl("check", "bad.nas", cwd=folder).stderr


# ---------------------------------------------------------------------------------------------------- folders of runs


@pytest.fixture
def runs(folder: Path) -> Path:
    """Folders of a training and a search with their decoders and the search space, and one without."""
    for name, files in (("training", {"decoder.nas": GOOD}), ("search", {"best.nas": GOOD, "space.nas": SPACE}), ("other", {})):
        (folder / name).mkdir()
        for file, text in files.items():
            (folder / name / file).write_text(text)
    return folder


@pytest.mark.parametrize(("run", "file"), [("training", "decoder.nas"), ("search", "best.nas")])
def test_the_folder_of_a_run_stands_for_its_decoder(run: str, file: str, runs: Path) -> None:
    path = f"{run}/{file}"
    for command in (["check"], ["compile", "--format", "json"], ["render", "-o", "out.dot"]):
        of_folder, of_file = nasdsl(*command, run, cwd=runs), nasdsl(*command, path, cwd=runs)
        assert (of_folder.returncode, of_folder.stdout) == (0, of_file.stdout)
        assert of_folder.stderr == f"reading {path}\n{of_file.stderr}"
    assert nasdsl("render", "good.nas", "--diff", run, "-o", "diff.dot", cwd=runs).returncode == 0
    (runs / path).write_text(BAD)
    ran = nasdsl("check", run, cwd=runs)
    assert ran.returncode == 1
    assert f"--> {path}:4:17" in ran.stderr


def test_a_search_space_is_taken_from_the_folder_of_a_search(runs: Path) -> None:
    ran = nasdsl("sample", "search", "-n", "3", cwd=runs)
    assert (ran.returncode, ran.stderr) == (0, "reading search/space.nas\n")
    assert ran.stdout == nasdsl("sample", "search/space.nas", "-n", "3", cwd=runs).stdout
    ran = nasdsl("sample", "training", cwd=runs)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "nasdsl: training: a directory without space.nas; expected a .nas file or the folder of a search\n"


def test_a_folder_without_a_decoder_is_named_and_other_files_are_still_checked(runs: Path) -> None:
    expected = "nasdsl: other: a directory without decoder.nas or best.nas; "
    expected += "expected a .nas file or the folder of a training or search\n"
    for command in ("compile", "render"):
        ran = nasdsl(command, "other", cwd=runs)
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", expected)
    ran = nasdsl("check", "other", "bad.nas", cwd=runs)
    assert ran.returncode == 2
    assert ran.stderr.startswith(expected)
    assert "bad.nas:4:17" in ran.stderr


def test_fmt_names_the_decoder_of_a_run_and_leaves_it_alone(runs: Path) -> None:
    untidy = GOOD.replace("  ", " ")
    (runs / "training" / "decoder.nas").write_text(untidy)
    ran = nasdsl("fmt", "training", "other", cwd=runs)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "training: a directory, where a .nas file is expected; its decoder is training/decoder.nas\n" in ran.stderr
    assert "other: a directory, where a .nas file is expected\n" in ran.stderr
    assert (runs / "training" / "decoder.nas").read_text() == untidy


# --------------------------------------------------------------------------------------------------------- compile


def test_compile_as_json(folder: Path) -> None:
    ran = nasdsl("compile", "zoo:nas_fcos", "--format", "json", "--size", "512x640", "--classes", "3", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    report = json.loads(ran.stdout)
    assert {"name", "digest", "size", "backbone", "classes", "cost", "removed", "nodes"} <= set(report)
    named = (report["name"], report["size"], report["backbone"], report["classes"])
    assert named == ("nas_fcos", [512, 640], "resnet50", 3)
    assert re.fullmatch("[0-9a-f]{64}", report["digest"])
    assert set(report["cost"]) == {"total", "backbone", "fpn", "head"}
    for figure in ("macs", "params", "trainable_params", "published_flops"):
        parts = {name: part[figure] for name, part in report["cost"].items()}
        assert all(isinstance(value, int) and value > 0 for value in parts.values())
        assert parts["total"] == parts["backbone"] + parts["fpn"] + parts["head"]
    lines = Path(ZOO[0].parent / "nas_fcos.nas").read_text().splitlines()
    assert [r["name"] for r in report["removed"]] == ["c2 adapter"], "nothing reads c2"
    for entry in report["removed"] + report["nodes"]:
        assert entry["macs"] >= 0
        assert 1 <= entry["line"] <= len(lines)
    assert sum(n["macs"] for n in report["nodes"]) == report["cost"]["fpn"]["macs"] + report["cost"]["head"]["macs"]
    x1 = next(n for n in report["nodes"] if n["name"] == "x1")
    assert (x1["op"], x1["level"], x1["shape"]) == ("cat", 5, [256, 16, 20])
    assert lines[x1["line"] - 1].strip().startswith("x1 = cat(")


def test_compile_as_a_table(folder: Path) -> None:
    ran = nasdsl("compile", "good.nas", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "d" in ran.stdout
    assert not ran.stdout.lstrip().startswith("{")


def test_compile_at_another_width(folder: Path) -> None:
    ran = nasdsl("compile", "good.nas", "--width", "96", "--format", "json", "-o", "out.py", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "wrote out.py\n")
    (folder / "other.nas").write_text(GOOD.replace("width=64", "width=96"))
    assert json.loads(ran.stdout) == json.loads(nasdsl("compile", "other.nas", "--format", "json", cwd=folder).stdout)
    assert "fpn(width=96" in (folder / "out.py").read_text()
    ran = nasdsl("compile", "good.nas", "--width", "48", cwd=folder)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error[NAS308]")
    assert nasdsl("compile", "good.nas", "--width", "0", cwd=folder).returncode == 2


@pytest.mark.parametrize("name", ["bad.nas", "defs.nas", "space.nas"])
def test_what_does_not_compile(name: str, folder: Path) -> None:
    (folder / "defs.nas").write_text("op mine(x) = conv_3x3(x)\n")
    (folder / "space.nas").write_text(GOOD.replace("conv_3x3(c3)", "?(conv_1x1 | conv_3x3)(c3)"))
    ran = nasdsl("compile", name, cwd=folder)
    assert (ran.returncode, ran.stdout) == (1, "")
    code = {"bad.nas": "NAS201", "defs.nas": "NAS401", "space.nas": "NAS501"}[name]
    assert ran.stderr.startswith(f"error[{code}]")


def test_warnings_do_not_stop_a_compilation_and_leave_its_data_clean(folder: Path) -> None:
    ran = nasdsl("compile", "warned.nas", "--format", "json", cwd=folder)
    assert ran.returncode == 0
    assert ran.stderr.startswith("warning[NAS901]")
    assert {r["name"] for r in json.loads(ran.stdout)["removed"]} >= {"x1"}


def test_a_missing_feature_is_usage(folder: Path) -> None:
    (folder / "t.nas").write_text(GOOD.replace("c3, c4", "c3, c7"))
    ran = nasdsl("compile", "t.nas", cwd=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("nasdsl: `d` reads c7; the backbone gives c2")


# ---------------------------------------------------------------------------------------------------------- import

MODEL_FILE = """\
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [-1, 1, C2f, [64]]
  - [[3], 1, Detect, [nc]]
"""


def test_a_model_file_is_converted(folder: Path) -> None:
    (folder / "my-net 5.yaml").write_text(MODEL_FILE)
    ran = nasdsl("import", "yolo", "my-net 5.yaml", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "decoder my_net_5 {" in ran.stdout
    (folder / "neck.nas").write_text(ran.stdout)
    assert nasdsl("check", "neck.nas", cwd=folder).returncode == 0
    assert nasdsl("fmt", "--check", "neck.nas", cwd=folder).returncode == 0
    (folder / "wrong.yaml").write_text(MODEL_FILE.replace("C2f", "C2g").replace("[[3]", "[[9]"))
    ran = nasdsl("import", "yolo", "wrong.yaml", cwd=folder)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "error[import]: unknown module `C2g`\n  --> wrong.yaml:6:13\n" in ran.stderr
    assert "error[import]: layer 4 reads layer 9, and the file has 5 layers\n  --> wrong.yaml:7:7\n" in ran.stderr
    ran = nasdsl("import", "yolo", "none.yaml", cwd=folder)
    assert (ran.returncode, ran.stderr) == (2, "nasdsl: none.yaml: no such file\n")


# ---------------------------------------------------------------------------------------------------------- render


def test_a_format_that_cannot_be_drawn(folder: Path) -> None:
    for arguments, expected in ((["-o", "out.gif"], ".svg, .png, .pdf, .dot, .mmd, .html"), (["-o", "out"], ".svg, .png, .pdf"),
                                (["--diff", "good.nas", "-o", "out.html"], ".svg, .png, .pdf, .dot")):  # fmt: skip
        ran = nasdsl("render", "good.nas", *arguments, cwd=folder)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert ran.stderr.startswith(f"nasdsl: cannot draw {arguments[-1]}: expected a name that ends in {expected}")


def test_a_message_says_that_a_diagram_is_wrapped(folder: Path) -> None:
    ran = nasdsl("render", "zoo:nas_fpn", "-o", "out.dot", "--no-fold", cwd=folder)
    assert (ran.returncode, ran.stdout) == (0, "")
    message, written = ran.stderr.splitlines()
    assert message == "nas_fpn is too wide for one row and is drawn in 9 rows; a dotted frame stands for a value of another row"
    assert written == "wrote out.dot"
    ran = nasdsl("render", "zoo:nas_fpn", "-o", "out.mmd", "--no-fold", cwd=folder)
    assert ran.stderr == "nas_fpn is too wide for one row and is drawn from top to bottom\nwrote out.mmd\n"
    assert nasdsl("render", "zoo:fcos", "-o", "out.DOT", cwd=folder).stderr == "wrote out.DOT\n"


def test_a_message_says_that_a_diagram_is_folded(folder: Path) -> None:
    told = "nas_fpn is too wide for one row: one box stands for a block or a repeat"
    assert nasdsl("render", "zoo:nas_fpn", "-o", "out.dot", cwd=folder).stderr == (
        f"{told}; --no-fold draws every value\nwrote out.dot\n"
    )
    assert nasdsl("render", "zoo:nas_fpn", "-o", "out.dot", "--fold", cwd=folder).stderr == "wrote out.dot\n"
    ran = nasdsl("render", "zoo:nas_fpn", "-o", "out.dot", "--fold", "--diff", "zoo:fcos", cwd=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "nasdsl: --fold and --diff do not go together: a difference shows every value\n"


# ------------------------------------------------------------------------------------------------------------- zoo


def test_the_zoo(folder: Path) -> None:
    ran = nasdsl("zoo", "--format", "json", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    listed = json.loads(ran.stdout)
    assert {path.stem for path in ZOO} == {row["name"] for row in listed["decoders"]}
    assert {"nas_fcos_fpn", "nas_fcos_head"} <= {row["name"] for row in listed["spaces"]}
    people = nasdsl("zoo", cwd=folder)
    assert people.returncode == 0
    assert all(path.stem in people.stdout for path in ZOO)


def test_a_decoder_of_the_zoo_by_name(folder: Path) -> None:
    path = next(p for p in ZOO if p.stem == "fcos")
    assert nasdsl("zoo", "fcos", cwd=folder).stdout == path.read_text(encoding="utf-8")
    assert nasdsl("check", "zoo:fcos", cwd=folder).returncode == 0
    ran = nasdsl("check", "zoo:fcso", cwd=folder)
    assert ran.returncode == 2
    assert ran.stderr.startswith("nasdsl: the zoo has no 'fcso'; it has ")


# ------------------------------------------------------------------------------------------------------ quick starts

WITHOUT_TORCH = [["--help"], ["--version"], ["check", "good.nas"], ["check", "bad.nas"], ["explain"], ["explain", "NAS201"]]
WITHOUT_TORCH.append(["zoo"])
COMMANDS = [
    "check", "fmt", "explain", "compile", "render", "zoo", "import", "sample", "train", "eval", "detect", "latency", "search",
    "worker", "report",
]  # fmt: skip
WITHOUT_TORCH += [[command, "--help"] for command in COMMANDS] + [
    ["import", "nas-fcos", "--help"],
    ["import", "yolo", "--help"],
]
WITHOUT_TORCH.append(["render", "good.nas", "-o", "out.svg"])


@pytest.mark.parametrize("arguments", WITHOUT_TORCH, ids=" ".join)
def test_starts_without_torch(arguments: list[str], folder: Path) -> None:
    code = (
        "import sys\nsys.argv = ['nasdsl', *sys.argv[1:]]\nfrom nasdsl.cli import main\n"
        "try:\n    main()\nfinally:\n    print('TORCH' if 'torch' in sys.modules else 'LIGHT', file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == (1 if "bad.nas" in arguments else 0), ran.stderr
    assert ran.stderr.splitlines()[-1] == "LIGHT"


def test_starts_with_the_oldest_click_that_is_allowed(folder: Path) -> None:
    """Before 8.4, its types of parameters take no type arguments."""
    code = "import click\nclick.ParamType.__class_getitem__ = None\nimport nasdsl.cli"
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["check", "--help"], ["check"], ["zoo", "fcos"]], ids=" ".join
)
def test_python_m_nasdsl_is_the_program(arguments: list[str], folder: Path) -> None:
    """As the entry point of the installed script calls it: the same output, `nasdsl` as the program's name."""
    script = "import sys\nsys.argv[0] = 'nasdsl'\nfrom nasdsl.cli import main\nsys.exit(main())"
    ran = nasdsl(*arguments, cwd=folder)
    expected = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (expected.returncode, expected.stdout, expected.stderr)
    assert ran.returncode == (2 if arguments == ["check"] else 0)
    assert "python -m" not in ran.stdout + ran.stderr
    if arguments == ["--version"]:
        assert re.fullmatch(r"nasdsl, version \d\S*\n", ran.stdout)


def test_the_commands(folder: Path) -> None:
    listed = nasdsl("--help", cwd=folder).stdout.partition("Commands:\n")[2]
    assert set(COMMANDS) <= set(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE))


def test_the_help_of_a_search_is_under_headings(folder: Path) -> None:
    """Every option once, under a heading."""
    import click

    from nasdsl.cli.search import search

    shown = nasdsl("search", "--help", cwd=folder).stdout
    headings = re.findall(r"^(\S[^:\n]*):$", shown, re.MULTILINE)
    assert headings[:3] == ["Preset and cost", "Data", "Search"]
    assert any(heading.startswith("Detector (") for heading in headings)
    for option in (param for param in search.params if isinstance(param, click.Option)):
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", shown, re.MULTILINE)) == 1, option.opts


@pytest.mark.long
def test_checking_is_quick(folder: Path) -> None:
    """The best of several, in processor time: what the command itself takes, and not what else this machine does."""
    import resource

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(6):
        before = used()
        assert nasdsl("check", "good.nas", cwd=folder).returncode == 0
        times.append(used() - before)
    assert 0.01 < min(times) < 0.3 * slowness()


@pytest.mark.parametrize("module", ["decoder.py", "data/loader.py", "search/workers/folder.py"])
def test_a_warning_of_the_package_is_one_line(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(Path(package.__file__).parent / module)
    others = [("torch/nn.py", UserWarning), (file, DeprecationWarning), ("<string>", UserWarning)]
    shown: list[tuple[str, type[Warning]]] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, category, file, line: shown.append((file, category)))
    with warnings_as_messages():
        warnings.showwarning("no worker is there", UserWarning, file, 1)
        for place, category in others:
            warnings.showwarning("of another kind", category, place, 1)
    assert capsys.readouterr().err == "warning: no worker is there\n"
    assert shown == others
    monkeypatch.setattr("nasdsl.cli.errors.is_main_process", lambda: False)  # of several processes, one says it
    with warnings_as_messages():
        warnings.showwarning("no worker is there", UserWarning, file, 1)
    assert capsys.readouterr().err == ""


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NASDSL_TRACEBACK", raising=False)
    for name, says in (
        ("torch", "nasdsl: this needs the package torch, which is not installed: check, "),
        ("nasdsl.x", "internal"),
    ):

        def fail(name: str = name, **_: object) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("nasdsl.cli.cli", fail)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert says in capsys.readouterr().err
    monkeypatch.setattr("nasdsl.cli.cli", lambda **_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_the_module_that_python_starts_runs_nothing_when_it_is_imported() -> None:
    """As a worker process does, which is started with the module of the command."""
    assert importlib.import_module("nasdsl.__main__").main is main


def test_a_heading_of_the_help_without_options_is_left_out() -> None:
    options = [click.Option(["--shown"]), click.Option(["--hidden"], hidden=True)]
    groups = {"First": ["shown"], "Second": ["hidden"]}
    command = GroupedCommand("test", params=options, option_groups=groups)
    text = command.get_help(click.Context(command))
    assert re.findall(r"^\w+:", text, re.MULTILINE) == ["Usage:", "First:", "Other:"]


def test_values_of_options_that_are_read_already_stay() -> None:
    """As click asks of its types: defaults may be values."""
    for kind, text, value in (
        (SizeType(), "64x96", (64, 96)), (ListType(click.IntRange(1), "N,…"), "32,64", (32, 64)),
        (NamesType(), '["dog", "cat"]', ("dog", "cat")),
    ):  # fmt: skip
        assert kind.convert(text, None, None) == kind.convert(value, None, None) == value


def test_a_bar_on_a_terminal_counts(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for terminal, shown in (("1", True), ("", False)):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        with progress_bar("clip.mp4") as advance:
            advance(3, 7)
        printed = capfd.readouterr().err
        assert ("clip.mp4" in printed, "3/7" in printed) == (shown, shown)


def test_a_diagram_that_cannot_be_drawn_is_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> bytes:
        raise diagrams.RenderError("drawing needs Graphviz")

    monkeypatch.setattr(diagrams, "render_folding", missing)
    assert refused("render", folder / "good.nas", "-o", folder / "d.svg") == "nasdsl: drawing needs Graphviz\n"
    assert not (folder / "d.svg").exists()


def test_many_findings_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DiagnosticError) as caught:
        loads("".join(f"op f{n}(x) = nothing{n}(x)\n" for n in range(MAX_DIAGNOSTICS + 2)) + GOOD)
    print_diagnostics(caught.value.diagnostics)
    printed = capsys.readouterr().err
    assert printed.count("error[NAS201]") == MAX_DIAGNOSTICS
    assert printed.endswith("\n… and 2 more (--format json has all of them)\n")


def test_an_unexpected_error_is_one_line(folder: Path) -> None:
    code = (
        "import sys\nsys.argv = ['nasdsl', 'check', 'good.nas']\nimport nasdsl.decoder\n"
        "def broken(*_, **__): raise RuntimeError('two\\nlines')\n"
        "nasdsl.decoder.check_source = broken\nfrom nasdsl.cli import main\nmain()\n"
    )
    run = [sys.executable, "-c", code]
    ran = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("nasdsl: internal error: RuntimeError: two")
    assert "NASDSL_TRACEBACK=1" in ran.stderr
    shown = subprocess.run(
        run, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "NASDSL_TRACEBACK": "1"}
    )
    assert "Traceback" in shown.stderr
