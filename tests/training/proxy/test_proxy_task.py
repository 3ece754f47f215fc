"""Texts in, rewards and verdicts out."""

from __future__ import annotations

import math
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from proxy_tools import small_spec, text
from torch import nn

from nasdsl.diagnostics import DiagnosticError
from nasdsl.training.proxy import (
    DeviceLost,
    Diverged,
    Failed,
    OutOfMemory,
    ProxyError,
    ProxySpec,
    ProxyTask,
    Scored,
    Stopped,
    adaptation,
)
from nasdsl.training.proxy.adaptation import Batches, measure, method_of
from nasdsl.training.proxy.crops import Objects
from nasdsl.training.proxy.features import Features
from nasdsl.training.proxy.scoring import average_precision

HEADS = ("conv_3x3(bias=true)", "conv_1x1 -> conv_1x1")


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(small_spec(), quiet=True)


def other(task: ProxyTask, **settings: Any) -> ProxyTask:
    return ProxyTask(replace(task.spec, **settings), quiet=True)


def test_the_same_reward_bit_for_bit(task: ProxyTask) -> None:
    first = task(text())
    torch.manual_seed(5)
    torch.rand(3)
    task(text(HEADS[1]))
    again = task(text())
    assert (again.reward, again.losses) == (first.reward, first.losses)
    fresh = ProxyTask(small_spec(), quiet=True)(text())
    assert (fresh.reward, fresh.losses) == (first.reward, first.losses)
    assert other(task, seed=1)(text()).reward != first.reward


def test_the_random_state_is_left_alone(task: ProxyTask) -> None:
    state = torch.random.get_rng_state()
    task(text())
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_reward_is_minus_the_sum_of_the_losses(task: ProxyTask) -> None:
    scored = task(text())
    assert list(scored.losses) == ["classification", "bbox_regression", "bbox_ctrness"]
    assert scored.reward == -sum(scored.losses.values())
    assert 0 < scored.details["overhead"] < 1
    assert scored.details["seconds"] > scored.details["compute"] > 0


@pytest.fixture(scope="module")
def longer(task: ProxyTask) -> Callable[..., Scored]:
    """A training of some length on twenty pictures."""
    made = other(task, data="shapes:20", iterations=40, batch_size=8, learning_rate=3e-3)
    return lambda head=HEADS[0], **settings: (other(made, **settings) if settings else made)(text(head))


def test_a_longer_training_has_a_better_reward(longer: Callable[..., Scored]) -> None:
    short, long = longer(iterations=4), longer()
    assert long.reward > short.reward + 0.5
    assert long.losses["classification"] < short.losses["classification"]


def test_a_decoder_that_learns_nothing_has_a_worse_reward(longer: Callable[..., Scored]) -> None:
    assert longer(learning_rate=1e-12).reward < longer().reward - 0.5


