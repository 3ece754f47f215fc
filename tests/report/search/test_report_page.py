"""The page as text: its content, that it loads nothing, and pages of searches with little data."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from edited_journal import edit_journal
from parsed_page import Page
from synthetic_searches import Evaluation, checked, describe, make, progressive, rank, space, unpriced

from nasdsl.cli import cli
from nasdsl.report.charts import Chart
from nasdsl.report.reading import ReportError
from nasdsl.report.search import page, read_search, write_charts
from nasdsl.report.search.charts import charts
from nasdsl.report.search.data import Stage
from nasdsl.report.search.diagrams import inline
from nasdsl.report.search.front import volumes
from nasdsl.search.check import CheckResult
from nasdsl.search.loop import search
from nasdsl.search.results import Trials
from nasdsl.search.run import load_trials
from nasdsl.spaces import Filled, loads_space


def made(folder: Path, **options: Any) -> Page:
    return Page(page(read_search(folder), **options))


@pytest.fixture(scope="module")
def plain(runs: Path) -> Page:
    return made(runs / "plain")


# ---------------------------------------------------------------------------------------------------- content


def test_nothing_is_loaded(plain: Page, runs: Path) -> None:
    for shown in (plain, made(runs / "progressive", top=2)):
        assert shown.loaded() == []
        assert not {"link", "iframe", "img", "object", "embed"} & {tag for tag, a in shown.tags if a.get("href") != "data:,"}
    policy = next(str(a["content"]) for tag, a in plain.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_ids_are_unique_and_links_have_targets(plain: Page, runs: Path) -> None:
    for shown in (plain, made(runs / "progressive", top=3)):
        ids = shown.ids()
        assert len(ids) == len(set(ids))
        for _, attributes in shown.tags:
            for name in ("href", "xlink:href"):
                address = attributes.get(name) or ""
                if address.startswith("#"):
                    assert address[1:] in ids
            for value in attributes.values():
                for name in re.findall(r"url\(#([^)]*)\)", value or ""):
                    assert name in ids


def test_charts_of_a_search_with_costs_in_the_objective(plain: Page, runs: Path) -> None:
    names = {"reward", "score", "sharing", "choice_0", "reward_macs", "reward_latency", "trainings"}
    assert {name for name in plain.specs if not name.startswith("diagnostic")} == names
    assert {"approx_kl", "entropy", "clipfrac"} <= set(plain.text.split())
    trials = load_trials(runs / "plain")
    rows = plain.specs["reward"]["datasets"]
    known = [(t.number, t.reward) for t in trials if t.reward is not None]
    assert any([(r.get("trial"), pytest.approx(r.get("value"), rel=1e-5)) for r in v] == known for v in rows.values())
    front = {trial.number for trial in trials.front("macs")}
    assert any({row["trial"] for row in v} == front for v in plain.specs["reward_macs"]["datasets"].values())


def test_no_chart_of_shared_heads_without_a_hole_in_share(runs: Path) -> None:
    specs = made(runs / "progressive", top=1).specs
    assert "fpn-sharing" not in specs
    assert {"fpn-reward", "fpn-choice_0", "fpn-choice_1", "head-sharing", "head-choice_0", "fpn-reward_macs"} <= set(specs)


def test_tables_and_settings(plain: Page, runs: Path) -> None:
    trials = load_trials(runs / "plain")
    for trial in trials.top(10):
        assert f"trial {trial.number}" in plain.text
    diagrams = [a for tag, a in plain.tags if tag == "svg" and a.get("class") == "diagram"]
    assert len(diagrams) == min(10, len(trials.ok))
    for words in (
        "failed out of memory", "rejected it cannot be built", "Kendall's tau", "baseline", "waiting", "voc:cells", "ppo",
        "326,592 decoders", "MACs at 2.00 G", "--seed 3 --resume", "trials an hour", "mobilenet_v2",
    ):  # fmt: skip
        assert words in plain.text
    assert trials.best is not None
    assert f"trial {trials.best.number}" in plain.text


def test_the_overview_against_the_journal(tmp_path: Path) -> None:
    def check(text: Filled) -> Any:
        """With so few digests that there are duplicates."""
        return replace(checked(text), digest=checked(text).digest[:2])

    make(tmp_path, trials=120, strategy="random", check=check, trouble=0.3)
    text = made(tmp_path, top=1).text
    records = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    proposals = {record["number"]: record for record in records if record["kind"] == "proposal"}
    results = {record["number"]: record for record in records if record["kind"] == "result"}
    kinds, rewards = Counter[str](), dict[int, float | None]()
    for number, proposal in sorted(proposals.items()):
        if "rejected" in proposal:
            kinds["rejected"] += 1
        elif "duplicate_of" in proposal:
            kinds["duplicates"] += 1
            rewards[number] = rewards.get(proposal["duplicate_of"])
        else:
            kinds[results[number]["verdict"].partition(":")[0]] += 1
            rewards[number] = results[number]["reward"]
    known = [reward for reward in rewards.values() if reward is not None]
    times = [record["time"] for record in records if "time" in record]
    assert sum(kinds.values()) == len(proposals) == 120
    assert all(kinds[kind] for kind in ("ok", "rejected", "duplicates", "failed", "diverged"))
    for words in (
        f"completed {kinds['ok']} of 120 trials", f"duplicates {kinds['duplicates']} result already known",
        f"rejected {kinds['rejected']} not evaluated", f"failed {kinds['failed']} see reasons below",
        f"diverged {kinds['diverged']} reward not finite",
        f"recent mean {fmean(known[-50:]):.4f} reward, last 50".replace("-", "\N{MINUS SIGN}"),
        f"trials an hour {3600 * 120 / (max(times) - min(times)):,.0f}",
        f"{kinds['duplicates']} of 120 trials were duplicates",
    ):  # fmt: skip
        assert words in text


def test_a_full_training_that_two_stages_share_is_counted_once(tmp_path: Path) -> None:
    """A baseline is trained in the first stage, and its result is part of both rankings."""
    progressive(tmp_path, 20)
    rankings = {stage: tmp_path / stage / "full" / "ranking.json" for stage in ("fpn", "head")}
    found = {stage: json.loads(file.read_text()) for stage, file in rankings.items()}
    trained = [entry for ranking in found.values() for entry in ranking["entries"] if entry["ap"] is not None]
    assert f"{len(trained)} full trainings" in made(tmp_path, top=1).text
    trained[-1]["folder"] = f"../../fpn/full/{trained[0]['folder']}"
    rankings["head"].write_text(json.dumps(found["head"]))
    assert f"{len(trained) - 1} full trainings" in made(tmp_path, top=1).text


def test_the_best_decoder_can_be_saved(plain: Page, runs: Path) -> None:
    (link,) = [str(a["href"]) for tag, a in plain.tags if tag == "a" and a.get("download") == "best.nas"]
    text = base64.b64decode(link.partition("base64,")[2]).decode()
    best = load_trials(runs / "plain").best
    assert best is not None
    assert space("head").encode(text) == list(best.indices)
    assert (runs / "plain" / "best.nas").read_text().strip() == text.strip()


def test_number_of_listed_decoders(runs: Path) -> None:
    shown = made(runs / "plain", top=2)
    assert sum(tag == "svg" for tag, _ in shown.tags) == 2


# ------------------------------------------------------------------------------------------------ hostile text


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    bad = "</script><script>window.hurt = 1</script><img src=x onerror=hurt()>"

    def evaluate(text: str) -> float:
        if len(text) % 2:
            raise RuntimeError(bad)
        return -1.0

    search(
        space("head"), evaluate, "random", 12, out=tmp_path, check=checked, quiet=True, about={"data": bad, "command": bad}
    )  # fmt: skip
    rank(tmp_path, 2)
    ranking = tmp_path / "full" / "ranking.json"
    found = json.loads(ranking.read_text())
    found["metric"] = found["entries"][0]["name"] = found["split"] = bad
    ranking.write_text(json.dumps(found))
    text = page(read_search(tmp_path))
    library = max(re.findall(r"<script>(.*?)</script>", text, re.S), key=len)
    assert "vegaEmbed" in library
    text = text.replace(library, "")
    assert "<img" not in text
    assert "<script>window.hurt" not in text
    assert bad in Page(text).text  # shown as text


# ------------------------------------------------------------------------------- searches with little data


def test_no_trial_yet(tmp_path: Path) -> None:
    make(tmp_path, trials=0)
    shown = made(tmp_path)
    assert "No trial is finished yet" in shown.text
    assert not shown.specs
    assert "best" not in shown.ids()


def test_one_trial(tmp_path: Path) -> None:
    make(tmp_path, trials=1, trouble=0, strategy="random")
    shown = made(tmp_path)
    assert {"reward", "sharing", "choice_0", "reward_macs"} <= set(shown.specs)
    assert "1 trial" in shown.text


def test_only_failures(tmp_path: Path) -> None:
    make(tmp_path, trials=8, trouble=1.1, strategy="random")
    shown = made(tmp_path)
    assert "No trial has a reward" in shown.text
    assert "Failures by reason" in shown.text
    assert not {"reward", "reward_macs"} & set(shown.specs)
    assert "best" not in shown.ids()


def test_stopped_early(tmp_path: Path) -> None:
    make(tmp_path, trials=4, trouble=0, strategy="random")
    done, stopped = r'"verdict":"ok","reward":[^,]*,"score":[^,]*,', '"verdict":"stopped","reward":null,"score":null,'
    edit_journal(tmp_path / "journal.jsonl", lambda text: re.sub(done, stopped, text))
    (tmp_path / "best.nas").unlink()
    assert "stopped early" in made(tmp_path).text


def test_how_decoders_were_evaluated(tmp_path: Path) -> None:
    make(tmp_path / "proxy", trials=2, trouble=0, strategy="random", stopping="halving:3")
    shown = made(tmp_path / "proxy").text
    assert "early stopping halving:3:20" in shown
    assert "weights inherited" not in shown
    make(tmp_path / "shared", trials=2, trouble=0, strategy="random", task={"supernet": {"iterations": 3000}})
    shown = made(tmp_path / "shared").text
    assert "evaluation weights inherited from one network, trained once for 3,000 steps" in shown
    assert "early stopping" not in shown


def test_no_figures(tmp_path: Path) -> None:
    make(tmp_path, trials=6, trouble=0, strategy="random", check=unpriced)
    shown = made(tmp_path)
    assert "costs of the decoders were not counted" in shown.text
    assert "reward_macs" not in shown.specs


def _with_backbone(text: Filled) -> CheckResult:
    found = checked(text)
    return replace(found, figures={**found.figures, **{f"{name}_total": 2 * cost for name, cost in found.figures.items()}})


@pytest.mark.parametrize("aims", [("macs",), ("macs", "params")])
def test_a_search_for_a_front(aims: tuple[str, ...], tmp_path: Path) -> None:
    make(tmp_path, trials=12, trouble=0, strategy="random", objective=",".join(("reward", *aims)), check=_with_backbone)
    trials = load_trials(tmp_path)
    shown = made(tmp_path, top=1)
    charts_of_the_front = {*(f"front_{aim}" for aim in aims), "hypervolume"}
    assert {name for name in shown.specs if name.startswith(("front", "hyper", "reward_"))} == charts_of_the_front
    assert re.search(rf"front\s+{len(trials.front())}\s+decoders that none is better than", shown.text)
    highest = max(trials.ok, key=lambda trial: trial.reward or 0.0)
    assert re.search(rf"best reward\s+\S+\s+trial {highest.number}\b", shown.text)
    assert f"trial {trials.best.number}: alone it dominates" in shown.text if trials.best is not None else False
    shares = [share for _, share in volumes(read_search(tmp_path).stages[0])]
    assert len(shares) == 12
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    text = json.dumps(shown.specs["front_macs"])
    assert ("step-after" in text) == (len(aims) == 1)  # a front of three figures is no line in two


def _edges(chart: Chart) -> tuple[list[float], bool]:
    """The ends of the reward's scale, and whether values beyond them are drawn at its edge."""
    scale = next(e["y"]["scale"] for layer in chart.spec["layer"] if "domain" in (e := layer["encoding"])["y"].get("scale", {}))
    return scale["domain"], scale["clamp"]


