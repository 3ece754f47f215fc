"""Full trainings and stages, with an evaluation and a training that take no time: what is done, skipped, kept and ranked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_spaces import BESIDE, FPN_SPACE, HEAD_SPACE

from nasdsl.decoder import loads
from nasdsl.files import unfinished_path
from nasdsl.search import EvaluationResult, FpnError, SearchError, Trial, load_trials
from nasdsl.search.early_stopping import StoppingRule
from nasdsl.search.full_training import FullTraining, _entry_beside, _seconds
from nasdsl.search.progressive import (
    SAMPLES_TO_FIT,
    SearchResult,
    _read_failures,
    _write,
    plain_search,
    progressive_search,
    with_fixed_fpn,
)
from nasdsl.search.ranking import Ranking, RankingEntry, read_ranking
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.spaces import Space, SpaceError, load_space, loads_space
from nasdsl.training import CheckpointError, Diverged, Interrupted, Recipe, RunError
from nasdsl.training.config import TrainingConfig
from nasdsl.training.proxy import ProxySpec

FPN, HEAD = loads_space(FPN_SPACE, backbone="tiny", classes=5), loads_space(HEAD_SPACE, backbone="tiny", classes=5)
PROXY = ProxySpec("shapes:4", backbone="tiny", size=64, levels=("c3", "c4", "c5"))
PLAN = TrainingConfig(data="shapes:4", backbone="tiny", recipe=Recipe(steps=1, size=(64, 64)))
SETTINGS = SearchSettings(strategy="random", size=(64, 64))


def value(text: str) -> float:
    """Between 0 and 1; the text decides it."""
    return int(sha256(text.encode()).hexdigest()[:6], 16) / 2**24


class World:
    """Fakes of the proxy task and of full training, which record how they are called."""

    def __init__(self) -> None:
        self.evaluated: list[str] = []
        self.specs: list[ProxySpec] = []
        self.trained: list[Path] = []
        self.aps: dict[str, Any] = {}
        self.reward = lambda text: -1 - value(text)
        self.waiting: list[int] = []
        self.shared: list[list[str]] = []
        """GPUs on which features were kept for workers, of each search."""
        self.released = 0
        self.cannot_train: set[str] = set()
        """Digests of fpns of the second stage."""
        self.on_fpn: dict[str, Callable[[ProxySpec], None]] = {}
        """What happens when the fpn with a digest is trained."""
        self.fpns: list[str] = []
        """Digests of fpns that were trained for the second stage, whether or not they could be."""

    def train(self, detector: Any, data: Any, recipe: Recipe, out: Path, val: Any, **more: Any) -> Any:
        self.trained.append(out)
        out.mkdir(parents=True, exist_ok=True)
        ranking = read_ranking(out.parent / "ranking.json")
        assert ranking is not None
        self.waiting.append(sum(entry.verdict == "waiting" for entry in ranking.entries))
        ap = self.aps.get(out.name, value(detector.config["decoder"]))
        if isinstance(ap, BaseException):
            raise ap
        (out / "config.json").touch()
        records = [{"event": "train", "step": n, "images_per_s": 4.0} for n in (1, 2)]
        (out / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        coco = SimpleNamespace(ap=ap, ap50=ap / 2)
        return SimpleNamespace(run=SimpleNamespace(folder=out), evaluation=SimpleNamespace(coco=coco))


class Evaluation:
    world: World

    def __init__(self, spec: ProxySpec, latency: Any = None, *, checks: Any = (), quiet: bool = False) -> None:
        self.spec, self.identity = spec, {"size": spec.size}
        self.world.specs.append(spec)

    def release(self) -> None:
        self.world.released += 1

    def prepare(self, *, keep: bool = True, share_on: Sequence[str] = ()) -> None:
        self.world.shared.append(list(share_on))
        if self.spec.fpn is not None:
            digest = loads(self.spec.fpn).digest
            self.world.fpns.append(digest)
            self.world.on_fpn.get(digest, lambda spec: None)(self.spec)
            if digest in self.world.cannot_train:
                raise FpnError("the fpn cannot be trained: the loss is not finite at step 1 of 300")

    def __call__(self, text: str) -> EvaluationResult:
        self.world.evaluated.append(text)
        return EvaluationResult(self.world.reward(text))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(Evaluation, "world", made, raising=False)
    monkeypatch.setattr("nasdsl.search.stages.ProxyEvaluation", Evaluation)
    monkeypatch.setattr("nasdsl.search.full_training.train", made.train)
    return made


def stage(space: Space = FPN, trials: int = 12, top: int = 3) -> Stage:
    return Stage(space=space, proxy=PROXY, trials=trials, top=top)


def full(**beside: str) -> FullTraining:
    return FullTraining(PLAN, {name: loads(text) for name, text in beside.items()})


def test_losses_are_recorded_where_the_stopping_rule_needs_them(out: Path) -> None:
    for rule in (None, StoppingRule(), StoppingRule("halving")):
        assert stage().make_evaluation(out, None, rule, quiet=True).steps == (75, 150, 225)
    rule = StoppingRule.parse("halving:3:5:30")
    assert stage().make_evaluation(out, None, rule, quiet=True).steps == (30, 90, 270)
    with pytest.raises(SearchError, match="at step 300, and an evaluation has 300 steps; expected a step before 300"):
        plain_search(stage(), out, replace(SETTINGS, stopping="halving:3:5:300"), quiet=True)
    assert not out.exists() or not any(out.iterdir())


def ranking_of(folder: Path) -> Ranking:
    found = read_ranking(folder / "full" / "ranking.json")
    assert found is not None
    return found


# -------------------------------------------------------------------------------------------------- full trainings


def test_the_best_are_trained_and_ranked_by_ap(world: World, out: Path) -> None:
    outcome = plain_search(stage(), out, SETTINGS, full(plain=BESIDE), quiet=True)
    top = outcome.stages[0].trials.top(3)
    assert len({trial.digest for trial in top}) == 3
    names = [f"trial_{trial.number}" for trial in top]
    assert [path.name for path in world.trained] == [*names, "plain"]
    assert world.waiting == [4, 3, 2, 1], "the ranking is written after each"
    ranking = ranking_of(out)
    assert (ranking.split, ranking.size) == ("val", (64, 64))
    aps = [entry.ap for entry in ranking.entries if entry.ap is not None]
    assert aps == sorted(aps, reverse=True)
    assert len(aps) == 4
    for rank, trial in enumerate(top, 1):
        entry = ranking.get(f"trial_{trial.number}")
        assert entry is not None
        assert (entry.trial, entry.proxy_rank, entry.reward, entry.verdict) == (trial.number, rank, trial.reward, "ok")
        assert (entry.macs, entry.params) == (trial.figures["macs"], trial.figures["params"])
        assert loads(entry.text).digest == trial.digest
        assert entry.seconds == pytest.approx(2 * PLAN.recipe.batch_size / 4)
    beside = ranking.get("plain")
    assert beside is not None
    assert (beside.trial, beside.proxy_rank, beside.reward, beside.from_search) == (None, None, None, False)
    assert loads(beside.text).architecture.fpn.width == 32, "the width of those it is trained beside"
    best = outcome.best
    assert best is not None
    assert best.best is not None
    assert best.best.number == max((e for e in ranking.entries if e.from_search), key=lambda e: e.ap or 0).trial


def test_what_is_kept_for_workers_on_a_gpu_is_freed(world: World, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.search.stages.shared_gpus_of", lambda workers: ["3"] if workers == "inline" else [])
    plain_search(stage(trials=2), out, SETTINGS, None, quiet=True)
    assert (world.shared, world.released) == ([["3"]], 1)
    monkeypatch.setattr("nasdsl.search.stages.search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plain_search(stage(trials=2), out / "again", SETTINGS, None, quiet=True)
    assert (world.shared, world.released) == ([["3"]] * 2, 2)


def test_a_training_that_fails_is_recorded_and_the_others_go_on(world: World, out: Path) -> None:
    plain_search(stage(), out, SETTINGS, quiet=True)
    first, second, third = (f"trial_{trial.number}" for trial in load_trials(out).top(3))
    world.aps = {first: Diverged("not finite"), second: RuntimeError("torch cannot"), third: math.nan, "plain": MemoryError()}
    outcome = plain_search(stage(), out, SETTINGS, full(plain=BESIDE), resume=True, quiet=True)
    ranking = ranking_of(out)
    verdicts = {entry.name: entry.verdict for entry in ranking.entries}
    assert verdicts == {
        first: "diverged",
        second: "failed: RuntimeError: torch cannot",
        third: "failed: there are no boxes to evaluate on",
        "plain": "failed: out of memory",
    }
    assert all(entry.error and entry.ap is None for entry in ranking.entries)
    best = outcome.stages[0].best
    assert best is not None
    assert best == outcome.stages[0].trials.best, "no AP: the best score"


def test_a_decoder_beside_that_cannot_have_the_width_is_recorded_and_the_others_are_trained(world: World, out: Path) -> None:
    """A sum of a map of the fpn's width and one whose width stays."""
    stubborn = BESIDE.replace("p3 = conv_1x1(c3)", "p3 = add(conv_1x1(c3), conv_1x1(c3, width=64))")
    for resume in (False, True):
        plain_search(stage(), out, SETTINGS, full(stubborn=stubborn, plain=BESIDE), resume=resume, quiet=True)
        entry = ranking_of(out).get("stubborn")
        assert entry is not None
        assert (entry.ap, entry.verdict.partition(":")[0]) == (None, "failed")
        assert "NAS" in (entry.error or "")
        assert sum(entry.verdict == "ok" for entry in ranking_of(out).entries) == 4
    assert len(world.trained) == 4


