"""A detector that is trained in a second, and helpers of the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasdsl.data import open_dataset
from nasdsl.detection.losses import mean_over_processes
from nasdsl.training import RECIPES, Recipe, Run
from nasdsl.training.checkpoint import load_checkpoint

SHAPES = open_dataset("shapes:13", "train")
VAL = open_dataset("shapes:5", "val")


class Small(nn.Module):
    """A detector with a convolution, BatchNorm unless `norm` is false, dropout, and two losses.

    `on_step` is called with the number of every forward pass in training, before it is computed; `progress` has the shares of
    the training that these were called with. `broken` is a factor of the pixels, to make losses non-finite.
    """

    def __init__(self, norm: bool = True, on_step: Callable[[int], object] | None = None, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.predict = nn.Conv2d(8, 1, 1)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.classes, self.category_ids = SHAPES.classes, SHAPES.category_ids
        self.transform = SimpleNamespace(min_size=(24,), max_size=32, fixed_size=None)
        self.on_step, self.forwards = on_step, 0
        self.progress: list[float] = []
        self.broken = 1.0

    @property
    def config(self) -> dict[str, Any]:
        return {"decoder": "decoder small {}\n", "norm": isinstance(self.norm, nn.BatchNorm2d)}

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Mapping[str, Any]] | None = None,
        *,
        sizes: Sequence[tuple[int, int]],
        progress: float = 1.0,
    ) -> Any:
        if not self.training:
            return [
                {"boxes": torch.tensor([[0.0, 0.0, w, h]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.5])}
                for h, w in sizes
            ]
        assert targets is not None
        if self.on_step is not None:
            self.on_step(self.forwards)
        self.forwards += 1
        self.progress.append(progress)
        x = self.dropout(torch.relu(self.norm(self.conv(images.float() / 255 * self.broken))))
        logits = self.predict(x).flatten(1)
        positives = mean_over_processes(torch.tensor(float(sum(len(t["boxes"]) for t in targets)))).clamp(min=1)
        pull = torch.stack([t["boxes"].sum() for t in targets]) / 1000
        return {
            "classification": (logits.exp() - logits).sum() / positives / 20,
            "bbox_regression": (logits.mean(1) * pull).sum() / positives,
        }


def small(seed: int = 0, **options: Any) -> Any:
    """A `Small` with random weights."""
    torch.manual_seed(seed)
    return Small(**options)


def recipe(**settings: Any) -> Recipe:
    """The quick recipe with 4 images of 24x32 a step: 3 steps an epoch."""
    length = {} if "steps" in settings else {"epochs": 3}
    return RECIPES["quick"].changed(
        {"size": (24, 32), "batch_size": 4, "log_every": 2, "checkpoint_every": 0, **length, **settings}
    )


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Paths at which two nested values differ; tensors are compared bit for bit."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return [] if left.dtype == right.dtype and torch.equal(left, right) else [path]
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys = sorted({*left, *right}, key=str)
        return [d for k in keys for d in differences(left.get(k), right.get(k), f"{path}/{k}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        return [d for i, (a, b) in enumerate(zip(left, right, strict=True)) for d in differences(a, b, f"{path}/{i}")]
    return [] if left == right else [path]


def checkpoint(out: Path) -> dict[str, Any]:
    """What the checkpoint of a run holds."""
    loaded = load_checkpoint(Run(out).checkpoint)
    assert loaded is not None
    return loaded.state


class FakeClock:
    """A clock that advances by a second with every forward pass of a detector, and counts the pictures of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pictures = 0.0, list[int]()
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def watch(self, detector: Any) -> Any:
        def before_forward(module: Any, arguments: Any) -> None:
            if module.training:
                self.now += 1
                self.pictures.append(len(arguments[0]))

        detector.register_forward_pre_hook(before_forward)
        return detector
