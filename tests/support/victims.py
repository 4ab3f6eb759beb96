"""Victims, attacks and cells for tests: small ones to train, made-up ones, and those of a grid."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestrator.grid.entries import Grid
from orchestrator.plan.cells import expand
from workers.norms import NormName
from workers.recipe import Recipe
from workers.unit import AttackSpec, DatasetSpec, ModelSpec, VictimSpec, Weights


def victim_spec(victim_id: str = "small_cnn-digits-s0-0123456789", **changes: Any) -> VictimSpec:
    """A narrow network that learns the digits well in a second or two."""
    values: dict[str, Any] = {
        "victim_id": victim_id,
        "model": ModelSpec(name="small_cnn", version=1, options={"width": 8}, shown="width=8"),
        "dataset": DatasetSpec(name="digits"),
        "recipe": Recipe(epochs=4, batch_size=32, learning_rate=5e-3),
    }
    return VictimSpec(**values | changes)


def model_spec(name: str, **parts: Any) -> ModelSpec:
    """A network by name, or a user's own, with its options beside the other parts."""
    known = {key: parts.pop(key) for key in ("factory", "path", "source", "sha256") if key in parts}
    weights = parts.pop("weights", None)
    if weights:
        known["weights"] = Weights(location=weights, sha256=parts.pop("weights_sha256", ""))
    return ModelSpec(name=name, version=1, options=parts, **known)


def some_victim(victim_id: str = "net-digits-s0-0123456789", *, model: str = "net") -> VictimSpec:
    """One that only has its name."""
    spec = {"model": ModelSpec(name=model), "dataset": DatasetSpec(name="digits")}
    return VictimSpec(victim_id=victim_id, **spec, recipe=Recipe())


def attack_spec(name: str = "fgsm", norm: NormName = "linf", **options: Any) -> AttackSpec:
    factory = options.pop("factory", None)
    attack_id = f"{name}-{norm}-0123456789"
    return AttackSpec(attack_id=attack_id, name=name, norm=norm, options=options, factory=factory)


class FlatCell(NamedTuple):
    """A cell with what it is of."""

    cell_id: str
    victim: VictimSpec
    attack: AttackSpec
    epsilon: float


def cells_of(grid: Grid) -> list[FlatCell]:
    """All cells of a grid, in the order of the plan."""
    return [
        FlatCell(cell.cell_id, victim, attack, cell.epsilon)
        for victim, runs in expand(grid)
        for attack, cells in runs
        for cell in cells
    ]
