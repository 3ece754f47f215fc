"""The mutants themselves: what is changed, that functions in use change, and what the tests' results are taken for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from torture.mutation import results
from torture.mutation.installed import Unfit, install
from torture.mutation.results import Result
from torture.records import ROOT

SOURCE = '''"""Adds."""
import functools

class Number:
    def __init__(self, value):
        self.value = value

    @property
    def more(self):
        return self.value + 1

@functools.cache
def cached(x):
    """One more."""
    def added(y: int = 3):
        return y + 1
    return added(x)

def endless(n):
    while n > 0:
        n -= 1
    if n:
        raise ValueError("never")

def unused(x):
    return x + 1

def closure(x):
    return lambda: x

held = [Number(1).more, closure(1)]
'''
TESTS = """
import subject

def test_more(): assert subject.Number(1).more == 2
def test_cached(): assert subject.cached(1) > 0
def test_endless(): subject.endless(3)
"""
RUN = """
import json, sys, pytest
from pathlib import Path
from torture.mutation import runner
from torture.mutation.made import mutants
runner.SECONDS = 1.0
folder, found = Path(sys.argv[1]), []
said = lambda mutant, outcome: found.append([mutant.function, mutant.change, *outcome]) or True
known = [m for m in mutants(folder / "subject.py", folder)]
options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(folder / "test_subject.py")]
pytest.main(options, plugins=[runner.Runner(known, ["subject.py"], said, folder)])
(folder / "found.json").write_text(json.dumps(found))
"""


def test_functions_in_use_are_changed_wherever_they_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "installed_subject.py"
    file.write_text(SOURCE)
    import installed_subject as subject  # type: ignore[import-not-found]  # it was written just now

    number = subject.Number(5)
    install(str(file), SOURCE, SOURCE.replace("self.value + 1", "self.value - 1").replace("y + 1", "y - 1"))
    assert (number.more, subject.cached(5)) == (4, 4)
    assert subject.unused(1) == 2
    with pytest.raises(Unfit, match="no function"):
        install(str(file), SOURCE, SOURCE.replace("Adds", "Subtracts"))
    with pytest.raises(Unfit, match="free vars"):
        install(str(file), SOURCE, SOURCE.replace("lambda: x", "lambda: 0"))


def test_what_the_tests_notice_is_killed(tmp_path: Path) -> None:
    """And what is changed: not documentation, types, defaults, words of errors, nor what runs on import."""
    pytest.importorskip("mutmut", reason="only those who run `make mutants` install it")
    (tmp_path / "subject.py").write_text(SOURCE)
    (tmp_path / "test_subject.py").write_text(TESTS)
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    environment = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}:{tmp_path}"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    found = {(function, change): what for function, change, what, _, _ in json.loads((tmp_path / "found.json").read_text())}
    assert found["Number.more", "self.value + 1 → self.value - 1"] == "killed"
    assert found["cached", "y + 1 → y - 1"] == "killed"
    assert found["cached", "1 → 2"] == "survived"
    assert found["endless", "n -= 1 → n += 1"] == "hangs"
    assert found["endless", "0 → 1"] == "killed"
    assert found["unused", "x + 1 → x - 1"] == "not run"
    changes = " ".join(change for _, change in found)
    assert "never" not in changes
    assert "One" not in changes
    assert "3" not in changes
    assert {function for function, _ in found} == {"Number.__init__", "Number.more", "cached", "endless", "unused", "closure"}


def test_equivalent_mutants_are_counted_apart(tmp_path: Path) -> None:
    outcomes = ["killed"] * 17 + ["hangs"] + ["survived"] * 3
    found = [Result("g", f"{n}", "a.py", "f", n, "a | b → `c`", what, "", 1.0, "c0") for n, what in enumerate(outcomes)]
    results.write(found, tmp_path / "r.jsonl")
    assert results.read(tmp_path / "r.jsonl") == found
    table = results.table(found, {"19": "the same"})
    assert "| g | 21 | 18 | 1 | 2 | 0 | 1 | 90.0% |" in table
    assert table.count("a \\| b → 'c'`\n") == 2
    assert "- `a.py`, `f`: `a \\| b → 'c'`: the same\n" in table
    assert "| 85.7% (aim of 90% missed) |" in results.table(found, {})


def test_reasons_are_those_of_mutants_that_were_run_and_survived() -> None:
    survived = {result.name for result in results.read() if not result.is_killed}
    assert set(results.equivalent()) <= survived
