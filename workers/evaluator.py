"""The default runner: makes sure of a victim's weights, or attacks it and leaves a shard of measurements."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from cachetools import LRUCache

from workers import datasets, layout
from workers.certify import certificate_rows
from workers.measure import Clock, Measurement
from workers.pins import Pinned, pin, read_pin
from workers.probes import find_probes, publish_probes
from workers.probing import probe
from workers.runtime import device_name, library_versions, set_up_tensorflow
from workers.shards import device_text, publish_shard
from workers.storage import Folder
from workers.transfer import Tried, made_against
from workers.unit import (
    DatasetSpec,
    Done,
    Evaluation,
    Training,
    Transfer,
    Unit,
    VictimSpec,
    WorkerSettings,
)
from workers.victims.base import DataMismatchError, WeightsMismatchError
from workers.victims.cache import VictimCache
from workers.victims.manifest import Manifest
from workers.victims.progress import progress_writer
from workers.victims.victim import (
    Victim,
    describe_defended,
    train_victim,
    victim_as_it_is,
    victim_from_cache,
)

_VICTIM_BYTES = 2**30
"""What the victims that are kept may take together; a larger one is kept alone."""

_DATASETS = 2


class Evaluator:
    """Runs units in this process, keeping the victims and datasets that it used last."""

    def __init__(self, settings: WorkerSettings) -> None:
        set_up_tensorflow(cpus=settings.cpus, gpus=settings.gpus)
        self._settings = settings
        self._output = Folder.at(settings.output)
        self._pinned = Pinned(self._output)
        self._cache = VictimCache(Folder.at(settings.cache))
        self._victims: LRUCache[str, Victim] = LRUCache(
            _VICTIM_BYTES, getsizeof=lambda victim: min(victim.nbytes, _VICTIM_BYTES)
        )
        self._manifests: dict[str, Manifest] = {}  # of victims without a defence that were held here
        self._datasets: LRUCache[str, datasets.Dataset] = LRUCache(_DATASETS)
        device = device_name()
        self._device = device_text(device, settings.gpus)
        self._devices = settings.gpus or float(settings.cpus)
        self._provenance = {
            **settings.provenance,
            "run_id": settings.run_id,
            "host": socket.gethostname(),
            "device": device,
            "cpus": settings.cpus,
            "gpus": settings.gpus,
            "versions": library_versions(),
        }

    def __call__(self, unit: Unit) -> Done:
        """Run a unit, and say on what.

        Of a transfer, what was measured on one target is published before the next is begun.

        Raises DatasetError, ArchitectureError, TrainingError, DefenceError, CacheError, DataMismatchError,
        WeightsMismatchError or AttackError, and whatever a user's own code raises.
        """
        return replace(self._run(unit), device=self._device, devices=self._devices)

    def _run(self, unit: Unit) -> Done:
        clock, begun = Clock(), time.perf_counter()
        victim, trained = self._victim(unit.victim)
        clock.phases["train" if trained else "load"] = time.perf_counter() - begun
        if isinstance(unit, Training):
            self._probe(unit.victim.victim_id, victim, clock)
            return Done(unit_id=unit.unit_id, weights=victim.weights, trained=trained, phases=clock.phases)
        if isinstance(unit, Transfer):
            return self._transfer(unit, victim, clock)
        if unit.attack.kind == "certificate":
            with clock.phase("certify"):
                rows = certificate_rows(unit, victim)
        else:
            rows = Measurement(unit, victim, clock).rows()
        shard = self._publish(unit, rows, victim.weights, clock.phases)
        return Done(
            unit_id=unit.unit_id,
            weights=victim.weights,
            shard=shard,
            rows=rows.num_rows,
            phases=clock.phases,
        )

    def _transfer(self, unit: Transfer, source: Victim, clock: Clock) -> Done:
        with clock.phase("load"):
            targets = [self._victim(each.victim)[0] for each in unit.into]
        made = made_against(source, unit, targets, clock)
        shared = {phase: seconds / len(targets) for phase, seconds in clock.phases.items()}
        shard, count = None, 0
        for each, target in zip(unit.into, targets, strict=True):
            own = Clock(dict(shared))
            rows = Tried(each, target, own, made).rows()
            shard = self._publish(each, rows, target.weights, own.phases, source_weights=source.weights)
            count += rows.num_rows
            for phase, seconds in own.phases.items():
                clock.phases[phase] = clock.phases.get(phase, 0.0) + seconds - shared.get(phase, 0.0)
        return Done(
            unit_id=unit.unit_id, weights=source.weights, shard=shard, rows=count, phases=clock.phases
        )

    def _publish(
        self,
        unit: Evaluation,
        rows: pa.Table,
        weights: str,
        phases: Mapping[str, float],
        source_weights: str = "",
    ) -> str:
        name = publish_shard(
            self._output.folder(layout.SHARDS),
            unit,
            rows,
            weights=weights,
            phases=phases,
            provenance=self._provenance,
            source_weights=source_weights,
        )
        return f"{layout.SHARDS}/{name}"

    def _probe(self, victim_id: str, victim: Victim, clock: Clock) -> None:
        """Leave the figures of a victim before anything expensive is run on it, unless they are there."""
        if find_probes(self._output, victim_id, victim.weights) is None:
            with clock.phase("probe"):
                publish_probes(self._output, probe(victim_id, victim))

    def _victim(self, spec: VictimSpec) -> tuple[Victim, bool]:
        """The victim with the weights that the output folder is pinned to, and whether it was trained now."""
        victim_id = spec.victim_id
        pinned = self._pinned.weights(victim_id)
        held = self._victims.get(victim_id)
        if held and held.weights == pinned:
            return held, False
        if spec.network_id:
            # Pinned by itself too, so that all defences of a network in this folder are of the same one.
            network, trained = self._victim(spec.network)
            victim, manifest = network.defended(spec.defence), self._manifests[spec.network_id]
            if pinned is None:
                manifest = describe_defended(victim, manifest, spec)
        else:
            victim, manifest, trained = self._undefended(spec, pinned)
            self._manifests[victim_id] = manifest
        pinned = pinned or pin(self._output, manifest).weights
        if victim.weights != pinned:
            raise WeightsMismatchError(
                f"the results of {victim_id} belong to the weights {pinned[:12]}…, but the cache "
                f"{self._settings.cache} has {victim.weights[:12]}…: restore the cache folder; or, to "
                f"start over with new weights, delete shards/{victim_id} and pins/{victim_id}.* in "
                f"{self._settings.output}"
            )
        self._victims[victim_id] = victim
        return victim, trained

    def _undefended(self, spec: VictimSpec, pinned: str | None) -> tuple[Victim, Manifest, bool]:
        """A victim without a defence at inference, found, trained or loaded."""
        victim_id, dataset = spec.victim_id, self._dataset(spec.dataset)
        if pinned:
            recorded = read_pin(self._output, victim_id, pinned).manifest.get("dataset", {})
            _check_data(recorded, dataset, f"{victim_id} in the output folder {self._settings.output}")
        if not spec.recipe:
            return (*victim_as_it_is(spec, dataset), False)
        if manifest := self._cache.find(victim_id, prefer=pinned):
            _check_data(manifest.dataset, dataset, f"{victim_id} in the cache {self._settings.cache}")
            return victim_from_cache(spec, dataset, self._cache, manifest), manifest, False
        listen = progress_writer(self._output, self._settings.run_id, victim_id)
        return (*train_victim(spec, dataset, self._cache, listen), True)

    def _dataset(self, spec: DatasetSpec) -> datasets.Dataset:
        if spec.name not in self._datasets:
            self._datasets[spec.name] = datasets.load(spec, self._settings.data_dir)
        return self._datasets[spec.name]


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
