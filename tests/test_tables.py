"""Cells and robustness tables, and what they look like as text."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.grid.numbers import number_text
from orchestrator.results.choice import made
from orchestrator.results.display import epsilon_text
from orchestrator.results.judged import cells_and_worst_cases, cells_table
from orchestrator.results.query import connect, run_query
from orchestrator.results.records import RECORDS, robustness_records
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import FORMATS, text_format
from orchestrator.results.text.base import Columns
from tests.support.results import Cell, results_of

BROKEN = {"success": True, "distance": 0.001}
WRONG = {"clean_correct": False}
EIGHT = 8 / 255


def held(robust, broken=0, wrong=0):
    return [{}] * robust + [BROKEN] * broken + [WRONG] * wrong


def tables_of(*cells, **others):
    return robustness_tables(*cells_and_worst_cases(results_of(cells, **others)))


def table_of(*cells, **others):
    (table,) = tables_of(*cells, **others)
    return table


def test_cells_come_in_the_order_of_the_grid():
    cells = [
        Cell(model=model, dataset=dataset, defence=defence, seed=seed, attack=attack, epsilon=epsilon)
        for model in ("b", "a", "c")
        for dataset in ("mnist", "cifar10")
        for defence in ("none", "jpeg")
        for seed in (1, 0)
        for attack in ("pgd", "fgsm")
        for epsilon in (0.1, 0.3)
    ]
    for grid in (cells, cells[::-1]):
        table = cells_table(results_of(grid))
        assert table["cell_id"].to_pylist() == [cell.cell_id for cell in grid]


def test_tables_and_their_rows_come_in_the_order_of_the_grid():
    cells = [
        Cell(model=model, dataset=dataset, defence=defence, attack=attack, norm=norm, seed=seed, rows=held(4))
        for model in ("wide", "small")
        for dataset in ("mnist", "digits")
        for defence in ("none", "jpeg")
        for seed in (1, 0)
        for norm in ("linf", "l2")
        for attack in ("pgd", "fgsm")
    ]
    left_out = [cell for cell in cells if (cell.model, cell.dataset, cell.norm) != ("wide", "digits", "linf")]
    for grid in (cells, left_out):
        tables = tables_of(*grid)
        found = {(table.dataset, table.norm): table.rows for table in tables}
        assert [dataset for dataset, _ in found] == ["mnist", "mnist", "digits", "digits"]
        assert [(row.model, row.defence, row.attack) for row in found["mnist", "linf"]] == [
            (model, defence, attack)
            for model in ("wide", "small")
            for defence in ("none", "jpeg")
            for attack in ("pgd", "fgsm", "worst case")
        ]
    records = robustness_records(tables)
    assert records["model"].to_pylist()[:12:6] == ["wide", "small"]
    assert records["attack"].to_pylist()[:2] == ["pgd", "fgsm"]


def test_seeds_give_mean_and_sd_and_intervals_are_not_pooled():
    cells = [Cell(seed=seed, rows=held(robust, 4 - robust)) for seed, robust in ((0, 1), (1, 2), (2, 3))]
    (row,) = table_of(*cells).rows
    (entry,) = row.entries
    assert entry.value == pytest.approx(0.5)
    assert entry.sd == pytest.approx(0.25)
    assert (entry.n, entry.examples, entry.seeds, entry.status) == (12, 12, 3, "done")
    single = [table_of(cell).rows[0].entries[0] for cell in cells]
    assert entry.low == pytest.approx(sum(e.low for e in single) / 3)
    assert entry.high == pytest.approx(sum(e.high for e in single) / 3)
    assert single[0].sd is None
    assert (row.clean_accuracy, row.clean_sd) == (1.0, 0.0)


def failed(cell):
    return {
        "victim_id": cell.victim_id,
        "cells": [cell.cell_id],
        "attack_id": "x",
        "start": 0,
        "stop": 4,
        "final": True,
    }


def test_a_hole_is_never_averaged():
    whole = Cell(seed=0, rows=held(4))
    for rows, failures, status, mark in (
        ([], [], "partial", "partial 4/8"),
        (held(1), [], "partial", "partial 5/8"),
        ([], [failed(Cell(seed=1))], "failed", "failed"),
    ):
        (row,) = table_of(whole, Cell(seed=1, rows=rows), failures=failures).rows
        (entry,) = row.entries
        assert (entry.status, entry.mark) == (status, mark)
        assert (entry.value, entry.low, entry.high, entry.sd) == (None,) * 4
        assert (row.clean_accuracy, row.clean_sd) == (None, None)
    (row,) = table_of(Cell()).rows
    assert row.entries[0].mark == "missing"


def test_clean_accuracy_comes_from_cells_that_are_done():
    (row,) = table_of(Cell(rows=held(1)), Cell(epsilon=0.2, rows=held(2, 1, 1))).rows
    assert row.clean_accuracy == 0.75
    assert [entry.mark for entry in row.entries] == ["partial 1/4", ""]


def test_one_table_for_each_dataset_and_norm_with_its_own_epsilons():
    cells = [
        Cell(dataset="mnist", norm="linf", epsilon=0.3, rows=held(4)),
        Cell(dataset="mnist", norm="linf", epsilon=0.1, rows=held(4)),
        Cell(dataset="mnist", norm="linf", attack="bim", epsilon=0.2, rows=held(4)),
        Cell(dataset="mnist", norm="l2", epsilon=2.0, rows=held(4)),
        Cell(dataset="cifar10", norm="linf", epsilon=EIGHT, rows=held(4)),
    ]
    tables = tables_of(*cells)
    assert [(t.dataset, t.norm, t.epsilons) for t in tables] == [
        ("mnist", "linf", (0.1, 0.2, 0.3)),
        ("mnist", "l2", (2.0,)),
        ("cifar10", "linf", (EIGHT,)),
    ]
    fgsm, bim, worst = tables[0].rows
    assert worst.attack == "worst case" and None not in worst.entries
    assert [entry is not None for entry in bim.entries] == [False, True, False]
    assert [entry is not None for entry in fgsm.entries] == [True, False, True]


def test_options_and_oblivious_attacks_have_rows_and_labels_of_their_own():
    variants = [
        {"attack": "pgd"},
        {"attack": "pgd", "adaptive": False},
        {"attack": "pgd", "attack_options": "steps=40"},
        {"attack": "pgd", "attack_options": "steps=40, targeted=True", "targeted": True},
        {"attack": "pgd", "model_options": "width=64"},
        {"attack": "pgd", "defence": "jpeg"},
    ]
    rows = table_of(*(Cell(rows=held(4), **variant) for variant in variants)).rows
    assert [(row.model_label, row.defence, row.attack_label) for row in rows] == [
        ("resnet50_v2", "none", "pgd"),
        ("resnet50_v2", "none", "pgd (oblivious)"),
        ("resnet50_v2", "none", "pgd (steps=40)"),
        ("resnet50_v2", "none", "pgd (steps=40) (targeted)"),
        ("resnet50_v2", "none", "worst case"),
        ("resnet50_v2 (width=64)", "none", "pgd"),
        ("resnet50_v2", "jpeg", "pgd"),
    ]


def test_victims_that_differ_in_more_than_their_seed_are_not_averaged():
    cells = cells_table(results_of([Cell(rows=held(4), defence="jpeg")]))
    other = cells.set_column(
        cells.column_names.index("victim_id"), "victim_id", pa.array(["resnet50_v2-mnist-jpeg-0f9a3c"])
    )
    (table,) = robustness_tables(pa.concat_tables([cells, other]))
    assert [row.defence for row in table.rows] == ["jpeg [peg-s0]", "jpeg [0f9a3c]"]
    assert all(row.entries[0].seeds == 1 for row in table.rows)


def far(distance):
    return {"distance": distance}


def worst_of(*cells, **others):
    """The row of the worst case, and the rows of the attacks."""
    *rows, worst = table_of(*cells, **others).rows
    assert worst.attack_label == "worst case" and "worst case" not in {row.attack_label for row in rows}
    return worst, rows


def test_the_worst_case_is_a_row_with_mean_and_sd_over_seeds():
    cells = [
        Cell(seed=0, rows=[BROKEN, {}, {}, {}]),
        Cell(seed=0, attack="bim", rows=[{}, BROKEN, {}, {}]),
        Cell(seed=1, rows=[BROKEN, {}, {}, {}]),
        Cell(seed=1, attack="bim", rows=[BROKEN, {}, {}, {}]),
    ]
    worst, rows = worst_of(*cells)
    assert [row.entries[0].value for row in rows] == [0.75, 0.75]
    (entry,) = worst.entries
    assert (entry.value, entry.sd) == (0.625, pytest.approx(0.5**0.5 / 4))
    assert (entry.n, entry.seeds, entry.attacks) == (8, 2, ("bim", "fgsm"))
    assert entry.low < 0.625 < entry.high and worst.clean_accuracy == 1
    assert [row.attack for row in table_of(cells[0], cells[2]).rows] == ["fgsm"], "one attack is its own"


def test_a_worst_case_is_a_hole_until_all_that_cover_the_epsilon_are_done():
    fgsm = [Cell(epsilon=epsilon, rows=held(4)) for epsilon in (0.1, 0.2)]
    for rows, failures, marks in (
        ((), [], ["incomplete", ""]),
        (held(2), [], ["incomplete", ""]),
        ((), [failed(Cell(attack="bim"))], ["failed", ""]),
        (held(4), [], ["", ""]),
    ):
        worst, _ = worst_of(*fgsm, Cell(attack="bim", rows=rows), failures=failures)
        assert [entry.mark for entry in worst.entries] == marks
        assert [entry.value is None for entry in worst.entries] == [bool(mark) for mark in marks]
    worst, _ = worst_of(*fgsm, Cell(attack="ddn", minimum_norm=True))
    assert [entry.mark for entry in worst.entries] == ["incomplete"] * 2, "it covers every epsilon"
    worst, _ = worst_of(Cell(), Cell(attack="bim"))
    assert worst.entries[0].mark == "missing"
    whole = [Cell(attack=attack, rows=held(4)) for attack in ("fgsm", "bim")]
    worst, _ = worst_of(*whole, Cell(seed=1, rows=held(4)), Cell(seed=1, attack="bim"))
    assert worst.entries[0].mark == "incomplete", "nothing is averaged over a hole"


def test_the_caption_says_which_attacks_a_worst_case_is_of_where_that_differs():
    cells = [Cell(epsilon=epsilon, rows=held(4)) for epsilon in (0.1, 0.2, 0.3)]
    bim = Cell(attack="bim", epsilon=0.2, rows=[{}, {}, *[{"success": True, **far(0.15)}] * 2])
    ddn = Cell(attack="ddn", minimum_norm=True, epsilon=0.1, rows=[far(0.25), far(0.25), far(9.0), {}])
    tables = tables_of(*cells, bim, ddn)
    text = text_format("md").robustness(tables)
    row = next(line for line in text.splitlines() if "worst case |" in line)
    assert row == "| resnet50_v2 | none | worst case | 100.0% | 100.0% | 50.0% | 0.0% | 4 |"
    said = "worst case: right, and broken by none of the adaptive, untargeted attacks"
    assert f"; {said}; at 0.1, 0.3 of ddn and fgsm alone" in text
    same = text_format("md").robustness(tables_of(*cells, *(replace(c, attack="bim") for c in cells)))
    assert same.rstrip().endswith(said)
    records = robustness_records(tables).to_pylist()
    assert [one["attacks"] for one in records if one["attack"] == "worst case"] == [
        ["ddn", "fgsm"],
        ["bim", "ddn", "fgsm"],
        ["ddn", "fgsm"],
    ]


def test_a_worst_case_has_the_flags_that_all_its_attacks_have():
    blind, plain = {"flags": ["probabilities", "zero_gradients"]}, {"flags": ["probabilities"]}
    worst, rows = worst_of(Cell(rows=[blind] * 4), Cell(attack="square", rows=[plain] * 4))
    assert rows[0].flags == ("probabilities", "zero_gradients") and worst.flags == ("probabilities",)


def test_the_numbers_of_a_targeted_attack_are_not_called_robust_accuracy():
    options = {"attack": "pgd", "attack_options": "targeted=True", "targeted": True}
    cells = [Cell(rows=held(1, 3)), Cell(attack="bim", rows=held(1, 3)), Cell(rows=held(3, 1), **options)]
    tables = tables_of(*cells)
    _, _, targeted, worst = tables[0].rows
    assert (targeted.attack_label, targeted.entries[0].value) == ("pgd (targeted)", 0.75)
    assert worst.entries[0].value == 0.25 and worst.entries[0].attacks == ("bim", "fgsm")
    by = {one["attack"]: one for one in robustness_records(tables).to_pylist()}
    assert by["pgd"]["targeted"] and not by["fgsm"]["targeted"]
    assert by["pgd"]["robust_accuracy"] is by["pgd"]["robust_low"] is by["fgsm"]["target_missed"] is None
    assert (by["pgd"]["target_missed"], by["fgsm"]["robust_accuracy"]) == (0.75, 0.25)
    assert by["pgd"]["target_missed_low"] < 0.75 < by["pgd"]["target_missed_high"]
    text = text_format("md").robustness(tables)
    assert "targeted: share right and not driven to the target class, which is no robust accuracy" in text
    assert "\x1b[32m75.0%" not in text_format("rich", colour=True).robustness(tables)
    assert "targeted:" not in text_format("md").robustness(tables_of(*cells[:2]))


@pytest.fixture(scope="module")
def example():
    return tables_of(
        Cell(epsilon=0.0, examples=10, rows=held(9, 0, 1)),
        Cell(epsilon=EIGHT, examples=10, rows=held(3, 6, 1)),
        Cell(epsilon=0.1, examples=10, rows=held(2)),
        Cell(attack="pgd", attack_options="steps=40", adaptive=False, epsilon=EIGHT, examples=10),
        Cell(norm="l2", epsilon=1.5, seed=0, rows=held(2, 2)),
        Cell(norm="l2", epsilon=1.5, seed=1, rows=held(3, 1)),
    )


MARKDOWN = """\
### mnist, linf: robust accuracy by epsilon

