"""All metrics at once: values, table, JSON, and no import of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nasdsl.evaluation import EvaluationError, coco_metrics, evaluate, voc_metrics

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def printed(table: Any) -> list[str]:
    console = Console(width=120, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_evaluate_computes_all_metrics(scene: Callable[..., Any]) -> None:
    truth, results = scene(0, difficult=0.2)
    found = evaluate(truth, results)
    assert found.coco == coco_metrics(truth, results)
    assert found.voc07 == voc_metrics(truth, results, "voc07")
    assert found.voc12 == voc_metrics(truth, results, "voc12")
    counted = sum(not a["difficult"] for a in truth["annotations"])
    assert (found.images, found.boxes, found.detections) == (12, counted, len(results))


def test_only_some_metrics(scene: Callable[..., Any]) -> None:
    truth, results = scene(0)
    found = evaluate(truth, results, ("voc07",))
    assert (found.coco, found.voc12) == (None, None)
    assert printed(found.table())[0].split() == ["class", "boxes", "VOC07"]
    for metrics in ((), ("coco", "voc10")):
        with pytest.raises(EvaluationError, match="expected some of coco, voc07, voc12"):
            evaluate(truth, results, metrics)


def test_the_table_and_the_summary(scene: Callable[..., Any]) -> None:
    truth, results = scene(0)
    truth["categories"].append({"id": 50, "name": "[red]rare"})
    found = evaluate(truth, results)
    assert found.coco is not None
    assert found.voc12 is not None
    head, *lines = printed(found.table())
    assert head.split() == ["class", "boxes", "AP", "AP50", "AP75", "AR100", "VOC07", "VOC12"]
    rows = [line.split() for line in lines if line.strip()]
    first = found.coco.classes[0]
    assert rows[0][:5] == ["class", "0", str(first.boxes), f"{100 * first.ap:.1f}", f"{100 * first.ap50:.1f}"]
    assert rows[0][-1] == f"{100 * found.voc12.classes[0].ap:.1f}"
    assert rows[3] == ["[red]rare", "0", *["–"] * 6]  # noqa: RUF001
    assert rows[4][:3] == ["mean", str(found.boxes), f"{100 * found.coco.ap:.1f}"]
    summary = found.summary()
    assert summary.startswith(f"AP {100 * found.coco.ap:.1f}, AP50 {100 * found.coco.ap50:.1f}, ")
    assert summary.endswith(f"(12 images, {found.boxes} boxes, {found.detections} detections)")


def test_json_has_null_for_nan(scene: Callable[..., Any]) -> None:
    truth, results = scene(0)
    truth["categories"].append({"id": 50, "name": "rare"})
    found = evaluate(truth, results)
    assert found.coco is not None
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert value["coco"]["ap"] == found.coco.ap
    assert value["coco"]["ar"]["100"] == found.coco.ar[100]
    assert value["coco"]["classes"][3] == {
        "category_id": 50,
        "name": "rare",
        "boxes": 0,
        **dict.fromkeys(("ap", "ap50", "ap75", "ar")),
    }
    assert value["voc07"]["classes"][0]["ap"] == found.voc07.classes[0].ap  # type: ignore[union-attr]


def test_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from nasdsl.evaluation import evaluate, read_results
truth = {"images": [{"id": "a"}], "categories": [{"id": 1, "name": "x"}],
         "annotations": [{"id": 1, "image_id": "a", "category_id": 1, "bbox": [0, 0, 5, 5]}]}
evaluate(truth, read_results(sys.argv[1], truth))
assert not {"torch", "matplotlib"} & set(sys.modules)
"""
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": "a", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 1}]')
    subprocess.run([sys.executable, "-c", code, path], check=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared test data beside the checkout is missing: {SHARED}")
def test_perfect_results_on_real_data() -> None:
    truth = json.loads((SHARED / "data" / "coco_cc_dev" / "annotations" / "instances_train.json").read_text())
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1.0}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    found = evaluate(truth, results)
    assert found.coco is not None
    assert found.coco.ap == pytest.approx(1)
    assert [c.boxes for c in found.coco.classes] == [
        sum(a["category_id"] == c.category_id and not a["iscrowd"] for a in truth["annotations"]) for c in found.coco.classes
    ]
