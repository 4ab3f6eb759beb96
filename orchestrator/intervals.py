"""Intervals [start, stop) of positions in the evaluation order, in lists that are sorted and disjoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Interval = tuple[int, int]


def subtract(intervals: Iterable[Interval], covered: Iterable[Interval]) -> list[Interval]:
    """What of `intervals` no interval of `covered` holds."""
    left = list(intervals)
    for a, b in covered:
        left = [
            part
            for start, stop in left
            for part in ((start, min(stop, a)), (max(start, b), stop))
            if part[0] < part[1]
        ]
    return left


def add(intervals: Sequence[Interval], start: int, stop: int) -> list[Interval]:
    """`intervals` with [start, stop) added and touching ones merged."""
    before = [one for one in intervals if one[1] < start]
    after = [one for one in intervals if one[0] > stop]
    touching = [one for one in intervals if one[1] >= start and one[0] <= stop]
    return [
        *before,
        (min([start, *(a for a, _ in touching)]), max([stop, *(b for _, b in touching)])),
        *after,
    ]
