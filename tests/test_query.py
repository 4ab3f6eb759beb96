"""The views' numbers, and that a query reaches nothing but the views."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from orchestrator.errors import QueryError
from orchestrator.results.fence import VIEWS, checked
from orchestrator.results.query import answering, connect, run_query
from tests.support.results import Cell, results_of
from workers.shards import SCHEMA

BROKEN = {"success": True, "success_uint8": True, "distance": 0.05}
WRONG = {"clean_correct": False}


def rows(results, sql):
    return run_query(results, sql).to_pylist()


def only(results, sql="FROM cells"):
    (row,) = rows(results, sql)
    return row


@pytest.fixture(scope="module")
def small():
    return results_of([Cell(rows=[{}, BROKEN, WRONG, {}]), Cell(epsilon=0.2)])


@pytest.fixture(scope="module")
def connection(small):
    with connect(small) as opened:
        yield opened


def test_a_cell_measures_what_it_says():
    cell = Cell(
        norm="l2",
        epsilon=8.0,
        examples=5,
        rows=[
            {"ssim": 0.5, "psnr": 20.0},
            {"success": True, "success_uint8": True, "distance": 1.0, "ssim": 0.7, "psnr": 30.0},
            {"success": True, "distance": 2.0},
            {"success": True, "distance": 6.0, "linf": 0.5},
            WRONG,
        ],
        seconds=2.5,
        device="gpu",
    )
    found = only(results_of([cell]))
    assert (found["n"], found["examples"], found["status"], found["device"]) == (5, 5, "done", "gpu")
    assert found["clean_accuracy"] == 4 / 5
    assert found["robust_accuracy"] == 1 / 5
    assert found["attack_success_rate"] == 3 / 4
    assert found["attack_success_rate_uint8"] == 1 / 4
    assert found["mean_success_distance"] == 3.0
    assert found["median_success_distance"] == 2.0
    assert found["ssim"] == pytest.approx(0.6)
    assert found["psnr"] == 25.0
    assert (found["forward_calls"], found["gradient_calls"]) == (15, 10)
    assert found["seconds"] == 2.5
    assert found["flags"] == []
    assert {name: found[name] for name in cell.dimensions()} == cell.dimensions()


def test_flags_of_a_cell_are_those_that_touch_one_in_a_hundred_of_its_correct_examples():
    flagged, wrong = {"flags": ["zero_gradients", "randomised"]}, {**WRONG, "flags": ["probabilities"]}
    rows = [flagged, wrong, *({"flags": ["zero_gradients"]} for _ in range(2)), *({} for _ in range(197))]
    assert only(results_of([Cell(examples=201, rows=rows)]))["flags"] == ["zero_gradients"]
    assert only(results_of([Cell(examples=100, rows=rows[:101])]))["flags"] == [
        "randomised",
        "zero_gradients",
    ]
    cell = Cell(examples=1, rows=[flagged, flagged])  # the second is beyond what is wanted
    victims = [{"victim_id": cell.victim_id, "test_accuracy": 0.1, "chance": 0.1}]
    found = only(results_of([cell], victims=victims))["flags"]
    assert found == ["victim_weak", "randomised", "zero_gradients"]
    assert only(results_of([Cell(examples=1, rows=[wrong])]))["flags"] == []


def test_nothing_to_divide_by_is_null_not_nan():
    found = only(results_of([Cell(examples=1, rows=[WRONG])]))
    assert found["attack_success_rate"] is None
    assert found["mean_success_distance"] is None
    assert (found["clean_accuracy"], found["robust_accuracy"]) == (0.0, 0.0)


def test_a_missing_cell_has_no_numbers(small):
    missing = only(small, "FROM cells WHERE epsilon = 0.2")
    assert (missing["n"], missing["status"]) == (0, "missing")
    for name in (
        "clean_accuracy",
        "robust_accuracy",
        "robust_low",
        "robust_high",
        "attack_success_rate",
        "device",
    ):
        assert missing[name] is None, name


@pytest.mark.parametrize(("robust", "n"), [(0, 50), (50, 50), (1, 3), (37, 100), (999, 1000)])
def test_the_interval_is_wilsons(robust, n):
    cell = Cell(examples=n, rows=[{}] * robust + [BROKEN] * (n - robust))
    results = results_of([cell])
    expected = binomtest(robust, n).proportion_ci(method="wilson")
    for view in ("cells", "worst_case"):
        found = only(results, f"FROM {view}")
        assert found["robust_low"] == pytest.approx(expected.low, abs=1e-12)
        assert found["robust_high"] == pytest.approx(expected.high, abs=1e-12)
        assert 0 <= found["robust_low"] <= robust / n <= found["robust_high"] <= 1


def test_without_successes_robust_accuracy_is_clean_accuracy():
    found = only(results_of([Cell(epsilon=0.0, rows=[{}, WRONG, {}, {}])]))
    assert found["robust_accuracy"] == found["clean_accuracy"] == 0.75
    assert found["attack_success_rate"] == 0


def test_only_wanted_positions_count():
    held = Cell(examples=2, rows=[{}, BROKEN, BROKEN, BROKEN])
    results = results_of([held])
    assert (only(results)["n"], only(results)["robust_accuracy"]) == (2, 0.5)
    assert (only(results, "FROM worst_case")["n"], only(results, "FROM worst_case")["robust_accuracy"]) == (
        2,
        0.5,
    )
    assert only(results, "SELECT count(*) AS n FROM examples")["n"] == 4


def test_rows_of_unwanted_cells_are_examples_but_no_cells():
    results = results_of([Cell(rows=[{}] * 4)], unwanted=[Cell(epsilon=0.3, rows=[BROKEN] * 4)])
    assert only(results)["epsilon"] == 0.1
    assert only(results, "FROM worst_case")["robust_accuracy"] == 1
    assert only(results, "SELECT count(DISTINCT cell_id) AS n FROM examples")["n"] == 2


def failure(cell, *, training=False, final=True, start=0, stop=4):
    return {
        "victim_id": cell.victim_id,
        "attack_id": None if training else cell.attack_id,
        "cells": [] if training else [cell.cell_id],
        "start": start,
        "stop": stop,
        "final": final,
        "error": "ValueError: boo",
    }


FOUR = [{}] * 4
TWO = [{}] * 2


@pytest.mark.parametrize(
    ("held", "failed", "status"),
    [
        (FOUR, {}, "done"),
        (FOUR, {"final": True}, "done"),
        (TWO, None, "partial"),
        (TWO, {"start": 2}, "failed"),
        (TWO, {"start": 2, "final": False}, "partial"),
        (TWO, {"start": 0, "stop": 2}, "partial"),  # retried since: its range is covered
        (TWO, {"start": 4, "stop": 8}, "partial"),  # beyond the examples that are wanted
        ([], None, "missing"),
        ([], {}, "failed"),
        ([], {"training": True}, "failed"),
        ([], {"training": True, "final": False}, "missing"),
    ],
)
def test_status(held, failed, status):
    cell, other = Cell(rows=held), Cell(model="other")
    failures = [] if failed is None else [failure(cell, **failed)]
    results = results_of([cell, other], failures=failures)
    assert only(results, "FROM cells WHERE model <> 'other'")["status"] == status
    assert only(results, "FROM cells WHERE model = 'other'")["status"] == "missing"


distances = st.sampled_from([None, 0.01, 0.04, 0.1, 0.10000101, 0.1000021, 0.2, 0.29])
EPSILONS = (0.0, 0.04, 0.1, 0.2)
ATTACKS = (
    {"attack": "fgsm"},
    {"attack": "bim"},
    {"attack": "bim", "adaptive": False},
    {"attack": "pgd", "targeted": True},
    {"attack": "ddn", "minimum_norm": True},
)


@st.composite
def sweeps(draw):
    """Cells of two victims, norms and some attacks; each holds its rows within a prefix, gaps possible."""
    examples = draw(st.integers(1, 5))
    cells = []
    for model in ("a", "b"):
        correct = draw(st.lists(st.booleans(), min_size=6, max_size=6))
        for norm in ("linf", "l2"):
            for attack in ATTACKS:
                nearest = draw(st.lists(distances, min_size=6, max_size=6))
                for epsilon in draw(st.sets(st.sampled_from(EPSILONS), max_size=3)):
                    cell = Cell(model=model, norm=norm, epsilon=epsilon, examples=examples, **attack)
                    held = {}
                    for position in draw(st.one_of(st.just(set(range(6))), st.sets(st.integers(0, 5)))):
                        held[position] = {"clean_correct": correct[position]}
                        distance = nearest[position] if cell.minimum_norm else draw(distances)
                        if distance is not None and correct[position]:
                            within = float32(distance) <= reach(epsilon)
                            # A finite distance without success must not count.
                            held[position]["distance"] = distance
                            held[position]["success"] = within if cell.minimum_norm else draw(st.booleans())
                    cells.append(replace(cell, rows=held))
    return cells


def brute_force_worst_case(cells):
    """What the view must say, example by example."""
    expected = {}
    counted = [c for c in cells if c.adaptive and not c.targeted]
    for victim, norm in {(c.victim_id, c.norm) for c in counted}:
        own = [c for c in counted if (c.victim_id, c.norm) == (victim, norm)]
        held = {c.cell_id: {p: r for p, r in c.rows.items() if p < c.examples} for c in own}
        for epsilon in {c.epsilon for c in own}:
            covered = {}
            for c in own:
                if c.minimum_norm or c.epsilon == epsilon:
                    covered[c.attack] = covered.get(c.attack, set()) | set(held[c.cell_id])
            started = {attack: positions for attack, positions in covered.items() if positions}
            common = set.intersection(*started.values()) if started else set()
            robust = 0
            for position in common:
                found = [(c, held[c.cell_id].get(position, {})) for c in own]
                broken = any(
                    (r.get("success") or c.minimum_norm) and float32(r.get("distance", 9)) <= reach(epsilon)
                    for c, r in found
                )
                robust += all(r.get("clean_correct", True) for _, r in found) and not broken
            expected[victim, norm, epsilon] = (
                len(common),
                robust / len(common) if common else None,
                all(len(positions) == own[0].examples for positions in covered.values()),
                sorted(started),
            )
    return expected


def float32(value):
    return float(np.float32(value))


def reach(epsilon):
    return epsilon * (1 + 1e-5) + 1e-6 if epsilon else 0


@settings(max_examples=25, deadline=None)
@given(sweeps())
def test_worst_case_equals_brute_force_and_never_rises_with_epsilon(cells):
    if not cells:
        return
    results = results_of(cells)
    with connect(results, threads=1) as connection:
        found = connection.sql("FROM worst_case ORDER BY epsilon").to_arrow_table().to_pylist()
    measured = {
        (r["victim_id"], r["norm"], r["epsilon"]): (
            *(r["n"], r["robust_accuracy_unchecked"], r["complete"], r["attacks"]),
        )
        for r in found
    }
    assert measured == brute_force_worst_case(cells)
    previous = {}
    for row in found:
        key = row["victim_id"], row["norm"]
        if row["complete"]:
            assert row["robust_accuracy_unchecked"] <= previous.get(key, math.inf)
            previous[key] = row["robust_accuracy_unchecked"]


def test_worst_case_at_an_epsilon_is_of_the_attacks_that_cover_it():
    """PGD ran at 0.2 alone, and DeepFool, which covers every epsilon, was asked for at 0.1."""
    near = {"success": True, "distance": 0.05}
    far = {"distance": 0.15}  # found, but not within 0.1
    deepfool = Cell(attack="deepfool", minimum_norm=True, epsilon=0.1, rows=[near, far, {}, {}])
    cells = [
        deepfool,
        *(Cell(epsilon=epsilon, rows=FOUR) for epsilon in (0.1, 0.2, 0.3)),
        Cell(attack="pgd", epsilon=0.2, rows=[{}, {}, {"success": True, "distance": 0.2}]),
    ]
    sql = "FROM worst_case ORDER BY epsilon"
    found = [
        (row["epsilon"], row["attacks"], row["n"], row["robust_accuracy"], row["complete"])
        for row in rows(results_of(cells), sql)
    ]
    assert found == [
        (0.1, ["deepfool", "fgsm"], 4, 0.75, True),
        (0.2, ["deepfool", "fgsm", "pgd"], 3, 0.0, False),
        (0.3, ["deepfool", "fgsm"], 4, 0.25, True),  # what PGD found at 0.2 counts
    ]
    missing = rows(results_of([replace(deepfool, rows=()), *cells[1:]]), sql)
    assert [row["complete"] for row in missing] == [False] * 3
    assert [row["attacks"] for row in missing] == [["fgsm"], ["fgsm", "pgd"], ["fgsm"]]


def test_targeted_cells_have_no_robust_accuracy_and_no_part_in_the_worst_case():
    reached = {"success": True, "success_uint8": True, "distance": 0.05}
    cells = [
        Cell(attack="pgd", attack_options="targeted=True", targeted=True, rows=[reached, {}, WRONG, {}]),
        Cell(attack="missing", targeted=True),
        Cell(rows=FOUR),
    ]
    by = {row["attack"]: row for row in rows(results_of(cells), "FROM cells")}
    targeted, missing, plain = by["pgd"], by["missing"], by["fgsm"]
    assert [row["targeted"] for row in (targeted, missing, plain)] == [True, True, False]
    low, high = binomtest(2, 4).proportion_ci(method="wilson")
    assert targeted["target_missed"] == 0.5 and targeted["attack_success_rate"] == 1 / 3
    assert (targeted["target_missed_low"], targeted["target_missed_high"]) == pytest.approx((low, high))
    for row, names in ((targeted, "robust"), (plain, "target_missed"), (missing, "target_missed")):
        assert all(value is None for name, value in row.items() if name.startswith(names))
    assert plain["robust_accuracy"] == 1
    worst = only(results_of(cells), "FROM worst_case")
    assert (worst["attacks"], worst["robust_accuracy"], worst["complete"]) == (["fgsm"], 1.0, True)
    assert rows(results_of(cells[:2]), "FROM worst_case") == []


def test_a_users_attack_is_what_it_does_not_what_it_says():
    """It says nothing, or the contrary: its rows have targets, or nearest distances."""
    held = [{"target": 7, "nearest": 0.3}, {"target": 7, "nearest": math.inf}]
    cells = [Cell(examples=2, rows=held), Cell(attack="bare", targeted=True, examples=2, rows=TWO)]
    mine, bare = rows(results_of(cells), "FROM cells ORDER BY attack DESC")
    assert mine["targeted"] and mine["minimum_norm"]
    assert bare["targeted"], "its rows have targets"
    untargeted = results_of([replace(cells[1], rows=[{"target": None}] * 2)])
    assert not only(untargeted)["targeted"] and only(untargeted)["robust_accuracy"] == 1


def test_distances_are_kept_whatever_epsilon_is():
    """0.05, 0.3, 0.4, never: half of them lie beyond the largest epsilon."""
    found = [0.05, 0.3, 0.4, math.inf]
    cells = [
        Cell(
            attack="ddn",
            norm="l2",
            minimum_norm=True,
            epsilon=epsilon,
            examples=5,
            rows=[{"distance": x, "success": x <= epsilon} for x in found] + [WRONG],
        )
        for epsilon in (0.0, 0.1)
    ]
    results = results_of([*cells, Cell(norm="l2", examples=5, rows=[*FOUR, WRONG])])
    zero, tenth = rows(results, "FROM cells WHERE minimum_norm ORDER BY epsilon")
    for row in (zero, tenth):
        assert row["median_nearest"] == pytest.approx(0.35) and row["not_found"] == 1
    assert zero["median_success_distance"] is None
    assert tenth["median_success_distance"] == pytest.approx(0.05)
    other = only(results, "FROM cells WHERE NOT minimum_norm")
    assert other["median_nearest"] is None and other["not_found"] is None
    distances = rows(results, "FROM distances ORDER BY position")
    assert [row["nearest"] for row in distances] == [*map(pytest.approx, found), None]
    assert [row["clean_correct"] for row in distances] == [True] * 4 + [False]
    assert {row["attack"] for row in distances} == {"ddn"}
    sql = "SELECT avg((clean_correct AND nearest > {})::INT) AS robust FROM distances"
    for epsilon, robust in ((0.0, 0.8), (0.1, 0.6), (0.35, 0.4), (1.0, 0.2)):
        assert only(results, sql.format(epsilon))["robust"] == robust
    assert zero["robust_accuracy"] == 0.8 and tenth["robust_accuracy"] == 0.6


def test_half_of_failures_make_an_infinite_median_and_part_of_the_rows_none():
    cell = Cell(minimum_norm=True, examples=2, rows=[{"distance": 0.3}, {}])
    assert only(results_of([cell]))["median_nearest"] == math.inf
    partly = replace(cell, rows=[{"nearest": 0.3}, {"nearest": None}])
    found = only(results_of([partly]))
    assert found["median_nearest"] is None and found["not_found"] is None


def test_worst_case_names_attacks_with_their_options():
    cells = [Cell(attack="pgd", attack_options="steps=40", rows=FOUR), Cell(rows=FOUR), Cell(attack="bim")]
    found = only(results_of(cells), "FROM worst_case")
    assert found["attacks"] == ["fgsm", "pgd (steps=40)"]
    assert not found["complete"]


def test_victims_count_each_example_once():
    cells = [Cell(rows=[{}, BROKEN, WRONG]), Cell(epsilon=0.2, rows=[{}, {}, WRONG, {}])]
    victims = [{"victim_id": cells[0].victim_id, "weights": "ab"}, {"victim_id": "unseen", "weights": "cd"}]
    seen, unseen = rows(results_of(cells, victims=victims), "FROM victims ORDER BY weights")
    assert (seen["n"], seen["clean_accuracy"], seen["weights"]) == (4, 0.75, "ab")
    assert (unseen["n"], unseen["clean_accuracy"]) == (0, None)


def test_every_view_answers_with_its_columns(small):
    for view in VIEWS:
        assert len(run_query(small, f"FROM {view}").column_names) > 3
    columns = run_query(small, "FROM examples").column_names
    assert columns == ["sweep"] + [
        name for name in SCHEMA.names if name not in ("image", "image_shape", "clean_image")
    ]
    assert [r["name"] for r in rows(small, "SHOW TABLES")] == sorted(VIEWS)
    assert "robust_accuracy" in {r["column_name"] for r in rows(small, "DESCRIBE cells")}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_the_same_with_and_without_the_others(connection, small, view):
    """Also where there is a row for nothing, which is not computed again."""
    for results in (small, small, results_of([])):
        with connect(results, named=(view,)) as alone:
            found = alone.sql(f"FROM {view}").to_arrow_table()
            assert [name for (name,) in alone.sql("SHOW TABLES").fetchall()] == [view]
        assert found.schema == connection.sql(f"FROM {view}").to_arrow_table().schema
        if results is small:
            assert found.to_pylist() == connection.sql(f"FROM {view}").to_arrow_table().to_pylist()


def test_filters_and_projection_reach_the_dataset(small):
    with connect(small) as connection:
        plan = connection.sql("EXPLAIN SELECT label FROM examples WHERE position = 2").fetchall()[0][1]
    scan = plan[plan.index("Scan") :]
    assert "position" in scan
    assert "label" in scan
    assert "clean_confidence" not in scan


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT n FROM cells), b AS (FROM a) SELECT sum(n) AS n FROM b;",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION FROM t SELECT n + 1 WHERE n < 4) SELECT max(n) AS n FROM t",
        "SELECT count(*) AS n FROM examples e JOIN cells c USING (cell_id), unnest([1]) u -- a comment",
        "SELECT max(range) + 1 AS n FROM range(4)",
        "SELECT (SELECT max(n) FROM CELLS) AS n",
        "SELECT sum(n) AS n FROM (PIVOT cells ON epsilon IN (0.1, 0.2) USING max(n) GROUP BY n)",
    ],
)
def test_selects_of_every_shape_work(small, sql):
    assert only(small, sql)["n"] == 4


def test_sums_of_integers_are_integers(small):
    table = run_query(small, "SELECT sum(n) AS n, sum(epsilon) AS e, 10::DECIMAL(38,0)**1 AS d FROM cells")
    assert str(table.schema.field("n").type) == "int64"
    assert table["n"].to_pylist() == [4]
    huge = run_query(small, "SELECT 170141183460469231731687303715884105727 AS huge")
    assert int(huge["huge"][0].as_py()) == 2**127 - 1


STATEMENTS = {
    "": "no statement",
    " -- nothing": "no statement",
    ";": "no statement",
    "SELECT 1; SELECT 2": "2 statements",
    "SELECT 1; DROP VIEW cells": "2 statements",
    "SET threads = 9": "SET",
    "RESET threads": "RESET",
    "PRAGMA database_list": "PRAGMA",
    "CALL pragma_version()": "CALL",
    "COPY cells TO '{folder}/x.csv'": "COPY",
    "COPY (SELECT 1) TO '{folder}/x.parquet'": "COPY",
    "EXPORT DATABASE '{folder}/x'": "EXPORT",
    "IMPORT DATABASE '{folder}'": "IMPORT",
    "ATTACH '{folder}/x.db'": "ATTACH",
    "INSTALL httpfs": "INSTALL",
    "LOAD httpfs": "LOAD",
    "CREATE TABLE x AS SELECT 1": "CREATE",
    "INSERT INTO cells VALUES (1)": "INSERT",
    "UPDATE cells SET n = 1": "UPDATE",
    "DELETE FROM cells": "DELETE",
    "DROP VIEW cells": "DROP",
    "CHECKPOINT": "CHECKPOINT",
    "USE input": "USE",
    "BEGIN": "BEGIN",
    "EXPLAIN ANALYZE SELECT 1": "EXPLAIN",
    "PREPARE p AS SELECT 1": "PREPARE",
    "PIVOT cells ON epsilon USING max(n)": "PIVOT",
    "WITH x AS MATERIALIZED (DELETE FROM cells) SELECT 1": "DELETE",
    "WITH x AS (INSERT INTO cells VALUES (1) RETURNING 1) FROM x": "INSERT",
}


@pytest.mark.parametrize(("sql", "found"), STATEMENTS.items())
def test_anything_but_one_select_is_refused(small, tmp_path, sql, found):
    with pytest.raises(QueryError) as caught:
        run_query(small, sql.format(folder=tmp_path))
    message = str(caught.value)
    assert message.startswith(found)
    assert "a query is one SELECT over the views examples, cells," in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


FILES = [
    "read_csv('{file}')",
    "read_text('{file}')",
    "read_blob('{file}')",
    "read_json('{file}')",
    "read_parquet('{file}')",
    "sniff_csv('{file}')",
    "parquet_metadata('{file}')",
    "glob('{folder}/*')",
    "'{file}'",
    "'{folder}/*.csv'",
    "read_text('/proc/self/environ')",
    "read_csv('https://example.com/a.csv')",
    "'https://example.com/a.parquet'",
    "json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{file}'')'))",
    "query('FROM read_text(''{file}'')')",
    "query_table('{file}')",
    "duckdb_secrets()",
    "duckdb_extensions()",
    "sqlite_scan('{file}', 'x')",
]


@pytest.mark.parametrize("source", FILES)
def test_no_file_and_no_network_by_either_fence(small, connection, tmp_path, source):
    file = tmp_path / "secret.csv"
    file.write_text("word\nabracadabra\n")
    sql = f"FROM {source}".format(file=file, folder=tmp_path)
    with pytest.raises(QueryError) as caught:
        run_query(small, sql)
    assert "\n" not in str(caught.value)
    # Without the check of the syntax tree, DuckDB's own settings must still hold.
    with pytest.raises(duckdb.Error):
        connection.sql(sql).to_arrow_table()


OTHER_SOURCES = [
    "variable_here",  # a Python variable of the caller
    "input.wanted",
    "memory.input.coverage",
    "wanted",
    "duckdb_settings()",
    "duckdb_views()",
    "duckdb_views",
    "pg_catalog.pg_class",
    "information_schema.tables",
    "sqlite_master",
    "python_arrow_scan()",
    "arrow_scan(1, 2, 3)",
    "enable_logging()",
    "enable_profiling(save_location = '{folder}/profile.json')",
    "pragma_database_size()",
    "checkpoint()",
    "(SHOW DATABASES)",
    "(SHOW ALL TABLES)",
    "(SELECT * FROM cells WHERE n IN (SELECT label FROM hidden))",
]


@pytest.mark.parametrize("source", OTHER_SOURCES)
def test_nothing_but_the_views_can_be_named(small, tmp_path, source):
    variable_here = small.wanted
    with pytest.raises(QueryError, match="a query is one SELECT over the views") as caught:
        run_query(small, f"FROM {source}".format(folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert variable_here.num_rows == 2


def test_python_variables_are_invisible_to_the_connection_itself(small):
    variable_here = small.wanted
    with connect(small) as connection, pytest.raises(duckdb.CatalogException):
        connection.sql("FROM variable_here").fetchall()
    assert variable_here.num_rows == 2


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT getenv('HOME')", "getenv"),
        ("SELECT robust_acuracy FROM cells", 'Candidate bindings: "robust_accuracy"'),
        ("FROM cell", 'there is no view "cell"; did you mean "cells"? a query is one SELECT'),
        ("SELECT $1", "parameters"),
        ("SELECT st_area(1)", "spatial"),
        ("SELECT CAST('x' AS INTEGER)", "Could not convert string 'x' to INT32"),
        ('FROM cells WHERE model = "small_cnn"', "; a text takes single quotes: 'small_cnn'"),
        ('SELECT "small_cnn"', "; a text takes single quotes: 'small_cnn'"),
        (f"SELECT 1{' + 1' * 900}", "the query is nested too deeply"),
        ("SELECT error('midway') FROM range(300_000) WHERE range = 299_999", "midway"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(small, sql, message):
    with pytest.raises(QueryError) as caught:
        run_query(small, sql)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)


SYNTAX_ERRORS = {
    "SELEC 1": """\
