"""Two sides held against each other, example by example: sweeps, models, defences, whatever differs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError, did_you_mean
from orchestrator.results.display import Texts, display
from orchestrator.results.judged import cells_and_worst_cases
from orchestrator.results.metrics import WORST_CASE
from orchestrator.results.pairing import ALPHA, Outcome, Pair, outcomes, pair, same_data
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Place
from workers.statistics import holm_adjusted
from workers.unit import label, without_options

COMPARED = pa.schema(
    [
        ("dataset", pa.string()),
        ("norm", pa.string()),
        ("epsilon", pa.float64()),
        ("model", pa.string()),  # of both sides, or "first → second" where they are not the same
        ("defence", pa.string()),  # likewise
        ("seed", pa.int32()),
        ("attack", pa.string()),
        ("n", pa.int64()),  # examples that both sides have
        ("first", pa.float64()),  # robust accuracy on those, like the next
        ("second", pa.float64()),
        ("difference", pa.float64()),  # second less first
        ("low", pa.float64()),  # ends of its 95% interval
        ("high", pa.float64()),
        ("only_first", pa.int64()),  # examples that only this side gets right under attack
        ("only_second", pa.int64()),
        ("probability", pa.float64()),  # exact two-sided McNemar
        ("adjusted", pa.float64()),  # after Holm's correction for all rows
        ("result", pa.string()),  # of the second side: better, worse, tied; doubtful; null: not compared
        ("note", pa.string()),  # why it is not compared, or is to be doubted; "": neither
    ]
)
"""One row for each cell, or worst case, that either side has."""

_Row = Mapping[str, Any]

_OTHER_ATTACKS = "worst cases of other attacks"

_NAMES: dict[str, Callable[[_Row], list[str]]] = {
    "sweep": lambda row: [row["sweep"]],
    "model": lambda row: [
        *(_model(row), row["texts"].model, row["model_label"]),
        *(label(row["model"], row["model_options"]), row["model"]),
    ],
    "recipe": lambda row: [row["recipe"]],
    "defence": lambda row: [row["defence"], row["texts"].defence, without_options(row["defence"])],
    "seed": lambda row: [str(row["seed"])],
}
"""What a side may be chosen by: all that a row goes by, the fullest name first."""

_LOOKED_FOR = ("model", "defence", "sweep")  # what a bare name may be of

_FREED = {
    "sweep": ("sweep",),
    "model": ("model", "model_options", "recipe"),
    "recipe": ("recipe",),
    "defence": ("defence",),
    "seed": ("seed",),
}
"""The columns that need not be the same where sides are chosen by a key."""

_SAME = (
    *("sweep", "dataset", "norm", "epsilon", "model", "model_options", "recipe", "defence", "seed"),
    *("attack", "adaptive"),
)


@dataclass(frozen=True)
class Comparison:
    """What came of it. Targeted attacks are left out: what they leave is no robust accuracy."""

    first: str
    second: str
    rows: pa.Table  # `COMPARED`
    texts: list[Texts]  # of each row what people read: both sides', where they are not the same
    untold: int  # of them: those that the first side has, and that could not be compared
    of_second: frozenset[tuple[str, str]]  # (sweep, cell id) of the cells of the second side, and its victims

    def count(self, result: str | None) -> int:
        results: list[str | None] = self.rows["result"].to_pylist()
        return results.count(result)

    @property
    def worse(self) -> bool:
        """Whether the second side is worse anywhere, or it cannot be told that it is not."""
        rows = self.rows.select(["result", "difference"]).to_pylist()
        lower = any(row["result"] in ("worse", "doubtful") and row["difference"] < 0 for row in rows)
        return lower or self.untold > 0


def compare(
    results: Sequence[Results], first: str | Mapping[str, str], second: str | Mapping[str, str]
) -> Comparison:
    """Compare two sides of some sweeps: each a name of a model, a defence or a sweep, or `KEY=VALUE,…` of
    sweep, model, recipe, defence and seed; or a mapping of these.

    Paired are cells and worst cases in which all else is the same. Where a side has one recipe for a model
    and the other another, these are paired too: that is what training differently means. UserError for a name
    that is not there or means several things, and where nothing can be paired.
    """
    rows = list(_rows(*cells_and_worst_cases(results)))
    keys = [_side(rows, text) for text in (first, second)]
    sides = [_chosen(rows, side) for side in keys]
    shown = [_shown(text) for text in (first, second)]
    if keys[0] == keys[1]:
        raise UserError(f"{shown[0]} and {shown[1]} are the same; two sides are needed")
    freed = {column for side in keys for key in side for column in _FREED[key]}
    known = outcomes(results)
    found = list(_paired(sides[0], sides[1], freed))
    if not any(one and other for one, other in found):
        raise UserError(
            f"nothing of {shown[0]} and {shown[1]} can be paired: no cell of one has the dataset, attack, "
            "norm, epsilon, and all else that is not compared, of a cell of the other"
        )
    return Comparison(
        shown[0],
        shown[1],
        _compared(found, known),
        [_texts(one, other) for one, other in found],
        sum(_untold(one, other, known) for one, other in found),
        frozenset(
            (row["sweep"], row[name]) for row in sides[1] for name in ("cell_id", "victim_id") if row[name]
        ),
    )


def pairs_compared(cells: pa.Table, worst: pa.Table, known: Mapping[Place, Outcome]) -> list[dict[str, Any]]:
    """Every two victims on the same data held against each other in their worst cases, or where both have
    one attack under that; from the views `cells`, in the order of grids, and `worst_case`.

    Rows of `COMPARED`, with Holm's correction for all of a dataset and norm, and the `sides`: of the first
    and of the second its sweep, model, model_options, recipe and defence; and `texts`, what people read.
    """
    groups: dict[tuple[Any, ...], list[_Row]] = defaultdict(list)
    for row in _summed_up(_rows(cells, worst)):
        groups[tuple(row[name] for name in ("dataset", "norm", "epsilon", "seed", "attack"))].append(row)
    families: dict[tuple[Any, ...], list[tuple[_Row, _Row]]] = defaultdict(list)
    for (dataset, norm, *_), rows in groups.items():
        families[dataset, norm] += combinations(rows, 2)
    of = ("sweep", "model", "model_options", "recipe", "defence")
    return [
        {**row, "sides": [tuple(side[name] for name in of) for side in pair], "texts": _texts(*pair)}
        for found in families.values()
        for row, pair in zip(_compared(found, known).to_pylist(), found, strict=True)
    ]


def _summed_up(rows: Iterable[_Row]) -> list[_Row]:
    """The worst cases, and what there is in their place where a victim has one attack that counts."""
    rows = list(rows)
    several = {_of(row) for row in rows if row["attack"] == WORST_CASE}
    return [
        row for row in rows if row["attack"] == WORST_CASE or (_of(row) not in several and row["adaptive"])
    ]


def _of(row: _Row) -> tuple[str, str, str]:
    return row["sweep"], row["victim_id"], row["norm"]


def _rows(cells: pa.Table, worst: pa.Table) -> Iterator[dict[str, Any]]:
    """Cells in the order of the grids, then worst cases, in the same columns; and `texts`, what people read
    of each."""
    attacks = defaultdict(set)
    every = cells.to_pylist()
    texts = display(every)
    victims = {}
    for cell in every:
        if cell["targeted"]:
            continue
        victims[cell["sweep"], cell["victim_id"]] = cell
        attacks[cell["sweep"], cell["victim_id"], cell["norm"]].add(cell["attack_id"])
        place = Place(cell["sweep"], cell["seed"], cell["cell_id"])
        attack = label(cell["attack"], cell["attack_options"]) + ("" if cell["adaptive"] else " (oblivious)")
        yield {**cell, "attack": attack, "place": place, "attacks": None, "texts": texts(cell)}
    for case in worst.to_pylist():
        if len(attacks[case["sweep"], case["victim_id"], case["norm"]]) > 1:  # of one attack it is its own
            place = Place(case["sweep"], case["seed"], case["victim_id"], case["norm"], case["epsilon"])
            status = "done" if case["complete"] else "incomplete"
            said = {"attack": WORST_CASE, "adaptive": True, "attack_id": "", "cell_id": ""}
            of = victims[case["sweep"], case["victim_id"]]
            said |= {"model_label": of["model_label"], "texts": texts(of)._replace(attack=WORST_CASE)}
            yield {**case, **said, "status": status, "place": place}


def _side(rows: Sequence[_Row], text: str | Mapping[str, str]) -> dict[str, str]:
    """What a side is chosen by: key -> the name that is there."""
    if isinstance(text, Mapping):
        return {key: _named(rows, key, name) for key, name in text.items()}
    if re.match(rf"\s*({'|'.join(_NAMES)})\s*=", text):
        parts = re.split(rf",\s*(?=(?:{'|'.join(_NAMES)})\s*=)", text)
        pairs = [part.partition("=") for part in parts]
        return {key.strip(): _named(rows, key.strip(), name.strip()) for key, _, name in pairs}
    found = [key for key in _LOOKED_FOR if any(text in _NAMES[key](row) for row in rows)]
    if len(found) == 1:
        return {found[0]: _named(rows, found[0], text)}
    if found:
        means = " or ".join(f"{key}={text}" for key in found)
        raise UserError(f'"{text}" is several things: {means} is allowed')
    there = [name for key in _LOOKED_FOR for name in _there(rows, key)]
    raise UserError(f'found "{text}"; {did_you_mean(text, there)}there are: {", ".join(there)}')


def _named(rows: Sequence[_Row], key: str, name: str) -> str:
    """The fullest name that is meant."""
    known = [_NAMES[key](row) for row in rows]
    if any(names[0] == name for names in known):
        return name
    # What people read means what they read it of, whatever else has it as a part of its name.
    full = list(dict.fromkeys(names[0] for names in known if name == names[:2][-1]))
    if len(full) != 1:
        full = list(dict.fromkeys(names[0] for names in known if name in names))
    if len(full) == 1:
        return full[0]
    if full:
        raise UserError(f"{key}={name} is several: {', '.join(full)}; one of these is allowed")
    there = _there(rows, key)
    raise UserError(f'{key}: found "{name}"; {did_you_mean(name, there)}there are: {", ".join(there)}')


def _there(rows: Sequence[_Row], key: str) -> list[str]:
    """The fullest names, and what people read where that is another."""
    return list(dict.fromkeys(name for row in rows for name in _NAMES[key](row)[:2]))


def _chosen(rows: Sequence[_Row], side: Mapping[str, str]) -> list[_Row]:
    chosen = [row for row in rows if all(_NAMES[key](row)[0] == name for key, name in side.items())]
    if not chosen:
        raise UserError(f"no cell is of {_shown(side)} at once")
    return chosen


def _paired(
    first: Sequence[_Row], second: Sequence[_Row], freed: set[str]
) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Rows in which all but `freed` is the same; and those of either side that have none."""
    same = [name for name in _SAME if name not in freed and name != "recipe"]
    groups: dict[tuple[Any, ...], tuple[list[_Row], list[_Row]]] = {}
    for side, rows in enumerate((first, second)):
        for row in rows:
            groups.setdefault(tuple(row[name] for name in same), ([], []))[side].append(row)
    for one, other in groups.values():
        if len(one) == len(other) == 1:
            yield one[0], other[0]
            continue
        for name in ("victim_id", "recipe"):
            for row in list(one):
                mine = [each for each in one if each[name] == row[name]]
                theirs = [each for each in other if each[name] == row[name]]
                if len(mine) == len(theirs) == 1:
                    yield row, theirs[0]
                    one.remove(row)
                    other.remove(theirs[0])
        yield from ((row, None) for row in one)
        yield from ((None, row) for row in other)


