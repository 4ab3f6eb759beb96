"""Defences in training and combinations in a grid: ids, what shares a network, what is refused, and how."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import expand
from orchestrator.plan.units import make_plan
from tests.support.sweeps import sweep
from tests.support.victims import cells_of
from workers.unit import NO_DEFENCE, VictimSpec, label, recorded, without_options

GRID = """\
models: [small_cnn]
datasets: [digits]
attacks: [fgsm, {name: fgsm, adaptive: false}]
epsilons: [0.1]
train: {epochs: 6}
defences:
  - none
  - jpeg
  - label_smoothing
  - {name: adversarial_training, epsilon: 0.2}
  - {name: gaussian_augmentation, sigma: 0.1}
  - [{name: gaussian_augmentation, sigma: 0.1}, {name: jpeg, quality: 50}]
  - [jpeg, bit_depth]
  - [bit_depth, jpeg]
"""


def parse(tmp_path: Path, text: str, *overrides: str) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return load_grid(str(path), overrides)


def victims(grid: Grid) -> dict[str, VictimSpec]:
    """By the name of their defence."""
    return {victim.defence.name: victim for victim, _ in expand(grid)}


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(GridError) as error:
        parse(tmp_path, text, *overrides)
    return [re.sub(r"^line \d+: ", "", str(problem)) for problem in error.value.problems]


def test_golden_ids_of_defences_in_training_and_of_combinations(tmp_path: Path) -> None:
    """The ids that results on disk have: as those of `tests/test_identity.py`."""
    ids = [cell.cell_id for cell in cells_of(parse(tmp_path, GRID)) if cell.attack.adaptive]
    assert ids == [
        "small_cnn-digits-s0-fgsm-linf-0.1-255471415a709669",
        "small_cnn-digits-jpeg-s0-fgsm-linf-0.1-631938288812bb7b",
        "small_cnn-digits-label_smoothing-s0-fgsm-linf-0.1-e6b77bfca98621ab",
        "small_cnn-digits-adversarial_training-s0-fgsm-linf-0.1-25214ea1d67fbfed",
        "small_cnn-digits-gaussian_augmentation-s0-fgsm-linf-0.1-d13cdd610e8dfa91",
        "small_cnn-digits-gaussian_augmentation+jpeg-s0-fgsm-linf-0.1-39ffa87692821327",
        "small_cnn-digits-jpeg+bit_depth-s0-fgsm-linf-0.1-9ebcce80a11816e9",
        "small_cnn-digits-bit_depth+jpeg-s0-fgsm-linf-0.1-2123ae20d6d60e04",
    ]


def test_a_defence_in_training_is_part_of_the_network(tmp_path: Path) -> None:
    found = victims(parse(tmp_path, GRID))
    networks = {name: victim.network.defence.name for name, victim in found.items()}
    assert networks == {
        "none": "none",
        "jpeg": "none",
        "label_smoothing": "label_smoothing",
        "adversarial_training": "adversarial_training",
        "gaussian_augmentation": "gaussian_augmentation",
        "gaussian_augmentation + jpeg": "gaussian_augmentation",
        "jpeg + bit_depth": "none",
        "bit_depth + jpeg": "none",
    }
    for victim in found.values():
        # The network of a victim is that of the grid which has its defence in training alone, id and all.
        assert victim.network == found[victim.network.defence.name].network
        assert bool(victim.network_id) == any(not each.in_training for each in victim.defence.each) - (
            victim.defence == NO_DEFENCE
        )
    assert len({victim.network.victim_id for victim in found.values()}) == 4
    assert len({victim.victim_id for victim in found.values()}) == 8  # the order of a combination counts


def test_oblivious_cells_are_those_of_victims_with_a_defence_at_inference(tmp_path: Path) -> None:
    cells = cells_of(parse(tmp_path, GRID))
    oblivious = {cell.victim.defence.name for cell in cells if not cell.attack.adaptive}
    assert oblivious == {"jpeg", "gaussian_augmentation + jpeg", "jpeg + bit_depth", "bit_depth + jpeg"}
    [why] = problems(tmp_path, GRID, "defences=[none, label_smoothing]")
    assert "needs a defence at inference" in why and "however it was trained" in why


def test_a_list_of_one_is_that_one_and_defaults_may_be_spelled_out(tmp_path: Path) -> None:
    alone = "defences=[jpeg, {name: trades, epsilon: 0.1}, [label_smoothing, jpeg]]"
    trades = "[{name: trades, epsilon: 0.1, beta: 6, norm: linf, ramp: null}]"
    smooth = "[{name: label_smoothing, smoothing: 0.1}, jpeg]"
    spelled = f"defences=[[{{name: jpeg, quality: 75}}], {trades}, {smooth}]"
    first, second = (cells_of(parse(tmp_path, GRID, one)) for one in (alone, spelled))
    assert [cell.cell_id for cell in first] == [cell.cell_id for cell in second]
    assert [cell.victim for cell in first] == [cell.victim for cell in second]


def test_pixel_quantities_are_on_the_grids_scale(tmp_path: Path) -> None:
    unit = (
        "defences=[{name: adversarial_training, epsilon: 8/255}, {name: gaussian_augmentation, sigma: 0.1}]"
    )
    wide = "defences=[{name: adversarial_training, epsilon: 8}, {name: gaussian_augmentation, sigma: 25.5}]"
    attack = "attacks=[fgsm]"
    first = cells_of(parse(tmp_path, GRID, attack, unit))
    second = cells_of(parse(tmp_path, GRID, attack, wide, "pixel_range=[0, 255]", "epsilons=[25.5]"))
    assert [cell.cell_id for cell in first] == [cell.cell_id for cell in second]
    assert second[0].victim.defence.options["epsilon"] == 8 / 255
    # On a grid's own scale 8/255 is not what it is on [0, 1], which is said.
    grid = parse(tmp_path, GRID, attack, unit, "pixel_range=[-1, 1]")
    assert any("8/255" in warning and "[-1, 1]" in warning for warning in grid.warnings)


@pytest.mark.parametrize(
    ("defences", "message"),
    [
        ("[[label_smoothing, gaussian_augmentation]]", "one of a combination may"),
        ("[[jpeg, jpeg]]", "jpeg stands here twice"),
        ("[[jpeg, {name: jpeg, quality: 50}]]", "jpeg stands here twice"),
        ("[[none, jpeg]]", "found none in a combination"),
        ("[[jpeg, null]]", "found none in a combination"),
        ("[[]]", "found an empty list"),
        ("[[[jpeg], bit_depth]]", "found a list in a combination"),
        ("[[jpeg, label_smoothing]]", "put label_smoothing first"),
        ("[[jpeg, bit_dept]]", 'did you mean "bit_depth"'),
        ("[[jpeg, bit_depth], [jpeg, bit_depth]]", "stands twice with the same options"),
        ("[adversarial_training]", "epsilon: missing"),
        ("[{name: trades, epsilon: 2}]", "at most 1 is allowed in linf"),
        ("[{name: trades, epsilon: 0}]", "greater than 0"),
        (
            "[{name: adversarial_training, epsilon: 0.1, attack: fgsm, steps: 3}]",
            "attack fgsm, which has one",
        ),
        ("[{name: adversarial_training, epsilon: 0.1, ramp: 6}]", "at most 5 is allowed"),
        ("[{name: label_smoothing, epsilon: 0.1}]", "allowed: smoothing"),
        ("[{name: gaussian_augmentation, stddev: 0.1}]", "allowed: sigma"),
    ],
)
def test_what_is_no_defence_is_refused_in_one_sentence(defences: str, message: str, tmp_path: Path) -> None:
    found = problems(tmp_path, GRID, f"defences={defences}", "attacks=[fgsm]")
    assert len(found) == 1 and message in found[0], found
    assert ": defences" in found[0] and "ArgsKwargs" not in found[0]


OWN = """\
models: [{name: own, factory: "own_nets_for_combinations:build", train: false}, small_cnn]
datasets: [digits]
attacks: [fgsm]
epsilons: [0.1]
defences: [none, jpeg, [label_smoothing, jpeg]]
"""


def test_a_model_that_nobody_trains_cannot_be_trained_with_a_defence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_nets_for_combinations.py").write_text("def build(): ...\n")
    [why] = problems(tmp_path, OWN)
    assert "label_smoothing acts in training, and own is evaluated as it is" in why
    assert "leave train: false out" in why
    exclude = "exclude: [{model: own, defence: label_smoothing + jpeg}]"
    assert exclude in why
    found = {
        (cell.victim.model.name, cell.victim.defence.name)
        for cell in cells_of(parse(tmp_path, OWN + exclude))
    }
    assert len(found) == 5
    parse(tmp_path, OWN.replace(", train: false", ""))


def test_a_head_alone_is_trained_on_no_images(tmp_path: Path) -> None:
    text = GRID.replace("[small_cnn]", "[{name: mobilenet, weights: imagenet}, small_cnn]")
    only = "train={epochs: 6, fine_tune: none}"
    trades = "defences=[{name: trades, epsilon: 0.1}]"
    [why] = problems(tmp_path, text, only, trades, "attacks=[fgsm]")
    assert "trades acts on images, and with fine_tune: none mobilenet trains a head on features" in why
    # Smoothed labels are no images; and a network from scratch has no head phase.
    parse(tmp_path, text, only, "defences=[label_smoothing]", "attacks=[fgsm]")
    parse(tmp_path, GRID, only)


def test_labels_say_all_and_names_without_options_stay_names(tmp_path: Path) -> None:
    found = victims(parse(tmp_path, GRID))["gaussian_augmentation + jpeg"]
    assert found.defence.label == "gaussian_augmentation (sigma=0.1) + jpeg (quality=50)"
    assert found.label == "small_cnn on digits with gaussian_augmentation + jpeg"
    assert found.victim_id.startswith("small_cnn-digits-gaussian_augmentation+jpeg-s0-")
    assert without_options(found.defence.label) == found.defence.name
    assert without_options("jpeg [0f9a3c]") == "jpeg"
    said = recorded(found.defence)
    assert said["name"] == found.defence.name and [one["name"] for one in said["parts"]] == [
        "gaussian_augmentation",
        "jpeg",
    ]
    assert recorded(NO_DEFENCE) == {"name": "none", "version": 1, "in_training": False}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["jpeg", "bit_depth", "my.own-2"]), st.sampled_from(["", "a=1", "b=(1, [2])"])
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_name_is_what_a_label_has_outside_its_brackets(parts: list[tuple[str, str]]) -> None:
    whole = " + ".join(label(name, shown) for name, shown in parts)
    assert without_options(whole) == " + ".join(name for name, _ in parts)


def test_a_training_counts_by_its_gradients(tmp_path: Path) -> None:
    options = [
        ("label_smoothing", 1),
        ("{name: adversarial_training, epsilon: 0.1}", 8),
        ("{name: adversarial_training, epsilon: 0.1, attack: fgsm}", 2),
        ("[{name: adversarial_training, epsilon: 0.1, steps: 3}, jpeg]", 4),
        ("{name: trades, epsilon: 0.1}", 12),
    ]
    for text, count in options:
        grid = parse(tmp_path, GRID, f"defences=[none, {text}]", "attacks=[fgsm]", "seeds=[0, 1]")
        plan = make_plan(list(expand(grid)), examples={"digits": 100}, slice_size=50, keep=0, coverage={})
        assert plan.training_work == {"train": 2 * (1 + count)} and plan.preparations == {"train": 4}
        assert list(plan.attacked_trainings.values()) == ([count] if count > 1 else [])


def test_a_combination_is_named_the_same_everywhere(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from orchestrator.cli import app

    grid, output = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(GRID.replace("attacks: [fgsm, {name: fgsm, adaptive: false}]", "attacks: [fgsm]"))
    sweep(grid, output, runner="tests.support.runners:MadeUp")
    name = "gaussian_augmentation (sigma=0.1) + jpeg (quality=50)"
    run = CliRunner().invoke
    plan = run(app, ["plan", str(grid), "-o", str(output)]).stdout
    assert name in plan and "adversarial_training (epsilon=0.2)" in plan
    table = run(app, ["table", str(output), "--format", "csv"]).stdout
    assert name in table
    # A part's name is not the combination's: "jpeg" are the victims of it alone.
    chosen = run(app, ["table", str(output), "--format", "csv", "--defence", "jpeg"]).stdout
    assert ",jpeg," in chosen and "+" not in chosen.replace("e+", "")
    for defence in ("gaussian_augmentation + jpeg", name):
        chosen = run(app, ["table", str(output), "--format", "csv", "--defence", defence]).stdout
        assert name in chosen and ",none," not in chosen
    compared = run(app, ["compare", "none", "gaussian_augmentation + jpeg", "--in", str(output)])
    assert (compared.exit_code in (0, 1) and "1 compared" in compared.stdout) or name in compared.stdout
    only = ["plan", str(grid), "-o", str(tmp_path / "new"), "--only", "defence=gaussian_augmentation + jpeg"]
    assert "1 of the grid's 8 cells" in run(app, only).stdout
