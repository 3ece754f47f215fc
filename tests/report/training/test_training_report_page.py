"""The page about a training as text: its numbers, its images, and pages of trainings with little data."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from parsed_page import Page
from PIL import Image
from synthetic_trainings import LOSSES, coco_folder, write_run

from nasdsl.cli import cli
from nasdsl.cli.report import write_training_report
from nasdsl.data import open_dataset
from nasdsl.evaluation import best_threshold, confusion_matrix, image_errors, precision_recall
from nasdsl.files import MAX_BYTES
from nasdsl.report.training import ReportError, make_validation, open_validation, page, read_training, write_report
from nasdsl.report.training.page import _unfinished
from nasdsl.report.training.sheet import FALSE, MISSED, RIGHT, worst_images


def made(run: Path, **options: Any) -> Page:
    training = read_training(run)
    return Page(page(training, open_validation(training), **options))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def rows(shown: Page, chart: str, *fields: str) -> list[tuple[Any, ...]]:
    """The rows of a chart's data that have these fields."""
    spec = shown.specs[chart]
    data = [*spec.get("datasets", {}).values(), *_inline(spec)]
    return [tuple(row[f] for f in fields) for values in data for row in values if all(f in row for f in fields)]


def _inline(value: Any) -> list[list[dict[str, Any]]]:
    if isinstance(value, dict):
        own = [value["data"]["values"]] if isinstance(value.get("data"), dict) and "values" in value["data"] else []
        return own + [found for inner in value.values() for found in _inline(inner)]
    return [found for inner in value for found in _inline(inner)] if isinstance(value, list) else []


@pytest.fixture(scope="module")
def few(trainings: Path) -> Page:
    return made(trainings / "few", now=1.7e9)


# ---------------------------------------------------------------------------------------------------------- content


def test_nothing_is_loaded_and_ids_are_unique(few: Page, trainings: Path) -> None:
    for shown in (few, made(trainings / "many")):
        links = [a.get("href") for tag, a in shown.tags if tag == "a"]
        assert [address for address in shown.loaded() if address not in links] == []
        assert all(re.fullmatch(r"#[a-z]+|[a-z.]+", str(link)) for link in links)
        assert not {"link", "iframe", "object", "embed"} & {tag for tag, a in shown.tags if a.get("href") != "data:,"}
        ids = shown.ids()
        assert len(ids) == len(set(ids))
        assert all(str(link)[1:] in ids for link in links if str(link).startswith("#"))
        assert all(a.get("alt") for tag, a in shown.tags if tag == "img")
        assert all(a.get("aria-label") for _, a in shown.tags if a.get("class") == "plot")


def test_charts(few: Page, trainings: Path) -> None:
    names = {
        "losses",
        "precision_over_time",
        "learning_rate",
        "precision_recall",
        "f1",
        "confusion",
        "scores",
        "class_precision",
    }
    assert set(few.specs) == names
    training = read_training(trainings / "few")
    for name in LOSSES:
        found = [(e, v) for loss, e, v in rows(few, "losses", "loss", "epoch", "value") if loss == name]
        assert found == [pytest.approx((r["epoch"], r["losses"][name]), rel=1e-4) for r in training.steps]
    shown = [(e, v) for m, e, v in rows(few, "precision_over_time", "metric", "epoch", "value") if m == "AP"]
    assert shown == [
        (pytest.approx(r["step"] / 20), pytest.approx(100 * r["coco"]["ap"], abs=1e-3)) for r in training.evaluations
    ]
    minutes = [(e, t) for m, e, t in rows(few, "precision_over_time", "metric", "epoch", "minutes") if m == "AP"]
    assert minutes == [pytest.approx(pair, rel=1e-4) for pair in ((1, 2 / 3), (2, 4 / 3), (3, 2))]


