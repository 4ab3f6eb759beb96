"""The files of `tables/`, made from everything accepted so far."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.query import connect
from orchestrator.results.schemas import CELLS_FILE, CHECKS_FILE, Results
from orchestrator.results.tables import in_grid_order, robustness_tables
from orchestrator.results.text import text_format


def table_files(results: Results) -> dict[str, bytes]:
    """`cells.parquet` (a row per cell), `checks.parquet` (a row per finding), and `robustness.csv` and
    `robustness.md` (robust accuracy by epsilon)."""
    with connect(results) as connection:
        cells = in_grid_order(connection.sql("FROM cells").to_arrow_table(), results)
        checks = connection.sql("FROM checks").to_arrow_table()
    tables = robustness_tables(cells)
    return {
        CELLS_FILE: _parquet(cells),
        CHECKS_FILE: _parquet(checks),
        "robustness.csv": text_format("csv").robustness(tables).encode(),
        "robustness.md": text_format("md").robustness(tables).encode(),
    }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
