from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "diagnostics"))  # malformed

from editor import Editor, editor


@pytest.fixture(scope="session")
def shared_editor() -> Iterator[Editor]:
    """An editor that is open for all tests of a process."""
    with editor() as made:
        yield made


@pytest.fixture
def ed(shared_editor: Editor) -> Editor:
    return shared_editor
