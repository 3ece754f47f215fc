from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyramids import as_maps, boxes, random_target, shapes_for, target, torch_anchors
from slow_targets import slow_fcos
from torch import Tensor
from torchvision.models.detection.fcos import FCOS

from nasdsl.detection.fcos import Fcos
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.postprocess import decode_boxes
from nasdsl.detection.pyramid import DetectionError

CLASSES = 3
SMALL = (64, 96)
SMALL_LEVELS = ("p3", "p4", "p5")


def assert_same(result: LocationTargets, image: int, slow: list[tuple[int, list[float], float]]) -> None:
    assert result.labels[image].tolist() == [label for label, _, _ in slow]
    assert result.distances[image].tolist() == [sides for _, sides, _ in slow]
    assert result.centerness[image].tolist() == pytest.approx([near for _, _, near in slow])


def of_boxes(found: Tensor) -> dict[str, Tensor]:
    return target(found, torch.arange(len(found)) % CLASSES)


class TestTargets:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(boxes(SMALL), min_size=1, max_size=3), st.sampled_from([None, 0.5, 1.5]), st.sampled_from([None, 32.0]))
    @example([torch.tensor([[0.0, 0, 68, 40]]), torch.tensor([[0.0, 0, 72, 40]])], None, None)  # exactly on the bound of 64
    @example([torch.tensor([[4.0, 4, 20, 20]])], None, None)  # locations on its sides
    def test_against_loops(self, found, radius, reference):
        fcos = Fcos(ranges=(32, 64) if reference is None else (16, 32), reference_size=reference, center_radius=radius)
        shapes = shapes_for(SMALL, SMALL_LEVELS)
        targets = [of_boxes(x) for x in found]
        result = fcos.targets(shapes, SMALL, targets)
        for image, given_target in enumerate(targets):
            assert_same(result, image, slow_fcos(shapes, [32, 64], given_target, radius))

    def test_an_example_as_a_drawing(self):
        """A box over the middle four of a 4 x 4 map: . is background, each digit the class."""
        result = Fcos().targets({"p3": (4, 4)}, (800, 800), [target([[8, 8, 24, 24], [0, 0, 32, 9]], [1, 2])])
        drawn = "".join(".012"[label + 1] for label in result.labels[0].tolist())
        assert [drawn[i : i + 4] for i in range(0, 16, 4)] == ["2222", ".11.", ".11.", "...."]
        assert result.distances[0, 5].tolist() == [4, 4, 12, 12]
        assert result.centerness[0, 5].item() == pytest.approx(1 / 3)

    def test_the_default_ranges(self):
        """The first version's: -1, 64, 128, 256, 512, infinity on P3 to P7, both ends included."""
        size = (640, 1024)
        shapes = shapes_for(size)
        found = target([[0, 0, x, min(x, 640)] for x in (60, 120, 250, 500, 900, 1024)], range(6))
        result = Fcos(reference_size=None).targets(shapes, size, [found])
        assert_same(result, 0, slow_fcos(shapes, [64, 128, 256, 512], found))
        assert all((level >= 0).any() for level in as_maps(result.labels[..., None], shapes))
        both = Fcos(reference_size=None).targets({"p3": (1, 1), "p4": (1, 1)}, (16, 16), [target([[-60, 0, 68, 72]])])
        assert both.labels.tolist() == [[-1, 0]]  # p3: 68 > 64; p4 at (8, 8): 68, within 64 … 128
        edge = Fcos(reference_size=None).targets({"p3": (1, 1), "p4": (1, 1)}, (16, 16), [target([[0, 0, 68, 68]])])
        assert edge.labels.tolist() == [[0, -1]]  # p3 at (4, 4): 64 exactly; p4 at (8, 8): 60
        edge = Fcos(reference_size=None).targets({"p3": (1, 1), "p4": (1, 1)}, (16, 16), [target([[0, 0, 72, 72]])])
        assert edge.labels.tolist() == [[-1, 0]]  # p4 at (8, 8): 64 exactly

    def test_ranges_scale_with_the_shorter_side(self):
        shapes, found = shapes_for((384, 512)), random_target(6, (384, 512), CLASSES, 0)
        scaled = Fcos().targets(shapes, (384, 512), [found])
        given_bounds = Fcos(ranges=tuple(b * 384 / 800 for b in (64, 128, 256, 512)), reference_size=None)
        assert torch.equal(scaled.labels, given_bounds.targets(shapes, (1, 1), [found]).labels)
        assert not torch.equal(scaled.labels, Fcos(reference_size=None).targets(shapes, (384, 512), [found]).labels)

    def test_the_smallest_box_wins_and_the_first_of_equal_ones(self):
        shapes = {"p3": (4, 4)}
        found = [[0, 0, 32, 32], [4, 4, 28, 28], [0, 8, 32, 25]]
        for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
            result = Fcos().targets(shapes, (800, 800), [target([found[i] for i in order], order)])
            assert result.labels[0].reshape(4, 4).tolist() == [[0] * 4, [2, 2, 2, 2], [2, 2, 2, 2], [0] * 4]
        equal = [found[1], [0, 8, 32, 26], found[1]]  # 576 square pixels each
        result = Fcos().targets(shapes, (800, 800), [target(equal, [0, 1, 2])])
        assert result.labels[0].reshape(4, 4)[1].tolist() == [1, 0, 0, 1]

    @settings(max_examples=20, deadline=None)
    @given(boxes(SMALL), st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, found, random):
        areas = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        found = found[[i for i in range(len(found)) if areas[i] not in areas[:i]]]
        order = random.sample(range(len(found)), len(found))
        shapes, one = shapes_for(SMALL, SMALL_LEVELS), of_boxes(found)
        other = {key: x[order] for key, x in one.items()}
        a, b = (Fcos().targets(shapes, (400, 400), [x]) for x in (one, other))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    @settings(max_examples=20, deadline=None)
    @given(boxes((128, 128)), st.integers(0, 2), st.integers(0, 2))
    def test_shifting_by_strides_shifts_the_targets(self, found, down, right):
        one = Fcos(center_radius=1.5).targets({"p3": (16, 16)}, (800, 800), [of_boxes(found)])
        moved = found + torch.tensor([right, down, right, down]) * 8
        other = Fcos(center_radius=1.5).targets({"p3": (16, 16)}, (800, 800), [of_boxes(moved)])
        for x, y in zip(one, other, strict=True):
            x, y = x.reshape(16, 16, -1), y.reshape(16, 16, -1)
            assert torch.equal(x[: 16 - down, : 16 - right], y[down:, right:])

    @settings(max_examples=20, deadline=None)
    @given(boxes(SMALL))
    def test_flipping_flips_the_targets(self, found):
        """Exactly, since stride * i + stride // 2 is the middle of its cell for even strides, and the maps fill the image."""
        shapes = shapes_for(SMALL, SMALL_LEVELS)
        mirrored = torch.stack([SMALL[1] - found[:, 2], found[:, 1], SMALL[1] - found[:, 0], found[:, 3]], dim=1)
        one, other = (Fcos().targets(shapes, (400, 400), [of_boxes(x)]) for x in (found, mirrored))
        for x, y in zip(as_maps(one.labels[..., None], shapes), as_maps(other.labels[..., None], shapes), strict=True):
            assert torch.equal(x.flip(3), y)
        for x, y in zip(as_maps(one.distances, shapes), as_maps(other.distances, shapes), strict=True):
            assert torch.equal(x.flip(3)[:, [2, 1, 0, 3]], y)

    @pytest.mark.parametrize("seed", range(3))
    def test_against_torchvision(self, seed):
        """With centre sampling and unscaled ranges the assignment is torchvision's, once its anchors are put around our
        locations (its own stand around ``stride * i``), and but for its bounds, which belong to no level (none is met here),
        and areas that differ by less than some 16 square pixels, which it takes for equal.
        """
        size = (256, 384)
        shapes = shapes_for(size)
        found = [random_target(count, size, CLASSES, 10 * seed + count) for count in (0, 3, 7)]
        found = [target(x["boxes"] + 0.25, x["labels"]) for x in found]
        result = Fcos(center_radius=1.5, reference_size=None).targets(shapes, size, found)
        anchors = torch_anchors(shapes)
        model = SimpleNamespace(center_sampling_radius=1.5, head=SimpleNamespace(compute_loss=lambda *given: given[3]))
        places = [h * w for h, w in shapes.values()]
        matched = FCOS.compute_loss(model, found, {}, [anchors] * len(found), places)
        for image, index in enumerate(matched):
            labels = [-1 if i < 0 else int(found[image]["labels"][i]) for i in index.tolist()]
            assert result.labels[image].tolist() == labels
            positive = index >= 0
            decoded = decode_boxes((anchors[:, :2] + anchors[:, 2:]) / 2, result.distances[image])
            assert torch.equal(decoded[positive], found[image]["boxes"][index[positive]])
        assert (result.labels >= 0).any()

    def test_crowded_empty_and_odd_images(self):
        shapes = shapes_for((100, 75))
        odd = target([[5, 5, 5, 50], [5, 5, 50, 5], [30, 30, 10, 10], [500, 500, 600, 600], [float("nan")] * 4])
        result = Fcos().targets(shapes, (100, 75), [target([]), odd, random_target(400, (100, 75), CLASSES, 1)])
        assert (result.labels[:2] == -1).all()
        assert not result.distances[:2].any()
        assert not result.centerness[:2].any()
        assert (result.labels[2] >= 0).any()
        assert all(x.isfinite().all() for x in result)
        assert result.select([2, 0]).labels.tolist() == result.labels[[2, 0]].tolist()
        assert result.select(slice(1, 2)).distances.shape[0] == 1

    def test_a_wrong_number_of_bounds(self):
        with pytest.raises(DetectionError, match="ranges has 4 bounds for the 3 levels p3, p4, p5; expected 2, one between"):
            Fcos(ranges=(64, 128, 256, 512)).targets(shapes_for(SMALL, SMALL_LEVELS), SMALL, [target([])])

    def test_the_default_bounds_follow_the_levels(self):
        found = [random_target(5, (256, 256), CLASSES, 3)]
        for levels, bounds in [(("p2", "p3", "p4"), (32, 64)), (("p4", "p5"), (128,)), (("p5",), ())]:
            shapes = shapes_for((256, 256), levels)
            a, b = (Fcos(ranges=r, reference_size=None).targets(shapes, (256, 256), found) for r in (None, bounds))
            assert torch.equal(a.labels, b.labels)
