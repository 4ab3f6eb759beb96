"""What stronger attacks break of what cells, and worst cases, have left: numbers that have not converged.

The cells of `OUTPUT/strengthened/` are attacks on survivors alone, so that none of them has a robust
accuracy: what they break is held against the number whose survivors they were given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.schemas import VICTIM_COLUMNS, Measured
from orchestrator.results.witnesses import bits, sized, unpacked
from workers.shards import DIMENSIONS
from workers.unit import label

STRENGTHENED = pa.schema(
    [
        *DIMENSIONS,  # of the cell; of a worst case, null as far as it is of several
        ("stronger", pa.string()),  # the attack on its survivors, by its label
        ("n", pa.int32()),
        ("survivors", pa.int32()),
        ("tried", pa.int32()),  # of the survivors: attacked again
        ("broken", pa.int32()),  # of those
        ("broken_at", pa.binary()),  # these by position, as of `results.witnesses`
    ]
)
"""One row for each cell or worst case and each stronger attack on its survivors."""

_BETWEEN = "~"  # in no id of a cell, victim or attack
_WORST_CASE = "worst_case"


def of_cell(cell_id: str, attack_id: str) -> str:
    """The id of an attack on the survivors of a cell."""
    return f"{cell_id}{_BETWEEN}{attack_id}"


def of_worst_case(point: str, attack_id: str) -> str:
    """The id of an attack on the survivors of a worst case, which `point` tells from others."""
    return f"{_WORST_CASE}{_BETWEEN}{point}{_BETWEEN}{attack_id}"


def source(stronger_id: str) -> str | None:
    """The cell whose survivors an id speaks of; None: those of a worst case."""
    first, _, rest = stronger_id.partition(_BETWEEN)
    return None if _BETWEEN in rest else first


@dataclass
class _Attack:
    """One stronger attack at one (victim, norm, epsilon), on whichever survivors."""

    attack_id: str
    label: str
    sources: set[str | None]
    attacked: NDArray[np.bool_]
    broken: NDArray[np.bool_]


def strengthened(wanted: pa.Table, measured: Measured, worst: pa.Table, stronger: pa.Table) -> pa.Table:
    """`STRENGTHENED`, from `schemas.WANTED`, `worst_case.WORST_CASES` and `schemas.STRONGER`.

    An attack is held against the number that it was meant for. If it has attacked all survivors, one that was
    meant for a worst case is held against cells too, and one that was meant for a cell against worst cases.
    """
    size = max([0, *wanted["examples"].to_pylist()])
    attacks = _attacks(stronger, size)
    if not attacks:
        return STRENGTHENED.empty_table()
    rows: list[dict[str, Any]] = []
    for number, survivors in (*_cells(wanted, measured, size), *_worst_cases(worst, size)):
        for attack in attacks[_point(number)] if survivors.any() else ():
            tried = survivors & attack.attacked
            meant = number["cell_id"] in attack.sources
            across = (number["cell_id"] is None or None in attack.sources) and (tried == survivors).all()
            if attack.attack_id == number["attack_id"] or not (meant or across):
                continue
            broken = tried & attack.broken
            rows.append(
                {
                    **{name: number[name] for name in DIMENSIONS.names},
                    "stronger": attack.label,
                    "n": number["n"],
                    "survivors": int(survivors.sum()),
                    "tried": int(tried.sum()),
                    "broken": int(broken.sum()),
                    "broken_at": bits(broken),
                }
            )
    return pa.Table.from_pylist(rows, schema=STRENGTHENED)


def _attacks(stronger: pa.Table, size: int) -> Mapping[tuple[str, str, float], Sequence[_Attack]]:
    """By victim, norm and epsilon; what one attack did for several numbers is put together."""
    found: dict[tuple[str, str, float], dict[str, _Attack]] = defaultdict(dict)
    for row in stronger.to_pylist():
        empty = (np.zeros(size, bool), np.zeros(size, bool))
        new = _Attack(row["attack_id"], label(row["attack"], row["attack_options"]), set(), *empty)
        attack = found[_point(row)].setdefault(row["attack_id"], new)
        attack.sources.add(source(row["cell_id"]))
        attack.attacked |= sized(unpacked(row["attacked_at"]), size)
        attack.broken |= sized(unpacked(row["broken_at"]), size)
    return defaultdict(tuple, {point: tuple(attacks.values()) for point, attacks in found.items()})


_Number = tuple[dict[str, Any], NDArray[np.bool_]]
"""A cell or a worst case: its `DIMENSIONS` and `n`, and which examples survive it."""


def _cells(wanted: pa.Table, measured: Measured, size: int) -> Iterator[_Number]:
    names = ("cell_id", "n", "right_at", "broken_at")
    known = {row["cell_id"]: row for row in measured.cells.select(names).to_pylist()}
    runs = measured.attacks.select(("victim_id", "attack_id", "targeted")).to_pylist()
    targeted = {(run["victim_id"], run["attack_id"]) for run in runs if run["targeted"]}
    for cell in wanted.to_pylist():
        row = known.get(cell["cell_id"])
        if row is None or not cell["adaptive"] or (cell["victim_id"], cell["attack_id"]) in targeted:
            continue
        survivors = sized(unpacked(row["right_at"]), size) & ~sized(unpacked(row["broken_at"]), size)
        yield {**cell, "n": row["n"]}, survivors


def _worst_cases(worst: pa.Table, size: int) -> Iterator[_Number]:
    for row in worst.to_pylist():
        said = {name: row[name] for name in (*VICTIM_COLUMNS, "norm", "epsilon", "n")}
        survivors = sized(unpacked(row["robust_at"]), size)
        yield {**dict.fromkeys(DIMENSIONS.names), **said, "adaptive": True}, survivors


def _point(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["victim_id"], row["norm"], row["epsilon"]


@dataclass(frozen=True)
class Change:
    """What stronger attacks together make of one number; an upper bound, tried on all survivors or not."""

    of: Mapping[str, Any]  # its `DIMENSIONS`
    n: int
    survivors: int
    broken: int
    tried: bool  # all survivors, by each of the attacks that have begun
    by: str  # the attacks that broke any, those that broke most first
    place: str = ""  # what it is of, in words

    @property
    def before(self) -> float:
        return self.survivors / self.n

    @property
    def after(self) -> float:
        return (self.survivors - self.broken) / self.n


def changes(
    rows: Iterable[Mapping[str, Any]], placed: Callable[[Mapping[str, Any]], str] = lambda of: ""
) -> Iterator[Change]:
    """One for each cell and worst case that rows of `STRENGTHENED` speak of, in their order; `placed` says
    what a row is of."""
    numbers: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        numbers.setdefault(tuple(row[name] for name in DIMENSIONS.names), []).append(row)
    for first, *others in numbers.values():
        found = sorted((first, *others), key=lambda row: -int(row["broken"]))
        broken = np.logical_or.reduce([unpacked(row["broken_at"]) for row in found])
        yield Change(
            {name: first[name] for name in DIMENSIONS.names},
            first["n"],
            first["survivors"],
            int(broken.sum()),
            all(row["tried"] == row["survivors"] for row in found),
            " and ".join(row["stronger"] for row in found if row["broken"]),
            placed(first),
        )
