"""Runners that need no TensorFlow: they do as units ask, or misbehave, at once.

Their rows are made up, but follow from the unit alone, so that two sweeps can be compared.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from workers.pins import pin
from workers.runtime import set_up_tensorflow
from workers.shards import CERTIFICATES, SCHEMA, dimensions, publish_shard
from workers.storage import Folder
from workers.unit import Done, Evaluation, Training, Transfer, Unit, WorkerSettings, recorded
from workers.victims.manifest import Manifest


def weights_of(victim_id: str) -> str:
    return hashlib.sha256(victim_id.encode()).hexdigest()


class MadeUp:
    """Publishes a shard for each unit and a pin for each victim, with made-up numbers."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.output = Folder.at(settings.output)
        self.provenance = {**settings.provenance, "device": "none"}

    def __call__(self, unit: Unit) -> Done:
        weights = weights_of(unit.victim.victim_id)
        if isinstance(unit, Training):
            pin(self.output, made_up_manifest(unit, weights))
            return Done(unit_id=unit.unit_id, weights=weights, trained=True)
        name, count = None, 0
        for part in unit.into if isinstance(unit, Transfer) else (unit,):
            certified = part.attack.kind == "certificate"
            rows = made_up_certificates(part) if certified else made_up_rows(part)
            name = publish_shard(
                self.output.folder("shards"),
                part,
                rows,
                weights=weights_of(part.victim.victim_id),
                phases={"attack": 0.5},
                provenance=self.provenance,
                source_weights=weights if isinstance(unit, Transfer) else "",
            )
            count += rows.num_rows
        return Done(unit_id=unit.unit_id, weights=weights, shard=name, rows=count)


class Misbehaving(MadeUp):
    """Does what the attack's `mood` option says: raise, kill, hang, wait, or else work.

    A unit that waits says where in a file named by its process id, below the output folder's `waiting/`, and
    goes on once there is a file `go` beside it; one of the mood "wait_too" once there is `go_too`. One that
    straggles hangs at 0, the first time.
    """

    def __call__(self, unit: Unit) -> Done:
        options = unit.victim.model.options if isinstance(unit, Training) else unit.attack.options
        mood = options.get("mood")
        if mood == "raise":
            raise ValueError("this unit raises\nand says so in two lines")
        if mood == "kill":
            os._exit(7)
        if mood == "slow":
            time.sleep(0.1)
        if mood == "hang":
            time.sleep(3600)
        if mood == "straggle" and not isinstance(unit, Training) and unit.start == 0:
            with suppress(FileExistsError):
                os.close(os.open(self.output.join("straggling"), os.O_CREAT | os.O_EXCL))
                time.sleep(3600)
        if mood in ("wait", "wait_too"):
            waiting = self.output.folder("waiting")
            waiting.publish(f"{os.getpid()}.pid", unit.unit_id.encode())
            while not waiting.exists(mood.replace("wait", "go")):
                time.sleep(0.02)
        return super().__call__(unit)


class Elsewhere(MadeUp):
    """As on a machine whose own disk lies where the output is: every other shard goes there."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.shared, self.own = self.output, Folder.at(f"{settings.output}-own")
        self.units = 0

    def __call__(self, unit: Unit) -> Done:
        self.units += 1
        self.output = self.own if self.units % 2 and isinstance(unit, Evaluation) else self.shared
        return super().__call__(unit)


class Chatty(MadeUp):
    """Prints as native libraries do: past `sys.stderr`, while it starts and while it runs."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        os.write(2, b"chatter\n")

    def __call__(self, unit: Unit) -> Done:
        os.write(2, b"heard while it runs\n")
        return super().__call__(unit)


class Picky(MadeUp):
    """Starts late, and not at all on a machine whose environment forbids it."""

    def __init__(self, settings: WorkerSettings) -> None:
        if "TEST_NO_START" in os.environ:
            raise OSError("not here")
        time.sleep(2.0)
        super().__init__(settings)