@pytest.mark.parametrize("error", [RunError("of another training"), CheckpointError("cannot write"), OSError("full")])
def test_what_is_not_the_fault_of_a_decoder_ends_its_training(error: Exception, world: World, out: Path) -> None:
    few = stage(trials=3, top=1)
    plain_search(few, out, SETTINGS, quiet=True)
    world.aps = {f"trial_{load_trials(out).top(1)[0].number}": error}
    with pytest.raises(type(error), match=str(error)):
        plain_search(few, out, SETTINGS, full(), resume=True, quiet=True)
    assert [entry.verdict for entry in ranking_of(out).entries] == ["waiting"]


def test_a_decoder_beside_that_failed_in_one_stage_is_trained_in_the_other(world: World, out: Path) -> None:
    world.aps = {"plain": Diverged("not finite")}
    both(out, plain=BESIDE)
    assert [path.parent.parent.name for path in world.trained if path.name == "plain"] == ["fpn", "head"]


def test_a_decoder_beside_trainings_of_none_keeps_its_own_width() -> None:
    assert _entry_beside("plain", loads(BESIDE), None, None).text == BESIDE
    assert "width=32" in _entry_beside("plain", loads(BESIDE), None, 32).text


def test_what_is_finished_is_not_trained_again(world: World, out: Path) -> None:
    plain_search(stage(), out, SETTINGS, quiet=True)
    second = f"trial_{load_trials(out).top(2)[1].number}"
    world.aps = {second: Interrupted(15, 3)}
    with pytest.raises(Interrupted):
        plain_search(stage(), out, SETTINGS, full(), resume=True, quiet=True)
    assert [entry.verdict for entry in ranking_of(out).entries] == ["ok", "waiting", "waiting"]
    world.aps, before, evaluated = {}, list(world.trained), len(world.evaluated)
    plain_search(stage(), out, SETTINGS, full(), resume=True, quiet=True)
    assert len(world.trained) == len(before) + 2
    assert world.trained[len(before)].name == second
    plain_search(stage(top=4), out, SETTINGS, full(), resume=True, quiet=True)
    assert len(world.trained) == len(before) + 3, "one more of the best"
    assert len(ranking_of(out).entries) == 4
    (out / "full" / second / "config.json").unlink()
    (out / "full" / second / "log.jsonl").unlink()
    (out / "full" / second).rmdir()
    plain_search(stage(top=4), out, SETTINGS, full(), resume=True, quiet=True)
    assert [path.name for path in world.trained[len(before) + 3 :]] == [second], "its folder was removed"
    assert len(world.evaluated) == evaluated


