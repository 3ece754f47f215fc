"""Model files in list form, against modules of torch that are written from the papers, and printed parameter counts."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.importers.yolo import yolo_text
from nasdsl.importers.yolo.modules import scaled_channels, scaled_repeats
from nasdsl.syntax.formatter import format_text

V8 = """
nc: 80
scales:
  n: [0.33, 0.25, 1024]
  m: [0.67, 0.75, 768]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 6, C2f, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 6, C2f, [512, True]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 3, C2f, [1024, True]]
  - [-1, 1, SPPF, [1024, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C2f, [256]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 12], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 9], 1, Concat, [1]]
  - [-1, 3, C2f, [1024]]
  - [[15, 18, 21], 1, Detect, [nc]]
"""

PRINTED_V8N = {
    "s5": 164_608, "td4": 148_224, "td3": 37_248, "bu4": 36_992 + 123_648, "bu5": 147_712 + 493_056, "head": 897_664 - 16,
}  # fmt: skip
"""Parameters of YOLOv8n's layers 9, 12, 15, 16 to 18, 19 to 21 and 22, as its summary prints them (https://docs.ultralytics.com,
3,157,200 in all). Those of layer 22 have 16 that are not trained: the numbers 0 to 15 of the distributions."""


V11 = """
nc: 80
scales:
  n: [0.50, 0.25, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 2, C3k2, [256, False, 0.25]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 2, C3k2, [512, False, 0.25]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 2, C3k2, [512, True]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 2, C3k2, [1024, True]]
  - [-1, 1, SPPF, [1024, 5]]
  - [-1, 2, C2PSA, [1024]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 2, C3k2, [512, False]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 2, C3k2, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 13], 1, Concat, [1]]
  - [-1, 2, C3k2, [512, False]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 10], 1, Concat, [1]]
  - [-1, 2, C3k2, [1024, True]]
  - [[16, 19, 22], 1, Detect, [nc]]
"""

PRINTED_V11N = {
    "td4": 111_296, "td3": 32_096, "bu4": 36_992 + 86_720, "bu5": 147_712 + 378_880, "head": 464_912 - 16,
}  # fmt: skip
"""The same for YOLO11n (2,624,080 in all), whose cls towers are depthwise separable."""


# --------------------------------------------------------------------------------------- modules, from the papers


class Conv(nn.Sequential):
    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__(nn.Conv2d(c1, c2, k, s, k // 2, bias=False), nn.BatchNorm2d(c2), nn.SiLU())


class Bottleneck(nn.Module):
    def __init__(self, c1: int, c2: int, add: bool, k: tuple[int, int] = (3, 3), e: float = 0.5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, int(c2 * e), k[0]), Conv(int(c2 * e), c2, k[1])
        self.add = add and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1, add: bool = True, e: float = 0.5, k: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        c = int(c2 * e)
        self.cv1, self.cv2, self.cv3 = Conv(c1, c), Conv(c1, c), Conv(2 * c, c2)
        self.m = nn.Sequential(*[Bottleneck(c, c, add, k, 1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))
        return y


class C2f(nn.Module):
    def __init__(self, c1: int, c2: int, n: int = 1, add: bool = False, e: float = 0.5) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1, self.cv2 = Conv(c1, 2 * self.c), Conv((2 + n) * self.c, c2)
        self.m = nn.ModuleList(self.unit(add) for _ in range(n))

    def unit(self, add: bool) -> nn.Module:
        return Bottleneck(self.c, self.c, add, (3, 3), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).split(self.c, 1))
        for unit in self.m:
            parts.append(unit(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class C3k2(C2f):
    def __init__(self, c1: int, c2: int, n: int = 1, c3k: bool = False, e: float = 0.5, add: bool = True) -> None:
        self.c3k = c3k
        super().__init__(c1, c2, n, add, e)

    def unit(self, add: bool) -> nn.Module:
        return C3(self.c, self.c, 2, add, k=(3, 3)) if self.c3k else Bottleneck(self.c, self.c, add)


class SPPF(nn.Module):
    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(c1 // 2 * 4, c2)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.m(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


def converted(text: str, scale: str | None = None) -> nasdsl.Decoder:
    return nasdsl.loads(yolo_text(Source("model.yaml", text), "neck", scale))


def channels_of(text: str) -> dict[str, int]:
    """The channels of the file's own backbone, which the comment of the text states."""
    found = re.search(r"Channels of the file's own backbone: (.*)\.$", text, re.MULTILINE)
    assert found is not None
    return {part.split()[0]: int(part.split()[1]) for part in found[1].split(", ")}


