"""How the number of decoders of a space is written."""

from __future__ import annotations

import math

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
EXACT_BELOW = 10**15


def space_size(number: int) -> str:
    """The size of a space: ``326,592``, or ``2.86 x 10²³`` with a multiplication sign.

    A thousand holes give numbers that no float holds, and a few thousand more digits than Python writes of an integer.
    """
    if number < EXACT_BELOW:
        return f"{number:,}"
    exponent = int(math.log10(number))
    digits = (number // 10 ** (exponent - 3) + 5) // 10
    if digits >= 1000:
        digits, exponent = 100, exponent + 1
    return f"{digits / 100:.2f} \N{MULTIPLICATION SIGN} 10{str(exponent).translate(SUPERSCRIPTS)}"
