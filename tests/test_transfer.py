"""Images made against one victim and tried on others: cells, units, what is measured, and what is shown."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import expand
from orchestrator.plan.units import make_plan
from orchestrator.results.matrix import chosen_transfers, matrix
from orchestrator.results.query import run_query
from orchestrator.results.text import transfer as words
from orchestrator.store.accepted import accept
from orchestrator.store.folder import Store
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from tests.support.victims import cells_of
from workers.flags import Flag
from workers.shards import ShardInfo
from workers.storage import Folder
from workers.unit import Evaluation, Transfer, Unit

GRID = """\
models: [small_cnn, {name: wide_cnn, width: 8}]
datasets: [digits]
attacks: [fgsm, {name: bim, norm: l2, steps: 5, epsilons: [1]}]
epsilons: [0, 8/255]
examples: 100
slice: 50
"""


def parse(tmp_path: Path, *overrides: str, text: str = GRID) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return load_grid(str(path), overrides)


def problems(tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(GridError) as caught:
        parse(tmp_path, *overrides)
    return str(caught.value)


# -- the grid ---------------------------------------------------------------------------------------------


def test_a_grid_says_what_is_wrong_with_a_transfer(tmp_path: Path) -> None:
    assert "transfer: found 'all'; true or false is allowed" in problems(tmp_path, "transfer=all")
    found = problems(tmp_path, "attacks=[{name: deepfool, transfer: true, epsilons: [1]}]")
    assert "attacks[0].transfer: found true; deepfool looks for the nearest image" in found
    found = problems(tmp_path, "attacks=[{name: noise, transfer: true}]")
    assert "noise makes the same images whatever the victim is" in found
    found = problems(tmp_path, "defences=[jpeg]", "attacks=[{name: fgsm, adaptive: false, transfer: true}]")
    assert "undefended network's images" in found


def test_what_transfer_leaves_out_is_said(tmp_path: Path) -> None:
    grid = parse(tmp_path, "transfer=true", "attacks=[fgsm, noise, {name: ddn, epsilons: [1]}]")
    assert [attack.transfer for attack in grid.attacks] == [True, False, False]
    text = " ".join(grid.warnings)
    assert "noise makes the same images" in text and "ddn looks for the nearest image" in text
    alone = parse(tmp_path, "transfer=true", "models=[small_cnn]")
    assert "there is one victim only" in " ".join(alone.warnings)
    own = parse(tmp_path, "attacks=[{name: fgsm, transfer: true}, {name: bim, steps: 5}]")
    assert [attack.transfer for attack in own.attacks] == [True, False] and not own.warnings
    but = parse(tmp_path, "transfer=true", "attacks=[{name: fgsm, transfer: false}, bim]")
    assert [attack.transfer for attack in but.attacks] == [False, True]


def test_transfers_are_new_cells_and_leave_the_ids_of_others(tmp_path: Path) -> None:
    plain, grid = cells_of(parse(tmp_path)), cells_of(parse(tmp_path, "transfer=true"))
    own = [cell for cell in grid if cell.attack.made_against is None]
    assert own == plain
    moved = [cell for cell in grid if cell.attack.made_against]
    assert [cell.cell_id for cell in moved] == [
        "small_cnn-digits-s0-fgsm-linf-0.0313725-ec02505ef3db266f",
        "small_cnn-digits-s0-bim-l2-1-2fce052b0ba7e548",
        "wide_cnn-digits-s0-fgsm-linf-0.0313725-b880619edfa2efc4",
        "wide_cnn-digits-s0-bim-l2-1-2f47107ed71fa947",
    ]
    assert len({cell.cell_id for cell in grid}) == len(grid) == len(plain) + 4
    assert all(cell.epsilon > 0 for cell in moved)
    # Each is tried on one and made against the other, by the attack as it is run there.
    runs = {(cell.victim.victim_id, cell.attack.attack_id) for cell in own}
    for cell in moved:
        source = cell.attack.made_against
        assert source and source.victim_id != cell.victim.victim_id
        assert (source.victim_id, cell.attack.made_by) in runs


def test_an_excluded_cell_has_no_part_in_a_transfer(tmp_path: Path) -> None:
    text = "exclude=[{model: wide_cnn, attack: fgsm}]"
    moved = [cell for cell in cells_of(parse(tmp_path, "transfer=true", text)) if cell.attack.made_against]
    assert {cell.attack.name for cell in moved} == {"bim"}


def test_other_datasets_and_sizes_are_apart(tmp_path: Path) -> None:
    moved = [
        cell
        for cell in cells_of(parse(tmp_path, "transfer=true", "datasets=[digits, mnist]"))
        if cell.attack.made_against
    ]
    assert len(moved) == 8
    assert all(
        cell.attack.made_against and cell.attack.made_against.dataset == cell.victim.dataset for cell in moved
    )


# -- units ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(data=st.data(), slice_size=st.integers(1, 120))
def test_every_missing_example_of_every_cell_is_in_one_unit(data: st.DataObject, slice_size: int) -> None:
    victims, cells = _some_victims()
    coverage = {}
    for cell in data.draw(st.sets(st.sampled_from(cells))):
        start, stop = data.draw(st.tuples(st.integers(0, 99), st.integers(0, 100)))
        coverage[cell] = [(start, max(stop, start + 1))]
    plan = make_plan(victims, examples={"digits": 100}, slice_size=slice_size, keep=0, coverage=coverage)
    found: Counter[tuple[str, int]] = Counter()
    parts = [*plan.todo, *plan.sources]
    units: list[Unit] = [unit for part in parts for unit in plan.units(part)]
    assert len({unit.unit_id for unit in units}) == len(units) == plan.unit_count
    for unit in units:
        assert isinstance(unit, Evaluation | Transfer)
        assert unit.start // slice_size == (unit.stop - 1) // slice_size
        for each in unit.into if isinstance(unit, Transfer) else (unit,):
            assert (each.start, each.stop) == (unit.start, unit.stop)
            found.update((cell, p) for cell, _ in each.cells for p in range(unit.start, unit.stop))
            if isinstance(unit, Transfer):
                assert each.attack.made_against == unit.victim
                assert each.attack.made_by == unit.attack.attack_id
                assert each.victim.victim_id != unit.victim.victim_id
    missing = {
        (cell, p)
        for cell in cells
        for p in range(100)
        if not any(a <= p < b for a, b in coverage.get(cell, ()))
    }
    assert set(found) == missing and set(found.values()) <= {1}
    assert sum(plan.work.values()) == len(missing)
    # Whoever has to be there is trained first.
    ready = {each.victim.victim_id for each in plan.todo}
    assert all(source.needed <= ready for source in plan.sources)


def _some_victims() -> tuple[list[Any], list[str]]:
    if not _MADE:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            grid = parse(Path(folder), "transfer=true", "seeds=[0, 1]")
        victims = list(expand(grid))
        _MADE.append((victims, [c.cell_id for _, runs in victims for run in runs for c in run.cells]))
    return _MADE[0]


_MADE: list[tuple[list[Any], list[str]]] = []


def test_only_asks_for_both_victims(tmp_path: Path) -> None:
    from orchestrator.plan.only import select

    grid = parse(tmp_path, "transfer=true")
    chosen = select(list(expand(grid)), ["model=small_cnn"], grid.pixel_range.width)
    assert not any(run.attack.made_against for _, runs in chosen for run in runs)
    chosen = select(list(expand(grid)), ["attack=bim"], grid.pixel_range.width)
    assert sum(bool(run.attack.made_against) for _, runs in chosen for run in runs) == 2


# -- a sweep ----------------------------------------------------------------------------------------------


def test_a_sweep_makes_images_once_and_resumes_by_example(tmp_path: Path) -> None:
    grid, out = (
        parse(tmp_path, "transfer=true", "defences=[none, jpeg]", "epsilons=[0.1]", "attacks=[fgsm]"),
        tmp_path / "out",
    )
    made_up = {"runner": "tests.support.runners:MadeUp"}
    assert sweep(grid, out, **made_up).exit_code == 0
    sources = {
        (info.source_id, info.start) for info in Store(str(out)).accepted_shards().infos if info.source_id
    }
    assert len(sources) == 8  # 4 victims × 2 slices
    summary = sweep(grid, out, **made_up)
    assert (summary.exit_code, summary.state.units) == (0, 0)
    # Twice the examples: the new ones alone; a shard that is lost: its examples on that target.
    more = parse(
        tmp_path, "transfer=true", "defences=[none, jpeg]", "epsilons=[0.1]", "attacks=[fgsm]", "examples=150"
    )
    summary = sweep(more, out, **made_up)
    assert (summary.exit_code, summary.state.units_done) == (0, 4 + 4 + 4)  # trained, attacked, tried
    lost = next(out.glob("shards/small_cnn-digits-s0-*/fgsm-linf-*-from-*.50-100.*"))
    lost.unlink()
    summary = sweep(more, out, **made_up)
    assert (summary.exit_code, summary.state.cells_done) == (0, summary.state.cells)
    assert summary.state.units_done == 1 + 2  # two victims have to be there
    rows = run_query(Store(str(out)).results(), "SELECT count(*) AS n, min(n) AS least FROM transfer")
    assert rows.to_pylist() == [{"n": 12, "least": 150}]


def test_a_victim_that_cannot_be_had_takes_only_its_own_transfers_along(tmp_path: Path) -> None:
    text = GRID.replace(
        "small_cnn, ", 'small_cnn, {name: bad, factory: "tests.support.runners:Misbehaving", mood: raise}, '
    )
    grid, out = parse(tmp_path, "transfer=true", text=text), tmp_path / "out"
    summary = sweep(grid, out)
    assert summary.exit_code == 1
    rows = run_query(
        Store(str(out)).results(),
        "SELECT model, source_model, status, count(*) AS n FROM transfer GROUP BY ALL",
    ).to_pylist()
    status = {(row["model"], row["source_model"]): row["status"] for row in rows}
    assert status == {
        ("small_cnn", "wide_cnn"): "done",
        ("wide_cnn", "small_cnn"): "done",
        **{pair: "failed" for name in ("small_cnn", "wide_cnn") for pair in (("bad", name), (name, "bad"))},
    }
    again = sweep(grid, out)  # failed for good: not tried again by itself
    assert (again.exit_code, again.state.units) == (1, 0)


def test_images_against_other_weights_do_not_count(tmp_path: Path) -> None:
    def shard(name: str, source: str) -> ShardInfo:
        return ShardInfo(
            *(f"t/{name}", 1, 1, "t", "a-from-1", 0, 10, ("c",), "w", "2026", 1.0, "cpu", "", ""),
            *("transfer", "s", source),
        )

    class Pinned:
        def __init__(self, weights: str) -> None:
            self.weights = weights

    pins: Any = {"t": Pinned("w"), "s": Pinned("new")}
    found = accept(Folder.at(str(tmp_path)), [shard("1", "old"), shard("2", "new")], [], pins)
    assert [one.name for one in found.set_aside] == ["t/1"]
    assert found.coverage == {"c": [(0, 10)]}
    # Without pins, the rule that decides between two: the smaller hash.
    found = accept(Folder.at(str(tmp_path)), [shard("1", "old"), shard("2", "new")], [], {})
    assert [one.name for one in found.set_aside] == ["t/1"]


# -- what is shown ----------------------------------------------------------------------------------------

A = Cell(
    model="a",
    attack="bim",
    examples=10,
    rows=[{"success": i < 4, "distance": 0.05 if i < 4 else np.inf, "gradient_calls": 5} for i in range(9)]
    + [{"clean_correct": False}],
)
B = Cell(
    model="b",
    attack="bim",
    examples=10,
    rows=[{"success": i < 6, "distance": 0.05 if i < 6 else np.inf, "gradient_calls": 5} for i in range(8)]
    + [{"clean_correct": False}] * 2,
)
B_ON_A = Cell(
    model="a",
    attack="bim",
    examples=10,
    source=B,
    rows=[{"success": 3 <= i < 6, "distance": 0.1 if 3 <= i < 6 else np.inf} for i in range(9)]
    + [{"clean_correct": False}],
)


def test_cells_examples_and_worst_case_do_not_mix_with_transfers() -> None:
    both, alone = results_of([A, B, B_ON_A]), results_of([A, B])
    for view in ("cells", "examples", "victims", "distances", "worst_case"):
        # Checks do speak of what transfers break.
        said = "c NOT LIKE '%with_transfer%' AND c NOT IN ('verdict', 'checks')"
        ask = f"SELECT COLUMNS(lambda c: {said}) FROM {view} ORDER BY ALL"
        assert run_query(both, ask).equals(run_query(alone, ask))
    worst = {row["model"]: row for row in run_query(both, "FROM worst_case").to_pylist()}
    # 5 of 10 are right and not broken by bim; of these, the images made against b break two.
    assert (worst["a"]["robust_accuracy"], worst["a"]["robust_with_transfer"]) == (0.5, 0.3)
    assert worst["b"]["robust_with_transfer"] is None  # nothing was to be tried on it


def test_the_view_says_of_whom_and_of_how_many() -> None:
    [row] = run_query(results_of([A, B, B_ON_A]), "FROM transfer").to_pylist()
    assert (row["model"], row["source_model"], row["source_id"]) == ("a", "b", B.victim_id)
    assert (row["n"], row["clean_accuracy"], row["robust_accuracy"]) == (10, 0.9, 0.6)
    assert row["attack_success_rate"] == pytest.approx(3 / 9)
    assert (row["white_box_robust_accuracy"], row["white_box_cell_id"]) == (0.5, A.cell_id)
    assert (row["beyond"], row["same_network"], row["status"]) == (2, False, "done")
    rows = run_query(results_of([A, B, B_ON_A]), "FROM transferred").to_pylist()
    assert len(rows) == 10 and {row["source_id"] for row in rows} == {B.victim_id}
    assert sum(row["success"] for row in rows) == 3


def test_what_is_wrong_with_the_victim_is_wrong_with_what_is_tried_on_it() -> None:
    probes = [
        {"victim_id": A.victim_id, "figure": name, "value": 0.5}
        for name in ("batch_changed", "batch_spread", "examples")
    ]
    said = {
        name: getattr(A, name)
        for name in ("victim_id", "model", "model_options", "dataset", "defence", "seed")
    }
    victims = [{**said, "chance": 0.1, "test_accuracy": 0.9}]
    results = results_of([A, B, B_ON_A], victims=victims, probes=probes)
    assert "company" in {row["rule"] for row in run_query(results, "FROM checks").to_pylist()}
    [row] = run_query(results, "FROM transfer").to_pylist()
    own = {row["model"]: row for row in run_query(results, "FROM cells").to_pylist()}["a"]
    assert own["verdict"] == row["verdict"] == "wrong"
    assert row["robust_accuracy"] is row["attack_success_rate"] is row["white_box_robust_accuracy"] is None
    assert row["robust_accuracy_unchecked"] == 0.6
    worst = {row["model"]: row for row in run_query(results, "FROM worst_case").to_pylist()}["a"]
    assert worst["robust_with_transfer"] is None


def test_a_transfer_that_is_not_done_is_no_number() -> None:
    half = replace(B_ON_A, rows=B_ON_A.rows[:5])  # type: ignore[index]
    results = results_of([A, B, half])
    [row] = run_query(results, "FROM transfer").to_pylist()
    assert (row["status"], row["n"], row["white_box_robust_accuracy"]) == ("partial", 5, None)
    worst = {row["model"]: row for row in run_query(results, "FROM worst_case").to_pylist()}["a"]
    assert worst["complete"] and worst["robust_with_transfer"] is None


def test_images_that_were_made_blindly_are_marked() -> None:
    """Else whoever they are tried on would look robust to them."""
    blind = replace(
        B_ON_A, rows=[{**row, "success": False, "flags": ["zero_gradients"]} for row in B_ON_A.rows]
    )
    transfers, own, _ = chosen_transfers(results_of([A, B, blind]), {})
    made = matrix(transfers, own)
    [row] = [row for row in made.rows if row.source == "b"]
    assert row.numbers["a"].blind == (Flag.ZERO_GRADIENTS,) and row.numbers["a"].value == 0.9
    assert "90.0%§" in str(words.columns(made).rows) and "§ zero gradients" in words.caption(made)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    grid = parse(folder, "transfer=true", "defences=[none, jpeg]", "epsilons=[0, 0.1, 0.2]")
    assert sweep(grid, folder / "out", runner="tests.support.runners:MadeUp").exit_code == 0
    return folder / "out"


def shown(*words: str) -> str:
    answer = CliRunner().invoke(app, ["table", *words])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_matrix_has_the_attack_on_oneself_on_its_diagonal(swept: Path) -> None:
    text = shown(str(swept), "--transfer", "--attack", "fgsm", "-f", "md", "--norm", "linf")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    # Made up: 90% are right, of which 20% or 40% are broken, whoever made the images.
    assert lines[0].startswith("| epsilon | made against | on small_cnn | on small_cnn, jpeg")
    assert len(lines) == 2 + 2 * 4
    assert "| 0.1 | small_cnn | (72.0%) | 72.0%* | 72.0% | 72.0% |" in lines
    assert "| 0.2 | small_cnn, jpeg | 54.0%* | (54.0%) | 54.0% | 54.0% |" in lines
    assert "in brackets" in text and "one network" in text and "attack fgsm" in text
    only = shown(str(swept), "--transfer", "--model", "small_cnn", "-f", "md")
    assert "wide_cnn" not in only and "small_cnn, jpeg" in only
    rate = shown(str(swept), "--transfer", "--metric", "attack_success_rate", "-f", "md", "--defence", "none")
    assert "| (20.0%) | 20.0% |" in rate and "jpeg" not in rate
    whole = shown(str(swept), "--transfer", "-f", "html")
    assert "made against" in whole and "digits" in whole


def test_programs_get_the_rows(swept: Path) -> None:
    records = json.loads(shown(str(swept), "--transfer", "-f", "json", "--attack", "fgsm"))
    assert len(records) == 4 * 3 * 2
    assert {record["status"] for record in records} == {"done"}
    assert sum(record["same_network"] for record in records) == 4 * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--transfer", "--by", "model"], "--by does not go with --transfer"),
        (["--transfer", "--model", "smal_cnn"], 'found "smal_cnn"; did you mean "small_cnn"'),
        (["--transfer", "--metric", "ssim"], "allowed: robust_accuracy, attack_success_rate"),
    ],
)
def test_what_a_matrix_cannot_show(swept: Path, words: list[str], said: str) -> None:
    answer = CliRunner().invoke(app, ["table", str(swept), *words])
    assert answer.exit_code == 2 and said in answer.output


def test_a_sweep_without_transfers_has_no_matrix(tmp_path: Path) -> None:
    assert sweep(parse(tmp_path), tmp_path / "out", runner="tests.support.runners:MadeUp").exit_code == 0
    answer = CliRunner().invoke(app, ["table", str(tmp_path / "out"), "--transfer"])
    assert answer.exit_code == 2 and "transfer: true in a grid" in answer.output


def test_the_plan_says_how_many_others(swept: Path) -> None:
    answer = CliRunner().invoke(
        app, ["plan", str(swept.parent / "grid.yaml"), "--set", "transfer=true", "-f", "json"]
    )
    rows = json.loads(answer.stdout)["rows"]
    assert {row["sources"] for row in rows} == {0, 1}
    answer = CliRunner().invoke(app, ["plan", str(swept.parent / "grid.yaml"), "--set", "transfer=true"])
    assert answer.stdout.count("made against 1 other victim") == 4


# -- what is measured -------------------------------------------------------------------------------------


@pytest.mark.tf
def test_success_is_the_answer_of_the_victim_that_images_are_tried_on() -> None:
    """Against a plain loop: the source's attack without early stop, the target's own argmax."""
    import keras

    from tests.support.models import digits_cnn
    from tests.support.victims import victim_spec
    from workers.attacks import build
    from workers.datasets import load
    from workers.measure import Clock
    from workers.transfer import Tried, made_against
    from workers.unit import AttackSpec, DatasetSpec
    from workers.victims.victim import Victim

    digits = load(DatasetSpec(name="digits"), None)
    good = digits_cnn().model
    # A source that errs on every image that the target gets right still makes images of it.
    weak = keras.models.clone_model(good)
    noise = np.random.default_rng(0)
    weak.set_weights([w + noise.normal(0, 0.8 * w.std() * (w.ndim > 1), w.shape) for w in good.get_weights()])
    source, target = Victim(weak, digits, "s"), Victim(good, digits, "t")
    spec = AttackSpec(attack_id="bim-linf-1", name="bim", norm="linf", options={"steps": 10})
    moved = spec.against(victim_spec("source"), "2")
    part = Evaluation("u", victim_spec("target"), moved, (("c1", 0.1), ("c2", 0.2)), 0, 60)
    unit = Transfer("u.transfer", victim_spec("source"), spec, (part,), 0, 60)
    clock = Clock()
    rows = Tried(part, target, clock, made_against(source, unit, [target], clock)).rows().to_pandas()

    order = target.order[:60]
    images, labels = digits.images("test", order), digits.labels("test", order)
    right = target.logits(images).argmax(1) == labels
    assert (source.logits(images).argmax(1) != labels)[right].sum() >= 3
    found = build(spec.config)(
        weak,
        images,
        labels,
        [0.1, 0.2],
        example_indices=order,
        clean_correct=np.ones(60, bool),
        choose="strongest",
    )
    for level, cell in enumerate(("c1", "c2")):
        mine = rows[rows["cell_id"] == cell]
        fooled = right & (target.logits(found.images[level]).argmax(1) != labels)
        assert (mine["clean_correct"].to_numpy() == right).all()
        assert (mine["success"].to_numpy() == fooled).mean() >= 0.98  # batches differ in the last bits
        assert fooled.sum() >= 3
        assert (mine.loc[mine["success"], "linf"] <= [0.1, 0.2][level] * 1.0001).all()
        # The whole budget is spent, also where the source was fooled from the start.
        assert (np.abs(found.images[level] - images).max(axis=(1, 2, 3)) > 0.05).all()


MASKED = """\
models: [small_cnn]
datasets: [digits]
attacks: [{name: pgd, steps: 5}]
defences: [none, {name: rounded, factory: "blunt:rounded"}]
epsilons: [0.2]
examples: 60
train: {epochs: 4, batch_size: 32}
transfer: true
"""

BLUNT = """
import tensorflow as tf