def test_a_trial_that_is_far_below_the_others_is_drawn_at_the_edge(tmp_path: Path) -> None:
    make(tmp_path, trials=12, trouble=0, strategy="random", objective="reward,macs", check=_with_backbone)
    (stage,) = read_search(tmp_path).stages
    *others, last = sorted(stage.trials.ok, key=lambda trial: trial.figures["macs"])
    others = [replace(trial, reward=number / 10) for number, trial in enumerate(others)]

    def ending_at(reward: float) -> Stage:
        trials = sorted([*others, replace(last, reward=reward)], key=lambda trial: trial.number)
        return replace(stage, trials=Trials(trials, stage.trials.start))

    far, near = ending_at(-50.0), ending_at(0.0)
    shown = {chart.name: chart for chart in charts(far)}
    for name in ("reward", "front_macs"):
        assert _edges(shown[name]) == ([0.0, pytest.approx((len(others) - 1) / 10)], True)
    assert volumes(far) == volumes(near)


def test_the_front_leaves_out_trials_without_a_cost(tmp_path: Path) -> None:
    make(tmp_path, trials=4, trouble=0, strategy="random", objective="reward,macs", check=_with_backbone)
    (stage,) = read_search(tmp_path).stages
    first, second, *rest = stage.trials
    shown = [replace(first, figures={}), second, *(replace(trial, verdict="failed: it", reward=None) for trial in rest)]
    found = {chart.name: chart.spec for chart in charts(replace(stage, trials=Trials(shown, stage.trials.start)))}
    assert "hypervolume" not in found  # of a single trial
    rows = [row for values in found["front_macs"]["datasets"].values() for row in values]
    assert {row["trial"] for row in rows} == {second.number}
    shown = [*shown, replace(second, number=9)]
    numbers = [number for number, _ in volumes(replace(stage, trials=Trials(shown, stage.trials.start)))]
    assert numbers == [trial.number for trial in shown]


