"""Tables as a JSON array with an object for each row."""

from __future__ import annotations

import json

from orchestrator.results.text.base import Columns, ForPrograms, finite, plain


class JSON(ForPrograms):
    def columns(self, columns: Columns) -> str:
        records = [
            dict(zip(columns.names, map(finite, map(plain, row)), strict=True)) for row in columns.rows
        ]
        lines = ",\n".join(
            f"  {json.dumps(record, ensure_ascii=False, allow_nan=False)}" for record in records
        )
        return f"[\n{lines}\n]\n" if lines else "[]\n"