def params_by_value(text: str, size: tuple[int, int] = (256, 320)) -> dict[str, int]:
    graph = nasdsl.loads(text).lower(channels_of(text))
    table = cost(graph, size, 80)
    found: dict[str, int] = {"head": table.head.params}
    for row in table.nodes:
        name = row.name.partition(".")[0]
        found[name] = found.get(name, 0) + row.params
    return found


@pytest.mark.parametrize(("text", "printed"), [(V8, PRINTED_V8N), (V11, PRINTED_V11N)], ids=["v8n", "v11n"])
def test_parameters_are_those_that_are_printed(text: str, printed: dict[str, int]) -> None:
    found = params_by_value(yolo_text(Source("model.yaml", text), "neck", "n"))
    assert {name: found[name] for name in printed} == printed


def test_values_have_names_by_level_and_way() -> None:
    text = yolo_text(Source("model.yaml", V8), "neck", "m")
    assert re.findall(r"^    (\w+) = (\w+)\(.*# layer", text, re.MULTILINE) == [
        ("s5", "sppf"), ("td4", "c2f"), ("td3", "c2f"), ("bu4", "c2f"), ("bu5", "c2f"),
    ]  # fmt: skip
    assert "output p3 = td3, p4 = bu4, p5 = bu5" in text
    assert text.count("n=2") == 4  # 3 repeats at 0.67
    assert channels_of(text) == {"c3": 192, "c4": 384, "c5": 576}
    assert format_text(text) == text


# ------------------------------------------------------------------------------------- equal to the modules


def one_layer(module: str, repeats: int, args: str, channels: int = 64) -> str:
    """A file whose head has one module behind a feature of `channels` channels and stride 8."""
    return f"""
nc: 80
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [{channels}, 3, 2]]
head:
  - [-1, {repeats}, {module}, [{args}]]
  - [[-1], 1, Detect, [nc]]
"""


CASES: list[tuple[str, int, str, Any]] = [
    ("Conv", 1, "32", lambda: Conv(64, 32)),
    ("Conv", 1, "32, 3", lambda: Conv(64, 32, 3)),
    ("Conv", 1, "32, 5, 2", lambda: Conv(64, 32, 5, 2)),
    ("Bottleneck", 1, "64", lambda: Bottleneck(64, 64, True)),
    ("Bottleneck", 2, "64, False", lambda: nn.Sequential(Bottleneck(64, 64, False), Bottleneck(64, 64, False))),
    ("Bottleneck", 1, "32", lambda: Bottleneck(64, 32, True)),
    ("C3", 3, "32", lambda: C3(64, 32, 3)),
    ("C3", 1, "64, False, 1, 0.25", lambda: C3(64, 64, 1, False, 0.25)),
    ("C2f", 2, "32", lambda: C2f(64, 32, 2)),
    ("C2f", 3, "64, True, 1, 0.25", lambda: C2f(64, 64, 3, True, 0.25)),
    ("C3k2", 2, "32", lambda: C3k2(64, 32, 2)),
    ("C3k2", 1, "64, True", lambda: C3k2(64, 64, 1, True)),
    ("C3k2", 2, "64, False, 0.25, 1, False", lambda: C3k2(64, 64, 2, False, 0.25, False)),
    ("SPPF", 1, "64", lambda: SPPF(64, 64)),
    ("SPPF", 1, "32, 3", lambda: SPPF(64, 32, 3)),
]


