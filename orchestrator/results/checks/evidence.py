"""What rules look at: the cells of a folder with the examples that each broke, and its victims' figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.certified import radii_of
from orchestrator.results.checks.rule import Place
from orchestrator.results.placed import Placed
from orchestrator.results.schemas import Results
from orchestrator.results.witnesses import sized, unpacked
from workers.statistics import holm, mcnemar

ALPHA = 0.01
"""How often a rule may fire by chance in a whole folder where nothing is wrong."""

SINGLE_STEP = ("fgsm",)
AT_RANDOM = ("noise",)
FROM_ELSEWHERE = ("stored",)

_OF_VICTIM = ("victim_id", "model", "model_options", "dataset", "defence", "seed")
_OF_ATTACK = (*_OF_VICTIM, "attack_id", "attack", "attack_options", "norm", "adaptive")
_OF_CELL = (*_OF_ATTACK, "cell_id", "epsilon")


@dataclass(slots=True)
class Kind:
    """How an attack on a victim went about it, as all its cells show together: calls may be shared."""

    name: str
    called: str  # what people read of it
    forward_calls: int = 0
    gradient_calls: int = 0

    @property
    def white_box(self) -> bool:
        return self.gradient_calls > 0

    @property
    def iterative(self) -> bool:
        """A search by gradients, which more than one step is needed for."""
        return self.white_box and self.name not in SINGLE_STEP

    @property
    def black_box(self) -> bool:
        """A search that asks for answers only; random noise is no search."""
        asked = self.forward_calls > 0 and not self.white_box
        return asked and self.name not in (*AT_RANDOM, *FROM_ELSEWHERE)


class Cell:
    """A cell that has rows, as the view `cells` shows it, and which examples its attack broke.

    The columns of the view are attributes.
    """

    def __init__(self, values: Mapping[str, Any], kind: Kind) -> None:
        vars(self).update(values)
        self.values, self.kind = values, kind

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """The examples that the victim gets right, by position."""
        return unpacked(self.right_at)

    @cached_property
    def broken(self) -> NDArray[np.bool_]:
        """Those that the attack broke."""
        return unpacked(self.broken_at)

    @property
    def done(self) -> bool:
        return bool(self.status == "done")

    @property
    def named(self) -> str:
        """The attack as people read of it: its label, or its name with its options."""
        return self.kind.called

    @property
    def searched(self) -> bool:
        """Whether it may be held against other cells: gradients of the victim itself, any wrong class."""
        return bool(self.adaptive) and not self.targeted

    @property
    def place(self) -> Place:
        return self._place(_OF_CELL)

    @property
    def of_attack(self) -> Place:
        return self._place(_OF_ATTACK)

    @property
    def of_victim(self) -> Place:
        return self._place(_OF_VICTIM)

    def _place(self, names: tuple[str, ...]) -> Place:
        return Place(**{name: self.values[name] for name in names})


@dataclass(frozen=True)
class Pair:
    """How two cells compare on the examples that both have, and that the victim gets right."""

    one: Cell
    other: Cell
    n: int
    only_one: int  # examples that only the first breaks
    only_other: int

    @classmethod
    def of(cls, one: Cell, other: Cell) -> Pair:
        both = _common(one.right, other.right)
        first, second = one.broken[: len(both)] & both, other.broken[: len(both)] & both
        shared, broken = int(np.count_nonzero(both)), int(np.count_nonzero(first & second))
        only_one, only_other = (int(np.count_nonzero(each)) - broken for each in (first, second))
        return cls(one, other, shared, only_one, only_other)

    @property
    def gain(self) -> float:
        """By which share of the examples the first breaks more."""
        return (self.only_one - self.only_other) / self.n if self.n else 0.0


def most_ahead(cells: Sequence[Cell]) -> Iterator[Pair]:
    """Each cell but the first as the other one of a pair with the cell before it that gains most on it, the
    earliest such."""
    size = max(len(cell.right) for cell in cells)
    # Counts of examples by matrix products: a float counts them exactly up to 2^53.
    right = np.array([sized(cell.right, size) for cell in cells], np.float64)
    broken = right * [sized(cell.broken, size) for cell in cells]
    n, both = right @ right.T, broken @ broken.T
    alone = broken @ right.T - both  # broken by the cell of the row and not by that of the column
    gain = (alone - alone.T) / np.maximum(n, 1)
    for i in range(1, len(cells)):
        best = int(gain[:i, i].argmax())
        counts = (int(each) for each in (n[best, i], alone[best, i], alone[i, best]))
        yield Pair(cells[best], cells[i], *counts)


def clearly_ahead(pairs: Sequence[Pair], least: float) -> Iterator[Pair]:
    """The pairs whose first breaks a share of more than `least` more, and not by chance in any of them."""
    significant = holm([mcnemar(pair.only_one, pair.only_other) for pair in pairs], ALPHA)
    for pair, sure in zip(pairs, significant, strict=True):
        if sure and pair.gain > least:
            yield pair


@dataclass(frozen=True)
class Certificates:
    """How far the answers of a smoothed victim are certified to be right, position by position."""

    victim_id: str
    radii: NDArray[np.float64]  # as of `results.certified.radii_of`
    sigma: float
    alpha: float


@dataclass(frozen=True)
class Evidence:
    """What a folder holds, as rules need it."""

    wanted: list[dict[str, Any]] = field(
        default_factory=list
    )  # the view `cells`, all of it, its witnesses too
    tried: list[dict[str, Any]] = field(default_factory=list)  # the view `transfer`, likewise
    victims: list[dict[str, Any]] = field(default_factory=list)  # `results.schemas.VICTIMS`
    figures: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # victim id -> figure -> value, no nulls
    certificates: list[Certificates] = field(default_factory=list)
    coverage: pa.Table | None = None  # `results.schemas.COVERAGE`, of the wanted cells
    worst_cases: list[dict[str, Any]] = field(default_factory=list)  # the view `worst_case`, all of it
    strengthened: list[dict[str, Any]] = field(default_factory=list)  # `results.strengthened.STRENGTHENED`

    @cached_property
    def cells(self) -> list[Cell]:
        """Those that have rows."""
        return [Cell(values, self._kinds[_run(values)]) for values in self.wanted if values["n"]]

    @cached_property
    def flagged(self) -> list[Cell]:
        """Those of `cells` that carry any flag."""
        return [cell for cell in self.cells if cell.flags]

    @cached_property
    def transfers(self) -> list[Cell]:
        """Those of images made against other victims that have rows: no attack on the victim itself."""
        return [
            Cell(values, Kind(values["attack"], self.placed.attack(values)))
            for values in self.tried
            if values["n"]
        ]

    @cached_property
    def placed(self) -> Placed:
        """What people read of victims and attacks."""
        return Placed(self.wanted)

    @cached_property
    def _kinds(self) -> dict[tuple[str, str], Kind]:
        kinds: dict[tuple[str, str], Kind] = {}
        for values in self.wanted:
            if (kind := kinds.get(_run(values))) is None:
                kind = kinds[_run(values)] = Kind(values["attack"], self.placed.attack(values))
            kind.forward_calls += values["forward_calls"] or 0
            kind.gradient_calls += values["gradient_calls"] or 0
        return kinds

    @cached_property
    def runs(self) -> list[list[Cell]]:
        """The cells of each attack on each victim, ascending in epsilon."""
        found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            found[_run(cell.values)].append(cell)
        return [sorted(cells, key=lambda cell: cell.values["epsilon"]) for cells in found.values()]

    @cached_property
    def points(self) -> list[list[Cell]]:
        """The cells that may be held against each other: of one victim, norm and epsilon above 0."""
        found: dict[tuple[str, str, float], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            if cell.searched and cell.epsilon > 0:
                found[cell.victim_id, cell.norm, cell.epsilon].append(cell)
        return list(found.values())

    def trained(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Every victim: what it is, and its row."""
        for victim in self.victims:
            yield Place(**{name: victim[name] for name in _OF_VICTIM}), victim

    def probed(self) -> Iterator[tuple[Place, dict[str, float]]]:
        """Every victim that has figures: what it is, and those that could be measured."""
        for place, victim in self.trained():
            if figures := self.figures.get(victim["victim_id"]):
                yield place, figures


