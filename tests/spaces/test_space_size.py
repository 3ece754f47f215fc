"""How the number of decoders of a space is written."""

from __future__ import annotations

import random
from decimal import Context, Decimal

import pytest

from nasdsl.spaces.size import SUPERSCRIPTS, space_size

SIGN = "\N{MULTIPLICATION SIGN}"


def test_small_ones_exactly() -> None:
    assert space_size(326_592) == "326,592"
    assert space_size(999_999_999_999_999) == "999,999,999,999,999"
    assert space_size(10**16 - 1) == f"1.00 {SIGN} 10¹⁶"


@pytest.mark.parametrize("digits", [15, 24, 299, 309, 400, 4_000])
def test_large_ones_as_decimal_rounds_them(digits: int) -> None:
    rng = random.Random(digits)
    for number in [10**digits, 10 ** (digits + 1) - 1, *(rng.randrange(10**digits, 10 ** (digits + 1)) for _ in range(20))]:
        rounded = Context(prec=3).create_decimal(Decimal(number))
        mantissa = str(rounded.scaleb(-rounded.adjusted()).quantize(Decimal("0.01")))
        assert space_size(number) == f"{mantissa} {SIGN} 10{str(rounded.adjusted()).translate(SUPERSCRIPTS)}"


def test_more_digits_than_python_writes_of_an_integer() -> None:
    assert space_size(2**20_000) == f"3.98 {SIGN} 10⁶⁰²⁰"
