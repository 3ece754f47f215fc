"""The collector is paused while a text is checked, and as it was afterwards."""

from __future__ import annotations

import gc
import inspect
import sys
import traceback
from collections.abc import Iterator

import pytest

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.garbage_collector import paused_collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_paused_to_the_end_of_the_outermost_pause() -> None:
    with paused_collector():
        assert not gc.isenabled()
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_the_pause() -> None:
    with pytest.raises(ValueError, match="x"), paused_collector():
        raise ValueError("x")
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with paused_collector():
        pass
    assert not gc.isenabled()


def test_no_collection_between_the_first_character_and_the_last_finding() -> None:
    """With a collection for each object that is made, none begins within the function."""
    code = inspect.unwrap(check_source).__code__
    within: list[bool] = []

    def hear(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            within.append(any(frame.f_code is code for frame, _ in traceback.walk_stack(sys._getframe())))

    thresholds = gc.get_threshold()
    gc.callbacks.append(hear)
    gc.set_threshold(1)
    try:
        checked = check_source(Source("t.nas", "decoder d { x = = c3 }"))
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(hear)
    assert checked.problems
    assert within
    assert not any(within)
