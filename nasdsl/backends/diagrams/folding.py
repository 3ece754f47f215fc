"""Fold a diagram: the values of a block, of a turn of `repeat`, or of all turns become one box.

What is folded is a diagram like any other, so that layout, wrapping and every format draw it without knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from nasdsl.backends.diagrams.diagram import FAMILIES, SEVERAL_LEVELS, Arrow, Box, Diagram, Lane
from nasdsl.backends.diagrams.dot import wrap_diagram
from nasdsl.backends.diagrams.labels import expression
from nasdsl.diagnostics import Span
from nasdsl.semantics.architecture import Group

Path: TypeAlias = tuple[Group, ...]
"""A group with those around it, outermost first, which tells two calls of one block apart."""

MAX_VIEWS = 24
"""Views of one diagram in a page, each of which is a picture of its own."""


@dataclass(frozen=True, slots=True)
class Folding:
    """A folded diagram.

    Attributes:
        whole: the diagram with every value.
        diagram: what is drawn.
        drawn_as: id of the box that stands for each box of the whole diagram, by id.
        closed: the group that each folded box stands for, by id of the box.
        opened: the groups whose values are drawn.
    """

    whole: Diagram
    diagram: Diagram
    drawn_as: Mapping[str, str]
    closed: Mapping[str, Path]
    opened: tuple[Path, ...]

    @property
    def rows(self) -> int:
        """Number of rows that what is drawn is wrapped into; 1 if it is not too wide."""
        return len(wrap_diagram(self.diagram))


@dataclass(frozen=True, slots=True)
class View:
    """A diagram with one of its groups opened.

    Attributes:
        title: the group.
        folding: what is drawn.
        parent: index of the view in which the group is folded; -1 for the first.
        path: the group.
    """

    title: str
    folding: Folding
    parent: int
    path: Path = ()


def groups_of(drawn: Diagram) -> dict[str, Path]:
    """The groups of each box of the fpn that can be folded, by id of the box.

    The value of a statement that calls a block belongs to the call. A group that would be folded into the same box as another
    one is left out: a turn with one call of a block, a block of one value.
    """
    calls: dict[tuple[Path, Span], Group] = {}
    paths: dict[str, Path] = {}
    boxes = [box for lane in drawn.lanes for box in lane.boxes]
    for box in boxes:
        path: Path = ()
        for group in box.groups:
            # Of several blocks that one statement calls, the first one stands for all.
            path = (*path, calls.setdefault((path, group.span), group) if group.kind == "block" else group)
        paths[box.id] = path
    for box in boxes:
        call = calls.get((paths[box.id], box.span))
        if call is not None:
            paths[box.id] = (*paths[box.id], call)
    content: dict[Path, set[Path | str]] = {}
    for name, path in paths.items():
        for n in range(len(path)):
            content.setdefault(path[: n + 1], set()).add(path[: n + 2] if n + 1 < len(path) else name)
    dropped: set[Path | str] = set()
    for path, inside in content.items():
        (only, *others) = inside
        if others:
            continue
        is_of_turn = isinstance(only, tuple) and "turn" in (only[-1].kind, path[-1].kind)
        dropped.add(only if is_of_turn else path)
    return {name: tuple(group for n, group in enumerate(path) if path[: n + 1] not in dropped) for name, path in paths.items()}


def fold(drawn: Diagram, is_open: Callable[[Path], bool]) -> Folding:
    """Fold every outermost group that is not open.

    Args:
        is_open: whether the values of a group are drawn. What is in a group that is not open is not asked for.
    """
    opened: dict[Path, None] = {}
    members: dict[Path, list[Box]] = {}
    of_group: dict[str, Path] = {}
    paths = groups_of(drawn)
    for lane in drawn.lanes:
        for box in lane.boxes:
            path = paths[box.id]
            for n in range(len(path)):
                group = path[: n + 1]
                if not is_open(group):
                    members.setdefault(group, []).append(box)
                    of_group[box.id] = group
                    break
                opened[group] = None
    folded = {group: _folded(group, number, found) for number, (group, found) in enumerate(members.items())}
    read = {arrow.target: folded[of_group[arrow.source]] for arrow in drawn.arrows if arrow.source in of_group}
    drawn_as = {box.id: folded[of_group[box.id]].id if box.id in of_group else box.id for box in drawn.boxes}
    result = replace(drawn, lanes=_lanes(drawn, folded, of_group, read), arrows=_arrows(drawn, drawn_as, of_group))
    return Folding(drawn, result, drawn_as, {box.id: group for group, box in folded.items()}, tuple(opened))


def fold_to_fit(drawn: Diagram) -> Folding:
    """Fold as little as is needed for the diagram to fit in one row: blocks first, then turns, then repeats.

    If not even the diagram with everything folded fits, it is wrapped.
    """
    found = fold(drawn, lambda _: True)
    if found.rows == 1:
        return found
    depths = {sum(group.kind == "block" for group in path) for path in found.opened}
    for blocks in range(max(depths, default=0) - 1, -1, -1):
        found = fold(drawn, _open_to(blocks))
        if found.rows == 1:
            return found
    found = fold(drawn, lambda path: all(group.kind == "repeat" for group in path))
    return found if found.rows == 1 else fold(drawn, lambda _: False)


def views(first: Folding, most: int = MAX_VIEWS) -> list[View]:
    """What a page shows: a diagram, and, where something is folded, one with each group opened and one with all.

    The first view is the given one, the last of several has everything open.

    Args:
        most: most views but for the last. The groups inside of others are the ones left out.
    """
    found = [View("", first, -1)]
    at = 0
    while at < len(found) and len(found) < most:
        view = found[at]
        for path in view.folding.closed.values():
            if (at == 0 or path[: len(view.path)] == view.path) and len(found) < most:
                opened = frozenset(first.opened) | {path[: n + 1] for n in range(len(path))}
                found.append(View(_title(path), fold(first.whole, opened.__contains__), at, path))
        at += 1
    if first.closed:
        found.append(View("everything", fold(first.whole, lambda _: True), 0))
    return found


def _title(path: Path) -> str:
    group = path[-1]
    return _targets(group) if group.kind == "block" else group.name


def _gives_one(box: Box) -> bool:
    """Whether the box of a group is called by the name of the one value that the group gives."""
    return box.name == box.span.text.partition("=")[0].strip()


def _targets(group: Group) -> str:
    """What the statement of a block's call binds: ``a3 … a7``."""
    names = [name.strip() for name in group.span.text.partition("=")[0].split(",")]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _open_to(depth: int) -> Callable[[Path], bool]:
    """Opens every repeat and turn, and blocks within fewer than `depth` other blocks."""
    return lambda path: sum(group.kind == "block" for group in path) <= depth


