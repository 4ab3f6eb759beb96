"""The default runner: makes sure of a victim's weights, or attacks it and leaves a shard of measurements."""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from typing import Any

from workers import datasets
from workers.defences import DEFENCES
from workers.measurement import Clock, Measurement
from workers.pins import pin, pinned_weights
from workers.shards import publish_shard
from workers.storage import Folder
from workers.unit import UnitReport, VictimSpec, WorkerSettings, WorkUnit
from workers.victims.architectures import build_model
from workers.victims.cache import VictimCache, library_versions
from workers.victims.loaded import Victim
from workers.victims.recipe import build_and_train
from workers.victims.runtime import device_name, set_up_tensorflow

_MAX_VICTIMS = 4
_MAX_DATASETS = 2


class WeightsMismatchError(Exception):
    """A victim has other weights than its results in this output folder; the message says what to do."""


class Evaluator:
    """Runs units in this process, keeping the victims and datasets that it used last."""

    def __init__(self, settings: WorkerSettings) -> None:
        set_up_tensorflow(cpus=settings.cpus, gpus=settings.gpus)
        self._settings = settings
        self._output = Folder.at(settings.output)
        self._cache = VictimCache(Folder.at(settings.cache))
        self._victims: OrderedDict[str, Victim] = OrderedDict()
        self._datasets: OrderedDict[str, datasets.Dataset] = OrderedDict()
        self._provenance = {
            **settings.provenance,
            "run_id": settings.run_id,
            "host": socket.gethostname(),
            "device": device_name(),
            "cpus": settings.cpus,
            "gpus": settings.gpus,
            "versions": library_versions(),
        }

    def __call__(self, unit: WorkUnit) -> UnitReport:
        """Run a unit.

        Raises DatasetError, ArchitectureError, TrainingError, CacheError, WeightsMismatchError or
        AttackError, and whatever a user's own model or attack raises.
        """
        clock, begun = Clock(), time.perf_counter()
        victim, trained = self._victim(unit.victim)
        clock.phases["train" if trained else "load"] = time.perf_counter() - begun
        if unit.trains:
            phases = clock.phases
            return UnitReport(unit.unit_id, weights=victim.weights, trained=trained, phases=phases)
        rows = Measurement(unit, victim, clock).rows()
        name = publish_shard(
            self._output.folder("shards"),
            unit,
            rows,
            weights=victim.weights,
            phases=clock.phases,
            provenance=self._provenance,
        )
        return UnitReport(
            unit.unit_id,
            weights=victim.weights,
            shard=f"shards/{name}",
            rows=rows.num_rows,
            phases=clock.phases,
        )

    def _victim(self, spec: VictimSpec) -> tuple[Victim, bool]:
        """The victim with the weights that the output folder is pinned to, and whether it was trained now."""
        victim_id = spec.victim_id
        pinned = pinned_weights(self._output).get(victim_id)
        held = self._victims.get(victim_id)
        if held and held.weights == pinned:
            self._victims.move_to_end(victim_id)
            return held, False
        if spec.defence["name"] not in DEFENCES:
            raise ValueError(
                f'unknown defence "{spec.defence["name"]}"; allowed: {", ".join(sorted(DEFENCES))}'
            )
        dataset = self._dataset(spec)
        manifest = self._cache.find(victim_id, prefer=pinned)
        trained = manifest is None
        if manifest is None:
            model, history = build_and_train(spec, dataset)
            manifest = self._cache.publish(model, spec, history)
        else:
            model = build_model(spec.model, dataset.shape, dataset.classes)
            self._cache.load_into(model, manifest)
        pinned = pin(self._output, manifest).weights
        if manifest.weights != pinned:
            raise WeightsMismatchError(
                f"the results of {victim_id} belong to the weights {pinned[:12]}…, but the cache "
                f"{self._settings.cache} has {manifest.weights[:12]}…: restore the cache folder; or, to "
                f"start over with new weights, delete shards/{victim_id} and pins/{victim_id}.* in "
                f"{self._settings.output}"
            )
        self._victims[victim_id] = Victim(model, dataset, manifest.weights)
        _drop_oldest(self._victims, _MAX_VICTIMS)
        return self._victims[victim_id], trained

    def _dataset(self, spec: VictimSpec) -> datasets.Dataset:
        name = spec.dataset["name"]
        if name not in self._datasets:
            self._datasets[name] = datasets.load(spec.dataset, self._settings.data_dir)
        self._datasets.move_to_end(name)
        _drop_oldest(self._datasets, _MAX_DATASETS)
        return self._datasets[name]


def _drop_oldest(kept: OrderedDict[str, Any], limit: int) -> None:
    while len(kept) > limit:
        kept.popitem(last=False)
