"""A user's own data, end to end: planned, trained on, attacked, shown."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator.grid.load import load_grid
from orchestrator.results.query import run_query
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import PlainProgress
from orchestrator.run.sweep import RunOptions, Summary, run_sweep
from orchestrator.store.folder import Store
from tests.support.data import own_arrays, write_images, write_npz
from workers.datasets import evaluation_order, load
from workers.pins import read_pins
from workers.storage import Folder
from workers.unit import DatasetSpec

pytestmark = pytest.mark.tf

GRID = """\
models: [{name: small_cnn, width: 4}]
datasets:
  - {name: birds, path: data/birds.npz}
  - {name: signs, path: data/signs/, size: 16, train: {epochs: 8}}
attacks: [fgsm]
epsilons: [0, 0.3]
train: {epochs: 12, learning_rate: 0.01, batch_size: 16}
slice: 40
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "data").mkdir()
    arrays = own_arrays(train=300, test=60)
    write_npz(tmp_path / "data" / "birds.npz", **arrays)
    write_images(tmp_path / "data" / "signs", train=240, test=60)


def sweep(text: str, output: str = "out", *, retry_failed: bool = False, **options: str) -> Summary:
    Path("grid.yaml").write_text(text)
    grid = load_grid("grid.yaml")
    prepared = prepare(grid, output, data_dir=options.get("data_dir"), retry_failed=retry_failed)
    progress = PlainProgress(Console(quiet=True))
    return run_sweep(
        prepared, RunOptions(output=output, backend="inline", retry_failed=retry_failed, **options), progress
    )


def test_an_npz_and_a_folder_of_images_in_one_grid() -> None:
    summary = sweep(GRID)
    assert (summary.exit_code, summary.state.cells_done, summary.state.prepared.total()) == (0, 4, 2)
    results = Store("out").results()
    cells = run_query(
        results, "SELECT dataset, epsilon, n, clean_accuracy, robust_accuracy FROM cells"
    ).to_pylist()
    by_cell = {(cell["dataset"], cell["epsilon"]): cell for cell in cells}
    for name in ("birds", "signs"):
        assert by_cell[name, 0.0]["n"] == 60
        assert by_cell[name, 0.0]["clean_accuracy"] > 0.8
        assert by_cell[name, 0.3]["robust_accuracy"] < 0.3
    sql = (
        "SELECT example_index, label FROM examples WHERE dataset = 'signs' AND epsilon = 0 ORDER BY position"
    )
    rows = run_query(results, sql).to_pydict()
    signs = load(DatasetSpec(name="signs", path="data/signs", size=16))
    order = evaluation_order(signs.y_test)
    assert rows == {"example_index": order.tolist(), "label": signs.y_test[order].tolist()}
    recorded = {
        pin.manifest["dataset"]["name"]: pin.manifest["dataset"]
        for pin in read_pins(Folder.at("out")).values()
    }
    assert recorded["signs"].items() >= signs.record().items()
    # Moved, it is the same data: nothing is left to do.
    Path("data").rename("moved")
    again = sweep(GRID.replace("data/", "moved/"))
    assert (again.exit_code, again.state.units_done) == (0, 0)


KNOWN = """\
models: [{name: small_cnn, width: 4}]
datasets: [mnist]
attacks: [fgsm]
epsilons: [EPSILON]
train: {epochs: 1}
examples: 20
"""


def mnist(folder: str, **changes: np.ndarray) -> None:
    Path(folder).mkdir(exist_ok=True)
    arrays = {**own_arrays(size=28), **changes}
    grey = {name: array[..., 0] if array.ndim == 4 else array for name, array in arrays.items()}
    np.savez(Path(folder) / "mnist.npz", **grey)


def test_a_victim_is_not_used_with_other_data_of_the_same_name() -> None:
    mnist("one")
    mnist("other", y_test=own_arrays()["y_test"][::-1])
    first = sweep(KNOWN.replace("EPSILON", "0.1"), data_dir="one")
    assert (first.exit_code, first.state.prepared.total()) == (0, 1)
    grown = KNOWN.replace("EPSILON", "0.1, 0.2")
    for output in ("out", "fresh"):  # where results are pinned, and where only the cache knows
        summary = sweep(grown, output, data_dir="other")
        assert summary.exit_code == 1
        error = summary.failures[0].error
        assert "belongs to other data named mnist (60 + 25 images, SHA-256" in error
        assert "--data-dir" in error and "--cache-dir" in error
    elsewhere = sweep(grown, "else", data_dir="other", cache_dir="else_victims")
    assert (elsewhere.exit_code, elsewhere.state.prepared.total()) == (0, 1)
    mnist("repacked")  # the same pixels and labels in another file
    again = sweep(grown, data_dir="repacked", retry_failed=True)
    assert (again.exit_code, again.state.prepared.total()) == (0, 0)
