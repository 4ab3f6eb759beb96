"""What images that were made against other victims break beyond all attacks on the victim itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from orchestrator.results.witnesses import sized, unpacked

BEYOND = pa.schema([("cell_id", pa.string()), ("beyond", pa.int32())])
"""One row for each cell of a transfer that can be held against the worst case at its norm and epsilon."""


def beyond(transfers: pa.Table, measured: pa.Table, worst: pa.Table) -> pa.Table:
    """`BEYOND`, from `schemas.WANTED` of transfers, `measured.MEASURED` and `worst_case.WORST_CASES`.

    How many of the examples that all attacks on the victim itself have left are broken.
    """
    left = {
        (row["victim_id"], row["norm"], row["epsilon"]): unpacked(row["robust_at"])
        for row in worst.to_pylist()
    }
    columns = ("cell_id", "broken_at")
    broken = dict(zip(*(measured[name].to_pylist() for name in columns), strict=True))
    rows = []
    for cell in transfers.to_pylist():
        at = left.get((cell["victim_id"], cell["norm"], cell["epsilon"]))
        if at is None or cell["cell_id"] not in broken:
            continue
        also = sized(unpacked(broken[cell["cell_id"]]), len(at)) & at
        rows.append({"cell_id": cell["cell_id"], "beyond": int(np.count_nonzero(also))})
    return pa.Table.from_pylist(rows, schema=BEYOND)
