"""How much the features will take, said before they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxy_tools import small_spec, text

from nasdsl.data import open_dataset
from nasdsl.training.proxy import ProxySpec, ProxyTask
from nasdsl.training.proxy.estimate import estimate_features


@pytest.mark.parametrize("settings", [{}, {"mirror": False, "dtype": "float16"}, {"levels": ("c4",)}])
def test_the_estimate_is_what_the_backbone_features_take(settings: dict[str, object], tmp_path: Path) -> None:
    spec = small_spec(**{"cache": str(tmp_path), **settings})
    estimate = estimate_features(open_dataset(spec.data, spec.split), spec)
    ProxyTask(spec, quiet=True)
    (made,) = tmp_path.glob("*/features.bin")
    assert (estimate.backbone, estimate.fpn) == (made.stat().st_size, 0)


def test_the_estimate_is_what_the_second_stage_takes(tmp_path: Path) -> None:
    spec = small_spec(cache=str(tmp_path), iterations=1)
    estimate = estimate_features(open_dataset(spec.data, spec.split), spec, text())
    ProxyTask(spec, quiet=True).with_fpn(text())
    made = sorted(path.stat().st_size for path in tmp_path.glob("*/features.bin"))
    assert sorted([estimate.backbone, estimate.fpn]) == made
    assert estimate.total == sum(made)


def test_the_features_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-50, 5,717 images of 500x375 as VOC has them: 135 GB with c2."""
    import nasdsl.training.proxy.estimate as module

    monkeypatch.setattr(module, "resized_sizes", lambda dataset, spec: [(384, 512)] * 5717)
    data = open_dataset("shapes:2", "train")
    sizes = {
        levels: estimate_features(data, ProxySpec("shapes:2", levels=levels)).backbone / 1e9
        for levels in (("c2", "c3", "c4", "c5"), ("c3", "c4", "c5"))
    }
    assert list(sizes.values()) == pytest.approx([134.9, 63.0], rel=0.01)
