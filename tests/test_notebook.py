"""The notebook of the documentation, in a kernel of its own."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from orchestrator.grid.load import load_grid
from tests.support.sweeps import sweep
from tests.test_opened import keep_images

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its grid has been run before, so that it resumes what is there: training is tested elsewhere."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    [grid] = [cell.source for cell in notebook.cells if cell.source.startswith("grid = {")]
    output = tmp_path / "outputs" / "quickstart"
    values = ast.literal_eval(grid.partition("=")[2].partition("\n}")[0] + "\n}")
    sweep(load_grid(values), output, runner="tests.support.runners:MadeUp")
    keep_images(output)
    before = sorted((output / "shards").rglob("*.parquet"))

    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]), prepend=":")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", {})
    }
    assert {"text/html", "image/png"} <= shown
    assert sorted((output / "shards").rglob("*.parquet")) == before  # nothing was left to run
    assert (tmp_path / "quickstart.html").stat().st_size > 500_000
    assert "small_cnn" in json.dumps(notebook)