SIZED = """
choice heavy = conv_3x3 | sep_3x3
decoder sized {
  detector(size=?(64x64 | 96x128), backbone=tiny)
  input c3
  fpn(width=32, norm=bn) { output p3 = ?(skip | ?heavy)(c3) }
  head(width=32, norm=gn) { conv_1x1 }
  predict fcos()
}
"""


def test_the_importance_of_the_size_of_a_search_for_detectors(tmp_path: Path) -> None:
    def evaluate(text: str) -> float:
        return float("96x128" in text)

    search(loads_space(SIZED), evaluate, "random", 16, 3, out=tmp_path, check=checked, quiet=True)
    (stage,) = read_search(tmp_path).stages
    found = {chart.name: chart for chart in charts(stage)}
    ((first, *_),) = found["importance"].spec["datasets"].values()
    assert (first["choice"], first["share"]) == ("size", 1.0)
    assert {chart.title for chart in found.values() if chart.name.startswith("choice_")} == {
        "Choices of size", "Choices of skip | ?heavy", "Choices of heavy",
    }  # fmt: skip
    same = [replace(trial, reward=1.0) for trial in stage.trials if "skip" in trial.text]
    alike = [chart.title for chart in charts(replace(stage, trials=Trials(same, stage.trials.start)))]
    assert "Choices of size" in alike
    assert not {"Importance of the decisions", "Choices of heavy"} & set(alike)  # nothing tells, and none was made


