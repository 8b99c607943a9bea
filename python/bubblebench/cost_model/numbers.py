"""Arithmetic as the program does it: IEEE 754 doubles, where a division by zero is an infinity and no exception, and sums
from left to right (Python's own ``sum`` carries the rounding errors along since 3.12 and gives other last digits).
"""

from __future__ import annotations

import math
from typing import Iterable

#: The smallest positive normal double.
MIN_POSITIVE = 2.2250738585072014e-308


def total(values: Iterable[float]) -> float:
    """The sum, each value added to those before it."""
    result = 0.0
    for value in values:
        result += value
    return result


def divide(a: float, b: float) -> float:
    """``a ÷ b``, infinite or not a number where ``b`` is zero."""
    if b != 0.0:
        return a / b
    if a == 0.0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def ln(value: float) -> float:
    """The natural logarithm: −∞ of zero, not a number of what is below."""
    if value > 0.0:
        return math.log(value)
    return -math.inf if value == 0.0 else math.nan


def exp(value: float) -> float:
    """e to the power of ``value``, infinite where that is too large."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def ceil(value: float) -> float:
    """The next whole number, as a double."""
    return float(math.ceil(value)) if math.isfinite(value) else value


def cube_root(value: float) -> float:
    """The C library's cube root; before Python 3.11 as near to it as a step of Newton's comes."""
    own = getattr(math, "cbrt", None)
    if own is not None:
        return float(own(value))
    if value <= 0.0:
        return 0.0
    root = float(value ** (1.0 / 3.0))
    return root - (root * root * root - value) / (3.0 * root * root)
