"""The policy network of PPO: a distribution over the fillings of a space, one decision after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.search.strategies.activity import Activity
from nasdsl.search.strategies.strategy import Indices
from nasdsl.spaces import Space


class PolicyOutput(NamedTuple):
    """Output of the policy for given fillings; 0 for inactive decisions.

    Attributes:
        log_prob: float [n, decisions], of the given index.
        entropy: float [n, decisions], of the distribution over the decision's indices.
        value: float [n, decisions], the reward expected before the decision.
        active: bool [n, decisions], which decisions are active.
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    active: Tensor


class Policy(nn.Module):
    """An autoregressive LSTM over the decisions, in the order of the text.

    The input of a step is the sum of two embeddings: of the previous decision and its index, or of its being inactive, and of
    the position of the step. The output layers are initialised to zero, so that a new policy draws every decision uniformly,
    as `Space.sample` does.
    """

    def __init__(self, space: Space, hidden: int = 64) -> None:
        super().__init__()
        sizes = [domain.size for domain in space.domains]
        count, widest = len(sizes), max(sizes, default=1)
        self.activity, self.count = Activity(space), count
        self.hidden = hidden
        self.drawn = nn.Embedding(1 + count * (widest + 1), hidden)  # the start; each index of each decision, or "inactive"
        self.place = nn.Embedding(max(1, count), hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.logits = nn.Parameter(torch.zeros(count, widest, hidden))
        self.bias = nn.Parameter(torch.zeros(count, widest))
        self.value = nn.Linear(hidden, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        exists = torch.arange(widest) < torch.tensor(sizes, dtype=torch.long)[:, None]
        self.register_buffer("mask", torch.where(exists, 0.0, -torch.inf), persistent=False)
        self.register_buffer("first", 1 + torch.arange(count) * (widest + 1), persistent=False)
        self.mask: Tensor
        self.first: Tensor

    def active(self, indices: Tensor) -> Tensor:
        """Which decisions are active: int64 [n, decisions] -> bool [n, decisions]."""
        columns = indices.unbind(1)
        return torch.stack([self.activity.of(place, columns, len(indices)) for place in range(self.count)], 1)

    def _tokens(self, indices: Tensor, active: Tensor, place: int | slice) -> Tensor:
        """Rows of the embedding of drawn decisions: 1 + index, or 0 if inactive, within the range of each decision."""
        return self.first[place] + torch.where(active, indices + 1, 0)

    def evaluate(self, indices: Tensor) -> PolicyOutput:
        """Evaluate fillings, int64 [n, decisions], in one pass."""
        active = self.active(indices)
        start = torch.zeros(len(indices), 1, dtype=torch.long)
        tokens = torch.cat([start, self._tokens(indices, active, slice(None))[:, :-1]], 1)
        states, _ = self.lstm(self.drawn(tokens) + self.place.weight)
        logits = torch.einsum("ndh,dsh->nds", states, self.logits) + self.bias + self.mask
        log_probs = logits.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs.masked_fill(self.mask == -torch.inf, 0.0)).sum(-1)
        log_prob = log_probs.gather(-1, indices[..., None])[..., 0]
        value = self.value(states)[..., 0]
        return PolicyOutput(log_prob * active, entropy * active, value * active, active)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> list[Indices]:
        """Draw `count` fillings as one batch."""
        noise = torch.rand(self.count, count, generator=generator)
        tokens = torch.zeros(count, dtype=torch.long)
        state: tuple[Tensor, Tensor] | None = None
        columns: list[Tensor] = []
        for place in range(self.count):
            step = (self.drawn(tokens) + self.place.weight[place])[:, None]
            out, state = self.lstm(step, state)
            logits = out[:, 0] @ self.logits[place].T + self.bias[place] + self.mask[place]
            cumulative = logits.softmax(-1).cumsum(-1)
            size = int((self.mask[place] == 0).sum())
            index = (noise[place][:, None] >= cumulative).sum(-1).clamp(max=size - 1)
            is_active = self.activity.of(place, columns, count)
            columns.append(torch.where(is_active, index, 0))
            tokens = self._tokens(columns[-1], is_active, place)
        return [tuple(row) for row in torch.stack(columns, 1).tolist()]


def as_tensor(fillings: Sequence[Indices]) -> Tensor:
    """Convert fillings to int64 [n, decisions]."""
    return torch.tensor(fillings, dtype=torch.long)