| model | defence | attack | clean | 0 | 8/255 | 0.1 | n |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |
| resnet50_v2 | none | fgsm | 90.0% | 90.0% | 30.0% | partial 2/10 | 10 |
| resnet50_v2 | none | pgd (steps=40) (oblivious) | – | – | missing | – | – |

n = 10 test examples; epsilon on the [0, 1] scale; 95% intervals (test sampling only) at most ±30.4 points

### mnist, l2: robust accuracy by epsilon

| model | defence | attack | clean | 1.5 | n |
| --- | --- | --- | ---: | ---: | ---: |
| resnet50_v2 | none | fgsm | 100.0 ± 0.0% | 62.5 ± 17.7% | 4 × 2 seeds |

n = 4 test examples; epsilon on the [0, 1] scale; 95% intervals (test sampling only) at most ±40.0 points; \
mean ± SD over training seeds
"""


def test_robustness_as_markdown(example):
    assert text_format("md").robustness(example) == MARKDOWN


def test_robustness_as_rich_has_the_same_words_uncut_and_without_control_codes(example, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = text_format("rich").robustness(example)
    assert "\x1b" not in text
    for line in MARKDOWN.splitlines():
        if line.startswith("| ") and "---" not in line:
            words = [word.strip() for word in line.strip("| ").split(" | ")]
            assert any(all(word in found for word in words) for found in text.splitlines()), line
        elif line.startswith("n = "):
            assert line in text.splitlines()


def test_colours_are_those_of_the_terminal(example, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for width in (160, 60, 20):
        text = text_format("rich", colour=True, width=width).robustness(example)
        assert "\x1b[32m90.0%" in text
        assert "\x1b[31m30.0%" in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in text_format("rich", colour=True).robustness(example)


def grid_of(models, defences, attacks, epsilons=(0.01, 0.05, 0.1, 0.15, 0.2, 0.3)):
    return tables_of(
        *(
            Cell(
                model=model,
                defence=defence,
                attack=attack,
                attack_options=options,
                epsilon=e,
                rows=held(3, 1),
            )
            for model in models
            for defence in defences
            for attack, options in attacks
            for e in epsilons
        )
    )


DIGITS = grid_of(["small_cnn", "wide_cnn"], ["none"], [("fgsm", ""), ("pgd", "restarts=2, steps=10")])

AT_60 = """\
mnist, linf: robust accuracy by epsilon