def test_an_evaluation_that_was_under_way_at_the_very_end_is_made_before_anything_is_trained(world: World, out: Path) -> None:
    """All proposals are in the journal, and the result of the last one is not."""
    last = plain_search(stage(), out.parent / "first", SETTINGS, quiet=True).stages[0].trials.ok[-1]
    some = stage(trials=last.number + 1)
    plain_search(some, out, SETTINGS, quiet=True)
    journal = out / "journal.jsonl"
    records = [line for line in journal.read_text().splitlines(keepends=True) if '"kind":"observed"' not in line]
    assert f'"kind":"result","number":{last.number},' in records[-1]
    journal.write_text("".join(records[:-1]))
    world.evaluated.clear()
    resumed = plain_search(some, out, SETTINGS, full(), resume=True, quiet=True)
    assert world.evaluated == [last.text]
    assert len(resumed.stages[0].trials) == last.number + 1


def test_a_ranking_comes_back_as_it_was_and_keeps_its_order(tmp_path: Path) -> None:
    def entry(name: str, verdict: str, ap: float | None) -> RankingEntry:
        return RankingEntry(name, 1, 1, -1.0, verdict, ap, ap, 5, 6, 1.5, "decoder …", name, None)

    ranked = Ranking("val", (2, 3), (
        entry("failed", "failed: x", None), entry("low", "ok", 0.0), entry("waits", "waiting", None), entry("high", "ok", 0.5),
    ))  # fmt: skip
    assert [e.name for e in ranked.entries] == ["high", "low", "waits", "failed"]
    ranked.write(tmp_path / "ranking.json")
    assert read_ranking(tmp_path / "ranking.json") == ranked
    assert read_ranking(tmp_path / "none.json") is None
    assert json.loads((tmp_path / "ranking.json").read_text())["metric"] == "AP"
    (tmp_path / "ranking.json").write_text("[]")
    with pytest.raises(SearchError, match="cannot be read as a ranking"):
        read_ranking(tmp_path / "ranking.json")
    (tmp_path / "ranking.json").write_text('{"format": "of another program"}')
    with pytest.raises(SearchError, match=r"its format is 'of another program', expected '.*'; remove it and resume"):
        read_ranking(tmp_path / "ranking.json")
    unfinished_path(tmp_path / "ranking.json").mkdir()
    with pytest.raises(SearchError, match=f"^cannot write {tmp_path / 'ranking.json'}: Is a directory$"):
        ranked.write(tmp_path / "ranking.json")


