"""The file of full trainings, the plan of further ones, and the comparison of rewards with them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nasdsl
from nasdsl.training import Recipe
from nasdsl.training.config import TrainingConfig
from nasdsl.training.trainer import Trainer

FOLDER = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def trained() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import trained

        yield trained
        for name in ("trained", "rewards", "compare_rewards", "supernet", "supernet_start"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def comparison(trained: ModuleType) -> ModuleType:
    pytest.importorskip("scipy")
    import compare_rewards

    return compare_rewards


def test_rows_of_full_trainings(trained: ModuleType) -> None:
    """Texts have the digest of their decoder at that width, and the multiply-accumulates that the row says."""
    rows = trained.Table(trained.TABLE).rows()
    assert list(rows[0]) == list(trained.COLUMNS)
    jobs = [trained.Job(r["decoder"], int(r["width"]), r["size"], int(r["epochs"]), int(r["seed"])) for r in rows]
    assert len(set(jobs)) == len(jobs)
    seen = {(row["decoder"], row["width"], row["size"]): row for row in rows}
    for row in seen.values():
        decoder = nasdsl.loads(row["text"])
        height, width = map(int, row["size"].split("x"))
        cost = decoder.cost(size=(height, width), backbone="mobilenet_v2", classes=3)
        assert cost.fpn.macs + cost.head.macs == int(row["macs_decoder"])
        assert cost.fpn.macs + cost.head.macs + cost.backbone.macs == int(row["macs_total"])
        assert 0 < float(row["ap_val"]) < 100


def test_the_plan_has_what_is_to_be_known(trained: ModuleType) -> None:
    known = list(dict.fromkeys(row["decoder"] for row in trained.Table(trained.TABLE).rows() if row["source"] == "table"))
    jobs = trained.plan(known)
    assert len(set(jobs)) == len(jobs)
    done = trained.Table(trained.TABLE).done() | set(jobs)
    base = Counter((job.decoder, job.epochs) for job in done if (job.width, job.size) == trained.BASE)
    assert sum(epochs == 24 for _, epochs in base) >= 24
    assert sum(count >= 3 and epochs == 24 for (_, epochs), count in base.items()) >= 6
    assert sum(epochs == 48 for _, epochs in base) >= 6
    varied = Counter(job.decoder for job in {job._replace(seed=0, epochs=0) for job in done})
    assert sum(count >= 4 for count in varied.values()) >= 8
    decoders = trained.Table(trained.TABLE).decoders()
    assert {job.decoder for job in jobs} <= set(decoders)
    assert len({decoder.digest for decoder in decoders.values()}) == len(decoders)


def test_a_table_is_begun_and_added_to(trained: ModuleType, tmp_path: Path) -> None:
    table = trained.Table(tmp_path / "new.csv")
    assert table.rows() == []
    job = trained.Job.parse("fcos,32,240x320,6,1")
    table.add({**job._asdict(), "ap_val": 45.1, "text": 'a "quoted", text'})
    table.add({**job._replace(seed=2)._asdict(), "ap_val": 46.0})
    assert table.done() == {job, job._replace(seed=2)}
    assert table.rows()[0]["text"] == 'a "quoted", text'


def line(decoder: str, seed: int, loss: float) -> dict[str, Any]:
    losses = {"classification": loss, "bbox_regression": 1.0, "bbox_ctrness": 0.6}
    one = {"setting": "short", "decoder": decoder, "width": 32, "size": "240x320", "seed": seed, "cpu_s": 4.0}
    return one | {"ap": 1 - loss, "losses": losses, "curve": [2 * loss] * 10, "crops": 10, "positives": 100, "unassigned": 0.25}


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_rewards_are_compared_with_the_truth(comparison: ModuleType) -> None:
    names = ("fcos", "b", "c", "d", "e", "f")
    known = {comparison.Detector(name, 32, "240x320"): 50.0 - i for i, name in enumerate(names)}
    right = [line(name, 0, 0.1 + 0.1 * i) for i, name in enumerate(names)]
    wrong = [line(name, 1, 0.9 - 0.1 * i) for i, name in enumerate(names)]
    rows = {(r.reward, r.seeds): r for r in comparison.compare([*right, *wrong], known, other_sizes=False)}
    for reward in ("loss", "AP", "loss without centerness", "loss per positive", "losses relative to fcos"):
        assert rows[reward, 1].each == pytest.approx((1.0, -1.0))
    single, both = rows["loss", 1], rows["loss", 2]
    assert (single.count, single.seconds, both.seconds) == (6, 4.0, 8.0)
    assert single.spearman == pytest.approx(0)
    assert (single.low, single.high) == pytest.approx((1, 1)), "of the first seed"
    counted = comparison.REWARDS["loss, unassigned boxes count"](right[0], None)
    assert counted == pytest.approx(-(0.75 * 1.7 + 0.25 * 2.8))
    per_positive = comparison.REWARDS["loss per positive"](right[0], None)
    assert per_positive == pytest.approx(-(0.1 * 110 / 100 + 1.6))


def test_networks_are_compared_with_the_truth(comparison: ModuleType, trained: ModuleType) -> None:
    """The samples are those of the table, and the right order has a correlation of 1."""
    import supernet

    table, space = trained.Table(trained.TABLE), supernet.make_space()
    texts = supernet.samples(space, table)
    assert [len(space.encode(text)) for text in texts.values()] == [35] * 8
    known = {d.decoder: ap for d, ap in comparison.truth(table, 6).items() if d[1:] == trained.BASE}
    scores = {name: {"losses": {"all": 60 - known[name]}, "ap": -known[name]} for name in texts}
    lines = [{"setting": "short", "seed": seed, "calibration": 4, "cpu_s": 100.0, "scores": scores} for seed in (0, 1)]
    shown = supernet.compare(lines, [], table)
    assert "| short | 4 | loss | 100 |" in shown
    assert shown.count("| 1.00 (1.00, 1.00) | 1.00 (1.00, 1.00) |") == 1
    assert shown.count("| -1.00 (-1.00, -1.00) | -1.00 (-1.00, -1.00) |") == 1


def test_starts_are_compared(trained: ModuleType) -> None:
    import supernet_start

    line = {"decoder": "s07", "epochs": 3, "seed": 0, "start": "steps600_s0", "ap_val": 30.0, "ap_test": 32.0}
    shown = supernet_start.compare([line, {**line, "start": "steps600_s1", "ap_val": 32.0}], trained.Table(trained.TABLE))
    assert "| s07 | steps600 | 3 | 31.5 | 2 |" in shown
    assert "| s07 | nothing | 6 | 37.2 | 2 |" in shown


# ------------------------------------------------------------------------------------------------ the claim


def test_processor_seconds_of_interrupted_work_add_up(
    trained: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([10.0, 14.0, 100.0, 103.0])
    monkeypatch.setattr(trained.time, "process_time", lambda: next(times))
    with pytest.raises(KeyboardInterrupt), trained.counted_seconds(tmp_path):
        raise KeyboardInterrupt
    with trained.counted_seconds(tmp_path) as seconds:
        pass
    assert seconds() == 7


@pytest.fixture(scope="module")
def claim_table(trained: ModuleType) -> Any:
    pytest.importorskip("scipy")
    import claim_table

    yield claim_table
    for name in ("claim", "claim_table"):
        sys.modules.pop(name, None)


def test_a_training_that_was_killed_before_its_first_checkpoint_goes_on(
    trained: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(data="shapes:4", backbone="tiny", width=32, recipe=Recipe(steps=1, size=(64, 64)))
    decoder = nasdsl.load("zoo:fcos")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "prepare", killed)
        with pytest.raises(KeyboardInterrupt):
            trained.train_in_full(config, decoder, tmp_path, ["val"])
    assert (tmp_path / "run" / "config.json").exists()
    assert trained.train_in_full(config, decoder, tmp_path, ["val"]).ap.keys() == {"val"}


def test_the_best_finalist_is_chosen_on_val(claim_table: ModuleType) -> None:
    def row(rank: int, seed: int, val: float, test: float, epochs: int = 12) -> dict[str, Any]:
        return {
            "budget": 1, "contestant": "search", "rank": rank, "epochs": epochs, "seed": seed, "ap_val": val, "ap_test": test
        }  # fmt: skip

    rows = [
        row(0, 0, 50, 60),
        row(0, 1, 52, 61),
        row(1, 0, 55, 40),
        row(1, 1, 53, 42),
        row(2, 0, 99, 99),
        row(0, 2, 99, 99, 24),
    ]
    (found,) = claim_table.choices(rows, 12)
    assert (found.finalists, found.test) == (2, [40, 42]), "the third has too few seeds yet, and test decides nothing"


def test_the_interval_of_a_difference_is_that_of_scipy(claim_table: ModuleType) -> None:
    from scipy.stats import ttest_ind

    a, b = [53.1, 54.0, 55.2], [51.0, 53.9, 52.2, 52.0]
    value, half = claim_table.difference(a, b)
    low, high = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (value - half, value + half) == pytest.approx((low, high))
