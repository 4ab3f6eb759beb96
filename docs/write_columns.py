"""Writes docs/columns.md, every column of every view, from the schemas and `orchestrator.results.columns`.

python docs/write_columns.py
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as pads

from orchestrator.results.columns import MEANINGS
from orchestrator.results.fence import VIEWS
from orchestrator.results.measured import ATTACKS, MEASURED
from orchestrator.results.query import connect
from orchestrator.results.schemas import (
    COVERAGE,
    FAILURES,
    HISTORY,
    PROBES,
    VICTIMS,
    WANTED,
    Measured,
    Results,
)
from workers.shards import SCHEMA

PAGE = Path(__file__).with_name("columns.md")

HEAD = """\
# What does each column mean?

Every column of every view that `robustsweep query` knows, with DuckDB's type. What the views are, what counts
as a success and what the flags mean: [What comes out, and how do I query it?](results.md)

<!-- Written by `python docs/write_columns.py`; meanings are in orchestrator/results/columns.py. -->
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for view, columns in columns_of_views().items():
        rows = [f"| `{name}` | {kind} | {MEANINGS[view][name]} |\n" for name, kind in columns]
        parts.append(f"## {view}\n\n| column | type | meaning |\n| --- | --- | --- |\n{''.join(rows)}")
    return "\n".join(parts)


def columns_of_views() -> dict[str, list[tuple[str, str]]]:
    """The columns that DuckDB gives each view, in order: name and type."""
    results = Results(
        sweep="",
        examples=pads.dataset(SCHEMA.empty_table()),
        wanted=WANTED.empty_table(),
        measured=lambda: Measured(MEASURED.empty_table(), ATTACKS.empty_table()),
        coverage=COVERAGE.empty_table(),
        victims=VICTIMS.empty_table(),
        history=HISTORY.empty_table(),
        failures=FAILURES.empty_table(),
        probes=PROBES.empty_table(),
    )
    with connect(results) as connection:
        return {
            view: [(name, kind) for name, kind, *_ in connection.sql(f"DESCRIBE {view}").fetchall()]
            for view in VIEWS
        }


if __name__ == "__main__":
    PAGE.write_text(page())
