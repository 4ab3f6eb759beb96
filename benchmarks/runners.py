"""What workers run in the benchmarks, besides the runners of the tests."""

from __future__ import annotations

import os
import time

import pyarrow as pa

from tests.support.runners import MadeUp, made_up_rows, weights_of
from workers.shards import publish_shard
from workers.unit import Done, Training, Unit, WorkerSettings

LOAD_SECONDS = 0.3


class Publisher(MadeUp):
    """Publishes a shard for each unit; rows are made once per attack, so that publishing is what costs."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.shards = self.output.folder("shards")
        self.rows: dict[tuple[tuple[str, float], ...], pa.Table] = {}

    def __call__(self, unit: Unit) -> Done:
        if isinstance(unit, Training):
            return super().__call__(unit)
        if unit.cells not in self.rows:
            self.rows[unit.cells] = made_up_rows(unit)
        rows = self.rows[unit.cells]
        column = rows.schema.get_field_index("position")
        positions = [*range(unit.start, unit.stop)] * len(unit.cells)
        rows = rows.set_column(column, rows.schema.field(column), [pa.array(positions, pa.int32())])
        weights = weights_of(unit.victim.victim_id)
        name = publish_shard(
            self.shards, unit, rows, weights=weights, phases={"attack": 0.0}, provenance=self.provenance
        )
        return Done(unit_id=unit.unit_id, weights=weights, shard=name, rows=rows.num_rows)


class Loader(MadeUp):
    """Leaves a file for each training, `trained/<victim>.<process>`, and for each victim that this process
    did not hold, `loaded/<victim>.<process>`. Either takes a moment, as it does in earnest."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.held: set[str] = set()

    def __call__(self, unit: Unit) -> Done:
        victim_id = unit.victim.victim_id
        mark = f"{victim_id}.{os.getpid()}"
        if isinstance(unit, Training):
            self.output.publish(f"trained/{mark}", b"")
        if victim_id not in self.held:
            self.held.add(victim_id)
            self.output.publish(f"loaded/{mark}", b"")
            time.sleep(LOAD_SECONDS)
        return super().__call__(unit)