def _compared(found: Sequence[tuple[_Row | None, _Row | None]], known: Mapping[Place, Outcome]) -> pa.Table:
    pairs: list[Pair | None] = []
    rows: list[dict[str, Any]] = []
    for first, second in found:
        why = _why_not(first, second, known)
        pairs.append(None if why else pair(known[first["place"]], known[second["place"]]))  # type: ignore[index]
        rows.append({**_described(first, second), "note": why})
    tested = [one.probability for one in pairs if one]
    adjusted = iter(holm_adjusted(tested))
    for row, compared, (first, second) in zip(rows, pairs, found, strict=True):
        if compared:
            low, high = compared.interval
            row |= {
                "n": compared.n,
                "first": compared.first / compared.n,
                "second": compared.second / compared.n,
                "difference": compared.difference,
                "low": low,
                "high": high,
                "only_first": compared.only_first,
                "only_second": compared.only_second,
                "probability": compared.probability,
                "adjusted": next(adjusted),
            }
            row |= _told(row, first, second)
    return pa.Table.from_pylist([dict.fromkeys(COMPARED.names) | row for row in rows], schema=COMPARED)


def _told(row: Mapping[str, Any], first: _Row | None, second: _Row | None) -> dict[str, str]:
    """The result, and what speaks against it: that side may be less robust than its number says."""
    doubts = {
        side: ", ".join(each["checks"])
        for side, each in (("first", first), ("second", second))
        if each and each["verdict"] == "suspicious"
    }
    note = "; ".join(f"{side}: suspicious, {names}" for side, names in doubts.items())
    if first and second and first["attack_id"] != second["attack_id"]:
        note = "; ".join(filter(None, [note, "the attacks are of other versions or seeds"]))
    if row["adjusted"] > ALPHA:
        return {"result": "tied", "note": note}
    result, ahead = ("better", "second") if row["difference"] > 0 else ("worse", "first")
    return {"result": "doubtful" if ahead in doubts else result, "note": note}


