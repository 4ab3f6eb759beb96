"""Probing victims before a sweep: in this process, and without writing anything."""

from __future__ import annotations

from collections.abc import Iterator

from workers import datasets
from workers.defences import DefenceError
from workers.pins import find_pin
from workers.probes import Probes, find_probes
from workers.probing import probe
from workers.runtime import device_name, set_up_tensorflow
from workers.storage import Folder
from workers.unit import VictimSpec, WorkerSettings
from workers.victims.base import ArchitectureError, CacheError
from workers.victims.cache import VictimCache
from workers.victims.victim import Victim, victim_as_it_is, victim_from_cache

Checked = Probes | str | None
"""A victim's figures; why it cannot be attacked; None: it is still to be trained."""


def set_up(settings: WorkerSettings) -> None:
    """Have TensorFlow ready, and all that it says while it starts said."""
    set_up_tensorflow(cpus=settings.cpus, gpus=settings.gpus)
    device_name()


def check(victims: list[VictimSpec], settings: WorkerSettings) -> Iterator[tuple[VictimSpec, Checked]]:
    """Probe those victims that need no training, or find their figures in the output folder.

    `set_up` comes first. Those of one dataset should follow one another: one is held at a time.
    """
    output, cache = Folder.at(settings.output), VictimCache(Folder.at(settings.cache))
    held: datasets.Dataset | None = None
    for spec in victims:
        pinned = find_pin(output, spec.victim_id)
        known = find_probes(output, spec.victim_id, pinned.weights) if pinned else None
        if known is not None:
            yield spec, known
            continue
        try:
            network = spec.network
            before = find_pin(output, network.victim_id)
            prefer = before.weights if before else None
            manifest = cache.find(network.victim_id, prefer=prefer) if spec.recipe else None
            if spec.recipe and manifest is None:
                yield spec, None
                continue
            if held is None or held.name != spec.dataset.name:
                held = datasets.load(spec.dataset, settings.data_dir)
            victim: Victim
            if manifest:
                victim = victim_from_cache(network, held, cache, manifest)
            else:
                victim, _ = victim_as_it_is(network, held)
            if spec.network_id:
                victim = victim.defended(spec.defence)
            yield spec, probe(spec.victim_id, victim)
        except (ArchitectureError, CacheError, DefenceError, datasets.DatasetError) as error:
            yield spec, str(error)
