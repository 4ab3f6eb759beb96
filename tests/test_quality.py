"""How good attacks are: areas and optimality against arithmetic by hand, calls, and where no number is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import robustsweep
from orchestrator.cli import app
from orchestrator.errors import UserError
from orchestrator.grid.load import load_grid
from orchestrator.results.attacked import attacks_table, chosen_attacks
from orchestrator.results.quality import area, optimality, quality
from orchestrator.results.schemas import Results
from orchestrator.results.text import quality as words
from orchestrator.results.text import text_format
from orchestrator.results.worst_case import worst_cases
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep

GRID: dict[str, Any] = {
    "name": "quality",
    "models": ["small_cnn"],
    "datasets": ["digits"],
    "attacks": ["fgsm", {"name": "bim", "steps": 20}],
    "epsilons": [0, "8/255", 0.1],
    "examples": 60,
}

WRONG = {"clean_correct": False, "forward_calls": 0, "gradient_calls": 0}


def held(*broken: int, distance: float = 0.001, **spent: int) -> list[dict[str, Any]]:
    """Ten examples, the last of which the victim gets wrong; those at some positions are broken."""
    fell = {"success": True, "distance": distance, **spent}
    return [*(fell if at in broken else dict(spent) for at in range(9)), WRONG]


def curve(attack: str, *broken: tuple[int, ...], **others: Any) -> list[Cell]:
    """An attack at 0, 0.1, 0.2 and 0.4: what it breaks above 0."""
    plan = ((0.1, 0.05), (0.2, 0.15), (0.4, 0.3))
    made = [
        Cell(attack=attack, epsilon=epsilon, examples=10, rows=held(*at, distance=distance), **others)
        for (epsilon, distance), at in zip(plan, broken, strict=True)
    ]
    nothing = held(forward_calls=0, gradient_calls=0)
    return [Cell(attack=attack, epsilon=0.0, examples=10, rows=nothing, **others), *made]


def attacks_of(*cells: Cell, **others: Any) -> dict[str, dict[str, Any]]:
    return by_attack(results_of(cells, **others))


def by_attack(results: Results) -> dict[str, dict[str, Any]]:
    return {row["attack"]: row for row in attacks_table(results).to_pylist()}


FGSM = curve("fgsm", (0,), (0, 1), (0, 1, 2))
PGD = curve("pgd", (1,), (0, 1, 2), (0, 1, 2, 3, 4, 5))


def test_area_and_optimality_by_hand() -> None:
    found = attacks_of(*FGSM, *PGD)
    assert list(found) == ["fgsm", "pgd"]
    fgsm, pgd = found["fgsm"], found["pgd"]
    assert fgsm["epsilons"] == [0.1, 0.2, 0.4] and fgsm["clean_accuracy"] == 0.9
    # 0.1 wide from 0.9 to 0.8, 0.1 from 0.8 to 0.7, 0.2 from 0.7 to 0.6; over 0.4.
    assert fgsm["area"] == pytest.approx((0.085 + 0.075 + 0.13) / 0.4)
    # 0.9 to 0.8, to 0.6, to 0.3.
    assert pgd["area"] == pytest.approx((0.085 + 0.07 + 0.09) / 0.4)
    # Together 0.7 at 0.1, where each breaks another one; behind that they break no more than PGD.
    together = (0.08 + 0.065 + 0.09) / 0.4
    for row in found.values():
        assert row["worst_case_area"] == pytest.approx(together)
        assert row["optimality"] == pytest.approx((0.9 - row["area"]) / (0.9 - together))
        assert (row["attacks"], row["why"], row["status"]) == (["fgsm", "pgd"], "", "done")
    assert pgd["optimality"] < 1


def test_optimality_is_1_where_an_attack_is_the_worst_case_everywhere() -> None:
    found = attacks_of(*curve("fgsm", (), (0,), (0, 1)), *curve("pgd", (2,), (0, 2), (0, 1, 2)))
    assert found["pgd"]["optimality"] == 1.0
    assert found["pgd"]["area"] == found["pgd"]["worst_case_area"]


ANY = st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1, max_size=6)


@given(counts=ANY, clean=st.integers(0, 12), steps=st.lists(st.floats(1e-3, 1), min_size=6, max_size=6))
def test_optimality_is_a_share_and_1_only_where_nothing_lacks(
    counts: list[tuple[int, int, int]], clean: int, steps: list[float]
) -> None:
    epsilons = np.cumsum(steps)[: len(counts)].tolist()
    robust = [min(clean, max(one, other)) for one, other, _ in counts]
    worst = [min(left, third) for left, (_, _, third) in zip(robust, counts, strict=True)]
    share = optimality(epsilons, clean, robust, worst)
    if worst == [clean] * len(worst):
        assert np.isnan(share)
        return
    assert 0 <= share <= 1 and (share == 1) == (robust == worst)
    areas = [area(epsilons, clean / 12, [n / 12 for n in left]) for left in (robust, worst)]
    assert 0 <= areas[1] <= areas[0] <= clean / 12
    assert share == pytest.approx((clean / 12 - areas[0]) / (clean / 12 - areas[1]), abs=1e-9)
    # Whatever is broken in addition takes something off the area, and adds to optimality.
    for at, (left, least) in enumerate(zip(robust, worst, strict=True)):
        if left > least:
            fewer = [n - (i == at) for i, n in enumerate(robust)]
            assert area(epsilons, clean / 12, [n / 12 for n in fewer]) < areas[0]
            assert optimality(epsilons, clean, fewer, worst) > share


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_attack_of_a_sweep_keeps_the_rules(data: st.DataObject) -> None:
    """From rows: no curve lies below the worst case, and one that is it everywhere has 1."""
    some = st.frozensets(st.integers(0, 8))
    plans = {name: [data.draw(some) for _ in range(2)] for name in ("fgsm", "pgd")}
    results = results_of(
        Cell(attack=name, epsilon=epsilon, examples=10, rows=held(*at, distance=distance))
        for name, broken in plans.items()
        for (epsilon, distance), at in zip(((0.1, 0.05), (0.2, 0.15)), broken, strict=True)
    )
    measured = results.measured()
    worst = worst_cases(results.wanted, results.coverage, measured.attacks)
    first, second = (frozenset[int]().union(*(broken[i] for broken in plans.values())) for i in (0, 1))
    together = [len(first), len(first | second)]
    for row in quality(results.wanted, measured, worst).to_pylist():
        left = [0.9 - len(at) / 10 for at in plans[row["attack_id"].partition("-")[0]]]
        assert row["area"] == pytest.approx((0.9 + 2 * left[0] + left[1]) / 4)
        if not together[1]:
            assert (row["optimality"], row["why"]) == (None, "nothing broken")
            continue
        assert 0 <= row["optimality"] <= 1 and row["worst_case_area"] <= row["area"] + 1e-12
        same = [len(at) for at in plans[row["attack_id"].partition("-")[0]]] == together
        assert (row["optimality"] == 1) == same and row["why"] == ""


# -- where there is no number -----------------------------------------------------------------------------


def test_one_attack_alone_has_an_area_and_no_optimality() -> None:
    row = attacks_of(*FGSM)["fgsm"]
    assert row["area"] == pytest.approx(0.29 / 0.4)
    assert (row["optimality"], row["worst_case_area"], row["why"]) == (None, None, "one attack")


def test_what_is_no_search_on_the_victim_has_no_number_and_no_part() -> None:
    targeted = [replace(cell, targeted=True) for cell in curve("bim", (0,), (0,), (0,))]
    elsewhere = [replace(cell, adaptive=False) for cell in curve("apgd", (0,), (0,), (0,))]
    found = attacks_of(*FGSM, *targeted, *elsewhere)
    assert (found["bim"]["why"], found["apgd"]["why"]) == ("targeted", "oblivious")
    assert found["fgsm"]["why"] == "one attack" and found["fgsm"]["attacks"] == ["fgsm"]
    for name in ("bim", "apgd"):
        assert found[name]["area"] is found[name]["optimality"] is None
        assert found[name]["epsilons"] == [] and found[name]["gradient_calls"] == 6.0


def test_what_is_not_done_has_no_number_and_leaves_others_without_optimality() -> None:
    partial = [*PGD[:-1], replace(PGD[-1], rows=held()[:4])]
    found = attacks_of(*FGSM, *partial)
    pgd = found["pgd"]
    assert (pgd["why"], pgd["n"], pgd["area"], pgd["forward_calls"]) == ("partial", 4, None, None)
    assert pgd["seconds"] is None
    assert found["fgsm"]["area"] == pytest.approx(0.29 / 0.4)
    assert (found["fgsm"]["optimality"], found["fgsm"]["why"]) == (None, "incomplete")
    failure = {"victim_id": PGD[0].victim_id, "cells": [PGD[-1].cell_id], "start": 0, "stop": 10}
    failure |= {"attack_id": PGD[0].attack_id, "final": True}
    failed = attacks_of(*FGSM, *PGD[:-1], replace(PGD[-1], rows=()), failures=[failure])
    assert (failed["pgd"]["why"], failed["fgsm"]["why"]) == ("failed", "incomplete")
    missing = attacks_of(*FGSM, *(replace(cell, rows=()) for cell in PGD))
    assert (missing["pgd"]["why"], missing["pgd"]["clean_accuracy"]) == ("missing", None)


def test_numbers_that_a_check_calls_wrong_are_none() -> None:
    # A success at a distance beyond epsilon contradicts its own row; so does the worst case that it is in.
    made_up = held(*range(9), distance=0.3)
    found = attacks_of(*FGSM, *PGD[:1], replace(PGD[1], rows=made_up), *PGD[2:])
    assert found["pgd"]["verdict"] == "wrong" and found["pgd"]["why"] == "wrong"
    assert found["pgd"]["area"] is found["pgd"]["optimality"] is None
    assert found["fgsm"]["area"] is not None
    assert (found["fgsm"]["optimality"], found["fgsm"]["why"]) == (None, "worst case wrong")
    assert found["fgsm"]["worst_case_area"] is None


def test_attacks_are_compared_at_the_epsilons_that_all_of_them_have() -> None:
    """An attack that is asked at large epsilons alone would look better than it is."""
    found = attacks_of(*FGSM, PGD[0], PGD[2], PGD[3])
    assert found["fgsm"]["epsilons"] == found["pgd"]["epsilons"] == [0.2, 0.4]
    assert found["fgsm"]["area"] == pytest.approx((0.16 + 0.13) / 0.4)
    assert found["pgd"]["own_epsilons"] == [0.0, 0.2, 0.4]
    apart = attacks_of(*FGSM[:2], *PGD[2:])
    assert {row["why"] for row in apart.values()} == {"no shared epsilon"}
    assert {row["area"] for row in apart.values()} == {None}


def test_a_minimum_norm_attack_is_held_at_the_epsilons_of_the_others() -> None:
    """Also where it has no cell at them: its distances tell."""
    nearest = [0.05, 0.15, 0.3, 0.5, *[float("inf")] * 5]
    rows = [{"success": distance <= 0.4, "distance": distance} for distance in nearest]
    ddn = Cell(attack="ddn", minimum_norm=True, epsilon=0.4, examples=10, rows=[*rows, WRONG])
    found = attacks_of(*FGSM, ddn)
    assert found["ddn"]["epsilons"] == [0.1, 0.2, 0.4] and found["ddn"]["minimum_norm"]
    assert found["ddn"]["area"] == pytest.approx((0.085 + 0.075 + 0.13) / 0.4)
    assert found["ddn"]["optimality"] == found["fgsm"]["optimality"] == 1.0
    alone = attacks_of(ddn, replace(ddn, attack="fab", epsilon=0.2, rows=[{}] * 9 + [WRONG]))
    assert alone["ddn"]["epsilons"] == [0.2, 0.4]


def test_where_nothing_is_broken_there_is_nothing_to_compare() -> None:
    found = attacks_of(*curve("fgsm", (), (), ()), *curve("pgd", (), (), ()))
    assert {(row["area"], row["optimality"], row["why"]) for row in found.values()} == {
        (0.9, None, "nothing broken")
    }


# -- what is spent ----------------------------------------------------------------------------------------


def test_calls_and_seconds_are_means_over_what_is_attacked() -> None:
    # One gradient serves all epsilons and is counted at the first of them: the rows at 0.2 have none.
    first = Cell(epsilon=0.1, examples=10, rows=held(0, forward_calls=1, gradient_calls=1), seconds=4.5)
    second = Cell(epsilon=0.2, examples=10, rows=held(0, forward_calls=1, gradient_calls=0), seconds=4.5)
    row = attacks_of(first, second)["fgsm"]
    assert (row["forward_calls"], row["gradient_calls"], row["seconds"]) == (2.0, 1.0, 1.0)
    # The grid has dropped the first: what it counted served the other too, so that 0 would be a lie.
    row = by_attack(results_of([second], unwanted=[first]))["fgsm"]
    assert row["forward_calls"] is row["gradient_calls"] is row["seconds"] is None
    assert row["area"] is not None
    # Rows of another attack that the grid has dropped are no matter.
    row = by_attack(results_of([second], unwanted=[replace(first, attack="pgd")]))["fgsm"]
    assert row["gradient_calls"] == 0.0


def test_an_attack_that_does_not_say_what_it_spends_has_not_spent_nothing() -> None:
    rows = [{"forward_calls": None, "gradient_calls": None}] * 9 + [WRONG]
    row = attacks_of(Cell(examples=10, rows=rows))["fgsm"]
    assert row["forward_calls"] is row["gradient_calls"] is None and row["seconds"] is not None


def test_a_victim_that_is_always_wrong_has_no_calls_and_no_optimality() -> None:
    found = attacks_of(*(Cell(attack=name, rows=[WRONG] * 4) for name in ("fgsm", "pgd")))
    for row in found.values():
        assert (row["area"], row["why"], row["forward_calls"], row["seconds"]) == (
            *(0.0, "nothing broken"),
            *(None, None),
        )


# -- what people see --------------------------------------------------------------------------------------


def test_rows_keep_the_order_of_the_grid_and_are_chosen_by_name() -> None:
    cells = [replace(cell, attack_label="Fast") for cell in FGSM] + PGD
    results = results_of([*PGD, *cells[:4], *curve("zeta", (), (), ())])
    rows, table = chosen_attacks(results, {})
    assert [row["attack"] for row in rows] == ["pgd", "Fast", "zeta"]
    assert table["attack"].to_pylist() == ["pgd", "fgsm", "zeta"]
    rows, table = chosen_attacks([results, results_of(FGSM, sweep="other")], {"attack": ["fgsm"]})
    assert [row["sweep"] for row in rows] == table["sweep"].to_pylist() == ["made_up", "other"]
    with pytest.raises(UserError, match=r'--attack: found "pdg"; did you mean "pgd"'):
        chosen_attacks(results, {"attack": ["pdg"]})
    with pytest.raises(UserError, match="there is no attack"):
        chosen_attacks(results_of([]), {})


def test_as_people_read_it() -> None:
    single = curve("bim", (0,), (0, 1), (0, 1), norm="l2")
    rows, _ = chosen_attacks(results_of([*FGSM, *PGD, *single]), {})
    text = text_format("md").columns(words.columns(rows))
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[2][:7] == ["linf", "fgsm", "0.1 to 0.4 (3)", "90.0%", "72.5%", "58.8%", "56.0%"]
    assert lines[2][7:] == ["9.0", "6.0", "0.444", "10"]
    assert lines[4][:7] == ["l2", "bim", "0.1 to 0.4 (3)", "90.0%", "75.0%", "–", "one attack"]
    said = words.caption(rows)
    assert "for all 3 of its own epsilons" in said and "1 by construction" in said
    assert "arXiv:2404.19460" in said and "suspicious" not in said


def test_nothing_but_1_is_shown_as_100() -> None:
    rows, _ = chosen_attacks(results_of([*FGSM, *PGD]), {})
    for value, text in ((1.0, "100.0%"), (0.99999, ">99.9%"), (0.9994, "99.9%")):
        shown = words.columns([{**rows[0], "optimality": value}])
        assert dict(zip(shown.names, shown.rows[0], strict=True))["optimality"] == text


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "out"
    sweep(load_grid(GRID), path, runner="tests.support.runners:MadeUp")

    def table(*words: str) -> Any:
        return CliRunner().invoke(app, ["table", str(path), "--quality", *words])

    found = robustsweep.open(path).attacks.arrow()
    assert found["attack"].to_pylist() == ["fgsm", "bim"]
    text = table("-f", "md").stdout
    assert "| fgsm | 8/255 to 0.1 (2) |" in text and "area: under robust accuracy" in text
    assert json.loads(table("-f", "json", "--attack", "bim").stdout) == found.to_pylist()[1:]
    assert table("-f", "csv").stdout.splitlines()[0] == ",".join(found.column_names)
    for other in (["--by", "model"], ["--metric", "seconds"], ["--certified"], ["--transfer"]):
        answer = table(*other)
        assert answer.exit_code == 2 and "--quality goes without" in answer.output
    assert table("--per-class").exit_code == table("--epsilon", "0.1").exit_code == 2