def rounded(levels=4):
    return lambda images: tf.round(images * levels) / levels
"""


@pytest.mark.tf
def test_a_victim_that_hides_its_gradients_falls_to_images_of_another(tmp_path: Path) -> None:
    """It looks untouched, and the attack that was run on it says nothing: what was made elsewhere does."""
    (tmp_path / "blunt.py").write_text(BLUNT)
    grid = parse(tmp_path, text=MASKED)
    out = tmp_path / "out"
    assert sweep(grid, out, runner="workers.evaluator:Evaluator").exit_code == 0
    results = Store(str(out)).results()
    rows = {row["defence"]: row for row in run_query(results, "FROM transfer").to_pylist()}
    own = {row["defence"]: row for row in run_query(results, "FROM cells").to_pylist()}
    hidden = rows["rounded"]
    assert own["rounded"]["robust_accuracy_unchecked"] == own["rounded"]["clean_accuracy"] > 0.7
    assert hidden["same_network"] and hidden["robust_accuracy"] < 0.2
    assert hidden["beyond"] >= 30
    assert {"transfer_better", "epsilon_one"} <= set(own["rounded"]["checks"])
    # Made against it, images are no threat to anybody, and say why.
    assert rows["none"]["robust_accuracy"] == rows["none"]["clean_accuracy"]
    assert "zero_gradients" in rows["none"]["flags"]
