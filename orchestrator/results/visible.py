"""How visible full-budget images are: means by cell of what was measured on the first of its images."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import duckdb

from orchestrator.results.tables import Entry

# Those images are at the beginning of a cell, so that few row groups are read.
_SQL = """
SELECT e.sweep, e.cell_id, avg(e.ssim) AS ssim, avg(e.full_l2) AS l2, count(e.full_l2) AS n
FROM examples e JOIN cells c ON c.sweep = e.sweep AND c.cell_id = e.cell_id AND e.position < c.examples
WHERE e.full_l2 IS NOT NULL
GROUP BY ALL
"""

OF_VISIBLE = ("examples", "cells")
"""The views that it is read from."""

Visible = Mapping[tuple[str, str], tuple[float | None, float | None, int]]
"""Sweep and cell id -> mean SSIM (null below 11 pixels), mean L2, and of how many images."""


def visible_in(connection: duckdb.DuckDBPyConnection) -> Visible:
    """Of every cell that has any, from the views of `results.query.connect`."""
    rows = connection.sql(_SQL).fetchall()
    return {(sweep, cell): (ssim, l2, n) for sweep, cell, ssim, l2, n in rows}


def mean_of(visible: Visible, sweep: str, entry: Entry, place: int) -> float | None:
    """The mean SSIM (`place` 0) or L2 (1) of a number of a table, over all training seeds; None where any of
    these has none, and where there is no number."""
    means = [visible.get((sweep, one.of), (None, None, 0))[place] for one in entry.places]
    known = [mean for mean in means if mean is not None]
    return fmean(known) if known and len(known) == len(means) and not entry.mark else None
