"""What a sweep found, as tables: one row per cell, and robust accuracy against epsilon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from orchestrator.results.checks import RULES
from orchestrator.results.display import Texts, display
from orchestrator.results.metrics import (
    ROBUST_ACCURACY,
    SMALL,
    TARGET_MISSED,
    WITH_TRANSFER,
    WITH_TRANSFER_LEFT,
    WORST_CASE,
    Metric,
)
from workers.flags import Flag


class Place(NamedTuple):
    """A cell, or a worst case, as `results.pairing` knows its examples."""

    sweep: str
    seed: int
    of: str  # cell id, or victim id
    norm: str = ""  # of a worst case, like the next
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a robustness table: robust accuracy at one epsilon, over all training seeds; of a
    targeted attack the share of targets missed (`cells.target_missed`) instead. Or another of `METRICS`.

    `value` is the mean over seeds, `sd` the sample standard deviation (null with one seed); `low` and `high`
    are the ends of the 95% Wilson interval, averaged over seeds: they speak of the test sampling only. Where
    any seed's cell is not done, the entry is a hole; where a check calls one wrong, there is no number to
    show: all of these are None, and `mark` says why.
    """

    status: str  # done, partial, failed or missing; incomplete: a worst case that lacks one of its attacks
    value: float | None  # a share in [0, 1]
    low: float | None
    high: float | None
    sd: float | None
    n: int  # examples evaluated and wanted, summed over seeds
    examples: int
    seeds: int
    attacks: tuple[str, ...] = ()  # of a worst case: the attacks that it is of
    unchecked: float | None = None  # the mean over seeds, also where a check calls it wrong
    verdict: str | None = None  # the gravest that checks say of any seed's
    checks: tuple[str, ...] = ()  # the rules that say so, the gravest first
    places: tuple[Place, ...] = ()  # what it is of, a place a seed
    best: bool | None = None  # by a test on the same examples; None: there was nothing to be tested
    without: str = ""  # why there is no number though all is done and nothing wrong

    @property
    def reach(self) -> float | None:
        """How far the interval goes from the number, to its wider side; None where there is none."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low)

    @property
    def mark(self) -> str:
        """Why there is no number: `missing`, `partial 120/500`, `incomplete`, `failed` or `wrong`; empty
        where there is one."""
        if self.status == "done":
            return "wrong" if self.verdict == "wrong" else ""
        return f"partial {self.n}/{self.examples}" if self.status == "partial" else self.status


@dataclass(frozen=True, slots=True)
class Row:
    """One model under one attack, or in its worst case; `entries` run along the table's epsilons, None where
    none was wanted.

    The labels are what people read (`results.display`): names with the options that differ from their
    defaults, or the grid's own.
    """

    sweep: str
    model: str
    model_options: str
    recipe: str
    defence: str
    attack: str
    attack_options: str
    adaptive: bool
    clean_accuracy: float | None  # mean over seeds; None until each seed has a cell that is done
    clean_sd: float | None
    entries: tuple[Entry | None, ...]
    flags: tuple[str, ...]  # those that any of its cells carries; of a worst case, all at some epsilon
    checks: tuple[str, ...] = ()  # the rules that any of its entries breaks, the gravest first
    targeted: bool = False
    model_label: str = ""
    defence_label: str = ""
    cell_ids: tuple[str, ...] = ()  # of all seeds; of a worst case, those of all its attacks
    attack_label: str = ""  # marked where it is oblivious, which flatters, or targeted: no robust accuracy


@dataclass(frozen=True, slots=True)
class RobustnessTable:
    """Robust accuracy, or another metric, on one dataset in one norm. `epsilons` ascend, on [0, 1]."""

    dataset: str
    norm: str
    epsilons: tuple[float, ...]
    rows: tuple[Row, ...]
    dataset_label: str  # what people read of it
    metric: Metric = ROBUST_ACCURACY
    sweeps: bool = False  # whether there are several, so that rows have to say which they are of
    by: tuple[tuple[str, str], ...] = ()  # what its rows were chosen by: keys of `results.choice.BY`, names


def robustness_tables(
    cells: pa.Table, worst: pa.Table | None = None, *, metric: Metric = ROBUST_ACCURACY
) -> list[RobustnessTable]:
    """Pivot the cells (of `cells_and_worst_cases`) into one table for each (dataset, norm).

    Datasets, their norms, and the models, defences and attacks in rows come in the order of the cells. With
    `worst`, a model of which several adaptive, untargeted attacks are wanted has its worst case below them.

    Only training seeds are averaged. Victims that share model, defence and seed are told apart by their
    recipes; those that differ otherwise (an option of the defence, a model of one's own that has changed) get
    rows of their own, told apart by the end of their id. No row is of several sweeps.
    """
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}  # of an attack on a victim
    for cell in cells.to_pylist():
        runs.setdefault((cell["sweep"], cell["victim_id"], cell["attack_id"]), []).append(cell)
    firsts = [run[0] for run in runs.values()]
    texts = display(firsts)
    same_seed = defaultdict(set)
    for cell in firsts:
        same_seed[_victim_key(cell), cell["seed"]].add(cell["victim_id"])
    ambiguous = {key for (key, _), victims in same_seed.items() if len(victims) > 1}

    tables: dict[tuple[str, str], dict[_Key, list[dict[str, Any]]]] = {}
    for (sweep, victim_id, attack_id), run in runs.items():
        cell = run[0]
        victim = victim_id if _victim_key(cell) in ambiguous else ""
        which = f" [{victim[-6:]}]" if victim else ""
        key = _Key(
            sweep=sweep,
            model=cell["model"],
            model_options=cell["model_options"],
            recipe=cell["recipe"],
            defence=cell["defence"] + which,
            victim=victim,
            attack=cell["attack"],
            attack_options=cell["attack_options"],
            adaptive=cell["adaptive"],
            attack_id=attack_id,
            texts=(said := texts(cell))._replace(defence=said.defence + which),
        )
        tables.setdefault((cell["dataset"], cell["norm"]), {}).setdefault(key, []).extend(run)
    datasets = list(dict.fromkeys(dataset for dataset, _ in tables))
    in_order = sorted(tables.items(), key=lambda item: datasets.index(item[0][0]))
    known = (
        {} if worst is None or metric != ROBUST_ACCURACY else {_point(one): one for one in worst.to_pylist()}
    )
    several = len({sweep for sweep, _, _ in runs}) > 1
    return [_table(dataset, norm, rows, known, metric, several) for (dataset, norm), rows in in_order]


class _Key(NamedTuple):
    """What makes a row: cells that share all of it differ in their seeds and epsilons only."""

    sweep: str
    model: str
    model_options: str
    recipe: str
    defence: str
    victim: str
    attack: str
    attack_options: str
    adaptive: bool
    attack_id: str
    texts: Texts

    @property
    def of_model(self) -> tuple[Any, ...]:
        """All of it, but for the attack."""
        return self[: _Key._fields.index("attack")]


def of_one_attack(row: Row) -> bool:
    """Rather than of several together."""
    return row.attack not in (WORST_CASE, WITH_TRANSFER)


def _victim_key(cell: dict[str, Any]) -> tuple[str, ...]:
    return tuple(cell[name] for name in ("dataset", "model", "model_options", "recipe", "defence"))


def _point(cell: dict[str, Any]) -> tuple[str, str, str, float]:
    return cell["sweep"], cell["victim_id"], cell["norm"], cell["epsilon"]


_Worst = Mapping[tuple[str, str, str, float], dict[str, Any]]
"""Rows of the view `worst_case`, by `_point`."""


def _table(
    dataset: str,
    norm: str,
    rows: dict[_Key, list[dict[str, Any]]],
    worst: _Worst,
    metric: Metric,
    several: bool,
) -> RobustnessTable:
    epsilons = tuple(sorted({cell["epsilon"] for cells in rows.values() for cell in cells}))
    models: dict[tuple[Any, ...], list[_Key]] = {}
    for key in rows:
        models.setdefault(key.of_model, []).append(key)
    found: list[Row] = []
    for keys in models.values():
        found += [_row(key, rows[key], epsilons, metric) for key in keys]
        counted = [cell for key in keys for cell in rows[key] if cell["adaptive"] and not cell["targeted"]]
        if worst and len({cell["attack_id"] for cell in counted}) > 1:
            found.append(_worst_row(keys[0], counted, epsilons, worst))
        if worst and (beyond := _with_transfer(keys[0], counted, epsilons, worst)):
            found.append(beyond)
    (texts, *_) = (key.texts for key in rows)
    return RobustnessTable(dataset, norm, epsilons, tuple(found), texts.dataset, metric, several)


def _row(key: _Key, cells: Sequence[dict[str, Any]], epsilons: Sequence[float], metric: Metric) -> Row:
    at: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        at[cell["epsilon"]].append(cell)
    entries = tuple(_entry(at[epsilon], metric) if epsilon in at else None for epsilon in epsilons)
    checks = _gravest_first(cells)
    flags = {flag for cell in cells for flag in cell["flags"]} | set(checks) & set(Flag)
    return Row(
        *(key.sweep, key.model, key.model_options, key.recipe, key.defence),
        *(key.attack, key.attack_options, key.adaptive, *_clean(cells)),
        *(entries, tuple(sorted(flags)), checks),
        targeted=any(cell["targeted"] for cell in cells),
        model_label=key.texts.model,
        defence_label=key.texts.defence,
        attack_label=key.texts.attack,
        cell_ids=tuple(cell["cell_id"] for cell in cells),
    )


def _clean(cells: Iterable[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Mean and deviation of the clean accuracy over seeds."""
    # Every cell of a seed that is done has seen the same examples, so any of them knows it.
    clean: dict[int, float | None] = {}
    for cell in cells:
        if cell["status"] == "done":
            clean[cell["seed"]] = cell["clean_accuracy"]
        else:
            clean.setdefault(cell["seed"], None)
    return mean_sd(list(clean.values()))


def _entry(cells: Sequence[dict[str, Any]], metric: Metric) -> Entry:
    """One entry from the cells of all seeds."""
    found = {cell["status"] for cell in cells}
    # A hole in one seed is a hole in the mean: "partial" unless the seeds agree, "failed" before all.
    status = "failed" if "failed" in found else found.pop() if len(found) == 1 else "partial"
    if metric == ROBUST_ACCURACY and any(cell["targeted"] for cell in cells):
        metric = TARGET_MISSED
    places = tuple(Place(cell["sweep"], cell["seed"], cell["cell_id"]) for cell in cells)
    return _averaged(status, cells, metric, places)


def _averaged(
    status: str,
    points: Sequence[dict[str, Any]],
    metric: Metric,
    places: tuple[Place, ...],
    attacks: tuple[str, ...] = (),
) -> Entry:
    """An entry from a row of `cells`, or of `worst_case`, for each seed; no number unless all are done."""
    n, examples = (sum(point[column] for point in points) for column in ("n", "examples"))
    if status != "done":
        return Entry(status, None, None, None, None, n, examples, len(points), attacks)
    checks = _gravest_first(points)
    verdict = RULES[checks[0]].severity if checks else None

    def mean(column: str) -> tuple[float | None, float | None]:
        return mean_sd([point[column] for point in points])

    # Null where a check calls it wrong, and nothing is averaged over a hole.
    value, sd = mean(metric.column) if verdict != "wrong" else (None, None)
    without = "" if value is not None or verdict == "wrong" else _without(points, metric)
    low, high = (mean(f"{metric.ends}_{end}")[0] if metric.ends else None for end in ("low", "high"))
    return Entry(
        *(status, value, low, high, sd, n, examples, len(points), attacks),
        *(mean(f"{metric.column}_unchecked")[0] if metric.ends else None, verdict, checks, places),
        without=without,
    )


def _without(cells: Iterable[Mapping[str, Any]], metric: Metric) -> str:
    """Why some cells that are done have no number together."""
    lacking = [cell for cell in cells if cell[metric.column] is None]
    small = metric.column == "ssim" and all(cell["psnr"] is not None for cell in lacking)
    return SMALL if small else metric.without


def _gravest_first(points: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The rules that checks name of any of these."""
    broken = {name for point in points for name in point["checks"]}
    return tuple(name for name in RULES if name in broken)


def _worst_row(key: _Key, cells: Sequence[dict[str, Any]], epsilons: Sequence[float], worst: _Worst) -> Row:
    """The row of a model's worst case, from the cells of its adaptive, untargeted attacks."""
    entries: list[Entry | None] = []
    flags: set[str] = set()
    at: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        for epsilon in epsilons if cell["minimum_norm"] else (cell["epsilon"],):
            at[epsilon].append(cell)
    worst_at = _worst_at(cells, worst)
    for epsilon in epsilons:
        points = worst_at[epsilon]
        # What looked for images within this epsilon: all cells of one attack on one victim have one say.
        looked: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for cell in at[epsilon]:
            looked[cell["victim_id"], cell["attack_id"]].append(cell)
        entries.append(_worst_entry(points, at[epsilon]))
        flags |= _flags_of_all(looked.values()) if points else set()
    judged = [point for points in worst_at.values() for point in points]
    return Row(
        *(key.sweep, key.model, key.model_options, key.recipe, key.defence),
        *(WORST_CASE, "", True, *_clean(cells)),
        *(tuple(entries), tuple(sorted(flags)), _gravest_first(judged)),
        model_label=key.texts.model,
        defence_label=key.texts.defence,
        attack_label=WORST_CASE,
        cell_ids=tuple(cell["cell_id"] for cell in cells),
    )


def _flags_of_all(attacks: Iterable[Sequence[dict[str, Any]]]) -> set[str]:
    """The flags of a worst case, from the cells of each attack: a blind one beside one that sees blinds it
    not."""
    said = [{flag for cell in cells for flag in cell["flags"]} for cells in attacks]
    return set.intersection(*said) if said else set()


def _with_transfer(
    key: _Key, cells: Sequence[dict[str, Any]], epsilons: Sequence[float], worst: _Worst
) -> Row | None:
    """The row of a model's worst case where images from other victims count too; None without any."""
    at = _worst_at(cells, worst)
    entries = tuple(
        _averaged("done", points, WITH_TRANSFER_LEFT, ())
        if (points := at[epsilon]) and all(_tried(point) for point in points)
        else None
        for epsilon in epsilons
    )
    if not any(entries):
        return None
    judged = [point for points in at.values() for point in points if _tried(point)]
    looked: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        looked[cell["victim_id"], cell["attack_id"]].append(cell)
    return Row(
        *(key.sweep, key.model, key.model_options, key.recipe, key.defence),
        *(WITH_TRANSFER, "", True, *_clean(cells)),
        *(entries, tuple(sorted(_flags_of_all(looked.values()))), _gravest_first(judged)),
        model_label=key.texts.model,
        defence_label=key.texts.defence,
        attack_label=WITH_TRANSFER,
    )


def _worst_at(cells: Iterable[dict[str, Any]], worst: _Worst) -> Mapping[float, list[dict[str, Any]]]:
    """The worst cases of some cells, by their epsilons; none at any other."""
    at: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for point in dict.fromkeys(map(_point, cells)):
        at[point[-1]].append(worst[point])
    return at


def _tried(point: Mapping[str, Any]) -> bool:
    return bool(point["complete"]) and point["robust_with_transfer_unchecked"] is not None


def _worst_entry(points: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]) -> Entry | None:
    """The worst case at one epsilon from that of each seed, and the cells that it is of."""
    if not points:
        return None
    attacks = tuple(sorted({attack for point in points for attack in point["attacks"]}))
    if all(point["complete"] for point in points):
        status = "done"
    elif any(cell["status"] == "failed" for cell in cells):
        status = "failed"
    else:
        status = "incomplete" if attacks else "missing"
    places = tuple(
        Place(point["sweep"], point["seed"], point["victim_id"], point["norm"], point["epsilon"])
        for point in points
    )
    return _averaged(status, points, ROBUST_ACCURACY, places, attacks)


def mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; neither over a hole, the latter only of several values."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    if len(known) < 2:
        return fmean(known), None
    # From the first of them, so that equal values differ by 0 and not by a rounding of their mean.
    apart = [value - known[0] for value in known]
    middle = fmean(apart)
    return fmean(known), sqrt(fsum((each - middle) ** 2 for each in apart) / (len(known) - 1))