small_cnn, fgsm
  clean   100.0%
  0.01     75.0%
  0.05     75.0%
  0.1      75.0%
  0.15     75.0%
  0.2      75.0%
  0.3      75.0%

small_cnn, pgd (restarts=2, steps=10)
  clean   100.0%
"""

CAPTION = "defence none; n = 4 test examples; epsilon on the [0, 1] scale; 95% intervals"


def drawn(tables, width):
    text = text_format("rich", width=width).robustness(tables)
    assert max(map(len, text.splitlines())) <= width
    return text


def test_a_table_that_fits_is_drawn_as_in_a_pipe():
    whole = text_format("rich").robustness(DIGITS)
    widest = max(len(line) for line in whole.splitlines()[:-1])
    table, _, caption = drawn(DIGITS, widest).partition("n = 4 test")
    assert whole.startswith(table) and " ".join(f"n = 4 test{caption}".split()) in whole


def test_what_is_the_same_in_every_row_goes_first():
    text = drawn(DIGITS, 100)
    assert text.splitlines()[1].split() == [
        "model",
        "attack",
        "clean",
        "0.01",
        "0.05",
        "0.1",
        "0.15",
        "0.2",
        "0.3",
    ]
    assert "pgd (restarts=2, steps=10)" in text
    assert CAPTION in " ".join(text.split())


def test_then_labels_break_at_spaces():
    text = drawn(DIGITS, 86)
    assert "pgd (restarts=2,   " in text and " steps=10)\n" in text
    assert text.count("75.0%") == 36


def test_then_rows_stand_one_below_another():
    text = drawn(DIGITS, 60)
    assert text.startswith(AT_60)
    assert CAPTION in " ".join(text.split())


def test_what_is_the_same_in_every_row_names_at_least_one_thing():
    text = drawn(grid_of(["small_cnn"], ["jpeg"], [("fgsm", "")]), 70)
    assert text.splitlines()[1].split()[:2] == ["model", "clean"]
    assert "defence jpeg; attack fgsm; n = 4 test examples" in " ".join(text.split())


def test_seeds_that_leave_the_table_are_in_the_caption():
    cells = [Cell(seed=seed, epsilon=e, rows=held(2, 2)) for seed in (0, 1) for e in (0.1, 0.2)]
    text = drawn(tables_of(*cells), 60)
    assert "defence none; attack fgsm; n = 4 × 2 seeds; epsilon" in " ".join(text.split())
    assert "100.0 ± 0.0%" in text


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_numbers_are_never_broken(width, example):
    for tables in (DIGITS, [table for table in example if table.norm == "linf"]):
        words = set(text_format("md").robustness(tables).replace("|", " ").split())
        text = text_format("rich", width=width).robustness(tables)
        numbers = {word for word in text.split() if word[0].isdigit()}
        assert numbers <= words


def test_holes_break_before_their_numbers():
    cells = [Cell(epsilon=i / 10, examples=1000, rows=held(10)) for i in range(5)]
    text = drawn(tables_of(*cells), 80)
    assert text.splitlines()[3].split() == ["resnet50_v2", "–", *["partial"] * 5]
    assert text.splitlines()[4].split() == ["10/1000"] * 5


@pytest.mark.parametrize("n", [8, 1, 2, 4, 6, 16, 127, 254])
def test_levels_of_8_bit_pixels_are_shown_as_they_are_written(n):
    (table,) = grid_of(["m"], ["none"], [("fgsm", "")], [0.0, n / 255, 1.0])
    assert f"| 0 | {n}/255 | 1 |" in text_format("md").robustness([table])
    assert number_text(Fraction(n, 255)) == f"{n}/255" == epsilon_text(float(Fraction(n, 255)))


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        ("0.1", "0.1"),
        ("51/255", "0.2"),
        ("1/3", "1/3"),
        ("1", "1"),
        ("0", "0"),
        ("0.031", "0.031"),
        ("0.5", "0.5"),
        ("2", "2"),
    ],
)
def test_other_epsilons_are_decimals(epsilon, text):
    assert epsilon_text(float(Fraction(epsilon))) == text == number_text(Fraction(epsilon))


def test_epsilons_that_would_look_alike_are_shown_whole():
    (table,) = grid_of(["m"], ["none"], [("fgsm", "")], [8 / 255, 0.0313725, 0.03137251])
    assert "| 0.0313725 | 0.03137251 | 8/255 |" in text_format("md").robustness([table])


def test_robustness_for_programs_is_long_and_in_shares(example):
    rows = list(csv.DictReader(io.StringIO(text_format("csv").robustness(example))))
    assert list(rows[0]) == RECORDS.names
    by = {(r["norm"], r["attack"], r["epsilon"]): r for r in rows}
    assert len(by) == len(rows) == 5
    fgsm = by["linf", "fgsm", repr(EIGHT)]
    assert (fgsm["robust_accuracy"], fgsm["clean_accuracy"], fgsm["robust_sd"]) == ("0.3", "0.9", "")
    assert (fgsm["n"], fgsm["examples"], fgsm["seeds"], fgsm["adaptive"]) == ("10", "10", "1", "true")
    missing = by["linf", "pgd", repr(EIGHT)]
    assert (missing["status"], missing["robust_accuracy"], missing["adaptive"]) == ("missing", "", "false")
    assert json.loads(text_format("json").robustness(example)) == robustness_records(example).to_pylist()


VALUES = pa.table(
    {
        "name": ["a|b", 'say "hi",\nplease', "[red]x[/]", None],
        "count": pa.array([1, -2, None, 2**60], pa.int64()),
        "share": [0.1 + 0.2, float("nan"), float("inf"), float("-inf")],
        "good": [True, False, None, True],
        "flags": [["p", "q"], [], None, ["r"]],
        "total": pa.array([Decimal(7), Decimal("1.5"), None, Decimal(0)], pa.decimal128(38, 1)),
        "day": pa.array([date(2024, 2, 29), None, None, None]),
    }
)

GOLDEN = {
    "md": """\
