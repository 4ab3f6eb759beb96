"""The command line: exit codes, what it prints, and what it must not do."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.commands.parsing import parse_duration
from orchestrator.errors import UserError
from orchestrator.grid.load import load_grid
from orchestrator.plan.labels import Labels
from orchestrator.run.prepare import prepare
from orchestrator.run.sweep import wanted_cells
from orchestrator.store.folder import Store
from orchestrator.store.records import Status
from tests.support.sweeps import sweep, write_grid
from workers.version import VERSION

ROOT = Path(__file__).parents[1]


def robustsweep(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command writes by default must not land in the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of the grid `moods.yaml` beside it."""
    folder = tmp_path_factory.mktemp("finished")
    assert sweep(write_grid(folder / "moods.yaml"), folder / "out").exit_code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failed")
    assert sweep(write_grid(folder / "moods.yaml", ["raise", "work"]), folder / "out").exit_code == 1
    return folder / "out"


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# -- bad input --------------------------------------------------------------------------------------------

BAD_GRIDS = {
    "not YAML": ("models: [", "bad.yaml"),
    "not a mapping": ("- a\n- b\n", "a mapping"),
    "empty": ("", "bad.yaml"),
    "an unknown attack": (
        "models: [small_cnn]\ndatasets: [digits]\nattacks: [fgms]\nepsilons: [0]\n",
        'did you mean "fgsm"',
    ),
}


