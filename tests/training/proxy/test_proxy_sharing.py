"""Features that several processes have in one GPU's memory: who owns them, who attaches them, what is done if that fails."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from proxy_tools import small_spec

from nasdsl.search.proxy_evaluation import ProxyEvaluation
from nasdsl.search.workers import shared_gpus_of
from nasdsl.training.proxy import ProxyTask, sharing
from nasdsl.training.proxy.features import FeatureLayout, Features, Level
from nasdsl.training.proxy.resident import copy_to

GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def features() -> Features:
    layout = FeatureLayout({"c3": Level(8, 3), "c4": Level(16, 2)}, [(32, 64), (64, 32)], 2)
    return Features(torch.arange(layout.offsets[-1], dtype=torch.float32), layout, {}, mapped=False)


@pytest.mark.parametrize(
    ("workers", "expected"),
    [("process:3", []), ("process:4", ["3"]), ("process:6", ["3", "5", "7"]), ("process:9", ["3", "5", "7"]), ("inline", []),
     ("ray:8", [])],
)  # fmt: skip
def test_features_are_shared_on_gpus_of_several_processes(
    workers: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert shared_gpus_of(workers) == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shared_gpus_of(workers) == []


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a CPU stand in for the GPU: what is copied to it and exported; returns the log."""
    log: list[str] = []

    def copied(features: Features, names: list[str], device: torch.device) -> Any:
        log.append(f"copy to {device}")
        return copy_to(features, names, torch.device("cpu"))

    def export(pixels: torch.Tensor) -> Any:
        return pickle.dumps(pixels.clone())

    monkeypatch.setattr(sharing, "copy_to", copied)
    monkeypatch.setattr(sharing, "export", export)
    monkeypatch.setattr(sharing, "attach", pickle.loads)
    monkeypatch.setattr(sharing, "forget", lambda handle: log.append("forget"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    return log


def test_what_one_process_exports_another_attaches(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    log = on_cpu(monkeypatch)
    shared = sharing.SharedFeatures(features, ["3", "5"])
    assert log == ["copy to cuda:0", "copy to cuda:1"]
    assert list(shared.handles) == ["3", "5"]
    found = sharing.make_resident(features, GPU, shared.handles["5"])
    own = copy_to(features, ("c3", "c4"), torch.device("cpu"))
    assert found is not None
    assert set(found.names) == {"c3", "c4"}
    assert all(torch.equal(found.pixels[name], own.pixels[name]) for name in own.names)
    assert len(log) == 2
    shared.release()
    assert log[2:] == ["forget"] * 4
    assert shared.handles == {}


def test_without_handles_or_where_they_fail_a_process_has_its_own(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    log = on_cpu(monkeypatch)
    assert sharing.make_resident(features, torch.device("cpu")) is None
    assert sharing.make_resident(features, GPU) is not None
    assert log == ["copy to cuda:0"]

    def fails(handle: Any) -> Any:
        raise RuntimeError("CUDA error: invalid device context")

    monkeypatch.setattr(sharing, "attach", fails)
    with pytest.warns(UserWarning, match="features of its own on the GPU, because .* invalid device context"):
        found = sharing.make_resident(features, GPU, {"c3": b""})
    assert found is not None
    assert log == ["copy to cuda:0"] * 2


def test_a_worker_is_sent_the_handles_of_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = ProxyEvaluation(small_spec(cache=str(tmp_path)), quiet=True)
    released: list[int] = []
    handles = {"3": {"c3": "of 3"}, "5": {"c3": "of 5"}}
    evaluation._shared = SimpleNamespace(handles=handles, release=lambda: released.append(1))  # type: ignore[assignment]  # a stand-in
    sent = pickle.dumps(evaluation)
    given: list[Any] = []
    monkeypatch.setattr(ProxyTask, "attach", lambda task, handles: given.append(handles))
    for gpu in ("5", "4"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
        pickle.loads(sent)._get_task()
    assert given == [{"c3": "of 5"}, {}]
    assert not released
    evaluation.release()
    evaluation.release()
    assert released == [1]
    assert pickle.loads(pickle.dumps(evaluation))._handles == {}


def test_the_handle_of_torch_is_opened_on_the_one_gpu_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of the arguments in `rebuild_cuda_tensor`."""
    import inspect

    names = list(inspect.signature(sharing.reductions.rebuild_cuda_tensor).parameters)
    assert names[sharing._DEVICE] == "storage_device"
    assert names[sharing._COUNTER] == ["ref_counter_handle", "ref_counter_offset"]
    opened: list[Any] = []
    monkeypatch.setattr(sharing.reductions, "rebuild_cuda_tensor", lambda *arguments: opened.append(arguments))
    sharing.attach(tuple(range(100, 115)))
    assert opened == [(*range(100, 106), 0, *range(107, 115))]
