"""Who imports whom, and what each command must not import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    """Every top-level package that a module names in an import, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "orchestrator").rglob("*.py")), ids=lambda path: path.stem)
def test_orchestrator_never_imports_tensorflow(path: Path) -> None:
    assert not imported(path) & {"tensorflow", "keras", "pandas", "sklearn"}
    if path.stem != "ray":
        assert "ray" not in imported(path)


@pytest.mark.parametrize("path", sorted((ROOT / "workers").rglob("*.py")), ids=lambda path: path.stem)
def test_workers_never_import_the_orchestrator(path: Path) -> None:
    assert not imported(path) & {"orchestrator", "typer", "rich", "duckdb"}


def loaded_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


HEAVY = {"tensorflow", "keras", "ray", "sklearn"}


def test_help_imports_next_to_nothing() -> None:
    assert not loaded_after("import orchestrator.cli") & (HEAVY | {"pyarrow", "duckdb", "pydantic", "numpy"})


def test_planning_and_results_import_neither_tensorflow_nor_ray() -> None:
    code = "import robustsweep, orchestrator.run.sweep, orchestrator.show, orchestrator.listing\n"
    code += "import orchestrator.results.query, orchestrator.results.files\n"
    code += "import workers.attacks, workers.datasets, workers.victims.architectures, workers.victims.recipe"
    assert not loaded_after(code) & HEAVY
