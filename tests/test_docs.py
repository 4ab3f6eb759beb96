"""What the documentation shows works as shown."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

import robustsweep
from orchestrator.grid.checker import is_needed
from orchestrator.grid.load import load_grid
from orchestrator.results.fence import VIEWS
from orchestrator.results.query import run_query
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import PlainProgress
from orchestrator.run.sweep import run_sweep
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from tests.test_opened import keep_images
from workers.attacks import REGISTRY
from workers.defences import DEFENCES
from workers.flags import Flag

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def test_the_page_on_defences_knows_them_all() -> None:
    page = (ROOT / "docs" / "defences.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.M))
    assert rows.keys() == DEFENCES.keys() - {"none"}
    for name, row in rows.items():
        for field in dataclasses.fields(DEFENCES[name]):
            default = getattr(field.default, "default", field.default)
            shown = "" if is_needed(field) else " null" if default is None else f" {default}"
            assert f"`{field.name}`{shown}" in row
        for paper in re.findall(r"arXiv:([\d.]+)", DEFENCES[name].__doc__ or "")[:1]:
            assert paper in row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_grids_in_the_documentation_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("def build(depth, input_shape, classes): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    whole = [blocks(ROOT / "README.md", "yaml")[0], blocks(ROOT / "docs" / "grid.md", "yaml")[0]]
    for number, text in enumerate(whole):
        path = tmp_path / f"grid{number}.yaml"
        path.write_text(text)
        assert load_grid(str(path)).models


def test_the_page_on_attacks_knows_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "attacks.md"
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page.read_text(), re.M)
    assert {name: tuple(norms.split(", ")) for name, norms in rows} == {
        name: attack.NORMS for name, attack in REGISTRY.items()
    }
    (line,) = re.findall(r"^`targeted: true` \(([^)]+)\)", page.read_text(), re.M)
    targeted = {name for name, attack in REGISTRY.items() if "targeted" in attack.__dataclass_fields__}
    assert set(line.split(", ")) == targeted
    (tmp_path / "my_attacks.py").write_text("class Corners: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "grid.yaml"
    epsilons = "epsilons: {linf: [0.1], l2: [1]}"
    path.write_text(f"models: [small_cnn]\ndatasets: [digits]\n{epsilons}\n{blocks(page, 'yaml')[0]}")
    assert len(load_grid(str(path)).attacks) == 5


def test_queries_in_the_documentation_run() -> None:
    results = results_of([Cell(attack="fgsm", epsilon=0.1), Cell(attack="bim", epsilon=0.1)])
    statements = [
        part
        for page in ("results.md", "attacks.md")
        for text in blocks(ROOT / "docs" / page, "sql")
        for part in text.split(";")
        if part.strip()
    ]
    shown = re.findall(r'robustsweep query \S+ "([^"…]+)"', "".join(page.read_text() for page in PAGES))
    assert len(statements) >= 2 and len(shown) >= 3
    for statement in statements + shown:
        assert isinstance(run_query(results, statement), pa.Table)


def test_every_view_is_documented() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    assert all(f"| `{view}` |" in text for view in VIEWS)


def test_the_page_on_results_knows_every_flag() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S) \| (\w+) \|", (ROOT / "docs" / "results.md").read_text(), re.M)
    assert rows == [(flag.value, flag.mark, flag.severity) for flag in Flag]
    assert len({flag.mark for flag in Flag}) == len(Flag)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(load_grid("digits"), tmp_path / "outputs" / "digits", runner="tests.support.runners:MadeUp")
    (code,) = blocks(ROOT / "README.md", "python")
    looked = code.replace('robustsweep.run("digits")', "").partition("robustsweep.attack")[0]
    exec(looked, {})


PYTHON = runpy.run_path(str(ROOT / "docs" / "write_python.py"))


def test_the_page_on_python_is_what_is_written_from_docstrings() -> None:
    assert PYTHON["PAGE"].read_text() == PYTHON["page"](), "run python docs/write_python.py"
    for name in robustsweep.__all__:
        assert name.startswith("__") or f"## {name}\n" in PYTHON["PAGE"].read_text()


def test_the_python_of_its_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(load_grid("digits"), tmp_path / "outputs" / "digits", runner="tests.support.runners:MadeUp")
    keep_images(tmp_path / "outputs" / "digits")
    code = "".join(blocks(ROOT / "docs" / "python.md", "python")[:2])
    exec(code.replace('robustsweep.run("digits")', ""), {})


@pytest.mark.tf
def test_the_attack_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = blocks(ROOT / "docs" / "attacks.md", "python")[0]
    attacks = next(text for text in blocks(ROOT / "docs" / "attacks.md", "yaml") if "name: corners" in text)
    (tmp_path / "my_attacks.py").write_text(python)
    monkeypatch.syspath_prepend(tmp_path)
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"models: [small_cnn]\ndatasets: [digits]\nepsilons: [0, 0.5]\nexamples: 60\n{attacks}")
    output = str(tmp_path / "out")
    prepared = prepare(load_grid(str(grid)), output)
    options = RunOptions(output=output, backend="inline")
    summary = run_sweep(prepared, options, PlainProgress(Console(quiet=True)))
    assert (summary.exit_code, summary.state.cells_done) == (0, 2)
    results = prepared.store.results()
    rows = run_query(
        results, "SELECT epsilon, attack_success_rate, status FROM cells ORDER BY epsilon"
    ).to_pylist()
    assert [row["status"] for row in rows] == ["done", "done"]
    assert rows[0]["attack_success_rate"] == 0.0 < rows[1]["attack_success_rate"]
