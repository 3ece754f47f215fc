"""Plots of precision-recall curves."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nasdsl.evaluation import Curve, EvaluationError, draw_curves, precision_recall
from nasdsl.evaluation.curves import _thinned


def make_curve(right: list[bool], boxes: int, name: str = "cell") -> Curve:
    return Curve(1, name, boxes, np.cumsum(right, dtype=np.int64), np.linspace(1, 0, len(right)))


@pytest.mark.parametrize("classes", [1, pytest.param(8, marks=pytest.mark.long), pytest.param(9, marks=pytest.mark.long)])
def test_plots_of_few_and_many_classes(scene: Callable[..., Any], classes: int, tmp_path: Path) -> None:
    curves = precision_recall(*scene(1, classes=classes, images=30))
    assert len(curves) == classes
    draw_curves(curves, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 20


def test_every_class_has_a_line_and_files_are_reproducible(scene: Callable[..., Any], tmp_path: Path) -> None:
    curves = [*precision_recall(*scene(1, classes=3)), make_curve([], 0, "rare"), make_curve([], 5, "never $found$ <&>")]
    for name in ("a.svg", "b.svg"):
        draw_curves(curves, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    ET.fromstring(text)
    colours = [colour for colour in ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00") if colour in text]
    assert len(colours) == 4  # three classes and the one that was never found; not the one without boxes


def test_errors_of_plotting(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"ends in \.svg, \.png, \.pdf; found '\.gif'"):
        draw_curves([make_curve([True], 1)], tmp_path / "curves.gif")
    for curves in ([], [make_curve([True], 0)]):
        with pytest.raises(EvaluationError, match="no class has boxes"):
            draw_curves(curves, tmp_path / "curves.svg")
    assert not list(tmp_path.iterdir())


def test_a_long_curve_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(50_000) < np.linspace(1, 0, 50_000)).tolist()
    curve = make_curve(right, 30_000)
    recall, precision = _thinned(curve, bins=100)
    assert len(recall) < 250
    assert (recall[0], recall[-1], precision[-1]) == (0, curve.recall[-1], curve.precision[-1])
    assert np.all(np.diff(recall) >= 0)
    integrate = np.trapezoid if hasattr(np, "trapezoid") else np.trapz  # before and after numpy 2
    assert integrate(precision, recall) == pytest.approx(curve.ap("voc12"), abs=0.01)


def test_a_short_curve_keeps_its_corners() -> None:
    recall, precision = _thinned(make_curve([False, True, False, False, True], 2), bins=100)
    assert recall.tolist() == [0, 0, 0.5, 0.5, 1]
    assert precision.tolist() == [0, 0, 0.5, 0.25, 0.4]
