"""The strategy `llm` against a local server: what it asks, what it makes of answers, what it does without them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from fake_model import FakeModel, mutants
from strategy_spaces import additive, space

import nasdsl.search.language_model as language_model
from nasdsl.search.journal import read_journal
from nasdsl.search.language_model import LanguageModel, LanguageModelError
from nasdsl.search.loop import search
from nasdsl.search.run import SearchRun
from nasdsl.search.strategies import StrategyError, make_strategy
from nasdsl.search.strategies.llm import MAX_REST, LanguageModelSearch, fillings_of
from nasdsl.spaces import Filled


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    monkeypatch.setattr(language_model, "_PAUSE", 0.0)
    server = FakeModel()
    yield server
    server.close()


def made(fake: FakeModel, on: str = "nested", seed: int = 0, **options: Any) -> LanguageModelSearch:
    strategy = make_strategy("llm", space(on), seed, address=fake.address, model="fake", **{"initial": 2, **options})
    assert isinstance(strategy, LanguageModelSearch)
    return strategy


def run(strategy: LanguageModelSearch, count: int) -> list[Filled]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            found.append(strategy.propose())
            strategy.observe(found[-1], additive(found[-1].indices))
    return found


def test_it_is_off_without_an_address() -> None:
    with pytest.raises(StrategyError, match="give it the options address=URL and model=NAME"):
        make_strategy("llm", space("nested"))


def test_a_model_without_a_name_is_refused() -> None:
    with pytest.raises(LanguageModelError, match="model: expected the name that the server has for a model"):
        LanguageModel("http://localhost:1/v1", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "localhost:8080"}, "such as http://localhost:8080/v1"),
        ({"address": "file:///etc/passwd"}, "such as http://"),
        ({"address": "http://user:secret@localhost/v1"}, "a user or password in it"),
        ({"address": "http://[::1/v1"}, "such as http://"),
        ({"key_variable": "sk-secret"}, "and not the key"),
        ({"ask": 0}, "ask is 0"), ({"temperature": -1}, "temperature is -1"), ({"timeout": "long"}, "timeout is 'long'"),
        ({"retries": 1.5}, "retries is 1.5"),
    ],
)  # fmt: skip
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message) as caught:
        make_strategy("llm", space("nested"), **{"address": "http://localhost:1/v1", "model": "m", **options})
    assert "secret" not in str(caught.value)


def test_what_the_model_is_told(fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASDSL_LLM_KEY", "the-key")
    strategy = made(fake, ask=3, shown=2, temperature=0.5, initial=3)
    first = run(strategy, 3)
    assert fake.requests == []
    strategy.propose()
    (body,), (headers,) = fake.requests, fake.headers
    assert (body["model"], body["temperature"], body["stream"], fake.paths) == ("fake", 0.5, False, ["/v1/chat/completions"])
    assert headers["Authorization"] == "Bearer the-key"
    told = body["messages"][-1]["content"]
    assert space("nested").source.text.strip() in told
    assert "Propose 3 other decoders" in told
    best = sorted(first, key=lambda t: -additive(t.indices))
    shown = [line for line in told.splitlines() if " reward " in line]
    assert shown == [f"{json.dumps(list(t.indices))} reward {additive(t.indices):.6g}" for t in best[:2]]
    assert all(
        f"{d.index} " in told and all(f"{n}: {a}" in told for n, a in enumerate(d.alternatives))
        for d in space("nested").domains
    )


def test_answers_are_proposed_one_after_the_other(fake: FakeModel) -> None:
    strategy = made(fake, "small", ask=3)
    run(strategy, 2)
    fake.answers = ["[[1,1,1,1],[2,2,2,2],[3,3,3,3]]"]
    assert [t.indices for t in run(strategy, 3)] == [(1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)]
    assert len(fake.requests) == 1
    assert strategy.diagnostics()["from_model"] == 3


def test_a_text_is_an_answer_too(fake: FakeModel) -> None:
    wanted = space("nested").sample(5)
    assert fillings_of(f"Of course.\n{wanted}\n", space("nested")) == ([wanted.indices], 0)
    wrong = str(wanted).replace("input c3", "input c7")
    assert fillings_of(f"{wrong}\n{wanted}", space("nested")) == ([wanted.indices], 1)


@pytest.mark.parametrize(
    ("answer", "found", "malformed"),
    [
        ("", 0, 1), ("I cannot.", 0, 1), ("[1, 2]", 0, 1), ("[9, 0, 0, 0]", 0, 1), ("[-1, 0, 0, 0]", 0, 1),
        ("[1.0, 0, 0, 0]", 0, 1), ("[true, 0, 0, 0]", 0, 1), ('["a", 0, 0, 0]', 0, 1), ("[[0, 1, 2, 3], [0, 1]]", 1, 1),
        ("[0, 1, 2, 3] and [3, 2, 1, 0].", 2, 0), ('{"fillings": [[0, 1, 2, 3]]}', 1, 0), ("[" * 100_000, 0, 1),
        ("[" + "1" * 5000 + ", 0, 0, 0]", 0, 1), ("[0, 1, 2, 3", 0, 1),
    ],
)  # fmt: skip
def test_what_is_no_filling_is_counted(answer: str, found: int, malformed: int) -> None:
    made_of, wrong = fillings_of(answer, space("small"))
    assert (len(made_of), wrong) == (found, malformed)


def test_uniform_samples_stand_in_and_are_told(fake: FakeModel) -> None:
    strategy = made(fake, "small", ask=1)
    before = run(strategy, 2)
    fake.answers = ["nothing", json.dumps([list(before[0].indices)])]
    with pytest.warns(UserWarning, match="uniform samples stand in"):
        strategy.propose()
    strategy.propose()
    assert strategy.diagnostics() == {
        "asked": 2, "unanswered": 0, "from_model": 0, "malformed": 1, "repeated": 1, "refused": 0, "uniform": 2,
    }  # fmt: skip


def test_what_breaks_a_requirement_is_not_proposed(fake: FakeModel) -> None:
    strategy = made(fake, "bounded", ask=4)
    for text in run(strategy, 30):
        assert space("bounded").keeps(text.indices)
    assert strategy.diagnostics()["refused"] > 0


def test_a_server_without_answers_is_asked_again_and_then_left_alone(fake: FakeModel) -> None:
    strategy = made(fake, ask=2, retries=2, timeout=0.2)
    run(strategy, 2)
    fake.answers = [503, 429, "[[0]]"]  # the third attempt is answered
    run(strategy, 1)
    assert len(fake.requests) == 3
    assert strategy.diagnostics()["unanswered"] == 0
    fake.answers = [b"{}", b"no json", 0.5]  # no answers of the protocol, and a timeout
    run(strategy, 1)
    assert len(fake.requests) == 6
    assert strategy.diagnostics()["unanswered"] == 1
    run(strategy, 2)
    assert len(fake.requests) == 6
    run(strategy, 1)
    assert len(fake.requests) == 7
    fake.close()
    run(strategy, 60)
    counts = strategy.diagnostics()
    assert 3 <= counts["unanswered"] < 10
    assert strategy.note()["pause"] <= MAX_REST


@pytest.mark.parametrize("state", [401, 403, 404, 400, 302, 307])
def test_a_server_that_refuses_ends_the_search(state: int, fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirection would take the key to another place."""
    monkeypatch.setenv("NASDSL_LLM_KEY", "the-key")
    strategy = made(fake)
    run(strategy, 2)
    fake.answers = [state]
    with pytest.raises(StrategyError, match=f"refuses .*: {state}") as caught:
        strategy.propose()
    assert "the-key" not in str(caught.value)
    assert len(fake.requests) == 1