def _folded(path: Path, number: int, members: list[Box]) -> Box:
    """The box of a group."""
    group = path[-1]
    own = next((box for box in members if box.span == group.span), None)
    levels = {box.level for box in members}
    widths = {box.width for box in members}
    costs = dict.fromkeys(FAMILIES, 0)
    for box in members:
        costs[box.family] += box.macs + 1
    if group.kind == "block":
        name, text = own.name if own is not None else _targets(group), expression(group.span)
    else:
        name, text = group.name, " ".join(group.span.text.partition("{")[2].rstrip("} \n").split())
    return Box(
        id=own.id if own is not None else f"group {number}",
        name=name,
        text=text,
        family=max(costs, key=lambda family: costs[family]),
        role="output" if own is not None and own.role == "output" else "group",
        level=levels.pop() if len(levels) == 1 else SEVERAL_LEVELS,
        width=widths.pop() if len(widths) == 1 else 0,
        macs=sum(box.macs for box in members),
        params=sum(box.params for box in members),
        span=group.span,
        note=f"{len(members)} values",
        layers=tuple(layer for box in members for layer in box.layers),
        groups=path[:-1],
    )


def _lanes(
    drawn: Diagram, folded: Mapping[Path, Box], of_group: Mapping[str, Path], read: Mapping[str, Box]
) -> tuple[Lane, ...]:
    """The lanes with groups in the place of their first value. Groups of several levels are in a lane of their own.

    Args:
        folded: the box of each group.
        of_group: the group of each box that is in one.
        read: the box of a group that a box reads.
    """
    placed: set[Path] = set()
    lanes = []
    several: list[Box] = []
    for lane in drawn.lanes:
        boxes: list[Box] = []
        for box in lane.boxes:
            group = of_group.get(box.id)
            if group is None:
                is_name = box.role == "output" and not box.layers  # an output that only renames a value
                source = read.get(box.id) if is_name else None
                boxes.append(box._replace(text=source.name) if source is not None and _gives_one(source) else box)
            elif group not in placed:
                placed.add(group)
                (several if folded[group].level == SEVERAL_LEVELS else boxes).append(folded[group])
        if boxes:
            lanes.append(lane._replace(boxes=tuple(boxes)))
    if several:
        lanes.insert((len(lanes) + 1) // 2, Lane(SEVERAL_LEVELS, "several levels", tuple(several)))
    return tuple(lanes)


def _arrows(drawn: Diagram, drawn_as: Mapping[str, str], of_group: Mapping[str, Path]) -> tuple[Arrow, ...]:
    """The arrows between what is drawn. An arrow into a group has no mark: what is resized there is not drawn."""
    found: dict[tuple[str, str, str], Arrow] = {}
    for arrow in drawn.arrows:
        source, target = drawn_as[arrow.source], drawn_as[arrow.target]
        if source == target:
            continue
        into_group = arrow.target in of_group
        if into_group or arrow.source in of_group:
            arrow = arrow._replace(source=source, target=target, times=1, levels=0 if into_group else arrow.levels)
        key = (source, target, arrow.kind)
        before = found.get(key, arrow)
        found[key] = before if before.levels == arrow.levels else before._replace(levels=0)
    return tuple(found.values())