| name | count | share | good | flags | total | day |
| --- | ---: | ---: | --- | --- | ---: | --- |
| a\\|b | 1 | 0.3 | true | p, q | 7 | 2024-02-29 |
| say "hi",<br>please | -2 | nan | false |  | 1.5 | – |
| [red]x[/] | – | inf | – | – | – | – |
| – | 1152921504606846976 | -inf | true | r | 0 | – |
""",
    "csv": """\
name,count,share,good,flags,total,day
a|b,1,0.30000000000000004,true,"[""p"", ""q""]",7,2024-02-29
"say ""hi"",
please",-2,nan,false,[],1.5,
[red]x[/],,inf,,,,
,1152921504606846976,-inf,true,"[""r""]",0,
""",
    "json": """\
[
  {"name": "a|b", "count": 1, "share": 0.30000000000000004, "good": true, "flags": ["p", "q"], "total": 7, \
"day": "2024-02-29"},
  {"name": "say \\"hi\\",\\nplease", "count": -2, "share": null, "good": false, "flags": [], "total": 1.5, \
"day": null},
  {"name": "[red]x[/]", "count": null, "share": null, "good": null, "flags": null, "total": null, \
"day": null},
  {"name": null, "count": 1152921504606846976, "share": null, "good": true, "flags": ["r"], "total": 0, \
"day": null}
]
""",
    "html": """\
