"""The tools of `nasdsl mcp`, and what they refuse; tests/mcp/test_mcp_server.py has them over a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import nasdsl
from nasdsl.diagnostics import DiagnosticError
from nasdsl.folder import Folder, FolderError
from nasdsl.mcp.tools import MAX_JOURNAL, MAX_TEXT, Toolbox, ToolFailure
from nasdsl.search.loop import search
from nasdsl.semantics.files import UnreadableFile
from nasdsl.spaces import loads_space

ROOT = Path(__file__).parents[2]
WRONG = "decoder d { input c3 fpn(width=32) { output p3 = dcnv_3x3(c3) } head(width=32) { conv_3x3 } predict fcos }"
RIGHT = WRONG.replace("dcnv_3x3", "conv_3x3")
SPACE = RIGHT.replace("conv_3x3(c3)", "?(conv_3x3 | relu | sep_3x3)(c3)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is served, beside a file and a folder that are not."""
    served = tmp_path / "served"
    (served / "inner").mkdir(parents=True)
    (served / "right.nas").write_text(RIGHT)
    (served / "space.nas").write_text(SPACE)
    (tmp_path / "secret.nas").write_text("# the secret\n" + RIGHT.replace("decoder d", "decoder secret"))
    (tmp_path / "beside").mkdir()
    return served


@pytest.fixture
def tools(folder: Path) -> Toolbox:
    return Toolbox(Folder.open(folder))


def test_check(tools: Toolbox) -> None:
    found = tools.check(WRONG)
    assert (found["ok"], found["errors"]) == (False, 1)
    assert found["diagnostics"][0]["code"] == "NAS201"
    assert "did you mean `conv_3x3`" in found["report"] or "did you mean `dconv_3x3`" in found["report"]
    assert tools.check(path="right.nas")["ok"]
    assert tools.check(path="zoo:nas_fcos")["ok"]


def test_explain(tools: Toolbox) -> None:
    assert "NAS201" in tools.explain("NAS201")
    assert len(tools.explain().splitlines()) > 50
    with pytest.raises(ToolFailure, match="no diagnostic 'NAS000'"):
        tools.explain("NAS000")


def test_cost_is_that_of_the_package(tools: Toolbox) -> None:
    found = tools.cost(path="zoo:nas_fcos", backbone="mobilenet_v2", size="320x320", classes=3)
    decoder = nasdsl.load(ROOT / "genotypes/nas_fcos.nas")
    table = decoder.cost((320, 320), "mobilenet_v2", 3)
    assert found["cost"]["total"] == table.total._asdict()
    assert (found["digest"], found["size"], found["backbone"]) == (decoder.digest, [320, 320], "mobilenet_v2")
    assert tools.cost(RIGHT)["size"] == [800, 1088]
    with pytest.raises(DiagnosticError):
        tools.cost(WRONG)
    with pytest.raises(DiagnosticError):
        tools.cost("op f(x) = relu(x)")
    with pytest.raises(ToolFailure, match="height x width"):
        tools.cost(RIGHT, size="800")
    with pytest.raises(ValueError, match="resnet51"):
        tools.cost(RIGHT, backbone="resnet51")


def test_render(tools: Toolbox) -> None:
    assert "<svg" in tools.render(RIGHT)
    many = " ".join(f"x{n} = conv_3x3(c3)" for n in range(600))
    with pytest.raises(ToolFailure, match="at most 1,000 are drawn"):
        tools.render(RIGHT.replace("output p3 = conv_3x3(c3)", f"{many} output p3 = x0 merge dangling into p3"))


