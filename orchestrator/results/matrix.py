"""Who falls to whose images: transfers as a matrix, victims down and across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from orchestrator.errors import ChoiceError, UserError, did_you_mean
from orchestrator.results.called import Called, agreeing
from orchestrator.results.judged import judged_tables
from orchestrator.results.query import Several
from workers.flags import Flag

MATRIX_METRICS = {"robust_accuracy": "robust accuracy", "attack_success_rate": "attack success rate"}
"""What a matrix may show: numbers that mean the same of a transfer and of an attack on the victim itself."""

BLIND = (Flag.ZERO_GRADIENTS, Flag.NON_FINITE_GRADIENTS)
"""What is to be known of images before who they are tried on looks robust."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a matrix, or why there is none."""

    value: float | None  # a share in [0, 1]
    mark: str = ""  # missing, partial, failed or wrong; empty where there is a number
    white_box: bool = False  # of the attack on the victim itself
    same_network: bool = False  # two victims that differ in a defence at inference alone
    blind: tuple[Flag, ...] = ()  # of gradients, where the images were made


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
    """Rows of the view `transfer` as far as they have one of the names that are `wanted` of `dataset`,
    `norm`, `attack`, `model` and `defence`, then all rows of `cells`; and the former as a table. Both victims
    of a transfer must have that model and that defence.

    UserError for a name that nothing has, and where no transfer has been asked for at all.
    """
    cells, _, transfers, _, _ = judged_tables(results)
    rows, own = transfers.to_pylist(), cells.to_pylist()
    if not rows:
        raise UserError("no images were to be tried on other victims: transfer: true in a grid asks for that")
    called = Called(own)
    keep = agreeing([(called.names(row), called.names(_source_of(row))) for row in rows], wanted, "transfer")
    return [row for row, kept in zip(rows, keep, strict=True) if kept], own, transfers.filter(pa.array(keep))


def matrix(
    transfers: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], metric: str = "robust_accuracy"
) -> Matrix:
    """The matrix of rows of the views `transfer` and `cells`, all of the latter."""
    if metric not in MATRIX_METRICS:
        near = did_you_mean(metric, MATRIX_METRICS)
        raise ChoiceError("metric", f': found "{metric}"; {near}allowed: {", ".join(MATRIX_METRICS)}')
    called = Called(own)
    white = {(row["sweep"], row["cell_id"]): row for row in own}
    rows: dict[_Line, dict[str, Number]] = {}
    for row in transfers:
        place = row["sweep"], called.dataset(row), row["norm"], called.attack(row), row["epsilon"]
        target = called.victims[row["sweep"], row["victim_id"]]
        line = rows.setdefault((*place, called.victims[row["sweep"], row["source_id"]]), {})
        line[target] = _number(row, metric, same_network=row["same_network"])
        if (itself := white.get((row["sweep"], row["white_box_cell_id"]))) is not None:
            rows.setdefault((*place, target), {})[target] = _number(itself, metric, white_box=True)
    tried = {name for line in rows.values() for name in line}
    victims = [name for name in dict.fromkeys(called.victims.values()) if name in tried]
    order = {name: i for i, name in enumerate(victims)}
    made = [MatrixRow(*place, line) for place, line in rows.items()]
    first: dict[tuple[str, ...], int] = {}
    for one in made:
        first.setdefault((one.sweep, one.dataset, one.norm, one.attack), len(first))

    def rank(one: MatrixRow) -> tuple[int, float, int]:
        attack = first[one.sweep, one.dataset, one.norm, one.attack]
        return attack, one.epsilon, order.get(one.source, len(order))

    return Matrix(sorted(made, key=rank), victims, metric)


def _number(
    row: Mapping[str, Any], metric: str, *, white_box: bool = False, same_network: bool = False
) -> Number:
    number = Number(None, white_box=white_box, same_network=same_network)
    if row["status"] != "done":
        partial = f"partial {row['n']}/{row['examples']}"
        return replace(number, mark=partial if row["status"] == "partial" else row["status"])
    if row["verdict"] == "wrong":
        return replace(number, mark="wrong")
    # What a targeted attack leaves is no robust accuracy.
    value = row["target_missed"] if row["targeted"] and metric == "robust_accuracy" else row[metric]
    return replace(number, value=value, blind=tuple(flag for flag in BLIND if flag in row["flags"]))


def _source_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same row, of the victim that images were made against."""
    own = {name: row[f"source_{name}"] for name in ("model", "model_options", "recipe", "defence", "seed")}
    return {**row, **own, "victim_id": row["source_id"]}
