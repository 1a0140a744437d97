"""Exact arithmetic on written numbers, so that a box survives a trip through a label file.

VOC shifts corners by one pixel and COCO writes widths instead of right edges. In binary floats
0.1 + 1 - 1 is not 0.1; on the decimal digits that were written it is.
"""

from __future__ import annotations

from decimal import Context, Decimal

# Enough digits for the smallest float next to the largest; ordinary corners need a handful.
EXACT = Context(prec=1100)


def decimal_of(value: float) -> Decimal:
    """The number that a float is written as (its shortest digits), not its binary expansion."""
    return Decimal(repr(value))


def text_of(value: Decimal) -> str:
    """Plain digits; whole numbers without a point, which is all that many readers understand."""
    if value == value.to_integral_value(context=EXACT):
        return str(int(value))
    return format(value, "f")