class Telling(MadeUp):
    """Says in a file below the output folder's `on/` what its worker has, and waits until three have."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.told = f"{settings.cpus} CPUs, {settings.gpus:g} GPUs ({os.environ.get('CUDA_VISIBLE_DEVICES')})"

    def __call__(self, unit: Unit) -> Done:
        if isinstance(unit, Evaluation):
            self.output.publish(f"on/{os.getpid()}", self.told.encode())
            while len(self.output.files("on")) < 3:
                time.sleep(0.05)
        return super().__call__(unit)


class NeedingGpus(Misbehaving):
    """Sets TensorFlow up as a real one does, where its worker has a GPU."""

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.gpus:
            set_up_tensorflow(cpus=settings.cpus, gpus=settings.gpus)
        super().__init__(settings)


class Noop:
    """Does nothing, for measuring what is around it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings

    def __call__(self, unit: Unit) -> Done:
        return Done(unit_id=unit.unit_id, rows=unit.rows if isinstance(unit, Evaluation) else 0)


def made_up_manifest(unit: Training, weights: str) -> Manifest:
    victim = unit.victim
    return Manifest(
        victim_id=victim.victim_id,
        weights=weights,
        content="0" * 64,
        model=recorded(victim.model),
        model_options=victim.model.shown,
        dataset=recorded(victim.dataset),
        recipe={},
        defence=recorded(victim.defence),
        seed=victim.seed,
        parameters=1,
        train_examples=1,
        train_accuracy=1.0,
        validation_accuracy=1.0,
        test_accuracy=1.0,
        test_examples=1,
        chance=0.1,
        seconds=0.0,
        trained_at="2000-01-01T00:00:00+00:00",
        history=[],
        versions={},
    )


def made_up_certificates(unit: Evaluation) -> pa.Table:
    """Radii that grow by 0.004 from position to position; every tenth is wrong, every seventh abstains."""
    positions = np.arange(unit.start, unit.stop, dtype=np.int32)
    ((cell_id, epsilon),) = unit.cells
    abstained = positions % 7 == 0
    columns: dict[str, Any] = {
        name: pa.repeat(pa.scalar(value, CERTIFICATES.field(name).type), len(positions))
        for name, value in dimensions(unit.victim, unit.attack, cell_id, epsilon).items()
    }
    columns |= {
        "position": positions,
        "example_index": positions,
        "label": positions % 10,
        "answer": pa.array((positions + (positions % 10 == 0)) % 10, mask=abstained),
        "abstained": abstained,
        "radius": pa.array(0.004 * (positions % 100 + 1), mask=abstained),
        "top_label": (positions + (positions % 10 == 0)) % 10,
        "votes": np.full(len(positions), 900),
    }
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in CERTIFICATES], CERTIFICATES)


def made_up_rows(unit: Evaluation) -> pa.Table:
    """Rows of the shard schema: label and success follow from position and epsilon, and from the steps of an
    attack that is made up too."""
    steps = unit.attack.options.get("steps", 1) if unit.attack.factory else 1
    tables = []
    positions = np.arange(unit.start, unit.stop, dtype=np.int32)
    for cell_id, epsilon in unit.cells:
        n = len(positions)
        correct = positions % 10 != 0
        chosen = positions >= 0 if unit.attacked is None else np.isin(positions, unit.attacked)
        success = correct & chosen & (positions % 100 < 200 * epsilon * steps)
        distance = np.where(success, np.float32(epsilon), np.float32(np.inf))
        columns: dict[str, Any] = {
            name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), n)
            for name, value in dimensions(unit.victim, unit.attack, cell_id, epsilon).items()
        }
        columns |= {
            "position": positions,
            "example_index": positions[::-1],
            "label": positions % 10,
            "clean_label": np.where(correct, positions % 10, (positions + 1) % 10),
            "clean_confidence": np.full(n, 0.9, np.float32),
            "clean_correct": correct,
            "success": success,
            "success_uint8": success,
            **{name: pa.array(distance, mask=~(correct & chosen)) for name in ("linf", "l2", "l0")},
            "forward_calls": np.full(n, 2, np.int32),
            "gradient_calls": np.full(n, 1, np.int32),
        }
        if unit.attack.options.get("targeted"):
            columns["target"] = pa.array((positions + 2) % 10, pa.int32(), mask=~(correct & chosen))
        arrays = [
            pa.array(columns[field.name]).cast(field.type)
            if field.name in columns and not isinstance(columns[field.name], pa.Array)
            else columns.get(field.name, pa.nulls(n, field.type))
            for field in SCHEMA
        ]
        tables.append(pa.table(arrays, schema=SCHEMA))
    return pa.concat_tables(tables)