@pytest.mark.parametrize("case", BAD_GRIDS)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_bad_grid_is_one_clear_error(case: str, command: str, tmp_path: Path) -> None:
    text, expected = BAD_GRIDS[case]
    Path("bad.yaml").write_text(text)
    result = robustsweep(command, "bad.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert files_below(tmp_path) == [tmp_path / "bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "digts"], 'did you mean "digits"'),
        (["run", "nothing/here.yaml"], "no such file: nothing/here.yaml"),
        (["run", "digits", "--set", "examples"], "key=value is allowed"),
        (["run", "digits", "--set", "examples=none"], "examples"),
        (["run", "digits", "--set", "exampels=5"], 'did you mean "examples"'),
        (["run", "digits", "--max-failures", "lots"], '--max-failures: found "lots"'),
        (["run", "digits", "--unit-timeout", "soon"], '--unit-timeout: found "soon"'),
        (["run", "digits", "--stop-after", ""], '--stop-after: found ""'),
        (["run", "digits", "--backend", "inline", "--workers", "2"], "--workers has no meaning"),
        (["run", "digits", "--backend", "inline", "--gpus-per-worker", "1"], "--gpus-per-worker has no"),
        (["run", "digits", "--backend", "inline", "--address", "auto"], "--address has no meaning"),
        (["run", "digits", "--backend", "inline", "--unit-timeout", "1m"], "--unit-timeout has no meaning"),
        (
            ["run", "digits", "--backend", "rays"],
            '--backend: found "rays"; did you mean "ray"? allowed: ray, inline',
        ),
        (
            ["table", "nowhere", "-f", "jsno"],
            '--format: found "jsno"; did you mean "json"? allowed: rich, md, csv, json',
        ),
        (["run", "digits", "-o", "nonsense://x"], "cannot open nonsense://x"),
        (
            ["run", "digits", "--set", "datasets=[mnist]", "--data-dir", "no/such/folder"],
            "--data-dir: no folder no/such",
        ),
        (["plan", "digits", "-f", "jsn"], '--format: found "jsn"; did you mean "json"? allowed: rich, json'),
        (["status", "nowhere", "-f", "csv"], '--format: found "csv"; allowed: rich, json'),
        (["table", "nowhere", "-f", "parquet"], '--format: found "parquet"; allowed: rich, md, csv, json'),
        (
            ["query", "nowhere", "SELECT 1", "-f", "paquet"],
            'did you mean "parquet"? allowed: rich, md, csv, json, html, latex, parquet, arrow',
        ),
        (["query", "nowhere", "SELECT 1", "-f", "arrow"], "--format arrow is no text that could be printed"),
        (["query", "nowhere"], "found no SQL; one of these is allowed: the statement itself, - to read it"),
        (
            ["query", "nowhere", "SELECT 1", "--file", "x.sql"],
            "found SQL and --file; one of these is allowed",
        ),
        (["query", "nowhere", "-", "--file", "x.sql"], "found SQL and --file; one of these"),
        (["query", "nowhere", "--file", "no/x.sql"], "--file: cannot read no/x.sql: No such file"),
        (["query", "nowhere", "--file", "."], "--file: cannot read .: Is a directory"),
        (["status", "nowhere"], "no such output folder: nowhere, nor outputs/nowhere"),
        (["table", "nowhere"], "no such output folder: nowhere"),
        (["query", "nowhere", "SELECT 1"], "no such output folder: nowhere"),
        (["table", "."], ". is not an output folder"),
        # No file has a name of more than 255 bytes, and most questions about one are an error then.
        (["table", "x" * 300], "no such output folder: xxx"),
        (["run", "x" * 300], 'no grid "xxx'),
        (["run", "digits", "-o", "x" * 300], "file name too long: "),
        (["run", "digits", "--cache-dir", "x" * 300], "cannot write to the cache of victims, "),
        (["run", "digits", "--set", "datasets=[mnist]", "--data-dir", "x" * 300], "file name too long: "),
        (["run", "digits", "--ship", "x" * 300], "file name too long: "),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], expected: str, tmp_path: Path) -> None:
    result = robustsweep(*arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0].startswith("error: ")
    assert expected in result.stderr
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)  # nothing else came through
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["run"], ["run", "digits", "--workers", "0"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    result = robustsweep(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage" in result.stderr
    assert files_below(tmp_path) == []


def test_an_output_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    result = robustsweep("run", "digits", "-o", "taken/out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot write to taken/out")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h1s", 3601),
        ("0", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "-5", "1m1h", "1 h", "nan", "1e3"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(UserError, match="a time such as 90s, 10m or 1h30m is allowed"):
        parse_duration(text, "--x")


# -- plan and run -----------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    result = robustsweep("run", "digits", "--dry-run", "--set", "epsilons=[0, 0.1]", "--set", "examples=100")
    assert result.exit_code == 0
    assert "8 cells: 0 done, 8 to do" in result.stdout
    assert "4 units of at most 250 examples; victims: 2 to train, or find in the cache" in result.stdout
    assert files_below(tmp_path) == []
    assert robustsweep("plan", "digits", "--set", "epsilons=[0, 0.1]", "--set", "examples=100").stdout == (
        result.stdout
    )


def test_a_plan_knows_what_is_there(finished: Path) -> None:
    grid = finished.parent / "moods.yaml"
    result = robustsweep("plan", grid, "-o", finished)
    assert "2 cells: 2 done, 0 to do" in result.stdout
    assert "nothing to run" in result.stdout
    more = robustsweep("plan", grid, "-o", finished, "--set", "examples=150")
    assert "2 cells: 0 done, 2 to do" in more.stdout
    assert "1 unit of at most 50 examples; victims: 1 to train" in more.stdout


def test_a_plan_says_what_failed(failed: Path) -> None:
    grid = failed.parent / "moods.yaml"
    assert (
        "2 failed earlier (--retry-failed tries them again)" in robustsweep("plan", grid, "-o", failed).stdout
    )
    again = robustsweep("plan", grid, "-o", failed, "--retry-failed").stdout
    assert "4 cells: 2 done, 2 to do" in again


def test_a_plan_as_json(failed: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["raise", "work", "more"], epsilons=[0, "8/255"], seeds=[0, 1])
    result = robustsweep("plan", grid, "-o", failed, "-f", "json")
    record = json.loads(result.stdout)
    counts = {name: record[name] for name in ("cells", "done", "failed", "todo", "units")}
    assert counts == {"cells": 12, "done": 1, "failed": 1, "todo": 10, "units": 12}
    assert (record["grid"], record["output"]) == ("moods", str(failed))
    assert record["victims"] == {"train": 2, "fine-tune": 0, "load": 0}
    assert [(row["attack"], row["cells"], row["todo"]) for row in record["rows"]] == [
        ("raise", 4, 3),
        ("work", 4, 3),
        ("more", 4, 4),
    ]
    assert record["rows"][0] == {
        "model": "small_cnn",
        "model_options": "",
        "recipe": "",
        **dict.fromkeys(("model_label", "dataset_label", "defence_label", "attack_label"), ""),
        "dataset": "digits",
        "defence": "none",
        "seeds": [0, 1],
        "attack": "raise",
        "attack_options": "mood=raise",
        "norm": "linf",
        "adaptive": True,
        "sources": 0,
        "epsilons": [0.0, 8 / 255],
        "examples": 100,
        "cells": 4,
        "todo": 3,
    }


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    result = robustsweep("plan", "digits", "--set", "examples=9999")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: digits has 500 test examples")
    assert "warning" not in result.stdout


def test_a_finished_sweep_runs_at_once(finished: Path) -> None:
    result = robustsweep("run", finished.parent / "moods.yaml", "-o", finished)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "moods: 2 of 2 cells done; nothing was left to run" in result.stdout
    assert f"tables are in {finished}/tables" in result.stdout


def test_a_sweep_with_failures_names_them_and_exits_with_1(failed: Path) -> None:
    result = robustsweep("run", failed.parent / "moods.yaml", "-o", failed)
    assert result.exit_code == 1
    assert "2 units failed" in result.stdout
    assert "raise linf on small_cnn on digits [0, 50): ValueError: this unit raises" in result.stdout
    assert "--retry-failed tries them again" in result.stdout


def test_a_finished_sweep_starts_neither_ray_nor_tensorflow(finished: Path) -> None:
    script = (
        "import json, sys\n"
        "from orchestrator.cli import main\n"
        f"sys.argv = ['', 'run', {str(finished.parent / 'moods.yaml')!r}, '-o', {str(finished)!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    code, modules = json.loads(run.stdout.splitlines()[-1])
    assert code == 0
    assert "pyarrow" in modules
    assert not {"ray", "tensorflow", "keras", "sklearn", "matplotlib"} & set(modules)


# -- results ----------------------------------------------------------------------------------------------


def test_tables_in_every_format(finished: Path) -> None:
    assert "small_cnn" in robustsweep("table", finished).stdout
    assert robustsweep("table", finished, "--format", "md").stdout.count("|") > 8
    rows = list(csv.DictReader(io.StringIO(robustsweep("table", finished, "--format", "csv").stdout)))
    assert [float(row["robust_accuracy"]) for row in rows] == [0.9, 0.72]
    records = json.loads(robustsweep("table", finished, "-f", "json").stdout)
    assert [record["robust_accuracy"] for record in records] == [0.9, 0.72]


def test_tables_follow_the_grid_also_when_only_its_order_has_changed(tmp_path: Path) -> None:
    for moods in (["work", "more"], ["more", "work"]):
        sweep(write_grid(tmp_path / "moods.yaml", moods), tmp_path / "out")
        records = json.loads(robustsweep("table", "out", "-f", "json").stdout)
        assert list(dict.fromkeys(record["attack"] for record in records)) == [*moods, "worst case"]
        assert [
            line.split(",")[6] for line in Path("out/tables/robustness.csv").read_text().split("\n")[1:-1:2]
        ] == [*moods, "worst case"]


def test_queries_in_every_format(finished: Path) -> None:
    sql = "SELECT epsilon, robust_accuracy FROM cells ORDER BY epsilon"
    expected = [{"epsilon": 0.0, "robust_accuracy": 0.9}, {"epsilon": 0.1, "robust_accuracy": 0.72}]
    assert json.loads(robustsweep("query", finished, sql, "-f", "json").stdout) == expected
    rows = list(csv.DictReader(io.StringIO(robustsweep("query", finished, sql, "-f", "csv").stdout)))
    assert [float(row["robust_accuracy"]) for row in rows] == [0.9, 0.72]
    assert "| epsilon | robust_accuracy |" in " ".join(
        robustsweep("query", finished, sql, "-f", "md").stdout.split()
    )
    assert "0.72" in robustsweep("query", finished, sql).stdout


def test_several_sweeps_at_once(finished: Path, failed: Path, tmp_path: Path) -> None:
    for name, place in (("a", finished), ("b", failed)):
        Path(name).symlink_to(place)
    sql = "SELECT sweep, count(*) AS n FROM cells GROUP BY ALL ORDER BY ALL"
    for outputs in (["a", "b"], ["[ab]"], ["*"]):
        result = robustsweep("query", *outputs, sql, "-f", "csv")
        assert (result.exit_code, result.stdout) == (0, "sweep,n\na,2\nb,4\n")
    Path("q.sql").write_text(sql)
    assert robustsweep("query", "a", "b", "--file", "q.sql", "-f", "csv").stdout == result.stdout
    assert "found no SQL" in robustsweep("query", "a", "b").stderr
    rows = list(csv.DictReader(io.StringIO(robustsweep("table", "a", "b", "-f", "csv").stdout)))
    assert [row["sweep"] for row in rows] == ["a"] * 2 + ["b"] * 6
    text = robustsweep("table", "a", "b", "--attack", "work", "--digits", "0", "--by", "defence").stdout
    assert "digits, linf, none: robust accuracy" in text and " 72% " in text and "worst case" not in text
    wrong = robustsweep("table", "a", "--attack", "wrok")
    assert wrong.exit_code == 2 and 'did you mean "work' in wrong.stderr
    assert "no output folder matches x*" in robustsweep("table", "x*").stderr


def test_failures_can_be_queried_with_their_tracebacks(failed: Path) -> None:
    sql = "SELECT error, traceback, final FROM failures WHERE attempt = 2"
    records = json.loads(robustsweep("query", failed, sql, "-f", "json").stdout)
    assert [record["error"] for record in records] == ["ValueError: this unit raises"] * 2
    assert all(record["final"] and "tests/support/runners.py" in record["traceback"] for record in records)


def test_a_wrong_query_is_one_clear_error(finished: Path) -> None:
    result = robustsweep("query", finished, "SELECT nothing FROM cells")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "nothing" in result.stderr
    assert robustsweep("query", finished, "COPY cells TO 'x.csv'").exit_code == 2


def test_a_syntax_error_shows_its_place_on_standard_error(finished: Path) -> None:
    result = robustsweep("query", finished, "SELECT n\nFROM cells WHERE = 3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'error: syntax error at or near "=", line 2:\n  FROM cells WHERE = 3\n                   ^\n'
    )


def test_sql_may_be_longer_than_the_name_of_a_file(finished: Path) -> None:
    sql = f"SELECT count(*) AS n FROM cells WHERE epsilon IN ({', '.join(map(str, range(300)))})"
    assert robustsweep("query", finished, sql, "-f", "csv").stdout == "n\n1\n"


def test_sql_comes_from_standard_input_or_a_file_too(finished: Path) -> None:
    sql = "SELECT epsilon\nFROM cells -- an umlaut: ü\nORDER BY 1 DESC LIMIT 1"
    Path("q.sql").write_text(sql)
    expected = "epsilon\n0.1\n"
    assert robustsweep("query", finished, "--file", "q.sql", "-f", "csv").stdout == expected
    arguments = ["query", str(finished), "-", "-f", "csv"]
    assert CliRunner().invoke(app, arguments, input=sql).stdout == expected
    nothing = CliRunner().invoke(app, arguments, input="")
    assert nothing.exit_code == 2 and nothing.stderr.startswith("error: no statement: a query is one SELECT")
    garbled = CliRunner().invoke(app, arguments, input=b"SELECT '\xff'")
    assert garbled.stderr == "error: the SQL in standard input is no text in UTF-8\n"
    Path("q.sql").write_bytes(b"SELECT '\xff'")
    assert "the SQL in q.sql is no text in UTF-8" in robustsweep("query", finished, "--file", "q.sql").stderr


def test_an_answer_goes_to_a_file(finished: Path) -> None:
    sql = "SELECT epsilon, robust_accuracy FROM cells ORDER BY epsilon"
    for name, options in (("a.parquet", []), ("b", ["-f", "parquet"])):
        result = robustsweep("query", finished, sql, "--out", name, *options)
        assert (result.exit_code, result.output) == (0, "")
        assert pq.read_table(name)["robust_accuracy"].to_pylist() == [0.9, 0.72]
    for name, options in (
        ("a.csv", []),
        ("a.json", []),
        ("a.md", []),
        ("a.txt", []),
        ("a.log", ["-f", "csv"]),
    ):
        robustsweep("query", finished, sql, "--out", name, *options)
        form = options[-1:] or {"csv": ["csv"], "json": ["json"], "md": ["md"]}.get(name[2:], ["rich"])
        assert Path(name).read_text() == robustsweep("query", finished, sql, "-f", *form).stdout
    before = Path("a.csv").read_text()
    assert robustsweep("query", finished, "SELECT nothing", "--out", "a.csv").exit_code == 2
    assert Path("a.csv").read_text() == before
    assert not list(Path().glob(".*"))


def test_a_sweep_is_called_by_its_name_too(finished: Path) -> None:
    Path("outputs").mkdir()
    Path("outputs/moods").symlink_to(finished)
    for command in (
        ["table", "moods"],
        ["status", "moods"],
        ["query", "moods", "FROM cells"],
    ):
        result = robustsweep(*command, "-f", "json")
        assert (result.exit_code, result.stderr) == (0, "")
        same = robustsweep(command[0], finished, *command[2:], "-f", "json").stdout
        assert result.stdout.replace('"sweep": "moods"', '"sweep": "out"') == same
    assert "nothing to remove" in robustsweep("clean", "moods").stdout
    assert 'nor outputs/mood; did you mean "moods"?' in robustsweep("table", "mood").stderr


def test_results_read_around_broken_shards(finished: Path) -> None:
    stranger = finished / "shards" / "stranger.parquet"
    stranger.write_bytes(b"PAR1")
    try:
        for command in (["table"], ["query"], ["status"]):
            result = robustsweep(*command, finished, *(["SELECT 1"] if command == ["query"] else []))
            assert result.exit_code == 0
            if command != ["status"]:
                assert result.stderr.startswith("warning: set aside shards/stranger.parquet: not a readable")
    finally:
        stranger.unlink()


def test_results_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml")
    prepared = prepare(load_grid(str(grid)), "out")
    wanted = wanted_cells(prepared.plan, Labels())
    prepared.store.start_run("20300101T000000", grid_text="", wanted=wanted, record={})
    assert robustsweep("table", "out").exit_code == 0
    assert json.loads(
        robustsweep("query", "out", "SELECT count(*) AS n FROM examples", "-f", "json").stdout
    ) == [{"n": 0}]
    assert "has left no status that can be read" in robustsweep("status", "out").stdout


def test_a_closed_pipe_is_no_error(finished: Path) -> None:
    command = [sys.executable, "-m", "robustsweep", "query", str(finished), "SELECT * FROM examples"]
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writing)
    assert (run.returncode, run.stderr) == (0, "")


# -- the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("models", "small_cnn"),
        ("datasets", "28×28×1"),
        ("attacks", "fgsm"),
        ("defences", "quality=75"),
        ("grids", "digits"),
    ],
)
def test_lists(what: str, expected: str) -> None:
    result = robustsweep("list", what)
    assert result.exit_code == 0
    assert expected in result.stdout


def test_init_writes_a_grid_that_plans_and_never_overwrites(tmp_path: Path) -> None:
    assert robustsweep("init").exit_code == 0
    assert files_below(tmp_path) == [tmp_path / "grid.yaml"]
    assert robustsweep("plan", "grid.yaml").exit_code == 0
    before = Path("grid.yaml").read_text()
    result = robustsweep("init")
    assert result.exit_code == 2
    assert "grid.yaml is there already" in result.stderr
    assert Path("grid.yaml").read_text() == before
    assert robustsweep("init", "no/such/folder/grid.yaml").exit_code == 2


def test_version_and_help() -> None:
    for option in ("--version", "-V"):
        assert robustsweep(option).stdout == f"robustsweep {VERSION}\n"
    text = robustsweep("--help").stdout
    assert all(command in text for command in ("run", "plan", "status", "table", "query", "list", "init"))
    assert "--retry-failed" in robustsweep("run", "--help").stdout


def test_a_pipe_is_as_wide_as_its_lines_need(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    result = robustsweep("plan", "digits", "--set", "pixel_range=[-1, 1]")
    assert max(len(line) for line in result.stdout.splitlines()) > 80
    assert "\x1b" not in result.stdout


def test_a_status_as_json(failed: Path, tmp_path: Path) -> None:
    record = json.loads(robustsweep("status", failed, "-f", "json").stdout)
    assert list(record) == [*(each.name for each in fields(Status)), "life", "used_by_all"]
    assert (record["life"], record["state"], record["cells_done"], record["units_failed"]) == (
        "ended",
        "finished",
        2,
        2,
    )
    assert record["run_id"] == Store(str(failed)).run_ids()[-1]
    prepared = prepare(load_grid(str(write_grid(tmp_path / "moods.yaml"))), "out")
    prepared.store.start_run(
        "20300101T000000", grid_text="", wanted=wanted_cells(prepared.plan, Labels()), record={}
    )
    begun = json.loads(robustsweep("status", "out", "-f", "json").stdout)
    assert list(begun) == list(record)
    assert {name: value for name, value in begun.items() if value is not None} == {
        "run_id": "20300101T000000",
        "life": "unknown",
    }


def test_status_of_a_finished_run(finished: Path) -> None:
    result = robustsweep("status", finished)
    assert result.exit_code == 0
    assert Store(str(finished)).run_ids()[-1] in result.stdout
    assert "2 of 2 done" in result.stdout
