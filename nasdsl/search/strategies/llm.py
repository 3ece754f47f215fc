"""A language model proposes fillings: it is shown the space and the best trials, and asked for others that may be better."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.language_model import LanguageModel, LanguageModelError, NoAnswer, warn
from nasdsl.search.strategies.rewards import finite_or_none
from nasdsl.search.strategies.strategy import Indices, StrategyError, base_state, load_base_state
from nasdsl.spaces import Filled, Space, SpaceError

COUNTS: Final = ("asked", "unanswered", "from_model", "malformed", "repeated", "refused", "uniform")
"""What is counted: requests, and those without an answer; fillings of the model that were proposed; answers, or parts of them,
that are no filling, a filling that was proposed before, or one that breaks a requirement; uniform samples in their place."""

MAX_REST: Final = 64
"""Most proposals for which a server that did not answer is left alone."""

DRAWS: Final = 20
"""Uniform samples that are drawn until one is new."""

SYSTEM: Final = """\
You search for the best decoder of an object detector: its feature pyramid and its head. A decoder is a list of integers, one \
for each decision: the number of the alternative that is chosen. You are given the decisions and the best decoders that were \
trained so far with their rewards; higher is better. Propose other lists that are likely to have a higher reward. Answer with \
a JSON array of lists of integers and nothing else."""


class LanguageModelSearch:
    """Proposes what a language model answers, and a uniform sample where it answers nothing of use.

    The first `initial` proposals are uniform samples. Then the model is asked for `ask` fillings at a time, which are proposed
    one after the other. It is told the text of the space, its decisions, and the best `shown` of the observed trials. An answer
    holds a list of integers for each filling, or its text. What is no filling, was proposed before, or breaks a requirement is
    left out, and counted; so are the uniform samples that stand in for it. A server that does not answer is left alone for some
    proposals, longer each time.

    Requests go to the address that the user names, and nowhere else. The model's answers are no function of the seed, so that a
    resumed search takes the proposals from its journal (`repropose`).

    Args:
        address: of an OpenAI-compatible server, such as ``http://localhost:8080/v1``.
        model: as the server calls it.
        key_variable: the environment variable that holds the key, which is read for each request and stored nowhere.
        temperature: of the model.
        timeout: seconds that a request may take.
        retries: further attempts of a request that failed for a while.
        ask: fillings asked for at once.
        shown: how many of the best trials the model is told.
        initial: uniform samples before the first request.
    """

    name: ClassVar[str] = "llm"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        address: str = "",
        model: str = "",
        key_variable: str = "NASDSL_LLM_KEY",
        temperature: float = 1.0,
        timeout: float = 60.0,
        retries: int = 2,
        ask: int = 4,
        shown: int = 20,
        initial: int = 8,
    ) -> None:
        if not address or not model:
            raise StrategyError(
                "the strategy 'llm' asks a language model, and none is named: give it the options address=URL and model=NAME"
            )
        for option, value, least in (("ask", ask, 1), ("shown", shown, 1), ("initial", initial, 0), ("retries", retries, 0)):
            if not isinstance(value, int) or not least <= value <= 1000:
                raise StrategyError(f"{option} is {value!r}; expected a whole number from {least} to 1000")
        try:
            self.model = LanguageModel(str(address), str(model), str(key_variable), temperature, timeout, retries)
        except LanguageModelError as error:
            raise StrategyError(str(error)) from None
        self.space = space
        self.seed = seed
        self.ask, self.shown, self.initial = ask, shown, initial
        self._rng = random.Random(seed)  # of the state alone: each proposal has a generator of its own
        self._proposed = 0
        self._rest = self._pause = 0  # proposals that the server is left alone for, now and the next time
        self._queue: list[Indices] = []
        self._counts = dict.fromkeys(COUNTS, 0)
        self._seen: dict[Indices, None] = {}
        self._rewards: dict[Indices, float | None] = {}

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        number = self._proposed
        self._proposed += 1
        text = self._from_queue()
        if text is None and len(self._rewards) >= self.initial and not self._rests():
            self._ask()
            text = self._from_queue()
        if text is None:
            text = self._sample_unseen(random.Random(f"{self.seed} {number}"))
            if len(self._rewards) >= self.initial:
                self._counts["uniform"] += 1
        self._seen[text.indices] = None
        return text

    def _rests(self) -> bool:
        self._rest = max(0, self._rest - 1)
        return self._rest > 0

    def _from_queue(self) -> Filled | None:
        """The first filling that the model proposed which is new and keeps the requirements."""
        while self._queue:
            indices = self._queue.pop(0)
            if indices in self._seen:
                self._counts["repeated"] += 1
            elif not self.space.keeps(indices):
                self._counts["refused"] += 1
            else:
                self._counts["from_model"] += 1
                return self.space.decode(indices)
        return None

    def _sample_unseen(self, rng: random.Random) -> Filled:
        text = self.space.sample(rng)
        for _ in range(DRAWS):
            if text.indices not in self._seen:
                break
            text = self.space.sample(rng)
        return text

    def _ask(self) -> None:
        """Ask for fillings, and enter those of the answer into the queue."""
        self._counts["asked"] += 1
        try:
            answer = self.model.ask(self.messages(), self.seed + self._counts["asked"])
        except LanguageModelError as error:
            raise StrategyError(str(error)) from None
        except NoAnswer as error:
            self._counts["unanswered"] += 1
            self._pause = min(MAX_REST, 2 * self._pause or self.ask)
            self._rest = self._pause + 1
            warn(f"the language model does not answer ({error}); {self._pause} proposals are uniform samples")
            return
        self._pause = 0
        found, malformed = fillings_of(answer, self.space)
        self._counts["malformed"] += malformed
        self._queue += found[: self.ask]
        if malformed:
            warn("some answers of the language model are no fillings of the space; uniform samples stand in for them")

    def messages(self) -> list[dict[str, str]]:
        """What the model is told: the task, the space, and the best trials."""
        best = sorted(
            ((reward, indices) for indices, reward in self._rewards.items() if reward is not None), key=lambda r: -r[0]
        )
        failed = [indices for indices, reward in self._rewards.items() if reward is None]
        trials = [f"{json.dumps(list(indices))} reward {reward:.6g}" for reward, indices in best[: self.shown]]
        lines = [
            "The space, in the language .nas (`?` marks a decision):", "", self.space.source.text.strip(), "",
            "The decisions, each with its alternatives:", *map(_decision, self.space.domains), "",
            f"The best of {len(self._rewards)} decoders so far:", *trials,
        ]  # fmt: skip
        if failed:
            lines += ["", "Some that failed:", *(json.dumps(list(indices)) for indices in failed[-5:])]
        if self.space.program.requirements:
            lines += ["", "Every decoder must keep:"]
            lines += [f"- {' '.join(r.span.text.split())}" for r in self.space.program.requirements]
        lines += ["", f"Propose {self.ask} other decoders, each a list of {len(self.space.domains)} integers."]
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]

    def observe(self, text: Filled, reward: float | None) -> None:
        self._seen[text.indices] = None
        self._rewards[text.indices] = finite_or_none(reward)

    # ------------------------------------------------------------------------------------------ state

    def note(self) -> dict[str, Any]:
        """What the journal records with a proposal, so that `repropose` comes to the same state without asking."""
        return {
            "queue": [list(indices) for indices in self._queue],
            "counts": dict(self._counts),
            "rest": self._rest,
            "pause": self._pause,
        }

    def repropose(self, text: Filled, note: Mapping[str, Any]) -> None:
        """Take a recorded proposal as the next one of its own, with what `note` said behind it."""
        self._proposed += 1
        self._seen[text.indices] = None
        if note:
            self._take(note)

    def _take(self, note: Mapping[str, Any]) -> None:
        self._queue = [tuple(indices) for indices in note["queue"]]
        self._counts = {name: int(note["counts"][name]) for name in COUNTS}
        self._rest, self._pause = int(note["rest"]), int(note["pause"])

    def state(self) -> dict[str, Any]:
        return {
            **base_state(self.name, self.space, self._rng),
            **self.note(),
            "proposed": self._proposed,
            "seen": [list(indices) for indices in self._seen],
            "rewards": [[list(indices), reward] for indices, reward in self._rewards.items()],
            "seed": self.seed,
        }

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            self._take(state)
            self._proposed, self.seed = state["proposed"], state["seed"]
            self._seen = {tuple(indices): None for indices in state["seen"]}
            self._rewards = {tuple(indices): reward for indices, reward in state["rewards"]}

    def diagnostics(self) -> dict[str, float]:
        return {name: float(count) for name, count in self._counts.items()} if self._counts["asked"] else {}


def _decision(domain: Any) -> str:
    alternatives = ", ".join(f"{at}: {text}" for at, text in enumerate(domain.alternatives))
    when = "" if domain.condition.is_always else f" (it counts {domain.condition})"
    return f"{domain.index} {domain.name or domain.kind}: {alternatives}{when}"


_LIST: Final = re.compile(r"\[[^\[\]{}]*\]")


def fillings_of(answer: str, space: Space) -> tuple[list[Indices], int]:
    """The fillings in an answer: lists of integers, and lines that begin with ``decoder``; and how many were none.

    Whatever else the answer says is left out. An answer without any list or text counts as one that is none.
    """
    found: list[Indices] = []
    malformed = 0
    for line in answer.splitlines():
        if line.strip().startswith("decoder "):
            try:
                found.append(space.decode(space.encode(line.strip())).indices)
            except (SpaceError, DiagnosticError):
                malformed += 1
    lists: Sequence[str] = [] if found or malformed else _LIST.findall(answer)
    for text in lists:
        try:
            values = json.loads(text)
            if not all(type(value) is int for value in values):
                raise SpaceError("not integers")
            found.append(space.decode(values).indices)
        except (ValueError, RecursionError):
            malformed += 1
    return found, malformed or int(not found)