def test_the_evaluation_is_that_of_the_results(few: Page, trainings: Path) -> None:
    truth = open_dataset(f"coco:{trainings / 'data_few'}", "val").ground_truth()
    results = json.loads((trainings / "few" / "results.json").read_text())
    curves = precision_recall(truth, results)
    best = best_threshold(curves)
    assert best is not None
    assert f"Best mean: {best.f1:.3f} at a threshold of {best.score:.3f}" in few.text
    matrix = confusion_matrix(truth, results, best.score)
    cells = [n for (n,) in rows(few, "confusion", "boxes")]
    assert cells == matrix.counts.flatten().tolist()[:-1]
    assert sum(n for what, n in rows(few, "scores", "what", "detections") if what == "right") == sum(
        int(c.true_positives[-1]) for c in curves if len(c.scores)
    )
    assert sum(n for (n,) in rows(few, "scores", "detections")) == sum(len(c.scores) for c in curves)
    for number, category in enumerate(matrix.categories):
        assert f"{category.name} " in few.text
        right, missed = matrix.counts[number, number], matrix.counts[number, -1]
        counts = f"{right} {matrix.counts[:, number].sum() - right} {missed} {matrix.counts[number].sum() - right - missed}"
        assert counts in few.text
    worst = image_errors(truth, results, best.score)[0]
    name = next(image["file_name"] for image in truth["images"] if image["id"] == worst.image_id)
    listed = f"F1 {worst.f1:.2f}: {len(worst.right)} right, {len(worst.false)} false, {len(worst.missed)} missed"
    assert f"{Path(name).name} {listed}" in few.text
    first = re.search(r"F1 [01]\.\d\d: .*? missed", few.text)
    assert first is not None
    assert first[0] == listed


def test_settings_and_files(few: Page, trainings: Path) -> None:
    for words in (
        "fcos on tiny",
        "width 32",
        "3 epochs of 40 images",
        "2 min 00 s of training",
        "96 x 128 pixels",
        "nasdsl train …",
    ):
        assert words in few.text
    files = [str(a["href"]) for tag, a in few.tags if tag == "a" and not str(a["href"]).startswith("#")]
    assert files == ["model.pt", "results.json", "metrics.json", "log.jsonl", "decoder.nas", "config.json"]
    elsewhere = made(trainings / "few", folder=trainings / "data_few")
    links = [str(a["href"]) for tag, a in elsewhere.tags if tag == "a" and not str(a["href"]).startswith("#")]
    assert links[0] == "../few/model.pt"
    assert all((trainings / "data_few" / link).is_file() for link in links)


def test_many_classes(trainings: Path) -> None:
    shown = made(trainings / "many", top=3)
    assert "precision_over_time" not in shown.specs
    assert "evaluated once, at its end" in shown.text
    assert len({name for (name,) in rows(shown, "precision_recall", "class")}) <= 7
    assert "the three best and the three worst" in shown.text
    assert all(n > 0 for (n,) in rows(shown, "confusion", "boxes"))
    assert sum(tag == "figure" and a.get("class") == "pair" for tag, a in shown.tags) == 3
    assert "annotated as detected as boxes" in shown.text


# ----------------------------------------------------------------------------------------------------------- images


def test_boxes_are_drawn_where_they_are(trainings: Path) -> None:
    """Found, missed and false boxes have their colours on their edges."""
    training = read_training(trainings / "few")
    validation = open_validation(training)
    entries, errors = list(worst_images(validation)), validation.images
    assert len(entries) == sum(e.errors > 0 for e in errors)
    seen = set()
    for entry, image in zip(entries, errors, strict=False):
        pictures = {}
        for kind, url in (("truth", entry.truth), ("found", entry.found)):
            pictures[kind] = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(
                int
            )
        scale = pictures["truth"].shape[1] / 160
        assert scale == 3
        for kind, numbers, color in (
            ("truth", image.missed, MISSED), ("truth", image.found, RIGHT),
            ("found", image.false, FALSE), ("found", image.right, RIGHT),
        ):  # fmt: skip
            boxes = [validation.truth.boxes[n].box if kind == "truth" else validation.results[n]["bbox"] for n in numbers]
            wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
            for x, y, w, h in boxes:
                x1, y1, x2, y2 = (round(v * scale) for v in (x, y, x + w, y + h))
                height, width = pictures[kind].shape[:2]
                edges = [pictures[kind][min(max(r, 0), height - 1), x1 + 6 : min(x2, width) - 6] for r in (y1, y2)]
                edges += [pictures[kind][y1 + 6 : min(y2, height) - 6, min(max(c, 0), width - 1)] for c in (x1, x2)]
                close = np.abs(np.concatenate(edges) - wanted).max(axis=1) < 60
                seen.add((kind, color))
                assert close.mean() > 0.2  # other boxes may cover a part, and dashes have gaps
    assert seen == {("truth", MISSED), ("truth", RIGHT), ("found", FALSE), ("found", RIGHT)}


