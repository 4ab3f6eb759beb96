"""Two sides compared example by example, and what is required of results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import QueryError, UserError
from orchestrator.grid.load import load_grid
from orchestrator.results.compare import compare
from orchestrator.results.pairing import Outcome, Pair, pair
from orchestrator.results.require import require
from orchestrator.results.text import comparison as words
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from workers.statistics import holm, holm_adjusted

BROKEN = {"success": True, "distance": 0.005}
WRONG = {"clean_correct": False}


def held(robust, broken=0, wrong=0):
    return [{}] * robust + [BROKEN] * broken + [WRONG] * wrong


def cell(robust, broken=0, **values):
    return Cell(rows=held(robust, broken), examples=robust + broken, **values)


def rows(found):
    return found.rows.to_pylist()


def compared(one, other, *sides, **sweeps):
    results = [results_of(one, sweep="a"), results_of(other, sweep="b")]
    return compare(results, *(sides or ({"sweep": "a"}, {"sweep": "b"})))


# -- statistics -------------------------------------------------------------------------------------------


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_pair_counts_what_it_says(examples):
    one, other = (np.array(side) for side in zip(*examples, strict=True))
    found = pair(Outcome(one, None), Outcome(other, None))
    assert found.n == len(examples) and found.first == one.sum() and found.second == other.sum()
    assert found.difference == pytest.approx(other.mean() - one.mean())
    low, high = found.interval
    assert -1 <= low <= found.difference <= high <= 1
    discordant = found.only_first + found.only_second
    expected = binomtest(found.only_first, discordant).pvalue if discordant else 1.0
    assert found.probability == pytest.approx(expected)


def test_only_the_examples_that_both_have_are_paired():
    found = pair(Outcome(np.array([True, False, True]), None), Outcome(np.array([True, True]), None))
    assert found == Pair(n=2, first=1, second=2, only_first=0, only_second=1)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(20, 400), st.integers(0, 2**31))
def test_the_interval_holds_the_truth_as_often_as_it_says(gained, lost, n, seed):
    """By simulation: of 300 samples of pairs, all but a few in a hundred have the true difference inside."""
    gained, lost = gained / 2, lost / 2
    draws = np.random.default_rng(seed).multinomial(n, [gained, lost, 1 - gained - lost], size=300)
    intervals = [Pair(n, 0, 0, int(b), int(a)).interval for a, b, _ in draws]
    inside = sum(low - 1e-12 <= gained - lost <= high + 1e-12 for low, high in intervals)
    assert inside >= 0.88 * 300


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_adjusted_probabilities_say_what_holm_says(probabilities, alpha):
    """Who takes the least first, and stops at the first that is above alpha over those that are left."""
    adjusted = holm_adjusted(probabilities)
    significant = set()
    for rank, i in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        if probabilities[i] * (len(probabilities) - rank) > alpha:
            break
        significant.add(i)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == significant
    assert [i in significant for i in range(len(adjusted))] == holm(probabilities, alpha)
    assert all(one >= p for one, p in zip(adjusted, probabilities, strict=True))


# -- sweeps -----------------------------------------------------------------------------------------------


def test_two_sweeps_are_paired_and_told():
    found = compared([cell(80, 20)], [cell(60, 40)])
    (row,) = rows(found)
    assert (row["n"], row["first"], row["second"]) == (100, 0.8, 0.6)
    assert (row["only_first"], row["only_second"], row["result"]) == (20, 0, "worse")
    assert row["difference"] == pytest.approx(-0.2) and row["low"] < -0.2 < row["high"] < 0
    assert row["probability"] == pytest.approx(2 * 0.5**20) and row["note"] == ""
    assert found.worse and not compared([cell(60, 40)], [cell(80, 20)]).worse
    assert "b against a: 0 better, 1 worse, 0 tied of 1" in words.summary(found)


def test_what_is_not_compared_is_a_number_below_what_is():
    """However much one side lacks, it hides no row; where nothing is compared, it is all there is to show."""
    lacking = [cell(50, 50, epsilon=epsilon) for epsilon in (0.2, 0.3, 0.4)]
    found = compared([cell(80, 20), *lacking], [cell(60, 40)])
    assert found.rows.num_rows == 4 and len(words.columns(found).rows) == 1
    assert "; 3 not compared: second: not in its grid" in words.summary(found)
    assert words.summary(found).count("not in its grid") == 1 and "others (3)" in words.summary(found)


def test_what_chance_explains_is_tied_and_says_how_much_worse_it_may_be():
    found = compared([cell(13, 7)], [cell(10, 10)])
    (row,) = rows(found)
    assert row["result"] == "tied" and row["probability"] == pytest.approx(0.25) and not found.worse
    assert f"may still be up to {-100 * row['low']:.1f} points worse" in words.summary(found)


def test_all_that_is_tested_is_corrected_for():
    epsilons = [0.01 * i for i in range(1, 21)]
    one = [replace(cell(16, 4), epsilon=e) for e in epsilons]
    other = [replace(cell(16 - 6 * (e == 0.01), 4 + 6 * (e == 0.01)), epsilon=e) for e in epsilons]
    found = compared(one, other)
    first = rows(found)[0]
    assert first["probability"] < 0.05 < first["adjusted"] and first["result"] == "tied"
    assert rows(compared(one[:1], other[:1]))[0]["result"] == "worse"


def test_a_model_trained_otherwise_is_the_same_model():
    (row,) = rows(compared([cell(80, 20, recipe="epochs=5")], [cell(60, 40, recipe="epochs=9")]))
    assert row["result"] == "worse" and row["model"] == "resnet50_v2 (epochs=5) → resnet50_v2 (epochs=9)"


def test_where_a_side_has_several_recipes_only_the_same_are_paired():
    one = [cell(8, recipe="epochs=5"), cell(8, recipe="epochs=9")]
    found = rows(compared(one, [cell(4, 4, recipe="epochs=9"), cell(8, recipe="epochs=1")]))
    assert [(row["model"], row["result"] is None) for row in found] == [
        ("resnet50_v2 (epochs=9)", False),
        ("resnet50_v2 (epochs=5)", True),
        ("resnet50_v2 (epochs=1)", True),
    ]
    assert found[1]["note"] == "second: not in its grid, or not told apart from others"


def test_fewer_examples_are_enough():
    (row,) = rows(compared([cell(80, 20)], [cell(50)]))
    assert (row["n"], row["first"], row["second"]) == (50, 1.0, 1.0)


def test_holes_and_wrong_numbers_are_not_compared_and_do_not_pass():
    whole = cell(20, 20)
    hole = Cell(examples=40, rows=held(10))
    wrong = Cell(examples=40, rows=[{"success": True, "distance": 0.9}] * 40)  # farther than epsilon
    for other, note in ((hole, "second: partial"), (wrong, "second: wrong, ")):
        found = compared([whole, replace(whole, attack="bim")], [other, replace(whole, attack="bim")])
        row = next(row for row in rows(found) if row["attack"] == "fgsm")
        assert row["result"] is row["first"] is row["second"] is row["difference"] is None
        assert row["note"].startswith(note) and found.worse
    extra = compared([whole], [whole, replace(whole, attack="bim")])
    assert not extra.worse and (extra.count("tied"), extra.count(None)) == (1, 2)


def test_other_data_of_the_same_name_are_not_paired():
    def with_data(name, data):
        one = cell(20, 20)
        return results_of([one], victims=[{"victim_id": one.victim_id, "data": data}], sweep=name)

    sides = ({"sweep": "a"}, {"sweep": "b"})
    (row,) = rows(compare([with_data("a", "x"), with_data("b", "y")], *sides))
    assert row["note"] == "the data are not the same" and row["result"] is None
    (row,) = rows(compare([with_data("a", "x"), with_data("b", "x")], *sides))
    assert row["result"] == "tied"


def test_worst_cases_are_compared_where_they_are_of_the_same_attacks():
    attacks = [cell(60, 40), cell(55, 45, attack="bim")]
    better = [replace(one, rows=held(90, 10)) for one in attacks]
    found = {row["attack"]: row for row in rows(compared(attacks, better))}
    assert found["worst case"]["first"] == 0.55 and found["worst case"]["result"] == "better"
    other = compared(attacks, [*better, cell(90, 10, attack="pgd")])
    (last,) = (row for row in rows(other) if row["attack"] == "worst case")
    assert last["result"] is None and last["note"] == "worst cases of other attacks"
    assert not other.worse, "each attack of the first side has a row of its own"


def test_a_number_that_checks_doubt_is_not_called_better():
    flags = {"flags": ["zero_gradients"]}
    masked = Cell(examples=100, rows=[{**flags}] * 90 + [BROKEN] * 10)
    (row,) = rows(compared([cell(60, 40)], [masked]))
    assert row["result"] == "doubtful" and row["note"].startswith("second: suspicious, ")
    (row,) = rows(compared([masked], [cell(60, 40)]))
    assert row["result"] == "doubtful"


def test_targeted_attacks_are_left_out():
    targeted = cell(20, attack="pgd", attack_options="targeted=True", targeted=True)
    found = compared([cell(20), targeted], [cell(20), targeted])
    assert [row["attack"] for row in rows(found)] == ["fgsm"] and not found.worse


# -- models, defences -------------------------------------------------------------------------------------


def test_models_and_defences_of_one_sweep():
    cells = [
        cell(80, 20, model="small"),
        cell(60, 40, model="wide"),
        cell(90, 10, model="small", defence="jpeg (quality=75)"),
        cell(70, 30, model="wide", defence="jpeg (quality=75)"),
    ]
    results = [results_of(cells, sweep="a")]
    found = rows(compare(results, "small", "wide"))
    assert [(row["model"], row["defence"], row["result"]) for row in found] == [
        ("small → wide", "none", "worse"),
        ("small → wide", "jpeg (quality=75)", "worse"),
    ]
    found = rows(compare(results, "none", "jpeg"))
    assert [(row["model"], row["defence"]) for row in found] == [
        ("small", "none → jpeg (quality=75)"),
        ("wide", "none → jpeg (quality=75)"),
    ]
    (row,) = rows(compare(results, "model=small,defence=none", "model=wide, defence=jpeg"))
    assert (row["first"], row["second"]) == (0.8, 0.7)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("smal", "wide", 'found "smal"; did you mean "small"?'),
        ("model=tall", "wide", 'model: found "tall"; did you mean "small"? there are: small, wide'),
        ("small", "small", "small and small are the same"),
        ("small", "twice", '"twice" is several things: model=twice or defence=twice is allowed'),
        ("small", "grown", "model=grown is several: grown (epochs=5), grown (epochs=9)"),
        ("model=wide,defence=twice", "small", "no cell is of model=wide,defence=twice at once"),
        ("small", "far", "nothing of small and far can be paired"),
    ],
)
def test_names_that_cannot_be_meant(first, second, message):
    cells = [
        cell(4, model="small"),
        cell(4, model="wide"),
        cell(4, model="twice"),
        cell(4, model="small", defence="twice"),
        *(cell(4, model="grown", recipe=f"epochs={n}") for n in (5, 9)),
        cell(4, model="far", dataset="elsewhere"),
    ]
    with pytest.raises(UserError) as caught:
        compare([results_of(cells)], first, second)
    assert str(caught.value).startswith(message)


# -- requirements -----------------------------------------------------------------------------------------


def test_a_requirement_speaks_of_every_row():
    results = [results_of([cell(8, 2), cell(5, 5, epsilon=0.2)], sweep="a")]
    assert require(results, "robust_accuracy >= 0.5").unmet == []
    found = require(results, "robust_accuracy >= 0.6")
    assert (found.rows, [row["epsilon"] for row in found.unmet]) == (2, [0.2])
    assert require(results, "robust_accuracy >= 0.6 where epsilon < 0.15").unmet == []
    assert require(results, "robust_accuracy >= 0.6 FROM worst_case WHERE epsilon = 0.1").rows == 1
    assert require(results, "attack <> ' WHERE ' AND (epsilon > 0) WHERE model LIKE 'res%'").unmet == []
    assert "robust accuracy 0.5" in list(words.unmet(found))[1]


def test_a_requirement_is_not_met_by_a_hole_or_a_wrong_number():
    hole = Cell(examples=40, rows=held(40 - 1))
    wrong = Cell(epsilon=0.2, examples=40, rows=[{"success": True, "distance": 0.9}] * 40)
    found = require([results_of([hole, wrong])], "n >= 0")
    assert [row["epsilon"] for row in found.unmet] == [0.1], "a hole"
    assert len(require([results_of([wrong])], "robust_accuracy >= 0").unmet) == 1


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("robust_accuracy >=", QueryError, "syntax error"),
        ("robust_accuracy >= 0; DROP VIEW cells", QueryError, ""),
        ("accuracy >= 0", QueryError, "accuracy"),
        ("n > (SELECT count(*) FROM read_text('/etc/passwd'))", QueryError, "read_text() is not allowed"),
        ("robust_accuracy >= 0 WHERE epsilon = 9", UserError, "there is no such row of cells"),
        ("robust_accuracy >= 0 FROM victims", UserError, 'found "FROM victims"; allowed: cells, worst_case'),
        ("WHERE epsilon = 0.1", UserError, "a condition is allowed"),
    ],
)
def test_requirements_that_cannot_be(text, kind, message):
    with pytest.raises(kind) as caught:
        require([results_of([cell(4)])], text)
    assert message in str(caught.value)


# -- the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Three sweeps: `a`; `b` without its second attack; and `small`, of half of the examples."""
    top = tmp_path_factory.mktemp("outputs")
    grid = {
        "models": ["small_cnn", "wide_cnn"],
        "datasets": ["digits"],
        "attacks": ["fgsm", "bim"],
        "epsilons": [0, 0.1],
        "examples": 60,
    }
    for name, changes in {"a": {}, "b": {"attacks": ["fgsm"]}, "small": {"examples": 30}}.items():
        sweep(load_grid({**grid, **changes}), top / name, runner="tests.support.runners:MadeUp")
    return top


