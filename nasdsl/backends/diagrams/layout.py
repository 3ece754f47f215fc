"""Layout of a diagram: positions of its boxes and routes of its arrows. Lengths are in points; y grows downwards.

Layered drawing after Sugiyama, Tagawa and Toda (1981), with one more constraint that general programs do not keep: every
pyramid level is a horizontal band, and the bands are in the order of their levels. A column holds the values at one distance
from the inputs. An arrow that crosses a column is given a slot in it, so no arrow runs through a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nasdsl.backends.diagrams.diagram import Arrow, Box, Diagram, Tower
from nasdsl.backends.diagrams.routes import PORT_DISTANCE, Rectangle, Route, connect

MARGIN = 10.0
LABEL_HEIGHT = 20.0
"""Height of a band's label."""
ROW_GAP = 12.0
SLOT_HEIGHT = 8.0
"""Height of the slot of an arrow that crosses a column."""
COLUMN_GAP = 60.0
HEAD_GAP = 40.0
WRAP_GAP = 36.0
"""Distance between the rows of a wrapped diagram."""
SWEEPS = 12
SWEEPS_OF_MANY = 4
"""Rounds of the placement, and of that with more than `MAX_ROUTED` boxes."""
MAX_ROUTED = 400
"""With more boxes than this, arrows get no slots, whose number can be quadratic in that of the boxes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of a diagram.

    Attributes:
        boxes: rectangle of each box, by id; ``head`` is the box for the pyramid at the entry of the head.
        bands: rectangle of each lane, in the diagram's order.
        head: rectangle around the head; None if there is no head.
        routes: routes of the diagram's arrows, in their order.
        head_arrows: arrows of the head with their routes.
    """

    boxes: Mapping[str, Rectangle]
    bands: tuple[Rectangle, ...]
    head: Rectangle | None
    routes: tuple[Route, ...]
    head_arrows: tuple[tuple[Arrow, Route], ...]


Size = tuple[float, float]


@dataclass(slots=True)
class _Item:
    """A box, or the slot of an arrow that crosses a column."""

    column: int
    band: int
    height: float
    y: float = 0.0
    before: list[_Item] = field(default_factory=list)
    after: list[_Item] = field(default_factory=list)


def arrange(drawn: Diagram, sizes: Mapping[str, Size]) -> Layout:
    """Place the boxes of a diagram and route its arrows.

    Args:
        sizes: width and height of each box, by id, and of ``head``. A box that many arrows enter is made as high as they need.
    """
    return arrange_rows([drawn], [assign_columns(drawn)], sizes)[0]


def arrange_rows(rows: Sequence[Diagram], columns: Sequence[Mapping[str, int]], sizes: Mapping[str, Size]) -> list[Layout]:
    """Place several diagrams below each other, all of the same width; see `arrange`.

    A diagram without a pyramid continues the head of the one above.

    Args:
        columns: column of each box of the fpn, by id, for each diagram.
    """
    grown = [_fit_arrows(drawn, sizes) for drawn in rows]
    sweeps = SWEEPS if sum(len(found) for found in grown) <= MAX_ROUTED else SWEEPS_OF_MANY
    fpns = [_Bands(drawn, of_row, found, sweeps) for drawn, of_row, found in zip(rows, columns, grown, strict=True)]
    heads = [_head_columns(drawn, found) for drawn, found in zip(rows, grown, strict=True)]
    width = max(max(fpn.width, head_width) for fpn, (_, head_width, _) in zip(fpns, heads, strict=True))
    layouts = []
    top = 0.0
    for drawn, found, fpn, (head_columns, _, head_height) in zip(rows, grown, fpns, heads, strict=True):
        fpn.sweep(top)
        fpn.stretch(width)
        boxes, bands, routes = fpn.result()
        frame, head_arrows = None, []
        if drawn.towers:
            head_top = bands[-1].bottom + ROW_GAP if bands else top
            frame = Rectangle(0.0, head_top, width, head_top + head_height)
            boxes |= _place_head(drawn, found, head_columns, frame)
            if drawn.pyramid:
                head_arrows = [Arrow("head", box.id) for tower in drawn.towers for box in tower.entries]
            head_arrows += [arrow for tower in drawn.towers for arrow in tower.arrows]
        passages = [_passages(arrow, drawn, boxes) for arrow in head_arrows]
        head_routes = connect(head_arrows, boxes, passages)
        layouts.append(Layout(boxes, bands, frame, routes, tuple(zip(head_arrows, head_routes, strict=True))))
        top = (frame.bottom if frame else bands[-1].bottom if bands else top) + WRAP_GAP
    return layouts


