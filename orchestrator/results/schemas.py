"""What an output folder holds, as Arrow: what tables, figures and SQL are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from workers.shards import CERTIFICATES, DIMENSIONS, SCHEMA
from workers.unit import Kind

CELLS_FILE = "cells.parquet"
"""The table with a row for each cell, in an output folder's `tables/`."""

CERTIFIED_FILE = "certified.parquet"
"""The table with a row for each smoothed victim and epsilon, where there are any."""

CHECKS_FILE = "checks.parquet"
"""The table with a row for each finding, beside it."""

TRANSFER_FILE = "transfer.parquet"
"""The table with a row for each cell of a transfer, where there are any."""

LABELS = pa.schema([(f"{of}_label", pa.string()) for of in ("model", "dataset", "defence", "attack")])
"""Display names that the grid gives: what people read in place of names; an empty text: none. They are no
part of what is measured, and those of the latest run count."""

WANTED = pa.schema(
    [
        *DIMENSIONS,
        ("recipe", pa.string()),  # how the victim is trained, as `workers.recipe.recipe_text` says it
        ("examples", pa.int32()),  # how many, capped at the size of the test split
        # What the attack says of itself before it has run; null where it says nothing.
        ("targeted", pa.bool_()),
        ("minimum_norm", pa.bool_()),
        *LABELS,
        ("kind", pa.string()),  # of `workers.unit.Kind`; null in what earlier versions wrote: an attack
        # Of a transfer: the victim that its images were made against, and the attack that made them there;
        # of any other null, and the attack itself.
        ("source_id", pa.string()),
        ("made_by", pa.string()),
        ("network_id", pa.string()),  # the victim without its defence at inference
        # Of certificates: the noise, how many draws choose and bound, how often one may be wrong; else null.
        ("sigma", pa.float64()),
        ("n0", pa.int32()),
        ("draws", pa.int32()),
        ("alpha", pa.float64()),
    ]
)
"""The cells of the grid as last run."""


def of_kind(wanted: pa.Table, kind: Kind) -> pa.Table:
    """The cells of one kind."""
    return wanted.filter(pc.equal(pc.fill_null(wanted["kind"], "attack"), kind))


VICTIM_COLUMNS = ("model", "model_options", "recipe", "dataset", "defence", "seed", "victim_id")
"""Those of `WANTED` that name a victim."""

COVERAGE = pa.schema(
    [
        ("cell_id", pa.string()),
        ("start", pa.int32()),  # positions of the evaluation order, [start, stop)
        ("stop", pa.int32()),
        ("seconds", pa.float64()),  # the shard's seconds, divided by its number of cells
        ("device", pa.string()),
        ("code", pa.string()),  # hash of the source that made the shard; "" where it does not say
        ("versions", pa.string()),  # of the libraries that it was made with, for people; "" likewise
    ]
)
"""One row for each cell of each accepted shard."""

VICTIMS = pa.schema(
    [
        ("victim_id", pa.string()),
        ("model", pa.string()),
        ("model_options", pa.string()),
        ("recipe", pa.string()),  # as of `WANTED`
        ("dataset", pa.string()),
        ("data", pa.string()),  # fingerprint of the dataset's arrays; null where the manifest has none
        ("defence", pa.string()),
        ("seed", pa.int32()),
        ("weights", pa.string()),  # SHA-256
        ("parameters", pa.int64()),
        ("train_examples", pa.int32()),
        ("train_accuracy", pa.float32()),
        ("validation_accuracy", pa.float32()),
        ("test_accuracy", pa.float32()),  # on the first `test_examples` of the evaluation order
        ("test_examples", pa.int32()),
        ("chance", pa.float32()),  # the share of the most frequent class in the test split
        ("adversarial_accuracy", pa.float32()),  # these two as of `HISTORY`, of the last epoch
        ("validation_adversarial_accuracy", pa.float32()),
        ("class_names", pa.list_(pa.string())),  # in the order of labels; null: nobody says
        ("seconds", pa.float64()),
        ("trained_at", pa.string()),
    ]
)
"""The victims whose weights this folder is pinned to; training columns are null for one used as it is."""

