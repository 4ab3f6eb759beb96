"""What is measured, as ids: a readable prefix and a hash of a canonical JSON.

How and how much (examples, slice, keep, batch sizes, devices, paths, library versions) stays out, so that
changing it recomputes nothing. `tests/test_identity.py` pins ids: one that changes there is a promise
broken to everyone with results on disk.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from orchestrator.grid import AttackEntry, DatasetEntry, Grid, ModelEntry, PretrainedWeights
from workers import metrics
from workers.datasets import ORDER_VERSION
from workers.unit import AttackSpec, VictimSpec
from workers.victims.recipe import Recipe

_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_.+-]")  # tfds:name/config has such


class Cell(NamedTuple):
    """One point of the grid. Light: a hundred thousand of them are planned in seconds."""

    cell_id: str
    victim: VictimSpec
    attack: AttackSpec
    epsilon: float  # on the [0, 1] scale


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats in their shortest exact form; ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def expand(grid: Grid) -> Iterator[Cell]:
    """Every cell of a grid, victim by victim, each attack's epsilons ascending; excluded ones left out."""
    attacks = [(attack, *attack_spec(attack, attack_seed=grid.attack_seed)) for attack in grid.attacks]
    for model in grid.models:
        for dataset in grid.datasets:
            for defence in grid.defences:
                # Nothing of a model that is evaluated as it is depends on a training seed.
                for seed in (0,) if model.as_it_is else grid.seeds:
                    victim, identity = victim_spec(grid, model, dataset, defence, seed)
                    place = {
                        "model": model.name,
                        "dataset": dataset.name,
                        "defence": defence["name"],
                        "seed": seed,
                    }
                    excludes = [e for e in grid.exclude if _agree(e, place)]
                    for entry, attack, attack_identity in attacks:
                        for epsilon in entry.epsilons[dataset.name]:
                            run = {"attack": attack.name, "norm": attack.norm, "epsilon": epsilon}
                            if any(_agree(exclude, run) for exclude in excludes):
                                continue
                            cell_id = _cell_id(victim, identity, attack, attack_identity, float(epsilon))
                            yield Cell(cell_id, victim, attack, float(epsilon))


def _agree(exclude: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    return all(place[key] == exclude[key] for key in exclude.keys() & place.keys())


def _cell_id(
    victim: VictimSpec, victim_identity: str, attack: AttackSpec, attack_identity: str, epsilon: float
) -> str:
    # The canonical JSON of the whole cell, put together from parts that are canonical already.
    text = (
        f'{{"attack":{attack_identity},"epsilon":{canonical(epsilon)},'
        f'"metrics":{metrics.VERSION},"victim":{victim_identity}}}'
    )
    return f"{_prefix(victim)}-{attack.name}-{attack.norm}-{epsilon:.6g}-{short_hash(text, 16)}"


def victim_spec(
    grid: Grid, model: ModelEntry, dataset: DatasetEntry, defence: Mapping[str, Any], seed: int
) -> tuple[VictimSpec, str]:
    """The victim of one (model, dataset, defence, seed), and its canonical identity.

    A model's `train` goes before its dataset's, and that before the grid's. Options at their defaults stay
    out of the identity: a version is raised when a default changes, so that an option can be added without
    new ids for all.
    """
    train = {**grid.train, **dataset.train, **model.train}
    weights = train.pop("weights", None)
    start, start_identity, start_text = _start(weights if model.takes_weights else None)
    recipe, recipe_identity = _recipe(model, train, pretrained=bool(start or model.path))
    data = {"name": dataset.name, **dataset.identity, "order_version": ORDER_VERSION}
    identity = canonical(
        {
            "model": {"name": model.name, **model.identity, "options": {**model.given, **start_identity}},
            "dataset": data,
            "recipe": recipe_identity,
            "defence": defence,
            "seed": seed,
        }
    )
    own = {key: getattr(model, key) for key in ("factory", "path") if getattr(model, key)}
    spec = VictimSpec(
        victim_id="",
        model={"name": model.name, **own, **model.identity, **model.options, **start},
        dataset={**data, **dataset.spec},
        recipe=recipe,
        defence=dict(defence),
        seed=seed,
        model_options=_options_text({**model.given, **start_text}),
    )
    return replace(spec, victim_id=f"{_prefix(spec)}-{short_hash(identity, 10)}"), identity


def _start(weights: PretrainedWeights | None) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What a network starts from: for workers, for the identity, and for people."""
    if weights is None:
        return {}, {}, {}
    if not weights.sha256:
        named = {"weights": weights.location}
        return named, named, named
    return (
        {"weights": weights.location, "weights_sha256": weights.sha256},
        {"weights": f"sha256:{weights.sha256}"},
        {"weights": weights.location.rpartition("/")[2]},
    )


def _recipe(
    model: ModelEntry, train: Mapping[str, Any], *, pretrained: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A victim's recipe for workers, and for the identity; empty, and None, where there is no training."""
    if model.as_it_is:
        return {}, None
    # An option that this training does not come to must not make another victim of it.
    idle = () if pretrained else Recipe.PRETRAINED_ONLY
    recipe, defaults = (
        {key: value for key, value in asdict(recipe).items() if key not in idle}
        for recipe in (Recipe(**train), Recipe())
    )
    changed = {key: value for key, value in recipe.items() if value != defaults[key]}
    return {"version": Recipe.VERSION, **recipe}, {"version": Recipe.VERSION, "options": changed}


def attack_spec(attack: AttackEntry, *, attack_seed: int) -> tuple[AttackSpec, str]:
    """An attack as workers take it, and its canonical identity."""
    # A seed that cannot change the result is no part of what is measured.
    seed = attack_seed if attack.randomised else 0
    identity = canonical(
        {
            "name": attack.name,
            "norm": attack.norm,
            **attack.identity,
            "options": attack.given,
            "adaptive": attack.adaptive,
            "seed": seed,
        }
    )
    factory = {"factory": attack.factory} if attack.factory else {}
    spec = AttackSpec(
        attack_id=f"{attack.name}-{attack.norm}-{short_hash(identity, 10)}",
        config={"name": attack.name, "norm": attack.norm, **factory, **attack.identity, **attack.options},
        name=attack.name,
        norm=attack.norm,
        options=_options_text(attack.shown),
        adaptive=attack.adaptive,
        seed=seed,
    )
    return spec, identity


def _prefix(victim: VictimSpec) -> str:
    defence = victim.defence["name"]
    parts = [victim.model["name"], victim.dataset["name"], "" if defence == "none" else defence]
    return "-".join([*(_NOT_IN_FILE_NAMES.sub("_", part) for part in parts if part), f"s{victim.seed}"])


def _options_text(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(given.items()))