# ----------------------------------------------------------------------------------------------------- two stages


def both(out: Path, resume: bool = False, trials: int = 12, **beside: str) -> SearchResult:
    return progressive_search(out, stage(trials=trials), stage(HEAD, 8, 2), SETTINGS, full(**beside), resume=resume, quiet=True)


def test_heads_are_searched_on_the_fpn_of_the_best_ap(world: World, out: Path) -> None:
    outcome = both(out, plain=BESIDE)
    fpn, head = outcome.stages
    assert (fpn.name, head.name, fpn.folder, head.folder) == ("fpn", "head", out / "fpn", out / "head")
    ranking = ranking_of(out / "fpn")
    assert ranking.best is not None
    winner = fpn.best
    assert winner is not None
    assert winner.number == ranking.best.trial
    assert winner != fpn.trials.best, "else this test shows nothing: it is the best AP that counts"
    at_width = loads(winner.text).with_width(64)
    assert world.specs[0].fpn is None
    assert world.specs[1].fpn == at_width.source.text, "the winner's own text, at the width of the head's stage"
    for trial in head.trials:
        assert loads(trial.text).canonical_fpn == at_width.canonical_fpn
    assert loads((out / "head" / "fpn.nas").read_text()).digest == at_width.digest
    assert loads_space((out / "head" / "space.nas").read_text()).size == HEAD.size, "a text that stands alone"
    best = outcome.best
    assert best is not None
    assert best.trained is not None
    text = (out / "best.nas").read_text()
    assert loads(text).digest == loads(best.trained.text).digest
    assert f"Trial {best.trained.trial} of the stage {best.name}: AP {100 * (best.trained.ap or 0):.1f}" in text
    asked = json.loads((out / "search.json").read_text())
    assert (asked["format"], asked["stages"]) == ("nasdsl search run 1", ["fpn", "head"])


