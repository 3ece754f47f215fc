"""Importer of the index lists and configuration files of the NAS-FCOS code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nasdsl.decoder import Decoder, loads
from nasdsl.files import parse_json
from nasdsl.semantics.files import read_source

FPN_OPS = ("sep_3x3", "sep_3x3_d3", "sep_5x5_d6", "skip", "dconv_3x3")
"""Ops of the FPN by index (the paper's Table 1)."""

FPN_AGGREGATIONS = ("psum", "cat")
"""Aggregations of the FPN by index."""

HEAD_OPS = ("conv_1x1", "conv_3x3", "sep_3x3", "sep_3x3_d3", "skip", "dconv_3x3")
"""Ops of the head by index."""

FCOS_HEAD = (1, 1, 1, 1)
"""Head of FCOS: four 3x3 convolutions."""

_INPUTS = ("c2", "c3", "c4", "c5")
_OUTPUTS = ("p5", "p4", "p3")


def nas_fcos_text(
    fpn: Sequence[Sequence[int]], head: Sequence[int] | None = None, share: int = 0, width: int = 256, name: str = "nas_fcos"
) -> str:
    """Convert index lists to `.nas` text; see `from_nas_fcos`."""
    blocks = _blocks(fpn)
    values = [*_INPUTS, *(f"x{t}" for t in range(1, len(blocks) + 1))]
    lines = []
    for t, (in1, in2, op1, op2, agg) in enumerate(blocks, 1):
        lines.append(f"    x{t} = {FPN_AGGREGATIONS[agg]}({FPN_OPS[op1]}({values[in1]}), {FPN_OPS[op2]}({values[in2]}))")
    outputs = _output_blocks(blocks)
    chain = " -> ".join(HEAD_OPS[i] for i in _head(FCOS_HEAD if head is None else head))
    if not 0 <= share <= len(FCOS_HEAD if head is None else head):
        raise ValueError(f"share is {share}; expected 0 to {len(FCOS_HEAD if head is None else head)}")
    bound = ", ".join(f"{p} = x{t}" for p, t in zip(_OUTPUTS, outputs, strict=True))
    return "\n".join(
        [
            f"decoder {name} {{",
            f"  input {', '.join(_INPUTS)}",
            "",
            f"  fpn(width={width}, norm=bn) {{",
            *lines,
            f"    output {bound}",
            "    merge dangling into p3, p4, p5",
            "    output p6 = down(p5), p7 = down(relu(p6))",
            "  }",
            "",
            f"  head(width={width}, norm=gn, share={share}) {{",
            f"    {chain}",
            "  }",
            "",
            "  predict fcos(centerness=cls)",
            "}",
            "",
        ]
    )


def from_nas_fcos(
    fpn: Sequence[Sequence[int]], head: Sequence[int] | None = None, share: int | Sequence[int] = 0, width: int = 256
) -> Decoder:
    """Make a decoder from the index lists of the NAS-FCOS code.

    Args:
        fpn: blocks ``[in1, in2, op1, op2, agg]``. Inputs 0-3 are C2-C5, 4 is the first block, and so on; ops and
            aggregations are indices into `FPN_OPS` and `FPN_AGGREGATIONS`.
        head: layers, as indices into `HEAD_OPS`; None for the head of FCOS.
        share: index of the first head layer whose weights all levels share; a list of one index, as published, is accepted.
        width: channels of fpn and head.

    The outputs P5, P4, P3 are the last three blocks that no other block reads, in this order, as in the published code.
    (Section 3.2.1 of the paper takes the last three blocks in any case. For the published decoder both are the same.)

    Raises:
        ValueError: an index is out of range, or fewer than three blocks are unread (the published code rejects these too).
    """
    if not isinstance(share, int):
        if len(share) != 1:
            raise ValueError(f"share is {list(share)}; expected one index")
        share = share[0]
    return loads(nas_fcos_text(fpn, head, share, width), "<nas-fcos>")


class Lists(NamedTuple):
    """Index lists: blocks of the FPN, layers of the head (None if not given), index of the first shared head layer."""

    fpn: list[list[int]]
    head: list[int] | None
    share: int


def split_lists(value: object) -> Lists:
    """Split a published list into its parts.

    Args:
        value: blocks, each possibly in a list of its own, then possibly ``[share]`` and the head's list, such as
            ``[[[3, 3, 4, 4, 1]], …, [0], [5, 1, 5, 0, 4, 4]]``.

    Raises:
        ValueError: it is not of this form.
    """
    expected = "expected a list of blocks [in1, in2, op1, op2, agg], then possibly [share] and the head's list"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{_short(value)} is no list of blocks; {expected}")
    fpn: list[list[int]] = []
    rest: list[list[int]] = []
    for place, item in enumerate(value):
        inner = item[0] if isinstance(item, list) and len(item) == 1 and isinstance(item[0], list) else item
        if not isinstance(inner, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in inner):
            raise ValueError(f"item {place} is {_short(item)}; {expected}")
        if len(inner) == 5 and not rest:
            fpn.append(inner)
        else:
            rest.append(inner)
    if len(rest) > 2 or (rest and len(rest[0]) != 1):
        raise ValueError(f"{_short(rest[0] if len(rest) < 3 else rest)} follows the blocks; {expected}")
    return Lists(fpn, rest[1] if len(rest) > 1 else None, rest[0][0] if rest else 0)


def read_config(path: str | Path) -> str:
    """Convert a YAML configuration file of the NAS-FCOS code to `.nas` text.

    It reads ``SEARCH.DECODER.CONFIG`` (the lists), ``SEARCH.DECODER.AGG_SIZE`` (the width; default 256) and
    ``MODEL.RETINANET_ON`` (predict as RetinaNet, with nine anchors).

    Raises:
        UnreadableFile: the file cannot be read.
        ValueError: it is no YAML, lacks the lists, or has invalid ones.
    """
    import yaml

    from nasdsl.yaml_files import parse_yaml

    source = read_source(path)
    try:
        # Bytes that are not UTF-8, in comments most often, are no obstacle here.
        config = parse_yaml(source.text.encode(errors="surrogateescape").decode(errors="replace"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ValueError(f"{source.name}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None

    def entry(*keys: str) -> object:
        value: object = config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    lists = entry("SEARCH", "DECODER", "CONFIG")
    if lists is None:
        raise ValueError(f"{source.name}: no SEARCH.DECODER.CONFIG, which holds the index lists in configurations of NAS-FCOS")
    if isinstance(lists, str):
        try:
            lists = parse_json(lists.replace("(", "[").replace(")", "]"))
        except ValueError:
            raise ValueError(f"{source.name}: SEARCH.DECODER.CONFIG is no list: {_short(lists)}") from None
    width = entry("SEARCH", "DECODER", "AGG_SIZE")
    width = 256 if width is None else width
    if not isinstance(width, int) or isinstance(width, bool):
        raise ValueError(f"{source.name}: SEARCH.DECODER.AGG_SIZE is {_short(width)}; expected a number of channels")
    parts = split_lists(lists)
    text = nas_fcos_text(parts.fpn, parts.head, parts.share, width)
    if entry("MODEL", "RETINANET_ON") is True:
        text = text.replace("predict fcos(centerness=cls)", "predict retinanet(anchors=9)")
    loads(text, source.name)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _blocks(fpn: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int, int]]:
    """Blocks with all indices checked."""
    blocks = []
    for t, block in enumerate(fpn, 1):
        if len(block) != 5 or not all(isinstance(i, int) and not isinstance(i, bool) for i in block):
            raise ValueError(f"block {t} is {list(block)}; expected five integers [in1, in2, op1, op2, agg]")
        pool = len(_INPUTS) + t - 1
        for what, index, count in zip(
            ("in1", "in2", "op1", "op2", "agg"), block, (pool, pool, len(FPN_OPS), len(FPN_OPS), len(FPN_AGGREGATIONS)),
            strict=True,
        ):  # fmt: skip
            if not 0 <= index < count:
                raise ValueError(f"block {t}: {what} is {index}; expected 0 to {count - 1}")
        in1, in2, op1, op2, agg = block
        blocks.append((in1, in2, op1, op2, agg))
    return blocks


def _output_blocks(blocks: Sequence[tuple[int, int, int, int, int]]) -> list[int]:
    """Numbers (from 1) of the last three blocks that no block reads."""
    read = {i - len(_INPUTS) + 1 for block in blocks for i in block[:2]}
    unread = [t for t in range(1, len(blocks) + 1) if t not in read]
    if len(unread) < len(_OUTPUTS):
        raise ValueError(f"only {len(unread)} blocks are read by no other; the outputs P5, P4 and P3 need three")
    return unread[-len(_OUTPUTS) :]


def _head(head: Sequence[int]) -> Sequence[int]:
    """The head's layers, with all indices checked."""
    for place, index in enumerate(head):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(HEAD_OPS):
            raise ValueError(f"head layer {place} is {index}; expected 0 to {len(HEAD_OPS) - 1}")
    if not head:
        raise ValueError("the head has no layers")
    return head