@pytest.mark.parametrize(("module", "repeats", "args", "reference"), CASES, ids=[f"{m}-{n}-{a}" for m, n, a, _ in CASES])
def test_a_module_computes_what_the_papers_say(module: str, repeats: int, args: str, reference: Any) -> None:
    decoder = converted(one_layer(module, repeats, args))
    torch.manual_seed(0)
    network = decoder.build({"c3": 64}, 80).fpn.eval()
    other = reference().eval()
    ours, theirs = list(network.parameters()), list(other.parameters())
    assert sorted(tuple(p.shape) for p in ours) == sorted(tuple(p.shape) for p in theirs)
    # Same weights in the order of execution.
    calls: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda m, *_: calls.append(m)) for m in network.modules() if not list(m.children())]
    x = torch.randn(1, 64, 16, 20)
    network({"c3": x})
    mine = [m for m in calls if list(m.parameters())]
    for hook in hooks:
        hook.remove()
    calls.clear()
    for m in other.modules():
        if not list(m.children()):
            m.register_forward_hook(lambda m, *_: calls.append(m))
    other(x)
    for a, b in zip(mine, [m for m in calls if list(m.parameters())], strict=True):
        b.load_state_dict(a.state_dict())
    (found,) = network({"c3": x}).values()
    torch.testing.assert_close(found, other(x))


@pytest.mark.parametrize(
    ("given", "multiple", "most", "expected"),
    [(64, 0.25, 1024, 16), (1024, 0.75, 768, 576), (100, 1.0, 1e9, 104), (3, 0.25, 1e9, 8), (512, 1.25, 512, 640)],
)
def test_channels_are_rounded_up_to_eights(given: int, multiple: float, most: float, expected: int) -> None:
    assert scaled_channels(given, multiple, most) == expected


@pytest.mark.parametrize(
    ("given", "multiple", "expected"), [(1, 0.33, 1), (3, 0.33, 1), (6, 0.33, 2), (9, 0.67, 6), (3, 1.33, 4)]
)
def test_repeats_are_rounded(given: int, multiple: float, expected: int) -> None:
    assert scaled_repeats(given, multiple) == expected


# -------------------------------------------------------------------------------------------------- mistakes


def mistakes(text: str, scale: str | None = None) -> list[tuple[int, str]]:
    with pytest.raises(DiagnosticError) as caught:
        yolo_text(Source("model.yaml", text), "neck", scale)
    return [(d.span.line, d.message) for d in caught.value.diagnostics]


