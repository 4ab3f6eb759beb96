"""The entries of a grid's `defences:`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.grid.checker import Checker
from orchestrator.grid.entries import DatasetEntry, DefenceEntry, Selector, options_text
from orchestrator.grid.epsilons import EpsilonParser
from workers.defences import DEFENCES
from workers.unit import NO_DEFENCE, DefenceSpec


def parse_defence(check: Checker, raw: Any, epsilons: EpsilonParser) -> DefenceEntry | None:
    """A registered name, a user's own, or a mapping with one and options; null is none.

    None, with the problems noted, for anything else.
    """
    entry = check.named(NO_DEFENCE.name if raw is None else raw, "defence", DEFENCES)
    if entry is None:
        return None
    name, label = entry.pop("name"), check.label(entry)
    if "factory" in entry:
        return _own(check, name, label, entry)
    defence = DEFENCES[name]
    for key in defence.PIXEL_OPTIONS & entry.keys():
        with check.at(key):
            if (pixels := epsilons.pixels(entry[key])) is None:
                return None
            entry[key] = pixels
    checked = check.options(defence, entry, f"defence {name}")
    if checked is None:
        return None
    options, given = checked
    spec = DefenceSpec(name=name, version=defence.VERSION, options=options, shown=options_text(given))
    return DefenceEntry(spec=spec, label=label, given=given, at_inference=defence.at_inference)


def _own(check: Checker, name: str, label: str, entry: dict[str, Any]) -> DefenceEntry | None:
    if name in DEFENCES:
        with check.at("name"):
            check.problem(f'"{name}" is the name of a defence that is there; another is allowed for your own')
        return None
    factory, identity = check.factory(entry)
    options = check.plain_options(entry)
    spec = DefenceSpec(name=name, **identity, options=options, factory=factory, shown=options_text(options))
    return DefenceEntry(spec=spec, label=label, given=options, at_inference=True)


def check_defences(
    check: Checker,
    defences: Sequence[DefenceEntry],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Selector],
) -> None:
    """Note every pair of a defence and a dataset, not excluded, whose images the defence cannot take."""
    for entry in defences:
        if entry.spec.factory:
            continue
        defence = DEFENCES[entry.name](**entry.spec.options)
        for dataset in datasets:
            if any(exclude.covers(defence=entry.name, dataset=dataset.name) for exclude in excludes):
                continue
            if dataset.shape and (why := defence.misfit(dataset.shape)):
                with check.at("defences"):
                    check.problem(
                        f"{entry.name} {why}; those of {dataset.name} have "
                        f"{'×'.join(map(str, dataset.shape))} (exclude: [{{defence: {entry.name}, dataset: "
                        f"{dataset.name}}}] leaves them out)"
                    )
