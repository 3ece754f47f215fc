"""Features in the memory of a device: crops, which levels fit, and copies that are begun one batch ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from proxy_tools import Painted, small_spec, text
from waiting import as_on_gpu, refusing_to_wait

from nasdsl.data import UnreadableImage
from nasdsl.training.proxy import ProxySpec, ProxyTask, feature_batches
from nasdsl.training.proxy.crops import Crop
from nasdsl.training.proxy.extraction import backbone_feature_function, make_frozen_backbone, make_layout, resized_sizes
from nasdsl.training.proxy.feature_batches import features_in_batches
from nasdsl.training.proxy.features import FeatureLayout, Features, Level
from nasdsl.training.proxy.resident import RESIDENT_SHARE, copy_to, levels_that_fit
from nasdsl.training.proxy.transfer import CopiesAtOnce, one_ahead

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features() -> Features:
    """A different number at every place; pictures of several sizes, with mirror images."""
    layout = FeatureLayout({"c3": Level(8, 3), "c4": Level(16, 2), "c5": Level(32, 5)}, [(64, 96), (96, 64), (64, 160)], 2)
    return Features(torch.arange(layout.offsets[-1], dtype=torch.float32), layout, {}, mapped=False)


CROPS = [Crop(0, False, 0, 32), Crop(2, True, 0, 96), Crop(1, False, 32, 0), Crop(2, False, 0, 64), Crop(1, True, 0, 0)]


def test_crops_on_the_device_are_those_of_the_array(features: Features) -> None:
    resident = copy_to(features, ("c3", "c5"), CPU)
    expected = features.crops(CROPS, ("c3", "c5"), (64, 64))
    for name in resident.names:
        places = resident.places(CROPS, name)
        with refusing_to_wait():
            found = resident.crops(places, name, (64, 64))
        assert torch.equal(found, expected[name])
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert resident.nbytes == 4 * 2 * sum(
        (h // s) * (w // s) * c for h, w in features.layout.padded_sizes for s, c in ((8, 3), (32, 5))
    )


def test_levels_that_take_least_are_kept_as_long_as_they_fit(features: Features) -> None:
    sizes = {name: copy_to(features, (name,), CPU).nbytes for name in features.layout.levels}
    assert sizes["c4"] < sizes["c3"]
    assert sizes["c5"] < sizes["c4"]
    needed = sizes["c5"] + sizes["c4"]
    assert levels_that_fit(features, int(needed / RESIDENT_SHARE)) == ["c5", "c4"]
    assert levels_that_fit(features, int(needed / RESIDENT_SHARE) - 2) == ["c5"]
    assert levels_that_fit(features, 0) == []


@pytest.mark.parametrize("kept", [(), ("c3",), ("c3", "c4", "c5")])
@pytest.mark.parametrize("channels_last", [True, False])
def test_batches_are_those_of_a_cpu_wherever_features_are(kept: tuple[str, ...], channels_last: bool) -> None:
    """The steps of a batch for a GPU, on a CPU: what the host prepares, what is copied, what is made of it."""
    task = ProxyTask(small_spec(dtype="float16", channels_last=channels_last), quiet=True)
    decoder = task.load(text())
    on_cpu = task.loader(task._build(decoder), task.method(decoder))
    loader = replace(on_cpu, resident=copy_to(task.features, kept, CPU))
    for crops in task.crop_sampler.sample(task.train, 3, 4, 0):
        expected = on_cpu.load(crops)
        host = loader._on_host(crops)
        assert (set(host.places), set(host.maps)) == (set(kept), {"c3", "c4", "c5"} - set(kept))
        with refusing_to_wait():
            found = loader._on_device(loader._copy(host))
        assert list(found.features) == list(expected.features)
        for name, maps in expected.features.items():
            assert torch.equal(found.features[name], maps)
            assert found.features[name].stride() == maps.stride()
        for a, b in zip(found.targets, expected.targets, strict=True):
            assert torch.equal(a, b)
    half = replace(loader, dtype=torch.bfloat16)
    assert half._on_device(half._copy(half._on_host([Crop(0, False, 0, 0)]))).features["c4"].dtype == torch.bfloat16


def test_targets_without_locations_are_copied_as_they_are() -> None:
    task = ProxyTask(small_spec(), quiet=True)
    decoder = task.load(text(predict="retinanet(anchors=1)"))
    loader = task.loader(task._build(decoder), task.method(decoder))
    crops = next(iter(task.crop_sampler.sample(task.train, 1, 4, 0)))
    expected, found = loader.load(crops), loader._on_device(loader._copy(loader._on_host(crops)))
    assert type(found.targets) is type(expected.targets)
    for a, b in zip(found.targets, expected.targets, strict=True):
        assert torch.equal(a, b)


class Noted(CopiesAtOnce[int, int]):
    """Copies that write down what is begun and finished."""

    def __init__(self) -> None:
        super().__init__(lambda item: 10 * item)
        self.log: list[Any] = []

    def begin(self, item: int) -> int:
        self.log.append(("begin", item))
        return super().begin(item)

    def finish(self, begun: int) -> int:
        self.log.append(("finish", begun))
        return super().finish(begun)


def test_the_next_copy_is_begun_before_the_last_is_handed_out() -> None:
    noted = Noted()
    for copied in one_ahead(iter([1, 2, 3]), noted):
        noted.log.append(("use", copied))
    assert noted.log == [
        ("begin", 1), ("begin", 2), ("finish", 10), ("use", 10), ("begin", 3), ("finish", 20), ("use", 20),
        ("finish", 30), ("use", 30),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- batches


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_gpu(monkeypatch)
    monkeypatch.setattr(feature_batches, "BATCH", 2)
    monkeypatch.setattr(feature_batches, "WINDOW", 5)


SIZES = [(96, 128), (128, 96), (96, 128), (96, 130), (96, 128), (96, 128), (128, 96), (96, 128)]


@pytest.mark.usefixtures("_small_batches")
def test_pictures_of_one_size_are_computed_together_and_given_in_their_order() -> None:
    """In windows of five; the third cannot be read."""
    batches: list[list[int]] = []

    def load(picture: int) -> int:
        if picture == 2:
            raise UnreadableImage("picture2.png", "torn")
        return picture

    def compute(loaded: list[int]) -> dict[str, torch.Tensor]:
        batches.append(loaded)
        return {"c3": torch.tensor([[10.0 * x, 10.0 * x + 1] for x in loaded]).reshape(-1, 1, 1, 1)}

    found = list(features_in_batches(load, lambda picture: SIZES[picture], compute, CPU)(range(8)))
    assert batches == [[0, 4], [1], [3], [5, 7], [6]]
    assert isinstance(found[2], UnreadableImage)
    numbers = [None if isinstance(maps, UnreadableImage) else maps["c3"].flatten().tolist() for maps in found]
    assert numbers == [None if picture == 2 else [10 * picture, 10 * picture + 1] for picture in range(8)]
    assert list(features_in_batches(load, lambda picture: 0, compute, CPU)(range(0))) == []


def test_features_of_a_batch_are_those_of_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: a network with padding, on pictures of other sizes that are padded to the same."""
    spec = ProxySpec("painted", backbone="tiny", size=96, longest=160, dtype="float32", device="cpu")
    dataset = Painted([(96, 128), (96, 120), (128, 96), (96, 125)], [(8, 8, 60, 70)] * 4, grey=90)
    extractor = make_frozen_backbone(spec)
    layout = make_layout(extractor.out_channels, resized_sizes(dataset, spec), spec)
    assert len(set(layout.padded_sizes)) == 2
    alone = list(backbone_feature_function(dataset, extractor, layout, spec, CPU)(range(4)))
    as_on_gpu(monkeypatch)
    together = list(backbone_feature_function(dataset, extractor, layout, spec, CPU)(range(4)))
    for a, b in zip(alone, together, strict=True):
        assert not isinstance(a, UnreadableImage)
        assert not isinstance(b, UnreadableImage)
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_the_precision_is_chosen_by_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(device: str) -> ProxySpec:
        return ProxySpec("shapes:8", device=device, precision="auto")

    assert chosen("cpu").precision == "float32"
    assert chosen("cuda").precision == "float32"  # there is none here: a task says so
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0))
    assert chosen("auto").precision == chosen("cuda:0").precision == "bfloat16"
    assert replace(chosen("cuda:0"), device="cpu").precision == "bfloat16"  # another process of the same search
    assert chosen("cpu").precision == chosen("cuda:1").precision == "float32"
    assert ProxySpec("shapes:8", device="cuda").precision == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (7, 5))
    assert chosen("auto").precision == "float32"
