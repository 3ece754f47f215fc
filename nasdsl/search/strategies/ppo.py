"""Proximal policy optimisation (arXiv:1707.06347) of an LSTM that writes fillings: the paper's controller, section 3.3.

An episode is one filling: an action for each decision that counts, and one reward at the end. What differs from the
published controller, and why: each drawn choice is fed back, so that decisions can depend on each other; rewards are normal
scores of their rank among the latest, so that their unit does not matter; a sample that was proposed before is drawn again,
because its reward is known; and the best samples so far stay in the replay buffer, because rewards are dear.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.search.strategies.policy import Policy, as_tensor
from nasdsl.search.strategies.strategy import (
    ATTEMPTS,
    Indices,
    StrategyError,
    begin_state,
    finite,
    loading,
    normal_scores,
)
from nasdsl.spaces import Filled, Space


def gae(reward: Tensor, value: Tensor, active: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95) -> Tensor:
    """Generalised advantage estimation (arXiv:1506.02438) of episodes whose one reward comes at their end.

    Decisions that do not count are no steps: nothing is discounted at them, and their advantage is 0.

    Args:
        reward: float [n], of each episode.
        value: float [n, decisions], expected before each decision.
        active: bool [n, decisions].

    Returns:
        float [n, decisions]; advantage + value is what the value should have been.
    """
    advantage = torch.zeros_like(value)
    following = torch.zeros_like(reward)  # the advantage and the value of the next step that counts
    next_value = torch.zeros_like(reward)
    is_last = torch.ones_like(reward, dtype=torch.bool)
    for step in reversed(range(value.shape[1])):
        flag = active[:, step]
        delta = torch.where(is_last, reward, gamma * next_value) - value[:, step]
        found = delta + gamma * gae_lambda * following
        advantage[:, step] = torch.where(flag, found, 0.0)
        following = torch.where(flag, found, following)
        next_value = torch.where(flag, value[:, step], next_value)
        is_last = is_last & ~flag
    return advantage


class Losses(NamedTuple):
    """Terms of the loss, means over the decisions that count; `approx_kl` and `clipfrac` are for the log."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clipfrac: Tensor


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value: Tensor,
    returns: Tensor,
    entropy: Tensor,
    active: Tensor,
    clip_coef: float,
) -> Losses:
    """The clipped surrogate objective (arXiv:1707.06347, equation 7), the squared error of the value, and the entropy.

    All tensors are [n, decisions]. `approx_kl` is the mean of (ratio - 1) - log ratio (http://joschu.net/blog/kl-approx.html).
    """

    def mean(x: Tensor) -> Tensor:
        return (x * active).sum() / active.sum().clamp(min=1)

    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    policy = mean(-torch.min(ratio * advantage, clipped * advantage))
    value_loss = 0.5 * mean((value - returns).square())
    with torch.no_grad():
        approx_kl = mean(ratio - 1 - log_ratio)
        clipfrac = mean(((ratio - 1).abs() > clip_coef).to(ratio.dtype))
    return Losses(policy, value_loss, mean(entropy), approx_kl, clipfrac)


class Episode(NamedTuple):
    """A sample that was observed: its decisions, its reward, and [decisions] log-probabilities when it was drawn."""

    indices: Indices
    reward: float | None
    log_prob: Tensor