def test_all_mistakes_of_a_file_in_one_run() -> None:
    text = """nc: lots
depth_multiple: 0.33
width_multiple: 0.25
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Cnov, [128, 3, 2]]
  - [-1, 1, Conv, [128, 3, 3]]
  - [0, 3, C2f, [256, yes, 1, 0.5, 9]]
  - [-1, 1, Conv, [256, 4, 2]]
head:
  - [-1, 1, nn.Upsample, [None, 3, nearest]]
  - [[-1, 12], 1, Concat, [1]]
  - [0, 1, GhostConv, [64]]
  - [[0, 3], 0, Concat, [1]]
  - [0, 1, Conv, []]
  - [0, 1]
  - [[0, 3, 99], 1, Detect, [nc]]
  - [-14, 1, Conv, [64]]
"""
    assert mistakes(text) == [
        (1, "`nc` is `lots`"),
        (6, "unknown module `Cnov`"),
        (7, "stride of Conv is `3`"),
        (8, "C2f has 5 arguments"),
        (9, "kernel of Conv is `4`"),
        (11, "factor of Upsample is `3`"),
        (12, "layer 6 reads layer 12, a later one"),
        (13, "unknown module `GhostConv`"),
        (14, "the repeats of layer 8 are `0`"),
        (15, "Conv has no arguments"),
        (16, "layer 10 has 2 parts"),
        (17, "layer 11 reads layer 99, and the file has 13 layers"),
        (18, "layer 12 reads `-14`, before the first layer"),
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("[[-1, 6], 1, Concat, [1]]", "[[-1, 4], 1, Concat, [1]]"), "Concat of maps of different sizes"),
        (
            ("[[15, 18, 21], 1, Detect, [nc]]", "[[15, 18, 12], 1, Detect, [nc]]"),
            "Detect reads two maps of stride 16: layers 18 and 12",
        ),
        (("[[15, 18, 21], 1, Detect, [nc]]", "[-1, 1, Conv, [64]]"), "`head` has no Detect"),
        (
            ("[[-1, 6], 1, Concat, [1]]", "[[-1, 5], 1, Concat, [1]]"),
            "layer 11 reads layer 5, inside of the stage of stride 16",
        ),
        (("head:\n  - [-1, 1, nn.Upsample", "head:\n  - [-1, 1, nn.Upsampel"), "unknown module `Upsampel`"),
        (("[-1, 3, C2f, [512]]", "[-1, 3, C2f, [512, False, 2]]"), "C2f with 2 groups"),
        (("[-1, 3, C2f, [512]]", "[-1, 3, C2f, [512, False, 1, 0.3]]"), "C2f of 128 channels with a share of 0.3"),
        (("[-1, 1, SPPF, [1024, 5]]", "[-1, 1, Detect, [nc]]"), "Detect in the backbone"),
        (("backbone:", "backbones:"), "no `backbone:`"),
        (("n: [0.33, 0.25, 1024]", "n: [0.33]"), "the scale `n` is `[0.33]`"),
        (("nc: 80", "nc: 80\nscale: q"), "no scale `q`"),
        (("n: [0.33, 0.25, 1024]", "n: [0.33, .inf, 1024]"), "the scale `n` is `[0.33, .inf, 1024]`"),
        (("[-1, 1, Conv, [256, 3, 2]]", "[-1, 1, Conv, [999999999, 3, 2]]"), "channels of Conv is `999999999`"),
        (("[-1, 3, C2f, [512]]", "[-1, 3000, C2f, [512]]"), "the repeats of layer 12 are `3000`"),
        (("[[-1, 6], 1, Concat, [1]]", "[[-1, 6], 1, Concat, [2]]"), "dimension of Concat is `2`"),
        (("[None, 2,", "[64, 2,"), "size of Upsample is `64`"),
        (("[-1, 3, C2f, [512]]", "[-1, 3, Bottleneck, [512, True, 1, [1, 3]]]"), "kernels of Bottleneck is `[1, 3]`"),
        (("Detect, [nc]", "Detect, [many]"), "classes of Detect is `many`"),
        (("Detect, [nc]", "Detect, [nc, 16]"), "anchors of Detect is `16`"),
        (("  n: [0.33, 0.25, 1024]\n  m: [0.67, 0.75, 768]\n", "  [n]: 3\n"), "no scale ``"),
        (("nc: 80", "nc: 80\nactivation: nn.Wish()"), "unknown activation `nn.Wish()`"),
        (("nc: 80", "nc: [80"), "not YAML: expected ',' or ']', but got ':'"),
    ],
)
def test_mistakes(change: tuple[str, str], expected: str) -> None:
    text = V8.replace(*change, 1)
    assert text != V8
    found = mistakes(text)
    assert expected in [message for _, message in found]
    line = text[: text.index(change[1])].count("\n") + 1
    if "\n" not in change[1] and not expected.startswith(("no `", "`head`", "not YAML")):
        assert line in [at for at, message in found if message == expected]


SMALL = one_layer("Conv", 1, "32")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("head:\n", "head: 3\nx:\n"), (7, "`head` is no list of layers")),
        (("head:\n", "head: []\nx:\n"), (7, "`head` is no list of layers")),
        (("nc: 80", "nc: 80\ndepth_multiple: half"), (3, "`depth_multiple` is `half`")),
        (("nc: 80", "nc: 80\nwidth_multiple: 0"), (3, "`width_multiple` is `0`")),
        (("nc: 80", "nc: 80\nscales: n"), (3, "`scales` names no scale")),
        (("nc: 80", "nc: 2020-13-45"), (2, "`nc` is `2020-13-45`")),
        (("[-1, 1, Conv, [32]]", "[[], 1, Conv, [32]]"), (8, "layer 3 reads nothing")),
        (("[-1, 1, Conv, [32]]", "[[-1, 1], 1, Conv, [32]]"), (8, "Conv of layer 3 reads 2 layers")),
        (("[32]", "[32, 3, 1, None, 3]"), (8, "Conv of 64 to 32 channels in 3 groups")),
        (("[32]", "[32, 3, 1, 0]"), (8, "Conv with padding 0")),
        (("nc: 80", "width_multiple: 2048"), (6, "Conv of 131072 channels")),
        (("3, 2]]\n", "3, 1]]\n"), (9, "Detect reads a map of the size of the image")),
        (("[16, 3, 2]", "[16, 3, 1]"), (8, "layer 2 has stride 2")),
        (("[[-1], 1, Detect", "[[-1, 99, 2], 1, Detect"), (9, "layer 4 reads layer 99, and the file has 5 layers")),
    ],
)
def test_mistakes_of_a_small_file(change: tuple[str, str], expected: tuple[int, str]) -> None:
    text = SMALL.replace(*change)
    assert text != SMALL
    assert expected in mistakes(text)