def test_a_search_that_runs(tmp_path: Path) -> None:
    make(tmp_path, trials=20, trouble=0, strategy="random")
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    results = [n for n, line in enumerate(lines) if '"kind":"result"' in line]
    journal.write_text("".join(lines[: results[8]]) + '{"kind": "resu')  # torn while it was written
    shown = made(tmp_path)
    assert re.search(r"Not finished: \d+ of 20 trials done, 1 evaluation running", shown.text)
    assert "reward" in shown.specs


def test_one_stage_of_two(tmp_path: Path) -> None:
    describe(tmp_path, ["fpn", "head"])
    make(tmp_path / "fpn", "fpn", trials=6, trouble=0, strategy="random")
    shown = made(tmp_path, top=1)
    assert "This stage has not started." in shown.text
    assert "fpn-reward" in shown.specs
    assert "The decoder with the highest score so far" in shown.text


def test_a_space_that_cannot_be_parsed(tmp_path: Path) -> None:
    make(tmp_path, trials=4, trouble=0, strategy="random")
    broken = 'use \\"missing.nas\\"\\nchoice head_op'
    edit_journal(tmp_path / "journal.jsonl", lambda text: text.replace("choice head_op", broken, 1))
    shown = made(tmp_path)
    assert "The text of the space cannot be read" in shown.text
    assert set(shown.specs) == {"reward", "reward_macs"}


