"""The answer to a query as a file: whole or not there at all, and never all of it in memory."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import ChoiceError, QueryError
from orchestrator.results.query import Answer
from orchestrator.results.text import text_format
from orchestrator.results.text.base import Columns, Format, unique

_AS_TEXT = 32
"""How many times larger than Arrow's a table of Python's values and texts may be: 8 bytes take some 230."""

Ask = Callable[[], AbstractContextManager[Answer]]


@contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A file to write to that becomes `path` at the end, and leaves nothing behind if anything is raised.

    A file that is there already is replaced then, and not before. UserError where it cannot be written.
    """
    target = Path(path).expanduser().resolve()
    if target.is_dir():
        raise _out(f"{path} is a folder; the name of a file is needed")
    if target.exists() and not target.is_file():  # /dev/null must not become a file
        raise _out(f"{path} is no file that could be replaced; the name of a file is needed")
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise _out(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _out(message: str) -> ChoiceError:
    return ChoiceError("out", f": {message}", argument="path")


def answer_text(answer: Answer, form: Format) -> Iterator[str]:
    """An answer as text, in pieces; QueryError where a format has to hold all of it, and it is too large."""
    batches = answer.batches if form.piecemeal else answer.held(_AS_TEXT, least=8)
    return form.pieces(Columns.parts(answer.schema, batches))


def write_text(ask: Ask, kind: str, path: str) -> None:
    """Write what `ask` answers to a file of `results.text.FORMATS`."""
    with ask() as answer, replacing(path) as stream:
        for piece in answer_text(answer, text_format(kind)):
            stream.write(piece.encode())


def write_answer(ask: Ask, kind: str, path: str) -> None:
    """Write what `ask` answers to a file of `results.text.BINARY`.

    Sums and other whole numbers are int64 where every one of a column fits, as of `query.run_query`; whether
    they do is seen only on the way, and then the query is asked again.
    """
    wide: set[int] = set()
    while True:
        try:
            with ask() as answer, replacing(path) as stream:
                _write(answer, kind, stream, wide)
            return
        except _WideError as error:
            wide.add(error.column)


class _WideError(Exception):
    """A whole number that int64 does not hold."""

    def __init__(self, column: int) -> None:
        self.column = column


def _write(answer: Answer, kind: str, stream: IO[bytes], wide: set[int]) -> None:
    whole = [
        i
        for i, field in enumerate(answer.schema)
        if pa.types.is_decimal(field.type) and field.type.scale == 0 and i not in wide
    ]
    names = unique(answer.schema.names)
    types = [pa.int64() if i in whole else field.type for i, field in enumerate(answer.schema)]
    schema = pa.schema(zip(names, types, strict=True))
    try:
        with _writer(kind, stream, schema) as writer:
            for batch in answer.batches:
                columns = [
                    _cast(column, i) if i in whole else column for i, column in enumerate(batch.columns)
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
    except pa.ArrowException as error:
        raise QueryError(f"--format {kind}: {str(error).splitlines()[0]}; cast what it cannot hold") from None


def _writer(kind: str, stream: IO[bytes], schema: pa.Schema) -> Any:
    if kind == "parquet":
        return pq.ParquetWriter(stream, schema, compression="zstd")
    return pa.ipc.new_file(stream, schema)


def _cast(column: pa.Array, place: int) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        raise _WideError(place) from None