def test_the_connection_of_an_error_is_closed(fake: FakeModel) -> None:
    fake.answers = [404]
    with pytest.raises(LanguageModelError, match="refuses the request: 404") as caught:
        LanguageModel(fake.address, "fake", retries=0).ask([{"role": "user", "content": "x"}], 0)
    assert isinstance(caught.value.__context__, HTTPError)
    assert caught.value.__context__.closed


def test_an_answer_without_end_is_not_read(fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "MAX_ANSWER", 1000)
    strategy = made(fake, retries=0)
    run(strategy, 2)
    fake.answers = ["[0]" * 1000]
    run(strategy, 1)
    assert strategy.diagnostics()["unanswered"] == 1


# -------------------------------------------------------------------------------------------------- in a search


def reward(text: str) -> float:
    return additive(space("nested").encode(text))


OPTIONS = {"model": "fake", "initial": 3, "ask": 3}


def test_the_same_server_gives_the_same_search(fake: FakeModel) -> None:
    runs = [
        [t.indices for t in search(space("nested"), reward, "llm", 20, options=OPTIONS | {"address": fake.address}, quiet=True)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("lost", [False, True])
def test_a_resumed_search_asks_nothing_again(
    lost: bool, fake: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASDSL_LLM_KEY", "the-key")
    options = OPTIONS | {"address": fake.address}
    whole = search(space("nested"), reward, "llm", 16, 0, out=tmp_path / "whole", options=options, quiet=True)
    asked = len(fake.requests)
    done = 0

    def stops(text: str) -> float:
        nonlocal done
        done += 1
        if done == 9:
            raise KeyboardInterrupt
        return reward(text)

    part = SearchRun(tmp_path / "part")
    with pytest.raises(BaseException):  # noqa: B017, PT011  # however the search ends
        search(space("nested"), stops, "llm", 16, 0, out=part.folder, options=options, quiet=True)
    if lost:
        part.strategy.unlink(missing_ok=True)
    resumed = search(space("nested"), reward, "llm", 16, 0, out=part.folder, options=options, resume=True, quiet=True)
    assert [t.indices for t in resumed] == [t.indices for t in whole]
    assert len(fake.requests) == 2 * asked
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"the-key" not in path.read_bytes()
    assert read_journal(part.journal)[0][0]["options"]["address"] == fake.address


def test_a_journal_that_says_nothing_of_the_model_is_taken_as_it_is(fake: FakeModel) -> None:
    """As one of an earlier version."""
    strategy = made(fake)
    before = strategy.note()
    text = space("nested").sample(0)
    strategy.repropose(text, {})
    assert strategy.note() == before
    assert strategy.state()["proposed"] == 1
    assert fake.requests == []


def test_a_budget_is_kept(fake: FakeModel) -> None:
    options = OPTIONS | {"address": fake.address}
    found = search(space("nested"), reward, "llm", 12, options=options, budgets=["params:40M"], quiet=True)
    assert all(trial.verdict in ("ok", "duplicate") for trial in found)


def test_the_fake_is_a_function_of_the_prompt(fake: FakeModel) -> None:
    strategy = made(fake)
    run(strategy, 2)
    (_, user) = strategy.messages()
    assert mutants(user["content"]) == mutants(user["content"])
