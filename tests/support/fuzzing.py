"""Crafted files: what a valid one becomes when somebody changes it on purpose, or a disk does by chance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "50")),  # `make fuzz` has 2,000
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# What `json.dumps` cannot write, in place of which it writes a text.
_RAW = {
    "@deep@": "[" * 5_000 + "]" * 5_000,
    "@deep object@": '{"a":' * 3_000 + "1" + "}" * 3_000,
    "@digits@": "9" * 5_000,
    "@exponent@": "1e999",
}

TEXTS = (
    "",
    "../../escaped",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "\x1b]0;pwned\x07\x1b[2J",
    "‮txt.exe",
    "con",
    "x" * 3_000,
    "<script>alert(1)</script>",
    "'; DROP TABLE cells; --",
    "=1+1",
    "é",
    "2020-01-01T00:00:00",
)
NUMBERS = (
    *(0, 1, -1, 7, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40),
    *(0.0, -0.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
)

scalars = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.sampled_from((None, True, False)), st.integers()
)
wild = st.one_of(
    scalars,
    st.sampled_from((*_RAW, [], {}, [[]], [None], {"": 0}, [{}], {"a": {"b": []}})),
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(TEXTS), scalars, max_size=3),
)
"""Values of every kind, extreme ones first."""


@st.composite
def mutated(draw: st.DrawFn, valid: Any, *, values: st.SearchStrategy[Any] = wild, most: int = 3) -> Any:
    """A copy of JSON data with one to `most` of its values replaced, left out, doubled or moved."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, most))):
        value = _changed(draw, value, values)
    return value


def _changed(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any]) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return deepcopy(draw(values))
    keys = sorted(value) if isinstance(value, dict) else range(len(value))
    key: Any = draw(st.sampled_from(keys))
    if isinstance(value[key], dict | list) and value[key] and draw(st.booleans()):
        value[key] = _changed(draw, value[key], values)
        return value
    match draw(st.sampled_from(("replace", "replace", "remove", "swap", "add"))):
        case "replace":
            value[key] = deepcopy(draw(values))
        case "remove":
            del value[key]
        case "swap":
            other: Any = draw(st.sampled_from(keys))
            value[key], value[other] = value[other], value[key]
        case "add" if isinstance(value, dict):
            value[draw(st.sampled_from(TEXTS))] = deepcopy(draw(values))
        case _:
            value.insert(key, deepcopy(value[key]))
    return value


def dumped(value: Any) -> bytes:
    """As JSON, with what JSON itself has no values for."""
    text = json.dumps(value)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text.encode()


@st.composite
def documents(draw: st.DrawFn, valid: Mapping[str, Any]) -> bytes:
    """A JSON file: of changed data, with a key twice, or with other bytes."""
    kind = draw(st.sampled_from(("data", "data", "data", "data", "twice", "bytes")))
    if kind == "data":
        return dumped(draw(mutated(valid)))
    text = dumped(valid)
    if kind == "bytes":
        return draw(damaged(text))
    key = draw(st.sampled_from(sorted(valid)))
    return text.rstrip()[:-1] + b"," + dumped({key: draw(wild)})[1:]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of a file after something has happened to them: cut, flipped, blanked, doubled, swapped."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        size = len(found)
        if not size:
            break
        place = draw(st.integers(0, size - 1))
        if draw(st.booleans()):  # near the end, where Parquet's footer is
            place = max(0, size - 1 - place % 4_096)
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(("flip", "flip", "cut", "blank", "double", "swap", "insert", "head"))):
            case "flip":
                found[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del found[place:]
            case "head":
                del found[:place]
            case "blank":
                found[place : place + length] = bytes(len(found[place : place + length]))
            case "double":
                found[place:place] = found[place : place + length]
            case "swap":
                other = draw(st.integers(0, size - 1))
                found[place], found[other] = found[other], found[place]
            case "insert":
                found[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(found)


def changed(valid: bytes) -> st.SearchStrategy[bytes]:
    """What `damaged` makes of them, but for what is no change at all."""
    return damaged(valid).filter(lambda data: data != valid)
