"""Fixtures of the tests of the page about a training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_trainings import coco_folder, write_run


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of trainings, ``few``, ``many`` (classes) and ``unevaluated``, and of data, ``data_few`` and ``data_many``."""
    folder = tmp_path_factory.mktemp("trainings")
    coco_folder(folder / "data_few")
    coco_folder(folder / "data_many", classes=30, images=12)
    write_run(folder / "few", f"coco:{folder / 'data_few'}")
    write_run(folder / "many", f"coco:{folder / 'data_many'}", evaluations=1)
    write_run(folder / "unevaluated", f"coco:{folder / 'data_few'}", evaluated=False)
    return folder