syntax error at or near "SELEC", line 1:
  SELEC 1
  ^^^^^""",
    "SELECT n\nFROM cells\nWHERE n = = 3\nORDER BY n": """\
syntax error at or near "=", line 3:
  WHERE n = = 3
            ^""",
    "SELECT 'abc": """\
unterminated string literal, line 1:
  SELECT 'abc
         ^""",
}


@pytest.mark.parametrize(("sql", "message"), SYNTAX_ERRORS.items())
def test_a_syntax_error_shows_its_place(small, sql, message):
    with pytest.raises(QueryError) as caught:
        run_query(small, sql)
    assert str(caught.value) == message


@pytest.mark.parametrize("sql", ["SELECT nothing FROM cells", "SELECT robust_accuracyy FROM cells"])
def test_only_what_stands_in_double_quotes_is_taken_for_a_text(small, sql):
    with pytest.raises(QueryError) as caught:
        run_query(small, sql)
    assert "single quotes" not in str(caught.value)


CATALOG = sorted(
    {
        *(name for (name,) in duckdb.sql("SELECT view_name FROM duckdb_views() WHERE internal").fetchall()),
        *("wanted", "coverage", "secret.csv"),
    }
)
"""What DuckDB knows by name beside the views; a text in quotes is a file's name to it."""

