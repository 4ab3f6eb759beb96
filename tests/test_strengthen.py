"""`strengthen`: stronger attacks on what survives, where what they find goes, and what nobody can mistake."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import robustsweep
from orchestrator import show
from orchestrator.cli import app
from orchestrator.errors import StoreError, UserError
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import attack_spec
from orchestrator.plan.strengthen import stronger
from orchestrator.results.strengthened import Change
from orchestrator.run.backends import MakeBackend
from orchestrator.run.options import RunOptions
from orchestrator.run.strengthen import Strengthen, kept_grid, prepare_strengthening, run_strengthening
from orchestrator.run.sweep import Summary
from orchestrator.store.folder import Store
from tests.support.runners import MadeUp
from tests.support.sweeps import Answer, Quiet, Scripted, rows, sweep, times_counted, write_grid
from workers import layout
from workers.shards import FOOTER_KEY
from workers.unit import Evaluation, Failed, Unit, WorkerSettings

WEAK = {"name": "weak", "factory": "tests.support.runners:Misbehaving", "steps": 1}
PLAIN = {"name": "plain", "factory": "tests.support.runners:Misbehaving"}


def grid_of(path: Path, attacks: Sequence[Mapping[str, Any]] = (WEAK,), **values: Any) -> Path:
    write_grid(path, epsilons=[0, 0.1, 0.2], **values)
    grid = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**grid, "attacks": list(attacks)}))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """90 of 100 are right; the attack breaks those below 20 at 0.1 and below 40 at 0.2, and with twice the
    steps twice as many; `standard` none but those."""
    assert sweep(grid_of(tmp_path / "g.yaml"), tmp_path / "out").exit_code == 0
    return tmp_path / "out"


def planned(output: Path, *overrides: str, **asked: Any) -> Strengthen:
    store = Store(str(output))
    return prepare_strengthening(store, kept_grid(store, overrides), **{"bundle": {}, **asked})


def strengthened(
    output: Path, *overrides: str, pool: MakeBackend | None = None, **asked: Any
) -> tuple[Summary, list[Change]]:
    options = RunOptions(output=str(output), backend="inline", runner="tests.support.runners:MadeUp")
    injected = {"backend": pool} if pool else {}
    return run_strengthening(planned(output, *overrides, **asked), options, Quiet(), **injected)


def view(output: Path, sql: str = "FROM strengthened") -> list[dict[str, Any]]:
    return robustsweep.query(str(output), sql).to_pylist()


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# -- which attacks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        ("bim", "steps=20"),
        ({"name": "bim", "steps": 5}, ""),  # twice of which is the default
        ({"name": "pgd", "steps": 7, "restarts": 3}, "restarts=4, steps=14"),
        ({"name": "pgd", "random_start": False}, "random_start=False, steps=80"),
        ("square", "queries=10000"),
        ("standard", "queries=10000, steps=200"),
        ("apgd", "steps=200"),  # whose restarts depend on what it aims at, unless they are given
        ({"name": "apgd", "restarts": 1}, "restarts=2, steps=200"),
        ("fgsm", None),
        ("noise", None),
        (WEAK, "steps=2"),
        (PLAIN, None),
        ({**PLAIN, "steps": "many", "restarts": True}, None),
    ],
)
def test_what_is_stronger(tmp_path: Path, attack: Any, shown: str | None) -> None:
    grid = load_grid(str(grid_of(tmp_path / "g.yaml", [attack])))
    made = stronger(grid.attacks[0])
    assert (made.shown if made else None) == shown
    if made and shown == "":  # the same attack as if the grid had said so
        plain = load_grid(str(grid_of(tmp_path / "h.yaml", [attack["name"]]))).attacks[0]
        assert attack_spec(made, attack_seed=0) == attack_spec(plain, attack_seed=0)


def test_only_survivors_are_attacked(output: Path) -> None:
    found = planned(output)
    attacks = {run.attack.name: run for _, runs in found.prepared.plan.victims for run in runs}
    assert attacks.keys() == {"weak", "standard"}
    assert [cell.epsilon for cell in attacks["weak"].cells] == [0.1, 0.2]
    units = [unit for victim in found.prepared.plan.todo for unit in found.prepared.plan.units(victim)]
    right = [position for position in range(100) if position % 10]
    for unit in units:
        [(_, epsilon)] = unit.cells
        left = [position for position in right if position >= 200 * epsilon]
        assert unit.attacked == tuple(p for p in left if unit.start <= p < unit.stop)
        assert unit.keep == 0 and unit.work == len(unit.attacked)
    assert [(unit.start, unit.stop) for unit in units].count((0, 50)) == 4
    assert sum(found.prepared.plan.work.values()) == 2 * (72 + 54)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    attacks = [WEAK, PLAIN, {"name": "bim", "targeted": True}, {**WEAK, "name": "fails", "mood": "raise"}]
    sweep(grid_of(tmp_path / "g.yaml", attacks), tmp_path / "out")
    found = planned(tmp_path / "out")
    assert dict(found.left_out) == {
        "of an attack without steps, queries or restarts": 2,
        "targeted": 2,
        "not done": 2,
    }
    # The worst case lacks one of its attacks: nobody knows yet what survives it.
    [(_, runs)] = found.prepared.plan.victims
    assert [run.attack.name for run in runs] == ["weak"]
    result = command("strengthen", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0 and "left out: 2 cells targeted" in result.output
    assert not (tmp_path / "out" / "strengthened").exists()


def test_what_the_grid_has_changed_is_left_out(output: Path, tmp_path: Path) -> None:
    found = planned(output, "models=[small_cnn, wide_cnn]")
    assert not found.left_out and len(found.prepared.plan.victims) == 1
    found = planned(output, "epsilons=[0, 0.1]")
    assert dict(found.left_out) == {"that the grid does not have as they are here": 1}
    with pytest.raises(UserError, match=r"no cell of grid moods is in .*out: name the grid that ran into it"):
        planned(output, "models=[wide_cnn]")


def test_a_part_and_the_budget_of_standard(output: Path) -> None:
    plan = planned(output, only=["epsilon=0.1"], bundle={"steps": 5}).prepared.plan
    assert (plan.cell_count, plan.grid_cell_count) == (2, 4)
    [(_, runs)] = plan.selected
    assert [run.attack.shown for run in runs] == ["steps=2", "steps=5"]
    [(_, runs)] = planned(output, bundle=None).prepared.plan.victims
    assert [run.attack.name for run in runs] == ["weak"]
    with pytest.raises(UserError, match="--only"):
        planned(output, only=["epsilon=0.7"])


def test_standard_is_not_run_again_where_the_grid_has_it(tmp_path: Path) -> None:
    sweep(grid_of(tmp_path / "g.yaml", [WEAK, "standard"]), tmp_path / "out")
    [(_, runs)] = planned(tmp_path / "out").prepared.plan.victims
    assert [(run.attack.name, run.attack.shown) for run in runs] == [
        ("weak", "steps=2"),
        ("standard", "queries=10000, steps=200"),
    ]


# -- what comes of it ---------------------------------------------------------------------------------------


def test_what_they_break_is_said_and_changes_no_number(output: Path) -> None:
    before = view(output, "SELECT cell_id, robust_accuracy FROM cells ORDER BY ALL")
    summary, changed = strengthened(output)
    assert (summary.exit_code, summary.state.units_done) == (0, 9)
    # standard breaks nothing, the other twice as many as before.
    found = {
        (row["attack"], row["epsilon"]): (row["survivors"], row["broken"], row["robust_accuracy_after"])
        for row in view(output)
        if row["stronger"] == "weak (steps=2)"
    }
    assert found == {(name, e): v for name in ("weak", None) for e, v in HALVED.items()}
    assert {row["broken"] for row in view(output) if row["stronger"] == "standard"} == {0}
    assert {(change.of["attack"], change.before, change.after, change.by) for change in changed} == {
        (name, before, after, "weak (steps=2)")
        for name in ("weak", None)
        for before, after in ((0.72, 0.54), (0.54, 0.18))
    }
    checks = view(output, "SELECT DISTINCT rule, severity FROM checks")
    assert checks == [{"rule": "not_converged", "severity": "suspicious"}]
    assert summary.checks.num_rows == 4
    assert view(output, "SELECT cell_id, robust_accuracy FROM cells ORDER BY ALL") == before
    result = command("verify", output)
    assert result.exit_code == 0 and "suspicious: not_converged" in result.output
    assert "would be 54.0%, not 72.0%" in result.output
    assert "¹ suspicious: a stronger attack" in command("table", output).output
    assert "not_converged" in (output / "tables" / "robustness.csv").read_text()


HALVED = {0.1: (72, 18, 0.54), 0.2: (54, 36, 0.18)}
"""By epsilon: how many survive, how many of them fall to twice the steps, and what is left."""


def test_what_a_terminal_says_at_the_end(output: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    found = planned(output)
    summary, changed = strengthened(output)
    show.survivors(console, found)
    show.summary(console, found.prepared, summary)
    show.changes(console, changed, complete=True)
    text = console.export_text()
    assert (
        "weak (steps=1) linf on small_cnn on digits at epsilon 0.1: 72.0% -> 54.0% by weak (steps=2)" in text
    )
    assert "the worst case linf on small_cnn on digits at epsilon 0.2: 54.0% -> 18.0%" in text
    assert f"robustsweep verify {output} says" in text and f"table {output} shows" in text
    assert "0 numbers held, within a point" in text


def test_what_it_says_goes_by_labels(output: Path, tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "g.yaml", models=[{"name": "small_cnn", "label": "Petit"}])
    assert sweep(grid, output).state.units == 0
    console = Console(width=200, record=True, file=io.StringIO())
    show.survivors(console, planned(output))
    row = next(line for line in console.export_text().splitlines() if "weak (steps=2) linf" in line)
    assert row.split("  ")[0] == "Petit on digits" and "weak (steps=1)" in row, "whose survivors it attacks"
    _, changed = strengthened(output, bundle=None)
    assert changed[0].place == "weak (steps=1) linf on Petit on digits at epsilon 0.1"


def test_what_was_not_tried_is_not_called_settled(output: Path) -> None:
    settings = WorkerSettings(str(output / "strengthened"), str(output.parent / "victims"), "r")
    runner = MadeUp(settings)

    def answer(unit: Unit, attempt: int) -> Answer:
        fails = isinstance(unit, Evaluation) and unit.attack.name == "weak"
        return Failed(unit_id=unit.unit_id, error="E: no") if fails else runner(unit)

    summary, changed = strengthened(output, pool=lambda *_, **__: Scripted(settings, answer))
    console = Console(width=200, record=True, file=io.StringIO())
    show.changes(console, changed, complete=not summary.exit_code)
    said = "not all survivors have been tried: of the others nothing is known\n"
    assert console.export_text(clear=False) == said
    show.summary(console, planned(output).prepared, summary)
    assert f"tracebacks: {output}/strengthened/failures" in console.export_text()
    mended, changed = strengthened(output, retry_failed=True, bundle=None)
    show.changes(console, changed, complete=not mended.exit_code)
    assert "0 numbers held" in console.export_text()


def test_rows_of_examples_that_were_left_alone_say_so(output: Path) -> None:
    strengthened(output)
    table = rows(output / "strengthened")
    assert times_counted(table) == {1: 400}
    alone = table.filter(pc.is_null(table["linf"]))
    assert alone.num_rows == 400 - 2 * (72 + 54)
    assert not any(alone["success"].to_pylist())
    shards = (output / "strengthened" / "shards").rglob("*.parquet")
    footers = [json.loads(pq.read_schema(path).metadata[FOOTER_KEY]) for path in shards]
    assert sorted(footer["attacked"] for footer in footers) == [9, 9, 27, 27, 45, 45, 45, 45]


def test_it_resumes(output: Path) -> None:
    settings = WorkerSettings(str(output / "strengthened"), str(output.parent / "victims"), "r")
    runner = MadeUp(settings)

    def answer(unit: Unit, attempt: int) -> Answer:
        fails = isinstance(unit, Evaluation) and unit.start == 50 and unit.attack.name == "weak"
        return Failed(unit_id=unit.unit_id, error="E: no") if fails else runner(unit)

    summary, _ = strengthened(output, pool=lambda *_, **__: Scripted(settings, answer))
    assert (summary.exit_code, summary.state.units_failed) == (1, 2)
    # Half of them were tried, so that there is no number after; what was broken is broken.
    half = [row for row in view(output) if row["stronger"] == "weak (steps=2)" and row["attack"]]
    assert [row["robust_accuracy_after"] for row in half] == [None, None]
    assert [row["tried"] for row in half] == [27, 9]
    assert {row["rule"] for row in view(output, "FROM checks")} == {"not_converged"}
    assert strengthened(output)[0].exit_code == 1  # what failed waits to be asked for
    again, _ = strengthened(output, retry_failed=True)
    assert (again.exit_code, again.state.units_done) == (0, 3)
    assert strengthened(output)[0].state.units == 0
    assert times_counted(rows(output / "strengthened")) == {1: 400}


def test_more_examples_attack_only_their_survivors(output: Path, tmp_path: Path) -> None:
    strengthened(output)
    sweep(tmp_path / "g.yaml", output, ["examples=150"])
    found = planned(output)
    units = [unit for victim in found.prepared.plan.todo for unit in found.prepared.plan.units(victim)]
    assert {(unit.start, unit.stop) for unit in units} == {(100, 150)}
    assert strengthened(output)[0].exit_code == 0
    assert {row["n"] for row in view(output)} == {150}
    assert all(row["tried"] == row["survivors"] for row in view(output))


def test_another_attack_in_the_grid_makes_another_worst_case(output: Path, tmp_path: Path) -> None:
    strengthened(output)
    strong = {**WEAK, "steps": 2}
    sweep(grid_of(tmp_path / "g.yaml", [WEAK, strong]), output)
    after = [row for row in view(output) if row["attack"] is None]
    # What standard had tried before covers what is left now; what weak with two steps broke is no news.
    assert {(row["stronger"], row["survivors"], row["broken"]) for row in after} == {
        (name, left, 0) for name in ("weak (steps=2)", "standard") for left in (54, 18)
    }
    marked = view(output, "SELECT attack_options, epsilon FROM checks WHERE cell_id IS NOT NULL ORDER BY ALL")
    assert marked == [{"attack_options": "steps=1", "epsilon": epsilon} for epsilon in (0.1, 0.2)]


def test_a_cheaper_run_hides_nothing_that_was_found(output: Path) -> None:
    strengthened(output)
    before = view(output, "FROM checks")
    strengthened(output, bundle=None, only=["epsilon=0.1"])
    assert view(output, "FROM checks") == before


def test_what_other_weights_did_does_not_count(output: Path) -> None:
    strengthened(output)
    [pin] = (output / "pins").iterdir()
    victim, weights, _ = pin.name.rsplit(".", 2)
    pin.rename(pin.with_name(f"{victim}.{'0' * 64}.json"))
    assert view(output) == []
    pin.with_name(f"{victim}.{'0' * 64}.json").rename(pin)
    assert len(view(output)) == 8
    # A pin of other weights that was left in the folder goes.
    stale = output / "strengthened" / "pins" / f"{victim}.{'0' * 64}.json"
    shutil.copy(pin, stale)
    assert strengthened(output)[0].exit_code == 0
    assert [file.name for file in (output / "strengthened" / "pins").iterdir()] == [
        f"{victim}.{weights}.json"
    ]


def test_a_victim_without_its_pin_is_left_out(output: Path) -> None:
    shutil.rmtree(output / "pins")
    found = planned(output)
    assert dict(found.left_out) == {"of a victim without results": 3}
    assert found.prepared.plan.cell_count == 0
    result = command("strengthen", output)
    assert result.exit_code == 0 and "nothing survives that could be attacked again" in result.output


# -- what nobody can mistake --------------------------------------------------------------------------------


def test_no_table_is_made_of_survivors_alone(output: Path, tmp_path: Path) -> None:
    strengthened(output)
    inside = output / "strengthened"
    moved = shutil.copytree(inside, tmp_path / "elsewhere")
    grid = tmp_path / "g.yaml"
    for folder in (inside, moved):
        for arguments in (
            ("table", folder),
            ("query", folder, "FROM cells"),
            ("verify", folder),
            ("strengthen", folder),
            ("plan", grid, "-o", folder),
            ("run", grid, "-o", folder),
        ):
            result = command(*arguments)
            assert (result.exit_code, "attacks on survivors alone" in result.output) == (2, True), arguments
    assert not (inside / "tables").exists()
    with pytest.raises(StoreError):
        robustsweep.cells(str(inside))
    status = command("status", inside)
    assert status.exit_code == 0 and "4 of 4 done" in status.output
    assert command("clean", inside).exit_code == 0


def test_a_grid_that_cannot_be_read_from_here(output: Path, tmp_path: Path) -> None:
    grid = (output / layout.GRID).read_text()
    (output / layout.GRID).write_text(grid.replace("tests.support.runners", "no.such.module"))
    result = command("strengthen", output, "--dry-run")
    assert result.exit_code == 2
    assert "out/grid.yaml: 1 problem" in result.output and "name its file with --grid" in result.output
    assert command("strengthen", output, "--grid", tmp_path / "g.yaml", "--dry-run").exit_code == 0
    (output / layout.GRID).unlink()
    result = command("strengthen", output, "--dry-run")
    assert result.exit_code == 2 and "--grid names the grid" in result.output


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("out", "out/strengthened"),
        ("/a/out/", "/a/out/strengthened"),
        ("what?/out", "what?/out/strengthened"),
        ("s3://bucket", "s3://bucket/strengthened"),
        ("s3://bucket/out?region=x", "s3://bucket/out/strengthened?region=x"),
    ],
)
def test_where_it_lies(location: str, expected: str) -> None:
    assert layout.inside(location, layout.STRENGTHENED) == expected


# -- for real -----------------------------------------------------------------------------------------------


@pytest.mark.tf
def test_weak_attacks_on_the_digits_do_not_hold_and_a_strong_one_does(tmp_path: Path) -> None:
    grid = {
        "name": "real",
        "models": [{"name": "small_cnn", "width": 8}],
        "datasets": ["digits"],
        "attacks": [
            {"name": "bim", "steps": 1, "relative_step_size": 0.25},
            {"name": "bim", "steps": 40},
            {"name": "ddn", "norm": "l2", "steps": 20, "epsilons": [0.3, 0.5]},
        ],
        "epsilons": [0, 0.1],
        "train": {"epochs": 8},
        "examples": 80,
        "slice": 50,
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    output = tmp_path / "out"
    evaluator = "workers.evaluator:Evaluator"
    assert sweep(tmp_path / "g.yaml", output, runner=evaluator).exit_code == 0
    options = RunOptions(output=str(output), backend="inline", runner=evaluator)
    found = planned(output, bundle={"steps": 5, "queries": 20, "targeted_classes": 2})
    [victim] = found.prepared.plan.todo
    [nearest] = [gap for gap in victim.gaps if gap.attack.name == "ddn"]  # one search for both epsilons
    assert len(nearest.cells) == 2 and nearest.attacked is not None
    assert len(nearest.attacked) == found.survivors[nearest.cells[0][0]]
    summary, changed = run_strengthening(found, options, Quiet())
    assert summary.exit_code == 0 and summary.state.prepared.total() == 0  # no victim was trained
    by_number = {(change.of["attack_options"], change.of["norm"]): change for change in changed}
    weak = by_number["relative_step_size=0.25, steps=1", "linf"]
    assert weak.before - weak.after > 0.05 and "steps=2" in weak.by
    strong = by_number["steps=40", "linf"]
    assert strong.tried and strong.broken < 3
    marked = {row["attack_options"] for row in view(output, "FROM checks WHERE rule = 'not_converged'")}
    assert "relative_step_size=0.25, steps=1" in marked and "steps=40" not in marked
    for row in view(output):
        assert row["tried"] == row["survivors"]
        # The same from the rows of both folders.
        if row["cell_id"]:
            ours = rows(output).to_pandas().query("cell_id == @row['cell_id']")
            left = set(ours[ours.clean_correct & ~ours.success].position)
            assert row["survivors"] == len(left)
    table = rows(output / "strengthened")
    attacked = pc.is_valid(table["linf"]).to_numpy()
    calls = (pc.add(table["forward_calls"], table["gradient_calls"])).to_numpy()
    assert attacked.any() and not calls[~attacked].any() and not table["success"].to_numpy()[~attacked].any()
    assert not np.isnan(table["l2"].to_numpy()[attacked]).any()
    assert table["ssim"].null_count == table["image"].null_count == table.num_rows
