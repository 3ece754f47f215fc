"""What the tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if os.environ.get("PYTEST_XDIST_WORKER"):
    # Two workers, and the commands that they start, with two threads each would fight over two cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(HERE))  # the tests' own modules: random_decoders, name_free_weights, zoo_files

from zoo_files import ZOO  # noqa: E402


class _FailuresAtOnce:
    """Prints each failed test when it fails, so that a run that is cut off says what had failed by then."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write_line(f"\nfailed: {report.nodeid} ({report.when}, {report.duration:.1f} s)", red=True)
            self.terminal.write_line(report.longreprtext.rstrip().rpartition("\n")[2])


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(session.config, "workerinput"):
        plugins.register(_FailuresAtOnce(terminal))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that need a GPU out where there is none."""
    of_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpu and not _has_gpu():
        items[:] = [item for item in items if item not in of_gpu]
        config.hook.pytest_deselected(items=of_gpu)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(params=ZOO, ids=lambda p: p.stem)
def zoo_path(request: pytest.FixtureRequest) -> Path:
    """Each decoder of the zoo in turn."""
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def own_garbage() -> Iterator[None]:
    """Let the collector leave out what earlier tests of the process left, which would count as time of a test with a bound.

    A long run keeps millions of objects; one full collection over them takes seconds, and happens in any test that makes many.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
