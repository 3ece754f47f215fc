"""Proximal policy optimisation (arXiv:1707.06347) of an LSTM over the decisions.

This is the controller of arXiv:1906.04423, section 3.3. An episode is one filling: an action for each active decision, and one
reward at the end. Differences from the published controller: each drawn decision is fed back, so that decisions can depend on
each other; rewards are normal scores of their rank in the buffer, so that their unit does not matter; a filling that was
proposed before is drawn again, because its reward is known; and the best episodes stay in the replay buffer, because rewards
are expensive.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.search.strategies.policy import Policy, as_tensor
from nasdsl.search.strategies.rewards import finite_or_none, normal_scores
from nasdsl.search.strategies.strategy import MAX_DRAWS, Indices, StrategyError, base_state, load_base_state
from nasdsl.spaces import Filled, Space


def gae(reward: Tensor, value: Tensor, active: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95) -> Tensor:
    """Generalised advantage estimation (arXiv:1506.02438) for episodes with one reward, at their end.

    Inactive decisions are not steps: nothing is discounted at them, and their advantage is 0.

    Args:
        reward: float [n], of each episode.
        value: float [n, decisions], the reward expected before each decision.
        active: bool [n, decisions].

    Returns:
        float [n, decisions]; advantage + value is the target of the value.
    """
    advantage = torch.zeros_like(value)
    next_advantage = torch.zeros_like(reward)  # at the next active decision, as next_value
    next_value = torch.zeros_like(reward)
    is_last = torch.ones_like(reward, dtype=torch.bool)
    for step in reversed(range(value.shape[1])):
        is_active = active[:, step]
        delta = torch.where(is_last, reward, gamma * next_value) - value[:, step]
        estimate = delta + gamma * gae_lambda * next_advantage
        advantage[:, step] = torch.where(is_active, estimate, 0.0)
        next_advantage = torch.where(is_active, estimate, next_advantage)
        next_value = torch.where(is_active, value[:, step], next_value)
        is_last = is_last & ~is_active
    return advantage


class Losses(NamedTuple):
    """Terms of the loss, means over the active decisions; `approx_kl` and `clipfrac` are for the log."""

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
    """PPO's loss: the clipped surrogate objective (arXiv:1707.06347, equation 7), the value's squared error, the entropy.

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
    """An observed sample: its decisions, its reward, and the log-probabilities [decisions] with which it was drawn."""

    indices: Indices
    reward: float | None
    log_prob: Tensor


class PPO:
    """Proposes samples of a policy, updated after each `batch` observations on the last `replay` and the best `elite` episodes.

    Args:
        hidden: width of the LSTM.
        warmup: observations before the first update; until then the policy is uniform.
        batch, replay, elite: see above. With replay = batch and elite = 0 there is no replay.
        epochs, minibatch: passes over the buffer at each update, and episodes in a step of Adam.
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
        self._pending: dict[Indices, Tensor] = {}  # of proposals without a result: log-probabilities with which they were drawn
        self._recent: deque[Episode] = deque(maxlen=replay)
        self._best: list[Episode] = []  # best first, each a different filling
        self._seen: set[Indices] = set()
        self._observed = 0
        self._diagnostics: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        text = self._draw()
        self._seen.add(text.indices)
        self._pending[text.indices] = self._log_prob(text.indices)
        return text

    def _draw(self) -> Filled:
        """Draw a filling that keeps the requirements, one not seen before if `MAX_DRAWS` draws yield one."""
        known = None
        for count in (10, MAX_DRAWS - 10) if self.space.domains else ():  # ten are nearly always enough
            for indices in self.policy.draw(count, self._generator):
                if indices in self._seen:  # first, because counting for the requirements may take milliseconds
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
        log_prob = self._pending.pop(text.indices, None)
        if log_prob is None:  # not proposed here, or observed twice
            log_prob = self._log_prob(text.indices)
        episode = Episode(text.indices, finite_or_none(reward), log_prob)
        self._seen.add(text.indices)
        self._recent.append(episode)
        self._add_to_best(episode)
        self._observed += 1
        if self._observed >= self.warmup and self._observed % self.batch == 0 and self.space.domains:
            self._update()

    def _add_to_best(self, episode: Episode) -> None:
        """Add an episode to the best, if it is among them."""
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
            **base_state(self.name, self.space, self._rng),
            "generator": self._generator.get_state(),
            "policy": {name: value.clone() for name, value in self.policy.state_dict().items()},
            "moments": {
                number: {name: value.clone() for name, value in moment.items()} for number, moment in optimizer["state"].items()
            },
            "out": [[list(indices), log_prob.clone()] for indices, log_prob in self._pending.items()],
            "recent": [[list(e.indices), e.reward, e.log_prob.clone()] for e in self._recent],
            "best": [[list(e.indices), e.reward, e.log_prob.clone()] for e in self._best],
            "seen": sorted(list(indices) for indices in self._seen),
            "observed": self._observed,
            "diagnostics": dict(self._diagnostics),
        }

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            self._generator.set_state(state["generator"])
            self.policy.load_state_dict(state["policy"])
            moments = {
                number: {name: value.clone() for name, value in moment.items()} for number, moment in state["moments"].items()
            }
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
            self._pending = {tuple(indices): log_prob.clone() for indices, log_prob in state["out"]}
            self._recent.clear()
            self._recent.extend(_load_episode(item) for item in state["recent"])
            self._best = [_load_episode(item) for item in state["best"]]
            self._seen = {tuple(indices) for indices in state["seen"]}
            self._observed = state["observed"]
            self._diagnostics = dict(state["diagnostics"])

    def diagnostics(self) -> dict[str, float]:
        return dict(self._diagnostics)


def _load_episode(item: list[Any]) -> Episode:
    indices, reward, log_prob = item
    return Episode(tuple(indices), reward, log_prob.clone())
