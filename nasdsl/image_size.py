"""Image sizes as text: ``800x1088`` is height x width in pixels."""

from __future__ import annotations

import re
from typing import Final

SIZE_FORM: Final = "height x width in pixels, such as 800x1088"
"""What messages say that a size is."""

_SIZE: Final = re.compile("([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


def parse_size(text: str) -> tuple[int, int] | None:
    """Height and width in pixels, each from 1 to 99,999; None for a text that is no size."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    size = int(found[1]), int(found[2])
    return size if min(size) >= 1 else None
