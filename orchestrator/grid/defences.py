"""The entries of a grid's `defences:`, alone and combined, and what they ask of models and datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.grid.checker import Checker
from orchestrator.grid.entries import DatasetEntry, DefenceEntry, ModelEntry, Selector, options_text
from orchestrator.grid.epsilons import EpsilonParser
from workers.defences import DEFENCES, in_training, registered
from workers.recipe import Recipe
from workers.unit import COMBINED, NO_DEFENCE, DefenceSpec


def parse_defence(check: Checker, raw: Any, epsilons: EpsilonParser) -> DefenceEntry | None:
    """A registered name, a user's own, a mapping with one and options, or a list of these; null is none.

    None, with the problems noted, for anything else.
    """
    if isinstance(raw, list):
        return _combined(check, raw, epsilons)
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
    # What certificates take changes no answer, and so is no part of the victim.
    certificate, certificate_given = (
        {key: values.pop(key) for key in defence.CERTIFICATE_OPTIONS & values.keys()}
        for values in (options, given)
    )
    spec = DefenceSpec(
        name=name,
        version=defence.VERSION,
        options=options,
        shown=options_text(given),
        in_training=defence.in_training,
    )
    return DefenceEntry(
        spec=spec,
        label=label,
        given=given,
        at_inference=defence.at_inference,
        certificate=certificate,
        certificate_given=certificate_given,
    )


def _combined(check: Checker, raw: list[Any], epsilons: EpsilonParser) -> DefenceEntry | None:
    """At most one defence in training, then those at inference, in the order in which images meet them."""
    if not raw:
        check.problem("found an empty list; none, or a list of defences that act together, is allowed")
        return None
    parts: list[DefenceEntry] = []
    for i, one in enumerate(raw):
        with check.at(i):
            if isinstance(one, list):
                check.problem("found a list in a combination; its defences stand side by side in one list")
            elif (part := parse_defence(check, one, epsilons)) is not None:
                if why := _misplaced(part, parts, alone=len(raw) == 1):
                    check.problem(why)
                else:
                    parts.append(part)
    if len(parts) < len(raw):
        return None
    if len(parts) == 1:
        return parts[0]
    specs = tuple(part.spec for part in parts)
    spec = DefenceSpec(name=COMBINED.join(one.name for one in specs), parts=specs)
    label = ""
    if any(part.label for part in parts):
        label = COMBINED.join(part.label or part.spec.label for part in parts)
    return DefenceEntry(spec=spec, label=label, at_inference=True, parts=tuple(parts))


def _misplaced(part: DefenceEntry, before: Sequence[DefenceEntry], *, alone: bool) -> str:
    """What is wrong with a part that stands behind others in a combination; "" where nothing is."""
    name = part.name
    trained = [one.name for one in before if one.spec.in_training]
    if name == NO_DEFENCE.name and not alone:
        return "found none in a combination; as an entry of its own it is a victim without defences"
    if name in (one.name for one in before):
        return f"{name} stands here twice; a combination has each of its defences once"
    if part.spec.in_training and trained:
        return (
            f"{name} and {trained[0]} both change how the network is trained; one of a combination may: "
            "make entries of their own of them"
        )
    if part.certificate and (changed := [one.name for one in before if one.at_inference]):
        return (
            f"{name} stands behind {changed[-1]}, so that noise would not be added to the image itself, and "
            f"nothing be certified of it; put {name} before it"
        )
    if part.spec.in_training and before:
        return (
            f"{name} stands behind {before[-1].name}, but the network is trained without that; put {name} "
            "first"
        )
    return ""


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
        for part in (part for part in entry.each if not part.spec.factory):
            defence = registered(part.spec)
            for dataset in datasets:
                if any(exclude.covers(defence=entry.name, dataset=dataset.name) for exclude in excludes):
                    continue
                if dataset.shape and (why := defence.misfit(dataset.shape)):
                    with check.at("defences"):
                        check.problem(
                            f"{part.name} {why}; those of {dataset.name} have "
                            f"{'×'.join(map(str, dataset.shape))} (exclude: [{{defence: {entry.name}, "
                            f"dataset: {dataset.name}}}] leaves them out)"
                        )


def check_training(
    check: Checker,
    models: Sequence[ModelEntry],
    defences: Sequence[DefenceEntry],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Selector],
    train: Mapping[str, Any],
) -> None:
    """Note every model and dataset, not excluded, whose training a defence in training cannot be a part of.

    `train` is the grid's.
    """
    for entry in defences:
        if not entry.network.spec.in_training:
            continue
        for model in models:
            left = [
                dataset
                for dataset in datasets
                if not any(
                    exclude.covers(model=model.name, defence=entry.name, dataset=dataset.name)
                    for exclude in excludes
                )
            ]
            problems: dict[str, str] = {}  # why -> the dataset that it was seen with first
            for dataset in left:
                for why in _untrainable(model, entry, {**train, **dataset.train, **model.train}):
                    problems.setdefault(why, dataset.name)
            for why in problems:
                with check.at("defences"):
                    check.problem(
                        f"{why} (exclude: [{{model: {model.name}, defence: {entry.name}}}] leaves it out)"
                    )


def _untrainable(model: ModelEntry, entry: DefenceEntry, train: Mapping[str, Any]) -> Iterator[str]:
    """Why a network cannot be trained with a defence, by its recipe."""
    name = entry.network.name
    defence = in_training(entry.spec)
    assert defence is not None
    if model.as_it_is:
        do = "give the model a train: to have it fine-tuned" if model.path else "leave train: false out"
        yield f"{name} acts in training, and {model.name} is evaluated as it is; {do}"
        return
    pretrained = bool(model.path or (model.takes_weights and train.get("weights")))
    try:
        recipe = Recipe(**{key: value for key, value in train.items() if key != "weights"})
    except ValueError:  # said where it stands
        return
    if pretrained and recipe.fine_tune == "none" and defence.alters_images:
        yield (
            f"{name} acts on images, and with fine_tune: none {model.name} trains a head on features of "
            "unchanged ones only; fine_tune: top or all is needed"
        )
    elif why := defence.misfit_of(recipe.epochs):
        yield f"{name} {why}"
