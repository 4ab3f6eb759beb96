"""The answer to a query as a file, and as text that is too much to hold."""

from __future__ import annotations

import csv
import io
import json
import os
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import QueryError, UserError
from orchestrator.results.export import answer_text, replacing, write_answer, write_text
from orchestrator.results.query import answering, run_query
from orchestrator.results.text import BINARY, text_format
from tests.support.results import Cell, results_of

RESULTS = results_of([Cell(rows=[{}] * 4), Cell(epsilon=0.2, rows=[{}] * 4)])


def asked(sql, **limits):
    return partial(answering, RESULTS, sql, **limits)


def read(path):
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


@pytest.fixture(params=BINARY)
def file(request, tmp_path):
    return tmp_path / f"answer.{request.param}"


def write(sql, file, **limits):
    write_answer(asked(sql, **limits), file.suffix[1:], str(file))
    return read(file)


def test_a_file_holds_what_the_query_answers(file):
    for sql in ("FROM cells", "FROM examples", "SELECT * FROM cells WHERE false"):
        table = write(sql, file)
        assert table.to_pylist() == run_query(RESULTS, sql).to_pylist()
        assert table.column_names == run_query(RESULTS, sql).column_names


def test_an_answer_larger_than_memory_goes_to_a_file(file):
    table = write("SELECT range AS i FROM range(8_000_000)", file, memory_limit="50MB")
    assert (table.num_rows, table["i"][-1].as_py()) == (8_000_000, 7_999_999)


def test_whole_numbers_are_int64_where_all_of_a_column_fit(file):
    sql = """SELECT sum(range) AS fits, sum(range * 2 ** 62::HUGEINT)::DECIMAL(38, 0) AS wide
             FROM range(200_000) GROUP BY range // 3 ORDER BY 1"""
    table = write(sql, file)
    assert [str(kind) for kind in table.schema.types] == ["int64", "decimal128(38, 0)"]
    assert table["wide"][-1].as_py() == 2**62 * table["fits"][-1].as_py()


def test_columns_of_one_name_all_survive(file):
    assert write("SELECT 1 AS a, 2 AS a", file).to_pylist() == [{"a": 1, "a_2": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM cells",
        "SELECT if(range = 150_000, error('midway'), 'x') AS a FROM range(200_000)",
    ],
)
@pytest.mark.parametrize("kind", [*BINARY, "csv", "json", "md"])
def test_a_file_stays_as_it_is_when_the_query_fails(tmp_path, kind, sql):
    path = tmp_path / "answer"
    path.write_text("before")
    with pytest.raises(QueryError, match=r"nothing|midway"):
        (write_answer if kind in BINARY else write_text)(asked(sql), kind, str(path))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_parquet_cannot_hold_is_one_clear_error(tmp_path):
    with pytest.raises(QueryError, match=r"^--format parquet: .*interval.*cast what it cannot hold$"):
        write_answer(asked("SELECT INTERVAL 1 DAY AS a"), "parquet", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_with_its_permissions_and_where_a_link_leads(tmp_path):
    path, link = tmp_path / "answer.csv", tmp_path / "link.csv"
    path.write_text("before")
    path.chmod(0o640)
    link.symlink_to(path)
    write_text(asked("SELECT 1 AS a"), "csv", str(link))
    assert path.read_text() == "a\n1\n"
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (".", "is a folder"),
        ("no/such/x.csv", "cannot write .*No such file or directory"),
        (os.devnull, "no file that could be replaced"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^--out: .*{message}"), replacing(place):
        raise AssertionError("it must not get here")
    assert list(tmp_path.iterdir()) == []


def test_texts_for_programs_are_written_batch_by_batch(tmp_path):
    ask = asked("SELECT range AS i, repeat('x', 40) AS x FROM range(200_000)", memory_limit="5MB")
    write_text(ask, "csv", str(tmp_path / "x.csv"))
    with (tmp_path / "x.csv").open() as stream:
        assert sum(int(row["i"]) for row in csv.DictReader(stream)) == 19_999_900_000
    write_text(ask, "json", str(tmp_path / "x.json"))
    assert len(json.loads((tmp_path / "x.json").read_text())) == 200_000


@pytest.mark.parametrize("form", ["rich", "md"])
@pytest.mark.parametrize("value", ["range", "true", "NULL", "repeat('x', 100)"])
def test_texts_for_people_end_before_memory_does(form, value):
    ask = asked(f"SELECT {value} AS a FROM range(1_000_000)", memory_limit="64MB")
    with pytest.raises(QueryError, match="its answer is larger than 2 MB"), ask() as answer:
        "".join(answer_text(answer, text_format(form)))


@pytest.mark.parametrize("form", ["rich", "md", "csv", "json"])
def test_pieces_are_the_whole(form):
    with asked("SELECT range AS i, NULL AS n, '' AS e FROM range(100_000)")() as answer:
        text = "".join(answer_text(answer, text_format(form)))
    table = run_query(RESULTS, "SELECT range AS i, NULL AS n, '' AS e FROM range(100_000)")
    assert text == text_format(form).table(table)
    if form == "csv":
        assert next(csv.reader(io.StringIO(text.splitlines()[-1]))) == ["99999", "", ""]


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text(asked("SELECT 1 AS a"), "csv", "~/x.csv")
    assert Path(tmp_path / "x.csv").exists()