def test_samples_are_those_of_the_space(tools: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.mcp.tools.ATTEMPTS", 100)
    found = tools.sample(path="space.nas", n=3, seed=7)
    assert [s["text"] for s in found["samples"]] == list(loads_space(SPACE).samples(3, seed=7))
    assert tools.sample(SPACE, n=1)["fillings"] == 3
    never = SPACE.replace("input c3", "require params <= 10 input c3")
    with pytest.raises(ValueError, match="none of 100 samples"):
        tools.sample(never)
    for count in (0, 101):
        with pytest.raises(ToolFailure, match="expected 1 to 100"):
            tools.sample(SPACE, n=count)


def test_grammar(tools: Toolbox) -> None:
    assert "root ::=" in tools.grammar()
    assert '"conv_3x3" | "relu" | "sep_3x3"' in tools.grammar(path="space.nas")


def test_zoo(tools: Toolbox) -> None:
    entries = {entry["name"]: entry["kind"] for entry in tools.zoo()["entries"]}
    assert (entries["fcos"], entries["nas_fcos_fpn"]) == ("decoder", "space")
    assert tools.zoo("fcos")["text"] == (ROOT / "genotypes/fcos.nas").read_text()
    with pytest.raises(UnreadableFile, match=r"the zoo has no '\.\./secret'"):
        tools.zoo("../secret")


def test_search_status(tools: Toolbox, folder: Path) -> None:
    trials = search(loads_space(SPACE), lambda text: -len(text), "random", 6, out=folder / "run", quiet=True)
    found = tools.search_status("run", top=1)["stages"]
    assert [s["folder"] for s in found] == ["run"]
    assert (found[0]["trials"], found[0]["strategy"]) == (6, "random")
    assert sum(found[0]["results"].values()) == 6
    assert trials.best is not None
    assert found[0]["best"][0]["text"] == str(trials.best.text)
    (folder / "whole").mkdir()
    shutil.move(folder / "run", folder / "whole/fpn")
    assert [s["folder"] for s in tools.search_status("whole")["stages"]] == ["whole/fpn"]
    with pytest.raises(ToolFailure, match="no search"):
        tools.search_status("inner")
    (folder / "inner/journal.jsonl").write_text("nonsense\nmore\n")
    with pytest.raises(ValueError, match="not a record"):
        tools.search_status("inner")
    with open(folder / "inner/journal.jsonl", "wb") as journal:  # sparse: it takes no room
        journal.truncate(MAX_JOURNAL + 10**6)
    with pytest.raises(ToolFailure, match=r"inner/journal\.jsonl has 201 MB; at most 200 are read"):
        tools.search_status("inner")


# -------------------------------------------------------------------------------------------------- attacks

OUTSIDE = ["../secret.nas", "inner/../../secret.nas", "inner/../../beside", "..", "./../secret.nas", "inner/link/secret.nas"]
ABSOLUTE = ["/etc/passwd", "~/secret.nas", "//etc/passwd", "\\secret.nas"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("path", [*OUTSIDE, *ABSOLUTE, "link.nas", "", "a\0b.nas"])
def test_nothing_outside_of_the_folder_is_read_or_written(path: str, folder: Path, tmp_path: Path) -> None:
    (folder / "link.nas").symlink_to(tmp_path / "secret.nas")
    (folder / "inner/link").symlink_to(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    tools = Toolbox(Folder.open(folder, is_writable=True))
    for call in (tools.check, tools.cost, tools.render, tools.sample):
        with pytest.raises((FolderError, ToolFailure)) as caught:
            call(path=path)
        assert "secret\n" not in str(caught.value)
    with pytest.raises((FolderError, ToolFailure)):
        tools.search_status(path)
    with pytest.raises((FolderError, ToolFailure)):
        tools.save(path, RIGHT)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert "the secret" in (tmp_path / "secret.nas").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_text_uses_no_file_outside_of_the_folder(tools: Toolbox, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op hidden(x) = relu(x)\n")
    (folder / "link.nas").symlink_to(tmp_path / "ops.nas")
    for place in ("inner/ops.nas", "above.nas"):
        (folder / place).write_text("op mine(x) = relu(x)\n")
    outside = ("../../ops.nas", "../link.nas", str(tmp_path / "ops.nas"))
    uses = {**dict.fromkeys(outside, "NAS413"), "ops.nas": None, "../above.nas": None}
    for path, code in uses.items():
        (folder / "inner/use.nas").write_text(f'use "{path}"\n' + RIGHT)
        found = tools.check(path="inner/use.nas")["diagnostics"]
        assert [d["code"] for d in found] == ([] if code is None else [code]), path
    assert [d["code"] for d in tools.check(f'use "{tmp_path}/ops.nas"\n' + RIGHT)["diagnostics"]] == ["NAS414"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_a_journal_and_an_unfinished_file_that_are_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"kind": "start"}\n')
    (folder / "inner/journal.jsonl").symlink_to(tmp_path / "journal.jsonl")
    tools = Toolbox(Folder.open(folder, is_writable=True))
    with pytest.raises(FolderError, match="outside"):
        tools.search_status("inner")
    (folder / ".new.nas.unfinished").symlink_to(tmp_path / "stolen")
    with pytest.raises(FolderError, match="a link is in its way"):
        tools.save("new.nas", RIGHT)
    assert not (tmp_path / "stolen").exists()
    os.mkfifo(folder / "pipe.nas")
    with pytest.raises(UnreadableFile, match="not a plain file"):
        tools.check(path="pipe.nas")


def test_saving(folder: Path) -> None:
    tools = Toolbox(Folder.open(folder, is_writable=True))
    found = tools.save("inner/new.nas", WRONG)
    assert (found["saved"], found["ok"]) == ("inner/new.nas", False)
    assert (folder / "inner/new.nas").read_text() == WRONG
    assert tools.save("inner/new.nas", RIGHT)["ok"]
    (folder / "folder.nas").mkdir()
    for path, message in (("new.py", "ends in .nas"), ("no/new.nas", "there is no folder"), ("inner", "ends in .nas"),
                          ("folder.nas", "is there, and is no plain file")):  # fmt: skip
        with pytest.raises(FolderError, match=message):
            tools.save(path, RIGHT)
    with pytest.raises(FolderError, match="--write"):
        Toolbox(Folder.open(folder)).save("new.nas", RIGHT)
    assert not (folder / "new.nas").exists()


def test_sizes_are_bounded(folder: Path) -> None:
    tools = Toolbox(Folder.open(folder, is_writable=True))
    huge = "# " + "a" * MAX_TEXT
    for call in (tools.check, tools.cost, tools.sample):
        with pytest.raises(ToolFailure, match="at most 200,000"):
            call(huge)
    with pytest.raises(ToolFailure, match="at most 200,000 are saved"):
        tools.save("huge.nas", huge)
    with pytest.raises(ToolFailure, match="`text` or `path`"):
        tools.check(RIGHT, "right.nas")
    with pytest.raises(ToolFailure, match="expected `text`, or `path`"):
        tools.check()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("nasdsl.mcp.tools.MAX_RESULT", 1000)
        with pytest.raises(ToolFailure, match=r"has [\d,]+ characters; at most 1,000 are given"):
            tools.render(RIGHT)
    many = tools.check("decoder d { " + "?" * 5000)
    assert len(many["diagnostics"]) <= 100
    with pytest.raises(FolderError, match="no folder"):
        Folder.open(folder / "right.nas")
