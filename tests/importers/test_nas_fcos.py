"""Published index lists and configuration files, against an independent reading of the rules."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import random_decoders

import nasdsl
from nasdsl.importers.nas_fcos import Lists, nas_fcos_text, read_config, split_lists

FPN = [[3, 3, 4, 4, 1], [3, 3, 4, 4, 1], [4, 3, 4, 3, 1], [1, 3, 4, 3, 1], [5, 3, 4, 4, 1], [4, 7, 4, 4, 1], [7, 2, 4, 4, 1]]
HEAD = [5, 1, 5, 0, 4, 4]
CELLS = [[b] for b in FPN]
ZOO = Path(__file__).parents[2] / "genotypes"


def test_the_published_decoder_is_that_of_the_zoo() -> None:
    assert nasdsl.from_nas_fcos(FPN, HEAD, 0, 256).digest == nasdsl.load(ZOO / "nas_fcos.nas").digest
    assert nasdsl.from_nas_fcos(FPN, HEAD, [0], 128).digest == nasdsl.load(ZOO / "nas_fcos_128.nas").digest


@pytest.mark.parametrize(
    ("value", "lists"),
    [
        (FPN, Lists(FPN, None, 0)),
        (CELLS, Lists(FPN, None, 0)),
        ([*CELLS, [0], HEAD], Lists(FPN, HEAD, 0)),
        ([*FPN, [3], HEAD], Lists(FPN, HEAD, 3)),
        ([*FPN, [2], [1, 1, 1, 1, 1]], Lists(FPN, [1, 1, 1, 1, 1], 2)),
    ],
)
def test_split(value: object, lists: Lists) -> None:
    assert split_lists(value) == lists


@pytest.mark.parametrize("value", [None, [], 3, "x", [1, 2], [[1.5] * 5], [*FPN, HEAD], [*FPN, [0], HEAD, [1]], [*FPN, [True]]])
def test_split_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="expected a list of blocks"):
        split_lists(value)


CONFIG = """\
MODEL:
  BACKBONE:
    OUT_CHANNELS: 256
    ENCODER_OUT_CHANNELS: (256, 512, 1024, 2048)
  RETINANET_ON: {retinanet}
SEARCH:
  DECODER:
    CONFIG: {config}
    AGG_SIZE: 128
"""


def test_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "decoder.yaml"
    path.write_text(CONFIG.format(retinanet=False, config=[*CELLS, [0], HEAD]))
    assert nasdsl.loads(read_config(path)).digest == nasdsl.load(ZOO / "nas_fcos_128.nas").digest
    path.write_text(CONFIG.format(retinanet=True, config=CELLS))
    assert "predict retinanet(anchors=9)" in read_config(path)
    assert "conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3" in read_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("MODEL: 3", "no SEARCH.DECODER.CONFIG"),
        ("SEARCH: {DECODER: {CONFIG: [[9, 3, 4, 4, 1]]}}", "block 1: in1 is 9; expected 0 to 3"),
        ("!!python/object/apply:os.system ['echo hi']", "not YAML"),
        ("SEARCH: {DECODER: {CONFIG: 'one, two'}}", "SEARCH.DECODER.CONFIG is no list: 'one, two'"),
        (f"SEARCH: {{DECODER: {{CONFIG: {CELLS}, AGG_SIZE: wide}}}}", "AGG_SIZE is 'wide'; expected a number of channels"),
        (f"SEARCH: {{DECODER: {{CONFIG: {CELLS}, AGG_SIZE: true}}}}", "AGG_SIZE is True; expected a number of channels"),
    ],
)
def test_bad_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(path)


@pytest.mark.parametrize(
    ("fpn", "head", "share", "message"),
    [
        ([[0, 0, 0, 0]], HEAD, 0, "five integers"),
        ([[0, 0, 5, 0, 0]], HEAD, 0, "op1 is 5; expected 0 to 4"),
        ([[0, 4, 0, 0, 0]], HEAD, 0, "in2 is 4; expected 0 to 3"),
        (FPN, [6], 0, "head layer 0 is 6"),
        (FPN, [], 0, "no layers"),
        (FPN, HEAD, 7, "share is 7; expected 0 to 6"),
        (FPN, HEAD, [0, 1], r"share is \[0, 1\]; expected one index"),
        (FPN[:2], HEAD, 0, "only 2 blocks are read by no other"),
    ],
)
def test_invalid_lists(fpn: list[list[int]], head: list[int], share: int | list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nasdsl.from_nas_fcos(fpn, head, share)


def test_the_share_of_rejected_samples_is_that_of_the_published_code() -> None:
    """9.15 % of uniform samples have fewer than three unread blocks."""
    rng = random.Random(0)
    count = 20_000
    rejected = 0
    for _ in range(count):
        fpn = [[rng.randrange(4 + t), rng.randrange(4 + t), 0, 0, 0] for t in range(7)]
        try:
            nas_fcos_text(fpn, HEAD)
        except ValueError:
            rejected += 1
    assert rejected / count == pytest.approx(0.0915, abs=0.008)  # four standard deviations


@pytest.mark.parametrize("seed", range(30))
def test_outputs_and_dangling_blocks(seed: int) -> None:
    """The last three unread blocks are P5, P4, P3 in their order; the other unread ones dangle."""
    fpn, head, share = random_decoders.nas_fcos_lists(random.Random(seed))
    decoder = nasdsl.from_nas_fcos(fpn, head, share, 32)
    read = {i for block in fpn for i in block[:2]}
    unread = [t for t in range(1, 8) if t + 3 not in read]
    lines = decoder.source.text
    assert f"output p5 = x{unread[-3]}, p4 = x{unread[-2]}, p3 = x{unread[-1]}" in lines
    assert decoder.architecture.fpn.dangling == len(unread) - 3
