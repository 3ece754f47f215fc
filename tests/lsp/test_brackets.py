"""Brackets that are open, in texts that do not close all of them."""

from __future__ import annotations

import random
import time

import pytest
from machine_speed import slowness

from nasdsl.lsp.brackets import OPENING, OpenBrackets

CLOSERS = tuple(OPENING.values())


def obvious(written: str) -> list[int]:
    """Indices of the brackets that are open at the end: a closing one leaves those that are open in its own."""
    opened: list[int] = []
    for index, sign in enumerate(written):
        if sign in "([{":
            opened.append(index)
        else:
            own = [n for n, at in enumerate(opened) if written[at] == "([{"[")]}".index(sign)]]
            if own:
                del opened[own[-1] :]
    return opened


def read(written: str) -> OpenBrackets[int]:
    opened = OpenBrackets[int]()
    for index, sign in enumerate(written):
        if sign in "([{":
            opened.open(tuple(OPENING)["([{".index(sign)], index)
        else:
            before = obvious(written[:index]), obvious(written[: index + 1])
            left = opened.close(CLOSERS[")]}".index(sign)])
            assert left == (before[0][len(before[1])] if before[0] != before[1] else None)
    return opened


@pytest.mark.parametrize("seed", range(20))
def test_as_the_obvious_way(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(30):
        written = "".join(rng.choices("([{)]}", k=rng.randrange(12)))
        assert read(written).marks == obvious(written), written


def test_closing_brackets_without_their_own_are_cheap() -> None:
    """Case 512010 of the texts: each of 20,000 ``head( }`` was looked for among all that were open."""
    opened = OpenBrackets[int]()
    start = time.process_time()
    for number in range(50_000):
        opened.open("LPAR", number)
        assert opened.close("RBRACE") is None
    assert time.process_time() - start < slowness()
    assert len(opened.marks) == 50_000