SCREENS = [
    # The name holds somewhere, but not where it is used.
    'WITH x AS (WITH "{name}" AS (SELECT 1) SELECT 1) SELECT * FROM "{name}"',
    'SELECT (WITH "{name}" AS (SELECT 1) SELECT count(*) FROM "{name}") AS n, * FROM "{name}"',
    'SELECT * FROM "{name}", (WITH "{name}" AS (SELECT 1) FROM "{name}") y',
    '(WITH "{name}" AS (SELECT 1) FROM "{name}") UNION ALL FROM "{name}"',
    'WITH x AS (FROM "{name}"), "{name}" AS (SELECT 1) FROM x',
    # A subquery's own name means itself only where it is recursive, and there not in its first part.
    'WITH "{name}" AS (FROM "{name}") FROM "{name}"',
    'WITH "{name}" AS MATERIALIZED (SELECT 1 FROM "{name}") FROM "{name}"',
    'WITH RECURSIVE "{name}" AS (FROM "{name}") FROM "{name}"',
    'WITH RECURSIVE "{name}"(i) AS '
    '(SELECT count(*) FROM "{name}" UNION ALL SELECT i + 1 FROM "{name}" WHERE i < 3) FROM "{name}"',
    # A qualified name is never that of a subquery.
    'WITH "{name}" AS (SELECT 1) FROM main."{name}"',
    'WITH "{name}" AS (SELECT 1) FROM pg_catalog."{name}"',
    'WITH "{name}" AS (SELECT 1) FROM information_schema."{name}"',
    'WITH "{name}" AS (SELECT 1) FROM input."{name}"',
    'WITH "{name}" AS (SELECT 1) FROM "{name}"()',
]