def command(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_compares_and_its_exit_code_says(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    a, b, small = outputs / "a", outputs / "b", outputs / "small"
    whole = command(a, small, "--fail-if-worse")
    assert whole.exit_code == 0 and "small against a: 0 better, 0 worse, 12 tied of 12" in whole.stdout
    assert command(b, a, "--fail-if-worse").exit_code == 0, "more than was there before is no loss"
    lacking = command(a, b, "--fail-if-worse")
    assert lacking.exit_code == 1 and "not compared" in lacking.stdout
    assert command(a, b).exit_code == 0
    records = json.loads(command("small_cnn", "wide_cnn", "--in", a, "-f", "json").stdout)
    assert {record["model"] for record in records} == {"small_cnn → wide_cnn"} and len(records) == 6


def test_the_command_requires(outputs: Path) -> None:
    a, b = outputs / "a", outputs / "b"
    met = command(a, "--require", "robust_accuracy >= 0.5 WHERE epsilon = 0.1")
    assert (met.exit_code, met.output) == (0, "")
    unmet = command(a, b, "--require", "robust_accuracy >= 0.8 WHERE epsilon = 0.1", "-f", "json")
    assert unmet.exit_code == 1 and "not met by 2 of 2 rows" in unmet.stderr
    assert "b: fgsm linf on small_cnn on digits at epsilon 0.1: robust accuracy" in unmet.stderr
    only = command("small_cnn", "wide_cnn", "--in", a, "--require", "model = 'wide_cnn'")
    assert only.exit_code == 0, "of the second side alone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "B is needed"),
        (["a", "--fail-if-worse", "--require", "true"], "B is needed"),
        (["a", "a"], "are the same output folder"),
        (["*", "a"], "is several output folders"),
        (["a", "c"], "no such output folder"),
        (["small_cnn", "--in", "a", "--require", "true"], "B is needed with --in"),
        (["a", "b", "-f", "xml"], '--format: found "xml"'),
    ],
)
def test_bad_input_ends_with_2(
    arguments: list[str], message: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(outputs)
    arguments = [f"./{word}" if word in ("a", "b", "c", "*") else word for word in arguments]
    result = command(*arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