def test_it_goes_on_in_the_stage_where_it_ended(world: World, out: Path) -> None:
    whole = both(out)
    for stop in ("fpn search", "fpn full", "head search", "head full"):
        place = out.parent / stop
        name, what = stop.split()
        world.evaluated.clear()
        world.trained.clear()
        kept = world.reward
        if what == "search":
            space = FPN.name if name == "fpn" else HEAD.name
            seen: list[str] = []

            def reward(text: str, space: str = space, seen: list[str] = seen, kept: Any = kept) -> float:
                seen += [text] if space in text else []
                if len(seen) == 4:
                    raise SystemExit(143)  # as a task that was interrupted itself leaves
                return kept(text)

            world.reward = reward
        else:
            trial = ranking_of(out / name).entries[0]
            world.aps = {trial.name: Interrupted(15, 1)}
        with pytest.raises(SystemExit):
            both(place)
        assert (place / "head").exists() == (name == "head")
        evaluated = list(world.evaluated)
        world.reward, world.aps = kept, {}
        again = both(place, resume=True)
        assert [t.text for s in again.stages for t in s.trials] == [t.text for s in whole.stages for t in s.trials]
        for s in ("fpn", "head"):
            assert [(e.name, e.ap) for e in ranking_of(place / s).entries] == [
                (e.name, e.ap) for e in ranking_of(out / s).entries
            ]
        repeated = 1 if what == "search" else 0  # the one that was under way
        assert len(world.evaluated) == len(set(world.evaluated)) + repeated
        assert world.evaluated[: len(evaluated)] == evaluated
        assert (place / "best.nas").read_text() == (out / "best.nas").read_text()


def test_a_decoder_beside_both_stages_is_trained_once_where_it_is_the_same(world: World, out: Path) -> None:
    plan = TrainingConfig(data="shapes:4", backbone="tiny", width=32, recipe=PLAN.recipe)
    how = FullTraining(plan, {"plain": loads(BESIDE)})
    progressive_search(out, stage(), stage(HEAD, 8, 2), SETTINGS, how, quiet=True)
    assert [path.name for path in world.trained].count("plain") == 1
    entry = ranking_of(out / "head").get("plain")
    assert entry is not None
    assert (out / "head" / "full" / entry.folder / "config.json").exists()
    assert entry.ap == ranking_of(out / "fpn").get("plain").ap  # type: ignore[union-attr]


def test_the_fpn_alone_and_the_head_alone(world: World, out: Path) -> None:
    alone = progressive_search(out / "f", stage(), None, SETTINGS, quiet=True)
    assert [found.name for found in alone.stages] == ["fpn"]
    assert not (out / "f" / "head").exists()
    assert alone.best is not None
    assert loads((out / "f" / "best.nas").read_text()).digest == alone.stages[0].trials.best.digest  # type: ignore[union-attr]
    heads = progressive_search(out / "h", None, stage(HEAD, 8), SETTINGS, on=BESIDE, quiet=True)
    assert [found.name for found in heads.stages] == ["head"]
    assert not (out / "h" / "fpn").exists()
    assert world.specs[-1].fpn == loads(BESIDE).with_width(64).source.text
    with pytest.raises(SearchError, match="a progressive search has"):
        progressive_search(out / "n", None, stage(HEAD), SETTINGS)


def test_without_a_reward_there_is_no_second_stage(world: World, out: Path) -> None:
    world.reward = lambda text: math.nan
    with pytest.raises(SearchError, match=r"none of the 12 trials in .* has a reward"):
        both(out)
    assert load_trials(out / "fpn").counts["diverged"] > 0
    world.reward = lambda text: pytest.fail("no second evaluation")
    with pytest.raises(SearchError, match="none of the 12 trials"):
        both(out, resume=True)


# --------------------------------------------------------------------------------------- fpns that cannot be trained


def at_head_width(trial: Trial) -> str:
    """Digest of a trial's decoder at the width of the head's space."""
    return loads(str(trial.text)).with_width(64).digest


def ranked_fpns(world: World, out: Path) -> list[Trial]:
    """The trials of the first stage with a reward, best first, by a search of that stage alone."""
    (fpns,) = progressive_search(out, stage(), None, SETTINGS, full(), quiet=True).stages
    world.fpns.clear()
    by_ap = sorted(ranking_of(out / "fpn").entries, key=lambda entry: -(entry.ap or 0))
    trained = [fpns.trials[entry.trial] for entry in by_ap if entry.trial is not None]
    return trained + [trial for trial in fpns.trials.top(100) if trial not in trained]


def failed_fpns(out: Path) -> list[dict[str, Any]]:
    failures: list[dict[str, Any]] = json.loads((out / "head" / "failed_fpns.json").read_text())
    return failures


