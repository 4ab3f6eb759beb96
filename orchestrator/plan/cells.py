"""What is measured, as ids: a readable prefix and a hash of a canonical JSON.

How and how much (examples, slice, keep, batch sizes, devices, paths, library versions) stays out, so that
changing it recomputes nothing. `tests/test_identity.py` pins ids: one that changes there is a promise
broken to everyone with results on disk.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

from orchestrator.grid.entries import (
    AttackEntry,
    DatasetEntry,
    DefenceEntry,
    Grid,
    ModelEntry,
    options_text,
)
from workers import metrics
from workers.datasets import ORDER_VERSION
from workers.recipe import Recipe
from workers.unit import CERTIFY, COMBINED, AttackSpec, ModelSpec, VictimSpec, Weights

TRANSFER_VERSION = 1
"""Raised whenever results of transfers change: part of the identity of each of their cells."""

CERTIFY_VERSION = 1
"""The same of certificates."""

_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_.+-]")  # tfds:name/config has such


class Cell(NamedTuple):
    """One point of the grid, of a victim and an attack. Light: many thousands are planned in seconds."""

    cell_id: str
    epsilon: float  # on the [0, 1] scale
    exact: Fraction  # the same, as the grid means it


class AttackCells(NamedTuple):
    """The cells of one attack on one victim, ascending in epsilon."""

    attack: AttackSpec
    cells: tuple[Cell, ...]


class VictimCells(NamedTuple):
    """The cells of one victim, attack by attack."""

    victim: VictimSpec
    attacks: tuple[AttackCells, ...]


class _Identified(NamedTuple):
    """A victim with its cells, and what both are hashed from: canonical JSON."""

    cells: VictimCells
    identity: str
    on_others: dict[str, tuple[AttackSpec, str]]  # attack id -> its images as tried on others, their identity


def expand(grid: Grid) -> Iterator[VictimCells]:
    """Every victim of a grid with its cells; excluded ones left out, and victims and attacks without any.

    Behind its own cells come those of transfers to it: the images of each attack of each other victim of its
    dataset, at the epsilons above 0 that both are attacked at.
    """
    found = list(_attacked(grid))
    sources: dict[str, list[_Identified]] = {}
    for one in found:
        if one.on_others:
            sources.setdefault(one.cells.victim.dataset.name, []).append(one)
    for one in found:
        victim, runs = one.cells
        into = [
            run
            for source in sources.get(victim.dataset.name, ())
            if source.cells.victim.victim_id != victim.victim_id
            for run in _transfers(source, one)
        ]
        yield VictimCells(victim, (*runs, *into))


def _transfers(source: _Identified, target: _Identified) -> Iterator[AttackCells]:
    """The attacks of one victim as tried on another."""
    own = {run.attack.attack_id: {cell.epsilon for cell in run.cells} for run in target.cells.attacks}
    victim = target.cells.victim
    for run in source.cells.attacks:
        if run.attack.attack_id not in source.on_others:
            continue
        attack, identity = source.on_others[run.attack.attack_id]
        cells = tuple(
            cell._replace(cell_id=_cell_id(victim, target.identity, attack, identity, cell.epsilon))
            for cell in run.cells
            if cell.epsilon > 0 and cell.epsilon in own.get(run.attack.attack_id, ())
        )
        if cells:
            yield AttackCells(attack, cells)


def transferred(
    attack: AttackSpec, identity: str, source: VictimSpec, source_identity: str
) -> tuple[AttackSpec, str]:
    """An attack whose images are made against `source` and tried on others, and its canonical identity."""
    whole = f'{{"attack":{identity},"source":{source_identity},"transfer":{TRANSFER_VERSION}}}'
    return attack.against(source, short_hash(whole, 10)), whole


def _attacked(grid: Grid) -> Iterator[_Identified]:
    """The victims with the cells of attacks on themselves."""
    attacks = [(entry, *attack_spec(entry, attack_seed=grid.attack_seed)) for entry in grid.attacks]
    for model in grid.models:
        for dataset in grid.datasets:
            for defence in grid.defences:
                # Nothing of a model that is evaluated as it is depends on a training seed.
                for seed in (0,) if model.as_it_is else grid.seeds:
                    victim, identity = victim_spec(grid, model, dataset, defence, seed)
                    runs = []
                    on_others = {}
                    for entry, attack, attack_identity in attacks:
                        # Without a defence at inference its gradients are those of the adaptive attack.
                        if not (attack.adaptive or victim.network_id):
                            continue
                        cells = tuple(
                            Cell(
                                _cell_id(victim, identity, attack, attack_identity, float(epsilon)),
                                float(epsilon),
                                epsilon,
                            )
                            for epsilon in _epsilons(grid, entry, victim)
                        )
                        if cells:
                            runs.append(AttackCells(attack, cells))
                            if entry.transfer:
                                on_others[attack.attack_id] = transferred(
                                    attack, attack_identity, victim, identity
                                )
                    if certificates := _certificates(grid, defence, victim, identity):
                        runs.append(certificates)
                    if runs:
                        yield _Identified(VictimCells(victim, tuple(runs)), identity, on_others)


def _certificates(grid: Grid, defence: DefenceEntry, victim: VictimSpec, identity: str) -> AttackCells | None:
    """The cell of a smoothed victim's certificates: one, as each certificate says itself how far it goes."""
    smoothing = defence.certified
    if smoothing is None:
        return None
    options = dict(sorted(smoothing.certificate.items()))
    given = dict(sorted(smoothing.certificate_given.items()))
    what = canonical(
        {"name": CERTIFY, "version": CERTIFY_VERSION, "options": given, "seed": grid.attack_seed}
    )
    spec = AttackSpec(
        attack_id=f"{CERTIFY}-l2-{short_hash(what, 10)}",
        name=CERTIFY,
        norm="l2",
        options=options,
        shown=options_text(given),
        seed=grid.attack_seed,
    )
    if any(exclude.covers(**place(victim, spec)) for exclude in grid.exclude):
        return None
    text = f'{{"certificate":{what},"victim":{identity}}}'
    cell_id = f"{_prefix(victim)}-{CERTIFY}-{short_hash(text, 16)}"
    return AttackCells(spec, (Cell(cell_id, 0.0, Fraction(0)),))


