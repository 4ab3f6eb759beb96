"""What findings are of, in words: victims, attacks and worst cases, by what people read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.results.display import Cell, behind, display, epsilon_text
from workers.unit import FROM, NO_DEFENCE, VictimSpec, label

_Row = Mapping[str, Any]


class Placed:
    """Says it of the cells of one sweep; what is not among them goes by its name.

    Two victims that people would read alike are told apart by the end of their ids.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        runs = {(cell["victim_id"], cell["attack_id"]): cell for cell in cells}
        texts = display(list(runs.values()))
        self._attacks = {key: texts(cell).attack for key, cell in runs.items()}
        self._victims: dict[str, tuple[str, str]] = {}  # model and defence; dataset
        self._defences: dict[str, str] = {}
        alike: dict[tuple[str, str, int], set[str]] = {}
        for cell in {victim: cell for (victim, _), cell in runs.items()}.values():
            said = texts(cell)
            found = f"{said.model}{behind(cell['defence'], said.defence)}", said.dataset
            self._victims[cell["victim_id"]] = found
            self._defences[cell["victim_id"]] = said.defence
            alike.setdefault((*found, cell["seed"]), set()).add(cell["victim_id"])
        self._told = {victim for some in alike.values() if len(some) > 1 for victim in some}

    def attack(self, row: _Row) -> str:
        """An attack, as it is called where it is run on the victim itself."""
        victim, attack = row["victim_id"], row["attack_id"]
        for id in (attack, attack.rpartition(FROM)[0]):
            if (victim, id) in self._attacks:
                return self._attacks[victim, id]
        oblivious = "" if row["adaptive"] else " (oblivious)"
        return label(row["attack"], row["attack_options"]) + oblivious

    def model(self, row: _Row) -> str:
        """A victim's model and defence."""
        return self._victim(row)[0]

    def defence(self, row: _Row) -> str:
        """A victim's defence."""
        return str(self._defences.get(row["victim_id"], row["defence"]))

    def victim(self, row: _Row) -> str:
        """A victim: "small_cnn on digits with jpeg (seed 1)"."""
        model, dataset = self._victim(row)
        seed = f" (seed {row['seed']})" if row["seed"] else ""
        return f"{model} on {dataset}{seed}"

    def of(self, victim: VictimSpec) -> str:
        """The same of what a plan has of it."""
        said = {"model": victim.model.name, "model_options": victim.model.shown, "seed": victim.seed}
        where = {"dataset": victim.dataset.name, "defence": victim.defence.label}
        return self.victim({**said, **where, "victim_id": victim.victim_id})

    def place(self, row: _Row) -> str:
        """What a row with `workers.shards.DIMENSIONS` is of, null as far as it is of more than a cell: "bim
        linf on small_cnn on digits at epsilon 0.1"."""
        if row["victim_id"] is None:
            return ", ".join(filter(None, (row["dataset"], row["norm"]))) or "the folder"
        if not row["norm"]:
            return self.victim(row)
        attack = self.attack(row) if row["attack"] else "the worst case"
        epsilon = "" if row["epsilon"] is None else f" at epsilon {epsilon_text(row['epsilon'])}"
        return f"{attack} {row['norm']} on {self.victim(row)}{epsilon}"

    def _victim(self, row: _Row) -> tuple[str, str]:
        victim = row["victim_id"]
        if victim not in self._victims:
            defence = "" if row["defence"] == NO_DEFENCE.name else f" with {row['defence']}"
            return f"{label(row['model'], row['model_options'])}{defence}", row["dataset"]
        model, dataset = self._victims[victim]
        return (f"{model} [{victim[-6:]}]" if victim in self._told else model), dataset
