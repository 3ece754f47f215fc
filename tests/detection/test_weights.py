"""Saving and loading detectors: round trips, no code in a file is run, and mismatches are named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import FCOS, RETINANET, TEXT, body, confident_detector, random_images, small_detector

from nasdsl import load, loads
from nasdsl.detection.detector import Detector, DetectorError
from nasdsl.detection.factory import detector, load_detector
from nasdsl.detection.weights import load_weights, save_detector


def mobile(**options: Any) -> Detector:
    """A detector with a named backbone, which a file describes completely."""
    options = {"classes": ["cat", "dog"], "category_ids": [17, 90], "min_size": 64, "max_size": 96, "seed": 0, **options}
    model = detector(loads(TEXT.replace("PREDICT", FCOS)), options.pop("backbone", "mobilenet_v2"), **options)
    with torch.no_grad():
        model.decoder.head.cls_logits.bias.zero_()
        for name, buffer in model.named_buffers():  # statistics as after some training
            if name.endswith("running_mean"):
                buffer.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.01)
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    path = tmp_path_factory.mktemp("run") / "model.pt"
    model = mobile(freeze_at=2, norm="frozen", center_radius=1.5, nms=0.5)
    save_detector(model, path)
    return model, path


def same_output(left: Detector, right: Detector) -> None:
    image = random_images((48, 80))[0]
    for one, other in zip(left.detect(image).values(), right.detect(image).values(), strict=True):
        assert len(one)
        assert torch.equal(one, other)


# ----------------------------------------------------------------------------------------------------- there and back


def test_round_trip(saved: tuple[Detector, Path]) -> None:
    model, path = saved
    for place in (path, str(path), path.parent):
        again = load_detector(place)
        assert not again.training
        assert again.config == model.config
        assert (again.classes, again.category_ids, again.method) == (model.classes, model.category_ids, model.method)
        same_output(model, again)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("predict", [FCOS, RETINANET])
def test_round_trip_with_a_custom_backbone(predict: str, tmp_path: Path) -> None:
    model = confident_detector(predict, norm=True)
    save_detector(model, tmp_path / "d.pt")
    same_output(model, load_detector(tmp_path / "d.pt", body(norm=True)))
    with pytest.raises(DetectorError, match="built with a custom backbone; give the same one"):
        load_detector(tmp_path / "d.pt")
    with pytest.raises(DetectorError, match="weights of another detector; missing: backbone"):
        load_detector(tmp_path / "d.pt", body_with_more())


def body_with_more() -> Any:
    extractor = body(norm=True)
    extractor.body.more = torch.nn.Conv2d(1, 1, 1)
    return extractor


def test_saving_other_weights_than_the_detectors_own(tmp_path: Path) -> None:
    """Such as the averaged weights of a training."""
    model, average = small_detector(seed=0), small_detector(seed=1)
    save_detector(model, tmp_path / "d.pt", average.state_dict())
    again = load_detector(tmp_path / "d.pt", body())
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), average.state_dict().values(), strict=True))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    path = tmp_path / "d.pt"
    save_detector(small_detector(), path)
    before = path.read_bytes()

    def full(_: object, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space|unexpected pos.*d.pt"):
        save_detector(small_detector(seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.pt"]


def test_devices(saved: tuple[Detector, Path]) -> None:
    for device in ("cpu", "auto", torch.device("cpu")):
        assert next(load_detector(saved[1], device=device).parameters()).device.type in ("cpu", "cuda")
    for device in ("cuda:99", "gpu"):
        with pytest.raises(DetectorError, match=f"device '{device}' cannot be used"):
            load_detector(saved[1], device=device)


# --------------------------------------------------------------------------------------------------------- bad files


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))], ids=["torch", "pickle"]
)
def test_no_code_is_run(write: Any, tmp_path: Path) -> None:
    bait = tmp_path / "ran"
    write({"format": "nasdsl detector 1", "config": {}, "model": Malicious(bait)}, tmp_path / "model.pt")
    for read in (load_detector, lambda path: load_weights(small_detector(), path)):
        with pytest.raises(DetectorError, match=r"model\.pt is not a file of weights, or holds more than weights"):
            read(tmp_path)
    assert not bait.exists()


def test_damaged_files(saved: tuple[Detector, Path], tmp_path: Path) -> None:
    """Truncated anywhere, or with one byte of the weights changed."""
    whole, path = saved[1].read_bytes(), tmp_path / "model.pt"
    damaged = [whole[: len(whole) * part // 10] for part in (0, 1, 5, 9)] + [whole[:10], whole[:-1]]
    damaged.append(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 255]) + whole[len(whole) // 2 + 1 :])
    damaged += [b"\x89PNG", b"decoder d {}", bytes(1000)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DetectorError, match=r"model\.pt (cannot be read as weights: \S|is not a file of weights)") as error:
            load_detector(path)
        assert "\n" not in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"no file .*nowhere\.pt"):
        load_detector(tmp_path / "nowhere.pt")
    with pytest.raises(DetectorError, match=r"has no model\.pt: is it a run whose training has saved\?"):
        load_detector(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"model": None}, {"model": {}}, torch.zeros(3)], ids=str)
def test_files_without_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "d.pt")
    for read in (load_detector, lambda path: load_weights(small_detector(), path)):
        with pytest.raises(DetectorError, match="holds no weights by name; expected a detector or a state dict"):
            read(tmp_path / "d.pt")


def test_an_invalid_config(saved: tuple[Detector, Path], tmp_path: Path) -> None:
    content = torch.load(saved[1], weights_only=True)
    for config in ({}, {"decoder": 3}, {**content["config"], "new": 1}, {**content["config"], "backbone": "b"}):
        torch.save({**content, "config": config}, tmp_path / "d.pt")
        with pytest.raises(DetectorError, match=r"d\.pt has a config from which no detector can be built: \S"):
            load_detector(tmp_path / "d.pt")


# ----------------------------------------------------------------------------------------- weights for another training


def test_weights_of_a_run(saved: tuple[Detector, Path], tmp_path: Path) -> None:
    model, path = saved
    torch.save(model.state_dict(), tmp_path / "state.pt")
    for place in (path.parent, path, tmp_path / "state.pt"):
        other = mobile(seed=1, center_radius=1.5, nms=0.5)
        load_weights(other, place)
        same_output(model, other)
    with pytest.raises(DetectorError, match=r"state\.pt has only weights; build the detector with nasdsl\.detector"):
        load_detector(tmp_path / "state.pt")


def test_building_a_detector_from_weights(saved: tuple[Detector, Path]) -> None:
    """`freeze_at` and `norm` default to those of the saved detector, and can be overridden."""
    model, path = saved
    text = loads(TEXT.replace("PREDICT", FCOS))
    options: dict[str, Any] = {"classes": 2, "min_size": 64, "max_size": 96, "center_radius": 1.5, "nms": 0.5}
    again = detector(text, "mobilenet_v2", path, **options).eval()
    assert again.config["backbone"] == model.config["backbone"] == {"name": "mobilenet_v2", "freeze_at": 2, "norm": "frozen"}
    same_output(model, again)
    other = detector(text, "mobilenet_v2", path, freeze_at=0, norm="train", **options).eval()
    assert other.config["backbone"] == {"name": "mobilenet_v2", "freeze_at": 0, "norm": "train"}
    assert all(p.requires_grad for p in other.parameters())
    image = random_images((48, 80))[0]
    for name, value in model.detect(image).items():
        torch.testing.assert_close(other.detect(image)[name], value, rtol=1e-3, atol=1e-3)


def test_weights_for_other_classes(saved: tuple[Detector, Path]) -> None:
    """All weights are loaded but those of the classification layer."""
    model, path = saved
    other = mobile(seed=1, classes=5, category_ids=None)
    own = {k: v.clone() for k, v in other.state_dict().items()}
    load_weights(other, path)
    for name, value in other.state_dict().items():
        expected = own[name] if "cls_logits" in name else model.state_dict().get(name, own[name])
        assert torch.equal(value, expected), name
    names = {"decoder.head.cls_logits.weight", "decoder.head.cls_logits.bias"}
    assert {name for name in own if "cls_logits" in name} == names


def test_a_text_that_takes_a_section_from_another_file_is_saved_as_a_whole(tmp_path: Path) -> None:
    whole = TEXT.replace("PREDICT", FCOS)
    start, end = whole.split("  fpn(")[0], "  head(" + whole.split("  head(")[1]
    (tmp_path / "other.nas").write_text(whole)
    (tmp_path / "taken.nas").write_text(f'{start}  fpn from "other.nas"\n{end}')
    decoder = load(tmp_path / "taken.nas")
    made = detector(decoder, "tiny", classes=3)
    save_detector(made, tmp_path / "model.pt")
    for name in ("other.nas", "taken.nas"):
        (tmp_path / name).unlink()
    loaded = load_detector(tmp_path / "model.pt")
    assert loaded.config["decoder"] == decoder.canonical
    assert loads(loaded.config["decoder"]).digest == decoder.digest == loads(whole).digest
    assert all(torch.equal(value.cpu(), made.state_dict()[key]) for key, value in loaded.state_dict().items())
