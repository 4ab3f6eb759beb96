"""Who falls to whose images: transfers as a matrix, victims down and across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError, did_you_mean
from orchestrator.results.query import Several
from orchestrator.results.tables import judged_tables
from workers.unit import NO_DEFENCE, label

MATRIX_METRICS = {"robust_accuracy": "robust accuracy", "attack_success_rate": "attack success rate"}
"""What a matrix may show: numbers that mean the same of a transfer and of an attack on the victim itself."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a matrix, or why there is none."""

    value: float | None  # a share in [0, 1]
    mark: str = ""  # missing, partial, failed or wrong; empty where there is a number
    white_box: bool = False  # of the attack on the victim itself
    same_network: bool = False  # two victims that differ in a defence at inference alone


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """The images of one attack made against one victim, at one epsilon."""

    sweep: str
    dataset: str
    norm: str
    attack: str
    epsilon: float
    source: str
    numbers: Mapping[str, Number]  # by the victim that they are tried on, as it is called


@dataclass(frozen=True, slots=True)
class Matrix:
    """Its rows, and the victims across, in the order of the grids."""

    rows: Sequence[MatrixRow]
    victims: Sequence[str]
    metric: str


_Line = tuple[str, str, str, str, float, str]
"""What a `MatrixRow` is of."""


def chosen_transfers(
    results: Several, wanted: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], pa.Table]:
    """Rows of the view `transfer`, and of `cells` for the attacks on the victims themselves, as far as they
    have one of the names that are `wanted` of `dataset`, `norm`, `attack`, `model` and `defence`; and the
    former as a table. Both victims of a transfer must have that model and that defence.

    UserError for a name that nothing has, and where no transfer has been asked for at all.
    """
    cells, _, transfers, _ = judged_tables(results)
    rows, own = transfers.to_pylist(), cells.to_pylist()
    if not rows:
        raise UserError("no images were to be tried on other victims: transfer: true in a grid asks for that")
    for key, names in wanted.items():
        known = list(dict.fromkeys(name for row in rows for name in _names(row, key)))
        for name in names:
            if name not in known:
                near = did_you_mean(name, known)
                raise UserError(f'--{key}: found "{name}"; {near}there are: {", ".join(known)}')
    keep = [_agrees(row, wanted) and _agrees(_source_of(row), wanted) for row in rows]
    if not any(keep):
        asked = ", ".join(f"{key}={name}" for key, names in wanted.items() for name in names)
        raise UserError(f"no transfer is of {asked} at once")
    chosen = [row for row, kept in zip(rows, keep, strict=True) if kept]
    return chosen, [row for row in own if _agrees(row, wanted)], transfers.filter(pa.array(keep))


def matrix(
    transfers: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], metric: str = "robust_accuracy"
) -> Matrix:
    """The matrix of `chosen_transfers`. Where two victims are called alike, the end of their ids is named."""
    if metric not in MATRIX_METRICS:
        near = did_you_mean(metric, MATRIX_METRICS)
        raise UserError(f'--metric: found "{metric}"; {near}allowed: {", ".join(MATRIX_METRICS)}')
    called = _called(own, transfers)
    white = {(row["sweep"], row["cell_id"]): row for row in own}
    rows: dict[_Line, dict[str, Number]] = {}
    for row in transfers:
        told = label(row["attack"], row["attack_options"])
        place = row["sweep"], row["dataset"], row["norm"], told, row["epsilon"]
        target = called[row["sweep"], row["victim_id"]]
        line = rows.setdefault((*place, called[row["sweep"], row["source_id"]]), {})
        line[target] = _number(row, metric, same_network=row["same_network"])
        if (itself := white.get((row["sweep"], row["white_box_cell_id"]))) is not None:
            rows.setdefault((*place, target), {})[target] = _number(itself, metric, white_box=True)
    victims = [name for name in dict.fromkeys(called.values()) if any(name in line for line in rows.values())]
    order = {name: i for i, name in enumerate(victims)}
    made = [MatrixRow(*place, line) for place, line in rows.items()]
    first: dict[tuple[str, ...], int] = {}
    for one in made:
        first.setdefault((one.sweep, one.dataset, one.norm, one.attack), len(first))

    def rank(one: MatrixRow) -> tuple[int, float, int]:
        attack = first[one.sweep, one.dataset, one.norm, one.attack]
        return attack, one.epsilon, order.get(one.source, len(order))

    return Matrix(sorted(made, key=rank), victims, metric)


def _number(row: Mapping[str, Any], metric: str, **said: bool) -> Number:
    if row["status"] != "done":
        mark = f"partial {row['n']}/{row['examples']}" if row["status"] == "partial" else row["status"]
        return Number(None, mark, **said)
    if row["verdict"] == "wrong":
        return Number(None, "wrong", **said)
    # What a targeted attack leaves is no robust accuracy.
    value = row["target_missed"] if row["targeted"] and metric == "robust_accuracy" else row[metric]
    return Number(value, "", **said)


def _called(
    own: Sequence[Mapping[str, Any]], transfers: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], str]:
    """By sweep and victim id, a name that no other victim of the dataset has."""
    every = [*own, *transfers, *map(_source_of, transfers)]
    victims = {(row["sweep"], row["victim_id"]): row for row in every}
    seeds = len({row["seed"] for row in victims.values()}) > 1
    recipes: dict[tuple[Any, ...], set[str]] = {}
    for row in victims.values():
        model = row["dataset"], row["model"], row["model_options"]
        recipes.setdefault(model, set()).add(row["recipe"])
    names = {}
    for key, row in victims.items():
        told = recipes[row["dataset"], row["model"], row["model_options"]]
        options = ", ".join(filter(None, (row["model_options"], row["recipe"] if len(told) > 1 else "")))
        name = label(row["model"], options)
        name += "" if row["defence"] == NO_DEFENCE.name else f" + {row['defence']}"
        names[key] = name + (f" s{row['seed']}" if seeds else "")
    shared: dict[tuple[str, str, str], set[str]] = {}
    for (sweep, victim_id), name in names.items():
        place = sweep, victims[sweep, victim_id]["dataset"], name
        shared.setdefault(place, set()).add(victim_id)
    return {
        (sweep, victim_id): f"{name} [{victim_id[-6:]}]"
        if len(shared[sweep, victims[sweep, victim_id]["dataset"], name]) > 1
        else name
        for (sweep, victim_id), name in names.items()
    }


def _source_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same row, of the victim that images were made against."""
    own = {name: row[f"source_{name}"] for name in ("model", "model_options", "recipe", "defence", "seed")}
    return {**row, **own, "victim_id": row["source_id"]}


def _names(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """What it goes by, the fullest name first."""
    if key in ("attack", "model"):
        return label(row[key], row[f"{key}_options"]), row[key]
    return (row[key], row[key].partition(" ")[0]) if key == "defence" else (row[key],)


def _agrees(row: Mapping[str, Any], wanted: Mapping[str, Sequence[str]]) -> bool:
    return all(set(names) & set(_names(row, key)) for key, names in wanted.items())
