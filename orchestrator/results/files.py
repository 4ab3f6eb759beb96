"""The files of `tables/`, made from everything accepted so far."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.schemas import CELLS_FILE, Results
from orchestrator.results.tables import cells_and_worst_cases, robustness_tables
from orchestrator.results.text import text_format


def table_files(results: Results) -> dict[str, bytes]:
    """`cells.parquet` (a row per cell) and `robustness.csv`, `robustness.md` (robust accuracy by epsilon)."""
    cells, worst = cells_and_worst_cases(results)
    tables = robustness_tables(cells, worst)
    sink = pa.BufferOutputStream()
    pq.write_table(cells, sink, compression="zstd")
    return {
        CELLS_FILE: sink.getvalue().to_pybytes(),
        "robustness.csv": text_format("csv").robustness(tables).encode(),
        "robustness.md": text_format("md").robustness(tables).encode(),
    }
