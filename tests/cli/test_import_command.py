"""`nasdsl import nas-fcos`: lists and configuration files of the NAS-FCOS code."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import invoke, refused

import nasdsl

FPN = [[3, 3, 4, 4, 1], [3, 3, 4, 4, 1], [4, 3, 4, 3, 1], [1, 3, 4, 3, 1], [5, 3, 4, 4, 1], [4, 7, 4, 4, 1], [7, 2, 4, 4, 1]]
HEAD = [5, 1, 5, 0, 4, 4]
ALL = [*([block] for block in FPN), [0], HEAD]
CONFIG = f"""\
MODEL:
  BACKBONE:
    OUT_CHANNELS: 256
    ENCODER_OUT_CHANNELS: (256, 512, 1024, 2048)
  RETINANET_ON: false
SEARCH:
  DECODER:
    CONFIG: {ALL}
    AGG_SIZE: 128
"""
SMALL = "[[3,3,4,4,1],[2,3,4,3,1],[1,2,4,3,1]]"


def test_lists_and_configuration_files_are_the_decoder_of_the_zoo(tmp_path: Path) -> None:
    path = tmp_path / "decoder.yaml"
    path.write_text(CONFIG)
    in_parts = (str(tuple(map(tuple, FPN))), "--head", str(HEAD), "--share", "0")  # Python's tuples are lists too
    for arguments in ((str(ALL), "--width", "128"), (*in_parts, "--width", "128"), (path,)):
        printed = invoke("import", "nas-fcos", *arguments)
        assert (printed.exit_code, printed.stderr) == (0, "")
        assert nasdsl.loads(printed.stdout).digest == nasdsl.load("zoo:nas_fcos_128").digest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["[[3,3,4"], "LISTS is no list of integers: [[3,3,4"),
        ([SMALL, "--head", "conv"], "--head is no list of integers: conv"),
        ([SMALL.replace("3,1]]", "3,9]]"), "--width", "64"], "block 3: agg is 9; expected 0 to 1"),
        (["no.yaml"], "no.yaml"),
        (["no.yaml", "--width", "64"], "--head, --share and --width are for LISTS"),
    ],
)
def test_what_is_refused(arguments: list[str], says: str) -> None:
    assert says in refused("import", "nas-fcos", *arguments)


def test_a_width_that_the_decoder_cannot_have_is_a_finding() -> None:
    arguments = (SMALL, "--head", "[5,1,5,0]", "--width", "40")
    assert refused("import", "nas-fcos", *arguments, code=1).startswith("error[NAS308]: GroupNorm has 32 groups")
