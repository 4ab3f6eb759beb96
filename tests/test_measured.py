"""What cells come to: equal to one SQL query over all rows, and measured once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.results.judged import cells_table
from orchestrator.results.measured import MEASURED, measure, needed_columns
from orchestrator.results.witnesses import unpacked
from orchestrator.store import measures
from orchestrator.store.folder import Store
from orchestrator.store.rows import Piece, Rows
from tests.support.sweeps import sweep, write_grid
from workers.shards import SCHEMA

ORACLE = """
SELECT
    cell_id,
    count(*) AS n,
    count(*) FILTER (WHERE clean_correct) AS correct,
    count(*) FILTER (WHERE clean_correct AND NOT success) AS robust,
    count(*) FILTER (WHERE success) AS successes,
    count(*) FILTER (WHERE success_uint8) AS successes_uint8,
    avg(linf::DOUBLE) FILTER (WHERE success) AS mean_success_distance,
    median(linf::DOUBLE) FILTER (WHERE success) AS median_success_distance,
    median(nearest::DOUBLE) FILTER (WHERE clean_correct) AS median_nearest,
    CASE WHEN count(nearest) FILTER (WHERE clean_correct) > 0
        THEN count(*) FILTER (WHERE clean_correct AND isinf(nearest)) END AS not_found,
    avg(ssim::DOUBLE) AS ssim,
    avg(psnr::DOUBLE) AS psnr,
    CASE WHEN count(*) = count(forward_calls) THEN sum(forward_calls)::BIGINT END AS forward_calls,
    CASE WHEN count(*) = count(gradient_calls) THEN sum(gradient_calls)::BIGINT END AS gradient_calls,
    map_entries(list_histogram(flatten(list(flags) FILTER (WHERE clean_correct)))) AS touched,
    count(*) FILTER (WHERE success AND NOT linf <= epsilon * (1 + 1e-5) + 1e-6) AS contradicted,
    0 AS misplaced
FROM rows WHERE position < CASE cell_id WHEN 'a' THEN 20 WHEN 'b' THEN 7 ELSE 0 END
GROUP BY cell_id ORDER BY cell_id
"""
WANTED = {"a": 20, "b": 7}  # and not c


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Rows of three cells in any order, with nulls wherever a shard may have them."""
    number = draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    correct = generator.random(number) < 0.8
    success = correct & (generator.random(number) < draw(st.sampled_from([0.0, 0.5, 1.0])))

    def sometimes(values: np.ndarray, share: float, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=generator.random(number) < share)

    minimum_norm = draw(st.booleans())
    nearest = np.where(generator.random(number) < draw(st.sampled_from([0.1, 0.5])), 2.0, np.inf)
    flags = [
        None if x < 0.6 else ["zero_gradients", "probabilities"][: 1 + (x > 0.8)]
        for x in generator.random(number)
    ]
    columns = {
        "cell_id": pa.array(generator.choice(["a", "b", "c"], number)),
        "position": pa.array(generator.integers(0, 25, number), pa.int32()),
        "clean_correct": pa.array(correct),
        "success": pa.array(success),
        "success_uint8": pa.array(success & (generator.random(number) < 0.5)),
        "ssim": sometimes(generator.random(number), 0.5, pa.float32()),
        "psnr": sometimes(np.where(generator.random(number) < 0.1, np.inf, 30.0), 0.5, pa.float32()),
        **{
            name: sometimes(
                generator.integers(0, 9, number), draw(st.sampled_from([0.0, 0.2, 1.0])), pa.int32()
            )
            for name in ("forward_calls", "gradient_calls")
        },
        "flags": pa.array(flags, pa.list_(pa.string())),
        "nearest": pa.array(nearest, mask=~(correct & minimum_norm)),
        "target": pa.nulls(number, pa.int32()),
        "epsilon": pa.array(generator.choice([0.2, 0.5, 1.0], number)),
        "linf": sometimes(np.where(success, generator.random(number), np.inf), 0.0, pa.float32()),
    }
    return pa.table({name: column.cast(SCHEMA.field(name).type) for name, column in columns.items()})


def positions(rows: pa.Table, cell: str, column: str) -> set[int]:
    """Where a column is true within what is wanted of a cell; of rows at the same position the last."""
    own = [row for row in rows.to_pylist() if row["cell_id"] == cell and row["position"] < WANTED[cell]]
    return {position for position, true in {row["position"]: row[column] for row in own}.items() if true}