def test_a_decoder_that_cannot_be_drawn(tmp_path: Path) -> None:
    make(tmp_path, trials=3, trouble=0, strategy="random")
    edit_journal(tmp_path / "journal.jsonl", lambda text: text.replace('"text":"decoder', '"text":"decodr'))
    shown = made(tmp_path)
    assert "There are no diagrams: " in shown.text
    assert "decodr nas_fcos_head_space" in shown.text


def test_size_of_the_page_of_a_long_search(tmp_path: Path) -> None:
    make(tmp_path, trials=30, trouble=0, strategy="random")
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    start, *rest = [line for line in lines if line["kind"] != "observed"]
    pairs = {}
    for line in rest:
        pairs.setdefault(line["number"], []).append(line)
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    records = [start]
    for number in range(2800):
        proposal, result = whole[number % len(whole)]
        records.append({**proposal, "number": number, "digest": f"{number}"})
        records.append({**result, "number": number, "reward": -1 - number % 97 / 1000, "score": -1 - number % 97 / 1000})
        records.append({"kind": "observed", "number": number, "diagnostics": {f"d{i}": number / 7 + i for i in range(8)}})
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = page(read_search(tmp_path), top=3)
    library = max(len(script) for script in re.findall(r"<script>(.*?)</script>", text, re.S))
    assert len(text) - library < 2_000_000  # three of ten diagrams, 60 kB each
    assert len(Page(text).specs) == 12


# -------------------------------------------------------------------------------------------------- diagrams


def test_ids_of_inlined_diagrams() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" viewBox="0 0 12 9">'
        '<defs><linearGradient id="l"/></defs><g id="node1"><title>n</title>'
        '<a xlink:title="tip &lt; &amp;"><path fill="url(#l)"/></a>'
        '</g><use xlink:href="#node1"/><text>&lt;/script&gt;</text></svg>'
    )
    found = inline(svg, "a-")
    assert found.width == 12
    assert 'id="a-l"' in found.svg
    assert 'fill="url(#a-l)"' in found.svg
    assert '"#a-node1"' in found.svg
    assert "<title>tip &lt; &amp;</title>" in found.svg
    assert "<title>n</title>" not in found.svg
    assert "</script>" not in found.svg
    assert "http" not in found.svg.replace("http://www.w3.org/1999/xlink", "")


def test_a_link_without_a_tooltip_is_a_group(tmp_path: Path) -> None:
    found = inline('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 9"><a><path d="M0 0"/></a></svg>', "a-")
    assert '<g><path d="M0 0" /></g>' in found.svg


