"""`robustsweep.open`: sweeps to look at from Python."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

import robustsweep
from orchestrator.grid.load import load_grid
from orchestrator.results.fence import VIEWS
from orchestrator.results.query import run_query
from orchestrator.store.folder import Store
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from workers import datasets
from workers.datasets import evaluation_order
from workers.unit import DatasetSpec

GRID: dict[str, Any] = {
    "name": "one",
    "models": ["small_cnn", {"name": "small_cnn", "train": {"epochs": 30}}],
    "datasets": ["digits"],
    "attacks": ["fgsm", {"name": "bim", "steps": 20}],
    "epsilons": [0, "8/255", 0.1],
    "examples": 60,
}


def made_up(output: Path, **changes: Any) -> Path:
    sweep(load_grid({**GRID, **changes}), output, runner="tests.support.runners:MadeUp")
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps, `one` and `two`, which has other epochs and fewer examples, and a folder that is none."""
    top = tmp_path_factory.mktemp("outputs")
    made_up(top / "one")
    made_up(top / "two", train={"epochs": 7}, examples=50, attacks=["fgsm"])
    (top / "vain").mkdir()
    return top


def test_every_view_is_a_relation_with_its_sweep(folder: Path) -> None:
    opened = robustsweep.open(folder / "one")
    for view in VIEWS:
        relation = getattr(opened, view)
        assert isinstance(relation, robustsweep.Relation)
        table = relation.arrow()
        assert isinstance(table, pa.Table) and table.column_names[0] == "sweep"
        assert isinstance(relation.df(), pd.DataFrame) and len(relation.df()) == table.num_rows
    assert set(opened.cells.df()["sweep"]) == {"one"}
    assert opened.cells.df()["epsilon"].tolist()[:3] == [0.0, 8 / 255, 0.1]


@pytest.mark.parametrize("where", [["one", "two"], "*", ["one", "t*", "one"]])
def test_several_sweeps_by_path_or_glob(folder: Path, where: Any) -> None:
    paths = [folder / one for one in ([where] if isinstance(where, str) else where)]
    opened = robustsweep.open(paths)
    assert opened.names == ("one", "two") and opened.warnings == ()
    counted = opened.sql("SELECT sweep, model, recipe, count(*) AS n FROM cells GROUP BY ALL ORDER BY ALL")
    assert counted.arrow().to_pylist() == [
        {"sweep": "one", "model": "small_cnn", "recipe": "", "n": 6},
        {"sweep": "one", "model": "small_cnn", "recipe": "epochs=30", "n": 6},
        {"sweep": "two", "model": "small_cnn", "recipe": "epochs=30", "n": 3},
        {"sweep": "two", "model": "small_cnn", "recipe": "epochs=7", "n": 3},
    ]
    rows = opened.sql("SELECT sweep, count(*) AS n FROM examples GROUP BY ALL ORDER BY ALL").arrow()
    assert rows["n"].to_pylist() == [12 * 60, 6 * 50]
    assert set(opened.victims.df()["recipe"]) == {"", "epochs=30", "epochs=7"}
    assert opened.victims.arrow().num_rows == 4


def test_sweeps_join_on_words() -> None:
    """Ids are hashes of everything; what is compared by name must not be null anywhere."""
    results = [results_of([Cell(rows=[{}] * 4)], sweep=name) for name in "ab"]
    words = "model, model_options, recipe, dataset, defence, seed, attack, attack_options, norm, epsilon"
    sql = f"SELECT count(*) AS n FROM cells a JOIN cells b USING ({words}) WHERE a.sweep < b.sweep"
    assert run_query(results, sql).to_pylist() == [{"n": 1}]


def test_folders_of_one_name_are_told_apart_by_their_path(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "one").symlink_to(folder / "one")
    opened = robustsweep.open([folder / "one", tmp_path / "x" / "one"])
    assert opened.names == (f"{folder.name}/one", "x/one")
    assert set(opened.cells.df()["sweep"]) == set(opened.names)


