"""Results: conversion from and to detections, files, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nasdsl.evaluation import (
    EvaluationError,
    GroundTruth,
    check_results,
    coco_metrics,
    evaluate,
    from_results,
    only_images,
    read_ground_truth,
    read_results,
    to_results,
    write_results,
)

CATEGORY_IDS = (1, 18, 90)
GOOD = {"image_id": 3, "category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def detections(boxes: Any, labels: Any, scores: Any) -> dict[str, Any]:
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": np.asarray(labels, dtype=np.int64), "scores": np.asarray(scores, dtype=np.float32)}


def test_results_of_tensors() -> None:
    found = detections([[1, 2, 4, 6], [0, 0, 0.5, 1]], [1, 2], [0.5, 0.25])
    expected = [
        {"image_id": "a", "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": "a", "category_id": 90, "bbox": [0, 0, 0.5, 1], "score": 0.25},
    ]
    nothing = detections([], [], [])
    for make in (np.asarray, torch.as_tensor):
        given = [{key: make(value) for key, value in image.items()} for image in (found, nothing)]
        assert to_results(given, ["a", "b"], CATEGORY_IDS) == expected


@given(data=st.data())
def test_results_round_trip(data: st.DataObject) -> None:
    """Detections are the same after a round trip, best first, to the last digit of single precision."""
    images = []
    for _ in range(data.draw(st.integers(0, 3))):
        k = data.draw(st.integers(0, 4))
        numbers = st.floats(0, 500, width=32)
        corners = np.sort(data.draw(hnp.arrays(np.float32, (k, 2, 2), elements=numbers)), axis=1)
        labels = data.draw(hnp.arrays(np.int64, k, elements=st.integers(0, 2)))
        scores = -np.sort(-data.draw(hnp.arrays(np.float32, k, elements=st.floats(0, 1, width=32))))
        images.append(detections(corners.reshape(k, 4), labels, scores))
    back = from_results(to_results(images, list(range(len(images))), CATEGORY_IDS), CATEGORY_IDS)
    assert set(back) == {number for number, image in enumerate(images) if len(image["scores"])}
    for number, found in back.items():
        np.testing.assert_allclose(found["boxes"], images[number]["boxes"], rtol=1e-12)
        np.testing.assert_array_equal(found["labels"], images[number]["labels"])
        np.testing.assert_array_equal(found["scores"], images[number]["scores"])


def test_files_keep_all_digits(scene: Callable[..., Any], tmp_path: Path) -> None:
    truth, results = scene(5, difficult=0.2, crowd=0.2)
    write_results(tmp_path / "results.json", results)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    read, read_truth = read_results(tmp_path / "results.json", truth), read_ground_truth(tmp_path / "truth.json")
    assert (read, read_truth) == (results, truth)
    assert coco_metrics(read_truth, read) == coco_metrics(truth, results)
    write_results(tmp_path / "results.json", [])
    assert read_results(tmp_path / "results.json") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "truth.json"]


def test_numpy_numbers_are_written(tmp_path: Path) -> None:
    box = list(np.array([1.5, 2, 3, 4], dtype=np.float32))
    write_results(tmp_path / "r.json", [{**GOOD, "bbox": box, "score": np.float64(0.5)}])
    assert read_results(tmp_path / "r.json")[0]["bbox"] == [1.5, 2, 3, 4]


def test_invalid_results_do_not_replace_a_file(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", [GOOD])
    with pytest.raises(EvaluationError, match="score is nan"):
        write_results(tmp_path / "r.json", [{**GOOD, "score": float("nan")}])
    assert read_results(tmp_path / "r.json") == [GOOD]


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_results(tmp_path / "folder", [GOOD])
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("found", "image_ids", "message"),
    [
        ([detections([[0, 0, 1, 1]], [3], [0.5])], [1], "image 1: label 3; expected 0 to 2"),
        ([detections([[0, 0, 1, 1]], [-1], [0.5])], [1], "image 1: label -1; expected 0 to 2"),
        ([detections([[0, 0, 1, 1]], [0, 1], [0.5])], [1], "image 1: 1 boxes, 2 labels, 1 scores"),
        ([detections([[0, 0, 1, 1]], [0], [0.5])], [1, 2], "1 detections for 2 image ids"),
        ([detections([[0, 0, float("inf"), 1]], [0], [0.5])], [1], "expected four finite numbers"),
        ([detections([[5, 0, 1, 1]], [0], [0.5])], [1], "expected width and height of 0 or more"),
        ([detections([[0, 0, 1, 1]], [0], [float("nan")])], [1], "score is nan; expected a finite number"),
    ],
)
def test_invalid_detections(found: Any, image_ids: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        to_results(found, image_ids, CATEGORY_IDS)


TRUTH = {"images": [{"id": 3}], "categories": [{"id": 18, "name": "dog"}], "annotations": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "4"}, r"results\[1\]: image_id '4' is not in the ground truth; its ids are 3"),
        ({"image_id": 3.5}, r"image_id is 3\.5; expected an integer or a string"),
        ({"image_id": 4}, "image_id 4 is not in the ground truth"),
        ({"image_id": None}, "image_id is None; expected an integer or a string"),
        ({"image_id": [3]}, r"image_id is \[3\]"),
        ({"category_id": 17}, "category_id 17 is not in the ground truth; its ids are 18"),
        ({"category_id": "dog"}, "category_id is 'dog'; expected an integer"),
        ({"score": None}, "score is None"),
        ({"score": True}, "score is True"),
        ({"score": float("inf")}, "score is inf"),
        ({"bbox": [1, 2, 3]}, "expected four finite numbers"),
        ({"bbox": "1234"}, "expected four finite numbers"),
        ({"bbox": [1, 2, -3, 4]}, "width and height of 0 or more"),
        ({"bbox": None}, "bbox is None"),
    ],
)
def test_invalid_results(change: dict[str, Any], message: str) -> None:
    check_results([GOOD], TRUTH)
    with pytest.raises(EvaluationError, match=message):
        check_results([GOOD, {**GOOD, **change}], TRUTH)


def test_missing_keys_and_number_of_problems() -> None:
    with pytest.raises(
        EvaluationError, match=r"12 entries are wrong\n  results\[0\]: no bbox, score;.*\n(.*\n){9}  and 2 more"
    ):
        check_results([{"image_id": 1, "category_id": 1}] * 12)
    with pytest.raises(EvaluationError, match=r"results\[0\]: 7; expected an object"):
        check_results([7])  # type: ignore[list-item]
    with pytest.raises(EvaluationError, match="category_id 18; expected one of 1, 90"):
        from_results([GOOD], (1, 90))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: .* line 1, column 1"),
        ('[{"image_id": 1,', "not JSON: .* line 1"),
        ('{"annotations": []}', "a dict; expected a list of COCO results"),
        ('[{"image_id": 1}]', "no category_id, bbox, score"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": NaN}]', "score is nan"),
        ("[" * 100_000, "not JSON"),
        ("\udcff", "not JSON"),
        ("[" + "9" * 5000 + "]", "not JSON"),
    ],
    ids=range(8),
)
def test_invalid_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EvaluationError, match=f"{path}: .*(\n.*)?{message}"):
        read_results(path)


ANNOTATION = {"id": 1, "image_id": 3, "category_id": 18, "bbox": [0, 0, 2, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no list `images`"),
        ({"images": [{"id": 3}, {"id": 3}]}, r"images\[1\]: id 3 is there twice"),
        ({"images": [{"id": 3}, {"id": "3"}]}, "some ids are integers and some are strings, such as 3 and '3'"),
        ({"images": [{"id": 3}, {"id": "a"}]}, "some ids are integers and some are strings, such as 3 and 'a'"),
        (
            {"images": [{"id": "3"}, {"id": "03"}], "annotations": [ANNOTATION]},
            "image_id 3 may mean '03' or '3', as some ids are in quotes",
        ),
        ({"images": [{"id": 3}, {}]}, r"images\[1\]: id is None"),
        ({"categories": [{"id": 18}]}, r"categories\[0\]: .* expected an object with an integer id and a name"),
        ({"categories": [{"id": 18, "name": "a"}, {"id": 18, "name": "b"}]}, "id 18 is there twice"),
        ({"annotations": [{**ANNOTATION, "image_id": 4}]}, r"annotations\[0\] \(id 1\): image_id 4 is the id of no image"),
        ({"annotations": [{**ANNOTATION, "image_id": [3]}]}, r"image_id \[3\] is the id of no image"),
        ({"annotations": [{**ANNOTATION, "category_id": 1}]}, "category_id 1 is the id of no category"),
        ({"annotations": [{**ANNOTATION, "bbox": [0, 0, float("nan"), 1]}]}, "expected four finite numbers"),
        ({"annotations": [{**ANNOTATION, "area": None}]}, "area is None"),
        ({"annotations": [5]}, r"annotations\[0\]: 5; expected an object"),
    ],
)
def test_invalid_ground_truth(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=message):
        GroundTruth.of({**TRUTH, **change})
    (tmp_path / "truth.json").write_text(json.dumps({**TRUTH, **change}))
    with pytest.raises(EvaluationError, match=f"truth.json: .*(\n.*)?{message}"):
        read_ground_truth(tmp_path / "truth.json")


def test_only_some_images(scene: Callable[..., Any]) -> None:
    truth, results = scene(2)
    kept = [image["id"] for image in truth["images"][:4]]
    part = only_images(truth, kept)
    assert [image["id"] for image in part["images"]] == kept
    assert {a["image_id"] for a in part["annotations"]} <= set(kept)
    check_results([r for r in results if r["image_id"] in kept], part)
    with pytest.raises(EvaluationError, match="image id 5 is not in the ground truth"):
        only_images(truth, [5])


@pytest.mark.parametrize("of_truth", [int, float, str])
@pytest.mark.parametrize("of_results", [int, float, str])
def test_every_spelling_of_ids(
    scene: Callable[..., Any], of_truth: Callable[[int], Any], of_results: Callable[[int], Any], tmp_path: Path
) -> None:
    truth, results = scene(4, difficult=0.2, crowd=0.2)
    spelled_truth = {
        "images": [{**image, "id": of_truth(image["id"])} for image in truth["images"]],
        "categories": [{**category, "id": of_truth(category["id"])} for category in truth["categories"]],
        "annotations": [
            {**a, "image_id": of_results(a["image_id"]), "category_id": of_results(a["category_id"])}
            for a in truth["annotations"]
        ],
    }
    spelled = [{**r, "image_id": of_results(r["image_id"]), "category_id": of_results(r["category_id"])} for r in results]
    assert evaluate(spelled_truth, spelled) == evaluate(truth, results)
    (tmp_path / "results.json").write_text(json.dumps(spelled))
    (tmp_path / "truth.json").write_text(json.dumps(spelled_truth))
    read_truth = read_ground_truth(tmp_path / "truth.json")
    read = read_results(tmp_path / "results.json", read_truth)
    assert evaluate(read_truth, read) == evaluate(truth, results)
    assert [type(r["image_id"]) for r in read] == [str if of_truth is str else int] * len(results)
    assert all(type(r["category_id"]) is int for r in read)
    kept = [image["id"] for image in truth["images"][:4]]
    part, spelled_part = only_images(truth, kept), only_images(spelled_truth, kept)
    assert len(spelled_part["annotations"]) == len(part["annotations"]) > 0
    assert GroundTruth.of(spelled_part).categories == GroundTruth.of(part).categories
    assert from_results(spelled, [2, 5, 8]).keys() == {of_results(i) for i in {r["image_id"] for r in results}}


def test_partly_quoted_ids_become_integers() -> None:
    truth = {**TRUTH, "images": [{"id": 3}, {"id": "4"}], "annotations": [{**ANNOTATION, "image_id": 4.0}]}
    assert GroundTruth.of(truth).image_ids == (3, 4)
    assert GroundTruth.of(truth).boxes[0].image_id == 4
