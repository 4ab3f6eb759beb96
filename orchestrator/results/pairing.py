"""Two numbers held against each other on the same examples, and which is the best of several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.metrics import ROBUST_ACCURACY, WITH_TRANSFER
from orchestrator.results.query import Several
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, Place, RobustnessTable
from orchestrator.results.wilson import Z
from orchestrator.results.witnesses import unpacked
from orchestrator.results.worst_case import worst_cases
from workers.statistics import holm, mcnemar

ALPHA = 0.05
"""How often chance alone may make anything of all that is tested together better or worse."""


@dataclass(frozen=True)
class Outcome:
    """Which of the first examples of the evaluation order a victim still gets right under an attack."""

    robust: NDArray[np.bool_]
    data: str | None  # fingerprint of the dataset; None: not known


class Pair(NamedTuple):
    """How two outcomes differ on the examples that both have."""

    n: int
    first: int  # right under attack: in the first, in the second
    second: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """By which share of the examples the second is more robust."""
        return (self.only_second - self.only_first) / self.n

    @property
    def probability(self) -> float:
        """The exact two-sided McNemar test (McNemar, 1947; its exact form is a sign test)."""
        more, fewer = sorted((self.only_first, self.only_second), reverse=True)
        return min(1.0, 2 * mcnemar(more, fewer))

    @property
    def interval(self) -> tuple[float, float]:
        """95% of the difference, for the sampling of test images (Bonett and Price, 2012: Wald's interval
        with an example added to each of the four kinds of pairs that differ or not, two by two)."""
        gained, lost = (self.only_second + 1) / (self.n + 2), (self.only_first + 1) / (self.n + 2)
        half = Z * float(np.sqrt((gained + lost - (gained - lost) ** 2) / (self.n + 2)))
        low, high = gained - lost - half, gained - lost + half
        return max(-1.0, min(low, self.difference)), min(1.0, max(high, self.difference))


class _Outcomes(Mapping[Place, Outcome]):
    """Packed as they are read, each unpacked when it is asked for: of many cells, few may ever be paired."""

    def __init__(self) -> None:
        self._packed: dict[Place, tuple[bytes, bytes | None, int, str | None]] = {}
        self._unpacked: dict[Place, Outcome] = {}

    def add(self, place: Place, right: bytes, broken: bytes | None, examples: int, data: str | None) -> None:
        self._packed[place] = right, broken, examples, data

    def __getitem__(self, place: Place) -> Outcome:
        if (found := self._unpacked.get(place)) is None:
            right, broken, examples, data = self._packed[place]
            robust = unpacked(right) if broken is None else unpacked(right) & ~unpacked(broken)
            found = self._unpacked[place] = Outcome(robust[:examples], data)
        return found

    def __contains__(self, place: object) -> bool:
        return place in self._packed

    def __iter__(self) -> Iterator[Place]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def outcomes(results: Several) -> Mapping[Place, Outcome]:
    """Of every cell that has rows, and of every worst case; only that of one that is done says anything."""
    found = _Outcomes()
    for one in [results] if isinstance(results, Results) else results:
        cells, attacks = one.measured()
        names = ("cell_id", "seed", "victim_id", "examples")
        wanted = {
            cell: of for cell, *of in zip(*(one.wanted[name].to_pylist() for name in names), strict=True)
        }
        data = dict(zip(one.victims["victim_id"].to_pylist(), one.victims["data"].to_pylist(), strict=True))
        columns = (cells[name].to_pylist() for name in ("cell_id", "right_at", "broken_at"))
        for cell, right, broken in zip(*columns, strict=True):
            if (of := wanted.get(cell)) is None:
                continue
            seed, victim, examples = of
            found.add(Place(one.sweep, seed, cell), right, broken or b"", examples, data.get(victim))
        for case in worst_cases(one.wanted, one.coverage, attacks).to_pylist():
            place = Place(one.sweep, case["seed"], case["victim_id"], case["norm"], case["epsilon"])
            found.add(place, case["robust_at"], None, case["examples"], data.get(case["victim_id"]))
    return found


def pair(first: Outcome, second: Outcome) -> Pair:
    """On as many examples as both have: every prefix of the evaluation order is a sample of its own."""
    n = min(len(first.robust), len(second.robust))
    one, other = first.robust[:n], second.robust[:n]
    return Pair(n, int(one.sum()), int(other.sum()), int((one & ~other).sum()), int((other & ~one).sum()))


def same_data(first: Outcome, second: Outcome) -> bool:
    """Whether their examples may be paired, as far as fingerprints tell."""
    return None in (first.data, second.data) or first.data == second.data


def with_best(tables: Sequence[RobustnessTable], known: Mapping[Place, Outcome]) -> list[RobustnessTable]:
    """The tables, `Entry.best` set where there are several numbers of one attack at one epsilon.

    The best is better than every other on the same examples, with every training seed, by McNemar's test
    after Holm's correction (Holm, 1979) for all tests of its table. None is where one of them is a hole or
    wrong, where they are of other seeds, other data or, as worst cases may be, other attacks, and where a
    check calls the highest suspicious.
    """
    return [_with_best(table, known) if table.metric == ROBUST_ACCURACY else table for table in tables]


_Rivals = Mapping[int, Entry]
"""The numbers of one attack at one epsilon, by row."""


def _with_best(table: RobustnessTable, known: Mapping[Place, Outcome]) -> RobustnessTable:
    best: dict[tuple[int, int], bool] = {}  # by row and column
    tests: list[float] = []
    leaders: dict[tuple[int, int], range] = {}  # and which tests are theirs
    for column in range(len(table.epsilons)):
        for rivals in _contests(table, column):
            best |= {(row, column): False for row in rivals}
            leader = max(rivals, key=lambda row: rivals[row].value or 0.0)
            if found := _tests(leader, rivals, known):
                leaders[leader, column] = range(len(tests), len(tests) + len(found))
                tests += found
    sure = holm(tests, ALPHA)
    best |= {place: all(sure[i] for i in numbers) for place, numbers in leaders.items()}
    rows = (
        replace(
            row,
            entries=tuple(
                entry and replace(entry, best=best.get((i, column)))
                for column, entry in enumerate(row.entries)
            ),
        )
        for i, row in enumerate(table.rows)
    )
    return replace(table, rows=tuple(rows))


def _contests(table: RobustnessTable, column: int) -> list[_Rivals]:
    groups: dict[str, dict[int, Entry]] = defaultdict(dict)
    for i, row in enumerate(table.rows):
        # Every victim has others that images come from: no two of these are of the same attacks.
        if row.attack != WITH_TRANSFER and (entry := row.entries[column]) is not None:
            groups[row.attack_label][i] = entry
    return [rivals for rivals in groups.values() if len(rivals) > 1]


def _tests(leader: int, rivals: _Rivals, known: Mapping[Place, Outcome]) -> list[float]:
    """One test for each rival of the leader and each seed, that the leader is the better; none where they
    cannot be compared."""
    mine = rivals[leader]
    others = [rival for row, rival in rivals.items() if row != leader]
    if untold(mine, others, known):
        return []
    pairs = (one for rival in others for one in against(mine, rival, known))
    return [one.probability if one.difference > 0 else 1.0 for one in pairs]


def against(leader: Entry, rival: Entry, known: Mapping[Place, Outcome]) -> list[Pair]:
    """The rival first, the leader second, for each training seed."""
    places = {place.seed: place for place in leader.places}
    return [pair(known[place], known[places[place.seed]]) for place in rival.places]


def untold(leader: Entry, rivals: Sequence[Entry], known: Mapping[Place, Outcome]) -> str:
    """Why it cannot be told whether the highest of several numbers is the best; empty where it can."""
    places = {place.seed: place for place in leader.places}
    if leader.mark or any(rival.mark for rival in rivals):
        marks = dict.fromkeys(entry.mark for entry in (leader, *rivals) if entry.mark)
        return f"not all numbers are there ({', '.join(marks)})"
    if leader.verdict == "suspicious":
        return f"the highest is suspicious ({', '.join(leader.checks)})"
    for rival in rivals:
        if rival.attacks != leader.attacks:
            return "they are worst cases of other attacks"
        if sorted(place.seed for place in rival.places) != sorted(places):
            return "they have other training seeds"
        if not all(same_data(known[place], known[places[place.seed]]) for place in rival.places):
            return "their data are not the same"
    return ""
