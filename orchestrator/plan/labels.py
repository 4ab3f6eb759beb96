"""Display names: what the labels of a grid's entries come to, by the ids of what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.grid.entries import Grid
from orchestrator.plan.cells import attack_spec, victim_spec
from workers.recipe import recipe_text
from workers.shards import dimensions
from workers.unit import AttackSpec, VictimSpec


@dataclass(frozen=True)
class Labels:
    """Labels by victim id (of model, dataset and defence) and by attack id; "" where there is none."""

    victims: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    attacks: Mapping[str, str] = field(default_factory=dict)

    def of(self, victim: VictimSpec, attack: AttackSpec) -> dict[str, str]:
        """The columns of `results.schemas.LABELS` for the cells of an attack on a victim."""
        model, dataset, defence = self.victims.get(victim.victim_id, ("", "", ""))
        return {
            "model_label": model,
            "dataset_label": dataset,
            "defence_label": defence,
            "attack_label": self.attacks.get(attack.attack_id, ""),
        }


def named_cell(victim: VictimSpec, attack: AttackSpec, labels: Labels) -> dict[str, Any]:
    """What people read of the cells of an attack on a victim depends on this (`results.display.Cell`);
    `targeted` is None where the attack has not run and does not say."""
    known = not attack.factory and attack.kind != "certificate"
    return {
        **dimensions(victim, attack, "", 0.0),
        "recipe": recipe_text(victim.recipe, pretrained=victim.preparation == "fine-tune"),
        "targeted": bool(attack.options.get("targeted")) if known else None,
        **labels.of(victim, attack),
    }


def labels_of(grid: Grid) -> Labels:
    """The labels of a grid. They are no part of what is measured, so that no spec has them."""
    entries: list[Any] = [*grid.models, *grid.datasets, *grid.defences, *grid.attacks]
    if not any(entry.label for entry in entries):
        return Labels()
    victims = {
        victim_spec(grid, model, dataset, defence, seed)[0].victim_id: (
            model.label,
            dataset.label,
            defence.label,
        )
        for model in grid.models
        for dataset in grid.datasets
        for defence in grid.defences
        for seed in (0, *grid.seeds)
    }
    attacks = {
        attack_spec(attack, attack_seed=grid.attack_seed)[0].attack_id: attack.label
        for attack in grid.attacks
    }
    return Labels(victims, attacks)