@pytest.mark.parametrize("screen", SCREENS)
def test_the_catalog_stays_closed_behind_the_names_of_subqueries(connection, screen):
    for name in CATALOG:
        with pytest.raises(QueryError, match="a query is one SELECT over the views"):
            checked(connection, screen.format(name=name))


def test_names_are_compared_as_duckdb_does(small):
    kelvin = "duc\u212adb_settings"  # lower case of its third letter: k, in Unicode alone
    with pytest.raises(QueryError, match='there is no view "duckdb_settings"'):
        run_query(small, f'WITH "{kelvin}" AS (SELECT 1) FROM duckdb_settings')
    assert only(small, "WITH Held AS (SELECT max(n) AS n FROM Cells) FROM hELD")["n"] == 4


def test_a_subquery_by_a_name_of_the_catalog_is_itself(small):
    assert rows(small, "WITH duckdb_settings AS (SELECT 7 AS n) SELECT * FROM duckdb_settings") == [{"n": 7}]
    assert rows(small, "WITH cells AS (SELECT 7 AS n FROM cells LIMIT 1) FROM cells") == [{"n": 7}]


@pytest.mark.parametrize(
    "sql", ["FROM range(200_000_000)", "SELECT repeat('x', 1000) AS x FROM range(1_000_000)"]
)
def test_the_cap_on_memory_covers_the_answer(small, sql):
    before = memory()
    with pytest.raises(
        QueryError, match=r"more memory than it is allowed \(its answer is larger than 50 MB\)"
    ):
        run_query(small, sql, memory_limit="50MB")
    assert memory() - before < 300


