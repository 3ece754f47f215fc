"""Checks of what stands in holes."""

from __future__ import annotations

from nasdsl.diagnostics import Diagnostic
from nasdsl.semantics.fill import fill
from nasdsl.semantics.sections import Sections
from nasdsl.semantics.template import unroll

MOST_FILLINGS = 64

_CERTAIN = ("NAS2", "NAS301", "NAS302", "NAS303", "NAS304", "NAS305", "NAS310", "NAS313", "NAS4")
"""Codes of mistakes that an alternative makes wherever it stands. Others (a sum of two widths, say) depend on what else is
chosen: such a sample is drawn again."""


def check_holes(sections: Sections, problems: list[Diagnostic]) -> int:
    """Report holes that nothing can fill, and alternatives that are wrong in their place; gives the number of decisions.

    The decoder is filled a few times, so that every alternative of every hole stands in one of the fillings, and each is
    checked like any text. Nodes keep their spans, so that findings point into the space.
    """
    from nasdsl.semantics.check import check

    before = len(problems)
    template = unroll(sections, problems)
    if len(problems) > before:
        return len(template.slots)
    seen = {(p.code, p.span) for p in problems}
    rounds = min(max((len(slot.alternatives) for slot in template.slots), default=0), MOST_FILLINGS)
    for number in range(rounds):
        indices = [number % len(slot.alternatives) for slot in template.slots]
        for found in check(fill(template, indices), []).problems:
            if found.code.startswith(_CERTAIN) and (found.code, found.span) not in seen:
                seen.add((found.code, found.span))
                problems.append(found)
    return len(template.slots)
