"""The time of the proxy task and of a training, measured on a few steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from proxy_tools import small_spec, text

from nasdsl.data import DataError, UnreadableImage, open_dataset
from nasdsl.decoder import loads
from nasdsl.detection.fcos import Fcos
from nasdsl.training import train
from nasdsl.training.config import TrainingConfig
from nasdsl.training.pace import Pace
from nasdsl.training.proxy import ProxyTask, timing
from nasdsl.training.proxy.features import Maps
from nasdsl.training.proxy.timing import ProxyTime, time_proxy
from nasdsl.training.recipe import RECIPES
from nasdsl.training.timing import time_training


def test_the_time_of_an_evaluation_is_that_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on for a second whenever losses are computed: in a step, and in a batch of the validation."""
    now, compute = [0.0], Fcos.loss_terms

    def take_a_second(*arguments: Any) -> Any:
        now[0] += 1
        return compute(*arguments)

    monkeypatch.setattr(Fcos, "loss_terms", take_a_second)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    spec = small_spec(cache=str(tmp_path), iterations=12)
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [text()])
    assert not list(tmp_path.iterdir())
    (evaluation,) = found.evaluations
    whole = ProxyTask(spec, quiet=True)(text()).details
    assert whole["seconds"] == 12 + whole["validation"] > 12
    assert evaluation.total(spec) == pytest.approx(whole["seconds"])
    assert evaluation.total(replace(spec, seeds=2)) == pytest.approx(2 * whole["seconds"])
    assert (found.share, found.failures, found.gpu_memory) == (1.0, (), None)
    assert found.memory is None or found.memory > 0


def test_of_a_large_batch_a_part_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec(batch_size=8)
    monkeypatch.setattr(timing, "MOST_PIXELS", 2 * spec.size**2)
    sizes: list[int] = []
    load = timing.ProxyTask._train

    def note(self: ProxyTask, *arguments: Any) -> object:
        sizes.append(self.spec.batch_size)
        return load(self, *arguments)

    monkeypatch.setattr(timing.ProxyTask, "_train", note)
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [text()])
    assert (found.share, sizes) == (0.25, [2])


def test_without_decoders_the_features_are_timed_alone() -> None:
    spec = small_spec()
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [])
    assert found.image > 0
    assert found == ProxyTime(found.image)


def test_what_trains_nothing_has_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where the system does not tell the memory of a process, none is given."""
    monkeypatch.setattr(timing, "resident_memory", lambda: None)
    monkeypatch.setattr(timing, "IMAGES", 3)
    spec = small_spec(reward="synflow")
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [text()])
    (evaluation,) = found.evaluations
    assert evaluation.step == 0 < evaluation.validation
    assert (found.memory, found.fpn, found.pyramid) == (None, None, 0.0)


def test_heads_are_timed_on_the_outputs_of_an_fpn_that_is_timed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "STEPS", 2)
    monkeypatch.setattr(timing, "IMAGES", 3)
    spec = small_spec(fpn=text())
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [text("conv_1x1")])
    assert found.failures == ()
    assert found.fpn is not None
    assert min(found.fpn.step, found.pyramid, found.evaluations[0].step) > 0


def test_images_that_cannot_be_read_take_their_time_as_well() -> None:
    asked: list[range] = []

    def compute(pictures: range) -> Iterator[Maps | UnreadableImage]:
        asked.append(pictures)
        for picture in pictures:
            yield UnreadableImage("a.png", "torn") if picture % 2 else {"c3": torch.zeros(1)}

    assert timing._seconds_of_each(compute, 3) > 0
    assert asked == [range(1), range(1, 3)]
    assert timing._seconds_of_each(compute, 1) > 0


@pytest.mark.parametrize("known", [True, False])
def test_the_memory_of_a_training_has_the_images_that_it_keeps(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["quick"].changed({"epochs": 2, "size": (32, 48), "batch_size": 4, "workers": 0, "cache": True})
    monkeypatch.setattr("nasdsl.training.timing.measure_pace", lambda *_: (Pace(1.0, 0.0, 0.0), 2))
    monkeypatch.setattr("nasdsl.training.timing.resident_memory", lambda: 1000 if known else None)
    monkeypatch.setattr("nasdsl.training.timing.peak_memory", lambda: 1500)
    plan = TrainingConfig(data="shapes:8", backbone="tiny", width=32, recipe=recipe)
    data = plan.open_train_dataset()
    detector = plan.make_detector(plan.prepare_decoder(loads(text())), data)
    cached = time_training(detector, data, None, recipe, "cpu")
    read = time_training(detector, data, None, recipe.changed({"cache": False}), "cpu")
    assert (cached.memory, read.memory) == ((1500 + 8 * 3 * 32 * 48, 1500) if known else (None, None))


def test_on_a_gpu_whole_batches_and_more_steps_are_measured() -> None:
    spec = small_spec(batch_size=512, seeds=3, cache="features")
    measured, share = timing._measured(spec, torch.device("cuda"))
    assert (measured.batch_size, measured.iterations, share) == (512, timing.STEPS_ON_GPU + 1, 1.0)
    assert (measured.seeds, measured.cache) == (1, None)
    assert timing._measured(spec, torch.device("cpu"))[1] < 1


def test_a_decoder_that_cannot_be_trained_is_a_failure() -> None:
    spec = small_spec(learning_rate=1e30)
    found = time_proxy(spec, open_dataset(spec.data, spec.split), [text()])
    assert found.evaluations == ()
    assert "not finite" in found.failures[0]


def test_the_time_and_the_disk_of_a_training(tmp_path: Path) -> None:
    recipe = RECIPES["quick"].changed({"epochs": 2, "size": (64, 64), "batch_size": 4, "workers": 0, "evaluate_every": 1})
    plan = TrainingConfig(data="shapes:8", backbone="tiny", width=32, recipe=recipe)
    data = plan.open_train_dataset()
    val = data.select([0, 1])
    decoder = plan.prepare_decoder(loads(text()))
    found = time_training(plan.make_detector(decoder, data), data, val, recipe, "cpu")
    assert (found.steps, found.evaluations, found.share) == (4, 2, 1.0)
    assert found.seconds > 4 * found.step > 0
    made = train(plan.make_detector(decoder, data), data, recipe, tmp_path, val, device="cpu", quiet=True)
    assert made.steps == found.steps
    size = sum(path.stat().st_size for path in tmp_path.glob("*.pt"))
    assert found.disk == pytest.approx(size, rel=0.15)


def test_images_that_are_selected() -> None:
    whole = open_dataset("shapes:6", "train")
    few = whole.select([4, 1])
    assert len(few) == 2
    for index, of in enumerate((4, 1)):
        assert torch.equal(few[index].image, whole[of].image)
        assert few.image_id(index) == whole.image_id(of)
    assert len(whole) == 6
    with pytest.raises(DataError, match="no image was selected"):
        whole.select([])
