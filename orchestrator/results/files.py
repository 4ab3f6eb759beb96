"""The files of `tables/`, made from everything accepted so far."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.schemas import CELLS_FILE, CHECKS_FILE, TRANSFER_FILE
from orchestrator.results.tables import robustness_records, robustness_tables
from orchestrator.results.text import text_format


def table_files(cells: pa.Table, worst: pa.Table, transfer: pa.Table, checks: pa.Table) -> dict[str, bytes]:
    """`cells.parquet` (a row per cell), `checks.parquet` (a row per finding), `robustness.csv` and
    `robustness.md` (robust accuracy by epsilon), and where there is any, `transfer.parquet` (a row per cell
    of it), from `tables.judged_tables` of one sweep.

    They do not say of which: a folder may be called otherwise by the time that somebody reads them.
    """
    tables = robustness_tables(cells, worst)
    records = robustness_records(tables).drop_columns("sweep")
    return {
        CELLS_FILE: _parquet(cells.drop_columns("sweep")),
        CHECKS_FILE: _parquet(checks.drop_columns("sweep")),
        **({TRANSFER_FILE: _parquet(transfer.drop_columns("sweep"))} if transfer.num_rows else {}),
        "robustness.csv": text_format("csv").table(records).encode(),
        "robustness.md": text_format("md").robustness(tables).encode(),
    }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
