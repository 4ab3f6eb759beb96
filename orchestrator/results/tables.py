"""What a sweep found, as tables: one row per cell, and robust accuracy against epsilon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.checks import RULES
from orchestrator.results.query import connect
from orchestrator.results.schemas import Results
from workers.flags import Flag
from workers.unit import label


def cells_table(results: Results) -> pa.Table:
    """The `cells` view (see `orchestrator.results.views.CELLS`) as a table, its rows in the grid's order:
    model, dataset, defence, seed, attack, as the grid lists them, then epsilon, ascending."""
    with connect(results) as connection:
        return in_grid_order(connection.sql("FROM cells").to_arrow_table(), results)


def in_grid_order(cells: pa.Table, results: Results) -> pa.Table:
    """The rows of `cells` in the order in which the grid asks for them."""
    return cells.take(pc.sort_indices(pc.index_in(cells["cell_id"], value_set=results.wanted["cell_id"])))


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a robustness table: robust accuracy at one epsilon, over all training seeds.

    `value` is the mean over seeds, `sd` the sample standard deviation (null with one seed); `low` and `high`
    are the ends of the 95% Wilson interval, averaged over seeds: they speak of the test sampling only. Where
    any seed's cell is not done, the entry is a hole; where a check calls one wrong, there is no number to
    show: all of these are None, and `mark` says why.
    """

    status: str  # done, partial, failed or missing
    value: float | None  # a share in [0, 1]
    low: float | None
    high: float | None
    sd: float | None
    n: int  # examples evaluated and wanted, summed over seeds
    examples: int
    seeds: int
    unchecked: float | None = None  # the mean over seeds also where it is wrong
    verdict: str | None = None  # the gravest of its cells'
    checks: tuple[str, ...] = ()  # the rules that any of its cells breaks, the gravest first

    @property
    def mark(self) -> str:
        """Why there is no number: `missing`, `partial 120/500`, `failed` or `wrong`; empty where there is
        one."""
        if self.status == "done":
            return "wrong" if self.verdict == "wrong" else ""
        return f"partial {self.n}/{self.examples}" if self.status == "partial" else self.status


@dataclass(frozen=True, slots=True)
class Row:
    """One model under one attack; `entries` run along the table's epsilons, None where none was wanted."""

    model: str
    model_options: str
    defence: str
    attack: str
    attack_options: str
    adaptive: bool
    clean_accuracy: float | None  # mean over seeds; None until each seed has a cell that is done
    clean_sd: float | None
    entries: tuple[Entry | None, ...]
    flags: tuple[str, ...]  # those that any of its cells carries, or its victim
    checks: tuple[str, ...] = ()  # the rules that any of its cells breaks, the gravest first

    @property
    def model_label(self) -> str:
        return label(self.model, self.model_options)

    @property
    def attack_label(self) -> str:
        """Marked "(oblivious)" where gradients were not those of the defended victim: it flatters."""
        return label(self.attack, self.attack_options) + ("" if self.adaptive else " (oblivious)")


@dataclass(frozen=True, slots=True)
class RobustnessTable:
    """Robust accuracy on one dataset in one norm; `epsilons` ascend, on the [0, 1] scale."""

    dataset: str
    norm: str
    epsilons: tuple[float, ...]
    rows: tuple[Row, ...]