# --------------------------------------------------------------------------------------------------- command


def command(*arguments: str | Path) -> tuple[int, str, str]:
    from click.testing import CliRunner

    ran = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    return ran.exit_code, ran.stdout, ran.stderr


def test_the_command(runs: Path, tmp_path: Path) -> None:
    code, out, printed = command(runs / "plain", "-o", tmp_path / "r.html", "--charts", tmp_path / "charts", "--top", "1")
    assert (code, out) == (0, "")
    assert f"wrote {tmp_path / 'r.html'}" in printed
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    names = {path.stem for path in (tmp_path / "charts").glob("*.svg")}
    assert {"reward", "score", "sharing", "choice_0", "reward_macs", "reward_latency", "trainings"} <= names
    assert {path.stem for path in (tmp_path / "charts").glob("*.png")} == names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_charts_as_files_have_marks(runs: Path, tmp_path: Path) -> None:
    (stage,) = read_search(runs / "plain").stages
    (reward, *_) = charts(stage)
    svg, png = write_charts([("head", reward)], tmp_path)
    assert (svg.name, png.name) == ("head_reward.svg", "head_reward.png")
    known = sum(trial.reward is not None for trial in stage.trials)
    assert len(re.findall(r'aria-roledescription="circle"', svg.read_text())) == known
    assert ">Reward<" in svg.read_text()
    assert "$" not in re.sub(r"<text.*?</text>", "", svg.read_text())  # every colour has its value
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "file", "training", "broken", "other format", "bad stages", "bad best", "bad ranking"]
)
def test_a_folder_that_is_no_search(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = "is neither a training nor a search"
    if kind != "missing":
        folder.mkdir()
    match kind:
        case "file":
            folder = tmp_path / "file"
            folder.write_text("{}")
        case "training":
            (folder / "config.json").write_text("{}")
            words = "is not of the form 'nasdsl run 1'"
        case "broken":
            (folder / "search.json").write_text("{")
            words = "is no JSON"
        case "other format":
            (folder / "search.json").write_text('{"format": "other"}')
            words = "not of the form"
        case "bad stages":
            describe(folder, ["../fpn"])
            words = "`stages` is ['../fpn']; expected a list of folders"
        case "bad best":
            make(folder, trials=1)
            (folder / "best.nas").write_bytes(b"\xff")
            words = "best.nas: 'utf-8' codec can't decode"
        case "bad ranking":
            make(folder, trials=1)
            (folder / "full").mkdir()
            (folder / "full" / "ranking.json").write_text('{"format": "nasdsl ranking 1", "entries": [{}]}')
            words = "does not read as"
    code, out, printed = command(folder, "-o", tmp_path / "r.html")
    assert (code, out) == (2, "")
    assert words in printed
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "there is no such folder"), ("", "it has neither search.json nor journal.jsonl")],
)
def test_reading_a_folder_that_is_no_search(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=f"is no search: {why}; expected the folder given to `nasdsl search --out`"):
        read_search(tmp_path / name)


@pytest.mark.parametrize("stage", ["..", ".", "", "a/b", "/tmp"])
def test_a_stage_is_a_folder_in_the_search(stage: str, tmp_path: Path) -> None:
    describe(tmp_path, [stage])
    with pytest.raises(ReportError, match=r"expected a list of folders"):
        read_search(tmp_path)


def test_torch_is_not_needed(runs: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; from nasdsl.report.search import page, read_search;"
        f"assert page(read_search(Path({str(runs / 'plain')!r})), 1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_the_synthetic_evaluation_fails_in_several_ways() -> None:
    """Otherwise the other tests prove little."""
    texts = [str(space("head").sample(n)) for n in range(60)]
    kinds = set()
    for text in texts:
        try:
            Evaluation(1.1)(text)
        except Exception as error:
            kinds.add(type(error).__name__)
    assert len(kinds) == 4