def test_an_image_that_cannot_be_read_any_more(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    run = write_run(tmp_path / "run", f"coco:{data}")
    training = read_training(run)
    first = next(iter(worst_images(open_validation(training)))).name
    (data / "val" / first).write_bytes(b"no image")
    entry = next(iter(worst_images(open_validation(training))))
    assert (entry.name, entry.truth) == (first, "")
    assert "no image" in entry.problem or "not" in entry.problem
    assert entry.problem in Page(page(training, open_validation(training))).text


# ----------------------------------------------------------------------------------------------- what may be missing


def test_without_evaluation(trainings: Path) -> None:
    training = read_training(trainings / "unevaluated")
    shown = Page(page(training))
    assert set(shown.specs) == {"losses", "learning_rate"}
    assert "This training was not evaluated" in shown.text
    with pytest.raises(ReportError, match="no evaluation"):
        open_validation(training)
    done = invoke("report", trainings / "unevaluated", "-o", trainings / "unevaluated.html")
    assert (done.exit_code, done.stderr) == (0, f"wrote {trainings / 'unevaluated.html'}\n")


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}", evaluated=False)
    (run / "log.jsonl").unlink()
    shown = Page(page(read_training(run)))
    assert shown.specs == {}
    assert "no training step yet" in shown.text
    (run / "log.jsonl").write_text(
        '{"event": "train", "step": 10, "epoch": 0.5, "loss": null, "losses": {"a": null}, "lr": 0.1'
    )
    assert Page(page(read_training(run))).specs == {}  # an incomplete line


def test_a_log_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}", evaluated=False)
    with open(run / "log.jsonl", "wb") as log:  # sparse: it takes no room
        log.truncate(MAX_BYTES + 1)
    with pytest.raises(ReportError, match=r"cannot read .*log\.jsonl: 4 GB; at most 4 GB are read"):
        read_training(run)


def test_losses_that_are_not_finite_and_a_long_log(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}", evaluated=False)
    lines = [
        {
            "event": "train",
            "step": i,
            "epoch": i / 100,
            "lr": 0.1,
            "loss": None if i % 7 == 0 else 1 / i,
            "losses": {"loss": 1 / i},
        }
        for i in range(1, 3000)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = Page(page(read_training(run)))
    assert len(rows(shown, "losses", "value")) <= 400
    assert len(rows(shown, "learning_rate", "rate")) <= 400


def _log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _write_log(run: Path, records: list[dict[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _changed(run: Path, file: str, **parts: Any) -> Path:
    content = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**content, **parts}))
    return run


def test_steps_and_images_that_were_skipped_and_a_better_detector_have_tiles(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}")
    metrics = json.loads((run / "metrics.json").read_text())
    _changed(run, "metrics.json", best={"step": 7, "coco": {**metrics["coco"], "ap": 0.875}})
    *lines, last = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if '"train"' in line]
    unread = [{"event": "skipped", "step": 10, "file": name} for name in ("a.jpg", "b.jpg", "a.jpg")]
    _write_log(run, [*unread, *lines, {**last, "nonfinite": 3}])
    text = Page(page(read_training(run))).text
    assert re.search(r"best AP\s+87\.5\s+at step 7", text)
    assert re.search(r"steps skipped\s+3\s+gradients not finite", text)
    assert re.search(r"images skipped\s+2\s+they could not be read", text)


def test_charts_leave_out_what_a_step_does_not_have(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}", evaluated=False)
    first, second, *rest = _log(run)
    _write_log(run, [{**first, "loss": None}, {name: value for name, value in second.items() if name != "lr"}, *rest])
    shown = Page(page(read_training(run)))
    sums = [epoch for loss, epoch in rows(shown, "losses", "loss", "epoch") if loss == "sum"]
    assert sums == pytest.approx([record["epoch"] for record in (second, *rest)], rel=1e-4)
    rates = [epoch for (epoch,) in rows(shown, "learning_rate", "epoch")]
    assert rates == pytest.approx([record["epoch"] for record in (first, *rest)], rel=1e-4)


