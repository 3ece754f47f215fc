"""Precisions of detectors for inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_detectors import confident_detector, random_images

import nasdsl
from nasdsl import resources
from nasdsl.backends import inference as inference_of_decoders
from nasdsl.detection.precision import PrecisionError, products_of

IMAGES = torch.stack(random_images((64, 96), (64, 96))).float() / 255


@pytest.fixture(scope="module")
def detector() -> nasdsl.Detector:
    return confident_detector(norm=True)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1), ("float16", 0.02)])
def test_precisions(precision: str, tolerance: float) -> None:
    detector = confident_detector(norm=True)
    fast = nasdsl.for_inference(detector, precision)  # type: ignore[arg-type]  # one of them
    with torch.no_grad():
        images = detector.prepare(IMAGES).images
        expected, found = detector.maps(images), fast.maps(images)
        for level, prediction in expected.items():
            for one, other in zip(prediction, found[level], strict=True):
                assert one is not None
                assert other is not None
                assert other.dtype == torch.float32
                torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance * float(one.abs().max()))
        assert len(fast(IMAGES)[0]["scores"])
    assert {p.dtype for p in fast.backbone.body.parameters()} == {getattr(torch, precision)}
    assert {p.dtype for p in fast.decoder.head.bbox_reg.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["nas_fcos", "yolox", "efficientdet_d0"])  # shared, of each level, by an op
def test_decoders_in_half_precision(name: str) -> None:
    torch.manual_seed(0)
    channels = {f"c{level}": 8 for level in range(2, 6)}
    module = nasdsl.load(resources.folder("genotypes") / f"{name}.nas").build(channels, 3).eval()
    half = inference_of_decoders.for_inference(module)
    inference_of_decoders.to_half(half, torch.bfloat16)
    features = {name: torch.randn(1, 8, 128 >> int(name[1]), 128 >> int(name[1])) for name in channels}
    with torch.no_grad():
        expected, found = module(features), half({name: x.bfloat16() for name, x in features.items()})
    for level, prediction in expected.items():
        for one, other in zip(prediction, found[level], strict=True):
            if one is not None and other is not None:
                assert other.dtype == torch.float32
                torch.testing.assert_close(other, one, rtol=0.1, atol=0.1 * float(one.abs().max()))


def test_precisions_that_there_are_not(detector: nasdsl.Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrecisionError, match="'int8'; expected float32, tf32, bfloat16, float16"):
        nasdsl.for_inference(detector, "int8")  # type: ignore[arg-type]  # a mistake
    with pytest.raises(PrecisionError, match=r"'tf32', which cpu does not have.*put the detector on one before"):
        nasdsl.for_inference(detector, "tf32")
    fast = nasdsl.for_inference(detector, "float32")
    fast.precision = "tf32"
    with pytest.raises(PrecisionError, match="cpu does not have"):
        fast.to("cpu")

    def refuses(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel for Half")

    monkeypatch.setattr("torch.nn.functional.conv2d", refuses)
    with pytest.raises(PrecisionError, match=r"'float16', which cpu does not have here \(no kernel for Half\)"):
        nasdsl.for_inference(detector, "float16")


@pytest.fixture
def settings() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("before", [(True, False), (False, False), (True, True)])
@pytest.mark.usefixtures("settings")
def test_products_are_of_the_precision_and_settings_restored(before: tuple[bool, bool]) -> None:
    def now() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    gpu = torch.device("cuda")
    for precision, expected in (("float32", (False, False)), ("tf32", (True, True)), ("bfloat16", before), (None, before)):
        with products_of(precision, gpu):  # type: ignore[arg-type]  # one of them
            assert now() == expected
        assert now() == before
    with products_of("float32", torch.device("cpu")):
        assert now() == before