<table>
<thead><tr><th scope="col" style="text-align:left">name</th>\
<th scope="col" style="text-align:right">count</th><th scope="col" style="text-align:right">share</th>\
<th scope="col" style="text-align:left">good</th><th scope="col" style="text-align:left">flags</th>\
<th scope="col" style="text-align:right">total</th><th scope="col" style="text-align:left">day</th></tr>\
</thead>
<tbody>
<tr>LEFT>a|b</td>RIGHT>1</td>RIGHT>0.3</td>LEFT>true</td>LEFT>p, q</td>RIGHT>7</td>LEFT>2024-02-29</td></tr>
<tr>LEFT>say &quot;hi&quot;,
please</td>RIGHT>-2</td>RIGHT>nan</td>LEFT>false</td>LEFT></td>RIGHT>1.5</td>LEFT>–</td></tr>
<tr>LEFT>[red]x[/]</td>RIGHT>–</td>RIGHT>inf</td>LEFT>–</td>LEFT>–</td>RIGHT>–</td>LEFT>–</td></tr>
<tr>LEFT>–</td>RIGHT>1152921504606846976</td>RIGHT>-inf</td>LEFT>true</td>LEFT>r</td>RIGHT>0</td>LEFT>–</td></tr>
</tbody></table>""".replace("LEFT", '<td style="text-align:left"').replace(
        "RIGHT", '<td style="text-align:right"'
    ),
    "latex": r"""  \begin{tabular}{lrrllrl}
    \toprule
    name & count & share & good & flags & total & day \\
    \midrule
    a\textbar{}b & 1 & 0.3 & true & p, q & 7 & 2024-02-29 \\
    say "hi", please & -2 & nan & false &  & 1.5 & -- \\
    {}[red]x[/] & -- & inf & -- & -- & -- & -- \\
    -- & 1152921504606846976 & -inf & true & r & 0 & -- \\
    \bottomrule
  \end{tabular}
