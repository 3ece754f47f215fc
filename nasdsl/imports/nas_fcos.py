"""Index lists as the NAS-FCOS code publishes them, as `.nas` text."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.decoder import Decoder, loads

FPN_OPS = ("sep_3x3", "sep_3x3_d3", "sep_5x5_d6", "skip", "dconv_3x3")
"""The paper's Table 1, in the order of its ids."""

FPN_AGGREGATIONS = ("psum", "cat")

HEAD_OPS = ("conv_1x1", "conv_3x3", "sep_3x3", "sep_3x3_d3", "skip", "dconv_3x3")

FCOS_HEAD = (1, 1, 1, 1)
"""The original head: four 3x3 convolutions."""

_INPUTS = ("c2", "c3", "c4", "c5")
_OUTPUTS = ("p5", "p4", "p3")


def nas_fcos_text(
    fpn: Sequence[Sequence[int]], head: Sequence[int] | None = None, share: int = 0, width: int = 256, name: str = "nas_fcos"
) -> str:
    """The text of a published index list; see `from_nas_fcos`."""
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
    """A decoder from the index lists of the NAS-FCOS code.

    Args:
        fpn: blocks ``[in1, in2, op1, op2, agg]``: inputs count C2-C5 as 0-3 and then the blocks; ops and aggregations
            count as in `FPN_OPS` and `FPN_AGGREGATIONS`.
        head: layers, counted as in `HEAD_OPS`; None is FCOS's own four convolutions.
        share: index of the first layer whose weights all levels share; the published ``[0]`` is taken as 0.
        width: channels of fpn and head.

    The outputs are the last three blocks that no block reads, in their order P5, P4, P3, as the published code has it
    (section 3.2.1 of the paper takes the last three blocks whatever reads them; where these are unread, as in the
    published decoder, the two agree).

    Raises:
        ValueError: an index that means nothing, or fewer than three unread blocks (the published code rejects these).
    """
    if not isinstance(share, int):
        if len(share) != 1:
            raise ValueError(f"share is {list(share)}; expected one index")
        share = share[0]
    return loads(nas_fcos_text(fpn, head, share, width), "<nas-fcos>")


def _blocks(fpn: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int, int]]:
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
    """Numbers of the last three blocks that no block reads."""
    read = {i - len(_INPUTS) + 1 for block in blocks for i in block[:2]}
    unread = [t for t in range(1, len(blocks) + 1) if t not in read]
    if len(unread) < len(_OUTPUTS):
        raise ValueError(f"only {len(unread)} blocks are read by no other; P5, P4 and P3 need three")
    return unread[-len(_OUTPUTS) :]


def _head(head: Sequence[int]) -> Sequence[int]:
    for place, index in enumerate(head):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(HEAD_OPS):
            raise ValueError(f"head layer {place} is {index}; expected 0 to {len(HEAD_OPS) - 1}")
    if not head:
        raise ValueError("the head has no layers")
    return head
