"""Rows of shards as a table, and one clear error where a disk has changed them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from orchestrator.errors import StoreError
from workers.storage import first_line, redacted


def read_rows(dataset: pads.Dataset, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
    """Those columns of the rows of a dataset of `Results`, or of those rows alone that an expression allows.

    StoreError for rows that cannot be read. FileNotFoundError for a file that was merged into another
    meanwhile.
    """
    try:
        return dataset.to_table(columns=list(columns), filter=where)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot read the rows of some shard: {redacted(first_line(error))}") from None
