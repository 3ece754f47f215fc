"""All forms of a random decoder, and a training that is stopped, at a small size."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nasdsl.backends import onnx
from nasdsl.backends.module import DecoderModule
from nasdsl.training import trainer
from torture import differential, mutated, resumed
from torture.subject import Report


@pytest.mark.parametrize("number", [1000, 1001, *(pytest.param(n, marks=pytest.mark.long) for n in range(1002, 1010))])
def test_all_forms_compute_the_same(number: int) -> None:
    differential.compare(number, Report())


@pytest.mark.parametrize("first", [1000, *(pytest.param(n, marks=pytest.mark.long) for n in (1010, 1020))])
def test_mutants_that_check_compute_the_same_in_all_forms(first: int) -> None:
    report = Report()
    for number in range(first, first + (2 if first == 1000 else 10)):
        differential.compare_forms(mutated.text(number, report), number, report)
    assert report.counts["ONNX files equal"] > 0
    assert report.counts["mutants with errors, left out"] > 0


def test_a_norm_that_is_folded_wrongly_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = differential.for_inference

    def broken(module: nn.Module) -> nn.Module:
        made = right(module)  # type: ignore[arg-type]  # a decoder's
        with torch.no_grad():
            next(part for part in made.modules() if isinstance(part, nn.Conv2d)).weight.mul_(1.0001)
        return made

    monkeypatch.setattr(differential, "for_inference", broken)
    with pytest.raises(AssertionError, match="folded"):
        differential.compare(3, Report())


@pytest.mark.parametrize("number", [1123, *(pytest.param(n, marks=pytest.mark.long) for n in (1371, 1723))])
def test_an_export_with_another_epsilon_would_be_seen(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where float32 is least exact: in these decoders a GroupNorm divides by next to nothing."""
    module = differential.built(differential.text(number))
    differential._onnx(module, number)
    right = onnx.onnx_model

    def broken(module: DecoderModule) -> Any:
        wrong = deepcopy(module)
        for part in wrong.modules():
            if isinstance(part, nn.GroupNorm):
                part.eps *= 10
        return right(wrong)

    monkeypatch.setattr(onnx, "onnx_model", broken)
    with pytest.raises(AssertionError, match="cls_logits"):
        differential._onnx(module, number)


@pytest.mark.parametrize("number", [3, *(pytest.param(n, marks=pytest.mark.long) for n in range(4, 12))])
def test_a_resumed_training_is_the_unbroken_one(number: int, tmp_path: Path) -> None:
    report = Report()
    resumed.compare(number, report, tmp_path, steps=6 if number == 3 else 20)
    assert report.counts["resumed"] + report.counts["norms of a single value"] == 1


@pytest.mark.long
def test_a_state_that_is_not_restored_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.torch, "manual_seed", lambda seed: None)
    monkeypatch.setattr(trainer.Trainer, "load_state_dict", _without_optimizer(trainer.Trainer.load_state_dict))
    with pytest.raises(AssertionError):
        resumed.compare(3, Report(), tmp_path, steps=6)


def _without_optimizer(load: Callable[..., None]) -> Callable[..., None]:
    def loaded(self: Any, state: Any, *more: Any) -> None:
        fresh = self.optimizer.state_dict()
        load(self, state, *more)
        self.optimizer.load_state_dict(fresh)

    return loaded
