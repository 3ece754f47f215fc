"""Losses at all locations, as a GPU computes them, are those at the positive ones alone, as a CPU does; neither waits there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss
from waiting import as_on_gpu, refusing_to_wait

from nasdsl.backends.module import Prediction
from nasdsl.detection.atss import Atss
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.gfl import Gfl
from nasdsl.detection.losses import giou_loss
from nasdsl.detection.method import Method
from nasdsl.detection.positives import positives
from nasdsl.detection.pyramid import DetectionError, one_hot
from nasdsl.detection.retinanet import Retinanet
from nasdsl.detection.tal import Tal

SHAPES = {"p3": (12, 16), "p4": (6, 8)}
CLASSES = 3
METHODS: list[Method] = [
    Fcos(reference_size=None),
    Fcos(reference_size=None, box_loss="giou", center_radius=1.5),
    Fcos(reference_size=None, box_loss="linear_iou", has_centerness=False),
    Atss(),
    Gfl(bins=4),
    Retinanet(anchors=3),
]


def predictions(method: Method, seed: int = 0) -> dict[str, Prediction]:
    """Random ones, whose maps need gradients."""
    draw = torch.Generator().manual_seed(seed)

    def maps(channels: int, shape: tuple[int, int], offset: float = 0.0) -> Tensor:
        return (torch.randn(2, channels, *shape, generator=draw) + offset).requires_grad_()

    centers = isinstance(method, Fcos | Atss) and method.has_centerness
    found = {}
    for level, shape in SHAPES.items():
        boxes = maps(method.positions * method.box_values, shape, 2.0)
        boxes = boxes.exp() if isinstance(method, Fcos | Atss) else boxes
        found[level] = Prediction(maps(method.positions * CLASSES, shape), boxes, maps(1, shape) if centers else None)
    return found


def boxes(*, empty: bool = False) -> list[dict[str, Tensor]]:
    of_one = {"boxes": torch.tensor([[8.0, 8, 60, 70], [50, 20, 118, 88], [4, 60, 30, 90]]), "labels": torch.tensor([0, 2, 1])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [none if empty else of_one, none]


def gradients(method: Method, targets: Any) -> tuple[dict[str, float], list[Tensor]]:
    """The losses, and the gradients of all maps by their sum."""
    given = predictions(method)
    leaves = [x for p in given.values() for x in p if x is not None]
    losses = method.losses(given, targets)
    torch.stack(list(losses.values())).sum().backward(inputs=(roots := [_root(x) for x in leaves]))
    return {name: float(loss.detach()) for name, loss in losses.items()}, [root.grad for root in roots if root.grad is not None]


def _root(x: Tensor) -> Tensor:
    """The leaf that a map is made of."""
    return x if x.is_leaf else x.grad_fn.next_functions[0][0].variable  # type: ignore[union-attr]  # of exp


@pytest.fixture(params=METHODS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'box_loss', '')}")
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("empty", [False, True])
def test_losses_and_gradients_are_the_same(method: Method, empty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = method.targets(SHAPES, (96, 128), boxes(empty=empty))
    assert bool((targets.labels >= 0).any()) is not empty
    selected, selected_gradients = gradients(method, targets)
    as_on_gpu(monkeypatch)
    masked, masked_gradients = gradients(method, targets)
    assert masked == pytest.approx(selected, rel=1e-5)
    assert len(masked_gradients) == len(selected_gradients)
    for a, b in zip(masked_gradients, selected_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_box_that_cannot_be_computed_where_nothing_is_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predicted distance of infinity at a location without a box: a mask must not make it 0 times infinity."""
    fcos = Fcos(reference_size=None)
    targets = fcos.targets(SHAPES, (96, 128), boxes())
    given = predictions(fcos)
    nothing = int((targets.labels[0][: 12 * 16] < 0).nonzero()[0])
    broken = given["p3"].bbox_reg.detach().clone()
    broken.flatten(2)[0, :, nothing] = torch.inf
    given["p3"] = given["p3"]._replace(bbox_reg=broken.requires_grad_())
    as_on_gpu(monkeypatch)
    torch.stack(list(fcos.losses(given, targets).values())).sum().backward()
    assert broken.grad is not None
    assert bool(broken.grad.isfinite().all())
    assert float(broken.grad.abs().sum()) > 0


def test_no_loss_waits_for_a_gpu(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(method).has_fixed_losses
    targets = method.targets(SHAPES, (96, 128), boxes())
    as_on_gpu(monkeypatch)
    given = predictions(method)
    with refusing_to_wait():
        losses = method.losses(given, targets)
        torch.stack(list(losses.values())).sum().backward()


def test_losses_that_wait_are_found_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tal = Tal(bins=4)
    targets = tal.targets(SHAPES, (96, 128), boxes())
    as_on_gpu(monkeypatch)
    assert not Tal.has_fixed_losses
    with pytest.raises(AssertionError, match="would wait"), refusing_to_wait():
        tal.losses(predictions(tal), targets)


def test_one_hot_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = torch.tensor([[0, -1, 2], [-2, 1, -1]]), torch.zeros(2, 3, 3)
    expected = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert torch.equal(one_hot(labels, logits), expected)
    with pytest.raises(DetectionError, match="the label 2, but the decoder has 2 classes"):
        one_hot(labels, logits[..., :2])
    as_on_gpu(monkeypatch)
    assert torch.equal(one_hot(labels, logits), expected)
    with pytest.raises(RuntimeError, match="not below 2"):
        one_hot(labels, logits[..., :2])


def test_rows_of_positives(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, values = torch.tensor([[True, False], [False, True]]), torch.tensor([[3.0, 5], [7, 9]])
    for of_gpu in (False, True):
        if of_gpu:
            as_on_gpu(monkeypatch)
        found = positives(mask)
        rows = found.rows(values, 100.0)
        assert rows.tolist() == ([3, 100, 100, 9] if of_gpu else [3, 9])
        assert (float(found.total(rows)), float(found.count(rows))) == (12, 2)
        assert found.count(rows.double()).dtype == torch.float64
        assert found.only(rows)[found.only(rows) != 0].tolist() == [3, 9]
        assert found.maps(rows)[mask].tolist() == [3, 9]


def test_giou_is_torchvisions_bit_for_bit() -> None:
    draw = torch.Generator().manual_seed(0)
    corners, sides = torch.rand(200, 4, generator=draw) * 50, torch.rand(200, 4, generator=draw) * 40
    left = torch.cat([corners[:, :2], corners[:, :2] + sides[:, :2]], 1)
    right = torch.cat([corners[:, 2:], corners[:, 2:] + sides[:, 2:]], 1)
    ours, theirs = left.clone().requires_grad_(), left.clone().requires_grad_()
    own, known = giou_loss(ours, right), generalized_box_iou_loss(theirs, right)
    assert torch.equal(own, known)
    own.sum().backward()
    known.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
