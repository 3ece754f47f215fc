"""Statistics of trials, against slow and simple implementations."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_searches import space

from nasdsl.report.charts import moving_average
from nasdsl.report.search import statistics
from nasdsl.search.trial import Trial
from nasdsl.spaces import Filled, Space, loads_space

HEAD = space("head")
numbers = st.floats(-100, 100)


def trials_of(fillings: list[list[int]], found: Space = HEAD) -> list[Trial]:
    return [Trial(n, Filled("text", i), None, "ok", reward=0.0, score=0.0) for n, i in enumerate(fillings)]


def fillings_of(found: Space = HEAD) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.tuples(*(st.integers(0, d.size - 1) for d in found.domains)).map(list), max_size=120)


@given(st.lists(numbers, max_size=40), st.integers(1, 12))
def test_moving_average(values: list[float], window: int) -> None:
    slow = [fmean([values[j] for j in range(len(values)) if i - window < j <= i]) for i in range(len(values))]
    assert moving_average(values, window) == pytest.approx(slow)


@given(st.lists(numbers, max_size=40))
def test_best_so_far(values: list[float]) -> None:
    assert statistics.best_so_far(values) == [max(values[: i + 1]) for i in range(len(values))]


@given(st.lists(numbers, max_size=60))
def test_at_most_a_quarter_of_the_values_are_outliers(values: list[float]) -> None:
    bound = statistics.outlier_bound(values)
    out = [] if bound is None else [value for value in values if value < bound]
    assert len(out) <= len(values) / 4
    assert (bound is None) or out


def test_outlier_bound() -> None:
    assert statistics.outlier_bound([-2 - 0.01 * i for i in range(20)]) is None
    bound = statistics.outlier_bound([*(-2 - 0.01 * i for i in range(20)), -14.0])
    assert bound is not None
    assert -14 < bound < -2.2


@given(fillings_of(), st.integers(1, 60))
def test_fully_shared_heads_of_each_window(fillings: list[list[int]], size: int) -> None:
    found = statistics.fully_shared_heads(trials_of(fillings), HEAD, size)
    # `share` is the first hole of the space: decision 0 with the alternatives 0 to 6.
    slow = []
    for begin in range(0, len(fillings), size):
        end = min(begin + size, len(fillings))
        slow.append(
            (
                begin,
                end - 1,
                sum("share=0," in f"{HEAD.decode(f)},".replace(")", ",") for f in fillings[begin:end]),
                end - begin,
            )
        )
    assert [tuple(window) for window in found] == slow
    assert all(0 <= window.share <= 1 for window in found)


def test_windows_are_of_50_trials_by_default() -> None:
    found = statistics.fully_shared_heads(trials_of([[0] * 7] * 30 + [[1] + [0] * 6] * 75), HEAD)
    assert [tuple(w) for w in found] == [(0, 49, 30, 50), (50, 99, 0, 50), (100, 104, 0, 5)]


def test_a_space_without_a_hole_in_share_has_no_such_windows() -> None:
    fpn = space("fpn")
    assert statistics.share_slot(fpn) is None
    assert statistics.fully_shared_heads(trials_of([[0] * 35], fpn), fpn) == []


def test_uniform_probability() -> None:
    slot = statistics.share_slot(HEAD)
    assert slot is not None
    assert statistics.uniform_probability(slot, "0") == pytest.approx(1 / 7)


def test_a_share_inside_an_alternative_counts_where_it_is_chosen() -> None:
    nested = loads_space("""
    choice late = 0 | 4
    decoder nested {
      input c3
      fpn(width=32, norm=bn) { output p3 = c3 }
      head(width=32, norm=gn, share=?(0 | ?late)) { conv_1x1 -> conv_1x1 -> conv_1x1 -> conv_1x1 }
      predict fcos()
    }
    """)
    slot = statistics.share_slot(nested)
    assert slot is not None
    assert [statistics.uniform_probability(slot, text) for text in ("0", "4", "2")] == [0.75, 0.25, 0.0]
    trials = trials_of([[0, 0], [0, 1], [1, 0], [1, 1]], nested)
    assert [nested.decode(trial.indices).partition("share=")[2][0] for trial in trials] == ["0", "0", "0", "4"]
    assert [tuple(window) for window in statistics.fully_shared_heads(trials, nested, 2)] == [(0, 1, 2, 2), (2, 3, 1, 2)]


@given(fillings_of(), st.integers(1, 50))
def test_frequencies(fillings: list[list[int]], size: int) -> None:
    (choice,) = statistics.choices(HEAD)
    assert (choice.name, len(choice.domains)) == ("head_op", 6)
    found = statistics.frequencies(trials_of(fillings), HEAD, choice, size)
    assert list(found) == list(choice.alternatives)
    for begin in range(0, len(fillings), size):
        part = fillings[begin : begin + size]
        layers = [
            word
            for f in part
            for word in str(HEAD.decode(f)).partition("share=")[2].partition("{")[2].partition("}")[0].split()
            if word != "->"
        ]
        for name, rows in found.items():
            window = rows[begin // size]
            assert (window.matching, window.total) == (layers.count(name), len(layers))


NESTED = loads_space("""
choice heavy = conv_3x3 | sep_3x3
choice op = skip | ?heavy
decoder nested {
  input c3, c4
  fpn(width=32, norm=bn) { output p3 = ?op(c3), p4 = ?op(c4) }
  head(width=32, norm=gn) { ?(conv_3x3 | skip) }
  predict fcos(centerness=cls)
}
""")


def test_holes_inside_an_alternative_are_counted_only_if_it_is_chosen() -> None:
    named = {choice.name: choice for choice in statistics.choices(NESTED)}
    assert set(named) == {"op", "heavy", "conv_3x3 | skip"}
    trials = [t for n in range(40) for t in trials_of([list(NESTED.sample(n).indices)], NESTED)]
    heavy = statistics.frequencies([replace(t, number=n) for n, t in enumerate(trials)], NESTED, named["heavy"], 40)
    texts = [str(NESTED.decode(t.indices)).partition("head(")[0] for t in trials]
    for name in ("conv_3x3", "sep_3x3"):
        assert heavy[name][0].matching == sum(text.count(name) for text in texts)
    assert heavy["sep_3x3"][0].total == sum(text.count("conv_3x3") + text.count("sep_3x3") for text in texts)


def test_windows_in_which_no_hole_of_a_choice_is_active_are_left_out() -> None:
    heavy = next(choice for choice in statistics.choices(NESTED) if choice.name == "heavy")
    skipped, chosen = [0, 1, 0, 1, 0], [1, 1, 0, 0, 0]
    found = statistics.frequencies(trials_of([skipped, skipped, chosen, skipped], NESTED), NESTED, heavy, 2)
    assert [tuple(window) for window in found["sep_3x3"]] == [(2, 3, 1, 1)]


def test_importances_of_a_worked_example() -> None:
    """The first hole adds 0 or 1, the head 0 or 0.5. The second hole, and what is inside the first, is always the same."""
    fillings = [[0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1]]
    trials = trials_of(fillings, NESTED)
    rewarded = [replace(t, reward=r) for t, r in zip(trials, (0.0, 0.5, 1.0, 1.5), strict=True)]
    unevaluated = replace(trials[0], number=4, verdict="rejected", reward=None)
    found = statistics.importances([*rewarded, unevaluated], NESTED)
    assert [(one.name, one.decisions, one.share) for one in found] == [("op", 1, 0.8), ("conv_3x3 | skip", 1, 0.2)]
    assert statistics.importances(trials, NESTED) == []  # of rewards that are all the same


def test_diagnostics_that_are_no_numbers_have_no_curve() -> None:
    reports = ({"beta": 0.5, "annealed": False}, {"beta": 0.5, "annealed": True}, {"beta": 0.25})
    trials = [replace(t, diagnostics=d) for t, d in zip(trials_of([[]] * 3), reports, strict=True)]
    assert statistics.diagnostics(trials) == {"beta": [(0, 0.5), (2, 0.25)]}


def slow_tau(pairs: list[tuple[int, int]]) -> float | None:
    concordant = discordant = only_x = only_y = 0
    for (a, b), (c, d) in combinations(pairs, 2):
        if a == c and b == d:
            continue
        if a == c:
            only_y += 1
        elif b == d:
            only_x += 1
        elif (a < c) == (b < d):
            concordant += 1
        else:
            discordant += 1
    free = (concordant + discordant + only_x) * (concordant + discordant + only_y)
    return (concordant - discordant) / math.sqrt(free) if free else None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_kendall_tau(pairs: list[tuple[int, int]]) -> None:
    found, slow = statistics.kendall_tau(pairs), slow_tau(pairs)
    assert found == (None if slow is None else pytest.approx(slow))


def test_kendall_tau_of_a_worked_example() -> None:
    """Judges 1-4 against 1, 3, 2, 4: five of six pairs agree, one does not. With a tie: 4 / sqrt(5 * 6)."""
    assert statistics.kendall_tau([(1, 1), (2, 3), (3, 2), (4, 4)]) == pytest.approx(4 / 6)
    assert statistics.kendall_tau([(1, 1), (1, 3), (3, 2), (4, 4)]) == pytest.approx(3 / math.sqrt(30))
    assert statistics.kendall_tau([(1, 1)]) is None
    assert statistics.kendall_tau([(1, 1), (1, 2)]) is None


def test_failure_reasons_that_differ_only_in_numbers_are_one() -> None:
    verdicts = ["ok", "failed: map of 3", "failed: map of 12", "diverged", "rejected", "duplicate", "failed: other", "stopped"]
    details = {"diverged": "the reward is nan", "rejected": "NAS201: unknown op"}
    trials = [Trial(n, Filled("", []), None, v, details={"error": details.get(v)}) for n, v in enumerate(verdicts)]
    assert [tuple(reason) for reason in statistics.failure_reasons(trials)] == [
        ("failed", "map of 3", (1, 2)), ("diverged", "the reward is nan", (3,)), ("rejected", "NAS201: unknown op", (4,)),
        ("failed", "other", (6,)), ("stopped", "", (7,)),
    ]  # fmt: skip


@given(st.lists(st.integers(), max_size=80), st.integers(2, 30))
def test_thin(rows: list[int], most: int) -> None:
    found = statistics.thin(rows, most)
    assert len(found) == min(len(rows), most)
    assert found[:1] == rows[:1]
    assert found[-1:] == rows[-1:]
    kept = iter(enumerate(rows))
    assert all(any(value == row for _, row in kept) for value in found)  # in the same order
