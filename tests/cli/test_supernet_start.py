"""Detectors that start with the weights which their decoder inherits from the network of a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from in_process import invoke, refused

import nasdsl
from nasdsl.detection.factory import detector, load_detector
from nasdsl.search.errors import SearchError
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.start import inherited_weights, is_supernet
from nasdsl.search.supernet.training import Supernet
from nasdsl.spaces import loads_space
from nasdsl.training.proxy import ProxySpec, ProxyTask

TEXT = """
decoder tiny_space {
  input c3, c4, c5
  let w = ?(8 | 16)
  fpn(width=w, norm=bn) {
    x = ?(conv_3x3 | sep_3x3)(c4)
    output p3 = c3, p4 = sum(x, c5)
  }
  head(width=w, norm=bn) { ?(conv_1x1 | skip) -> conv_3x3 }
  predict fcos(centerness=cls)
}
"""
SPACE = loads_space(TEXT, backbone="tiny")


def test_a_detector_computes_what_the_network_does(tmp_path: Path) -> None:
    """Narrower than the widest, with measured statistics, and with the backbone that the features are from."""
    spec = ProxySpec(
        "shapes:8", backbone="tiny", size=64, longest=112, batch_size=2, dtype="float32", device="cpu", seed=3,
        cache=str(tmp_path / "features"),
    )  # fmt: skip
    task = ProxyTask(spec, quiet=True)
    net = Supernet(SPACE, {(None, None): task}, SupernetSpec(iterations=3, paths=2), tmp_path / "supernet.pt", quiet=True)
    net.train()
    text = SPACE.decode((0, 1, 0))
    saved = inherited_weights(tmp_path, text, device="cpu", quiet=True)
    made = detector(nasdsl.loads(text), "tiny", saved, task.classes, fixed_size=(64, 64)).eval()
    assert made.inherited is not None
    assert made.inherited.is_complete
    bound, crops = net._calibrated(text).eval(), iter([[task.crop_sampler.center_crop(i) for i in task.val]])
    batch = next(net._loader(text, bound)[1].batches(crops))
    theirs, ours = bound(batch.features), made.decoder(batch.features)
    assert all(torch.equal(a, b) for name in theirs for a, b in zip(ours[name], theirs[name], strict=True))
    reward, _ = task.validate(made.decoder, task.loader(made.decoder, task.method(nasdsl.loads(text))))
    assert reward == net.score(text).reward
    images = torch.rand(1, 3, 64, 64)
    frozen = detector(nasdsl.loads(text), "tiny", classes=1, seed=3).backbone.eval()
    features = made.backbone.eval()(images)
    assert all(torch.equal(features[name], value) for name, value in frozen(images).items())


def test_networks_that_cannot_be_inherited_from(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"supernet\.pt does not exist"):
        inherited_weights(tmp_path, "")
    (tmp_path / "supernet.pt").write_bytes(b"")
    assert is_supernet(tmp_path)
    with pytest.raises(nasdsl.training.CheckpointError, match="cannot be read"):
        inherited_weights(tmp_path, "")


def test_a_decoder_of_a_search_is_trained_from_its_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and width are decisions of the search, whose trainings go on from the network at once."""
    monkeypatch.chdir(tmp_path)
    Path("space.nas").write_text(TEXT.replace("let w = ?(8 | 16)", "let w = 8"))
    data = ["--data", "shapes:8", "--backbone-weights", "none"]
    found = invoke(
        "search", "space.nas", *data, "--backbone", "tiny", "--size", "64x64,64x96", "--evaluate", "supernet", "--supernet",
        "iterations=3", "--supernet", "paths=2", "--proxy-batch", "2", "--strategy", "random", "--trials", "2",
        "--cache", "features", "--width", "8,16", "--out", "shared",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "nasdsl train shared/best.nas --data shapes:8 --weights shared --out runs/best" in found.stderr
    run = ["--val-split", "none", "--recipe", "quick", "--workers", "0", "--steps", "1", "--learning-rate", "1e-12"]
    result = invoke("train", "shared", *data, *run, "--weights", "shared", "--out", "trained")
    assert result.exit_code == 0, result.output
    assert "\n100 % of " in result.stderr
    assert "parameters are inherited from shared/supernet.pt\n" in result.stderr
    saved = inherited_weights("shared", (Path("shared") / "best.nas").read_text(), device="cpu", quiet=True)
    for name, value in load_detector("trained").state_dict().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, saved.weights[name], rtol=0, atol=1e-6)
    other = refused("train", "zoo:fcos", "--backbone", "tiny", *data, *run, "--weights", "shared", "--out", "other")
    assert "the decoder is for any detector; shared/supernet.pt is for tiny, 64x64; tiny, 64x96" in other
    unlike = TEXT.replace("?(8 | 16)", "8").replace("?(conv_3x3 | sep_3x3)", "sep_5x5").replace("?(conv_1x1 | skip)", "skip")
    Path("other.nas").write_text(unlike.replace("tiny_space {", "other { detector(size=64x64, backbone=tiny)"))
    message = refused("train", "other.nas", *data, *run, "--weights", "shared", "--out", "other")
    assert "shared/supernet.pt has weights for the decoders of its space alone, which this is none of" in message
    state = torch.load("shared/supernet.pt", weights_only=True)
    torch.save({**state, "step": 2}, "shared/supernet.pt")
    with pytest.raises(SearchError, match=r"not trained yet: it is at step 2 of 3; go on with its search"):
        inherited_weights("shared", (Path("shared") / "best.nas").read_text(), quiet=True)