def test_a_decoder_that_sees_nothing_has_a_worse_reward(longer: Callable[..., Scored], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its features are those of other pictures."""
    good = longer()
    crops = Features.crops

    def of_others(features: Features, places: Any, *args: Any, **options: Any) -> Any:
        wrong = [place._replace(picture=(place.picture * 7 + 3) % 20) for place in places]
        return crops(features, wrong, *args, **options)

    monkeypatch.setattr(Features, "crops", of_others)
    assert longer().reward < good.reward


def test_retinanet_is_trained_too(task: ProxyTask) -> None:
    scored = task(text(predict="retinanet(anchors=3)"))
    assert list(scored.losses) == ["classification", "bbox_regression"]


def test_half_precision_comes_near(task: ProxyTask) -> None:
    exact = task(text()).reward
    assert other(task, dtype="float16")(text()).reward == pytest.approx(exact, rel=1e-2)
    assert other(task, precision="bfloat16")(text()).reward == pytest.approx(exact, rel=0.1)


def test_memory_format_does_not_matter(task: ProxyTask) -> None:
    assert other(task, channels_last=False)(text()).reward == pytest.approx(task(text()).reward, rel=1e-3)


def test_without_averaging_the_last_weights_count(task: ProxyTask) -> None:
    assert other(task, average=None)(text()).reward != task(text()).reward


@pytest.mark.parametrize("predict", ["fcos(centerness=cls)", "retinanet(anchors=3)"])
def test_losses_on_meta_val_do_not_depend_on_the_batches(task: ProxyTask, predict: str) -> None:
    decoder = task._load(text(predict=predict))
    method, module = method_of(decoder, {}), task._build(decoder)
    places = [task.cropping.middle(picture) for picture in range(8)]
    batches = task._batches(module, method)
    losses = [
        measure(module, batches.stream([places[i : i + n] for i in range(0, 8, n)]), method, task.spec, detect=False).losses
        for n in (8, 3, 1)
    ]
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-5)
    with torch.no_grad():
        batch = batches.make(places)
        whole = method.losses(module.eval()(batch.features), batch.targets)
    assert losses[0] == pytest.approx({name: loss.item() for name, loss in whole.items()}, rel=1e-5)


def test_batches_made_ahead_are_the_same_batches(task: ProxyTask) -> None:
    items = iter(range(5))
    ahead = adaptation._ahead(items)
    assert next(ahead) == 0
    assert list(ahead) == [1, 2, 3, 4]


def test_batches_for_another_device_are_the_same(task: ProxyTask) -> None:
    """Of a GPU, all but the pinned memory; "meta" is a device that every machine has."""
    half = other(task, dtype="bfloat16")
    decoder = half._load(text())
    here = half._batches(half._build(decoder), method_of(decoder, {}))
    there = replace(here, device=torch.device("meta"))
    places = list(half.cropping.draw(half.train, 3, 4, 0))
    for near, far in zip(here.stream(places), there.stream(places), strict=True):
        assert {k: (v.shape, v.dtype) for k, v in near.features.items()} == {
            k: (v.shape, v.dtype) for k, v in far.features.items()
        }
        assert all(x.device.type == "meta" for x in (*far.features.values(), *far.targets))
        assert [x.shape for x in near.targets] == [x.shape for x in far.targets]
    stored = there.make(places[0]).features
    assert stored["c4"].dtype == torch.bfloat16
    assert torch.equal(stored["c4"].float(), here.make(places[0]).features["c4"])


# ------------------------------------------------------------------------------------------------------------- reward ap


def test_ap_as_reward(task: ProxyTask) -> None:
    scored = other(task, reward="ap", val_share=0.5)(text())
    assert 0 <= scored.reward < 0.2
    assert scored.losses["classification"] > 0


def test_ap_of_the_truth_itself_is_one_and_crowds_do_not_count(task: ProxyTask) -> None:
    found = [task._store.found_in(task.cropping.middle(picture)) for picture in range(8)]
    detections = [{"boxes": f.boxes, "labels": f.labels, "scores": torch.ones(len(f.boxes))} for f in found]
    assert average_precision(detections, found, 96, task.classes, task.category_ids) == pytest.approx(1)
    half = [{name: x[:1] for name, x in d.items()} for d in detections]
    assert 0 < average_precision(half, found, 96, task.classes, task.category_ids) < 1
    crowd = Objects(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), torch.tensor([True]), torch.tensor([False]))
    box = Objects(torch.tensor([[20.0, 20, 60, 60]]), torch.tensor([0]), torch.tensor([False]), torch.tensor([False]))
    both = Objects(*(torch.cat(pair) for pair in zip(crowd, box, strict=True)))
    right = [{"boxes": box.boxes, "labels": box.labels, "scores": torch.ones(1)}]
    assert average_precision(right, [both], 96, task.classes, task.category_ids) == pytest.approx(1)
    with pytest.raises(ProxyError, match="no boxes in meta-val"):
        average_precision(right, [crowd.where(torch.tensor([False]))], 96, task.classes, task.category_ids)


# ------------------------------------------------------------------------------------------------------------- verdicts


def test_a_decoder_that_diverges(task: ProxyTask) -> None:
    with pytest.raises(Diverged, match=r"not finite at step \d of 3 \(classification"):
        other(task, learning_rate=1e15)(text())


def test_a_decoder_that_is_broken_by_its_last_step(task: ProxyTask) -> None:
    with pytest.raises(Diverged, match="on meta-val is not finite after 1 steps"):
        other(task, learning_rate=1e30, iterations=1, average=None)(text())


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
            OutOfMemory,
        ),
        (RuntimeError("std::bad_alloc"), OutOfMemory),
        (RuntimeError("Sizes of tensors must match\nmore"), Failed),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), DeviceLost),
    ],
)
def test_what_torch_raises_becomes_a_verdict(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: type[Exception]
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(nn.Module, "train", fail)
    with pytest.raises(verdict) as raised:
        task(text())
    assert "\n" not in str(raised.value)
    assert type(raised.value) is verdict
    assert ("batches of 3 crops of 96x96" in str(raised.value)) == (verdict is OutOfMemory)
    monkeypatch.undo()
    assert math.isfinite(task(text()).reward)


def test_a_layer_that_torch_cannot_train_is_named_with_its_line(task: ProxyTask) -> None:
    """A BatchNorm has one value per channel where a global pool meets one crop a step."""
    gated = text().replace(
        "output p3 = m3", "gate = sigmoid(conv_1x1(global_pool(m3, kind=avg)))\n    output p3 = mul(m3, gate)"
    )
    with pytest.raises(
        Failed, match=r"cannot run this decoder: the text:6:20: gate.norm .*Expected more than 1 value per channel"
    ):
        other(task, batch_size=1)(gated)


def test_memory_that_cannot_be_had(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "train", lambda module: torch.empty(1 << 50))
    with pytest.raises(OutOfMemory, match="allocate"):
        task(text())


def test_a_decoder_that_is_given_up(task: ProxyTask) -> None:
    told: list[tuple[int, float]] = []

    def report(step: int, loss: float) -> bool:
        told.append((step, loss))
        return step == 2

    with pytest.raises(Stopped, match="after step 2") as raised:
        task(text(), report)
    assert [step for step, _ in told] == [1, 2]
    assert (raised.value.step, raised.value.loss) == told[-1]
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (copy.step, copy.loss, str(copy)) == (2, told[-1][1], str(raised.value))
    seen: list[int] = []
    assert task(text(), lambda step, loss: seen.append(step)).reward == task(text()).reward
    assert seen == [1, 2, 3]


def test_a_text_that_does_not_check(task: ProxyTask) -> None:
    with pytest.raises(DiagnosticError):
        task(text("conv_9000"))


def test_a_text_with_holes_is_no_decoder(task: ProxyTask) -> None:
    with pytest.raises(DiagnosticError, match="hole"):
        task(text("?(conv_1x1 | conv_3x3)"))


def test_a_decoder_that_reads_what_is_not_cached(task: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="reads c3, and cached are c4, c5: add it to levels"):
        other(task, levels=("c4", "c5"))(text())


def test_unknown_options_of_the_method(task: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="method has radius; Fcos knows ranges, "):
        other(task, method={"radius": 1})(text())
    assert other(task, method={"box_loss": "giou"})(text()).reward != task(text()).reward


def test_all_wrong_settings_are_named() -> None:
    with pytest.raises(ProxyError, match=r"iterations is 0; expected 1 or more; reward is 'luck'; expected 'loss' or 'ap'"):
        ProxySpec("shapes", iterations=0, reward="luck")
    with pytest.raises(ProxyError, match="device 'warp' cannot be used"):
        ProxyTask(small_spec(device="warp"))


# ------------------------------------------------------------------------------------------------------------- processes


def _reward(task: ProxyTask, given: str) -> tuple[float, bool]:
    torch.set_num_threads(1)
    return task(given).reward, task.features.mapped


def test_a_worker_makes_the_task_itself_from_the_same_cache(tmp_path: Path) -> None:
    here = ProxyTask(small_spec(cache=str(tmp_path), memory_limit=0), quiet=True)
    assert len(pickle.dumps(here)) < 2000
    (file,) = tmp_path.glob("*/features.bin")
    written = file.stat().st_mtime_ns
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_reward, (here, text())) == (here(text()).reward, True)
    assert file.stat().st_mtime_ns == written


# ---------------------------------------------------------------------------------------------------------- second stage


@pytest.fixture(scope="module")
def heads(task: ProxyTask, tmp_path_factory: pytest.TempPathFactory) -> ProxyTask:
    cached = other(task, cache=str(tmp_path_factory.mktemp("cache")), memory_limit=0, longest=160)
    return cached.with_fpn(text())


def test_heads_are_trained_on_the_pyramid_of_the_trained_fpn(task: ProxyTask, heads: ProxyTask) -> None:
    """The maps are those of the module that scoring the text trains."""
    decoder = task._load(text())
    module = task._build(decoder)
    trained = task._adapt(module, method_of(decoder, {}), adaptation.Clocks(), None)
    assert list(heads.features.layout.levels) == ["p3", "p4", "p5", "p6"]
    for picture in (0, 5):
        for mirrored in (False, True):
            maps = {name: task.features.whole(picture, mirrored, name)[None] for name in ("c3", "c4", "c5")}
            with torch.no_grad():
                pyramid = trained.eval().fpn(maps)
            for name, expected in pyramid.items():
                torch.testing.assert_close(heads.features.whole(picture, mirrored, name), expected[0], rtol=1e-4, atol=1e-5)


def test_crops_of_the_pyramid_are_aligned_at_its_coarsest_level(heads: ProxyTask) -> None:
    assert heads.cropping.stride == 64
    assert heads.features.layout.extents[0] == (96, 128)
    decoder = heads._load(text())
    batches = heads._batches(heads._build(decoder), method_of(decoder, {}))
    for places in heads.cropping.draw(heads.train, 6, 10, 0):
        assert all(place.left % 64 == place.top % 64 == 0 for place in places)
        batch = batches.make(places)
        shapes = {name: tuple(maps.shape[2:]) for name, maps in batch.features.items()}
        assert shapes == {"p3": (12, 12), "p4": (6, 6), "p5": (3, 3), "p6": (2, 2)}
        assert batch.targets.labels.shape == (6, 144 + 36 + 9 + 4)


def test_only_the_head_learns(heads: ProxyTask) -> None:
    decoder = heads._load(text(HEADS[1]))
    module = heads._build(decoder)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    heads._adapt(module, method_of(decoder, {}), adaptation.Clocks(), None)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    assert math.isfinite(heads(text(HEADS[1])).reward)


def _second_stage(spec: ProxySpec, noted: Path) -> float:
    """In a process of its own; each training of an fpn leaves a line."""
    torch.set_num_threads(1)
    adapt = ProxyTask._adapt

    def noting(task: ProxyTask, module: Any, *args: Any) -> Any:
        if task._fpn is None:  # it is being made
            with noted.open("a") as file:
                file.write("trained\n")
        return adapt(task, module, *args)

    ProxyTask._adapt = noting  # type: ignore[method-assign]
    return ProxyTask(spec, quiet=True)(text(HEADS[1])).reward


def test_of_several_processes_one_trains_the_fpn_and_the_others_wait_for_it(tmp_path: Path) -> None:
    spec, noted = small_spec(cache=str(tmp_path / "cache"), fpn=text(), memory_limit=0, iterations=20), tmp_path / "noted"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(_second_stage, [(spec, noted)] * 2, chunksize=1)
    assert first == second
    assert noted.read_text() == "trained\n"


def test_another_fpn_is_refused_and_another_name_for_it_is_not(heads: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="another fpn"):
        heads(text().replace("psum(skip(c3), skip(m4))", "psum(skip(c3), skip(c5))"))
    renamed = text().replace("m3", "finest").replace("decoder small", "decoder other")
    assert heads(renamed).reward == heads(text()).reward


def test_the_fpn_is_trained_once(heads: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = heads(text(HEADS[1])).reward
    monkeypatch.setattr(ProxyTask, "_adapt", None)
    again = ProxyTask(heads.spec, quiet=True)
    monkeypatch.undo()
    assert again(text(HEADS[1])).reward == reward


def test_half_made_pyramids_go_on_with_the_fpn_that_made_them(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = other(task, cache=str(tmp_path))
    whole, calls = Features.whole, []

    def interrupted(features: Features, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return whole(features, *args)

    monkeypatch.setattr(Features, "whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        below.with_fpn(text())
    monkeypatch.setattr(Features, "whole", whole)
    monkeypatch.setattr(ProxyTask, "_adapt", None)  # it is not trained again
    rest = below.with_fpn(text())
    monkeypatch.undo()
    fresh = task.with_fpn(text())
    for picture in range(8):
        assert torch.equal(rest.features.whole(picture, True, "p4"), fresh.features.whole(picture, True, "p4"))


def test_the_batches_of_a_head_have_no_backbone_features(heads: ProxyTask) -> None:
    decoder = heads._load(text())
    made: Batches = heads._batches(heads._build(decoder), method_of(decoder, {}))
    assert made.names == ("p3", "p4", "p5", "p6")
