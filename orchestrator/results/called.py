"""What victims and attacks are called where tables are of other things than cells, and choosing by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import ChoiceError, UserError, did_you_mean
from orchestrator.results.display import display
from workers.unit import FROM, NO_DEFENCE, label, without_options

Names = Mapping[str, tuple[str, ...]]
"""All that a row goes by, under each key that rows are chosen by, the fullest name first."""


class Called:
    """What people read of victims and attacks; where two victims of a dataset would be called alike, the end
    of their ids is said."""

    def __init__(self, cells: Sequence[Mapping[str, Any]]) -> None:
        texts = display(cells)
        self._texts = {(row["sweep"], row["victim_id"], row["attack_id"]): texts(row) for row in cells}
        self._any = {(row["sweep"], row["victim_id"]): texts(row) for row in cells}
        seeds = len({row["seed"] for row in cells}) > 1
        plain: dict[tuple[str, str, str], list[str]] = {}
        rows = {(row["sweep"], row["victim_id"]): row for row in cells}
        for (sweep, victim), row in rows.items():
            said = self._any[sweep, victim]
            plainly = row["defence"] == NO_DEFENCE.name == said.defence
            name = said.model if plainly else f"{said.model}, {said.defence}"
            name += f", seed {row['seed']}" if seeds else ""
            plain.setdefault((sweep, row["dataset"], name), []).append(victim)
        self.victims = {
            (sweep, victim): f"{name} [{victim[-6:]}]" if len(alike) > 1 else name
            for (sweep, _, name), alike in plain.items()
            for victim in alike
        }

    def attack(self, row: Mapping[str, Any]) -> str:
        """As it is called where it is run on the victim itself."""
        ids = row["attack_id"], row["attack_id"].rpartition(FROM)[0]
        keys = ((row["sweep"], row["victim_id"], attack) for attack in ids)
        known = (self._texts[key].attack for key in keys if key in self._texts)
        return next(known, label(row["attack"], row["attack_options"]))

    def dataset(self, row: Mapping[str, Any]) -> str:
        return self._any[row["sweep"], row["victim_id"]].dataset

    def names(self, row: Mapping[str, Any]) -> Names:
        said = self._any[row["sweep"], row["victim_id"]]
        return {
            "dataset": (said.dataset, row["dataset"]),
            "model": (said.model, row["model"]),
            "defence": (said.defence, row["defence"], without_options(row["defence"])),
            **self._attacked(row),
        }

    def _attacked(self, row: Mapping[str, Any]) -> Names:
        if "attack" not in row:
            return {}
        return {"norm": (row["norm"],), "attack": (self.attack(row), row["attack"])}


def agreeing(rows: Sequence[Sequence[Names]], wanted: Mapping[str, Sequence[str]], what: str) -> list[bool]:
    """Which rows have one of the wanted names under each key, in all their parts.

    UserError for a name that no row has, for a key that none is chosen by, and where none agrees.
    """
    for key, asked in wanted.items():
        known = list(dict.fromkeys(name for row in rows for part in row for name in part.get(key, ())))
        for name in asked:
            if name not in known:
                near = did_you_mean(name, known)
                there = f"there are: {', '.join(known)}" if known else f"no {what} is chosen by it"
                raise ChoiceError(key, f': found "{name}"; {near}{there}')
    keep = [all(set(asked) & set(part[key]) for part in row for key, asked in wanted.items()) for row in rows]
    if not any(keep):
        text = ", ".join(f"{key}={name}" for key, asked in wanted.items() for name in asked)
        raise UserError(f"no {what} is of {text} at once")
    return keep