def _why_not(first: _Row | None, second: _Row | None, known: Mapping[Place, Outcome]) -> str:
    """Why two rows cannot be compared; an empty text where they can."""
    if first is None or second is None:
        return f"{'first' if first is None else 'second'}: not in its grid, or not told apart from others"
    for side, row in (("first", first), ("second", second)):
        if row["status"] != "done":
            return f"{side}: {row['status']}"
        if row["verdict"] == "wrong":
            return f"{side}: wrong, {', '.join(row['checks'])}"
    if first["attacks"] != second["attacks"]:
        return _OTHER_ATTACKS
    if not same_data(known[first["place"]], known[second["place"]]):
        return "the data are not the same"
    return ""


def _untold(first: _Row | None, second: _Row | None, known: Mapping[Place, Outcome]) -> bool:
    """Whether the first side has something that the second may be worse at; each attack of a worst case that
    is of others has rows of its own."""
    return first is not None and _why_not(first, second, known) not in ("", _OTHER_ATTACKS)


def _described(first: _Row | None, second: _Row | None) -> dict[str, Any]:
    """What both are of."""
    there = [row for row in (first, second) if row is not None]

    def both(text: Callable[[_Row], str]) -> str:
        return " → ".join(dict.fromkeys(map(text, there)))

    last = there[-1]
    return {
        **{name: last[name] for name in ("dataset", "norm", "epsilon", "seed", "attack")},
        "model": both(_model),
        "defence": both(lambda row: str(row["defence"])),
    }


def _texts(first: _Row | None, second: _Row | None) -> Texts:
    """What people read of both."""
    said = [row["texts"] for row in (first, second) if row is not None]
    both = (" → ".join(dict.fromkeys(parts)) for parts in zip(*said, strict=True))
    return Texts(*both)


def _model(row: _Row) -> str:
    """With its options and its recipe, those at their defaults aside."""
    return label(row["model"], ", ".join(filter(None, (row["model_options"], row["recipe"]))))


def _shown(side: str | Mapping[str, str]) -> str:
    if isinstance(side, str):
        return side
    if tuple(side) == ("sweep",):
        return side["sweep"]
    return ",".join(f"{key}={name}" for key, name in side.items())
