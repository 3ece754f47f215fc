"""Fixtures of the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import untrained_detector

from nasdsl.data import open_dataset
from nasdsl.detection.weights import save_detector


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector for `shapes`."""
    folder = tmp_path_factory.mktemp("run")
    shapes = open_dataset("shapes:1", "val")
    save_detector(untrained_detector(shapes.classes, shapes.category_ids), folder / "model.pt")
    return folder
