"""Wrap a wide diagram into rows, as text is wrapped into lines.

Each row is a diagram of its own and is drawn below the one before. A value that a row reads from another row appears in it
as a box of role ``reference``, so no arrow leaves its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from nasdsl.backends.diagrams.diagram import Arrow, Box, Diagram, Lane, Tower
from nasdsl.backends.diagrams.layout import COLUMN_GAP, HEAD_GAP, MARGIN, Size, assign_columns

MAX_WIDTH = 1800.0
"""Widest row, in points: 2400 pixels of an SVG on a screen."""


class Row(NamedTuple):
    """A row of a wrapped diagram.

    Attributes:
        diagram: boxes of the row, with references, and the arrows between them. The head is in the last row of the fpn; if
            it is wrapped too, its further rows have no lanes.
        columns: column of each box of the fpn, by id.
        origins: the box that each reference stands for, by id of the reference.
        label: ``row 2 of 5``; empty if the fpn fits in one row.
    """

    diagram: Diagram
    columns: Mapping[str, int]
    origins: Mapping[str, Box]
    label: str = ""


def split_rows(drawn: Diagram, sizes: Mapping[str, Size], max_width: float = MAX_WIDTH) -> list[Row]:
    """Split a diagram into rows. A row is at most `max_width` wide unless it is a single column.

    Args:
        sizes: width and height of each box, by id, and of ``head``, in points.
    """
    rows = _wrap_fpn(drawn, sizes, max_width)
    heads = _wrap_head(drawn, sizes, max_width)
    last = rows.pop()
    rows.append(last._replace(diagram=replace(last.diagram, pyramid=drawn.pyramid, towers=heads[0].diagram.towers)))
    return rows + heads[1:]


def _wrap_fpn(drawn: Diagram, sizes: Mapping[str, Size], max_width: float) -> list[Row]:
    columns = assign_columns(drawn)
    by_column: list[list[Box]] = [[] for _ in range(1 + max(columns.values(), default=0))]
    for lane in drawn.lanes:
        for box in lane.boxes:
            by_column[columns[box.id]].append(box)
    reads: dict[str, list[str]] = {}
    for arrow in drawn.arrows:
        reads.setdefault(arrow.target, []).append(arrow.source)
    ends = _row_ends(by_column, columns, reads, sizes, max_width)
    if len(ends) < 2:
        return [Row(replace(drawn, towers=()), columns, {})]
    row_of: dict[str, int] = {}
    for number, (start, end) in enumerate(pairwise([0, *ends])):
        row_of |= {box.id: number for column in by_column[start:end] for box in column}
    arrows: list[list[Arrow]] = [[] for _ in ends]
    for arrow in drawn.arrows:
        arrows[row_of[arrow.target]].append(arrow)
    lanes: list[list[Lane]] = [[] for _ in ends]
    for lane in drawn.lanes:
        of_row: list[list[Box]] = [[] for _ in ends]
        for box in lane.boxes:
            of_row[row_of[box.id]].append(box)
        for row, found in zip(lanes, of_row, strict=True):
            row.append(lane._replace(boxes=tuple(found)))
    boxes = {box.id: box for lane in drawn.lanes for box in lane.boxes}
    starts = [0, *ends]
    return [_fpn_row(drawn, lanes[n], arrows[n], boxes, columns, row_of, n, starts) for n in range(len(ends))]


def _row_ends(
    by_column: Sequence[Sequence[Box]],
    columns: Mapping[str, int],
    reads: Mapping[str, Sequence[str]],
    sizes: Mapping[str, Size],
    max_width: float,
) -> list[int]:
    """Choose where to wrap: the fewest rows, and then the fewest references, by dynamic programming.

    Returns:
        For each row, the number of the first column after it.
    """
    widths = [max((sizes[box.id][0] for box in column), default=0.0) for column in by_column]
    best: list[tuple[int, int, int]] = [(0, 0, 0)]  # for the columns before each: rows, references, start of the last row
    for end in range(1, len(by_column) + 1):
        best.append((best[end - 1][0] + 1, len(by_column) ** 2, end - 1))
    for start in range(len(by_column)):
        row_count, reference_count, _ = best[start]
        references: set[str] = set()
        width = 2 * MARGIN - COLUMN_GAP
        reference_width = 0.0
        for end in range(start + 1, len(by_column) + 1):
            width += widths[end - 1] + COLUMN_GAP
            for box in by_column[end - 1]:
                for source in reads.get(box.id, ()):
                    if columns[source] < start and source not in references:
                        references.add(source)
                        reference_width = max(reference_width, sizes[source][0] + COLUMN_GAP)
            if width + reference_width > max_width and end > start + 1:
                break
            best[end] = min(best[end], (row_count + 1, reference_count + len(references), start))
    ends = [len(by_column)]
    while best[ends[0]][2]:
        ends.insert(0, best[ends[0]][2])
    return ends


def _fpn_row(
    drawn: Diagram,
    lanes: Sequence[Lane],
    arrows: Sequence[Arrow],
    boxes: Mapping[str, Box],
    columns: Mapping[str, int],
    row_of: Mapping[str, int],
    number: int,
    starts: Sequence[int],
) -> Row:
    """Row of the fpn, with references to what its boxes read from other rows.

    Args:
        lanes: all lanes, with the boxes of this row only.
        arrows: those that enter boxes of this row.
        columns: column of each box in the whole diagram.
        starts: first column of each row, and the number of all columns.
    """
    references: dict[str, Box] = {}
    by_level: dict[int | None, list[Box]] = {}
    inside = []
    for arrow in arrows:
        if row_of[arrow.source] != number:
            if arrow.source not in references:
                box = boxes[arrow.source]
                references[arrow.source] = _reference(box, number, f"from row {row_of[arrow.source] + 1}")
                by_level.setdefault(box.level, []).append(references[arrow.source])
            arrow = arrow._replace(source=references[arrow.source].id)
        inside.append(arrow)
    with_references = [lane._replace(boxes=(*by_level.get(lane.level, ()), *lane.boxes)) for lane in lanes]
    # References are in a column before the others.
    shift = starts[number] - bool(references)
    in_row = {box.id: columns[box.id] - shift for lane in lanes for box in lane.boxes}
    return Row(
        replace(drawn, lanes=tuple(lane for lane in with_references if lane.boxes), arrows=tuple(inside), towers=()),
        in_row | dict.fromkeys((reference.id for reference in references.values()), 0),
        {reference.id: boxes[source] for source, reference in references.items()},
        f"row {number + 1} of {len(starts) - 1}",
    )


def _reference(box: Box, row: int, text: str) -> Box:
    return box._replace(id=f"{box.id} (row {row + 1})", text=text, role="reference", macs=0, params=0, note="")


def _wrap_head(drawn: Diagram, sizes: Mapping[str, Size], max_width: float) -> list[Row]:
    """Rows of the head. The first begins at the pyramid, each further one at references to the layers before it."""
    if any(not _is_chain(_path(tower, drawn), tower) for tower in drawn.towers):  # a difference of two heads
        return [Row(drawn, {}, {})]
    length = max(tower.end for tower in drawn.towers)
    widths = [0.0] * length
    for tower in drawn.towers:
        for column, box in enumerate(tower.layers, tower.start):
            widths[column] = max(widths[column], sizes[box.id][0])
    predictions = max((sizes[p.id][0] for tower in drawn.towers for p in tower.predictions), default=0.0)
    ends = [0]
    width = first = 2 * MARGIN + sizes["head"][0]
    for index, layer_width in enumerate([*widths, predictions]):
        if width + HEAD_GAP + layer_width > max_width and index > max(ends[-1], 1):
            ends.append(index)
            width = first + widths[index - 1]
        width += HEAD_GAP + layer_width
    ends.append(length)
    if len(ends) == 2:
        return [Row(drawn, {}, {})]
    return [_head_row(drawn, start, end, end == length, number) for number, (start, end) in enumerate(pairwise(ends))]


def _path(tower: Tower, drawn: Diagram) -> tuple[Box, ...]:
    """The layers from the pyramid to the predictions of a tower: those of the trunk first."""
    return (*drawn.towers[0].layers, *tower.layers) if tower.start else tower.layers


def _is_chain(path: Sequence[Box], tower: Tower) -> bool:
    """Whether each layer of a tower reads the one before it, and each prediction the last layer."""
    ids = [box.id for box in path[max(0, tower.start - 1) :]]
    expected = set(pairwise(ids)) | {(ids[-1], box.id) for box in tower.predictions if ids}
    return {(arrow.source, arrow.target) for arrow in tower.arrows} == expected


def _head_row(drawn: Diagram, start: int, end: int, last: bool, number: int) -> Row:
    towers, origins = [], {}
    for tower in drawn.towers:
        path = _path(tower, drawn)
        layers = list(path[max(start, tower.start) : max(end, tower.start)])
        predictions = tower.predictions if last else ()
        if not layers and not predictions:
            continue
        ids = {box.id for box in (*layers, *predictions)}
        arrows = [arrow for arrow in tower.arrows if arrow.target in ids]
        column = max(tower.start - start, 0)
        if start and path and tower.start <= start:
            origin = path[min(start, len(path)) - 1]
            reference = _reference(origin, number, "from the row above")
            if origin not in tower.layers:  # of the trunk: each tower has a reference of its own
                reference = reference._replace(id=f"{reference.id} {tower.name}")
            origins[reference.id] = origin
            layers.insert(0, reference)
            arrows = [a._replace(source=reference.id) if a.source == origin.id else a for a in arrows]
        elif start:
            column += 1  # behind the reference of the trunk
        towers.append(Tower(tower.name, tuple(layers), predictions, tuple(arrows), column))
    return Row(replace(drawn, lanes=(), arrows=(), pyramid=(), towers=tuple(towers)), {}, origins)
