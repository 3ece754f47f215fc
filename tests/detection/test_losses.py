from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.distributed
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from nasdsl.detection.losses import BoxLoss, box_loss, centerness, mean_over_processes
from nasdsl.detection.postprocess import decode_boxes

KINDS = get_args(BoxLoss)


def distances(count: int, seed: int) -> Tensor:
    """Random distances between half a pixel and a few hundred pixels."""
    return (torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5 + 2).exp()


def test_against_torchvision():
    predicted, wanted = distances(200, 0), distances(200, 1)
    location = torch.randn(200, 2, dtype=torch.float64) * 100
    iou, giou = (
        of(decode_boxes(location, predicted), decode_boxes(location, wanted)).diagonal()
        for of in (box_iou, generalized_box_iou)
    )
    assert torch.allclose(box_loss(predicted, wanted, "iou"), -iou.log(), rtol=1e-6)
    assert torch.allclose(box_loss(predicted, wanted, "linear_iou"), 1 - iou)
    assert torch.allclose(box_loss(predicted, wanted, "giou"), 1 - giou, atol=1e-6)


def test_by_hand():
    predicted, wanted = torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([[2.0, 1.0, 2.0, 1.0]])  # 2 x 2 within 4 x 2
    assert box_loss(predicted, wanted, "iou").item() == pytest.approx(math.log(2))
    assert box_loss(predicted, wanted, "linear_iou").item() == pytest.approx(0.5)
    assert box_loss(predicted, wanted, "giou").item() == pytest.approx(0.5)
    assert centerness(torch.tensor([[1.0, 2.0, 4.0, 2.0], [3.0, 3.0, 3.0, 3.0]])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_perfect_box_is_zero_and_independent_of_the_unit(kind):
    predicted, wanted = distances(50, 2), distances(50, 3)
    assert box_loss(wanted, wanted, kind).abs().max() < 1e-6
    assert torch.allclose(box_loss(predicted, wanted, kind), box_loss(predicted * 8, wanted * 8, kind), atol=1e-6)
    assert (box_loss(predicted, wanted, kind) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    assert torch.autograd.gradcheck(lambda x: box_loss(x, distances(20, 5), kind), [distances(20, 4).requires_grad_()])


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_without_area_have_finite_losses(kind):
    predicted = torch.tensor([[0.0, 0, 0, 0], [0, 5, 0, 5], [1e-30, 1e-30, 1e-30, 1e-30]], requires_grad=True)
    loss = box_loss(predicted, torch.full((3, 4), 10.0), kind)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


def test_the_gradient_of_the_iou_loss_is_bounded():
    raw = torch.tensor([-5.0, 0.0, 3.0, 8.0]).expand(4, 4).T.clone().requires_grad_()  # sides of 0.007 to 3000 pixels
    box_loss(raw.exp(), torch.full((4, 4), 400.0), "iou").sum().backward()
    assert raw.grad is not None
    assert (raw.grad.abs() <= 1).all()
    assert (raw.grad[:3] < -0.4).all()
    assert (raw.grad[3] > 0.4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes(kind):
    predicted = torch.zeros(0, 4, requires_grad=True)
    assert box_loss(predicted, torch.zeros(0, 4), kind).shape == (0,)


def test_mean_over_processes(tmp_path, monkeypatch):
    x = torch.tensor([3.0, 5.0])
    assert mean_over_processes(x) is x
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        assert torch.equal(mean_over_processes(x), x)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(torch.tensor([1.0, 0.0])))
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        assert mean_over_processes(x).tolist() == [2.0, 2.5]
        assert x.tolist() == [3.0, 5.0]
    finally:
        torch.distributed.destroy_process_group()
