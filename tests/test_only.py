"""`--only`: a part of a grid is computed; the grid, its tables and its failures stay what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import robustsweep
from orchestrator.cli import app
from orchestrator.errors import UserError
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import VictimCells, expand, place
from orchestrator.plan.only import select
from orchestrator.store.folder import Store
from tests.support.sweeps import rows, sweep, times_counted, write_grid

OVERRIDES = ["seeds=[0, 1]", "attacks=[fgsm, bim, {name: fgsm, norm: l2, epsilons: [0.5, 1]}]"]
VICTIMS = list(expand(load_grid("digits", OVERRIDES)))
ONE = Fraction(1)
VALUES = {
    "model": ["small_cnn", "wide_cnn"],
    "dataset": ["digits"],
    "defence": ["none"],
    "seed": ["0", "1"],
    "attack": ["fgsm", "bim"],
    "norm": ["linf", "l2"],
    "epsilon": ["0", "0.05", "1/10", "0.5", "1e0"],
}


def cells(victims: Sequence[VictimCells]) -> list[tuple[str, dict[str, object]]]:
    return [
        (cell.cell_id, {**place(victim, run.attack), "epsilon": cell.exact})
        for victim, runs in victims
        for run in runs
        for cell in run.cells
    ]


def agrees(text: str, where: dict[str, object]) -> bool:
    pairs = dict(pair.split("=") for pair in text.split(","))
    return all(
        where[key] == (Fraction(value) if key == "epsilon" else int(value) if key == "seed" else value)
        for key, value in pairs.items()
    )


@st.composite
def texts(draw: st.DrawFn) -> str:
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    return ",".join(f"{key}={draw(st.sampled_from(VALUES[key]))}" for key in keys)


@given(st.lists(texts(), min_size=1, max_size=3))
def test_exactly_the_cells_that_agree_with_one_text_are_selected(only: list[str]) -> None:
    expected = [id for id, where in cells(VICTIMS) if any(agrees(text, where) for text in only)]
    if all(any(agrees(text, where) for _, where in cells(VICTIMS)) for text in only):
        chosen = select(VICTIMS, only, ONE)
        assert [id for id, _ in cells(chosen)] == expected
        assert all(runs and all(run.cells for run in runs) for _, runs in chosen)
    else:
        with pytest.raises(UserError, match="matches no cell of this grid: its keys do not occur together"):
            select(VICTIMS, only, ONE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model=smal_cnn",
            'model "smal_cnn" matches nothing in this grid; did you mean "small_cnn"? it has: ',
        ),
        (
            "attack=i-fgsm",
            'attack "i-fgsm" matches nothing in this grid; did you mean "bim"? it has: bim, fgsm',
        ),
        (
            "epsilon=0.7",
            'epsilon "0.7" matches nothing in this grid; it has: 0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1',
        ),
        ("seed=2", 'seed "2" matches nothing in this grid; it has: 0, 1'),
        ("attack=bim,norm=l2", "matches no cell of this grid: its keys do not occur together"),
        (
            "modle=small_cnn",
            'unknown key "modle"; did you mean "model"? allowed: model, dataset, defence, seed,',
        ),
        ("small_cnn", 'found "small_cnn"; key=value is allowed, such as model=small_cnn,attack=fgsm'),
        ("model=", 'found "model="; key=value is allowed'),
        ("", 'found ""; key=value is allowed'),
        ("model=small_cnn,", 'found ""; key=value is allowed'),
        ("seed=0,seed=1", "seed stands here twice, and both must agree; --only again asks for either"),
        ("seed=first", 'seed: found "first"; a whole number, 0 or more, is allowed'),
        ("epsilon=8/0", 'epsilon: found "8/0": a division by zero'),
    ],
)
def test_what_matches_nothing_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        select(VICTIMS, [text], ONE)
    assert str(caught.value).startswith(f'--only "{text}": ') and message in str(caught.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(UserError) as caught:
        select(VICTIMS, ["model=a,attack=b", "attack=fgsm", "seed=x"], ONE)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        '--only "model=a,attack=b"',
        '--only "model=a,attack=b"',
        '--only "seed=x"',
    ]


def test_epsilons_are_as_the_grid_writes_them() -> None:
    grid = load_grid("digits", ["pixel_range=[0, 255]", "epsilons=[0, 8, 16]"])
    victims = list(expand(grid))
    chosen = select(victims, ["epsilon=8"], grid.pixel_range.width)
    assert {where["epsilon"] for _, where in cells(chosen)} == {Fraction(8, 255)}
    with pytest.raises(UserError, match='epsilon "4" matches nothing in this grid; it has: 0, 8, 16'):
        select(victims, ["epsilon=4"], grid.pixel_range.width)


# -- a sweep ----------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two attacks at two epsilons: four cells, two units an attack."""
    return write_grid(tmp_path / "moods.yaml", ["work", "other"])


def statuses(output: Path) -> dict[tuple[str, float], str]:
    found = robustsweep.query(str(output), "SELECT attack, epsilon, status FROM cells").to_pylist()
    return {(row["attack"].split(" ")[0], row["epsilon"]): row["status"] for row in found}


