"""The entries of a grid's `attacks:`, and the files of images that stand in for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.grid.checker import Checker, show
from orchestrator.grid.entries import AttackEntry, DatasetEntry, EpsilonList, Selector
from orchestrator.grid.epsilons import EpsilonParser
from workers.attacks import REGISTRY, Attack, Stored
from workers.attacks.stored_images import StoredImages, StoredImagesError, read_stored
from workers.datasets import DATASETS
from workers.norms import NORMS
from workers.storage import absolute
from workers.unit import CERTIFY


def parse_attack(
    check: Checker,
    raw: Any,
    epsilons: EpsilonParser,
    shared: Mapping[str, Mapping[str, EpsilonList]],
    datasets: Sequence[str],
    *,
    defended: bool,
    transfer: bool,
) -> tuple[AttackEntry, StoredImages | None] | None:
    """A registered name, or a mapping with one, or a user's own; the images of `stored` come along.

    `shared` are the grid's epsilons by norm and dataset; `defended`: it has a defence at inference;
    `transfer`: images are tried on other victims, where an attack does not say otherwise and has such.
    None, with the problems noted, for anything else.
    """
    entry = check.named(raw, "attack", REGISTRY)
    if entry is None:
        return None
    name, label = entry.pop("name"), check.label(entry)
    if name == CERTIFY:
        with check.at("name"):
            check.problem(
                f'"{CERTIFY}" is what certificates are called; another is allowed for your own attack'
            )
    factory, identity = check.factory(entry)
    attack = None if factory else REGISTRY[name]
    norms = attack.NORMS if attack else tuple(NORMS)
    norm = entry.pop("norm", norms[0])
    if norm not in norms:
        with check.at("norm"):
            check.unknown(f"norm of {name}", norm, norms)
        norm = norms[0]
    radii = _epsilons(check, entry, name, norm, epsilons, shared, datasets)
    adaptive = _adaptive(check, name, attack, entry.pop("adaptive", True), defended)
    tried = _transfer(check, name, attack, entry.pop("transfer", None), adaptive, transfer)
    path, images = None, None
    if attack is None:
        options = given = check.plain_options(entry)
    elif attack is Stored:
        if (file := parse_stored(check, entry)) is None:
            return None
        path, images = file
        options, given = {"path": images.path, "content": images.content}, {}
        identity = {"version": attack.VERSION, "content": images.content}
    else:
        for key in attack.PIXEL_OPTIONS & entry.keys():
            if entry[key] is not None:
                with check.at(key):
                    entry[key] = epsilons.pixels(entry[key])
        checked = check.options(attack, entry, f"attack {name}", hidden=("norm",))
        if checked is None:
            return None
        options, given = checked
        identity = {"version": attack.VERSION}
    parsed = AttackEntry(
        name=name,
        label=label,
        norm=norm,
        factory=factory,
        path=path,
        identity=identity,
        options=options,
        given=given,
        randomised=attack.randomised if attack else True,
        adaptive=adaptive,
        transfer=tried,
        epsilons=radii,
    )
    return parsed, images


def _adaptive(check: Checker, name: str, attack: type[Attack] | None, raw: Any, defended: bool) -> bool:
    """Whether gradients are those of the victim as defended; false means something only where others are."""
    with check.at("adaptive"):
        if not isinstance(raw, bool):
            check.problem(f"found {show(raw)}; true or false is allowed")
        elif not raw and attack is not None and not attack.by_gradients:
            check.problem(f"found false; {name} uses no gradients, so it cannot use the undefended network's")
        elif not raw and not defended:
            check.problem(
                "found false; an oblivious evaluation needs a defence at inference, such as defences: "
                "[jpeg]; without one the victim's own gradients are all there are, however it was trained"
            )
    return raw is not False


def _transfer(
    check: Checker, name: str, attack: type[Attack] | None, raw: Any, adaptive: bool, shared: bool
) -> bool:
    """Whether its images are tried on other victims; one that has none such says so where it is asked."""
    why = attack.no_transfer() if attack else ""
    if not why and not adaptive:
        why = "with adaptive: false makes the undefended network's images, which that victim has already"
    if raw is None:
        return shared and not why
    with check.at("transfer"):
        if not isinstance(raw, bool):
            check.problem(f"found {show(raw)}; true or false is allowed")
        elif raw and why:
            check.problem(f"found true; {name} {why}")
    return raw is True


def transfer_warnings(grid: Mapping[str, Any], attacks: Sequence[AttackEntry], victims: int) -> list[str]:
    """What `transfer: true` in a document leaves out, and whether there is anybody to try images on."""
    tried = [attack for attack in attacks if attack.transfer]
    found = []
    if grid.get("transfer") is True:
        for name in dict.fromkeys(attack.name for attack in attacks if not attack.factory):
            if why := REGISTRY[name].no_transfer():
                found.append(f"transfer: {name} {why}, so it is left out")
    if (tried or grid.get("transfer") is True) and victims < 2:
        found.append("transfer: there is one victim only, and no other to try its images on")
    return found


def _epsilons(
    check: Checker,
    entry: dict[str, Any],
    name: str,
    norm: str,
    epsilons: EpsilonParser,
    shared: Mapping[str, Mapping[str, EpsilonList]],
    datasets: Sequence[str],
) -> dict[str, EpsilonList]:
    """By dataset: the entry's own `epsilons`, taken out of it, else the grid's for that norm."""
    own = entry.pop("epsilons", None)
    found = dict(shared.get(norm, {}))
    if own is not None:
        with check.at("epsilons"):
            found = epsilons.by_dataset(own, norm, datasets)
    for missing in [dataset for dataset in datasets if dataset not in found]:
        if own is not None or not check.broken("epsilons"):
            check.problem(f"no {norm} epsilons for {name} on {missing}: give epsilons: {{{norm}: [...]}}")
    return found


def parse_stored(check: Checker, entry: dict[str, Any]) -> tuple[str, StoredImages] | None:
    """What is left of an entry, a `path`, as the grid writes it, and its file, read and checked."""
    path = entry.pop("path", None)
    for key in entry:
        with check.at(key):
            check.unknown("option of attack stored", key, ("path",))
    if path is None:
        check.problem("stored needs the path: of an .npz with images and example_index")
        return None
    with check.at("path"):
        if not isinstance(path, str) or not path.endswith(".npz"):
            check.problem(f"found {show(path)}; the path or URI of an .npz file is allowed")
            return None
        try:
            return path, read_stored(absolute(path))
        except StoredImagesError as error:
            for problem in error.problems:
                check.problem(problem)
            return None


def check_stored(
    check: Checker,
    attacks: Sequence[tuple[AttackEntry, StoredImages]],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Selector],
) -> None:
    """Note every such attack and dataset, not excluded, whose images, epsilons or examples do not agree."""
    for attack, stored in attacks:
        for dataset in datasets:
            place = {"attack": attack.name, "norm": attack.norm, "dataset": dataset.name}
            if any(exclude.covers(**place) for exclude in excludes):
                continue
            for problem in _problems(attack, stored, dataset):
                with check.at("attacks"):
                    check.problem(
                        f"{problem}, for {dataset.name} (exclude: [{{attack: {attack.name}, "
                        f"dataset: {dataset.name}}}] leaves that out)"
                    )


def _problems(attack: AttackEntry, stored: StoredImages, dataset: DatasetEntry) -> list[str]:
    found: list[str] = []
    shape = dataset.shape or stored.images.shape[2:]
    try:
        stored.check_fits(shape, [float(epsilon) for epsilon in attack.epsilons.get(dataset.name, ())])
    except StoredImagesError as error:
        found += error.problems
    known = DATASETS.get(dataset.name)
    size = dataset.test_size or (known.info.test_size if known else None)
    if size and (last := int(stored.example_index.max())) >= size:
        found.append(
            f"{stored.path} has images of row {last} of the test split; rows up to {size - 1} are there"
        )
    return found
