"""The zoo: every decoder runs and costs what its module has; its page is up to date; two structures written out once more.

``python -m nasdsl.report.zoo docs`` brings page and pictures up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import name_free_weights
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import nasdsl
from nasdsl import resources
from nasdsl.backends.cost import cost
from nasdsl.decoder import check_source
from nasdsl.nn import WeightedAdd
from nasdsl.report import zoo
from nasdsl.semantics.files import read_source
from nasdsl.spaces import load_space

ROOT = Path(__file__).parents[1]
GENOTYPES = ROOT / "genotypes"
CHANNELS = {"c2": 16, "c3": 24, "c4": 40, "c5": 48}


# ------------------------------------------------------------------------------------------------ each decoder


def test_a_decoder(zoo_path: Path) -> None:
    """It checks without a remark, has its file's name and a source, costs what its module has, and runs at odd sizes."""
    source = read_source(zoo_path)
    assert check_source(source, path=zoo_path).problems == []
    decoder = nasdsl.load(zoo_path)
    assert decoder.name == zoo_path.stem
    assert re.search(r"arXiv:\d{4}\.\d{5}|CVPR 20\d\d", zoo.about(source.text)), "where it comes from"
    text = re.sub(r"\bwidth=(\d\d+)", lambda found: f"width={max(32, int(found[1]) // 4)}", source.text)
    graph = nasdsl.loads(text).lower(CHANNELS)
    module = nasdsl.loads(text).build(CHANNELS, 3).eval()
    assert cost(graph, (101, 167), 3).decoder.params == sum(p.numel() for p in module.parameters())
    features = name_free_weights.features((101, 167), {name: CHANNELS[name] for name in module.fpn.input_levels})
    with torch.no_grad():
        predictions = module(features)
    assert list(predictions) == list(graph.outputs)
    for level, prediction in predictions.items():
        stride = 2 ** int(level[1:])
        assert prediction.cls_logits.shape[2:] == (-(-101 // stride), -(-167 // stride))
        assert all(part is None or part.isfinite().all() for part in prediction)


@pytest.mark.parametrize("path", sorted((GENOTYPES / "spaces").glob("*.nas")), ids=lambda p: p.stem)
def test_a_space(path: Path) -> None:
    """Its text names its size, and a filling is a decoder."""
    space = load_space(path)
    assert space.name == f"{path.stem}_space"
    assert f"{space.size:,} fillings" in space.source.text
    assert nasdsl.loads(space.decode([0] * len(space.domains))).cost().decoder.macs > 0


# ------------------------------------------------------------------------------------------------ published figures


@pytest.mark.parametrize("row", zoo.PUBLISHED, ids=lambda row: f"{row.decoder}, {row.quantity.name}, {row.size[0]}")
def test_published_figures(row: zoo.Published) -> None:
    """Within 0.5 %; but where a figure was only said to be near, or does not follow from the printed architecture."""
    found = zoo.compute_figure(row, GENOTYPES / f"{row.decoder}.nas")
    if row.decoder == "deform_fpn_fcos":
        assert found == pytest.approx(row.figure, rel=0.11)
    elif row.figure == 3.41:
        assert found == pytest.approx(4.37, abs=0.005)
    elif row.figure == 86:  # of images of other sizes: see the next test
        assert found == pytest.approx(84.41, abs=0.005)
    else:
        assert found == pytest.approx(row.figure, rel=0.005)


def test_yolof_beside_retinanet_on_images_of_one_size() -> None:
    """Both figures of the paper are means over the same images, 86 G and 201 G, in the relation that ours have to 1 %."""
    ours, retinanet = (nasdsl.load(GENOTYPES / f"{name}.nas").cost(zoo.SIZE).total for name in ("yolof", "retinanet_v2"))
    assert 201 * ours.macs / retinanet.macs == pytest.approx(86, rel=0.01)
    assert ours.params + 9 * 512 * 5 + 5 == 44_163_049  # with the objectness: PaddleDetection prints 44.16 M


def test_efficientdet_d0_to_the_last_parameter() -> None:
    """With torchvision's EfficientNet-B0 it has the 3,880,067 parameters of the published detector, and 88,398 in its head.

    The first figure is that of the authors' own test (github.com/google/automl, efficientdet), the second counted by hand.
    """
    known = {"c3": 40, "c4": 112, "c5": 320}
    table = cost(nasdsl.load(GENOTYPES / "efficientdet_d0.nas").lower(known), (512, 512), 90)
    with torch.device("meta"):
        body = torchvision.models.efficientnet_b0().features[:-1]
    width, layers, levels, anchors = 64, 3, 5, 9
    separable = width * 9 + width * width + width
    norms = 2 * width * levels  # of each level its own
    predictions = sum(width * 9 + width * out + out for out in (anchors * 90, anchors * 4))
    assert table.head.params == 2 * layers * (separable + norms) + predictions == 88_398
    assert table.head.macs == pytest.approx(0.455e9, rel=0.002)
    assert table.decoder.params + sum(p.numel() for p in body.parameters()) == 3_880_067


# ------------------------------------------------------------------------------------------------ structures


@torch.no_grad()
def set_weights(module: nn.Module) -> None:
    """Name-free weights, but random ones for convolutions, so that no signal dies on its way through the pyramid."""
    name_free_weights.set_weights(module)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            random = torch.Generator().manual_seed(part.weight.numel())
            values = torch.randn(part.weight.shape, generator=random, dtype=torch.float64)
            part.weight.copy_(values * (2 / part.weight[0].numel()) ** 0.5)
        elif isinstance(part, WeightedAdd):
            part.weight.copy_(fusion_weights(part.weight.numel()))


def fusion_weights(operands: int) -> Tensor:
    """All different, so that the order of operands shows."""
    return 0.4 + 0.3 * torch.arange(operands, dtype=torch.float64)


class Weights(nn.Module):
    """Layers made on first use, with the weights of `set_weights`, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        self.layers.append(layer.double().eval())
        set_weights(layer)
        result: Tensor = layer(x)
        return result

    def conv_norm(self, x: Tensor, width: int, k: int, bias: bool = False) -> Tensor:
        conv = nn.Conv2d(x.shape[1], width, k, padding=k // 2, bias=bias)
        return self(nn.Sequential(conv, nn.BatchNorm2d(width)), x)

    def separable_norm(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        depth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        return self(nn.Sequential(depth, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)), x)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def bring(x: Tensor, level: int, to: int, like: Tensor, overlap: bool = False) -> Tensor:
    """From its level to another: down the pyramid by repetition, up by max pooling in windows side by side, or one wider."""
    stride = 2 ** (to - level)
    if to <= level:
        return F.interpolate(x, size=like.shape[2:])
    return F.max_pool2d(x, stride + 1, stride, stride // 2) if overlap else F.max_pool2d(x, stride, stride, ceil_mode=True)


def reference_nas_fpn(features: dict[str, Tensor], width: int, repeats: int) -> tuple[list[Tensor], int]:
    """NAS-FPN from its list of merging cells, as published: level, is attention, two inputs of the list so far."""
    cells = [(4, 1, 1, 3), (4, 0, 1, 5), (3, 0, 0, 6), (4, 0, 6, 7), (5, 1, 7, 8), (7, 1, 6, 9), (6, 1, 9, 10)]
    weights = Weights()
    pyramid = [weights.conv_norm(features[name], width, 1) for name in ("c3", "c4", "c5")]
    for _ in range(2):
        pyramid.append(F.max_pool2d(pyramid[-1], 2, 2, ceil_mode=True))
    for _ in range(repeats):
        maps, levels, reads = list(pyramid), [3, 4, 5, 6, 7], [0] * 5
        like = dict(zip(levels, maps, strict=True))
        for number, (level, attends, first, second) in enumerate(cells):
            reads[first] += 1
            reads[second] += 1
            a, b = (bring(maps[i], levels[i], level, like[level]) for i in (first, second))
            if attends:
                coarse, fine = (a, b) if levels[first] >= levels[second] else (b, a)
                merged = coarse + fine * torch.sigmoid(coarse.amax((2, 3), keepdim=True))
            else:
                merged = a + b
            if number >= 2:  # the last five put out; what nothing has read joins the output of its level
                for i, unread in enumerate(reads):
                    if unread == 0 and levels[i] == level:
                        merged = merged + maps[i]
                        reads[i] = 1
            maps.append(weights.conv_norm(torch.relu(merged), width, 3))
            levels.append(level)
            reads.append(0)
        pyramid = [maps[7], maps[8], maps[9], maps[11], maps[10]]
    return pyramid, parameters(weights)


def reference_bifpn(features: dict[str, Tensor], width: int, repeats: int) -> tuple[list[Tensor], int]:
    """BiFPN from its list of nodes, as published: level and inputs of the list so far; the last five put out."""
    nodes = [(6, [3, 4]), (5, [2, 5]), (4, [1, 6]), (3, [0, 7]), (4, [1, 7, 8]), (5, [2, 6, 9]), (6, [3, 5, 10]), (7, [4, 11])]
    weights = Weights()
    count = 0
    raw = [features[name] for name in ("c3", "c4", "c5")]
    raw.append(F.max_pool2d(weights.conv_norm(raw[2], width, 1, bias=True), 3, 2, 1))
    raw.append(F.max_pool2d(raw[3], 3, 2, 1))
    like = dict(zip(range(3, 8), raw, strict=True))
    for _ in range(repeats):
        maps, levels = list(raw), [3, 4, 5, 6, 7]
        for level, inputs in nodes:
            operands = []
            for i in inputs:
                x = maps[i]
                if x.shape[1] != width:
                    x = weights.conv_norm(x, width, 1, bias=True)
                operands.append(bring(x, levels[i], level, like[level], overlap=True))
            count += len(operands)
            shares = fusion_weights(len(operands))
            merged = (torch.stack(operands, -1) @ shares) / (shares.sum() + 1e-4)
            maps.append(weights.separable_norm(F.silu(merged)))
            levels.append(level)
        raw = maps[8:]
    return raw, count + parameters(weights)


@pytest.mark.parametrize(
    ("name", "reference", "repeats", "change"),
    [
        ("nas_fpn", reference_nas_fpn, 1, ("repeat 7", "repeat 1")),
        ("nas_fpn", reference_nas_fpn, 3, ("repeat 7", "repeat 3")),
        ("bifpn", reference_bifpn, 3, ("", "")),
    ],
)
@pytest.mark.parametrize("size", [(128, 256), (101, 167)])
def test_structure(
    name: str,
    reference: Callable[[dict[str, Tensor], int, int], tuple[list[Tensor], int]],
    repeats: int,
    change: tuple[str, str],
    size: tuple[int, int],
) -> None:
    """The module's pyramid is that of the published lists of nodes, run in the slowest and plainest way."""
    text = re.sub(r"width=\d+", "width=32", (GENOTYPES / f"{name}.nas").read_text()).replace(*change)
    module = nasdsl.loads(text).build(CHANNELS, 1).double().eval()
    set_weights(module)
    features = name_free_weights.features(size, {key: CHANNELS[key] for key in ("c3", "c4", "c5")})
    features = {key: x.double() for key, x in features.items()}
    with torch.no_grad():
        found = module.pyramid(features)
        expected, count = reference(features, 32, repeats)
    assert parameters(module.fpn) == count
    for level, x in zip(found, expected, strict=True):
        torch.testing.assert_close(found[level], x, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ the page


def test_page_is_up_to_date() -> None:
    """Refreshed by ``python -m nasdsl.report.zoo docs``."""
    decoders, spaces = zoo.read()
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == zoo.page(decoders, spaces)
    drawings = {f"{drawing.name}.svg": drawing for entry in decoders for drawing in entry.drawings}
    pictures = ROOT / "docs" / zoo.PICTURES
    assert {path.name for path in pictures.iterdir()} == set(drawings)
    stale = [name for name, drawing in drawings.items() if not zoo.is_current(drawing, pictures / name)]
    assert not stale


def test_page_links_only_to_what_there_is() -> None:
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)]*)\)", text))
    headings = set(re.findall(r"^### (.*)$", text, flags=re.M))
    assert {link[1:] for link in links if link.startswith("#")} <= headings
    assert all((ROOT / "docs" / link).is_file() for link in links if not link.startswith("#"))


def test_writing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale picture goes, a current one stays as it is, and the page is the same again."""
    pictures = tmp_path / zoo.PICTURES
    pictures.mkdir(parents=True)
    (pictures / "gone.svg").write_text("<svg/>")
    drawn = []

    def draw(dot: str, fmt: str) -> bytes:
        drawn.append(dot)
        return b"<?xml?>\n<!-- Generated by a version -->\n<svg> \n</svg>"

    monkeypatch.setattr(zoo, "draw", draw)
    zoo.write(tmp_path)
    assert not (pictures / "gone.svg").exists()
    assert re.fullmatch(r"<\?xml\?>\n<!-- [0-9a-f]{16} -->\n<svg>\n</svg>\n", (pictures / "fcos.svg").read_text())
    assert (tmp_path / "zoo.md").read_text(encoding="utf-8") == (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    count = len(drawn)
    assert count == len(list(pictures.iterdir()))
    zoo.write(tmp_path)
    assert len(drawn) == count


def test_an_installation_that_lacks_a_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="this installation of nasdsl lacks its folder 'recipes'; install it again"):
        resources.folder("recipes")
