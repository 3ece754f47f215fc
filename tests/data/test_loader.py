"""Loading of batches: reproducible, resumable, shared among processes, with unreadable images reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data_folders import picture, voc_object, voc_xml

from nasdsl.data import Batch, DataError, Transform, UnreadableImage, make_loader, open_dataset
from nasdsl.data.sampler import BatchSampler
from nasdsl.data.seeds import mixed_seed

Make = Callable[..., Path]
SMALL = Transform.training(60, 100, jitter=0.2)


def _same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images)
        and a.sizes == b.sizes
        and [t["image_id"] for t in a.targets] == [t["image_id"] for t in b.targets]
        and all(torch.equal(t["boxes"], u["boxes"]) for t, u in zip(a.targets, b.targets, strict=True))
        for a, b in zip(one, other, strict=True)
    )


def _ids(batches: list[Batch]) -> list[object]:
    return [target["image_id"] for batch in batches for target in batch.targets]


def test_batches_do_not_depend_on_workers_or_cache() -> None:
    data = open_dataset("shapes:13", "train")
    runs = {}
    for name, options in {"plain": {}, "cached": {"cache": True, "workers": 2}, "workers": {"workers": 2}}.items():
        loader = make_loader(data, batch_size=4, transform=SMALL, shuffle=True, seed=3, **options)
        assert loader.cached == (name == "cached")
        runs[name] = []
        for epoch in (0, 1, 0):
            loader.set_epoch(epoch)
            runs[name].append(list(loader))
            torch.rand(3)
    for epochs in runs.values():
        assert all(_same(one, other) for one, other in zip(epochs, runs["plain"], strict=True))
    zero, one, again = runs["plain"]
    assert _same(zero, again)
    assert not _same(zero, one)
    assert _ids(zero) != _ids(one)
    assert sorted(_ids(zero)) == sorted(_ids(one)) == list(range(13))
    assert [len(batch) for batch in zero] == [4, 4, 4, 1]


def test_iterating_does_not_change_the_global_generator() -> None:
    loader = make_loader(open_dataset("shapes:3", "train"), batch_size=2, transform=SMALL, shuffle=True)
    state = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_within_an_epoch(workers: int) -> None:
    data = open_dataset("shapes:11", "train")
    options = {"batch_size": 2, "transform": SMALL, "shuffle": True, "seed": 9}
    whole = make_loader(data, **options)
    whole.set_epoch(4)
    expected = list(whole)
    read: list[int] = []
    data.read = lambda index, at_least=None, read_one=data.read: (read.append(index), read_one(index, at_least))[1]
    resumed = make_loader(data, workers=workers, start_batch=4, **options)
    resumed.set_epoch(4)
    assert _same(list(resumed), expected[4:])
    assert len(read) in ((0,) if workers else (3,))  # what came before was not loaded
    assert _same(list(resumed), expected)  # only once
    resumed.set_epoch(4, start_batch=5)
    assert _same(list(resumed), expected[5:])


def test_changing_a_batch_does_not_change_the_cache() -> None:
    loader = make_loader(open_dataset("shapes:2", "train"), batch_size=2, transform=Transform(None), cache=True)
    (batch,) = loader
    before = batch.images.clone()
    batch.images.zero_()
    batch.targets[0]["boxes"].zero_()
    batch.targets[0].pop("labels")
    (again,) = loader
    assert torch.equal(again.images, before)
    assert again.targets[0]["boxes"].sum() > 0
    assert "labels" in again.targets[0]


def test_data_above_the_limit_is_not_cached() -> None:
    data = open_dataset("shapes:4", "train")
    need = 4 * 3 * 120 * 160
    assert make_loader(data, batch_size=2, transform=Transform(120), cache=need).cached
    with pytest.warns(UserWarning, match="not cached"):
        loader = make_loader(data, batch_size=2, transform=Transform(120), cache=need - 1)
    assert not loader.cached
    assert len(list(loader)) == 2


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_training_batches_of_several_processes(world: int, count: int) -> None:
    samplers = [
        BatchSampler(
            [i % 3 == 0 for i in range(count)], batch_size=2, shuffle=True, seed=1, drop_last=False, rank=rank, world_size=world
        )
        for rank in range(world)
    ]
    shares = [sampler.batches(epoch=2) for sampler in samplers]
    assert len({len(share) for share in shares}) == 1  # or the others would wait for ever
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    seen = Counter(index for share in shares for batch in share for index in batch)
    assert set(seen) == set(range(count))
    assert seen.total() <= count + 2 * (world - 1)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_batches_of_several_processes(world: int) -> None:
    samplers = [
        BatchSampler([False] * 7, batch_size=2, shuffle=False, seed=1, drop_last=False, rank=rank, world_size=world)
        for rank in range(world)
    ]
    shares = [sampler.batches(epoch=0) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(7))


def test_batches_by_group() -> None:
    groups = [index % 3 == 0 for index in range(50)]
    sampler = BatchSampler(groups, batch_size=4, shuffle=True, seed=0, drop_last=False, rank=0, world_size=1)
    batches = sampler.batches(0)
    assert len(batches) == len(sampler) == 13
    assert sorted(index for batch in batches for index in batch) == list(range(50))
    assert sum(len({groups[index] for index in batch}) > 1 for batch in batches) <= 2
    dropped = BatchSampler(groups, batch_size=4, shuffle=True, seed=0, drop_last=True, rank=0, world_size=1)
    assert all(len(batch) == 4 for batch in dropped.batches(0))
    assert len(dropped.batches(0)) == len(dropped) == 12


def _mixed(voc: Make) -> Path:
    """Five images; c is truncated, and e has another shape."""
    thing = voc_object("cat", 2, 3, 20, 30)
    root = voc({stem: voc_xml([thing]) for stem in "abcd"} | {"e": voc_xml([thing], size=(50, 30))})
    picture(root / "JPEGImages/e.jpg", size=(50, 30))
    broken = root / "JPEGImages/c.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    return root


def test_padding(voc: Make) -> None:
    data = open_dataset(f"voc:{_mixed(voc)}", "train")
    batch = next(iter(make_loader(data, batch_size=5, transform=Transform(None), divisor=16)))
    assert batch.images.shape == (4, 3, 64, 64)
    assert batch.sizes == [(40, 60)] * 3 + [(50, 30)]
    assert torch.equal(batch.images[3, :, :50, :30], data[4].image)
    colour = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    assert (batch.images[3, :, 50:] == colour).all()
    assert (batch.images[3, :, :, 30:] == colour).all()
    moved = batch.to("cpu", channels_last=True)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert len(moved) == 4
    aspect = make_loader(data, batch_size=2, transform=Transform(None), group_by_aspect=True)
    assert [batch.sizes for batch in aspect] == [[(40, 60)] * 2, [(40, 60)], [(50, 30)]]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_of_an_evaluation(voc: Make, workers: int) -> None:
    data = open_dataset(f"voc:{_mixed(voc)}", "train")
    loader = make_loader(data, batch_size=1, transform=Transform(None), workers=workers)
    for _ in range(2):
        assert _ids(list(loader)) == ["a", "b", "d", "e"]
    (entry,) = loader.skipped
    assert entry.image_id == "c"
    assert "truncated" in entry.reason
    truth = data.ground_truth(without=[entry.image_id for entry in loader.skipped])
    assert [entry["id"] for entry in truth["images"]] == ["a", "b", "d", "e"]


def test_unreadable_images_are_replaced_in_training(voc: Make) -> None:
    data = open_dataset(f"voc:{_mixed(voc)}", "train")
    loader = make_loader(data, batch_size=2, transform=Transform(None), shuffle=True, drop_last=True)
    for epoch in range(4):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch) for batch in batches] == [2, 2]
        named = [entry.image_id for batch in batches for entry in batch.skipped]
        assert set(named) <= {"c"}
        assert "c" not in _ids(batches)
    assert [entry.image_id for entry in loader.skipped] == ["c"]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_can_be_refused(voc: Make, workers: int) -> None:
    data = open_dataset(f"voc:{_mixed(voc)}", "train", on_error="refuse")
    with pytest.raises(UnreadableImage, match=r"c\.jpg: .*truncated"):
        list(make_loader(data, batch_size=2, transform=SMALL, workers=workers))


def test_training_without_readable_images_stops(voc: Make) -> None:
    root = voc({stem: voc_xml([voc_object("cat", 2, 3, 20, 30)]) for stem in "ab"})
    for stem in "ab":
        (root / f"JPEGImages/{stem}.jpg").write_text("no picture")
    data = open_dataset(f"voc:{root}", "train")
    assert list(make_loader(data, batch_size=2, transform=SMALL)) == []
    with pytest.raises(DataError, match="2 unreadable images in a row, such as"):
        list(make_loader(data, batch_size=2, transform=SMALL, shuffle=True))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"workers": -1}, {"rank": 1}, {"divisor": 0}, {"batch_size": 5, "drop_last": True}]
)
def test_invalid_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="make_loader: "):
        make_loader(open_dataset("shapes:4", "train"), **{"batch_size": 1, "transform": SMALL, **wrong})


def test_real_data_end_to_end(coco_dev: str) -> None:
    data = open_dataset(f"coco:{coco_dev}", "val")
    loader = make_loader(data, batch_size=4, transform=Transform.training(64, 128), shuffle=True, group_by_aspect=True)
    batches = list(loader)
    assert sorted(_ids(batches)) == sorted(data.image_id(i) for i in range(20))
    for batch in batches:
        for (height, width), target in zip(batch.sizes, batch.targets, strict=True):
            assert not target["iscrowd"].any()
            assert (target["boxes"] >= 0).all()
            assert (target["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()


def test_a_process_without_batches() -> None:
    loader = make_loader(open_dataset("shapes:2", "val"), batch_size=2, transform=Transform(None), rank=1, world_size=2)
    assert (len(loader), list(loader)) == (0, [])


def test_mixed_seeds_are_distinct() -> None:
    assert len({mixed_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}) == 8000
    assert mixed_seed(0, 1) != mixed_seed(1, 0)
    assert 0 <= mixed_seed(-5, 2**70) < 2**63