def robustness_tables(cells: pa.Table) -> list[RobustnessTable]:
    """Pivot the cells (of `cells_table`) into one table for each (dataset, norm).

    Datasets, their norms, and the models, defences and attacks in rows come in the order of the cells.

    Only training seeds are averaged. Victims that share model, defence and seed but differ otherwise
    (a recipe, an option of the defence) get rows of their own, told apart by the end of their id.
    """
    records = cells.to_pylist()
    same_seed = defaultdict(set)
    for cell in records:
        same_seed[_victim_key(cell), cell["seed"]].add(cell["victim_id"])
    ambiguous = {key for (key, _), victims in same_seed.items() if len(victims) > 1}

    tables: dict[tuple[str, str], dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    for cell in records:
        victim = cell["victim_id"] if _victim_key(cell) in ambiguous else ""
        defence = f"{cell['defence']} [{victim[-6:]}]" if victim else cell["defence"]
        row = (
            *(cell["model"], cell["model_options"], defence, cell["attack"], cell["attack_options"]),
            *(not cell["adaptive"], cell["attack_id"], victim),
        )
        rows = tables.setdefault((cell["dataset"], cell["norm"]), {})
        rows.setdefault(row, []).append(cell)
    datasets = list(dict.fromkeys(dataset for dataset, _ in tables))
    in_order = sorted(tables.items(), key=lambda item: datasets.index(item[0][0]))
    return [_table(dataset, norm, rows) for (dataset, norm), rows in in_order]


RECORDS = pa.schema(
    [
        ("dataset", pa.string()),
        ("norm", pa.string()),
        ("model", pa.string()),
        ("model_options", pa.string()),
        ("defence", pa.string()),
        ("attack", pa.string()),
        ("attack_options", pa.string()),
        ("adaptive", pa.bool_()),
        ("epsilon", pa.float64()),
        ("status", pa.string()),
        ("robust_accuracy", pa.float64()),
        ("robust_sd", pa.float64()),
        ("robust_low", pa.float64()),
        ("robust_high", pa.float64()),
        ("clean_accuracy", pa.float64()),
        ("clean_sd", pa.float64()),
        ("n", pa.int64()),
        ("examples", pa.int64()),
        ("seeds", pa.int64()),
        ("flags", pa.list_(pa.string())),
        ("robust_accuracy_unchecked", pa.float64()),
        ("verdict", pa.string()),
        ("checks", pa.list_(pa.string())),
    ]
)
"""Robustness tables in long form: one row per entry. The words are those of `Entry` and `Row`, and of the
view `cells`."""


def robustness_records(tables: Iterable[RobustnessTable]) -> pa.Table:
    """The entries of robustness tables, one row each, as `RECORDS`."""
    records = [
        {
            **{name: getattr(table, name) for name in ("dataset", "norm")},
            **{name: getattr(row, name) for name in RECORDS.names if hasattr(row, name)},
            **{name: getattr(entry, name) for name in ("status", "n", "examples", "seeds")},
            "epsilon": epsilon,
            "robust_accuracy": entry.value,
            "robust_sd": entry.sd,
            "robust_low": entry.low,
            "robust_high": entry.high,
            "robust_accuracy_unchecked": entry.unchecked,
            "verdict": entry.verdict,
            "checks": entry.checks,
        }
        for table in tables
        for row in table.rows
        for epsilon, entry in zip(table.epsilons, row.entries, strict=True)
        if entry is not None
    ]
    return pa.Table.from_pylist(records, schema=RECORDS)


def _victim_key(cell: dict[str, Any]) -> tuple[str, ...]:
    return cell["dataset"], cell["model"], cell["model_options"], cell["defence"]


def _table(dataset: str, norm: str, rows: dict[tuple[Any, ...], list[dict[str, Any]]]) -> RobustnessTable:
    epsilons = tuple(sorted({cell["epsilon"] for cells in rows.values() for cell in cells}))
    return RobustnessTable(
        dataset, norm, epsilons, tuple(_row(key, cells, epsilons) for key, cells in rows.items())
    )


def _row(key: tuple[Any, ...], cells: Sequence[dict[str, Any]], epsilons: Sequence[float]) -> Row:
    model, model_options, defence, attack, attack_options, oblivious, *_ = key
    at: dict[float, list[dict[str, Any]]] = defaultdict(list)
    # Every cell of a seed that is done has seen the same examples, so any of them knows its clean accuracy.
    clean: dict[int, float | None] = {}
    for cell in cells:
        at[cell["epsilon"]].append(cell)
        if cell["status"] == "done":
            clean[cell["seed"]] = cell["clean_accuracy"]
        else:
            clean.setdefault(cell["seed"], None)
    mean, sd = _mean_sd(list(clean.values()))
    entries = tuple(_entry(at[epsilon]) if epsilon in at else None for epsilon in epsilons)
    checks = _gravest_first(cells)
    flags = {flag for cell in cells for flag in cell["flags"]} | set(checks) & set(Flag)
    return Row(
        *(model, model_options, defence, attack, attack_options, not oblivious, mean, sd, entries),
        *(tuple(sorted(flags)), checks),
    )


def _entry(cells: Sequence[dict[str, Any]]) -> Entry:
    """One entry from the cells of all seeds."""
    found = {cell["status"] for cell in cells}
    # A hole in one seed is a hole in the mean: "partial" unless the seeds agree, "failed" before all.
    status = "failed" if "failed" in found else found.pop() if len(found) == 1 else "partial"
    n, examples = (sum(cell[name] for cell in cells) for name in ("n", "examples"))
    if status != "done":
        return Entry(status, None, None, None, None, n, examples, len(cells))
    checks = _gravest_first(cells)
    verdict = RULES[checks[0]].severity if checks else None
    unchecked, _ = _mean_sd([cell["robust_accuracy_unchecked"] for cell in cells])
    # Null in the cells themselves where it is wrong, and nothing is averaged over a hole.
    value, sd = _mean_sd([cell["robust_accuracy"] for cell in cells])
    low, high = (_mean_sd([cell[name] for cell in cells])[0] for name in ("robust_low", "robust_high"))
    return Entry(status, value, low, high, sd, n, examples, len(cells), unchecked, verdict, checks)


def _gravest_first(cells: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """The rules that any of the cells breaks."""
    broken = {name for cell in cells for name in cell["checks"]}
    return tuple(name for name in RULES if name in broken)


def _mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; neither over a hole, the latter only of several values."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None
