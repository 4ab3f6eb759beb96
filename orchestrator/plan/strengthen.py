"""Stronger attacks on what a folder's cells, and its worst cases, have left: which, and on which examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.grid.entries import AttackEntry, Grid
from orchestrator.plan.cells import AttackCells, Cell, VictimCells, attack_spec, expand, short_hash
from orchestrator.results.strengthened import of_cell, of_worst_case, source
from orchestrator.results.witnesses import unpacked
from workers.attacks import REGISTRY, Standard
from workers.norms import NormName
from workers.unit import AttackSpec, VictimSpec

Row = Mapping[str, Any]
"""Of the view `cells` with `right_at` and `broken_at`, or of `worst_case` with `robust_at`."""

NOT_OF_GRID = "that the grid does not have as they are here"

_DOUBLED = ("steps", "queries")


@dataclass
class Strengthening:
    """What would be attacked again, and why the rest would not."""

    victims: list[VictimCells] = field(default_factory=list)
    selected: list[VictimCells] = field(default_factory=list)
    attacked: dict[str, tuple[int, ...]] = field(default_factory=dict)  # cell id -> positions, ascending
    examples: dict[str, int] = field(default_factory=dict)  # by dataset name
    left_out: Counter[str] = field(default_factory=Counter)  # why -> cells


def stronger(entry: AttackEntry) -> AttackEntry | None:
    """The same attack with twice the steps or queries and one restart more; None: it has no such options."""
    options = entry.options
    more = {key: 2 * options[key] for key in _DOUBLED if _whole(options.get(key))}
    # Without a random start a restart would repeat the first.
    if _whole(options.get("restarts")) and options.get("random_start", True):
        more["restarts"] = options["restarts"] + 1
    return _with(entry, {**options, **more}) if more else None


def standard(norm: NormName, options: Mapping[str, Any]) -> AttackEntry:
    """The bundle, with these options beside its defaults."""
    made = asdict(Standard(norm=norm, **options))
    entry = AttackEntry(
        name=Standard.name,
        norm=norm,
        identity={"version": Standard.VERSION},
        options={},
        given={},
        randomised=Standard.randomised,
        epsilons={},
    )
    return _with(entry, {key: value for key, value in made.items() if key != "norm"})


def _with(entry: AttackEntry, options: Mapping[str, Any]) -> AttackEntry:
    defaults = {} if entry.factory else asdict(REGISTRY[entry.name]())
    given = {key: value for key, value in options.items() if key not in defaults or value != defaults[key]}
    return entry.model_copy(update={"options": dict(options), "given": given})


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def strengthen(
    grid: Grid,
    cells: Sequence[Row],
    worst_cases: Sequence[Row],
    *,
    pinned: Collection[str],
    bundle: Mapping[str, int] | None,
    only: Collection[str] | None = None,
) -> Strengthening:
    """Each done cell's attack, stronger, on what it has left; and `standard` on what each worst case has.

    Targeted and oblivious cells, those at epsilon 0 and those that a check calls wrong are left out, and
    victims that are not `pinned`. `bundle` has the options of `standard`; None: do without. `only` are the
    cells, by id, that are to be selected, and the worst cases that they are part of.
    """
    found = Strengthening()
    rows = {row["cell_id"]: row for row in cells}
    points: dict[str, list[Row]] = defaultdict(list)
    for row in worst_cases:
        points[row["victim_id"]].append(row)
    entries = {attack_spec(entry, attack_seed=grid.attack_seed)[0].attack_id: entry for entry in grid.attacks}
    planned: set[str] = set()
    for victim, runs in expand(grid):
        planned.update(cell.cell_id for run in runs for cell in run.cells)
        if victim.victim_id not in pinned:
            lost = sum(cell.cell_id in rows for run in runs for cell in run.cells)
            found.left_out.update({"of a victim without results": lost} if lost else {})
            continue
        again: list[AttackCells] = []
        for run in runs:
            left = {cell: survivors for cell in run.cells if (survivors := _survivors(cell, rows, found))}
            if left and (entry := stronger(entries[run.attack.attack_id])):
                spec, _ = attack_spec(entry, attack_seed=grid.attack_seed)
                again.append(_on_cells(spec, left, rows, found))
            elif left:
                found.left_out["of an attack without steps, queries or restarts"] += len(left)
        if bundle is not None:
            exact = {cell.epsilon: cell.exact for run in runs for cell in run.cells}
            again += _on_worst_cases(grid, victim, points[victim.victim_id], cells, bundle, exact, found)
        if again:
            found.victims.append(VictimCells(victim, tuple(again)))
            most = max(row["examples"] for row in cells if row["victim_id"] == victim.victim_id)
            name = victim.dataset.name
            found.examples[name] = max(most, found.examples.get(name, 0))
    if strangers := len(rows.keys() - planned):
        found.left_out[NOT_OF_GRID] = strangers
    found.selected = found.victims if only is None else list(_selected(found.victims, rows, only))
    return found


def _survivors(cell: Cell, rows: Mapping[str, Row], found: Strengthening) -> tuple[int, ...]:
    """The positions at which a cell has left something to break; where it is not to be tried, it says why."""
    row = rows.get(cell.cell_id)
    if row is None or cell.epsilon == 0:
        return ()
    why = {
        "not done": row["status"] != "done",
        "targeted": row["targeted"],
        "oblivious": not row["adaptive"],
        "wrong by a check": row["verdict"] == "wrong",
    }
    if reasons := [reason for reason, holds in why.items() if holds]:
        found.left_out[reasons[0]] += 1
        return ()
    right, broken = unpacked(row["right_at"]), unpacked(row["broken_at"])
    return _positions(right & ~broken)


def _positions(at: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(at).tolist())


def _on_cells(
    attack: AttackSpec,
    left: Mapping[Cell, tuple[int, ...]],
    rows: Mapping[str, Row],
    found: Strengthening,
) -> AttackCells:
    every = tuple(sorted(set().union(*left.values())))
    again = []
    for cell, survivors in left.items():
        new = cell._replace(cell_id=of_cell(cell.cell_id, attack.attack_id))
        # One search for the nearest image serves all epsilons.
        found.attacked[new.cell_id] = every if rows[cell.cell_id]["minimum_norm"] else survivors
        again.append(new)
    return AttackCells(attack, tuple(again))


def _on_worst_cases(
    grid: Grid,
    victim: VictimSpec,
    points: Sequence[Row],
    cells: Sequence[Row],
    bundle: Mapping[str, int],
    exact: Mapping[float, Fraction],
    found: Strengthening,
) -> Iterator[AttackCells]:
    """The bundle, by norm, on what the worst cases of a victim have left, unless the grid has run it."""
    by_norm: dict[NormName, list[Row]] = defaultdict(list)
    for point in points:
        by_norm[point["norm"]].append(point)
    for norm, here in by_norm.items():
        attack, _ = attack_spec(standard(norm, bundle), attack_seed=grid.attack_seed)
        own = [row for row in cells if (row["victim_id"], row["norm"]) == (victim.victim_id, norm)]
        searched = [row for row in own if row["adaptive"] and not row["targeted"]]
        # What survives depends on all of them: with another attack in the grid it is another worst case.
        stand_on = short_hash(",".join(sorted(row["cell_id"] for row in searched)), 8)
        ran = {row["epsilon"] for row in searched if row["attack_id"] == attack.attack_id}
        again = []
        for point in here:
            epsilon = point["epsilon"]
            if epsilon == 0 or epsilon in ran or not point["complete"] or point["verdict"] == "wrong":
                continue
            if survivors := _positions(unpacked(point["robust_at"])):
                name = f"{victim.victim_id}-{norm}-{epsilon:.6g}-{stand_on}"
                cell_id = of_worst_case(name, attack.attack_id)
                again.append(Cell(cell_id, epsilon, exact.get(epsilon, Fraction(epsilon))))
                found.attacked[cell_id] = survivors
        if again:
            yield AttackCells(attack, tuple(again))


def _selected(
    victims: Sequence[VictimCells], rows: Mapping[str, Row], only: Collection[str]
) -> Iterator[VictimCells]:
    points = {
        (row["victim_id"], row["norm"], row["epsilon"]) for cell_id, row in rows.items() if cell_id in only
    }
    for victim, runs in victims:
        kept = []
        for run in runs:
            cells = tuple(
                cell
                for cell in run.cells
                if (one := source(cell.cell_id)) in only
                or (one is None and (victim.victim_id, run.attack.norm, cell.epsilon) in points)
            )
            if cells:
                kept.append(AttackCells(run.attack, cells))
        if kept:
            yield VictimCells(victim, tuple(kept))