def count(victims: Iterable[VictimCells]) -> int:
    """How many cells they have together."""
    return sum(len(run.cells) for victim in victims for run in victim.attacks)


def _epsilons(grid: Grid, entry: AttackEntry, victim: VictimSpec) -> Iterator[Fraction]:
    """Those of an attack on a victim that the grid does not leave out."""
    where = place(victim, entry)
    excludes = [exclude for exclude in grid.exclude if exclude.concerns(**where)]
    for epsilon in entry.epsilons[victim.dataset.name]:
        if not any(exclude.covers(**where, epsilon=epsilon) for exclude in excludes):
            yield epsilon


def place(victim: VictimSpec, attack: AttackEntry | AttackSpec) -> dict[str, str | int]:
    """What a `Selector` may say of the cells of an attack on a victim, but for their epsilons."""
    return {
        "model": victim.model.name,
        "dataset": victim.dataset.name,
        "defence": victim.defence.name,
        "seed": victim.seed,
        "attack": attack.name,
        "norm": attack.norm,
    }


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats in their shortest exact form; ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


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
    grid: Grid, model: ModelEntry, dataset: DatasetEntry, defence: DefenceEntry, seed: int
) -> tuple[VictimSpec, str]:
    """The victim of one (model, dataset, defence, seed), and its canonical identity.

    A model's `train` goes before its dataset's, and that before the grid's. Options at their defaults stay
    out of the identity: a version is raised when a default changes, so that an option can be added without
    new ids for all.
    """
    train = {**grid.train, **dataset.train, **model.train}
    weights: Weights | None = train.pop("weights", None)
    if not model.takes_weights:
        weights = None
    start, shown = _start(weights)
    recipe, recipe_identity = None, None
    if not model.as_it_is:
        recipe, recipe_identity = _recipe(train, pretrained=bool(weights or model.path))
    whole = {
        "model": {"name": model.name, **model.identity, "options": {**model.given, **start}},
        "dataset": _dataset_identity(dataset),
        "recipe": recipe_identity,
        "defence": _defence_identity(defence),
        "seed": seed,
    }
    identity = canonical(whole)
    spec = VictimSpec(
        victim_id="",
        model=ModelSpec(
            name=model.name,
            **model.identity,
            options=model.options,
            factory=model.factory,
            path=model.path,
            weights=weights,
            inference=model.inference,
            shown=options_text({**model.given, **shown}),
        ),
        dataset=dataset.spec,
        recipe=recipe,
        defence=defence.spec,
        seed=seed,
    )
    spec = replace(spec, victim_id=f"{_prefix(spec)}-{short_hash(identity, 10)}")
    if defence.at_inference:
        undefended = canonical({**whole, "defence": _defence_identity(defence.network)})
        network = replace(spec, defence=defence.spec.network)
        spec = replace(spec, network_id=f"{_prefix(network)}-{short_hash(undefended, 10)}")
    return spec, identity


def _start(weights: Weights | None) -> tuple[dict[str, str], dict[str, str]]:
    """What a network starts from, as an option: for the identity, and for people."""
    if weights is None:
        return {}, {}
    if not weights.sha256:
        return {"weights": weights.location}, {"weights": weights.location}
    return {"weights": f"sha256:{weights.sha256}"}, {"weights": weights.location.rpartition("/")[2]}


def _recipe(train: Mapping[str, Any], *, pretrained: bool) -> tuple[Recipe, dict[str, Any]]:
    """A recipe, and what of it is part of the victim's identity."""
    # An option that this training does not come to must not make another victim of it.
    idle = () if pretrained else Recipe.PRETRAINED_ONLY
    recipe = Recipe(**{key: value for key, value in train.items() if key not in idle})
    return recipe, {"version": Recipe.VERSION, "options": recipe.changed(pretrained=pretrained)}


def _dataset_identity(dataset: DatasetEntry) -> dict[str, Any]:
    spec = dataset.spec
    own = {key: value for key in ("content", "size") if (value := getattr(spec, key)) is not None}
    return {"name": spec.name, "version": spec.version, **own, "order_version": ORDER_VERSION}


def _defence_identity(defence: DefenceEntry) -> dict[str, Any] | list[Any]:
    if defence.parts:
        return [_defence_identity(part) for part in defence.parts]
    own = {"source": source} if (source := defence.spec.source) else {}
    version = {"version": version} if (version := defence.spec.version) is not None else {}
    options = {"options": defence.given} if defence.given else {}
    return {"name": defence.name, **version, **own, **options}


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
    own = {key: value for key, value in attack.identity.items() if key != "content"}
    spec = AttackSpec(
        attack_id=f"{attack.name}-{attack.norm}-{short_hash(identity, 10)}",
        name=attack.name,
        norm=attack.norm,
        options=attack.options,
        factory=attack.factory,
        **own,
        shown=attack.shown,
        adaptive=attack.adaptive,
        seed=seed,
    )
    return spec, identity


def _prefix(victim: VictimSpec) -> str:
    defence = victim.defence.name.replace(COMBINED, "+")
    parts = [victim.model.name, victim.dataset.name, "" if defence == "none" else defence]
    return "-".join([*(_NOT_IN_FILE_NAMES.sub("_", part) for part in parts if part), f"s{victim.seed}"])
