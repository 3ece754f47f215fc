"""The feature cache: interrupted, resumed, shared between processes, damaged, and its keys."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from proxy_tools import Painted, means, small_spec
from torch import nn

from nasdsl.data import UnreadableImage, open_dataset
from nasdsl.training.progress import ProgressBar
from nasdsl.training.proxy import ProxyError, ProxyTask, cache
from nasdsl.training.proxy.cache import load_or_compute_features
from nasdsl.training.proxy.extraction import (
    cache_key,
    dataset_digest,
    make_frozen_backbone,
    make_layout,
    resized_sizes,
    weights_digest,
)
from nasdsl.training.proxy.feature_batches import features_in_batches
from nasdsl.training.proxy.features import FeatureLayout, Features, Level, Maps

KEY = {"of": "tests"}
LAYOUT = FeatureLayout({"c3": Level(8, 2), "c4": Level(16, 3)}, [(32, 32 + 16 * i) for i in range(6)], 2)


def maps(picture: int) -> Maps:
    """Maps with a different number at every position."""
    made = {}
    for name, (_, channels) in LAYOUT.levels.items():
        shape = (2, channels, *LAYOUT.shape(picture, name))
        made[name] = torch.arange(torch.tensor(shape).prod().item(), dtype=torch.float32).view(shape) + 1000 * picture
    return made


def make(folder: Path | None, compute: Callable[[int], Maps] = maps, key: dict[str, Any] = KEY, **options: Any) -> Features:
    options = {"memory_limit": 0, "quiet": True, **options}
    if folder is None:
        options["memory_limit"] = 1 << 20
    of_all = features_in_batches(compute, lambda picture: None, lambda loaded: loaded[0], torch.device("cpu"))
    return load_or_compute_features("numbers", key, LAYOUT, of_all, torch.float32, cache=folder, **options)


def assert_right(features: Features) -> None:
    for picture in range(6):
        expected = maps(picture)
        for mirrored in (False, True):
            for name in LAYOUT.levels:
                assert torch.equal(features.full_map(picture, mirrored, name), expected[name][int(mirrored)])


class Counting:
    """Computes maps and records the pictures; calls `before` first."""

    def __init__(self, before: Callable[[int], object] = lambda picture: None) -> None:
        self.before, self.pictures = before, list[int]()

    def __call__(self, picture: int) -> Maps:
        self.before(picture)
        self.pictures.append(picture)
        return maps(picture)


def failing_at(number: int, error: BaseException) -> Counting:
    def fail(picture: int) -> None:
        if picture == number:
            raise error

    return Counting(fail)


@pytest.fixture(autouse=True)
def _synced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SYNC_EVERY", 0.0)


def test_features_that_another_process_has_finished_meanwhile_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, mine = cache._lock, Counting()

    @contextmanager
    def late(path: Path, progress: ProgressBar) -> Iterator[None]:
        monkeypatch.setattr(cache, "_lock", lock)
        make(tmp_path)
        with lock(path, progress):
            yield

    monkeypatch.setattr(cache, "_lock", late)
    assert_right(make(tmp_path, mine))
    assert mine.pictures == []


def test_a_process_waits_for_another_that_makes_the_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fcntl = pytest.importorskip("fcntl")
    other = open(tmp_path / "lock", "wb")  # noqa: SIM115  # closed by the timer
    fcntl.flock(other, fcntl.LOCK_EX)
    threading.Timer(0.05, other.close).start()
    with cache._lock(tmp_path / "lock", ProgressBar("features", 1, quiet=False)):
        assert other.closed
    assert capsys.readouterr().err == "another process is making the features: waiting for it\n"


def test_where_files_cannot_be_locked_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        assert_right(make(tmp_path / "network"))
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert_right(make(tmp_path / "windows"))
    assert not list((tmp_path / "windows").glob("*/lock"))


def test_features_are_computed_once(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    assert_right(make(tmp_path, first))
    assert_right(make(tmp_path, second))
    assert (first.pictures, second.pictures) == (list(range(6)), [])
    assert_right(make(None))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_an_interrupted_cache_is_resumed(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        make(tmp_path, failing_at(4, error))
    assert not list(tmp_path.glob("*/features.json"))
    rest = Counting()
    assert_right(make(tmp_path, rest))
    assert rest.pictures == [4, 5]
    assert not list(tmp_path.glob("*/progress.json"))


def test_a_killed_cache_is_resumed(tmp_path: Path) -> None:
    """As after kill -9, with half a picture written after the last recorded progress."""
    pid = os.fork()
    if not pid:
        make(tmp_path, Counting(lambda picture: picture == 3 and os._exit(7)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    (file,) = tmp_path.glob("*/features.bin")
    with open(file, "ab") as opened:
        opened.write(b"torn" * 9)
    rest = Counting()
    assert_right(make(tmp_path, rest))
    assert rest.pictures == [3, 4, 5]


def test_progress_beyond_the_end_of_the_file_is_ignored(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, failing_at(4, KeyboardInterrupt()))
    (file,) = tmp_path.glob("*/features.bin")
    os.truncate(file, 40)
    again = Counting()
    assert_right(make(tmp_path, again))
    assert again.pictures == list(range(6))


def test_a_cache_that_is_made_anew_is_not_marked_as_complete(tmp_path: Path) -> None:
    """Until it is: after a power cut its file can have the right size, and not yet the numbers."""
    make(tmp_path)
    (folder,) = tmp_path.iterdir()
    os.truncate(folder / "features.bin", 10)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, failing_at(3, KeyboardInterrupt()))
    assert not (folder / "features.json").exists()
    assert_right(make(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "missing", "longer"])
def test_a_complete_cache_with_a_damaged_file_is_computed_anew(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    (file,) = tmp_path.glob("*/features.bin")
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size + (4 if damage == "longer" else -4))
    again = Counting()
    assert_right(make(tmp_path, again, quiet=False))
    assert again.pictures == list(range(6))
    assert "made anew" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["features.json", "progress.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": {"of": "others"}, "skipped": {}, "pictures": 6}'])
def test_state_files_that_are_broken_or_of_another_key_are_ignored(tmp_path: Path, name: str, content: str) -> None:
    make(tmp_path, key={"of": "tests"})
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (folder / "features.json").unlink()
    (folder / name).write_text(content)
    again = Counting()
    assert_right(make(tmp_path, again))
    assert again.pictures == list(range(6))


def test_another_key_is_another_cache(tmp_path: Path) -> None:
    make(tmp_path)
    other = Counting()
    make(tmp_path, other, key={"of": "others"})
    assert other.pictures == list(range(6))
    assert len(list(tmp_path.glob("*/features.bin"))) == 2


def test_two_processes_compute_the_features_once(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def slowly(picture: int) -> Maps:
        with open(log, "a") as file:
            file.write(f"{picture}\n")
        time.sleep(0.03)
        return maps(picture)

    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            try:
                assert_right(make(tmp_path / "cache", slowly))
                os._exit(0)
            except BaseException:
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert log.read_text().split() == [str(picture) for picture in range(6)]


def test_unreadable_pictures_are_recorded_and_not_read_again(tmp_path: Path) -> None:
    for folder in (None, tmp_path, tmp_path):
        features = make(folder, failing_at(2, UnreadableImage("two.jpg", "torn")))
        assert features.skipped == {2: "two.jpg: torn"}
        assert not features.full_map(2, True, "c4").any()
        assert torch.equal(features.full_map(3, True, "c4"), maps(3)["c4"][1])


def test_maps_of_another_shape_are_refused() -> None:
    with pytest.raises(ProxyError, match=r"c4 of image 0 has the shape \[2, 3, 2, 3\]; expected \[2, 3, 2, 2\]"):
        make(None, lambda picture: maps(picture) | {"c4": torch.zeros(2, 3, 2, 3)})


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(ProxyError, match="no space for"):
        make(tmp_path)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProxyError, match="cannot be kept in"):
        make(tmp_path / "file")


def test_progress_lines_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nasdsl.training.progress.LINE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, failing_at(4, KeyboardInterrupt()), quiet=False)
    make(tmp_path, quiet=False)
    printed = capsys.readouterr().err
    assert "numbers: 3/6  0 s left" in printed
    assert "numbers: resuming from 4 of 6" in printed


# ------------------------------------------------------------------------------------------------------------- keys


def key(dataset: Any, extractor: Any, **settings: Any) -> dict[str, Any]:
    spec = small_spec(**settings)
    return cache_key(dataset, extractor, make_layout(extractor.out_channels, resized_sizes(dataset, spec), spec), spec)


def test_the_key_changes_with_everything_that_features_depend_on() -> None:
    painted, tiny = Painted([(96, 128)], [(0, 0, 9, 9)]), make_frozen_backbone(small_spec())
    keys = [
        key(painted, tiny),
        key(Painted([(96, 128)], [(0, 0, 9, 10)]), tiny),  # a pixel
        key(Painted([(96, 128)] * 2, [(0, 0, 9, 9)] * 2), tiny),
        key(painted, make_frozen_backbone(small_spec(seed=1))),
        key(painted, tiny, size=64),
        key(painted, tiny, longest=128),
        key(painted, tiny, mirror=False),
        key(painted, tiny, levels=("c3", "c4", "c5")),
        key(painted, tiny, dtype="float16"),
        key(painted, means(), backbone="other"),
    ]
    assert len({json.dumps(k) for k in keys}) == len(keys)
    same = ("iterations", 9), ("batch_size", 9), ("learning_rate", 1.0), ("val_share", 0.5), ("seed", 4), ("reward", "ap")
    for name, value in same:
        assert key(painted, tiny, **{name: value}) == keys[0]


def test_one_weight_or_statistic_changes_the_key() -> None:
    tiny = make_frozen_backbone(small_spec())
    assert weights_digest(tiny) == weights_digest(make_frozen_backbone(small_spec()))
    before = weights_digest(tiny)
    norm = next(m for m in tiny.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean[3] += 1e-6
    assert weights_digest(tiny) != before


def test_the_key_depends_on_the_files_and_not_on_their_folder_and_boxes(tmp_path: Path) -> None:
    from PIL import Image

    def folder(name: str, grey: int = 7, xmax: int = 20) -> Any:
        root = tmp_path / name
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / part).mkdir(parents=True)
        Image.new("RGB", (64, 48), (grey, 0, 0)).save(root / "JPEGImages/a.png")
        box = f"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{xmax}</xmax><ymax>9</ymax></bndbox>"
        size = "<size><width>64</width><height>48</height></size>"
        xml = f"<annotation><filename>a.png</filename>{size}<object><name>cell</name>{box}</object></annotation>"
        (root / "Annotations/a.xml").write_text(xml)
        (root / "ImageSets/Main/train.txt").write_text("a\n")
        return open_dataset(f"voc:{root}", "train")

    first = dataset_digest(folder("first"))
    assert dataset_digest(folder("second", xmax=30)) == first
    assert dataset_digest(folder("third", grey=8)) != first


def test_a_task_finds_its_cache_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec(cache=str(tmp_path))
    before = ProxyTask(spec, quiet=True).features
    monkeypatch.setattr(cache, "_compute_file", None)
    after = ProxyTask(replace(spec, memory_limit=0, seed=0, iterations=7), quiet=True).features
    assert after.mapped
    assert torch.equal(after.full_map(3, True, "c4"), before.full_map(3, True, "c4"))
    with pytest.raises(TypeError):
        ProxyTask(replace(spec, dtype="float16"), quiet=True)
