"""The summary of a report of coverage.py, and what the page says of it."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from torture.coverage import results
from torture.coverage.results import Covered, Part, Place

SOURCE = """import sys

class Sign:
    def of(self, x):
        if x > 0:
            return 1
        return -1

def unused():
    return 2

if Sign().of(3) == 1:
    print("positive")
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report in JSON of the program above, as `make coverage` makes it."""
    pytest.importorskip("coverage")
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "inner" / "sign.py").write_text(SOURCE)
    for arguments in (["run", "--branch", "package/inner/sign.py"], ["json", "-q", "-o", "c.json"]):
        subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "c.json"


def test_what_is_not_run_is_found_by_function(report: Path) -> None:
    covered = results.summary(report, "make test")
    path = "package/inner/sign.py"
    assert covered.places == (
        Place(path, "Sign.of", (7,), ((5, 7),)),
        Place(path, "unused", (10,), ()),
        Place(path, "", (), ((12, -1),)),
    )
    assert covered.parts == (Part("package/inner", 10, 8, 4, 2),)


def test_it_is_read_as_it_was_written(report: Path, tmp_path: Path) -> None:
    covered = results.summary(report, "make test")
    results.write(covered, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == covered
    assert results.read(tmp_path / "none.json") is None


def test_the_table() -> None:
    places = (
        Place("a/b.py", "f", (3, 4), ()),
        Place("a/b.py", "C.g", (7,), ((8, 9), (8, -2))),
        Place("a/c.py", "", (), ((1, 2),)),
    )
    covered = Covered("abc", "a machine", "make test", (Part("a", 10, 7, 4, 1), Part("d", 5, 5, 0, 0)), places)
    text = results.table(covered, {"on a GPU alone": ["a/b.py::C.*"], "never": ["x"]})
    assert "| a | 10 | 70.0% | 4 | 25.0% |" in text
    assert "| d | 5 | 100.0% | 0 | none |" in text
    assert "| altogether | 15 | 80.0% | 4 | 25.0% |" in text
    assert "| on a GPU alone | 1 | 2 | `a/b.py` 3 |" in text
    assert "never" not in text
    assert "| no reason yet | 2 | 1 | `a` 3 |" in text
    assert "a/b.py::C.g" not in text


def test_every_reason_is_needed() -> None:
    """What is covered by now has no reason any more."""
    covered = results.read()
    names = [] if covered is None else [place.name for place in covered.places]
    for reason, patterns in results.reasons().items():
        for pattern in patterns:
            assert any(fnmatchcase(name, pattern) for name in names), f"{pattern} ({reason}) is covered"