def test_only_what_is_selected_is_computed_and_the_tables_keep_the_whole_grid(
    grid: Path, output: Path
) -> None:
    first = sweep(grid, output, only=("attack=work",))
    assert (first.exit_code, first.state.cells, first.state.cells_done, first.state.units_done) == (
        0,
        2,
        2,
        3,
    )
    assert times_counted(rows(output)) == {1: 200}
    done = {("work", 0.0): "done", ("work", 0.1): "done"}
    assert statuses(output) == {**done, ("other", 0.0): "missing", ("other", 0.1): "missing"}
    second = sweep(grid, output, only=("attack=other,epsilon=0.1",))
    assert (second.exit_code, second.state.cells, second.state.units_done) == (0, 1, 3)
    assert statuses(output) == {**done, ("other", 0.0): "missing", ("other", 0.1): "done"}
    assert sweep(grid, output, only=("attack=other,epsilon=0.1",)).state.units == 0
    rest = sweep(grid, output)
    assert (rest.exit_code, rest.state.cells, rest.state.cells_done) == (0, 4, 4)
    assert times_counted(rows(output)) == {1: 400}


def test_the_whole_grid_is_what_a_run_with_only_was_asked_for(grid: Path, output: Path) -> None:
    sweep(grid, output)
    before = len(Store(str(output)).run_ids())
    summary = sweep(grid, output, only=("attack=work",))
    assert (summary.exit_code, summary.state.units, summary.state.cells) == (0, 0, 2)
    assert len(Store(str(output)).run_ids()) == before  # nothing new was asked for
    assert set(statuses(output).values()) == {"done"}


def test_the_exit_code_speaks_of_what_is_selected(tmp_path: Path, output: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["raise", "work"])
    assert sweep(grid, output).exit_code == 1
    well = sweep(grid, output, only=("attack=work",))
    assert (well.exit_code, well.failures) == (0, [])
    ill = sweep(grid, output, only=("attack=raise",))
    assert (ill.exit_code, len(ill.failures), ill.state.units) == (1, 2, 0)


def test_trying_a_part_again_leaves_the_other_failures(tmp_path: Path, output: Path) -> None:
    works = "tests.support.runners:MadeUp"
    grid = write_grid(tmp_path / "moods.yaml", ["raise", "work"], attacks=[
        {"name": name, "factory": "tests.support.runners:Misbehaving", "mood": "raise"} for name in ("a", "b")
    ])  # fmt: skip
    assert sweep(grid, output).exit_code == 1
    assert set(statuses(output).values()) == {"failed"}
    again = sweep(grid, output, only=("attack=a",), retry_failed=True, runner=works)
    assert (again.exit_code, again.state.cells_done) == (0, 2)
    assert {key: status for (key, _), status in statuses(output).items()} == {"a": "done", "b": "failed"}
    assert sweep(grid, output, runner=works).exit_code == 1  # it was not tried again
    assert sweep(grid, output, retry_failed=True, runner=works).exit_code == 0
    assert set(statuses(output).values()) == {"done"}


def test_a_victim_that_failed_is_tried_again_with_its_selected_cells(tmp_path: Path, output: Path) -> None:
    bad = {"factory": "tests.support.runners:Misbehaving", "mood": "raise"}
    models = [{"name": "one", **bad}, {"name": "two", **bad}]
    grid = write_grid(tmp_path / "moods.yaml", models=models)
    assert sweep(grid, output).exit_code == 1
    works = "tests.support.runners:MadeUp"
    assert sweep(grid, output, only=("model=one",), retry_failed=True, runner=works).exit_code == 0
    left = [failure.unit for failure in Store(str(output)).failures() if failure.final]
    assert left == ["train two on digits"]


def test_from_python(grid: Path, output: Path) -> None:
    options = {"backend": "inline", "runner": "tests.support.runners:Misbehaving", "quiet": True}
    summary = robustsweep.run(str(grid), str(output), only=["epsilon=0.1"], **options)  # type: ignore[arg-type]
    assert (summary.exit_code, summary.state.cells_done) == (0, 2)
    with pytest.raises(UserError, match=r'only: found "epsilon=0.1"; a list such as \["epsilon=0.1"\]'):
        robustsweep.run(str(grid), str(output), only="epsilon=0.1", **options)  # type: ignore[arg-type]


# -- the command line -------------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_plan_shows_only_the_selected_rows(grid: Path, output: Path) -> None:
    result = command("plan", grid, "-o", output, "--only", "attack=work,epsilon=0.1")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("small_cnn")]
    assert [row[2] for row in rows] == ["work"]
    assert "1 of the grid's 4 cells: 0 done, 1 to do" in result.stdout
    both = command("run", grid, "-o", output, "--only", "attack=work", "--only", "epsilon=0.1", "--dry-run")
    assert "3 of the grid's 4 cells: 0 done, 3 to do" in both.stdout
    assert not output.exists()


@pytest.mark.parametrize("what", ["plan", "run"])
def test_what_matches_nothing_is_one_clear_error(what: str, grid: Path, output: Path) -> None:
    result = command(what, grid, "-o", output, "--only", "attack=wrok")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'error: --only "attack=wrok": attack "wrok" matches nothing in this grid; did you mean "work"? '
        "it has: other, work\n"
    )
    assert not output.exists()


def test_the_summary_speaks_of_what_is_selected(grid: Path, output: Path) -> None:
    sweep(grid, output, only=("attack=work",))
    result = command("run", grid, "-o", output, "--only", "attack=work")
    assert result.exit_code == 0
    assert "moods: 2 of 2 selected cells done; nothing was left to run" in result.stdout
    assert "the tables show all 4 cells of the grid" in result.stdout
    shown = json.loads(command("table", output, "-f", "json").stdout)
    assert len([row for row in shown if row["attack"] != "worst case"]) == 4
