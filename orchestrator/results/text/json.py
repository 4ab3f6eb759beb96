"""Tables as a JSON array with an object for each row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from orchestrator.results.text.base import Columns, ForPrograms, finite, plain


class JSON(ForPrograms):
    piecemeal = True

    def columns(self, columns: Columns) -> str:
        return "".join(self.pieces([columns]))

    def pieces(self, parts: Iterable[Columns]) -> Iterator[str]:
        before = "[\n"
        for part in parts:
            records = (dict(zip(part.names, map(finite, map(plain, row)), strict=True)) for row in part.rows)
            lines = [f"  {json.dumps(record, ensure_ascii=False, allow_nan=False)}" for record in records]
            if lines:
                yield before + ",\n".join(lines)
                before = ",\n"
        yield "[]\n" if before == "[\n" else "\n]\n"