def _fit_arrows(drawn: Diagram, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """Sizes with each box as high as the arrows that enter it need."""
    entering: dict[str, int] = {}
    for arrow in drawn.arrows:
        entering[arrow.target] = entering.get(arrow.target, 0) + 1
    names = [box.id for box in drawn.boxes] + (["head"] if drawn.towers and drawn.pyramid else [])
    return {name: (sizes[name][0], max(sizes[name][1], PORT_DISTANCE * entering.get(name, 0))) for name in names}


class _Bands:
    """Layout of the fpn: columns by distance from the inputs, bands by level."""

    def __init__(self, drawn: Diagram, columns: Mapping[str, int], sizes: Mapping[str, Size], sweeps: int) -> None:
        self.drawn = drawn
        self.sweeps = sweeps
        self.sizes = sizes
        self.items: dict[str, _Item] = {}
        self.upward = set(_upward_arrows(drawn))
        for band, lane in enumerate(drawn.lanes):
            for box in lane.boxes:
                self.items[box.id] = _Item(columns[box.id], band, sizes[box.id][1])
        count = 1 + max(columns.values(), default=0)
        self.cells: list[list[list[_Item]]] = [[[] for _ in drawn.lanes] for _ in range(count)]
        for item in self.items.values():
            self.cells[item.column][item.band].append(item)
        self.paths = [self._path(a) for a in drawn.arrows]
        self.heights = [
            max(sum(i.height + ROW_GAP for i in column[band]) for column in self.cells) + LABEL_HEIGHT
            for band in range(len(drawn.lanes))
        ]
        self.tops: list[float] = []
        self._widths = [0.0] * count
        for name, item in self.items.items():
            self._widths[item.column] = max(self._widths[item.column], sizes[name][0])
        self._gaps = [COLUMN_GAP] * (count - 1)

    @property
    def width(self) -> float:
        return 2 * MARGIN + sum(self._widths) + sum(self._gaps)

    def stretch(self, width: float) -> None:
        """Make the bands as wide as given, and widen the gaps between columns (each by at most 90 points)."""
        spare = (width - self.width) / max(1, len(self._gaps))
        self._gaps = [gap + min(spare, 90.0) for gap in self._gaps]
        self._full = width

    def _path(self, arrow: Arrow) -> list[_Item]:
        """The items along an arrow: its source, its slots in the columns between, its target."""
        source, target = self.items[arrow.source], self.items[arrow.target]
        if arrow in self.upward:
            return [source, target]
        path = [source]
        if len(self.items) <= MAX_ROUTED:
            low, high = sorted((source.band, target.band))
            for column in range(source.column + 1, target.column):
                cells = self.cells[column]
                # The emptiest band between its ends; of several, the one nearest to where it is already.
                band = min(range(low, high + 1), key=lambda b: (sum(i.height + 4 for i in cells[b]), abs(b - path[-1].band)))
                slot = _Item(column, band, SLOT_HEIGHT)
                cells[band].append(slot)
                path.append(slot)
        path.append(target)
        for before, after in pairwise(path):
            before.after.append(after)
            after.before.append(before)
        return path

    def sweep(self, top: float) -> None:
        """Order and place the items, each towards the mean of its neighbours, in several sweeps; the best one is kept.

        Args:
            top: where the first band begins.
        """
        self.tops = [top + sum(self.heights[:band]) + ROW_GAP * band for band in range(len(self.heights))]
        for column in self.cells:
            for band, cell in enumerate(column):
                y = self.tops[band] + LABEL_HEIGHT
                for item in cell:
                    item.y = y + item.height / 2
                    y += item.height + ROW_GAP
        best: tuple[float, list[tuple[_Item, float]]] | None = None
        everything = [item for column in self.cells for cell in column for item in cell]
        for sweep in range(self.sweeps):
            for column in self.cells if sweep % 2 == 0 else reversed(self.cells):
                for band, cell in enumerate(column):
                    if cell:
                        self._place_cell(band, cell, sweep)
            cost = self._cost()
            if best is None or cost < best[0]:
                best = cost, [(item, item.y) for item in everything]
        for item, y in best[1] if best else ():
            item.y = y

    def _place_cell(self, band: int, cell: list[_Item], sweep: int) -> None:
        wanted = {}
        for item in cell:
            near = item.before + item.after if sweep >= self.sweeps // 3 else (item.before if sweep % 2 == 0 else item.after)
            wanted[id(item)] = sum([i.y for i in near]) / len(near) if near else item.y
        if sweep < self.sweeps - self.sweeps // 4 and len(cell) > 1:
            cell.sort(key=lambda item: wanted[id(item)])
        top, bottom = self.tops[band] + LABEL_HEIGHT, self.tops[band] + self.heights[band] - ROW_GAP
        for item, y in zip(cell, spread([wanted[id(i)] for i in cell], [i.height for i in cell], top, bottom), strict=True):
            item.y = y

    def _cost(self) -> float:
        """Number of crossings between neighbouring columns, and, with little weight, the vertical length of the arrows."""
        climbed = 0.0
        spans: dict[int, list[tuple[float, float]]] = {}
        for arrow, path in zip(self.drawn.arrows, self.paths, strict=True):
            if arrow not in self.upward:
                for before, after in pairwise(path):
                    climbed += abs(before.y - after.y)
                    spans.setdefault(before.column, []).append((before.y, after.y))
        crossings = 0
        if len(self.items) <= MAX_ROUTED:
            for lines in spans.values():
                lines.sort()
                for place, (_, end) in enumerate(lines):
                    crossings += sum(other < end for _, other in lines[place + 1 :])
        return crossings * 150.0 + climbed

    def result(self) -> tuple[dict[str, Rectangle], tuple[Rectangle, ...], tuple[Route, ...]]:
        lefts = [MARGIN]
        for width, gap in zip(self._widths, self._gaps, strict=False):
            lefts.append(lefts[-1] + width + gap)
        boxes = {}
        for name, item in self.items.items():
            width, left = self._widths[item.column], lefts[item.column]
            boxes[name] = Rectangle(left, item.y - item.height / 2, left + width, item.y + item.height / 2)
        bands = tuple(
            Rectangle(0.0, top, self._full, top + height) for top, height in zip(self.tops, self.heights, strict=True)
        )
        passages = [
            [Rectangle(lefts[i.column], i.y, lefts[i.column] + self._widths[i.column], i.y) for i in path[1:-1]]
            for path in self.paths
        ]
        return boxes, bands, tuple(connect(self.drawn.arrows, boxes, passages, self.upward))


def _upward_arrows(drawn: Diagram) -> list[Arrow]:
    """The arrows between outputs, which stand above each other in the last column."""
    outputs = {box.id for lane in drawn.lanes for box in lane.boxes if box.role == "output"}
    return [arrow for arrow in drawn.arrows if arrow.source in outputs and arrow.target in outputs]


def assign_columns(drawn: Diagram) -> dict[str, int]:
    """Column of each box of the fpn: the length of the longest path to it. All outputs are in the last column."""
    roles = {box.id: box.role for lane in drawn.lanes for box in lane.boxes}
    upward = set(_upward_arrows(drawn))
    readers: dict[str, list[str]] = {}
    waiting = dict.fromkeys(roles, 0)
    for arrow in drawn.arrows:
        if arrow in upward:
            continue
        readers.setdefault(arrow.source, []).append(arrow.target)
        waiting[arrow.target] += 1
    columns = dict.fromkeys(roles, 0)
    ready = [name for name, count in waiting.items() if not count]
    done = set(ready)
    for first in roles:
        # The difference of two decoders may have cycles, which are broken at the first of their boxes.
        if not ready and first not in done:
            ready.append(first)
            done.add(first)
        while ready:
            name = ready.pop()
            for reader in readers.get(name, ()):
                waiting[reader] -= 1
                if reader not in done:
                    columns[reader] = max(columns[reader], columns[name] + 1)
                    if not waiting[reader]:
                        ready.append(reader)
                        done.add(reader)
    last = max((columns[n] + (roles[n] != "output") for n in roles), default=0)
    return {name: last if roles[name] == "output" else column for name, column in columns.items()}


def spread(wanted: Sequence[float], heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """Centers of items that do not overlap and stay within bounds, as near as possible to the wanted ones.

    The order is kept. Pool adjacent violators: items that would overlap form a block at the mean of their wanted centers.

    Args:
        wanted: wanted center of each item.
        heights: height of each item.
        top, bottom: bounds.
    """
    if len(heights) == 1:
        half = heights[0] / 2
        return [min(max(wanted[0] - half, top), max(top, bottom - heights[0])) + half]
    gap = ROW_GAP
    room = bottom - top - sum(heights)
    if len(heights) > 1:
        gap = min(ROW_GAP, max(0.0, room / (len(heights) - 1)))
    offsets, offset = [], 0.0
    for height in heights:
        offsets.append(offset + height / 2)
        offset += height + gap
    total = offset - gap
    blocks: list[tuple[float, int]] = []  # sum of the wanted positions of the block's first edge, and number of items
    for center, shift in zip(wanted, offsets, strict=True):
        block = (center - shift, 1)
        while blocks and blocks[-1][0] / blocks[-1][1] > block[0] / block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1])
        blocks.append(block)
    edges = [edge / count for edge, count in blocks for _ in range(count)]
    return [min(max(edge, top), max(top, bottom - total)) + shift for edge, shift in zip(edges, offsets, strict=True)]


