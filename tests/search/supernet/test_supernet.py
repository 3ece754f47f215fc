"""Training of a weight-sharing network, its checkpoints, and the search that it evaluates."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nasdsl.backends.module import DecoderModule
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.method import Method
from nasdsl.search import search
from nasdsl.search.errors import SearchError
from nasdsl.search.supernet import training
from nasdsl.search.supernet.evaluation import SupernetEvaluation
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.training import Supernet
from nasdsl.spaces import loads_space
from nasdsl.training.proxy import Diverged, ProxySpec, ProxyTask
from nasdsl.training.signals import Interrupted

SPACE = loads_space(
    """
decoder tiny_space {
  input c3, c4, c5
  let w = ?(8 | 16)
  fpn(width=w, norm=bn) {
    x = ?(conv_3x3 | sep_3x3)(c4)
    output p3 = c3, p4 = sum(x, c5)
  }
  head(width=w, norm=none) { ?(conv_1x1 | skip) }
  predict fcos(centerness=cls)
}
""",
    backbone="tiny",
)


def proxy(**settings: object) -> ProxySpec:
    given = {"data": "shapes:8", "backbone": "tiny", "size": 64, "longest": 112, "batch_size": 2, "dtype": "float32"}
    return ProxySpec(**{**given, "device": "cpu", **settings})  # type: ignore[arg-type]  # settings by name


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(proxy(), quiet=True)


def supernet(task: ProxyTask, iterations: int = 6, path: Path | None = None) -> Supernet:
    return Supernet(SPACE, {(None, None): task}, SupernetSpec(iterations=iterations), path, quiet=True)


def test_a_step_trains_the_widest_the_narrowest_and_a_sample(task: ProxyTask) -> None:
    net = supernet(task)
    widths = [{SPACE.load(text).architecture.fpn.width for text in net._texts(step)} for step in range(5)]
    assert all(found == {8, 16} for found in widths)
    texts = net._texts(0)
    assert len({net.widths.widest(text.indices) for text in texts}) == 1  # otherwise the same filling


def test_a_step_trains_several_samples(task: ProxyTask) -> None:
    net = Supernet(SPACE, {(None, None): task}, SupernetSpec(iterations=1, paths=6), quiet=True)
    texts = net._texts(0)
    assert len({net.widths.widest(text.indices) for text in texts}) > 1
    assert {SPACE.load(text).architecture.fpn.width for text in texts} == {8, 16}
    net.train()
    steps = [net.bind(text, keep=True).weights for text in texts]
    before = Supernet(SPACE, {(None, None): task}, SupernetSpec(iterations=1, paths=6), quiet=True)
    starts = [before.bind(text, keep=True).weights for text in texts]  # the same random weights, in the same order
    assert all(any(not torch.equal(new[k], old[k]) for k in new) for new, old in zip(steps, starts, strict=True))
    assert "paths" in net.spec.to_dict()
    assert "paths" not in SupernetSpec().to_dict()  # searches of earlier versions have none


@pytest.mark.long
def test_training_lowers_the_loss_of_every_filling(task: ProxyTask) -> None:
    net = supernet(task, 60)
    texts = [SPACE.decode(indices) for indices in ((0, 0, 0), (1, 1, 1), (1, 0, 1))]
    before = [net.score(text).reward for text in texts]
    net.train()
    assert all(net.score(text).reward > start + 0.2 for text, start in zip(texts, before, strict=True))
    assert net.score(texts[0]).reward == net.score(texts[0]).reward


def test_losses_know_the_share_of_the_training(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(Method, "at", lambda method, progress: asked.append(progress) or method)
    net = supernet(task, 4)
    net.train()
    assert sorted(set(asked)) == [0.0, 0.25, 0.5, 0.75]
    assert asked == sorted(asked)


def test_a_filling_can_be_taken_out(task: ProxyTask) -> None:
    net = supernet(task)
    net.train()
    text = SPACE.decode((0, 1, 0))
    module = DecoderModule(task.load(text).lower(task.in_channels), len(task.classes))
    module.load_state_dict(net.state_of(text))
    reward, _ = task.validate(module, task.loader(module, task.method(task.load(text))))
    assert reward == net.score(text).reward


def test_scores_do_not_depend_on_what_was_scored_before(task: ProxyTask) -> None:
    """Not even those of layers that no step has trained."""
    first, second = supernet(task, 1), supernet(task, 1)
    for net in (first, second):
        net.train()
    texts = [SPACE.decode((w, x, y)) for w in (0, 1) for x in (0, 1) for y in (0, 1)]
    count = first.weights.count
    forwards, backwards = [first.score(text).reward for text in texts], [second.score(text).reward for text in texts[::-1]]
    assert forwards == backwards[::-1]
    assert first.weights.count == count


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = supernet(task)
    whole.train()
    stopped = supernet(task, path=tmp_path / "supernet.pt")
    step = stopped._train_step

    def stop_after_three(*given: object) -> bool:
        if stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(stopped, "_train_step", stop_after_three)
    with pytest.raises(Interrupted):
        stopped.train()
    again = supernet(task, path=tmp_path / "supernet.pt")
    again.train()
    assert again.step == 6
    left, right = whole.weights.state(), again.weights.state()
    assert list(left) == list(right)
    assert all(torch.equal(left[key], right[key]) for key in left)
    with pytest.raises(SearchError, match="another space, proxy task or training"):
        supernet(task, 7, tmp_path / "supernet.pt").train()


def test_losses_that_are_not_finite_change_nothing_and_end_the_training(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = supernet(task)
    losses = Fcos.losses
    steps: list[int] = []

    def broken(self: Fcos, *given: Any) -> Any:
        steps.append(net.step)
        return {name: loss * float("nan") for name, loss in losses(self, *given).items()}

    monkeypatch.setattr(training, "MAX_NONFINITE", 3)
    monkeypatch.setattr(Fcos, "losses", broken)
    with pytest.raises(Diverged, match="the loss of 3 steps in a row is not finite, at step 2"):
        net.train()
    assert steps == [0, 1, 2]
    assert all(value.isfinite().all() for value in net.weights.state().values())
    monkeypatch.setattr(Fcos, "losses", losses)
    assert net._train_step(torch.optim.Adam([torch.zeros(1, requires_grad=True)]))


def test_a_space_without_widths_trains_its_samples(task: ProxyTask) -> None:
    space = loads_space(SPACE.source.text.replace("?(8 | 16)", "8"), backbone="tiny")
    net = Supernet(space, {(None, None): task}, SupernetSpec(paths=3), quiet=True)
    assert net.widths.decisions == ()
    assert len(net._texts(0)) == 3


def test_a_text_for_another_detector_is_named(task: ProxyTask) -> None:
    net = supernet(task)
    net.tasks = {("tiny", (64, 64)): task, ("tiny", (64, 96)): task}
    text = str(SPACE.with_detector([(32, 32)], ["tiny"]).sample(0))
    with pytest.raises(SearchError, match=r"^the text is for tiny, 32x32; expected one of: tiny, 64x64; tiny, 64x96$"):
        net.task_of(text)


def test_latency_is_measured_on_request_and_the_network_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[int, int]]] = []
    monkeypatch.setattr(ProxyTask, "latency", lambda self, text, size: asked.append((text, size)) or 0.25)
    evaluation = SupernetEvaluation(
        SPACE, {(None, None): proxy()}, SupernetSpec(iterations=1), tmp_path / "supernet.pt", (48, 64), quiet=True
    )
    evaluation.prepare(keep=False)
    assert evaluation._supernet is None
    text = str(SPACE.sample(0))
    assert evaluation(text).details["latency"] == 0.25
    assert asked == [(text, (48, 64))]


def test_a_search_is_evaluated_by_inherited_weights(tmp_path: Path) -> None:
    evaluation = SupernetEvaluation(
        SPACE,
        {(None, None): proxy(cache=str(tmp_path / "features"))},
        SupernetSpec(iterations=3),
        tmp_path / "supernet.pt",
        quiet=True,
    )
    evaluation.prepare()
    found = search(SPACE, evaluation, "random", 8, out=tmp_path / "search", task=evaluation.identity, quiet=True)
    assert found.best is not None
    other = pickle.loads(pickle.dumps(evaluation))
    assert other(str(found.best.text)).reward == found.best.reward  # another process loads the weights


def test_settings_are_checked() -> None:
    with pytest.raises(SearchError, match="iterations is 0; expected 1 or more"):
        SupernetSpec(iterations=0)