def test_evaluations_without_coco_metrics_are_shown_by_those_of_voc(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}")
    log = [{**record, "coco": None} for record in _log(run)]
    _write_log(run, log)
    evaluations = [record for record in log if record["event"] == "evaluation"]
    shown = rows(Page(page(read_training(run))), "precision_over_time", "metric", "value")
    assert {name for name, _ in shown} == {"VOC12", "VOC07"}
    precision = [100 * record["voc12"]["mean_ap"] for record in evaluations]
    assert [value for name, value in shown if name == "VOC12"] == pytest.approx(precision, abs=1e-3)
    _write_log(run, [{**record, "voc12": None, "voc07": None} for record in log])
    assert "precision_over_time" not in Page(page(read_training(run))).specs


def test_classes_without_a_mean_have_no_line_of_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}")
    coco = json.loads((run / "metrics.json").read_text())["coco"]
    assert "rule" in json.dumps(Page(page(read_training(run))).specs["class_precision"])
    _changed(run, "metrics.json", coco={**coco, "ap": None}, voc12=None, voc07=None)
    spec = Page(page(read_training(run))).specs["class_precision"]
    assert {"bar", "text"} == {layer["mark"]["type"] for layer in spec["layer"]}


@pytest.mark.parametrize(
    ("detector", "has"),
    [
        ({"decoder": "decodr"}, (False, False)), ({"fixed_size": None, "min_size": None}, (True, False)),
        ({"fixed_size": [64]}, (True, False)), ({"backbone": {"name": "resnet_of_others"}}, (True, False)), ({}, (True, True)),
    ],
)  # fmt: skip
def test_a_detector_that_cannot_be_read_has_no_costs(detector: dict[str, Any], has: tuple[bool, bool], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}", evaluated=False)
    before = json.loads((run / "config.json").read_text())["detector"]
    _changed(run, "config.json", detector={**before, **detector})
    text = Page(page(read_training(run))).text
    assert (", digest " in text, "with the backbone" in text) == has


def test_results_and_data_that_do_not_fit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}")
    training = read_training(run)
    dataset = open_dataset(f"coco:{tmp_path / 'data'}", "val")
    (run / "results.json").write_text('[{"image_id": 1}]')
    with pytest.raises(ReportError, match=r"its detections are not of coco:.*: "):
        make_validation(training, dataset)
    (run / "results.json").unlink()
    with pytest.raises(ReportError, match="the training has no evaluation"):
        make_validation(training, dataset)
    about = json.loads((run / "config.json").read_text())["about"]
    _changed(run, "config.json", about={name: value for name, value in about.items() if name != "data"})
    with pytest.raises(ReportError, match="does not record which data it was trained on; give them with --data SPEC"):
        open_validation(read_training(run))
    with pytest.raises(ReportError, match="there is no such folder; expected that of `nasdsl train --out`"):
        read_training(tmp_path / "none")


def test_data_that_are_gone_or_others(trainings: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trainings / "data_few", data)
    run = write_run(tmp_path / "run", f"coco:{data}")
    moved = data.rename(tmp_path / "moved")
    html = tmp_path / "report.html"
    done = invoke("report", run, "-o", html)
    assert done.exit_code == 0
    assert "without curves, confusion matrix and images: the data" in done.stderr
    shown = Page(html.read_text())
    assert set(shown.specs) == {"losses", "precision_over_time", "learning_rate", "class_precision"}
    assert "takes them from where they are now" in shown.text
    done = invoke("report", run, "-o", html, "--data", f"coco:{moved}", "--top", "2")
    assert done.exit_code == 0, done.stderr
    shown = Page(html.read_text())
    assert {"confusion", "scores"} <= set(shown.specs)
    assert sum(tag == "img" for tag, _ in shown.tags) == 4
    done = invoke("report", run, "-o", html, "--data", f"coco:{trainings / 'data_many'}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "it was evaluated on 5 images, and" in done.stderr
    assert {"confusion", "scores"} <= set(Page(html.read_text()).specs)  # unchanged


@pytest.mark.long
def test_charts_as_files(trainings: Path, few: Page, tmp_path: Path) -> None:
    done = invoke("report", trainings / "few", "-o", tmp_path / "report.html", "--charts", tmp_path / "charts")
    assert done.exit_code == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in few.specs for suffix in ("png", "svg"))


