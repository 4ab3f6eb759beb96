"""What no attack of a norm breaks, example by example: from what each attack came to, not from rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.measured import UNATTACKED
from orchestrator.results.schemas import VICTIM_COLUMNS, WANTED
from orchestrator.results.witnesses import bits
from workers import metrics
from workers.unit import label

WORST_CASES = pa.schema(
    [
        *(WANTED.field(name) for name in (*VICTIM_COLUMNS, "norm", "epsilon")),
        ("attacks", pa.list_(pa.string())),  # that cover the epsilon and have results, by their labels
        ("n", pa.int32()),  # examples that all of these cover
        ("examples", pa.int32()),  # wanted
        ("robust", pa.int32()),  # of the n: answered rightly, and not broken
        ("complete", pa.bool_()),
        ("robust_at", pa.binary()),  # the robust ones by position, as of `results.witnesses`
        # Of the robust, those that no image which was made against another victim breaks either; null where
        # no untargeted transfer to the victim is wanted at epsilon, or until all of those are done.
        ("robust_with_transfer", pa.int32()),
    ]
)
"""One row for each victim, norm and epsilon that an adaptive, untargeted attack is wanted at."""

_NAMING = (*(*VICTIM_COLUMNS, "attack_id", "attack", "attack_options", "norm", "targeted", "minimum_norm"),)


@dataclass(frozen=True, slots=True)
class Search:
    """An adaptive, untargeted attack on a victim."""

    attack_id: str
    label: str
    minimum_norm: bool
    cells: Mapping[float, str]  # epsilon -> cell id
    closest: NDArray[np.float32] | None  # as in `ATTACKS`, (P,); None without rows

    def covered(self, epsilon: float, positions: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
        """The positions (P,) at which it has looked for images within epsilon; None if it never will."""
        if self.minimum_norm:  # looks for the nearest image, whatever the epsilons
            size = len(next(iter(positions.values())))
            return np.zeros(size, bool) if self.closest is None else ~np.isnan(self.closest)
        return positions[self.cells[epsilon]] if epsilon in self.cells else None


def worst_cases(
    wanted: pa.Table, coverage: pa.Table, attacks: pa.Table, transfers: pa.Table | None = None
) -> pa.Table:
    """`WORST_CASES`, from `schemas.WANTED`, `schemas.COVERAGE` and `measured.ATTACKS`; `transfers` as
    `wanted`.

    An example is broken at epsilon where any cell of those attacks, at whatever epsilon, has an adversarial
    image at a measured distance within epsilon. A fixed-budget attack covers the epsilons at which it is
    wanted, a minimum-norm attack all of them; complete is what all that are to cover the epsilon have done.

    Images from other victims have no part in that: which others there are differs from victim to victim, and
    victims are ranked on identical attacks only. What they break beyond is a number of its own.
    """
    covered: dict[str, list[tuple[int, int]]] = {}
    for cell, start, stop in _columns(coverage, "cell_id", "start", "stop"):
        covered.setdefault(cell, []).append((start, stop))
    from_others: dict[tuple[str, str], list[Search]] = {}
    for victim, _, found in searches(WANTED.empty_table() if transfers is None else transfers, attacks):
        from_others[victim["victim_id"], victim["norm"]] = found
    rows = [
        {**victim, **row}
        for victim, examples, found in searches(wanted, attacks)
        for row in _by_epsilon(
            found, examples, covered, from_others.get((victim["victim_id"], victim["norm"]), ())
        )
    ]
    return pa.Table.from_pylist(rows, schema=WORST_CASES)


def searches(wanted: pa.Table, attacks: pa.Table) -> Iterator[tuple[dict[str, Any], int, list[Search]]]:
    """Each victim and norm, how many examples are wanted of it, and its attacks that count."""
    closest = attacks["closest"].combine_chunks()
    values, offsets = closest.values.to_numpy(), closest.offsets.to_numpy()
    said = _columns(attacks, "victim_id", "attack_id", "targeted", "minimum_norm")
    measured = {
        (victim, attack): (targeted, minimum, values[offsets[i] : offsets[i + 1]])
        for i, (victim, attack, targeted, minimum) in enumerate(said)
    }
    adaptive = wanted.filter(wanted["adaptive"])
    # Cells may be many times as many as attacks on victims: their own columns are gone through, no more.
    cells: dict[tuple[str, str, str], dict[float, str]] = {}
    wanted_of: dict[tuple[str, str], int] = {}
    firsts: list[int] = []
    own = _columns(adaptive, "victim_id", "norm", "attack_id", "epsilon", "cell_id", "examples")
    for i, (victim, norm, attack, epsilon, cell, examples) in enumerate(own):
        if (victim, norm, attack) not in cells:
            cells[victim, norm, attack] = {}
            firsts.append(i)
        cells[victim, norm, attack][epsilon] = cell
        wanted_of[victim, norm] = min(examples, wanted_of.get((victim, norm), examples))
    groups: dict[tuple[str, str], list[Search]] = {}
    of: dict[tuple[str, str], dict[str, Any]] = {}
    for first in adaptive.select(_NAMING).take(pa.array(firsts, pa.int64())).to_pylist():
        place = first["victim_id"], first["norm"]
        attack = first["attack_id"]
        targeted, minimum, distances = measured.get((first["victim_id"], attack), (None, None, None))
        # What was measured goes before what the attack says of itself.
        if first["targeted"] if targeted is None else targeted:
            continue
        of.setdefault(place, {name: first[name] for name in (*VICTIM_COLUMNS, "norm")})
        groups.setdefault(place, []).append(
            Search(
                attack,
                label(first["attack"], first["attack_options"]),
                bool(first["minimum_norm"] if minimum is None else minimum),
                cells[*place, attack],
                distances,
            )
        )
    for place, found in groups.items():
        yield of[place], wanted_of[place], found


def _by_epsilon(
    attacks: Sequence[Search],
    examples: int,
    covered: Mapping[str, Sequence[tuple[int, int]]],
    from_others: Sequence[Search],
) -> Iterator[dict[str, Any]]:
    positions = {}
    for cell in {cell for attack in (*attacks, *from_others) for cell in attack.cells.values()}:
        positions[cell] = np.zeros(examples, bool)
        for start, stop in covered.get(cell, ()):
            positions[cell][start:stop] = True
    closest, transferred = (_closest(some, examples) for some in (attacks, from_others))
    for epsilon in sorted({epsilon for attack in attacks for epsilon in attack.cells}):
        looked = [
            (attack, at) for attack in attacks if (at := attack.covered(epsilon, positions)) is not None
        ]
        begun = [(attack, at[:examples]) for attack, at in looked if at[:examples].any()]
        there = np.logical_and.reduce([at for _, at in begun]) if begun else np.zeros(examples, bool)
        # At 0 only the clean image is allowed, however near another may be.
        broken = metrics.within(closest, epsilon) & (epsilon > 0)
        robust = there & (closest != UNATTACKED) & ~broken
        n = int(there.sum())
        tried = [
            at[:examples] for attack in from_others if (at := attack.covered(epsilon, positions)) is not None
        ]
        left = robust & ~metrics.within(transferred, epsilon)
        yield {
            "epsilon": epsilon,
            "attacks": sorted({attack.label for attack, _ in begun}),
            "n": n,
            "examples": examples,
            "robust": int(robust.sum()),
            "complete": n == examples and len(begun) == len(looked),
            "robust_at": bits(robust),
            "robust_with_transfer": int(left.sum()) if tried and np.all(tried) else None,
        }


def _closest(attacks: Sequence[Search], examples: int) -> NDArray[np.float32]:
    """The distance of the closest image that any of them has, (P,)."""
    known = [attack.closest[:examples] for attack in attacks if attack.closest is not None]
    found: NDArray[np.float32] = np.fmin.reduce([np.full(examples, np.nan, np.float32), *known])
    return found


def _columns(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)
