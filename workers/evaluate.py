"""The default runner: makes sure of a victim's weights, or attacks it and leaves a shard of measurements."""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workers import datasets
from workers.defences import DEFENCES
from workers.measurement import Clock, Measurement
from workers.pins import find_pin, pin, pinned_weights
from workers.shards import publish_shard
from workers.storage import Folder
from workers.unit import UnitReport, VictimSpec, WorkerSettings, WorkUnit
from workers.victims.architectures import build_model
from workers.victims.cache import VictimCache, library_versions
from workers.victims.loaded import Victim, train_victim, victim_as_it_is
from workers.victims.progress import progress_writer
from workers.victims.runtime import device_name, set_up_tensorflow

_MAX_VICTIMS = 4
_MAX_DATASETS = 2


class WeightsMismatchError(Exception):
    """A victim has other weights than its results in this output folder; the message says what to do."""


class DataMismatchError(Exception):
    """A victim was trained on other data of the same name; the message says what to do."""


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

        Raises DatasetError, ArchitectureError, TrainingError, CacheError, DataMismatchError,
        WeightsMismatchError or AttackError, and whatever a user's own model or attack raises.
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
        if before := find_pin(self._output, victim_id):
            recorded = before.manifest.get("dataset", {})
            _check_data(recorded, dataset, f"{victim_id} in the output folder {self._settings.output}")
        spec = replace(spec, dataset={**spec.dataset, **dataset.record()})  # for the manifest
        manifest = self._cache.find(victim_id, prefer=pinned) if spec.recipe else None
        trained = bool(spec.recipe) and manifest is None
        if manifest:
            _check_data(manifest.dataset, dataset, f"{victim_id} in the cache {self._settings.cache}")
            model = build_model(spec.model, dataset.shape, dataset.classes, pretrained=False)
            self._cache.load_into(model, manifest)
            victim = Victim(model, dataset, manifest.weights)
        elif trained:
            report = progress_writer(self._output, self._settings.run_id, victim_id)
            victim, manifest = train_victim(spec, dataset, self._cache, report)
        else:
            victim, manifest = victim_as_it_is(spec, dataset)
        pinned = pin(self._output, manifest).weights
        if manifest.weights != pinned:
            raise WeightsMismatchError(
                f"the results of {victim_id} belong to the weights {pinned[:12]}…, but the cache "
                f"{self._settings.cache} has {manifest.weights[:12]}…: restore the cache folder; or, to "
                f"start over with new weights, delete shards/{victim_id} and pins/{victim_id}.* in "
                f"{self._settings.output}"
            )
        self._victims[victim_id] = victim
        _drop_oldest(self._victims, _MAX_VICTIMS)
        return victim, trained

    def _dataset(self, spec: VictimSpec) -> datasets.Dataset:
        name = spec.dataset["name"]
        if name not in self._datasets:
            self._datasets[name] = datasets.load(spec.dataset, self._settings.data_dir)
        self._datasets.move_to_end(name)
        _drop_oldest(self._datasets, _MAX_DATASETS)
        return self._datasets[name]


def _check_data(recorded: Mapping[str, Any], dataset: datasets.Dataset, victim: str) -> None:
    """DataMismatchError unless the data that a victim is recorded with are those that are here now."""
    here = dataset.record()
    before = {key: recorded.get(key, here[key]) for key in here}
    if before["fingerprint"] != here["fingerprint"]:
        then, now = (
            f"{data['train_size']:,} + {data['test_size']:,} images, SHA-256 {data['fingerprint'][:12]}…"
            for data in (before, here)
        )
        raise DataMismatchError(
            f"{victim} belongs to other data named {dataset.name} ({then}) than are here now ({now}): "
            "name the folder of the earlier ones with --data-dir; or, for these, "
            "another --output and another --cache-dir"
        )


def _drop_oldest(kept: OrderedDict[str, Any], limit: int) -> None:
    while len(kept) > limit:
        kept.popitem(last=False)
