"""Display names: in the grid, in the folder, in tables; never in what is measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import robustsweep
from orchestrator import show
from orchestrator.errors import GridError
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import expand
from orchestrator.plan.labels import labels_of
from orchestrator.results.compare import compare
from orchestrator.results.display import display
from orchestrator.results.judged import cells_and_worst_cases, cells_table, judged_tables
from orchestrator.results.require import require
from orchestrator.results.schemas import LABELS
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import comparison, findings, text_format
from orchestrator.run.prepare import prepare
from orchestrator.store.folder import Store
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from workers import layout

GRID: dict[str, Any] = {
    "name": "named",
    "models": ["small_cnn", {"name": "wide_cnn", "width": 8}],
    "datasets": ["digits"],
    "attacks": ["fgsm", {"name": "bim", "steps": 20}, {"name": "bim", "norm": "l2"}],
    "defences": ["none", "bit_depth"],
    "epsilons": {"linf": [0.1], "l2": [1]},
    "examples": 20,
}
LABELLED: dict[str, Any] = {
    **GRID,
    "models": [
        {"name": "small_cnn", "label": "Petit & co_1"},
        {"name": "wide_cnn", "width": 8, "label": "Wide <b>"},
    ],
    "datasets": [{"name": "digits", "label": "Handwritten digits"}],
    "attacks": [
        {"name": "fgsm", "label": "FGSM"},
        {"name": "bim", "steps": 20, "label": "BIM-20"},
        {"name": "bim", "norm": "l2", "label": "FGSM"},
    ],
    "defences": [{"name": "none", "label": "undefended"}, {"name": "bit_depth", "label": "5 bits"}],
}


def ids(grid: dict[str, Any]) -> list[str]:
    return [cell.cell_id for _, runs in expand(load_grid(grid)) for run in runs for cell in run.cells]


def test_labels_are_no_part_of_what_is_measured() -> None:
    assert ids(LABELLED) == ids(GRID)


def test_a_folder_shows_the_labels_of_its_latest_grid(tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = {"runner": "tests.support.runners:MadeUp"}
    sweep(load_grid(GRID), output, **options)
    assert Store(str(output)).wanted().select(LABELS.names).to_pylist()[0] == dict.fromkeys(LABELS.names, "")
    before = set(output.rglob("shards/*/*.parquet"))
    summary = sweep(load_grid(LABELLED), output, **options)
    assert set(output.rglob("shards/*/*.parquet")) == before and summary.state.units == 0
    cells = robustsweep.open(output).cells.arrow()
    assert cells.num_rows == 12
    assert cells.select(LABELS.names).to_pylist()[-1] == {
        "model_label": "Wide <b>",
        "dataset_label": "Handwritten digits",
        "defence_label": "5 bits",
        "attack_label": "FGSM",
    }
    table = robustsweep.open(output).table()
    text, page = table.text("md"), table.text("html")
    assert "### Handwritten digits, l2: robust accuracy by epsilon" in text
    assert "| Petit & co_1 | undefended | BIM-20 |" in text and "small_cnn" not in text
    assert "Wide &lt;b&gt;" in page and "Wide <b>" not in page and "wide_cnn" not in page
    assert r"Petit \& co\_1 & undefended & BIM-20" in table.text("latex")
    assert "BIM-20" in table.text("rich") and "Handwritten" in (output / "tables/robustness.md").read_text()
    # Programs, and who chooses, may go by name; who reads a label may go by that.
    assert set(table.df()["model"]) == {"small_cnn", "wide_cnn"}
    by_label = robustsweep.open(output).table(model="Petit & co_1", attack="BIM-20", dataset="digits")
    assert by_label.df()["model"].unique().tolist() == ["small_cnn"]
    assert robustsweep.open(output).table(defence="bit_depth").df()["defence"].unique() == ["bit_depth"]
    # So does a plan, which says what to type.
    console = Console(width=200, record=True, file=io.StringIO())
    show.plan(console, prepare(load_grid(LABELLED), str(output)))
    assert "Petit & co_1, 5 bits" in (text := console.export_text()) and "BIM-20 linf" in text
    assert "as for --only: Petit & co_1: small_cnn; Wide <b>: wide_cnn; Handwritten digits: digits" in text
    sweep(load_grid(GRID), output, **options)  # as do labels that have gone
    assert "Petit" not in robustsweep.open(output).table().text("md")


def test_runs_of_earlier_versions_have_no_labels(tmp_path: Path) -> None:
    output = tmp_path / "out"
    sweep(load_grid(LABELLED), output, runner="tests.support.runners:MadeUp")
    store = Store(str(output))
    [run] = store.run_ids()
    sink = io.BytesIO()
    old = pq.read_table(output / layout.run_cells(run)).drop_columns(LABELS.names)
    pq.write_table(old, sink)
    (output / layout.run_cells(run)).write_bytes(sink.getvalue())
    assert set(store.wanted()["model_label"].to_pylist()) == {""}
    assert "| small_cnn | none |" in robustsweep.open(output).table().text("md")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": [{"name": "small_cnn", "label": ""}]}, "models[0].label: found ''; one line of text"),
        ({"datasets": [{"name": "digits", "label": 7}]}, "datasets[0].label: found 7; one line of text"),
        ({"models": [{"name": "small_cnn", "label": "a\nb"}]}, "models[0].label: found 'a\\nb'; one line"),
        ({"defences": [{"name": "none", "label": "x" * 61}]}, "one line of text is allowed, of 1 to 60"),
        (
            {"models": [{"name": "small_cnn", "label": "A"}, {"name": "wide_cnn", "label": "A"}]},
            'models: label "A" stands for small_cnn and wide_cnn; each needs one of its own',
        ),
        (
            {"models": [{"name": "small_cnn", "label": "wide_cnn (width=8)"}, GRID["models"][1]]},
            'models: label "wide_cnn (width=8)" stands for small_cnn and wide_cnn (width=8)',
        ),
        (
            {"attacks": [{"name": "fgsm", "label": "A"}, {"name": "bim", "label": "A"}]},
            'attacks: label "A" stands for fgsm and bim',
        ),
        (
            {"attacks": [{"name": "fgsm", "label": "worst case"}]},
            'label "worst case" is what tables call all attacks together',
        ),
        (
            {"attacks": [{"name": "fgsm", "label": "worst case, with transfer"}]},
            'label "worst case, with transfer" is what tables call all attacks together',
        ),
        *(
            ({key: [{"name": name, "label": "worst case"}]}, f'{key}: label "worst case" is what tables call')
            for key, name in (("models", "small_cnn"), ("datasets", "digits"), ("defences", "none"))
        ),
        ({"models": [{"name": "small_cnn", "lable": "A"}]}, 'unknown option of model small_cnn "lable"'),
    ],
)
def test_labels_that_mislead_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GridError) as caught:
        load_grid({**GRID, **changes})
    assert str(caught.value).count(message) == 1


def test_marks_stand_behind_labels() -> None:
    cells = [
        Cell(attack_label="PGD", adaptive=False, rows=[{}] * 4),
        Cell(attack_label="PGD", targeted=True, attack_options="targeted=True", rows=[{}] * 4),
    ]
    [table] = robustness_tables(*cells_and_worst_cases(results_of(cells)))
    assert [row.attack_label for row in table.rows] == ["PGD (oblivious)", "PGD (targeted)"]


def test_one_thing_has_one_name_and_one_name_is_one_thing_over_sweeps() -> None:
    """The first sweep that labels a thing names it; what shares a label is told apart."""
    first = [Cell(model="a", model_label="CNN", rows=[{}] * 4), Cell(model="b", rows=[{}] * 4)]
    second = [
        Cell(model="a", model_label="Another name", rows=[{}] * 4),
        Cell(model="b", model_label="CNN", rows=[{}] * 4),
        Cell(model="a", recipe="epochs=9", model_label="CNN", rows=[{}] * 4),
    ]
    results = [results_of(first, sweep="one"), results_of(second, sweep="two")]
    [table] = robustness_tables(*cells_and_worst_cases(results))
    assert [(row.sweep, row.model, row.recipe, row.model_label) for row in table.rows] == [
        ("one", "a", "", "CNN (a)"),
        ("one", "b", "", "CNN (b)"),
        ("two", "a", "", "CNN (a)"),
        ("two", "b", "", "CNN (b)"),
        ("two", "a", "epochs=9", "CNN (a, epochs=9)"),
    ]


def test_a_label_that_is_the_name_of_another_sweeps_model() -> None:
    results = [
        results_of([Cell(model="small", model_label="wide", rows=[{}] * 4)], sweep="one"),
        results_of([Cell(model="wide", rows=[{}] * 4)], sweep="two"),
    ]
    records = cells_table(results).to_pylist()
    texts = display(records)
    assert [texts(cell).model for cell in records] == ["wide (small)", "wide (wide)"]


def test_captions_name_attacks_as_rows_do() -> None:
    cells = [
        Cell(attack="fgsm", attack_label="FGSM", epsilon=epsilon, rows=[{}] * 4) for epsilon in (0.1, 0.2)
    ]
    cells += [Cell(attack="bim", attack_label="BIM", epsilon=0.1, rows=[{}] * 4)]
    text = text_format("md").robustness(robustness_tables(*cells_and_worst_cases(results_of(cells))))
    assert "at 0.2 of FGSM alone" in text


def test_labels_by_id_are_those_of_every_seed() -> None:
    labels = labels_of(load_grid({**LABELLED, "seeds": [3, 5]}))
    names = {victim.victim.victim_id for victim in expand(load_grid({**LABELLED, "seeds": [3, 5]}))}
    assert names <= set(labels.victims) and pa.schema(LABELS).names == LABELS.names


def test_where_one_sweep_labels_a_model_recipes_are_said() -> None:
    """Else "CNN" and "small" would look like two models, and are one that was trained twice."""
    one = results_of([Cell(model="small", model_label="CNN", rows=[{}] * 4)], sweep="one")
    two = results_of(
        [Cell(model="small", recipe="epochs=9", rows=[{}] * 4), Cell(model="b", rows=[{}] * 4)], sweep="two"
    )
    [table] = robustness_tables(*cells_and_worst_cases([one, two]))
    assert [row.model_label for row in table.rows] == ["CNN", "small (epochs=9)", "b"]
    # Whoever labels both tells them apart already.
    both = [
        Cell(model="small", model_label="Short", rows=[{}] * 4),
        Cell(model="small", recipe="epochs=9", model_label="Long", rows=[{}] * 4),
    ]
    [table] = robustness_tables(*cells_and_worst_cases(results_of(both)))
    assert [row.model_label for row in table.rows] == ["Short", "Long"]


BROKEN = {"success": True, "distance": 0.05}


def named(broken: int, **values: Any) -> Cell:
    labels = {"dataset_label": "Digits", "defence_label": "undefended", "attack_label": "FGSM"}
    return Cell(**{"rows": [BROKEN] * broken + [{}] * (40 - broken), "examples": 40, **labels, **values})


def test_comparisons_speak_by_labels_and_take_them() -> None:
    """Programs, and who types, may go by name; two that differ in their recipe alone are told apart."""
    cells = [
        named(10, model_label="CNN"),
        named(30, recipe="epochs=9", model_label="CNN"),
        named(10, attack="bim", attack_label="BIM", model_label="CNN"),
        named(30, attack="bim", attack_label="BIM", recipe="epochs=9", model_label="CNN"),
    ]
    results = [results_of(cells)]
    found = compare(results, "CNN", "CNN (epochs=9)")
    shown = comparison.columns(found)
    rows = [dict(zip(shown.names, row, strict=True)) for row in shown.rows]
    assert {row["model"] for row in rows} == {"CNN → CNN (epochs=9)"}
    assert [row["attack"] for row in rows] == ["FGSM", "BIM", "worst case"]
    assert {(row["dataset"], row["defence"]) for row in rows} == {("Digits", "undefended")}
    assert found.rows["model"].to_pylist()[0] == "resnet50_v2 → resnet50_v2 (epochs=9)"
    assert comparison.summary(found).startswith("CNN (epochs=9) against CNN: 0 better, 3 worse")
    by_name = compare(results, "model=resnet50_v2,recipe=", "recipe=epochs=9")
    assert by_name.rows["result"].to_pylist() == found.rows["result"].to_pylist()
    unmet = require(results, "robust_accuracy > 0.5 WHERE epsilon = 0.1 AND attack = 'fgsm'")
    [_, line] = comparison.unmet(unmet)
    assert "FGSM linf on CNN (epochs=9) (undefended) on Digits at epsilon 0.1: robust accuracy 0.25" in line


def test_checks_speak_by_labels_and_tell_recipes_apart() -> None:
    """Of two victims that differ in their recipe alone, one is masked: which one must be read."""
    masked = [{"flags": ["zero_gradients"]}] * 40
    cells = [
        *(named(20, recipe=recipe, model_label="CNN") for recipe in ("", "epochs=9")),
        *(
            Cell(
                **{**values, "attack": "bim", "attack_label": "Iterated"},
                recipe=recipe,
                model_label="CNN",
                examples=40,
                rows=rows,
            )
            for recipe, rows in (("", [BROKEN] * 30 + [{}] * 10), ("epochs=9", masked))
            for values in ({"dataset_label": "Digits", "defence_label": "undefended"},)
        ),
    ]
    checks = judged_tables(results_of(cells))[-1]
    places = {(row["rule"], row["place"]) for row in checks.to_pylist()}
    assert (
        "zero_gradients",
        "Iterated linf on CNN (epochs=9) (undefended) on Digits at epsilon 0.1",
    ) in places
    [weaker] = [row for row in checks.to_pylist() if row["rule"] == "weaker_than_fgsm"]
    assert "that Iterated does not" in weaker["message"] and "epochs=9" in weaker["place"]
    text = " ".join(line for _, line in findings.lines(checks, 0))
    assert "Iterated linf on CNN (epochs=9)" in text and "resnet50_v2" not in text