def test_unreadable_images_are_left_out_as_in_the_evaluation(tmp_path: Path) -> None:
    spec = f"coco:{coco_folder(tmp_path / 'data')}"
    run = write_run(tmp_path / "run", spec)
    dataset = open_dataset(spec, "val")
    metrics = json.loads((run / "metrics.json").read_text())
    results = [r for r in json.loads((run / "results.json").read_text()) if r["image_id"] != dataset.image_id(2)]
    (run / "results.json").write_text(json.dumps(results))
    (run / "metrics.json").write_text(json.dumps({**metrics, "images": 4, "unreadable": [f"{dataset.file(2)}: truncated"]}))
    assert list(make_validation(read_training(run), dataset).truth.image_ids) == [0, 1, 3, 4]
    (run / "metrics.json").write_text(json.dumps({**metrics, "images": 4}))
    with pytest.raises(ReportError, match=r"evaluated on 4 images, and .* has 5"):
        make_validation(read_training(run), dataset)


def test_nothing_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data')}")
    (run / "results.json").write_text("[]")
    shown = made(run)
    assert "No detection is right at any threshold" in shown.text
    assert "f1" not in shown.specs
    assert sum(tag == "img" for tag, _ in shown.tags) == 10


def test_nothing_annotated_and_nothing_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"coco:{coco_folder(tmp_path / 'data', objects=0)}")
    (run / "results.json").write_text("[]")
    assert set(made(run).specs) == {"losses", "learning_rate", "precision_over_time"}


# --------------------------------------------------------------------------------------------------------- commands


def test_folders_that_are_neither(tmp_path: Path) -> None:
    for folder, message in (
        (tmp_path, "has no config.json, search.json or journal.jsonl"),
        (tmp_path / "none", "no such folder"),
    ):
        done = invoke("report", folder, "-o", tmp_path / "report.html")
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
    done = invoke("report", tmp_path, "--data", "shapes")
    assert "are for the folder of a training" in done.stderr
    (tmp_path / "config.json").write_text('{"format": "other"}')
    assert "not of the form 'nasdsl run 1'" in invoke("report", tmp_path).stderr


def test_a_failure_is_a_message(trainings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """At the end of a training nothing that goes wrong with the page makes it fail."""
    run = tmp_path / "run"
    shutil.copytree(trainings / "few", run)
    dataset = open_dataset(f"coco:{trainings / 'data_few'}", "val")
    write_training_report(run, dataset)
    assert capsys.readouterr().err == f"wrote {run / 'report.html'}\n"
    whole = (run / "report.html").read_bytes()

    def broken(*_: Any, **__: Any) -> str:
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(sys.modules["nasdsl.report.training.page"], "page", broken)
    write_training_report(run, dataset)
    assert capsys.readouterr().err == "the training is saved, but its report could not be written: no\n"
    assert (run / "report.html").read_bytes() == whole


def test_the_page_of_a_training_with_other_data_says_so(trainings: Path, tmp_path: Path) -> None:
    write_report(trainings / "few", open_dataset(f"coco:{trainings / 'data_many'}", "val"), tmp_path / "report.html")
    shown = Page((tmp_path / "report.html").read_text())
    assert "it was evaluated on 5 images, and" in shown.text
    assert "confusion" not in shown.specs


@pytest.mark.parametrize(
    ("recipe", "step", "message"),
    [
        ({"steps": 12, "epochs": None}, 12, ""),
        ({"steps": None, "epochs": 4.0}, 12, ""),
        ({"steps": 13, "epochs": None}, 12, "the training was not finished: at step 12"),
        ({"steps": None, "epochs": 4.0}, 11, "the training was not finished: at step 11"),
    ],
)
def test_whether_it_is_finished(recipe: dict[str, Any], step: int, message: str) -> None:
    """By its steps: at the last one there are still the seconds of the last evaluation left."""
    records = [{"step": step, "epoch": step / 3, "seconds_left": 1.5}]
    training = SimpleNamespace(steps=records, last_step=step, metrics={"step": step}, part=lambda name: recipe)
    assert _unfinished(training) == message  # type: ignore[arg-type]
