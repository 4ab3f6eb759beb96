"""The files of `tables/`, made from everything accepted so far."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.formats import render_robustness
from orchestrator.results import Results
from orchestrator.tables import cells_table, robustness_tables


def table_files(results: Results) -> dict[str, bytes]:
    """`cells.parquet` (a row per cell) and `robustness.csv`, `robustness.md` (robust accuracy by epsilon)."""
    cells = cells_table(results)
    tables = robustness_tables(cells)
    sink = pa.BufferOutputStream()
    pq.write_table(cells, sink, compression="zstd")
    return {
        "cells.parquet": sink.getvalue().to_pybytes(),
        "robustness.csv": render_robustness(tables, "csv").encode(),
        "robustness.md": render_robustness(tables, "md").encode(),
    }