def test_where_nothing_is_there_is_one_clear_error(folder: Path) -> None:
    for where, message in (
        (folder / "three", "no such output folder"),
        (folder / "x*", "no output folder matches"),
        (folder / "v*", "no output folder matches"),
        ([], "no output folder: at least one is needed"),
    ):
        with pytest.raises(robustsweep.UserError, match=message):
            robustsweep.open(where)  # type: ignore[arg-type]


def test_sql_is_checked_at_once_and_hardened(folder: Path) -> None:
    opened = robustsweep.open(folder / "one")
    for statement in ("SELEC", "DROP VIEW cells", "FROM read_text('/etc/passwd')", "FROM sweep0.cells"):
        with pytest.raises(robustsweep.UserError):
            opened.sql(statement)
    with pytest.raises(robustsweep.UserError, match="nothing"):
        opened.sql("SELECT nothing FROM cells").arrow()


def test_a_missing_library_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    cells = robustsweep.open(folder / "one").cells
    for take, name in ((cells.df, "pandas"), (cells.pl, "polars")):
        with pytest.raises(ImportError, match=rf"needs {name}, which is not installed") as caught:
            take()
        assert isinstance(caught.value, robustsweep.UserError)
    assert cells.arrow().num_rows == 12


def test_tables_print_and_show_in_notebooks(folder: Path) -> None:
    opened = robustsweep.open(folder / "*")
    page = opened._repr_html_()
    assert page.count("<table>") == 1 and "small_cnn (epochs=30)" in page and "<html" not in page
    table = opened.table(attack="fgsm", model="small_cnn (epochs=30)", by="attack", digits=2)
    assert str(table).startswith("digits, linf, fgsm: robust accuracy by epsilon\n")
    lines = [line.split() for line in str(table).splitlines()[3:5]]
    assert [line[0] for line in lines] == ["one", "two"] and lines[0][4] == "90.00%"
    assert set(table.df()["attack"]) == {"fgsm"} and "8/255" in table.text("latex")
    metric = opened.table(attack="fgsm", metric="forward_calls")
    assert metric.df()["value"].tolist()[0] == 120 and metric.df()["robust_accuracy"].isna().all()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"attack": "fgsn"}, 'attack=: found "fgsn"; did you mean "fgsm"?'),
        ({"by": "colour"}, 'by=: found "colour"'),
        ({"metric": "accuracy"}, 'metric=: found "accuracy"'),
        ({"attack": "bim", "model": "small_cnn (epochs=7)"}, "no row of the table is of"),
    ]
    for options, message in wrong:
        with pytest.raises(robustsweep.UserError) as caught:
            opened.table(**options)
        assert str(caught.value).startswith(message)
    with pytest.raises(ValueError, match=r"path=: .* is a folder"):
        opened.report(folder)


def test_reprs_say_what_there_is(folder: Path) -> None:
    opened = robustsweep.open(folder / "one")
    assert "sweep one" in repr(opened) and "sql()" in repr(opened)
    assert ".df()" in repr(opened.cells) and "<table>" in opened.cells._repr_html_()
    assert "720 rows" in opened.examples._repr_html_()


def keep_images(output: Path) -> tuple[str, np.ndarray]:
    """Rewrite a sweep's shards as if they had kept the images of the first 10 positions, each brighter by its
    epsilon, of the real digits. A cell's id, and clean images."""
    data = datasets.load(DatasetSpec(name="digits"))
    order = evaluation_order(data.y_test)
    for path in (output / "shards").rglob("*.parquet"):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            row["example_index"] = int(order[row["position"]])
            row["label"] = int(data.y_test[row["example_index"]])
            if row["position"] < 10 and row["clean_correct"]:
                image = np.clip(data.x_test[row["example_index"]] + np.float32(row["epsilon"]), 0, 1)
                row |= {"image": image.tobytes(), "image_shape": [8, 8, 1]}
                row["clean_image"] = data.x_test[row["example_index"]].tobytes()
                if row["success"]:
                    row |= {"adv_label": (row["label"] + 1) % 10, "adv_confidence": 0.7}
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    cells = Store(str(output)).wanted().to_pylist()
    cell = next(c["cell_id"] for c in cells if c["attack"] == "fgsm" and c["epsilon"] == 0.1)
    return cell, data.images("test", order[:10])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return made_up(tmp_path / "kept", models=["small_cnn"])