""",
    "rich": """\
name                      count   share   good    flags   total   day
────────────────────────────────────────────────────────────────────────────
a|b                           1     0.3   true    p, q        7   2024-02-29
say "hi",                    -2     nan   false             1.5   –
please
[red]x[/]                     –     inf   –       –           –   –
–           1152921504606846976    -inf   true    r           0   –
""",
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_value_in_every_form(form):
    assert whole(form, text_format(form).table(VALUES)) == GOLDEN[form]


def whole(form, text):
    """Of a page what is in it."""
    return text.partition("<body>\n")[2].partition("\n</body>")[0] if form == "html" else text


def test_csv_keeps_an_empty_text_apart_from_a_missing_value():
    table = pa.table({"a": ["", None, "x"], "b": pa.array([None, 1, 2]), "c": ["", "\r", None]})
    assert text_format("csv").table(table) == 'a,b,c\n"",,""\n,1,"\r"\nx,2,\n'
    rows = list(csv.reader(io.StringIO('"",,""\n')))
    assert rows == [["", "", ""]]


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_in_parts_is_that_of_the_whole(form):
    batches = VALUES.to_batches(max_chunksize=1)
    pieces = text_format(form).pieces(Columns.parts(VALUES.schema, batches))
    assert whole(form, "".join(pieces)) == GOLDEN[form]
    pieces = text_format(form).pieces(Columns.parts(VALUES.schema, []))
    assert "".join(pieces) == text_format(form).table(VALUES.slice(0, 0))


WIDE = pa.table(
    {
        "cell_id": ["a" * 30, "b" * 30],
        "error": ["ValueError: " + "this unit raises " * 5 + "at 0.123456", None],
        "traceback": ["Traceback:\n  File x.py\n    raise", "\x1b[31m\ttab"],
        "n": [123456, 7],
    }
)

BY_ROW = """\
cell_id:   aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
error:     ValueError: this unit raises this
           unit raises this unit raises this
           unit raises this unit raises at
           0.123456