def test_an_fpn_that_diverges_at_the_width_of_the_heads_is_replaced_by_the_next_best(
    world: World, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, second, third, *_ = ranked_fpns(world, out.parent / "alone")
    world.cannot_train = {at_head_width(best), at_head_width(second)}
    result = progressive_search(out, stage(), stage(HEAD, 8, 2), SETTINGS, full())
    assert world.fpns == [at_head_width(trial) for trial in (best, second, third)], "each is trained once"
    fixed = loads((out / "head" / "fpn.nas").read_text())
    assert fixed.digest == at_head_width(third)
    assert "failed_fpns.json" in (out / "head" / "fpn.nas").read_text()
    for trial in result.stages[1].trials:
        assert loads(trial.text).canonical_fpn == fixed.canonical_fpn
    messages = " ".join(capsys.readouterr().err.split())
    for trial in (best, second):
        assert f"heads cannot be searched on the fpn of trial {trial.number} of the stage fpn" in messages
    assert f"stage head: {HEAD.name} on the fpn of trial {third.number} of the stage fpn" in messages
    assert [(f["trial"], f["digest"]) for f in failed_fpns(out)] == [(t.number, t.digest) for t in (best, second)]
    assert {f["error"] for f in failed_fpns(out)} == {"the fpn cannot be trained: the loss is not finite at step 1 of 300"}
    world.fpns.clear()
    again = both(out, resume=True)
    assert world.fpns == [], "everything is finished"
    assert [t.text for t in again.stages[1].trials] == [t.text for t in result.stages[1].trials]


def test_a_search_that_is_interrupted_after_an_fpn_failed_does_not_train_it_again(world: World, out: Path) -> None:
    best, second, *_ = ranked_fpns(world, out.parent / "alone")
    world.cannot_train = {at_head_width(best)}

    def interrupted(spec: ProxySpec) -> None:
        raise Interrupted(15, 1)

    world.on_fpn[at_head_width(second)] = interrupted
    with pytest.raises(Interrupted):
        both(out)
    assert world.fpns == [at_head_width(best), at_head_width(second)]
    world.on_fpn.clear()
    world.fpns.clear()
    both(out, resume=True)
    assert world.fpns == [at_head_width(second)]
    assert loads((out / "head" / "fpn.nas").read_text()).digest == at_head_width(second)


def test_if_no_fpn_can_be_trained_the_search_ends_with_the_reasons(
    world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nasdsl.search.progressive.MAX_FPNS", 2)
    fpns = [at_head_width(trial) for trial in ranked_fpns(world, out.parent / "alone")]
    assert len(fpns) > 4
    world.cannot_train = set(fpns)
    with pytest.raises(FpnError, match=r"any of the 2 best fpns.*not finite at step 1 of 300.*--resume.*tries the next"):
        both(out)
    assert world.fpns == fpns[:2]
    assert loads((out / "best.nas").read_text()).digest in {trial.digest for trial in load_trials(out / "fpn")}
    with pytest.raises(FpnError, match="any of the 4 best fpns"):
        both(out, resume=True)
    assert world.fpns == fpns[:4]
    monkeypatch.setattr("nasdsl.search.progressive.MAX_FPNS", 100)
    for _ in range(2):
        with pytest.raises(FpnError, match=rf"any of the {len(fpns)} best fpns.*No other trial has a reward"):
            both(out, resume=True)
    assert world.fpns == fpns


def test_heads_that_were_searched_on_an_fpn_keep_it(world: World, out: Path) -> None:
    """Without the cache the fpn is trained again on resume; if that fails, the heads do not change their fpn."""
    both(out)
    world.cannot_train = set(world.fpns)
    with pytest.raises(FpnError, match="the fpn cannot be trained"):
        progressive_search(out, stage(), stage(HEAD, 9, 2), SETTINGS, full(), resume=True, quiet=True)
    assert not (out / "head" / "failed_fpns.json").exists()


def test_an_fpn_that_leaves_no_head_within_the_requirements_is_replaced(
    world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def params(text: str) -> int:
        return loads(text).with_width(64).cost((64, 64), "tiny", 5).fpn.params

    world.reward = params  # the larger, the better
    trials = progressive_search(out.parent / "alone", stage(), None, SETTINGS, quiet=True).stages[0].ranked
    largest, *others = (params(str(trial.text)) for trial in trials)
    fitting = next(trial for trial in trials if params(str(trial.text)) < largest)
    head = min(HEAD.load(text).cost((64, 64), "tiny", 5).head.params for text in HEAD.samples(40, 0))
    bound = head + (largest + params(str(fitting.text))) // 2
    text = HEAD_SPACE.replace("  input c3, c4\n", f"  input c3, c4\n  require params <= {bound}\n", 1)
    monkeypatch.setattr(Space.sample, "__kwdefaults__", {"attempts": 2000})
    bounded = loads_space(text, backbone="tiny", classes=5)
    result = progressive_search(out, stage(), stage(bounded, 8), SETTINGS, quiet=True)
    assert loads((out / "head" / "fpn.nas").read_text()).digest == at_head_width(fitting)
    assert len(result.stages[1].trials.ok) > 0
    failures = failed_fpns(out)
    assert [failure["trial"] for failure in failures] == [t.number for t in trials[: 1 + others.count(largest)]]
    assert "keeps its requirements" in failures[0]["error"]


LOUD = """
op double(x) = add(x, x)
op x256(x) = double(double(double(double(double(double(double(double(x))))))))
choice gain = x256 | sep_3x3
decoder loud {
  input c3, c4
  fpn(width=32, norm=none) { output p3 = ?gain(?gain(?gain(conv_1x1(c3)))), p4 = conv_1x1(c4) }
  head(width=32, norm=gn) { conv_1x1 }
  predict fcos()
}
"""
"""With three gains of 256 the fpn has the fewest parameters, and maps beyond float16, on which a head with GroupNorm trains."""


def test_with_the_real_proxy_task_an_fpn_beyond_float16_is_replaced(out: Path) -> None:
    proxy = ProxySpec(
        "shapes:6", backbone="tiny", size=64, levels=("c3", "c4"), iterations=2, batch_size=4, learning_rate=1e-6,
        cache=str(out / "features"), method={"reference_size": None},
    )  # fmt: skip
    settings = SearchSettings(strategy="random", size=(64, 64), objective="params:1k:-5")
    fpns, heads = loads_space(LOUD, backbone="tiny", classes=5), HEAD
    result = progressive_search(
        out, Stage(space=fpns, proxy=proxy, trials=30), Stage(space=heads, proxy=proxy, trials=2), settings, quiet=True
    )
    best, *others = result.stages[0].ranked
    assert str(best.text).count("x256(") == 4, "its definition and three calls"
    assert failed_fpns(out)[0]["trial"] == best.number
    assert "not finite in float16" in failed_fpns(out)[0]["error"]
    number = len(failed_fpns(out))
    assert loads((out / "head" / "fpn.nas").read_text()).digest == at_head_width(others[number - 1])
    assert result.stages[1].trials.ok


@pytest.mark.parametrize("number", [0, 1])
def test_one_sample_that_does_not_fit_the_heads_does_not_refuse_the_search(
    number: int, world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the two spaces fit together is checked before any work, and not by one sample alone."""
    calls: list[str] = []

    def fix(space: Space, text: str) -> tuple[Space, str]:
        calls.append(text)
        if len(calls) == number + 1:
            raise SpaceError("this sample does not fit")
        return with_fixed_fpn(space, text)

    monkeypatch.setattr("nasdsl.search.progressive.with_fixed_fpn", fix)
    result = both(out)
    assert result.stages[1].trials.ok
    assert (out / "head" / "failed_fpns.json").exists() == (number == 1), "the second call is for the best trial"


def test_spaces_that_do_not_fit_together_are_refused_before_any_work(
    world: World, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fix(space: Space, text: str) -> tuple[Space, str]:
        calls.append(text)
        raise SpaceError(f"sample {len(calls)} does not fit")

    monkeypatch.setattr("nasdsl.search.progressive.with_fixed_fpn", fix)
    with pytest.raises(SpaceError, match=f"sample {SAMPLES_TO_FIT} does not fit"):
        both(out)
    assert world.evaluated == []


@pytest.mark.parametrize(
    ("content", "says"), [("[{", "cannot be read: "), ('[{"trial": 3}]', "cannot be read: 'digest'"), ("3", "cannot be read: ")]
)
def test_a_broken_list_of_failed_fpns_is_named(content: str, says: str, tmp_path: Path) -> None:
    assert _read_failures(tmp_path) == []
    path = tmp_path / "failed_fpns.json"
    path.write_text(content)
    with pytest.raises(SearchError, match=f"{path} {says}.*; remove it and resume, to try these fpns again"):
        _read_failures(tmp_path)


def test_a_best_decoder_that_cannot_be_written_is_named(world: World, out: Path) -> None:
    unfinished_path(out / "best.nas").mkdir(parents=True)
    for write in (
        lambda: _write(out / "best.nas", "decoder …"),
        lambda: plain_search(stage(trials=2), out, SETTINGS, quiet=True),
    ):
        with pytest.raises(SearchError, match=f"^cannot write {out / 'best.nas'}: Is a directory$"):
            write()


def test_an_fpn_that_the_user_named_is_not_replaced(world: World, out: Path) -> None:
    world.cannot_train = {loads(BESIDE).with_width(64).digest}
    with pytest.raises(FpnError, match="the fpn cannot be trained: the loss is not finite"):
        progressive_search(out, None, stage(HEAD, 8), SETTINGS, on=BESIDE, quiet=True)
    assert not (out / "head" / "failed_fpns.json").exists()


def test_a_first_stage_that_grows_may_not_change_what_the_second_is_on(world: World, out: Path) -> None:
    both(out)
    world.aps = dict.fromkeys((f"trial_{n}" for n in range(12, 60)), 1.0)
    with pytest.raises(SearchError, match=r"has heads on another fpn than trial .* AP 100.0"):
        both(out, resume=True, trials=60)


def test_nothing_to_search(out: Path) -> None:
    with pytest.raises(SearchError, match="`plain` has no holes"):
        plain_search(stage(loads_space(BESIDE)), out, SETTINGS, quiet=True)
    assert not out.exists()


# ------------------------------------------------------------------------------------- heads on another decoder's fpn


def test_heads_of_the_paper_are_on_any_fpn_of_the_paper() -> None:
    zoo = Path(__file__).parents[2] / "genotypes" / "spaces"
    fpns, heads = load_space(zoo / "nas_fcos_fpn.nas"), load_space(zoo / "nas_fcos_head.nas")
    for seed in range(3):
        winner = fpns.sample(seed)
        space, fixed = with_fixed_fpn(heads, winner)
        assert space.size == heads.size == 326_592
        assert loads(fixed).architecture.fpn.width == 128
        assert loads(fixed).digest == loads(winner).with_width(128).digest
        for text in space.samples(3, seed):
            assert loads(text).canonical_fpn == loads(fixed).canonical_fpn
            assert space.encode(text) == list(text.indices)  # type: ignore[attr-defined]


def test_an_fpn_with_words_of_its_own() -> None:
    winner = loads_space("""
op mine(x) = conv_3x3(relu(x))
agg both(x, y) = add(mine(x), y)
op unused(x) = conv_1x1(x)
decoder d {
  let w = 64
  input c3, c4
  fpn(width=w, norm=bn) { x = both(c3, c4); output p3 = x, p4 = mine(c4) }
  head(width=w, norm=gn) { conv_3x3 }
  predict fcos()
}
""").decode(())
    space, fixed = with_fixed_fpn(HEAD, winner)
    text = space.sample(1)
    assert loads(text).canonical_fpn == loads(fixed).canonical_fpn == loads(winner).canonical_fpn
    assert "unused" not in space.source.text
    shared, _ = with_fixed_fpn(loads_space("op mine(x) = conv_3x3(relu(x))\n" + HEAD_SPACE), winner)
    assert shared.source.text.count("op mine") == 1
    with pytest.raises(SpaceError, match="`mine` is defined by the fpn's text, and otherwise"):
        with_fixed_fpn(loads_space("op mine(x) = conv_1x1(x)\n" + HEAD_SPACE), winner)
    shadowing = loads_space("op conv_3x3(x) = conv_1x1(x)\n" + HEAD_SPACE)
    with pytest.raises(SpaceError, match="with another meaning"):
        with_fixed_fpn(shadowing, winner)


def test_seconds_of_a_training_whose_last_batches_are_not_full(tmp_path: Path) -> None:
    records = [
        {"event": "train", "step": step, "images": images, "seconds": seconds, "images_per_s": images / seconds}
        for step, images, seconds in ((2, 8, 2.0), (4, 5, 1.5), (5, 1, 0.25))
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert _seconds(tmp_path, PLAN) == 3.75
