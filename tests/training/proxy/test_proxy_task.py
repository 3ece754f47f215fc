"""The proxy task: rewards and errors of decoders."""

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
from proxy_tools import Painted, small_spec, text
from torch import nn

from nasdsl.data import open_dataset
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.method import Method
from nasdsl.diagnostics import DiagnosticError
from nasdsl.training.proxy import (
    DeviceLost,
    Diverged,
    Failed,
    OutOfMemory,
    ProxyError,
    ProxyResult,
    ProxySpec,
    ProxyTask,
    Stopped,
)
from nasdsl.training.proxy.crops import Annotations, load_annotations
from nasdsl.training.proxy.features import Features
from nasdsl.training.proxy.loader import CropLoader, _prefetch
from nasdsl.training.proxy.loop import make_method, validate
from nasdsl.training.proxy.metrics import average_precision
from nasdsl.training.proxy.timer import Timer

HEADS = ("conv_3x3(bias=true)", "conv_1x1 -> conv_1x1")


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(small_spec(), quiet=True)


def other(task: ProxyTask, **settings: Any) -> ProxyTask:
    return ProxyTask(replace(task.spec, **settings), quiet=True)


def test_a_task_is_sent_to_other_processes_by_its_settings(task: ProxyTask) -> None:
    sent = pickle.dumps(task)
    assert len(sent) < 3000
    assert pickle.loads(sent).features_digest == task.features_digest


@pytest.mark.parametrize("unreadable", [(1,), (0, 1)])
def test_one_image_that_can_be_read_is_too_few(unreadable: tuple[int, ...]) -> None:
    data = Painted([(96, 128)] * 2, [(8, 8, 40, 40)] * 2, unreadable)
    says = f"painted has {2 - len(unreadable)} readable images; meta-train and meta-val need one each"
    with pytest.raises(ProxyError, match=says):
        ProxyTask(small_spec(), dataset=data, quiet=True)