PROBES = pa.schema(
    [
        ("victim_id", pa.string()),
        ("figure", pa.string()),  # a name of `workers.probes.FIGURES`
        ("value", pa.float64()),  # null: it could not be measured
    ]
)
"""What victims are like to attack, one row a figure, of victims that have been probed."""

HISTORY = pa.schema(
    [
        ("victim_id", pa.string()),
        ("epoch", pa.int32()),  # counted from 1, through all phases
        ("phase", pa.string()),  # scratch; or head, on frozen features, and fine_tune
        ("loss", pa.float32()),
        ("accuracy", pa.float32()),
        ("validation_loss", pa.float32()),
        ("validation_accuracy", pa.float32()),
        ("seconds", pa.float32()),
        # Of a network trained on adversarial images: under the training's own attack, and under PGD.
        ("adversarial_accuracy", pa.float32()),
        ("validation_adversarial_accuracy", pa.float32()),
    ]
)
"""How each victim trained, one row an epoch."""

FAILURES = pa.schema(
    [
        ("at", pa.string()),
        ("run_id", pa.string()),
        ("unit_id", pa.string()),
        ("unit", pa.string()),  # in words
        ("victim_id", pa.string()),
        ("attack_id", pa.string()),  # null for a training
        ("cells", pa.list_(pa.string())),
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("attempt", pa.int32()),
        ("final", pa.bool_()),  # no attempt was left: the unit counts as failed until --retry-failed
        ("error", pa.string()),
        ("traceback", pa.string()),
        ("worker", pa.string()),
    ]
)
"""Every attempt that failed."""


STRONGER = pa.schema(
    [
        *(WANTED.field(name) for name in ("cell_id", "victim_id", "attack_id")),
        *(WANTED.field(name) for name in ("attack", "attack_options", "norm", "epsilon")),
        ("attacked_at", pa.binary()),  # by position, as of `results.witnesses`
        ("broken_at", pa.binary()),
    ]
)
"""One row for each cell of the folder's `strengthened/`: an attack on survivors, and what it broke."""


class Measured(NamedTuple):
    """What the rows of the wanted cells come to."""

    cells: pa.Table  # `results.measured.MEASURED`
    attacks: pa.Table  # `results.measured.ATTACKS`


@dataclass(frozen=True)
class Results:
    """The accepted contents of one output folder."""

    sweep: str  # what it is called, here and in the column of that name
    examples: pads.Dataset  # rows of `workers.shards.SCHEMA`, each (cell, position) at most once
    wanted: pa.Table  # `WANTED`, of attacks on the victim itself
    measured: Callable[[], Measured]  # read when asked for
    coverage: pa.Table  # `COVERAGE`
    victims: pa.Table  # `VICTIMS`
    history: pa.Table  # `HISTORY`
    failures: pa.Table  # `FAILURES`
    probes: pa.Table  # `PROBES`
    stronger: Callable[[], pa.Table] = STRONGER.empty_table  # `STRONGER`, read when asked for
    # Whether files that its rows are read from are not there any more: `compact` has merged them.
    gone: Callable[[], bool] = lambda: False
    transfers: pa.Table = field(default_factory=WANTED.empty_table)  # `WANTED`, of transfers
    transferred: pads.Dataset = field(
        default_factory=lambda: pads.dataset(SCHEMA.empty_table())
    )  # as `examples`, of transfers
    certificates: pa.Table = field(default_factory=WANTED.empty_table)  # `WANTED`, of certificates
    certified: pads.Dataset = field(
        default_factory=lambda: pads.dataset(CERTIFICATES.empty_table())
    )  # rows of `workers.shards.CERTIFICATES`, each (cell, position) at most once
