"""Values of records that somebody else may have written: taken for what they should be, or not at all.

Each raises ValueError, or TypeError, for anything else, however far from it.
"""

from __future__ import annotations

import json
import math
from typing import Any

LARGEST = 2**31 - 1
"""Of a count: what the columns of our tables hold."""


def as_json(data: bytes | str) -> Any:
    """What JSON holds. ValueError also for what is nested so deeply that Python cannot follow, and for halves
    of characters, which no file or table takes."""
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)}, where a text is needed")
    return value


def as_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"{_shown(value)}, where a whole number, 0 to {LARGEST}, is needed")
    return value


def as_size(value: Any) -> int:
    """Bytes of a file, or its time in ns since the epoch."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{_shown(value)}, where a size is needed")
    return value


def as_number(value: Any) -> float:
    """A finite number."""
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond all floats
        pass
    raise ValueError(f"{_shown(value)}, where a number is needed")


def as_seconds(value: Any) -> float:
    if (seconds := as_number(value)) < 0:
        raise ValueError(f"{_shown(value)} seconds")
    return seconds


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{_shown(value)}, where a list is needed")
    return value


def _shown(value: Any) -> str:
    """Short, and without calling itself for what is in it."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**40 else "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
