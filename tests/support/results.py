"""A `Results` from small synthetic rows: what the tables, queries and figures are tested on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from orchestrator.results.measured import ATTACKS, MEASURED, measure, needed_columns, summarise
from orchestrator.results.schemas import (
    COVERAGE,
    FAILURES,
    HISTORY,
    PROBES,
    STRONGER,
    VICTIMS,
    WANTED,
    Measured,
    Results,
    of_kind,
)
from workers.shards import CERTIFICATES, DIMENSIONS, SCHEMA


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A wanted cell and its rows. `rows` maps positions to what differs from `row`'s defaults."""

    model: str = "resnet50_v2"
    model_options: str = ""
    recipe: str = ""
    dataset: str = "mnist"
    defence: str = "none"
    seed: int = 0
    attack: str = "fgsm"
    attack_options: str = ""
    norm: str = "linf"
    adaptive: bool = True
    targeted: bool = False
    minimum_norm: bool = False
    epsilon: float = 0.1
    model_label: str = ""
    dataset_label: str = ""
    defence_label: str = ""
    attack_label: str = ""
    examples: int = 4
    rows: Mapping[int, Mapping[str, Any]] | Sequence[Mapping[str, Any]] = ()
    seconds: float = 1.0
    device: str = "cpu"
    code: str = "c0de"
    versions: str = "keras 3"
    source: Cell | None = None  # of images made against another victim: the attack's cell there
    # Of certificates; each row of `rows` then has a radius, and says whether the answer is right.
    sigma: float | None = None
    n0: int | None = None
    draws: int | None = None
    alpha: float | None = None

    @property
    def victim_id(self) -> str:
        return "-".join(
            (self.model, self.model_options + self.recipe, self.dataset, self.defence, f"s{self.seed}")
        )

    @property
    def attack_id(self) -> str:
        mode = "" if self.adaptive else "oblivious"
        made = "-".join((self.attack, self.attack_options, self.norm, mode))
        return f"{made}-from-{self.source.victim_id}" if self.source else made

    @property
    def made_by(self) -> str:
        return self.source.attack_id if self.source else self.attack_id

    @property
    def kind(self) -> str:
        return "certificate" if self.sigma else "transfer" if self.source else "attack"

    @property
    def source_id(self) -> str | None:
        return self.source.victim_id if self.source else None

    @property
    def network_id(self) -> str:
        return replace(self, defence="none").victim_id

    @property
    def cell_id(self) -> str:
        return f"{self.victim_id}-{self.attack_id}-{self.epsilon!r}"

    def dimensions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DIMENSIONS.names}

    def positions(self) -> dict[int, Mapping[str, Any]]:
        return dict(self.rows) if isinstance(self.rows, Mapping) else dict(enumerate(self.rows))

    @cached_property
    def table(self) -> pa.Table:
        """Its rows: of `SCHEMA`, or of `CERTIFICATES`. Made once: most tests share their cells."""
        make, schema = (certificate, CERTIFICATES) if self.kind == "certificate" else (row, SCHEMA)
        rows = [make(self, position, **values) for position, values in self.positions().items()]
        own = self.dimensions()
        columns = [
            pa.repeat(pa.scalar(own[field.name], field.type), len(rows))
            if field.name in own
            else pa.array([one.get(field.name) for one in rows], field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(columns, schema=schema)


def row(cell: Cell, position: int, **measured: Any) -> dict[str, Any]:
    """What is a row's own of `SCHEMA`: by default right on the clean image, attacked without success.

    With `success`, pass `distance`: it is put in the column of the cell's norm, and of a minimum-norm attack
    in `nearest` too, unless that is given. A targeted cell aims at class 7.
    """
    distance = measured.pop("distance", float("inf"))
    attacked = measured.get("clean_correct", True)
    values = {
        "position": position,
        "example_index": 1000 + position,
        "label": 3,
        "clean_label": 3 if measured.get("clean_correct", True) else 5,
        "clean_confidence": 0.9,
        "clean_correct": True,
        "success": False,
        "success_uint8": False,
        "linf": distance if cell.norm == "linf" else None,
        "l2": distance if cell.norm == "l2" else None,
        "forward_calls": 3,
        "gradient_calls": 2,
        "target": 7 if cell.targeted and attacked else None,
        "nearest": distance if cell.minimum_norm and attacked else None,
    }
    return {**values, **measured}


def certificate(cell: Cell, position: int, radius: float | None, *, right: bool = True) -> dict[str, Any]:
    """One row of `CERTIFICATES`, likewise; without a radius, the victim abstains."""
    answer = 3 if right else 5
    return {
        "position": position,
        "example_index": 1000 + position,
        "label": 3,
        "answer": None if radius is None else answer,
        "abstained": radius is None,
        "radius": radius,
        "top_label": answer,
        "votes": 900,
    }


def results_of(
    cells: Iterable[Cell],
    *,
    unwanted: Iterable[Cell] = (),
    victims: Sequence[Mapping[str, Any]] = (),
    history: Sequence[Mapping[str, Any]] = (),
    failures: Sequence[Mapping[str, Any]] = (),
    probes: Sequence[Mapping[str, Any]] = (),
    sweep: str = "made_up",
    stronger: Sequence[Mapping[str, Any]] = (),
) -> Results:
    """Results that hold `cells`; `unwanted` ones have rows but are in no grid any more.

    Each cell is covered by one shard for each run of consecutive positions.
    """
    wanted = list(cells)
    held = [*wanted, *unwanted]
    asked = pa.Table.from_pylist(
        [{name: getattr(cell, name) for name in WANTED.names} for cell in wanted], schema=WANTED
    )
    coverage = []
    for cell in held:
        positions = sorted(cell.positions())
        starts = [p for p in positions if p - 1 not in positions]
        stops = [p + 1 for p in positions if p + 1 not in positions]
        for start, stop in zip(starts, stops, strict=True):
            coverage.append(
                {
                    "cell_id": cell.cell_id,
                    "start": start,
                    "stop": stop,
                    "seconds": cell.seconds,
                    "device": cell.device,
                    "code": cell.code,
                    "versions": cell.versions,
                }
            )
    return Results(
        sweep=sweep,
        examples=pads.dataset(_rows(held, "attack", SCHEMA)),
        measured=lambda: measured_of(held, wanted),
        wanted=of_kind(asked, "attack"),
        transfers=of_kind(asked, "transfer"),
        transferred=pads.dataset(_rows(held, "transfer", SCHEMA)),
        certificates=of_kind(asked, "certificate"),
        certified=pads.dataset(_rows(held, "certificate", CERTIFICATES)),
        coverage=pa.Table.from_pylist(coverage, schema=COVERAGE),
        victims=_table(victims, VICTIMS),
        history=_table(history, HISTORY),
        failures=_table(failures, FAILURES),
        probes=_table(probes, PROBES),
        stronger=lambda: _table(stronger, STRONGER),
    )


def measured_of(held: Iterable[Cell], wanted: Iterable[Cell]) -> Measured:
    """As `orchestrator.store.measures` has it, of the rows of `held`."""
    cells, attacks = [MEASURED.empty_table()], []
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for cell in wanted:
        groups.setdefault((cell.victim_id, cell.attack_id, cell.norm), {})[cell.cell_id] = cell.examples
    of: dict[str, list[Cell]] = {}
    for cell in held:
        if cell.kind != "certificate":
            of.setdefault(cell.cell_id, []).append(cell)
    for (victim, attack, norm), limits in groups.items():
        own = _rows([cell for name in limits for cell in of.get(name, ())], None, SCHEMA)
        if own.num_rows:
            own = own.select(needed_columns(norm))
            cells.append(measure(own, limits, norm))
            attacks.append({"victim_id": victim, "attack_id": attack, **summarise(own, limits, norm)})
    return Measured(pa.concat_tables(cells), pa.Table.from_pylist(attacks, schema=ATTACKS))


def _rows(cells: Iterable[Cell], kind: str | None, schema: pa.Schema) -> pa.Table:
    """The rows of all cells, or of those of a kind, in their order."""
    tables = [cell.table for cell in cells if kind in (None, cell.kind)]
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in rows], schema=schema)
