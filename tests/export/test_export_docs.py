"""The code of docs/export.md finds what `nasdsl detect` finds, also where images are not resized to a fixed size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import FCOS, images, small
from PIL import Image

from nasdsl.data import read_image
from nasdsl.export import export_detector

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.parametrize(
    "options", [{"fixed_size": (64, 96)}, {"min_size": 50, "max_size": 70}, {"min_size": 64, "max_size": 500}]
)
def test_the_resizing_of_the_page(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    model = small(FCOS, classes=("a", "b"), **options)
    export_detector(model, tmp_path / "detector.onnx")
    picture = (images(1, 130, 210)[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(picture).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python file=detect.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    capsys.readouterr()
    exec(code, {})
    found = [re.fullmatch(r"(\w) ([\d.]+) \[(.*)\]", line) for line in capsys.readouterr().out.splitlines()]
    expected = model.detect(read_image(tmp_path / "photo.jpg"))
    count = int((expected["scores"] > 0.3).sum())
    assert len(found) == count > 0
    for line, box, score, label in zip(found, expected["boxes"], expected["scores"], expected["labels"], strict=False):
        assert line is not None
        assert line[1] == model.classes[label]
        assert float(line[2]) == pytest.approx(float(score), abs=2e-3)
        assert [float(v) for v in line[3].split(",")] == pytest.approx(box.tolist(), abs=0.2)
