"""Tables as comma-separated values (RFC 4180, lines ending in a newline).

A missing value is an empty field, an empty text is `""`: the standard library's writer makes one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.results.text.base import Columns, ForPrograms, finite, plain

_QUOTED = re.compile(r'[",\r\n]')


class CSV(ForPrograms):
    piecemeal = True

    def columns(self, columns: Columns) -> str:
        return "".join(self.pieces([columns]))

    def pieces(self, parts: Iterable[Columns]) -> Iterator[str]:
        for i, part in enumerate(parts):
            rows = part.rows if i else [part.names, *part.rows]
            yield "".join(f"{','.join(map(_field, row))}\n" for row in rows)


def _field(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    value = plain(value)
    if value is None:
        return ""
    text = json.dumps(finite(value), ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    if text and not _QUOTED.search(text):
        return text
    escaped = text.replace('"', '""')
    return f'"{escaped}"'