def _head_columns(drawn: Diagram, sizes: Mapping[str, Size]) -> tuple[list[float], float, float]:
    """Widths of the head's columns (entry, layers, predictions), and width and height of the head."""
    if not drawn.towers:
        return [], 0.0, 0.0
    widths: dict[int, float] = {}
    for tower in drawn.towers:
        for column, box in enumerate(tower.layers, tower.start):
            widths[column] = max(widths.get(column, 0.0), sizes[box.id][0])
    columns = [sizes["head"][0]] if drawn.pyramid else []
    columns += [widths.get(column, 0.0) for column in range(max(tower.end for tower in drawn.towers))]
    columns.append(max((sizes[p.id][0] for t in drawn.towers for p in t.predictions), default=0.0))
    heights = [(_is_trunk(tower, drawn), _tower_height(tower.layers, tower.predictions, sizes)) for tower in drawn.towers]
    height = (
        max([sum(h for is_trunk, h in heights if not is_trunk), *(h for is_trunk, h in heights if is_trunk)]) + LABEL_HEIGHT
    )
    return columns, 2 * MARGIN + sum(columns) + HEAD_GAP * (len(columns) - 1), height


def _is_trunk(tower: Tower, drawn: Diagram) -> bool:
    """Whether the others go on from a tower, so that it stands in front of them and not above."""
    others = [other for other in drawn.towers if other is not tower]
    return bool(others) and all(other.start >= tower.end for other in others)