def test_a_scale_of_a_file_without_scales() -> None:
    assert mistakes(SMALL, "n") == [(1, "the file has no scale `n`: it has no `scales:`")]


def test_files_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.importers.yolo.model_file.MAX_LAYERS", 2)
    assert mistakes(SMALL) == [(4, "`backbone` has 3 layers, more than 2")]
    what = "the file has 1,000,001 characters; model files of more than 1,000,000 are not read"
    assert mistakes("#" * 1_000_001) == [(1, what)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("nc: 80", "activation: nn.LeakyReLU()"), "fpn(width=32, norm=bn, act=leaky_relu, adapter=none) {"),
        (("[32]", "[32, 5, 1, None, 2, 1, False]"), "n3 = conv(c3, k=5, width=32, groups=2, act=none)  # layer 3"),
        (("[32]", "[32, 5]"), "n3 = conv(c3, k=5, width=32)  # layer 3"),
        (("[32]", "[32, 3, 2, 2, 1, 2]"), "bu4 = conv(c3, k=3, stride=2, width=32, dilation=2)  # layer 3"),
        (("[32]", "[32, None]"), "n3 = conv_1x1(c3, width=32)  # layer 3"),
        (("1, Conv, [32]", "1, nn.Upsample, [None, 2, bilinear]"), "td2 = resize(c3, to=2)  # layer 3"),
        (("1, Conv, [32]", "1, nn.Upsample, [None, 2, nearest]"), "td2 = resize(c3, to=2, mode=nearest)  # layer 3"),
        (("Conv, [16, 3, 2]", "Focus, [16, 3]"), "# The head of model.yaml. Channels of the file's own backbone: c3 64."),
        (("nc: 80", "anchors: [[1, 2]]"), "# Simplified: Detect of the file predicts an objectness, and boxes from anchors,"),
        (("[nc]", "[nc, anchors]"), "# Simplified: Detect of the file predicts an objectness, and boxes from anchors,"),
    ],
)
def test_what_a_small_file_becomes(change: tuple[str, str], line: str) -> None:
    text = yolo_text(Source("model.yaml", SMALL.replace(*change)), "neck", None)
    assert any(written.strip().startswith(line) for written in text.splitlines()), text
    nasdsl.loads(text)
    assert ("Simplified" in text) == ("anchors" in change[1])


def test_a_layer_that_nothing_reads_is_kept_and_said() -> None:
    line = "  - [-1, 1, Conv, [32]]\n"
    text = yolo_text(Source("model.yaml", SMALL.replace(line, f"{line}  - [2, 1, Conv, [48, 3]]\n").replace("[[-1]", "[[3]")))
    assert "# Nothing reads layer 4 in the file.\n" in text
    assert "n3_2 = conv_3x3(c3, width=48)  # layer 4\n" in text
    assert nasdsl.loads(text).architecture.fpn.dangling == 1


def test_what_is_no_model_file() -> None:
    for text in ("", "3", "[1, 2]", "a: *b", "[" * 3000, "x: !!python/object/apply:os.system [ls]", "\x00", "a: &a [*a]"):
        assert mistakes(text)


def test_mutated_files_give_findings_and_nothing_else() -> None:
    choose = random.Random(0)
    for _ in range(150):
        text = list(V8)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(text))
            text[at : at + choose.randint(0, 3)] = choose.choice(["", "-", "[", "]", ",", "9", "x", "None", ": ", "\n", "-1"])
        with suppress(DiagnosticError):
            nasdsl.loads(yolo_text(Source("model.yaml", "".join(text))))


def test_the_classes_of_detect_are_those_of_the_head() -> None:
    """Its argument counts, and not the file's ``nc``, where it is a number."""
    widths = [
        re.search(r"cls: conv_3x3\(width=(\d+)\)", yolo_text(Source("m", V8.replace("[nc]", classes))))
        for classes in ("[nc]", "[90]", "[20]", "[300]")
    ]
    assert [found[1] for found in widths if found] == ["80", "90", "64", "100"]
