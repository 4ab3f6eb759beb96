"""Epsilons and other pixel quantities: exact fractions as written, floats on the [0, 1] scale inside."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

# Python would read more ("1_0", "1e999999999", which takes for ever): a number in a grid is short.
_WRITTEN = re.compile(r"[+-]?(\d{1,20}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?|[+-]?\d{1,20}/\d{1,20}")


@dataclass(frozen=True, slots=True)
class PixelRange:
    """The scale in which a grid's pixel quantities are written."""

    low: Fraction = Fraction(0)
    high: Fraction = Fraction(1)

    @property
    def width(self) -> Fraction:
        return self.high - self.low

    def __str__(self) -> str:
        return f"[{number_text(self.low)}, {number_text(self.high)}]"


def exact(value: Any) -> Fraction:
    """The number as written: an int, a float's shortest decimal, or a text such as "8/255" or "1e-2".

    Raises ValueError, saying what is wrong, for anything else: NaN, infinity, "8/0", "1e", true.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f'found {value!r}; a number or a fraction such as "8/255" is allowed')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"found {value}; a finite number is allowed")
    text = (repr(value) if isinstance(value, float) else str(value)).strip()
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f'found "{text[:60]}"; a number or a fraction such as "8/255" is allowed')
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f'found "{text}": a division by zero') from None


def number_text(value: Fraction) -> str:
    """A fraction for people: "0.1" where the decimal is short and exact, else "8/255" (and "6/255")."""
    decimal = f"{float(value):.6g}"
    if Fraction(decimal) == value:
        return decimal
    # Levels of 8-bit pixels are never written in their lowest terms.
    lowest = value.denominator == 3 or 255 % value.denominator or not 0 < value < 1
    return f"{value.numerator}/{value.denominator}" if lowest else f"{value * 255}/255"
