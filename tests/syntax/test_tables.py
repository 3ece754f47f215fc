"""Runs of reductions that keep a node are done at once (`Tables.quick_rows`): nothing comes of it but time."""

from __future__ import annotations

import random

import pytest
from test_printer import SHIPPED
from test_recovery import tokens_of

from nasdsl.syntax.parser import tables
from nasdsl.syntax.tables import Tables, TreeParser


def step_by_step() -> Tables:
    """The tables with one reduction at a time."""
    made = Tables(tables().rows, tables().first, tables().last)
    vars(made)["quick_rows"] = made.rows
    return made


@pytest.mark.parametrize("name", SHIPPED)
def test_the_parser_is_in_the_same_states(name: str) -> None:
    """After each token, and where none fits; in the text as it is and with tokens of it left out, doubled and exchanged."""
    tokens = tokens_of(SHIPPED[name])
    numbers = random.Random(name)
    stepping = step_by_step()
    texts = [tokens]
    for _ in range(20):
        changed = tokens.copy()
        at, other = numbers.randrange(len(tokens)), numbers.randrange(len(tokens))
        changed[at : at + 1] = numbers.choice([[], [tokens[at]] * 2, [tokens[other]]])
        texts.append(changed)
    for each in texts:
        quick, slow = TreeParser(tables()), TreeParser(stepping)
        for number in range(len(each)):
            assert quick.feed(each, number, number + 1) == slow.feed(each, number, number + 1)
            assert (quick.states, quick.starts, quick.read) == (slow.states, slow.starts, slow.read)
            if quick.read <= number:
                break
        assert quick.tree == slow.tree
        if each is tokens:
            assert quick.tree is not None


def test_there_are_such_runs() -> None:
    assert any(tables().quick_rows[state] != tables().rows[state] for state in tables().rows)
