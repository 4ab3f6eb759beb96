"""The files of `tables/`, made from everything accepted so far."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.records import robustness_records
from orchestrator.results.schemas import CELLS_FILE, CERTIFIED_FILE, CHECKS_FILE, TRANSFER_FILE
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import text_format


def table_files(
    cells: pa.Table, worst: pa.Table, transfer: pa.Table, certified: pa.Table, checks: pa.Table
) -> dict[str, bytes]:
    """`cells.parquet` (a row per cell), `checks.parquet` (a row per finding), `robustness.csv` and
    `robustness.md` (robust accuracy by epsilon); and where there are any, `transfer.parquet` (a row per cell
    of a transfer) and `certified.parquet` (a row per smoothed victim and epsilon). From
    `judged.judged_tables` of one sweep.

    They do not say of which: a folder may be called otherwise by the time that somebody reads them.
    """
    tables = robustness_tables(cells, worst)
    records = robustness_records(tables).drop_columns("sweep")
    return {
        CELLS_FILE: _parquet(cells.drop_columns("sweep")),
        CHECKS_FILE: _parquet(checks.drop_columns("sweep")),
        **{
            name: _parquet(table.drop_columns("sweep"))
            for name, table in ((TRANSFER_FILE, transfer), (CERTIFIED_FILE, certified))
            if table.num_rows
        },
        "robustness.csv": text_format("csv").table(records).encode(),
        "robustness.md": text_format("md").robustness(tables).encode(),
    }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