def _tower_height(layers: Sequence[Box], predictions: Sequence[Box], sizes: Mapping[str, Size]) -> float:
    rows = [sizes[p.id][1] for p in predictions]
    layer = max((sizes[x.id][1] for x in layers), default=0.0)
    return max(layer + ROW_GAP, sum(row + ROW_GAP for row in rows))


def _passages(arrow: Arrow, drawn: Diagram, boxes: Mapping[str, Rectangle]) -> list[Rectangle]:
    """Where an arrow of the head passes layers that it does not read: those of the other decoder, in a difference."""
    source, target = boxes[arrow.source], boxes[arrow.target]
    passed = [
        boxes[box.id]
        for tower in drawn.towers
        if any(box.id == arrow.source for box in tower.layers)
        for box in tower.layers
        if source.right < boxes[box.id].left < target.left and box.id != arrow.target
    ]
    above = target.center.y < source.center.y
    return [box._replace(top=box.top - 5.0 if above else box.bottom + 5.0) for box in passed]


def _place_head(drawn: Diagram, sizes: Mapping[str, Size], columns: Sequence[float], frame: Rectangle) -> dict[str, Rectangle]:
    gap = min((frame.right - frame.left - 2 * MARGIN - sum(columns)) / (len(columns) - 1), 2 * HEAD_GAP)
    lefts = [frame.left + MARGIN]
    for width in columns:
        lefts.append(lefts[-1] + width + gap)
    places: dict[str, Rectangle] = {}

    def put(name: str, column: int, y: float) -> None:
        half = sizes[name][1] / 2
        places[name] = Rectangle(lefts[column], y - half, lefts[column] + columns[column], y + half)

    top, centre = frame.top + LABEL_HEIGHT, (frame.top + LABEL_HEIGHT + frame.bottom - ROW_GAP) / 2
    for tower in drawn.towers:
        is_trunk = _is_trunk(tower, drawn)
        height = 0.0 if is_trunk else _tower_height(tower.layers, tower.predictions, sizes)
        middle = centre if is_trunk else top + (height - ROW_GAP) / 2
        for column, box in enumerate(tower.layers, tower.start + (1 if drawn.pyramid else 0)):
            put(box.id, column, middle)
        heights = [sizes[p.id][1] for p in tower.predictions]
        wanted = [middle] * len(heights)
        for box, y in zip(tower.predictions, spread(wanted, heights, top, top + height), strict=True):
            put(box.id, len(columns) - 1, y)
        top += height
    if drawn.pyramid:
        put("head", 0, centre)
    return places