def gather(results: Results, tables: Mapping[str, pa.Table]) -> Evidence:
    """The evidence in a folder, from what views stand on (`results.query`) and those of `views.EVIDENCE`."""
    figures: dict[str, dict[str, float]] = defaultdict(dict)
    for row in results.probes.to_pylist():
        if row["value"] is not None:
            figures[row["victim_id"]][row["figure"]] = row["value"]
    wanted = results.wanted
    victims = set(wanted["victim_id"].to_pylist())
    measured = {row.pop("cell_id"): row for row in tables["measured"].select(_MEASURED).to_pylist()}
    nothing = dict.fromkeys(_MEASURED[1:])
    cells, tried = (
        [{**cell, **measured.get(cell["cell_id"], nothing)} for cell in tables[view].to_pylist()]
        for view in ("cells", "transfer")
    )
    return Evidence(
        wanted=cells,
        tried=tried,
        victims=[victim for victim in results.victims.to_pylist() if victim["victim_id"] in victims],
        figures=dict(figures),
        certificates=_certificates(results),
        coverage=results.coverage.filter(pc.is_in(results.coverage["cell_id"], value_set=wanted["cell_id"])),
        worst_cases=tables["worst_case"].to_pylist(),
        strengthened=tables["strengthened"].to_pylist(),
    )


_MEASURED = (
    *("cell_id", "correct", "robust", "successes", "touched", "right_at", "broken_at"),
    *("contradicted", "misplaced"),
)


def _certificates(results: Results) -> list[Certificates]:
    radii = radii_of(results)
    return [
        Certificates(cell["victim_id"], radii[cell["cell_id"]], cell["sigma"], cell["alpha"])
        for cell in results.certificates.to_pylist()
    ]


def _run(values: Mapping[str, Any]) -> tuple[str, str]:
    return values["victim_id"], values["attack_id"]


def _common(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    length = min(len(one), len(other))
    return one[:length] & other[:length]
