"""Which decisions of many fillings are active, as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasdsl.spaces import Space


class Activity:
    """The conditions of a space's decisions, for many fillings at once."""

    def __init__(self, space: Space) -> None:
        sizes = [domain.size for domain in space.domains]
        self._cases: list[list[list[tuple[int, Tensor]]] | None] = [
            None
            if domain.condition.is_always
            else [
                [(number, torch.tensor([at in found for at in range(sizes[number])])) for number, found in case]
                for case in domain.condition.cases
            ]
            for domain in space.domains
        ]

    def is_always(self, place: int) -> bool:
        """Whether a decision is active in every filling."""
        return self._cases[place] is None

    def of(self, place: int, columns: Sequence[Tensor], count: int) -> Tensor:
        """In which fillings a decision is active: bool [n].

        Args:
            columns: int64 [n] for each decision before it, inactive ones included.
            count: n.
        """
        cases = self._cases[place]
        if cases is None:
            return torch.ones(count, dtype=torch.bool)
        found = torch.zeros(count, dtype=torch.bool)
        for case in cases:
            all_hold = torch.ones(count, dtype=torch.bool)
            for number, allowed in case:
                all_hold &= allowed[columns[number]]
            found |= all_hold
        return found