@settings(max_examples=150, deadline=None)
@given(tables())
def test_measures_equal_those_of_sql(rows: pa.Table) -> None:
    found = measure(rows.select(needed_columns("linf")), WANTED, "linf").sort_by("cell_id")
    expected = duckdb.sql(ORACLE).to_arrow_table()
    assert found.schema.equals(MEASURED)
    for ours, theirs in zip(found.to_pylist(), expected.to_pylist(), strict=True):
        touched = {one["key"]: one["value"] for one in ours.pop("touched")}
        assert touched == {one["key"]: one["value"] for one in theirs.pop("touched") or []}
        name = theirs.pop("cell_id")
        assert ours.pop("cell_id") == name
        for column, bits in (("clean_correct", ours.pop("right_at")), ("success", ours.pop("broken_at"))):
            assert set(np.flatnonzero(unpacked(bits))) == positions(rows, name, column)
        attacked = rows.append_column("attacked", pc.is_valid(rows["linf"]))
        found_at = set(np.flatnonzero(unpacked(ours.pop("attacked_at"))))
        assert found_at == positions(attacked, name, "attacked")
        assert {key for key in ours if ours[key] is None} == {key for key in theirs if theirs[key] is None}
        numbers = {key: value for key, value in theirs.items() if value is not None}
        assert {key: ours[key] for key in numbers} == pytest.approx(numbers, rel=1e-9, nan_ok=True)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "moods.yaml", ["work", "other"])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the rows of each attack's shards are read."""
    counted: Counter[str] = Counter()
    original = Rows.tables

    def read(
        rows: Rows, pieces: Sequence[Piece], columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        counted.update(piece.info.attack_id.partition("-")[0] for piece in pieces)
        return original(rows, pieces, columns)

    monkeypatch.setattr(Rows, "tables", read)
    return counted


def table(output: Path) -> pa.Table:
    return cells_table(Store(str(output)).results())


def test_rows_are_read_once(grid: Path, output: Path, reads: Counter[str]) -> None:
    sweep(grid, output)
    assert reads == {"work": 2, "other": 2}
    before = table(output)
    assert reads.total() == 4
    sweep(grid, output, ["attacks.0.epsilons=[0, 0.1, 0.2]"])  # what is new is read, with its attack
    assert reads == {"work": 2 + 4, "other": 2}
    after = table(output)
    assert reads.total() == 8 and after.num_rows == before.num_rows + 1
    sweep(grid, output, ["examples=60"])
    assert set(table(output)["n"].to_pylist()) == {60}
    sweep(grid, output)
    assert table(output).drop_columns(["seconds"]).equals(before.drop_columns(["seconds"]))


def test_what_was_kept_does_not_outlive_a_change_of_measuring(
    grid: Path, output: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(grid, output)
    before, known = table(output), reads.total()
    monkeypatch.setattr(measures, "_CODE", "another")
    assert table(output).equals(before) and reads.total() == 2 * known


@pytest.mark.parametrize("damage", ["delete", "truncate", "foreign", "twice"])
def test_what_was_kept_can_be_lost(grid: Path, output: Path, reads: Counter[str], damage: str) -> None:
    sweep(grid, output)
    before = table(output)
    [segment] = (output / "measured").iterdir()
    match damage:
        case "delete":
            segment.unlink()
        case "truncate":
            segment.write_bytes(segment.read_bytes()[:100])
        case "foreign":
            pa.parquet.write_table(pa.table({"key": ["x"]}), segment)
        case "twice":  # as two drivers may leave it
            segment.with_name("twice.parquet").write_bytes(segment.read_bytes())
    assert table(output).equals(before)
    assert reads.total() == (4 if damage == "twice" else 8)
    assert table(output).equals(before) and reads.total() <= 8


def test_a_folder_that_may_only_be_read_still_has_tables(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(grid, output)
    before = table(output)
    [segment] = (output / "measured").iterdir()
    segment.unlink()

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("workers.storage.Folder.publish", refuse)
    assert table(output).equals(before)


def test_a_query_that_asks_for_no_cells_measures_none(grid: Path, output: Path, reads: Counter[str]) -> None:
    from orchestrator.results.query import run_query

    sweep(grid, output)
    (next((output / "measured").iterdir())).unlink()
    reads.clear()
    results = Store(str(output)).results()
    assert run_query(results, "SELECT count(*) AS n FROM examples")["n"].to_pylist() == [400]
    assert reads.total() == 0
    assert run_query(results, "SELECT count(*) AS n FROM Cells")["n"].to_pylist() == [4]
    assert reads.total() == 4
