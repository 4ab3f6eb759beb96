"""Tables as comma-separated values (RFC 4180, lines ending in a newline)."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from orchestrator.results.text.base import Columns, ForPrograms, finite, plain


class CSV(ForPrograms):
    def columns(self, columns: Columns) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns.names)
        writer.writerows([[_value(value) for value in row] for row in columns.rows])
        return stream.getvalue()


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    value = plain(value)
    return json.dumps(finite(value), ensure_ascii=False) if isinstance(value, list | dict) else value
