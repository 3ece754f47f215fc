"""Settings of a weight-sharing network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from nasdsl.search.errors import SearchError

FILE: Final = "supernet.pt"
"""Name of the network's file in the folder of a search."""


@dataclass(frozen=True, slots=True)
class SupernetSpec:
    """Settings of the training of a weight-sharing network; data, crops and losses are those of the proxy task.

    Attributes:
        iterations: training steps. Each trains `paths` samples; where the space decides on widths, each of these also at its
            largest and at its smallest widths (the sandwich rule, arXiv:1903.05134, section 3.1).
        paths: samples that a step trains, on the same crops; their gradients are added.
        learning_rate: of Adam; it falls to 0 along a cosine.
        calibration: batches of meta-train on which the BatchNorms' statistics of a filling are measured before it is scored.
        seed: of the samples and of the initial weights.

    Raises:
        SearchError: a setting is invalid.
    """

    iterations: int = 3000
    paths: int = 1
    learning_rate: float = 2e-3
    calibration: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, expected, is_right in (
            ("iterations", "1 or more", self.iterations >= 1),
            ("paths", "1 or more", self.paths >= 1),
            ("learning_rate", "a number above 0", 0 < self.learning_rate < math.inf),
            ("calibration", "1 or more", self.calibration >= 1),
        ):
            if not is_right:
                raise SearchError(f"the supernet's {name} is {getattr(self, name)!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which are compared when a search is resumed. Those of earlier versions had no `paths`."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("paths", 1)}
