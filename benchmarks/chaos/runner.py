"""Runners that write down what they do, and misbehave when they are told to."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

from benchmarks.chaos.sabotage import sabotage
from benchmarks.chaos.scene import PACE, Scene
from tests.support.runners import MadeUp, made_up_rows, weights_of
from workers.shards import publish_shard
from workers.unit import Done, Evaluation, Runner, Training, Unit, WorkerSettings

SECONDS = (0.02, 0.12)  # that a unit takes, by its name
MEMORY = 64 * 2**20  # of the control group in which a unit runs that takes more


def name_of(unit: Unit) -> str:
    """What is computed, the same in every run."""
    if isinstance(unit, Training):
        return f"train/{unit.victim.victim_id}"
    return f"{unit.victim.victim_id}/{unit.attack.attack_id}/{unit.start}-{unit.stop}"


class Watched:
    """Has another runner do its units, and writes down that it did."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.scene = Scene.here()
        self.run_id = settings.run_id
        self.inner = self.make(settings)
        sabotage(self.scene)

    def make(self, settings: WorkerSettings) -> Runner:
        raise NotImplementedError

    def __call__(self, unit: Unit) -> Done:
        with self.scene.executing(name_of(unit), self.run_id):
            mood = self.scene.mood() if isinstance(unit, Evaluation) else ""
            if mood:
                self.scene.log("mood", mood, self.run_id)
            match mood:
                case "hang":
                    time.sleep(3600)
                case "memory":
                    eat(self.scene.group)
            return self.inner(unit)


class Light(Watched):
    """Needs no TensorFlow."""

    def make(self, settings: WorkerSettings) -> Runner:
        return Rows(settings)


class Real(Watched):
    """What workers run in earnest."""

    def make(self, settings: WorkerSettings) -> Runner:
        from workers.evaluator import Evaluator

        return Evaluator(settings)


class Rows(MadeUp):
    """Made-up rows that follow from cell and position alone, however units are cut."""

    def __call__(self, unit: Unit) -> Done:
        low, high = (float(os.environ.get(PACE, 1)) * seconds for seconds in SECONDS)
        time.sleep(low + (high - low) * (zlib.crc32(name_of(unit).encode()) % 1000) / 1000)
        if not isinstance(unit, Evaluation):
            return super().__call__(unit)
        weights, rows = weights_of(unit.victim.victim_id), made_up_rows(unit)
        column = rows.schema.get_field_index("example_index")
        rows = rows.set_column(column, rows.schema.field(column), rows["position"])
        shards = self.output.folder("shards")
        phases = {"attack": 0.1}
        name = publish_shard(shards, unit, rows, weights=weights, phases=phases, provenance=self.provenance)
        return Done(unit_id=unit.unit_id, weights=weights, shard=name, rows=rows.num_rows)


def eat(group: Path) -> None:
    """Take memory in a control group that has little, until the kernel ends this process."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    held = []
    for _ in range(8 * MEMORY // 2**20):
        held.append(os.urandom(2**20))
    raise RuntimeError(f"{len(held)} MiB were taken, and the kernel did not mind")