traceback: Traceback:
             File x.py
               raise
n:         123456

cell_id:   bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
error:     –
traceback: [31m    tab
n:         7
"""


def test_rows_that_do_not_fit_stand_one_below_another():
    assert text_format("rich", width=46).table(WIDE) == BY_ROW
    assert len(text_format("rich").table(WIDE).splitlines()[0]) > 100
    narrow = WIDE.select(["cell_id", "n"])
    assert text_format("rich", width=46).table(narrow) == text_format("rich").table(narrow)
    empty = text_format("rich", width=20).table(WIDE.slice(0, 0))
    assert empty == "no rows of cell_id,\nerror, traceback, n\n"


def test_json_is_strict():
    def refuse(word):
        raise AssertionError(word)

    json.loads(text_format("json").table(VALUES), parse_constant=refuse)


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_result_still_names_its_columns_or_is_an_empty_list(form):
    text = text_format(form).table(VALUES.slice(0, 0))
    if form in ("html", "latex"):
        assert all(name in text for name in VALUES.column_names)
    else:
        assert text == "[]\n" if form == "json" else text.replace("|", ",").lstrip(", ").startswith("name")


def test_wide_results_are_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = pa.table({f"column_{i}": ["x" * 30] for i in range(20)})
    text = text_format("rich").table(table)
    assert text.count("x" * 30) == 20
    assert "\x1b" not in text


def test_columns_of_one_name_all_survive():
    table = run_query(results_of([Cell(rows=held(4))]), "SELECT 1 AS a, 2 AS a, 3 AS a")
    assert json.loads(text_format("json").table(table)) == [{"a": 1, "a_2": 2, "a_3": 3}]


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match="unknown format 'xlsx': choose one of rich, md, csv, json"):
        text_format("xlsx").table(VALUES)
    with pytest.raises(ValueError, match="unknown format ''"):
        text_format("")


def test_the_connection_outlives_the_results_it_was_made_from():
    with connect(results_of([Cell(rows=held(4))])) as connection:
        assert connection.sql("SELECT sum(n)::INTEGER FROM cells").fetchall() == [(4,)]


def test_a_metric_that_is_nowhere_says_why():
    """A dash alone could mean that nobody has measured, or that nothing was to be seen."""
    small = [{"psnr": 20.0, "full_l2": 0.5}] * 4
    cells = [
        Cell(dataset="small", rows=small),
        Cell(dataset="large", rows=[{"psnr": 20.0, "ssim": 0.5}] * 4),
        Cell(dataset="unseen", rows=[{"clean_correct": False}] * 4),
    ]

    def captions(metric):
        tables = made([results_of(cells)], metric)
        text, latex = (text_format(name).robustness(tables) for name in ("md", "latex"))
        return [part.split("\n\n")[2] for part in text.split("### ")[1:]], latex

    (below, seen, nothing), latex = captions("ssim")
    assert "; – SSIM is not defined below 11 pixels" in below and "–" not in seen
    assert "; – no changed image among the first 64" in nothing
    assert "SSIM is not defined below 11 pixels." in latex and "not measured" not in latex
    assert "– no success" in captions("mean_success_distance")[0][0]
    assert "– no clean image is right" in captions("attack_success_rate")[0][2]
    assert all("–" not in caption for caption in captions("robust_accuracy")[0])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_deviation_over_seeds_is_exact(values: list[float]) -> None:
    from orchestrator.results.tables import mean_sd

    mean, sd = mean_sd(values)
    assert mean == pytest.approx(statistics.fmean(values))
    assert sd == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert mean_sd([values[0]] * 3) == (pytest.approx(values[0]), 0.0)
    assert mean_sd([*values, None]) == (None, None)
