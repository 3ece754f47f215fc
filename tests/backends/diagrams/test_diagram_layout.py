"""Where boxes stand, colours, numbers and texts in boxes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from diagram_texts import TEXTS, blocks, lowered

from nasdsl.backends.diagrams import layout
from nasdsl.backends.diagrams.diagram import Diagram
from nasdsl.backends.diagrams.dot import FILLS, RESIZED, TEXT_COLOR, TONE
from nasdsl.backends.diagrams.from_graph import diagram, family
from nasdsl.backends.diagrams.labels import expression, format_count, text_width, wrap_text
from nasdsl.backends.diagrams.layout import ROW_GAP, arrange, spread
from nasdsl.backends.diagrams.routes import Rectangle
from nasdsl.diagnostics import Source
from nasdsl.layers import Add, Concat, Conv, DeformConv, GlobalPool, Norm, Resize, UpConv


def place(drawn: Diagram) -> tuple[dict[str, Rectangle], list[Rectangle]]:
    found = arrange(drawn, {box.id: (120.0, 40.0) for box in drawn.boxes} | {"head": (50.0, 20.0)})
    return dict(found.boxes), list(found.bands)


@pytest.mark.parametrize("name", [*sorted(TEXTS), "deep"])
def test_boxes_stand_in_their_band_and_on_no_other(name: str) -> None:
    drawn = diagram(*lowered(TEXTS.get(name) or blocks(40)))
    boxes, bands = place(drawn)
    for above, below in pairwise(bands):
        assert above.bottom < below.top, "bands lie in the order of their levels"
    for lane, band in zip(drawn.lanes, bands, strict=True):
        for box in lane.boxes:
            here = boxes[box.id]
            assert band.top <= here.top + 0.01
            assert here.bottom <= band.bottom + 0.01
            assert band.left <= here.left
            assert here.right <= band.right
    found = sorted(boxes.items(), key=lambda item: item[1].left)
    for index, (one, a) in enumerate(found):
        for other, b in found[index + 1 :]:
            apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top + 0.01 or b.bottom <= a.top + 0.01
            assert apart, (one, other)
    for arrow in drawn.arrows:
        if not (arrow.source.startswith("output") and arrow.target.startswith("output")):
            assert boxes[arrow.source].right < boxes[arrow.target].left, "data flows from left to right"


@pytest.mark.parametrize("name", ["nas_fcos", "bifpn"])
def test_boxes_stand_so_in_a_diagram_of_too_many_for_routes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_ROUTED", 5)
    test_boxes_stand_in_their_band_and_on_no_other(name)


def test_spread_keeps_order_and_distance() -> None:
    heights = [10.0, 20.0, 10.0]
    centres = spread([50.0, 50.0, 40.0], heights, 0.0, 200.0)
    assert centres == sorted(centres)
    assert centres[1] - centres[0] == pytest.approx(15 + ROW_GAP)
    assert spread([-100.0], [10.0], 0.0, 50.0) == [5.0]
    assert spread([1000.0], [10.0], 0.0, 50.0) == [45.0]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_hold_on_white_and_on_a_dark_page() -> None:
    assert all(contrast(TEXT_COLOR, fill) > 9 for fill in FILLS.values())
    for colour in (TONE, RESIZED):
        assert contrast(colour, "#ffffff") > 4
        assert contrast(colour, "#0d1117") > 4


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1 k"),
        (456_000, "456 k"),
        (999_600, "1 M"),
        (1_230_000_000, "1.23 G"),
        (4_560_000_000_000, "4.56 T"),
        (78_900_000_000_000_000, "78900 T"),
    ],
)
def test_human(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [("x1 = add(a,\n   b) ", "add(a, b)"), ("x[t] = f(x[t-1], k=3)", "f(x[t-1], k=3)"), ("conv(k=3)", "conv(k=3)"),
     ("x = f(a) # = why\n", "f(a)")],
)  # fmt: skip
def test_expression(text: str, right: str) -> None:
    assert expression(Source("s", text).span(0, len(text))) == right


def test_long_expressions_are_wrapped_and_cut() -> None:
    rows = wrap_text("cat(" + ", ".join(["dconv_3x3(x1)"] * 20) + ")")
    assert len(rows) == 2
    assert rows[1].endswith("…")
    assert all(len(row) <= 36 for row in rows)
    assert wrap_text("") == []
    assert text_width("m", 10) > text_width("i", 10)


def test_families() -> None:
    depthwise, grouped, plain = Conv(64, 3, groups=64), Conv(64, 1, groups=64), Conv(64, 1)
    assert family(()) == "identity"
    assert family([depthwise, plain]) == "separable"
    assert family([Concat(), Norm("bn"), grouped]) == "aggregation"
    assert family([grouped]) == "separable"
    assert family([DeformConv(64), Concat(), depthwise]) == "deformable"
    assert family([Add(), plain]) == "convolution"
    assert family([UpConv(64, 2, 2)]) == "convolution"
    assert family([UpConv(64, 2, 2, groups=64)]) == "separable"
    assert family([GlobalPool("max")]) == family([Resize(3)]) == "resampling"