def test_whole_images(task: ProxyTask) -> None:
    """Of 72x104, padded to 96x128: a batch has their maps and the targets of all their boxes, in training and validation."""
    whole = other(task, image_size=(72, 104), size=64, longest=104, whole_images=True)
    decoder = whole.load(text())
    module, method = whole._build(decoder), whole.method(decoder)
    loader = whole.loader(module, method)
    crops = [whole.crop_sampler.center_crop(picture) for picture in whole.val]
    assert (
        {crop[2:] for crop in crops} == {crop[2:] for crop in next(whole.crop_sampler.sample(whole.train, 8, 1, 0))} == {(0, 0)}
    )
    batch = loader.load(crops)
    for name, maps in batch.features.items():
        stride = 1 << int(name[1:])
        assert maps.shape[2:] == (96 // stride, 128 // stride)
        for one, crop in zip(maps, crops, strict=True):
            assert torch.equal(one, whole.features.full_map(crop.picture, False, name).float())
    every = load_annotations(open_dataset(whole.spec.data, "train"), [(72, 104)] * 8)
    kept = [every[crop.picture].where(~every[crop.picture].iscrowd) for crop in crops]
    boxes = [{"boxes": one.boxes, "labels": one.labels} for one in kept]
    assert isinstance(method, Fcos)
    wanted = method.targets(loader.shapes, (72, 104), boxes)
    assert isinstance(batch.targets, LocationTargets)
    assert torch.equal(batch.targets.labels, wanted.labels)
    assert 0 <= other(whole, reward="ap", iterations=2)(text()).reward <= 1
    with pytest.raises(ProxyError, match="whole_images is True; expected False without image_size"):
        other(task, whole_images=True)


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
def longer(task: ProxyTask) -> Callable[..., ProxyResult]:
    """A training of some length on twenty pictures."""
    made = other(task, data="shapes:20", iterations=40, batch_size=8, learning_rate=3e-3)
    return lambda head=HEADS[0], **settings: (other(made, **settings) if settings else made)(text(head))


def test_a_longer_training_has_a_better_reward(longer: Callable[..., ProxyResult]) -> None:
    short, long = longer(iterations=4), longer()
    assert long.reward > short.reward + 0.5
    assert long.losses["classification"] < short.losses["classification"]


def test_a_decoder_that_learns_nothing_has_a_worse_reward(longer: Callable[..., ProxyResult]) -> None:
    assert longer(learning_rate=1e-12).reward < longer().reward - 0.5


def test_a_decoder_trained_on_wrong_features_has_a_worse_reward(
    longer: Callable[..., ProxyResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trained on the features of other pictures."""
    good = longer()
    cut = Features.crops

    def of_others(features: Features, crops: Any, *args: Any, **options: Any) -> Any:
        wrong = [crop._replace(picture=(crop.picture * 7 + 3) % 20) for crop in crops]
        return cut(features, wrong, *args, **options)

    monkeypatch.setattr(Features, "crops", of_others)
    assert longer().reward < good.reward


def test_retinanet_is_trained_too(task: ProxyTask) -> None:
    scored = task(text(predict="retinanet(anchors=3)"))
    assert list(scored.losses) == ["classification", "bbox_regression"]


@pytest.mark.parametrize(
    ("predict", "others"), [("atss", {"bbox_ctrness"}), ("gfl(bins=4)", {"distribution"}), ("tal(bins=4)", {"distribution"})]
)
def test_every_kind_is_trained(task: ProxyTask, predict: str, others: set[str]) -> None:
    """Also one whose targets depend on what is predicted: the boxes are kept, and assigned in each step."""
    few, more = (other(task, iterations=n)(text(predict=predict)) for n in (1, 20))
    assert set(more.losses) == {"classification", "bbox_regression"} | others
    assert sum(more.losses.values()) < sum(few.losses.values())  # one alone may rise: `tal` weights them by what is predicted


def test_losses_know_the_share_of_the_training(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(Method, "at", lambda method, progress: asked.append(progress) or method)
    other(task, iterations=4)(text())
    assert asked == [0.0, 0.25, 0.5, 0.75]


def test_half_precision_gives_a_similar_reward(task: ProxyTask) -> None:
    exact = task(text()).reward
    assert other(task, dtype="float16")(text()).reward == pytest.approx(exact, rel=1e-2)
    assert other(task, precision="bfloat16")(text()).reward == pytest.approx(exact, rel=0.1)


def test_memory_format_does_not_matter(task: ProxyTask) -> None:
    assert other(task, channels_last=False)(text()).reward == pytest.approx(task(text()).reward, rel=1e-3)


def test_without_averaging_the_last_weights_are_evaluated(task: ProxyTask) -> None:
    assert other(task, average=None)(text()).reward != task(text()).reward


@pytest.mark.parametrize(
    "predict", ["fcos(centerness=cls)", "retinanet(anchors=3)", "atss(centerness=none)", "gfl(bins=4)", "tal"]
)
def test_losses_on_meta_val_do_not_depend_on_the_batches(task: ProxyTask, predict: str) -> None:
    decoder = task.load(text(predict=predict))
    method, module = make_method(decoder, {}), task._build(decoder)
    crops = [task.crop_sampler.center_crop(picture) for picture in range(8)]
    batches = task.loader(module, method)
    losses = [
        validate(module, batches.batches([crops[i : i + n] for i in range(0, 8, n)]), method, task.spec).losses
        for n in (8, 3, 1)
    ]
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-5)
    with torch.no_grad():
        batch = batches.load(crops)
        whole = method.losses(module.eval()(batch.features), batch.targets)
    assert losses[0] == pytest.approx({name: loss.item() for name, loss in whole.items()}, rel=1e-5)


def test_prefetching_keeps_the_order() -> None:
    items = iter(range(5))
    prefetched = _prefetch(items)
    assert next(prefetched) == 0
    assert list(prefetched) == [1, 2, 3, 4]


def test_batches_for_another_device_are_the_same(task: ProxyTask) -> None:
    """The path of a GPU, except for pinned memory; the device "meta" exists on every machine."""
    half = other(task, dtype="bfloat16")
    decoder = half.load(text())
    here = half.loader(half._build(decoder), make_method(decoder, {}))
    there = replace(here, device=torch.device("meta"))
    crops = list(half.crop_sampler.sample(half.train, 3, 4, 0))
    for near, far in zip(here.batches(crops), there.batches(crops), strict=True):
        assert {k: (v.shape, v.dtype) for k, v in near.features.items()} == {
            k: (v.shape, v.dtype) for k, v in far.features.items()
        }
        assert all(x.device.type == "meta" for x in (*far.features.values(), *far.targets))
        assert [x.shape for x in near.targets] == [x.shape for x in far.targets]
    copied = there._on_host(crops[0]).maps
    assert copied["c4"].dtype == torch.bfloat16
    assert torch.equal(copied["c4"].float(), here.load(crops[0]).features["c4"])


# ------------------------------------------------------------------------------------------------------------- reward ap


def test_ap_as_reward(task: ProxyTask) -> None:
    scored = other(task, reward="ap", val_share=0.5)(text())
    assert 0 <= scored.reward < 0.2
    assert scored.losses["classification"] > 0


def test_the_time_of_computing_ap_is_part_of_validation(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    forward = nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda module, mode=True: advance(0.5 * mode) or forward(module, mode))
    monkeypatch.setattr("nasdsl.training.proxy.task.average_precision", lambda *_: advance(4.0) or 0.5)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: advance(1.0))
    details = other(task, reward="ap")(text()).details
    assert (details["compute"], details["validation"]) == (3.0, 4.0)
    assert details["overhead"] == pytest.approx(1 - 3 / (details["seconds"] - 4))


def test_ap_of_the_ground_truth_is_one_and_crowds_are_ignored(task: ProxyTask) -> None:
    found = [task._target_cache.annotations_in(task.crop_sampler.center_crop(picture)) for picture in range(8)]
    detections = [{"boxes": f.boxes, "labels": f.labels, "scores": torch.ones(len(f.boxes))} for f in found]
    assert average_precision(detections, found, (96, 96), task.classes, task.category_ids) == pytest.approx(1)
    half = [{name: x[:1] for name, x in d.items()} for d in detections]
    assert 0 < average_precision(half, found, (96, 96), task.classes, task.category_ids) < 1
    crowd = Annotations(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), torch.tensor([True]), torch.tensor([False]))
    box = Annotations(torch.tensor([[20.0, 20, 60, 60]]), torch.tensor([0]), torch.tensor([False]), torch.tensor([False]))
    both = Annotations(*(torch.cat(pair) for pair in zip(crowd, box, strict=True)))
    right = [{"boxes": box.boxes, "labels": box.labels, "scores": torch.ones(1)}]
    assert average_precision(right, [both], (96, 96), task.classes, task.category_ids) == pytest.approx(1)
    with pytest.raises(ProxyError, match="no boxes in meta-val"):
        average_precision(right, [crowd.where(torch.tensor([False]))], (96, 96), task.classes, task.category_ids)


# ------------------------------------------------------------------------------------------------------------- errors


def test_a_decoder_that_diverges(task: ProxyTask) -> None:
    with pytest.raises(Diverged, match=r"not finite at step \d of 3 \(classification"):
        other(task, learning_rate=1e15)(text())


def test_a_decoder_that_is_broken_by_its_last_step(task: ProxyTask) -> None:
    with pytest.raises(Diverged, match="on meta-val is not finite after 1 steps"):
        other(task, learning_rate=1e30, iterations=1, average=None)(text())


@pytest.mark.parametrize(
    ("error", "expected"),
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
def test_errors_of_torch_are_translated(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(nn.Module, "train", fail)
    with pytest.raises(expected) as raised:
        task(text())
    assert "\n" not in str(raised.value)
    assert type(raised.value) is expected
    assert ("batches of 3 crops of 96x96" in str(raised.value)) == (expected is OutOfMemory)
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


def test_running_out_of_memory(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "train", lambda module: torch.empty(1 << 50))
    with pytest.raises(OutOfMemory, match="allocate"):
        task(text())


def test_a_decoder_that_is_stopped_early(task: ProxyTask) -> None:
    seen: list[tuple[int, float]] = []

    def on_step(step: int, loss: float) -> bool:
        seen.append((step, loss))
        return step == 2

    with pytest.raises(Stopped, match="after step 2") as raised:
        task(text(), on_step)
    assert [step for step, _ in seen] == [1, 2]
    assert (raised.value.step, raised.value.loss) == seen[-1]
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (copy.step, copy.loss, str(copy)) == (2, seen[-1][1], str(raised.value))
    steps: list[int] = []
    assert task(text(), lambda step, loss: steps.append(step)).reward == task(text()).reward
    assert steps == [1, 2, 3]


def test_an_invalid_text(task: ProxyTask) -> None:
    with pytest.raises(DiagnosticError):
        task(text("conv_9000"))


def test_a_text_with_holes(task: ProxyTask) -> None:
    with pytest.raises(DiagnosticError, match="hole"):
        task(text("?(conv_1x1 | conv_3x3)"))


def test_a_decoder_that_reads_features_that_are_not_cached(task: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="reads c3, and cached are c4, c5: add it to levels"):
        other(task, levels=("c4", "c5"))(text())


def test_unknown_options_of_the_method(task: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="method: unknown option radius; Fcos has ranges, "):
        other(task, method={"radius": 1})(text())
    assert other(task, method={"box_loss": "giou"})(text()).reward != task(text()).reward


def test_all_invalid_settings_are_named() -> None:
    with pytest.raises(ProxyError, match=r"iterations is 0; expected 1 or more; reward is 'luck'; expected loss, ap, "):
        ProxySpec("shapes", iterations=0, reward="luck")
    with pytest.raises(ProxyError, match="device 'warp' cannot be used"):
        ProxyTask(small_spec(device="warp"))


# ------------------------------------------------------------------------------------------------------------- processes


def _reward(task: ProxyTask, given: str) -> tuple[float, bool]:
    torch.set_num_threads(1)
    return task(given).reward, task.features.mapped


@pytest.mark.long
def test_a_worker_creates_the_task_from_the_same_cache(tmp_path: Path) -> None:
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


def test_heads_are_trained_on_the_outputs_of_the_trained_fpn(task: ProxyTask, heads: ProxyTask) -> None:
    """The maps are those of the module that evaluating the text trains."""
    decoder = task.load(text())
    module = task._build(decoder)
    trained = task._train(module, make_method(decoder, {}), Timer(), None)
    assert list(heads.features.layout.levels) == ["p3", "p4", "p5", "p6"]
    for picture in (0, 5):
        for mirrored in (False, True):
            maps = {name: task.features.full_map(picture, mirrored, name)[None] for name in ("c3", "c4", "c5")}
            with torch.no_grad():
                pyramid = trained.eval().fpn(maps)
            for name, expected in pyramid.items():
                torch.testing.assert_close(heads.features.full_map(picture, mirrored, name), expected[0], rtol=1e-4, atol=1e-5)


def test_crops_of_fpn_features_are_aligned_to_its_largest_stride(heads: ProxyTask) -> None:
    assert heads.crop_sampler.stride == 64
    assert heads.features.layout.padded_sizes[0] == (96, 128)
    decoder = heads.load(text())
    batches = heads.loader(heads._build(decoder), make_method(decoder, {}))
    for crops in heads.crop_sampler.sample(heads.train, 6, 10, 0):
        assert all(crop.left % 64 == crop.top % 64 == 0 for crop in crops)
        batch = batches.load(crops)
        shapes = {name: tuple(maps.shape[2:]) for name, maps in batch.features.items()}
        assert shapes == {"p3": (12, 12), "p4": (6, 6), "p5": (3, 3), "p6": (2, 2)}
        assert batch.targets.labels.shape == (6, 144 + 36 + 9 + 4)


def test_only_the_head_is_trained(heads: ProxyTask) -> None:
    decoder = heads.load(text(HEADS[1]))
    module = heads._build(decoder)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    heads._train(module, make_method(decoder, {}), Timer(), None)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    assert math.isfinite(heads(text(HEADS[1])).reward)


def _second_stage(spec: ProxySpec, log: Path) -> float:
    """Run in a process of its own; writes a line for each training of an fpn."""
    torch.set_num_threads(1)
    train = ProxyTask._train

    def logging_train(task: ProxyTask, module: Any, *args: Any) -> Any:
        if task._fpn is None:  # it is being made
            with log.open("a") as file:
                file.write("trained\n")
        return train(task, module, *args)

    ProxyTask._train = logging_train  # type: ignore[method-assign]
    return ProxyTask(spec, quiet=True)(text(HEADS[1])).reward


@pytest.mark.long
def test_one_of_several_processes_trains_the_fpn_and_the_others_wait(tmp_path: Path) -> None:
    spec, log = small_spec(cache=str(tmp_path / "cache"), fpn=text(), memory_limit=0, iterations=20), tmp_path / "log"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(_second_stage, [(spec, log)] * 2, chunksize=1)
    assert first == second
    assert log.read_text() == "trained\n"


def test_another_fpn_is_refused_and_a_renamed_one_accepted(heads: ProxyTask) -> None:
    with pytest.raises(ProxyError, match="another fpn"):
        heads(text().replace("psum(skip(c3), skip(m4))", "psum(skip(c3), skip(c5))"))
    renamed = text().replace("m3", "finest").replace("decoder small", "decoder other")
    assert heads(renamed).reward == heads(text()).reward


def test_the_fpn_is_trained_once(heads: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = heads(text(HEADS[1])).reward
    monkeypatch.setattr(ProxyTask, "_train", None)
    again = ProxyTask(heads.spec, quiet=True)
    monkeypatch.undo()
    assert again(text(HEADS[1])).reward == reward


def test_interrupted_fpn_features_are_resumed_with_the_same_fpn(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = other(task, cache=str(tmp_path))
    whole, calls = Features.full_map, []

    def interrupted(features: Features, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return whole(features, *args)

    monkeypatch.setattr(Features, "full_map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        below.with_fpn(text())
    monkeypatch.setattr(Features, "full_map", whole)
    monkeypatch.setattr(ProxyTask, "_train", None)  # it is not trained again
    rest = below.with_fpn(text())
    monkeypatch.undo()
    fresh = task.with_fpn(text())
    for picture in range(8):
        assert torch.equal(rest.features.full_map(picture, True, "p4"), fresh.features.full_map(picture, True, "p4"))


def test_batches_of_the_second_stage_have_fpn_features_only(heads: ProxyTask) -> None:
    decoder = heads.load(text())
    loader: CropLoader = heads.loader(heads._build(decoder), make_method(decoder, {}))
    assert loader.levels == ("p3", "p4", "p5", "p6")
