"""Robust accuracy at any epsilon: the steps that distances of nearest adversarial images make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.measured import UNATTACKED
from orchestrator.results.schemas import Results
from orchestrator.results.wilson import wilson

Distances = Mapping[tuple[str, str, str], NDArray[np.float64]]
"""Sweep, victim id and attack id -> by position (P,): the distance of its nearest adversarial image; infinite
where none was found, 0 where the victim is wrong without any, NaN where it was not looked for."""


class Steps(NamedTuple):
    """A share that falls at each of some distances, (S,): `share[i]` from `at[i]` on, with its interval."""

    at: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sd: NDArray[np.float64] | None = None  # sample standard deviation over victims, where they are several


def steps(nearest: Sequence[NDArray[np.float64]]) -> Steps:
    """The share of examples whose nearest adversarial image is farther than x, for every x from 0 on; its
    mean over victims, of each of which there are distances (N,)."""
    at = np.unique(np.concatenate([[0.0], *(one[np.isfinite(one)] for one in nearest)]))
    parts = []
    for one in nearest:
        left = len(one) - np.searchsorted(np.sort(one), at, side="right")
        low, high = wilson(left, len(one))
        parts.append(np.stack([left / len(one), low, high]))
    share, low, high = np.mean(parts, axis=0)
    sd = np.std([part[0] for part in parts], axis=0, ddof=1) if len(parts) > 1 else None
    return Steps(at, share, low, high, sd)


def distances_of(results: Sequence[Results]) -> Distances:
    """Of every attack on every victim, from what its rows came to."""
    found: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    for one in results:
        attacks = one.measured().attacks
        closest = attacks["closest"].combine_chunks()
        values, offsets = closest.values.to_numpy(zero_copy_only=False), closest.offsets.to_numpy()
        ids = zip(*(attacks[name].to_pylist() for name in ("victim_id", "attack_id")), strict=True)
        for i, (victim, attack) in enumerate(ids):
            own = values[offsets[i] : offsets[i + 1]].astype(np.float64)
            found[one.sweep, victim, attack] = np.where(own == UNATTACKED, 0.0, own)
    return found


def nearest_of(cells: Iterable[Mapping[str, Any]], distances: Distances) -> list[NDArray[np.float64]]:
    """The distances (N,) of each victim that some cells (rows of the view `cells`) of a minimum-norm attack
    are of: once, however many epsilons it is attacked at, and of the examples that are wanted. None at all
    where not every example was looked at."""
    wanted = {(cell["sweep"], cell["victim_id"], cell["attack_id"]): cell["examples"] for cell in cells}
    found = [distances.get(key, np.empty(0))[:examples] for key, examples in wanted.items()]
    whole = all(
        len(one) == examples and not np.isnan(one).any()
        for one, examples in zip(found, wanted.values(), strict=True)
    )
    return found if whole else []