class PPO:
    """Updates its policy after each `batch` observations, on the latest `replay` episodes and the best `elite` of all.

    Args:
        hidden: width of the LSTM.
        warmup: observations before the first update; until then the policy is uniform.
        batch, replay, elite: see above. With replay = batch and elite = 0 it is PPO without replay.
        epochs, minibatch: passes over the buffer at each update, and the episodes of one step of Adam.
        lr, max_grad_norm: of Adam, and the norm that gradients are clipped to.
        clip_coef, ent_coef, vf_coef, gamma, gae_lambda: PPO's.
    """

    name: ClassVar[str] = "ppo"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        *,
        hidden: int = 64,
        warmup: int = 50,
        batch: int = 10,
        replay: int = 50,
        elite: int = 10,
        epochs: int = 4,
        minibatch: int = 20,
        lr: float = 3e-3,
        max_grad_norm: float = 0.5,
        clip_coef: float = 0.2,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
    ) -> None:
        if min(hidden, batch, epochs, minibatch) < 1 or replay < batch or min(elite, warmup) < 0:
            raise StrategyError(
                f"hidden={hidden}, warmup={warmup}, batch={batch}, replay={replay}, elite={elite}, epochs={epochs}, "
                f"minibatch={minibatch}; expected positive numbers, and replay at least batch"
            )
        self.space = space
        self.warmup, self.batch, self.elite = warmup, batch, elite
        self.epochs, self.minibatch, self.max_grad_norm = epochs, minibatch, max_grad_norm
        self.clip_coef, self.ent_coef, self.vf_coef = clip_coef, ent_coef, vf_coef
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self._rng = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = Policy(space, hidden)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr, eps=1e-5)
        self._out: dict[Indices, Tensor] = {}  # log-probabilities of what is not yet observed, when it was drawn
        self._recent: deque[Episode] = deque(maxlen=replay)
        self._best: list[Episode] = []  # best first; of different fillings
        self._seen: set[Indices] = set()
        self._observed = 0
        self._diagnostics: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        text = self._draw()
        self._seen.add(text.indices)
        self._out[text.indices] = self._log_prob(text.indices)
        return text

    def _draw(self) -> Filled:
        """A sample of the policy that keeps the requirements, a new one where `ATTEMPTS` draws find one."""
        known = None
        for count in (10, ATTEMPTS - 10) if self.space.domains else ():  # ten nearly always do
            for indices in self.policy.draw(count, self._generator):
                if indices in self._seen:  # asked first: requirements may take milliseconds
                    known = known or indices
                elif self.space.keeps(indices):
                    return self.space.decode(indices)
        if known is None or not self.space.keeps(known):
            return self.space.sample(self._rng)
        return self.space.decode(known)

    @torch.no_grad()
    def _log_prob(self, indices: Indices) -> Tensor:
        return self.policy.evaluate(as_tensor([indices])).log_prob[0] if indices else torch.zeros(0)

    def observe(self, text: Filled, reward: float | None) -> None:
        log_prob = self._out.pop(text.indices, None)
        if log_prob is None:  # proposed by someone else, or twice
            log_prob = self._log_prob(text.indices)
        episode = Episode(text.indices, finite(reward), log_prob)
        self._seen.add(text.indices)
        self._recent.append(episode)
        self._enter(episode)
        self._observed += 1
        if self._observed >= self.warmup and self._observed % self.batch == 0 and self.space.domains:
            self._update()

    def _enter(self, episode: Episode) -> None:
        """Among the best, where it is one."""
        if episode.reward is not None and all(episode.indices != other.indices for other in self._best):
            self._best.append(episode)
            self._best.sort(key=lambda e: -e.reward if e.reward is not None else 0.0)
            del self._best[self.elite :]

    # ------------------------------------------------------------------------------------------ learning

    def _update(self) -> None:
        latest = {episode.indices for episode in self._recent}
        episodes = [*self._recent, *(e for e in self._best if e.indices not in latest)]
        indices = as_tensor([e.indices for e in episodes])
        old_log_prob = torch.stack([e.log_prob for e in episodes])
        reward = normal_scores([e.reward for e in episodes]).float()
        with torch.no_grad():
            before = self.policy.evaluate(indices)
        advantage = gae(reward, before.value, before.active, self.gamma, self.gae_lambda)
        returns = advantage + before.value
        spread = advantage[before.active].std(correction=0)
        advantage = (advantage - advantage[before.active].mean()) / (spread + 1e-8) * before.active
        terms: list[Tensor] = []
        for _ in range(self.epochs):
            order = torch.randperm(len(episodes), generator=self._generator)
            for rows in torch.split(order, self.minibatch):
                now = self.policy.evaluate(indices[rows])
                losses = ppo_loss(
                    now.log_prob,
                    old_log_prob[rows],
                    advantage[rows],
                    now.value,
                    returns[rows],
                    now.entropy,
                    now.active,
                    self.clip_coef,
                )
                loss = losses.policy + self.vf_coef * losses.value - self.ent_coef * losses.entropy
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
                nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.optimizer.step()
                terms.append(torch.stack(losses).detach())
        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")
        variance = returns[before.active].var(correction=0)
        unexplained = (returns - before.value)[before.active].var(correction=0)
        self._diagnostics = {
            **dict(zip(names, torch.stack(terms).mean(0).tolist(), strict=True)),  # over all steps of the update
            "explained_variance": float(1 - unexplained / variance) if variance > 0 else 0.0,
        }

    # ------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        optimizer = self.optimizer.state_dict()
        return {
            **begin_state(self.name, self.space, self._rng),
            "generator": self._generator.get_state(),
            "policy": {name: value.clone() for name, value in self.policy.state_dict().items()},
            "moments": {
                number: {name: value.clone() for name, value in moment.items()} for number, moment in optimizer["state"].items()
            },
            "out": [[list(indices), log_prob.clone()] for indices, log_prob in self._out.items()],
            "recent": [[list(e.indices), e.reward, e.log_prob.clone()] for e in self._recent],
            "best": [[list(e.indices), e.reward, e.log_prob.clone()] for e in self._best],
            "seen": sorted(list(indices) for indices in self._seen),
            "observed": self._observed,
            "diagnostics": dict(self._diagnostics),
        }

    def load(self, state: dict[str, Any]) -> None:
        with loading(state, self.name, self.space, self._rng):
            self._generator.set_state(state["generator"])
            self.policy.load_state_dict(state["policy"])
            moments = {
                number: {name: value.clone() for name, value in moment.items()} for number, moment in state["moments"].items()
            }
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
            self._out = {tuple(indices): log_prob.clone() for indices, log_prob in state["out"]}
            self._recent.clear()
            self._recent.extend(_episode(item) for item in state["recent"])
            self._best = [_episode(item) for item in state["best"]]
            self._seen = {tuple(indices) for indices in state["seen"]}
            self._observed = state["observed"]
            self._diagnostics = dict(state["diagnostics"])

    def diagnostics(self) -> dict[str, float]:
        return dict(self._diagnostics)


def _episode(item: list[Any]) -> Episode:
    indices, reward, log_prob = item
    return Episode(tuple(indices), reward, log_prob.clone())