def memory():
    """Resident memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_an_answer_that_is_taken_batch_by_batch_may_be_larger(small):
    with answering(small, "FROM range(20_000_000)", memory_limit="50MB") as answer:
        assert sum(batch.num_rows for batch in answer.batches) == 20_000_000


def test_memory_is_capped_and_nothing_spills(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match="more memory than it is allowed"):
        run_query(small, "SELECT list(range) FROM range(20_000_000)", memory_limit="50MB", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_query():
    """In a process of its own, signalled as soon as the query runs; a query that went on would never end."""
    script = """
import os, signal, threading, time
from tests.support.results import Cell, results_of
from orchestrator.results import query
signal.signal(signal.SIGINT, signal.default_int_handler)
checked = query.checked
def then_interrupt(*args):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    return checked(*args)
query.checked = then_interrupt
endless = "SELECT count(*) FROM range(10_000_000_000) a, range(1000) b WHERE a.range * b.range % 7 = 3"
try:
    query.run_query(results_of([Cell(rows=[{}])]), endless)
except KeyboardInterrupt:
    print("interrupted")
"""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


def test_threads_are_capped_and_the_configuration_is_locked(small):
    with connect(small, threads=1) as connection:
        assert connection.sql("SELECT current_setting('threads')").fetchall() == [(1,)]
        with pytest.raises(duckdb.Error, match="locked"):
            connection.execute("SET enable_external_access = true")


def test_without_a_working_folder_there_is_an_error_and_not_an_end(small, tmp_path, monkeypatch):
    """DuckDB ends the process where the folder that it was started in has been removed."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with pytest.raises(QueryError, match="the folder that this process was started in is gone"):
        rows(small, "FROM cells")
