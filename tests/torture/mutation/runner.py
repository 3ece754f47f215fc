"""Runs tests against mutants: a process imports everything, and a fork of it has one mutant and runs the tests of its line."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from nasdsl.files import make_folder, read_json, write_json
from torture.mutation.installed import Unfit, install
from torture.mutation.made import Mutant
from torture.records import ROOT

FACTOR = 8
"""Times the processor time of a test that it may take by the clock with a mutant, and `SECONDS` more."""
SECONDS = 15.0
BUDGET = 30.0
"""Seconds of tests that a mutant is run against, the shortest ones: what survives may be noticed by the others."""
BROKEN = 70
"""Exit code of a fork in which something other than the tests goes wrong."""
GIGABYTES = 6
"""That a mutant may take more than the process has before."""

Outcome = tuple[str, str, float]
"""``killed``, ``hangs``, ``survived``, ``not run`` or ``unfit``; the test that fails; seconds."""


@dataclass(eq=False)
class Runner:
    """A plugin of pytest, which runs mutants in the place of the loop over the tests.

    Attributes:
        mutants: to run, in this order.
        files: all sources of the group.
        report: is told what became of each; whether to go on.
        root: folder of the sources.
    """

    mutants: Sequence[Mutant]
    files: Sequence[str]
    report: Callable[[Mutant, Outcome], bool]
    root: Path = ROOT
    was_stopped: bool = False
    failed: str = ""
    why: str = ""
    _seconds: dict[str, float] = field(default_factory=dict)
    _tests: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants in the place of the tests."""
        try:
            self._loop(session)
        except KeyboardInterrupt:  # pytest would print all that is in it, which takes minutes
            self.was_stopped = True
        return True

    def _loop(self, session: pytest.Session) -> None:
        """Find out which lines each test runs, then run the mutants."""
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one folder, not one for each fork
        items = {item.nodeid: item for item in session.items}
        session.config.get_terminal_writer()._file = open(os.devnull, "w")  # noqa: SIM115  # of the tests nothing is printed
        for file in self.files:  # some are imported by tests only
            import_module(".".join(Path(file).with_suffix("").parts).removesuffix(".__init__"))
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            for module in dict.fromkeys(item.path for item in session.items):
                self._read_or_record(module, [item for item in session.items if item.path == module])
            for mutant in self.mutants:
                names = {name for line in _range(mutant) for name in self._tests.get((mutant.path, line), ())}
                # What runs on import or fills a cache is in no test's lines: then any test may notice it.
                found = self._run(mutant, [items[name] for name in self._within_budget(names or items)])
                if not self.report(mutant, ("not run", *found[1:]) if found[0] == "survived" and not names else found):
                    break

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first test that fails."""
        if report.failed and not self.failed:
            self.failed, self.why = report.nodeid, report.longreprtext

    def _within_budget(self, names: Iterable[str]) -> Iterator[str]:
        """The shortest tests first, as many as fit."""
        taken = 0.0
        for name in sorted(names, key=lambda name: (self._seconds[name], name)):
            taken += self._seconds[name]
            if taken > BUDGET:
                return
            yield name

    def _read_or_record(self, module: Path, items: Sequence[pytest.Item]) -> None:
        """Which lines the tests of a file run, and their times, kept in build/mutants until it or a source changes."""
        contents = [path.read_bytes() for path in (module, *(self.root / file for file in self.files))]
        names = [*self.files, *(item.nodeid for item in items)]
        kept = self.root / "build" / "mutants" / f"{hashlib.sha256(repr((contents, names)).encode()).hexdigest()}.json"
        if not kept.exists():
            make_folder(kept.parent)
            began = time.monotonic()
            write_json(kept, self._record(items))
            print(f"lines of {module.name}: {time.monotonic() - began:.0f} s", flush=True)
        found = read_json(kept)
        self._seconds |= found["seconds"]
        for file, lines in found["lines"].items():
            for line, tests in lines.items():
                self._tests.setdefault((file, int(line)), []).extend(test for test in tests if test)

    def _record(self, items: Sequence[pytest.Item]) -> dict[str, Any]:
        """Run tests without a mutant."""

        def work() -> dict[str, Any]:
            os.environ["COVERAGE_CORE"] = "ctrace"  # others know no contexts
            coverage = Coverage(data_file=None, include=[str(self.root / file) for file in self.files], config_file=False)
            coverage.set_option("run:disable_warnings", ["no-data-collected"])  # where no test of this file runs a line of them
            _clear_caches()
            coverage.start()
            seconds = {}
            for item, following in zip(items, [*items[1:], None], strict=True):
                coverage.switch_context(item.nodeid)
                began = time.monotonic()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                seconds[item.nodeid] = time.monotonic() - began
            coverage.stop()
            lines = {file: coverage.get_data().contexts_by_lineno(str(self.root / file)) for file in self.files}
            return {"seconds": seconds, "lines": lines, "failed": self.failed, "why": self.why}

        found = _forked(work, 1200)[0]
        if found is None or found["failed"]:
            raise RuntimeError(f"the tests fail without a mutant: {found or items[0].path}")
        recorded: dict[str, Any] = found
        return recorded

    def _run(self, mutant: Mutant, items: Sequence[pytest.Item]) -> Outcome:
        def work() -> dict[str, str]:
            source = (self.root / mutant.path).read_text(encoding="utf-8")
            try:
                install(str(self.root / mutant.path), source, mutant.code())
            except Unfit as error:
                return {"outcome": "unfit", "test": str(error)}
            _clear_caches()
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.add_marker(pytest.mark.timeout(SECONDS + FACTOR * self._seconds[item.nodeid]), append=False)
                try:
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                except BaseException as error:  # what ends pytest: SystemExit, KeyboardInterrupt
                    return {"outcome": "killed", "test": f"{item.nodeid}: {type(error).__name__}"}
                if self.failed:
                    return {"outcome": "hangs" if "Timeout (>" in self.why else "killed", "test": self.failed}
            return {"outcome": "survived", "test": ""}

        began = time.monotonic()
        found, hangs = _forked(work, SECONDS + FACTOR * sum(self._seconds[item.nodeid] for item in items))
        seconds = round(time.monotonic() - began, 2)
        if found is None:  # it hangs, takes too much memory, or ends the process of the tests
            return "hangs" if hangs else "killed", "" if hangs else "(the process ends)", seconds
        return found["outcome"], found["test"], seconds


def _clear_caches() -> None:
    """Forget what functions of the package gave while tests were collected."""
    for value in gc.get_objects():
        if type(value) is functools._lru_cache_wrapper and value.__module__.startswith("nasdsl"):
            value.cache_clear()


def _range(mutant: Mutant) -> range:
    return range(mutant.lines[0], mutant.lines[1] + 1)


def _forked(work: Callable[[], Mapping[str, Any]], seconds: float) -> tuple[Any, bool]:
    """What `work` gives in a fork of this process, None if it ends before; and whether it ran out of time.

    Args:
        seconds: of processor time; it may take twice as long by the clock.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            os.close(reads)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
            with open("/proc/self/statm") as statm:
                most = int(statm.read().split()[0]) * resource.getpagesize() + (GIGABYTES << 30)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            data = json.dumps(work()).encode()
            with open(writes, "wb") as file:
                file.write(data)
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)
        finally:
            os._exit(0)
    os.close(writes)
    ended = time.monotonic() + 2 * seconds
    parts: list[bytes] = []
    os.set_blocking(reads, False)
    has_ended = False
    try:
        while not has_ended and time.monotonic() < ended:
            try:
                parts.append(os.read(reads, 1 << 20))
                has_ended = not parts[-1]
            except BlockingIOError:
                time.sleep(0.002)
    finally:
        os.close(reads)
        if not has_ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the tests have started
    data = b"".join(parts)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == BROKEN:
        raise RuntimeError("a mutant could not be run")
    hangs = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    return (json.loads(data) if data and not hangs else None), hangs
