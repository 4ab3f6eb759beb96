"""What earlier sweeps took, by device: shards and trainings of output folders, as `plan.cost` has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from orchestrator.plan.cost import Basis, Cost, Timed, TimedTraining, estimate, kind_of, training_kind
from orchestrator.run.prepare import Prepared
from orchestrator.store.accepted import Accepted
from orchestrator.store.folder import Store
from workers.pins import Pin
from workers.shards import ShardInfo
from workers.storage import Folder
from workers.victims.cache import VictimCache


def timed(folders: Iterable[tuple[Store, Accepted]]) -> dict[str, Basis]:
    """By device. What a device's share was is known of shards; trainings are taken to have had that of the
    shards of their victim, where those are all of one device, and where they were trained in this folder."""
    bases: dict[str, Basis] = {}
    for store, accepted in folders:
        pins = store.pins()
        kinds = {
            name: kind_of(*(pin.manifest.get(part, {}) for part in ("model", "dataset", "defence")))
            for name, pin in pins.items()
        }
        where: dict[str, Counter[tuple[str, float]]] = {}
        for info in accepted.infos:
            if info.attacked is not None:  # survivors: those that are hard to break
                continue
            basis = bases.setdefault(info.on, Basis())
            where.setdefault(info.victim_id, Counter())[info.on, info.devices] += 1
            _add(basis.exact.setdefault((info.victim_id, info.attack_id), Timed()), info)
            if info.victim_id in kinds:
                _add(basis.alike.setdefault((kinds[info.victim_id], info.attack_id), Timed()), info)
        began = _began(store)
        for name, pin in pins.items():
            devices = where.get(name, Counter())
            if began is None or len({device for device, _ in devices}) != 1 or not _trained_since(pin, began):
                continue
            [(device, share), *others] = devices
            if not others:
                _add_training(bases[device], pin, share)
    return bases


def costs(prepared: Prepared, *, cache: str, others: Sequence[Store] = ()) -> list[Cost]:
    """What is left of a plan will take, by what was timed in its folder and in others; `cache` is where its
    victims are kept."""
    folders = [(prepared.store, prepared.accepted), *((store, store.accepted_shards()) for store in others)]
    victims = VictimCache(Folder.at(cache))
    return estimate(prepared.plan, timed(folders), cached=lambda name: victims.find(name) is not None)


def _add(time: Timed, info: ShardInfo) -> None:
    share = info.devices
    time.add(
        info.victim_id,
        seconds=share * (info.seconds - info.setup - info.visible),
        visible=share * info.visible,
        setup=share * info.setup,
        start=info.start,
        stop=info.stop,
        cells=len(info.cells),
    )


def _add_training(basis: Basis, pin: Pin, share: float) -> None:
    manifest = pin.manifest
    recipe, dataset, model = (manifest.get(part, {}) for part in ("recipe", "dataset", "model"))
    epochs, seconds = len(manifest.get("history", ())), float(manifest.get("seconds", 0.0))
    if not recipe or not epochs or "train_size" not in dataset:
        return
    pretrained = bool(model.get("path") or model.get("weights"))
    kind = training_kind(model, dataset, manifest.get("defence", {}), recipe, pretrained=pretrained)
    basis.trainings[kind] = TimedTraining(recipe, int(dataset["train_size"]), epochs, share * seconds)


def _began(store: Store) -> datetime | None:
    """When the first run into a folder began, by its id."""
    try:
        return datetime.strptime(store.run_ids()[0].split("-")[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return None


def _trained_since(pin: Pin, began: datetime) -> bool:
    """Whether in this folder; else it was found in the cache, and nobody knows on what it was trained."""
    try:
        return datetime.fromisoformat(str(pin.manifest["trained_at"])) >= began
    except (KeyError, ValueError, TypeError):
        return False
