"""What the page asks of the compiler: the answers are those of the command line."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nasdsl import resources
from nasdsl.cli import cli
from nasdsl.studio.messages import MAX_TEXT, Place, answer, answer_json
from nasdsl.studio.places import Places
from nasdsl.syntax.formatter import format_text

MISTAKES = (Path(__file__).parents[2] / "examples" / "mistakes.nas").read_text()
PLAIN = (
    "decoder d {\n  input c3\n  fpn(width=32) { output p3 = conv_3x3(c3) }\n  head(width=32) { conv_3x3 }\n  predict fcos\n}\n"
)
SPACE = PLAIN.replace("conv_3x3(c3)", "?(conv_1x1 | conv_3x3 | sep_3x3)(c3)")


def printed(*arguments: str, text: str) -> Any:
    return json.loads(CliRunner().invoke(cli, [*arguments, "-", "--format", "json"], input=text).stdout)


def check(text: str, **more: Any) -> dict[str, Any]:
    return answer({"kind": "check", "text": text, **more})


def from_utf16(text: str, offset: int) -> int:
    return len(text.encode("utf-16-le")[: 2 * offset].decode("utf-16-le"))


# ------------------------------------------------------------------------------------------------------ findings


@pytest.mark.parametrize(
    "text",
    [
        MISTAKES, PLAIN, PLAIN.replace("output p3 =", "x = conv_3x3(c3); output p3 ="), "", "op f(x) = ", "# 🐢🐢\n" + MISTAKES,
        MISTAKES.replace("dcnv", "dcnv🐢"), PLAIN + "\n" + PLAIN,
    ],
)  # fmt: skip
def test_findings_are_those_of_check(text: str) -> None:
    expected = printed("check", text=text)["diagnostics"]
    result = check(text)
    found = result["diagnostics"]
    same = ("code", "severity", "message", "expected", "help", "fix", "line", "column")
    assert [[f[name] for name in same] for f in found] == [[e[name] for name in same] for e in expected]
    assert result["errors"] + result["warnings"] == len(expected)
    lines = text.split("\n")
    for finding, other in zip(found, expected, strict=True):
        start, end = from_utf16(text, finding["from"]), from_utf16(text, finding["to"])
        assert start == sum(len(line) + 1 for line in lines[: other["line"] - 1]) + other["column"] - 1
        assert end == sum(len(line) + 1 for line in lines[: other["end_line"] - 1]) + other["end_column"] - 1


def test_a_fix_fixes() -> None:
    result = check(MISTAKES)
    (finding,) = [f for f in result["diagnostics"] if f["fix"] is not None]
    mended = MISTAKES[: finding["from"]] + finding["fix"] + MISTAKES[finding["to"] :]
    assert finding["code"] not in [f["code"] for f in check(mended)["diagnostics"]]


def test_offsets_are_those_of_a_browser() -> None:
    rng = random.Random(0)
    for _ in range(50):
        text = "".join(rng.choice("a\n🐢é𝔸") for _ in range(rng.randrange(30)))
        places = Places(text)
        for offset in range(len(text) + 1):
            assert places.offset(offset) == len(text[:offset].encode("utf-16-le")) // 2


def test_a_finding_in_a_used_file_is_where_that_is_used(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op mine(x) = cnv(x)\n")
    text = 'use "ops.nas"\n' + PLAIN
    (finding,) = answer({"kind": "check", "text": text, "name": "a.nas"}, Place(tmp_path))["diagnostics"]
    assert (finding["line"], text[finding["from"] : finding["to"]]) == (1, 'use "ops.nas"')
    assert finding["elsewhere"].startswith("ops.nas:1:")
    assert finding["fix"] is None


def test_a_finding_that_points_at_two_places_of_a_used_file(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op mine(x) = relu(x)\nop mine(x) = x\n")
    (tmp_path / "more.nas").write_text("op other(x) = relu(x)\n")
    text = 'op own(x) = relu(x)\nuse "more.nas"\nuse "ops.nas"\n' + PLAIN
    (finding,) = answer({"kind": "check", "text": text, "name": "a.nas"}, Place(tmp_path))["diagnostics"]
    assert (text[finding["from"] : finding["to"]], finding["elsewhere"]) == ('use "ops.nas"', "ops.nas:2:4")
    assert finding["related"] == [{"message": "first definition", "place": "ops.nas:1:4"}]


# ------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", ["nas_fcos", "bifpn"])
@pytest.mark.parametrize(
    "options", [{}, {"backbone": "mobilenet_v2", "size": "320x400", "width": "64"}], ids=["default", "chosen"]
)
def test_costs_and_digest_are_those_of_compile(name: str, options: dict[str, str]) -> None:
    text = resources.zoo()[name].read_text()
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    expected = printed("compile", *arguments, text=text)
    result = check(text, **options)
    assert result["kind"] == "decoder"
    assert "problem" not in result
    for key in ("name", "digest", "backbone", "classes"):
        assert result[key] == expected[key]
    assert result["size"] == "x".join(map(str, expected["size"]))
    for part, figures in result["cost"].items():
        assert figures == {key: expected["cost"][part][key] for key in ("macs", "params")}
    for unit in ("macs", "params"):
        assert sum(row[unit] for row in result["rows"]) == sum(result["cost"][part][unit] for part in ("fpn", "head"))
    assert [r["name"] for r in result["removed"]] == [r["name"] for r in expected["removed"]]


def test_the_picture_is_that_of_render(tmp_path: Path) -> None:
    for name in ("nas_fcos", "bifpn"):
        text = resources.zoo()[name].read_text()
        out = tmp_path / f"{name}.dot"
        CliRunner().invoke(cli, ["render", "-", "-o", str(out)], input=text)
        expected = out.read_text()
        dot = check(text, name="untitled.nas")["picture"]["dot"]
        assert dot.replace("untitled.nas:", "<stdin>:") == expected


def test_boxes_rows_and_lines_belong_together() -> None:
    text = resources.zoo()["nas_fcos"].read_text()
    result = check(text)
    lines = text.split("\n")
    for row in result["rows"]:
        if row["role"] == "value":
            assert row["name"] in lines[row["line"] - 1]
    numbers = [n for rows in result["picture"]["boxes"].values() for n in rows]
    assert sorted(numbers) == list(range(len(result["rows"])))
    assert all(f"id={element}," in result["picture"]["dot"] for element in result["picture"]["boxes"])


def test_views_open_what_is_folded() -> None:
    text = resources.zoo()["bifpn"].read_text()
    first = check(text)["picture"]
    assert len(first["views"]) > 2
    assert first["views"][0] == {"title": "overview", "parent": -1}
    assert first["opens"]
    for view in first["opens"].values():
        opened = check(text, view=view)["picture"]
        assert opened["view"] == view
        assert len(opened["boxes"]) > len(first["boxes"])
    assert check(text, view=99)["picture"] == first


def test_what_has_no_figures_says_why() -> None:
    assert "c1" in check(PLAIN.replace("c3", "c1"), backbone="mobilenet_v2")["problem"]
    of_timm = PLAIN.replace("input c3", 'detector(backbone="timm:resnet18"); input c3')
    assert check(of_timm)["problem"].startswith("torch counts timm:resnet18")
    assert "problem" not in check(of_timm, backbone="tiny")
    wrong = check(PLAIN.replace("head(width=32)", "head(width=32, norm=gn)"), width="33")
    assert wrong["kind"] == "decoder"
    assert wrong["problem"].startswith("at width 33: ")
    assert check("op f(x) = x\n")["kind"] == "definitions"
    assert check(MISTAKES)["kind"] == "broken"


def test_a_space_has_its_size_and_a_sample() -> None:
    result = check(SPACE)
    assert result["kind"] == "space"
    assert result["space"]["fillings"] == "3"
    assert result["space"]["decisions"][0]["alternatives"] == ["conv_1x1", "conv_3x3", "sep_3x3"]
    assert {check(SPACE, seed=seed)["digest"] for seed in range(12)} == {
        check(SPACE.replace("?(conv_1x1 | conv_3x3 | sep_3x3)", op))["digest"] for op in ("conv_1x1", "conv_3x3", "sep_3x3")
    }
    of_sample = check(result["space"]["sample"])
    assert (of_sample["digest"], of_sample["cost"]) == (result["digest"], result["cost"])
    assert all(row["line"] is None for row in result["rows"])  # the page shows another text
    narrow = check(SPACE, width=16, backbone="tiny")
    assert narrow["cost"]["total"]["macs"] < result["cost"]["total"]["macs"]


def test_a_space_that_nothing_fills() -> None:
    result = check(SPACE.replace("  predict", "  require params <= 1\n  predict"))
    assert result["kind"] == "space"
    assert "none of" in result["problem"]
    assert result["space"]["requirements"] == ["params <= 1"]


@pytest.mark.long
@pytest.mark.parametrize("name", resources.zoo())
def test_the_whole_zoo_is_shown(name: str) -> None:
    text = answer({"kind": "zoo", "name": name})["text"]
    result = check(text)
    assert result["kind"] == ("space" if resources.is_space(resources.zoo()[name]) else "decoder")
    assert "problem" not in result
    assert result["picture"]["dot"].startswith("digraph")


# ------------------------------------------------------------------------------------------------- other requests


def test_start() -> None:
    found = answer({"kind": "start"})
    words = {word["label"]: word for word in found["words"]}
    assert len(words) == len(found["words"])
    assert {"conv_3x3", "cat", "decoder", "width", "fcos", "resize", "macs", "cls"} <= set(words)
    assert "deform_conv" in words["dconv_3x3"]["info"]
    assert [entry["name"] for entry in found["zoo"]] == list(resources.zoo())
    assert "resnet50" in [backbone["name"] for backbone in found["backbones"]]


def test_format() -> None:
    text = PLAIN.replace("  ", "      ")
    assert answer({"kind": "format", "text": text}) == {"text": format_text(text)}
    assert "error" in answer({"kind": "format", "text": "decoder {"})


def test_source_runs_without_nasdsl() -> None:
    found = answer({"kind": "source", "text": PLAIN, "width": 16})
    assert "class Decoder" in found["text"]
    compile(found["text"], "decoder.py", "exec")
    assert "error" in answer({"kind": "source", "text": SPACE})
    assert answer({"kind": "source", "text": MISTAKES})["error"] == "unknown op `dcnv_3x3` (line 6)"


def test_the_text_of_the_zoo() -> None:
    found = answer({"kind": "zoo", "name": "nas_fcos"})
    assert found == {"text": resources.zoo()["nas_fcos"].read_text(), "kind": "decoder"}
    assert answer({"kind": "zoo", "name": "nas_fcos_fpn"})["kind"] == "space"


def test_a_decoder_that_is_too_large_to_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.studio.result.MAX_LAYERS", 2)
    found = check(PLAIN)
    assert re.fullmatch(r"d has \d layers; at most 2 are drawn", found["problem"])
    assert found["cost"]["total"]["macs"] > 0
    assert "picture" not in found


def test_explain() -> None:
    assert answer({"kind": "explain", "code": "NAS201"})["text"].startswith("NAS201: ")
    assert "error" in answer({"kind": "explain", "code": "NAS000"})


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (None, "kind"), ([], "kind"), ({}, "None"), ({"kind": "drop"}, "'drop'"), ({"kind": ["check"]}, "expected one of"),
        ({"kind": "check"}, "expected a `text`"), ({"kind": "check", "text": 3}, "expected a `text`"),
        ({"kind": "check", "text": "x" * (MAX_TEXT + 1)}, "at most"),
        ({"kind": "check", "text": "", "backbone": "resnet5"}, "no backbone is called `resnet5`"),
        ({"kind": "check", "text": "", "backbone": {}}, None),
        ({"kind": "check", "text": "", "backbone": ["a"]}, "no backbone"),
        ({"kind": "check", "text": "", "size": "800"}, "`800` is no size"),
        ({"kind": "check", "text": "", "size": "0x10"}, "no size"),
        ({"kind": "check", "text": "", "size": "100000x10"}, "no size"),
        ({"kind": "check", "text": "", "size": 7}, "no size"), ({"kind": "check", "text": "", "width": "-3"}, "no width"),
        ({"kind": "check", "text": "", "width": 99999}, "no width"), ({"kind": "check", "text": "", "view": -1}, "view"),
        ({"kind": "check", "text": "", "seed": "x"}, "seed"), ({"kind": "check", "text": "", "name": "../a.nas"}, "`name`"),
        ({"kind": "check", "text": "", "name": "/etc/a.nas"}, "`name`"), ({"kind": "check", "text": "", "name": 3}, "`name`"),
        ({"kind": "zoo", "name": "../../secret"}, "the zoo has no"), ({"kind": "zoo"}, "the zoo has no"),
    ],
    ids=str,
)  # fmt: skip
def test_requests_without_a_meaning(request_: Any, says: str | None) -> None:
    found = answer(request_)
    assert says is None or says in found["error"]
    assert len(str(found.get("error"))) < 600


@pytest.mark.parametrize(
    ("place", "request_"),
    [
        ("nasdsl.studio.messages.explain", {"kind": "explain", "code": "NAS201"}),
        ("nasdsl.studio.result.cost", {"kind": "check", "text": PLAIN}),
    ],
)
def test_an_error_of_python_is_no_answer(place: str, request_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bug, which the server reports; see tests/studio/test_server.py."""

    def broken(*_: object) -> None:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(place, broken)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        answer(request_)


def test_a_browser_may_send_half_a_character() -> None:
    result = check("decoder d { # \ud83d\n}")
    assert json.loads(json.dumps(result)) == result


def test_json_in_and_out() -> None:
    assert json.loads(answer_json(json.dumps({"kind": "format", "text": PLAIN}))) == {"text": format_text(PLAIN)}


def test_sources_are_named_as_the_file() -> None:
    result = answer({"kind": "check", "text": PLAIN, "name": "a.nas"})
    assert "a.nas:3" in result["picture"]["dot"]
