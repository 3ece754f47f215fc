"""Changes of fillings: random mutations, crossover, neighbours, and combined changes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from nasdsl.search.strategies.strategy import Indices
from nasdsl.spaces import Condition, Space


def zero_inactive(space: Space, indices: Sequence[int]) -> Indices:
    """Set inactive decisions to 0, as in the fillings of `Space.decode`."""
    return tuple(index if active else 0 for index, active in zip(indices, space.active(indices), strict=True))


def change_decision(space: Space, indices: Sequence[int], place: int, index: int, rng: random.Random) -> Indices:
    """Change one decision, and draw those that become active uniformly."""
    was_active = space.active(indices)
    changed = list(indices)
    changed[place] = index
    for domain in space.domains:  # a decision comes before those that depend on it
        if not domain.condition.holds(changed):
            changed[domain.index] = 0
        elif not was_active[domain.index]:
            changed[domain.index] = rng.randrange(domain.size)
    return tuple(changed)


def mutate(space: Space, indices: Sequence[int], rng: random.Random) -> Indices:
    """Change one active decision, drawn uniformly, to another alternative.

    Args:
        space: that the filling is of.
        indices: an integer for each decision, in the order of its `domains`.
        rng: the generator to draw with; its state changes.
    """
    active = space.active(indices)
    places = [d.index for d in space.domains if active[d.index] and d.size > 1]
    if not places:
        return tuple(indices)
    place = rng.choice(places)
    index = rng.randrange(space.domains[place].size - 1)
    return change_decision(space, indices, place, index + (index >= indices[place]), rng)


def cross(space: Space, first: Sequence[int], second: Sequence[int], rng: random.Random) -> Indices:
    """Uniform crossover: take each active decision from one of the parents in which it is active.

    A decision that is active in the child and in neither parent, because they gave one of the alternatives each that it depends
    on, is drawn uniformly.
    """
    parents = [(first, space.active(first)), (second, space.active(second))]
    child: list[int] = []
    for domain in space.domains:
        if not domain.condition.holds(child):
            child.append(0)
            continue
        givers = [indices for indices, active in parents if active[domain.index]]
        child.append(rng.choice(givers)[domain.index] if givers else rng.randrange(domain.size))
    return tuple(child)


def neighbours(space: Space, indices: Sequence[int], rng: random.Random) -> Iterator[Indices]:
    """All fillings with one active decision changed; decisions that become active are drawn uniformly."""
    filling = tuple(indices)
    dependents: dict[int, list[Condition]] = {}
    for domain in space.domains:
        for number in domain.condition.depends_on():
            dependents.setdefault(number, []).append(domain.condition)
    for domain, is_active in zip(space.domains, space.active(filling), strict=True):
        place, before = domain.index, filling[domain.index]
        for index in range(domain.size if is_active else 0):
            if index == before:
                continue
            if any(condition.changes(place, before, index) for condition in dependents.get(place, ())):
                yield change_decision(space, filling, place, index, rng)
            else:
                yield (*filling[:place], index, *filling[place + 1 :])


def combine_changes(space: Space, indices: Sequence[int], others: Iterable[Indices]) -> Iterator[Indices]:
    """Combine the changes of the first two of `others`, of the first four, the first eight, and so on.

    An item that changes a decision that an earlier item has changed is skipped.
    """
    filling = tuple(indices)
    combined = list(filling)
    count = 0
    for other in others:
        places = [place for place, (before, after) in enumerate(zip(filling, other, strict=True)) if before != after]
        if all(combined[place] == filling[place] for place in places):
            for place in places:
                combined[place] = other[place]
            count += 1
            if count > 1 and count.bit_count() == 1:
                yield zero_inactive(space, combined)


def draw_uniform(space: Space, rng: random.Random) -> Indices:
    """Draw a filling uniformly over the decisions, without regard to the requirements."""
    return zero_inactive(space, [rng.randrange(domain.size) for domain in space.domains])
