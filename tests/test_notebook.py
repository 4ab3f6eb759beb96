"""The notebook of the documentation, in a kernel of its own."""

from __future__ import annotations

import ast
import builtins
import json
import re
from pathlib import Path
from typing import Any

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


def first_cell(source: str, installed: list[str]) -> dict[str, Any]:
    """Run its first cell as IPython would where robustsweep is not installed until pip has been asked."""
    from IPython.core.inputtransformer2 import TransformerManager

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert 'SOURCE = ""' in cell
    code = TransformerManager().transform_cell(cell.replace('SOURCE = ""', f"SOURCE = {source!r}"))

    def importing(name: str, *rest: Any) -> Any:
        if name == "robustsweep" and not installed:
            raise ImportError(name)
        return __import__(name, *rest)

    class Shell:
        def run_line_magic(self, magic: str, line: str) -> None:
            assert magic == "pip"
            installed.append(line.replace("{SOURCE}", source))

    names: dict[str, Any] = {
        "__builtins__": {**vars(builtins), "__import__": importing},
        "get_ipython": Shell,
    }
    exec(compile(code, "cell", "exec"), names)
    return names


def test_elsewhere_it_installs_from_the_address_that_it_is_given_and_nothing_by_a_bare_name() -> None:
    """What an index has by that name, if anything, is a stranger's."""
    installed: list[str] = []
    with pytest.raises(RuntimeError, match="SOURCE needs the address of its repository"):
        first_cell("", installed)
    assert installed == []
    names = first_cell("git+https://example.org/robustsweep", installed)
    assert installed == ["install --quiet git+https://example.org/robustsweep pandas"]
    assert names["robustsweep"].__version__


def test_no_cell_names_a_path_of_some_machine() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not re.search(r"(^|[\s\"'(])(/|~/|[A-Z]:\\)\w", cell.source), cell.source