def test_kept_images_come_with_their_clean_ones(kept: Path) -> None:
    cell, clean = keep_images(kept)
    opened = robustsweep.open(kept)
    found = opened.images(cell)
    assert (len(found), found.adversarial.dtype, found.broken.all()) == (8, np.dtype("float32"), True)
    assert found.positions.tolist() == list(range(1, 9))  # the first is answered wrongly
    np.testing.assert_array_equal(found.clean, clean[1:9])
    np.testing.assert_allclose(found.adversarial, np.clip(clean[1:9] + np.float32(0.1), 0, 1))
    assert (found.adv_labels == (found.labels + 1) % 10).all()
    assert found.adv_confidences.tolist() == pytest.approx([0.7] * 8) and "and clean ones" in repr(found)
    row = opened.cells.arrow().filter(pc.field("cell_id") == cell).to_pylist()[0]
    assert opened.images(row, n=3).positions.tolist() == [1, 2, 3]
    series = opened.cells.df().query("attack == 'fgsm' and epsilon == 0.1").iloc[0]
    assert opened.images(series, n=3).positions.tolist() == [1, 2, 3]
    others = opened.images(cell, broken=False)
    assert others.adversarial.shape == (0, 8, 8, 1) and len(opened.images(cell, broken=None, n=99)) == 9


def test_images_that_were_not_broken_have_no_answer(kept: Path) -> None:
    keep_images(kept)
    opened = robustsweep.open(kept)
    at_zero = next(row for row in opened.cells.arrow().to_pylist() if row["epsilon"] == 0)
    found = opened.images(at_zero, broken=False, n=2)
    assert found.adv_labels.tolist() == [-1, -1] and np.isnan(found.adv_confidences).all()


def test_cells_without_images_are_said(folder: Path) -> None:
    opened = robustsweep.open(folder / "*")
    cells = opened.cells.arrow().to_pylist()
    with pytest.raises(robustsweep.UserError, match='no cell "x"'):
        opened.images("x")
    shared = next(row for row in cells if row["recipe"] == "epochs=30" and row["attack"] == "fgsm")
    with pytest.raises(robustsweep.UserError, match="is in several sweeps: one, two"):
        opened.images(shared["cell_id"])
    with pytest.raises(robustsweep.UserError, match=r"no image of .* is kept: `keep: N`"):
        opened.images(shared)


def test_a_grid_from_python_means_what_its_file_means(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(GRID))
    written, given = robustsweep.load_grid(path), robustsweep.load_grid(GRID)
    same = {"python_path", "text"}
    assert given.model_dump(exclude=same) == written.model_dump(exclude=same)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**GRID, "modles": []}, 'modles: unknown key "modles"; did you mean "models"?'),
        ({**GRID, "epsilons": np.zeros(2)}, "array"),
        ({}, "models is missing"),
    ]
    for grid, message in wrong:
        with pytest.raises(robustsweep.UserError) as caught:
            robustsweep.load_grid(grid)
        assert message in str(caught.value) and "line" not in str(caught.value)
    options: dict[str, Any] = {"backend": "inline", "runner": "tests.support.runners:MadeUp", "quiet": True}
    assert robustsweep.run(GRID, tmp_path / "out", **options).exit_code == 0
    assert robustsweep.cells(tmp_path / "out").num_rows == 12
