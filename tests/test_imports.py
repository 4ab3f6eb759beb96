"""The house: who may import whom, and what each command must not import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    "robustsweep",
    "orchestrator.cli",
    "orchestrator.submit",
    "orchestrator.commands",
    "orchestrator.show_tables",
    "orchestrator.show_compacted",
    "orchestrator.console",
    "orchestrator.completion",
    "orchestrator.listing",
    "orchestrator.show",
    "orchestrator.show_costs",
    "orchestrator.overview",
    "orchestrator.clean",
    "orchestrator.photos",
    "orchestrator.opened",
    "orchestrator.view",
    "orchestrator.report",
    "orchestrator.plots",
    "orchestrator.run",
    "orchestrator.plan",
    "orchestrator.grid",
    "orchestrator.store",
    "orchestrator.results",
    "orchestrator.intervals",
    "orchestrator.rereading",
    "orchestrator.errors",
    "orchestrator.printable",
    "grids",
    "workers.photographs",
    "workers.worker",
    "workers.preflight",
    "workers.evaluator",
    "workers.checking",
    "workers.probing",
    "workers.transfer",
    "workers.certify",
    "workers.measure",
    "workers.attacks",
    "workers.pins",
    "workers.probes",
    "workers.victims",
    "workers.defences",
    "workers.datasets",
    "workers.answers",
    "workers.network",
    "workers.inference",
    "workers.losses",
    "workers.runtime",
    "workers.archives",
    "workers.node",
    "workers.machine",
    "workers.rounding",
    "workers.metrics",
    "workers.statistics",
    "workers.shards",
    "workers.code",
    "workers.factories",
    "workers.recorded",
    "workers.unit",
    "workers.recipe",
    "workers.flags",
    "workers.norms",
    "workers.layout",
    "workers.storage",
    "workers.version",
)
"""From the roof to the ground: a room imports only rooms below it. A room is a module or a package."""


def modules() -> dict[str, Path]:
    files = [
        file
        for top in ("robustsweep", "orchestrator", "workers", "grids")
        for file in (ROOT / top).rglob("*.py")
    ]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


MODULES = modules()


def imports(node: ast.AST) -> Iterator[str]:
    """What a module imports, wherever in it, but for what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield whole if whole in MODULES else child.module
        yield from imports(child)


IMPORTS = {name: set(imports(ast.parse(file.read_text()))) for name, file in MODULES.items()}
OURS = {name: (found & MODULES.keys()) - {name} for name, found in IMPORTS.items()}


def room(module: str) -> str:
    [found] = [one for one in ROOMS if module == one or module.startswith(f"{one}.")]
    return found


def test_nothing_is_imported_in_a_circle() -> None:
    try:
        TopologicalSorter(OURS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"orchestrator", "workers"}))
def test_imports_point_down(module: str) -> None:
    above = ROOMS.index(room(module))
    for imported in OURS[module] - {"orchestrator", "workers"}:
        assert ROOMS.index(room(imported)) >= above, f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("orchestrator")))
def test_orchestrator_never_imports_tensorflow(module: str) -> None:
    tops = {name.split(".")[0] for name in IMPORTS[module]}
    assert not tops & {"tensorflow", "keras", "pandas", "sklearn"}
    if not module.startswith("orchestrator.run.backends.ray"):
        assert "ray" not in tops


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("workers")))
def test_workers_never_import_the_orchestrator(module: str) -> None:
    tops = {name.split(".")[0] for name in IMPORTS[module]}
    assert not tops & {"orchestrator", "typer", "rich", "duckdb"}


def loaded_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


HEAVY = {"tensorflow", "keras", "ray", "sklearn"}


def test_help_imports_next_to_nothing() -> None:
    loaded = loaded_after("import robustsweep, orchestrator.cli")
    assert not loaded & (HEAVY | {"pyarrow", "duckdb", "pydantic", "numpy"})


def test_planning_and_results_import_neither_tensorflow_nor_ray() -> None:
    code = "import robustsweep, orchestrator.run.sweep, orchestrator.show, orchestrator.listing\n"
    code += "import orchestrator.results.query, orchestrator.results.files\n"
    code += "import workers.attacks, workers.datasets, workers.victims.architectures, workers.recipe"
    assert not loaded_after(code) & HEAVY


@pytest.mark.parametrize(
    "command", [["table", "OUTPUT"], ["query", "OUTPUT", "SELECT 1"], ["verify", "OUTPUT"]]
)
def test_looking_at_results_imports_no_architecture_attack_or_grid(
    command: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["robustsweep", *(str(output) if word == "OUTPUT" else word for word in command)]
    code = "from tests.support.sweeps import sweep, write_grid; from pathlib import Path\n"
    code += f"sweep(write_grid(Path({str(tmp_path / 'g.yaml')!r})), {str(output)!r})"
    loaded_after(code)
    loaded = loaded_after(
        f"import orchestrator.cli\nsys.argv = {arguments!r}\n"
        "try:\n    orchestrator.cli.main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "orchestrator.results.query" in loaded
    rooms = (
        "workers.attacks",
        "workers.victims.architectures",
        "orchestrator.grid",
        "orchestrator.run.sweep",
    )
    assert not {name for name in loaded for one in rooms if name == one or name.startswith(f"{one}.")}
