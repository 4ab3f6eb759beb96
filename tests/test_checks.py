"""Every rule: where it must fire, and the nearest thing to it where it must not."""

from __future__ import annotations

import csv
import io
import json
import math
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from orchestrator import show
from orchestrator.cli import app
from orchestrator.grid.load import load_grid
from orchestrator.results.checks import RULES
from orchestrator.results.checks.rule import CHECKS
from orchestrator.results.judged import cells_and_worst_cases
from orchestrator.results.query import connect, run_query
from orchestrator.results.schemas import Results
from orchestrator.results.strengthened import of_cell, of_worst_case
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import findings, text_format
from orchestrator.results.witnesses import bits
from orchestrator.run.prepare import prepare
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep, write_grid
from workers.flags import Flag
from workers.probes import ATTACKS, FIGURES
from workers.statistics import binomial_tail, holm, mcnemar

N = 400
GRADIENTS = {"forward_calls": 10, "gradient_calls": 10}
QUERIES = {"forward_calls": 100, "gradient_calls": 0}
NOISE = {"forward_calls": 1, "gradient_calls": 0}


def cell(attack: str, broken: Iterable[int], calls: Mapping[str, int] = GRADIENTS, **values: Any) -> Cell:
    """A cell of `N` examples, of which the attack breaks those positions; the last 20 are wrong before."""
    here = set(broken)
    made = Cell(attack=attack, **{"examples": N, **values})
    distance = {"distance": made.epsilon / 2} if made.epsilon else {"distance": 0.0}
    rows: list[dict[str, Any]] = [{"success": True, **distance} if i in here else {} for i in range(N - 20)]
    rows += [{"clean_correct": False}] * 20
    return replace(made, rows=[{**calls, **row} for row in rows])


def tried(
    attack: str, broken: Iterable[int], *, source: Mapping[str, Any] = {"model": "other"}, **values: Any
) -> list[Cell]:
    """A cell of images that were made against another victim, which by itself says nothing."""
    made = cell(attack, broken, {"forward_calls": 0, "gradient_calls": 0}, **values)
    against = Cell(**{"attack": attack, "epsilon": made.epsilon, "norm": made.norm, **source})
    return [replace(made, source=against)]


OF_SMOOTHED: dict[str, Any] = {"norm": "l2", "defence": "smoothing", "epsilon": 0.25}
SMOOTHED = cell("pgd", range(20), **OF_SMOOTHED)


def certified(radius: float | None) -> Cell:
    """Certificates of so much for every example of that victim, with noise of 0.25."""
    taken: dict[str, Any] = {"sigma": 0.25, "n0": 100, "draws": 1000, "alpha": 0.001}
    rows = [{"radius": radius}] * N
    return Cell(attack="certify", **{**OF_SMOOTHED, "epsilon": 0.0}, examples=N, rows=rows, **taken)


def victim(of: Cell, **values: Any) -> dict[str, Any]:
    known = {name: getattr(of, name) for name in ("victim_id", "model", "model_options", "dataset")}
    healthy = {"defence": of.defence, "seed": of.seed, "chance": 0.1, "test_accuracy": 0.95}
    return {**known, **healthy, "train_accuracy": 0.97, "validation_accuracy": 0.95, **values}


def healthy_figures() -> dict[str, float]:
    """A plain network: broken by every search from 8/255 on, hardly by noise."""
    left = {
        "noise": [1.0, 1.0, 1.0, 0.98, 0.9],
        "fgsm": [0.95, 0.9, 0.7, 0.4, 0.2],
        "bim": [0.95, 0.85, 0.5, 0.1, 0.0],
        "bim_margin": [0.95, 0.84, 0.48, 0.09, 0.0],
        "square": [0.97, 0.95, 0.9, 0.7, 0.3],
    }
    assert left.keys() == set(ATTACKS)
    shares = {f"{name}@{i}": share for name in left for i, share in enumerate(left[name])}
    zeros = ("non_finite_logits", "constant", "probabilities", "saturated", "ties", "draws_changed")
    zeros += ("draws_spread", "batch_changed", "inference_changed", "zero_gradients", "non_finite_gradients")
    figures = {
        **dict.fromkeys(zeros, 0.0),
        "robust_at_1": 0.0,
        "examples": 64.0,
        "clean_accuracy": 0.95,
        "logit_size": 9.0,
        "logit_spread": 14.0,
        "top_probability": 0.98,
        "batch_spread": 2e-7,
        "inference_spread": 0.0,
        "gradient_size": 0.2,
        "gradient_gain": 0.97,
        "gradient_agreement": 0.999,
        **shares,
    }
    assert figures.keys() | {"eot_agreement", "defence_changes"} == FIGURES.keys()
    return figures


def probes(of: Cell, **figures: float | None) -> list[dict[str, Any]]:
    values = {**healthy_figures(), **figures}
    return [{"victim_id": of.victim_id, "figure": name, "value": value} for name, value in values.items()]


ONE = cell("bim", range(100))


def probed(**figures: float | None) -> Results:
    return results_of([ONE], victims=[victim(ONE)], probes=probes(ONE, **figures))


def found(results: Results) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in run_query(results, "FROM checks").to_pylist():
        rows.setdefault(row["rule"], []).append(row)
    return rows


BIM = [cell("bim", range(n), epsilon=e) for e, n in ((0.05, 100), (0.1, 300), (0.2, 380))]
FGSM = cell("fgsm", range(200), epsilon=0.1)
SQUARE = cell("square", range(20, 290), QUERIES, epsilon=0.1)
QUIET = cell("noise", range(4), NOISE, epsilon=0.1)
CLEAN = cell("bim", (), epsilon=0.0)
HEALTHY = [CLEAN, *BIM, FGSM, SQUARE, QUIET]


def test_a_healthy_folder_has_no_finding() -> None:
    results = results_of(HEALTHY, victims=[victim(ONE)], probes=probes(ONE))
    assert found(results) == {}
    cells = run_query(results, "FROM cells").to_pylist()
    assert {(one["verdict"], tuple(one["checks"])) for one in cells} == {(None, ())}
    assert all(one["robust_accuracy"] == one["robust_accuracy_unchecked"] for one in cells)
    worst = run_query(results, "FROM worst_case").to_pylist()
    assert {(one["verdict"], tuple(one["checks"])) for one in worst} == {(None, ())}


FIGURES_THAT_FIRE: dict[str, list[tuple[dict[str, float | None], dict[str, float | None]]]] = {
    # rule -> figures where it fires, and where it does not
    "epsilon_one": [
        ({"robust_at_1": 1 / 61}, {"robust_at_1": 0.0}),
        ({"robust_at_1": 1.0}, {"robust_at_1": 1.0, "constant": 1.0}),
        ({"robust_at_1": 0.5}, {"robust_at_1": None}),
    ],
    "company": [
        ({"batch_changed": 1 / 64, "batch_spread": 0.02}, {"batch_changed": 1 / 64, "batch_spread": 1e-6}),
        (
            {"batch_changed": 0.9, "batch_spread": 0.5, "draws_changed": 0.1, "draws_spread": 0.1},
            {"batch_changed": 0.1, "batch_spread": 0.1, "draws_changed": 0.1, "draws_spread": 0.1},
        ),
    ],
    "slight_company": [
        ({"batch_spread": 0.01}, {"batch_spread": 1e-5}),
        ({"batch_spread": 0.01}, {"batch_spread": 0.01, "draws_spread": 0.02}),
    ],
    "shattered_gradients": [
        ({"gradient_gain": 0.02}, {"gradient_gain": 0.6}),
        ({"gradient_agreement": 0.0}, {"gradient_agreement": 0.5}),
        ({"gradient_gain": -1.0}, {"gradient_gain": None}),
    ],
    "idle_defence": [
        ({"defence_changes": 0.15}, {"defence_changes": 0.5}),
        ({"defence_changes": 0.0}, {"defence_changes": None}),
    ],
    "ties": [({"ties": 0.05}, {"ties": 0.0})],
    "noisy_expectation": [({"eot_agreement": 0.03}, {"eot_agreement": 0.4})],
    "loss_matters": [
        ({"bim@3": 0.4}, {"bim@3": 0.2}),
        ({"bim_margin@4": 0.2}, {"bim_margin@4": 0.1}),
    ],
    "tiny_gradients": [({"gradient_size": 1e-18}, {"gradient_size": 1e-3})],
    "saturated": [({"saturated": 0.9}, {"saturated": 0.3})],
    "flat_softmax": [({"logit_spread": 0.14}, {"logit_spread": 4.0})],
    "small_logits": [({"logit_size": 1e-6}, {"logit_size": 0.5})],
    "inference": [
        ({"inference_changed": 0.1, "inference_spread": 0.2}, {"inference_spread": 1e-6}),
        ({"inference_spread": 0.01}, {"inference_spread": 0.01, "draws_spread": 0.01}),
    ],
    "rises": [({"bim@4": 0.3}, {"bim@4": 0.2})],
    "weaker_than_fgsm": [({"bim@3": 0.6, "bim_margin@3": 0.6}, {"bim@3": 0.5, "bim_margin@3": 0.5})],
    "black_box_better": [({"square@2": 0.3}, {"square@2": 0.4})],
    "zero_gradients": [({"zero_gradients": 0.5}, {"zero_gradients": 0.0})],
    "non_finite_gradients": [({"non_finite_gradients": 0.02}, {})],
    "non_finite_logits": [({"non_finite_logits": 0.02}, {})],
    "constant_model": [({"constant": 1.0}, {})],
    "probabilities": [({"probabilities": 1.0}, {})],
    "randomised": [
        ({"draws_changed": 0.1, "draws_spread": 0.2}, {"draws_spread": 1e-6}),
        ({"draws_spread": 0.01}, {}),
    ],
}


@pytest.mark.parametrize(
    ("rule", "fires", "silent"),
    [(rule, *case) for rule, cases in FIGURES_THAT_FIRE.items() for case in cases],
)
def test_rules_on_figures(rule: str, fires: dict[str, float | None], silent: dict[str, float | None]) -> None:
    [finding] = found(probed(**fires))[rule]
    assert finding["severity"] == RULES[rule].severity and finding["advice"] == RULES[rule].advice
    assert (finding["cell_id"], finding["attack_id"]) == (None, None)
    assert {name: finding[name] for name in ("victim_id", "model", "dataset", "defence", "seed")} == {
        name: getattr(ONE, name) for name in ("victim_id", "model", "dataset", "defence", "seed")
    }
    assert any(character.isdigit() for character in finding["message"]) or rule == "constant_model"
    assert "{" not in finding["message"] and math.isfinite(finding["figure"])
    assert rule not in found(probed(**silent))


def test_a_victim_that_is_not_in_the_grid_is_not_judged() -> None:
    other = victim(ONE, victim_id="other")
    figures = [{"victim_id": "other", "figure": "robust_at_1", "value": 1.0}]
    assert found(results_of([ONE], victims=[victim(ONE), other], probes=figures)) == {}


def minimum_norm(attack: str, distances: Sequence[float], epsilon: float, **values: Any) -> Cell:
    made = Cell(attack=attack, epsilon=epsilon, examples=len(distances), minimum_norm=True, **values)
    rows = [
        {**GRADIENTS, "nearest": d, "success": d <= epsilon, "distance": d if d <= epsilon else math.inf}
        for d in distances
    ]
    return replace(made, rows=rows)


FAR = list(np.linspace(0.01, 0.4, 100))
MISSED = [*FAR[:95], *[math.inf] * 5]


def without(made: Cell, position: int, **changes: Any) -> Cell:
    rows = list(made.positions().values())
    rows[position] = {**rows[position], **changes}
    return replace(made, rows=rows)


CELLS_THAT_FIRE: dict[str, list[tuple[list[Cell], list[Cell]]]] = {
    "epsilon_zero": [
        ([cell("bim", [3], epsilon=0.0)], [cell("bim", [], epsilon=0.0)]),
        (
            [cell("bim", range(100), {**GRADIENTS, "flags": ["randomised"]}, epsilon=0.0)],  # type: ignore[dict-item]
            [cell("bim", range(4), {**GRADIENTS, "flags": ["randomised"]}, epsilon=0.0)],  # type: ignore[dict-item]
        ),
    ],
    "outside": [
        ([without(BIM[0], 5, distance=0.06)], [without(BIM[0], 5, distance=0.05000001)]),
        ([without(BIM[0], 399, success=True, distance=0.01)], BIM[:1]),
        ([without(BIM[0], 5, distance=math.nan)], BIM[:1]),
    ],
    "distances_rise": [
        (
            [
                minimum_norm("deepfool", FAR, 0.1),
                without(minimum_norm("deepfool", FAR, 0.2), 3, success=False),
            ],
            [minimum_norm("deepfool", FAR, 0.1), minimum_norm("deepfool", FAR, 0.2)],
        )
    ],
    "grey_in_reach": [
        ([cell("bim", range(300), epsilon=0.5)], [cell("bim", range(350), epsilon=0.5)]),
        ([cell("bim", range(300), epsilon=0.5)], [cell("bim", range(300), epsilon=0.4)]),
        ([cell("bim", range(300), epsilon=0.5)], [cell("fgsm", range(300), epsilon=0.5)]),
        ([cell("bim", range(300), epsilon=0.5)], [cell("square", range(300), QUERIES, epsilon=0.5)]),
        ([cell("bim", range(300), epsilon=0.5)], [cell("bim", range(300), norm="l2", epsilon=0.5)]),
        ([cell("bim", range(300), epsilon=0.5)], [cell("bim", range(300), epsilon=0.5, targeted=True)]),
    ],
    "rises": [
        (
            [cell("bim", range(200), epsilon=0.1), cell("bim", range(100, 250), epsilon=0.2)],
            [cell("bim", range(200), epsilon=0.1), cell("bim", range(2, 200), epsilon=0.2)],
        ),
        (  # from the lowest of all before
            [
                cell("bim", range(200), epsilon=0.1),
                cell("bim", range(196), epsilon=0.2),
                cell("bim", range(180), epsilon=0.3),
            ],
            [cell("bim", range(180), epsilon=0.1), cell("bim", range(190), epsilon=0.2)],
        ),
        (
            [
                cell("square", range(200), QUERIES, epsilon=0.1),
                cell("square", range(9), QUERIES, epsilon=0.2),
            ],
            [cell("fgsm", range(200), epsilon=0.1), cell("fgsm", range(9), epsilon=0.2)],
        ),
    ],
    "single_step_rises": [
        (
            [cell("fgsm", range(200), epsilon=0.1), cell("fgsm", range(100), epsilon=0.2)],
            [cell("bim", range(200), epsilon=0.1), cell("bim", range(100), epsilon=0.2)],
        )
    ],
    "not_found": [
        ([minimum_norm("fmn", MISSED, 0.1)], [minimum_norm("fmn", FAR, 0.1)]),
        ([minimum_norm("fmn", MISSED, 0.1)], [minimum_norm("fmn", [*FAR[:99], math.inf], 0.1)]),
    ],
    "oblivious_alone": [
        (
            [cell("pgd", range(9), defence="jpeg", adaptive=False)],
            [cell("pgd", range(9), defence="jpeg", adaptive=value) for value in (False, True)],
        ),
        (
            [cell("pgd", range(9), defence="jpeg", adaptive=False)],
            [cell("pgd", range(9), defence="none", adaptive=False)],
        ),
    ],
    "oblivious_better": [
        (
            [cell("pgd", range(100)), cell("pgd", range(150), adaptive=False)],
            [cell("pgd", range(150)), cell("pgd", range(100), adaptive=False)],
        ),
        (
            [cell("pgd", range(100)), cell("pgd", range(150), adaptive=False)],
            [cell("pgd", range(100)), cell("pgd", range(103), adaptive=False)],
        ),
        (
            [cell("pgd", range(100)), cell("pgd", range(150), adaptive=False)],
            [cell("pgd", range(100)), cell("pgd", range(150), adaptive=False, epsilon=0.2)],
        ),
    ],
    "weaker_than_fgsm": [
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(3, 203))]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(194))]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(150), norm="l2")]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(150), epsilon=0.05)]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(150), adaptive=False)]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("pgd", range(150), targeted=True)]),
        ([FGSM, cell("pgd", range(150))], [FGSM, cell("square", range(150), QUERIES)]),
        ([FGSM, cell("pgd", range(150))], [FGSM, QUIET]),
    ],
    "black_box_better": [
        # Weaker by itself, but what it breaks the others do not.
        ([BIM[1], cell("square", range(270, 350), QUERIES)], [BIM[1], SQUARE]),
        ([cell("bim", []), SQUARE], [cell("fgsm", []), SQUARE]),
        (
            [BIM[1], cell("square", range(350), QUERIES)],
            [BIM[1], cell("square", range(350), QUERIES), cell("pgd", range(290, 340))],
        ),
        ([BIM[1], cell("square", range(350), QUERIES)], [BIM[1], cell("square", range(315), QUERIES)]),
    ],
    "black_box_helps": [
        ([BIM[1], cell("square", range(315), QUERIES)], [BIM[1], cell("square", range(303), QUERIES)]),
        ([BIM[1], cell("square", range(315), QUERIES)], [BIM[1], cell("square", range(350), QUERIES)]),
    ],
    "inside_certificate": [
        # Nothing within 0.6 is answered otherwise, say certificates; one in a thousand may be wrong.
        ([SMOOTHED, certified(0.6)], [cell("pgd", range(1), **OF_SMOOTHED), certified(0.6)]),
        # Certified is less than the attack was allowed, or hardly more.
        ([SMOOTHED, certified(0.6)], [SMOOTHED, certified(0.2)]),
        ([SMOOTHED, certified(0.6)], [SMOOTHED, certified(0.26)]),
        ([SMOOTHED, certified(0.6)], [SMOOTHED, certified(None)]),
        # Another victim's, and another norm's.
        ([SMOOTHED, certified(0.6)], [replace(SMOOTHED, defence="none"), certified(0.6)]),
        ([SMOOTHED, certified(0.6)], [replace(SMOOTHED, norm="linf"), certified(0.6)]),
    ],
    "transfer_better": [
        # Weaker by itself, but what it breaks no attack on the victim itself does.
        ([BIM[1], *tried("bim", range(270, 350))], [BIM[1], *tried("bim", range(290))]),
        # One step only says nothing of the victim's own gradients.
        ([cell("bim", []), *tried("bim", range(100))], [cell("fgsm", []), *tried("fgsm", range(100))]),
        # What another attack on the victim itself breaks too.
        (
            [BIM[1], *tried("bim", range(350))],
            [BIM[1], cell("pgd", range(290, 340)), *tried("bim", range(350))],
        ),
        ([BIM[1], *tried("bim", range(350))], [BIM[1], *tried("bim", range(315))]),
        # Of another epsilon, and aimed at a class.
        ([BIM[1], *tried("bim", range(350))], [BIM[1], *tried("bim", range(350), epsilon=0.2)]),
        ([BIM[1], *tried("bim", range(350))], [BIM[1], *tried("bim", range(350), targeted=True)]),
        # The undefended network's images are those of an oblivious attack: one finding for both is enough.
        (
            [cell("bim", range(100), defence="jpeg"), *tried("bim", range(200), defence="jpeg")],
            [
                cell("bim", (), defence="none"),
                cell("bim", range(100), defence="jpeg"),
                cell("bim", range(200), defence="jpeg", adaptive=False),
                *tried("bim", range(200), defence="jpeg", source={"defence": "none"}),
            ],
        ),
    ],
    "transfer_helps": [
        ([BIM[1], *tried("bim", range(315))], [BIM[1], *tried("bim", range(303))]),
        ([BIM[1], *tried("bim", range(315))], [BIM[1], *tried("bim", range(350))]),
    ],
    "noise_as_good": [
        (
            [cell("noise", range(60), NOISE), cell("bim", range(20, 75))],
            [cell("noise", range(60), NOISE), cell("bim", range(20, 200))],
        ),
        # At an epsilon where nothing is broken, and where all is, nobody knows.
        (
            [cell("noise", range(60), NOISE), cell("bim", range(50))],
            [cell("noise", range(5), NOISE), cell("bim", range(3))],
        ),
        (
            [cell("noise", range(60), NOISE), cell("bim", range(50))],
            [cell("noise", range(379), NOISE), cell("bim", range(4, 380))],
        ),
    ],
    "farther_than_deepfool": [
        (
            [
                minimum_norm("deepfool", FAR, 0.1, norm="l2"),
                minimum_norm("carlini_wagner", [1.3 * d for d in FAR], 0.1, norm="l2"),
            ],
            [
                minimum_norm("deepfool", FAR, 0.1, norm="l2"),
                minimum_norm("carlini_wagner", [0.9 * d for d in FAR], 0.1, norm="l2"),
            ],
        ),
        (
            [
                minimum_norm("deepfool", FAR, 0.1, norm="l2"),
                minimum_norm("ddn", [1.3 * d for d in FAR], 0.1, norm="l2"),
            ],
            [
                minimum_norm("deepfool", FAR[:20], 0.1, norm="l2"),
                minimum_norm("ddn", [1.3 * d for d in FAR[:20]], 0.1, norm="l2"),
            ],
        ),
    ],
    "clean_differs": [
        (
            [BIM[1], replace(FGSM, rows=[*[{"clean_correct": False}] * 10, *FGSM.positions().values()][:N])],
            [BIM[1], without(FGSM, 0, clean_correct=False, success=False)],
        ),
        (
            [BIM[1], replace(FGSM, rows=[*[{"clean_correct": False}] * 10, *FGSM.positions().values()][:N])],
            [BIM[1], replace(FGSM, rows={p: row for p, row in FGSM.positions().items() if p >= 50})],
        ),
    ],
    "catastrophic_overfitting": [
        (
            [cell("fgsm", range(30)), cell("pgd", range(370))],
            [cell("fgsm", range(150)), cell("pgd", range(370))],
        ),
        (
            [cell("fgsm", range(30)), cell("pgd", range(370))],
            [cell("fgsm", range(30)), cell("pgd", range(150))],
        ),
    ],
    "grid_tells_nothing": [
        (
            [cell("bim", [], epsilon=e) for e in (0.001, 0.002)],
            [cell("bim", range(40 * i), epsilon=e) for i, e in enumerate((0.001, 0.1))],
        ),
        ([cell("bim", range(380))], [cell("bim", range(360))]),
    ],
    "mixed_code": [([BIM[0], replace(BIM[1], code="other")], [BIM[0], replace(BIM[1], code="")])],
    "mixed_versions": [([BIM[0], replace(BIM[1], versions="keras 4")], BIM[:2])],
    "mixed_devices": [([BIM[0], replace(BIM[1], device="gpu")], BIM[:2])],
    "victim_weak": [],
    "victim_overfit": [],
    "worst_case_rises": [],
}

# What no figure of the probes shows, rows do.
OF_EXAMPLES = [flag for flag in Flag if flag not in (Flag.VICTIM_WEAK, Flag.VICTIM_OVERFIT)]


@pytest.mark.parametrize(
    ("rule", "fires", "silent"),
    [(rule, *case) for rule, cases in CELLS_THAT_FIRE.items() for case in cases],
)
def test_rules_on_cells(rule: str, fires: list[Cell], silent: list[Cell]) -> None:
    victims = [victim(fires[0])]
    findings = found(results_of(fires, victims=victims))[rule]
    for finding in findings:
        assert finding["severity"] == RULES[rule].severity
        assert any(character.isdigit() for character in finding["message"]) or rule == "oblivious_alone"
    assert rule not in found(results_of(silent, victims=[victim(silent[0])]))


@pytest.mark.parametrize("flag", OF_EXAMPLES)
def test_every_flag_of_examples_is_a_rule(flag: Flag) -> None:
    rows = [{**GRADIENTS, "flags": [flag.value]}] * 3 + [GRADIENTS] * 97
    [finding] = found(results_of([Cell(examples=100, rows=rows)]))[flag.value]
    assert (finding["severity"], finding["figure"], finding["allowed"]) == (flag.severity, 0.03, 0.01)
    assert finding["cell_id"] == Cell().cell_id
    few = [{**GRADIENTS, "flags": [flag.value]}] + [GRADIENTS] * 149
    assert flag.value not in found(results_of([Cell(examples=150, rows=few)]))


@pytest.mark.parametrize(
    ("flag", "trained"),
    [
        (Flag.VICTIM_WEAK, {"test_accuracy": 0.15}),
        (Flag.VICTIM_OVERFIT, {"train_accuracy": 1.0, "validation_accuracy": 0.8}),
    ],
)
def test_every_flag_of_victims_is_a_rule(flag: Flag, trained: dict[str, float]) -> None:
    [finding] = found(results_of(BIM, victims=[victim(ONE, **trained)]))[flag.value]
    assert (finding["cell_id"], finding["victim_id"]) == (None, ONE.victim_id)
    assert finding["severity"] == flag.severity


OWN_ATTACK_ONLY = {"adversarial_accuracy": 0.9, "validation_adversarial_accuracy": 0.3}


def test_what_withstands_the_attack_of_its_training_only_is_found() -> None:
    [finding] = found(results_of(BIM, victims=[victim(ONE, **OWN_ATTACK_ONLY)]))["own_attack_only"]
    assert (finding["cell_id"], finding["victim_id"]) == (None, ONE.victim_id)
    assert finding["figure"] == pytest.approx(0.6) and "90.0%" in finding["message"]
    cells = run_query(results_of(BIM, victims=[victim(ONE, **OWN_ATTACK_ONLY)]), "FROM cells").to_pylist()
    # It speaks of numbers that it may have made too high: not of that at which nothing is left.
    assert [one["checks"] for one in cells] == [["own_attack_only"], ["own_attack_only"], []]
    for close in ({"validation_adversarial_accuracy": 0.75}, {"adversarial_accuracy": None}):
        assert "own_attack_only" not in found(
            results_of(BIM, victims=[victim(ONE, **{**OWN_ATTACK_ONLY, **close})])
        )


def test_a_worst_case_that_rises_is_found() -> None:
    from orchestrator.results.checks import judge
    from orchestrator.results.checks.evidence import Evidence

    def evidence(*shares: float) -> Evidence:
        point = {"victim_id": "v", "norm": "linf", "n": 100, "complete": True, "seed": 0}
        point |= dict.fromkeys(("model", "model_options", "dataset", "defence"), "x")
        rows = [{**point, "epsilon": i / 10, "robust_accuracy": share} for i, share in enumerate(shares)]
        return Evidence(worst_cases=rows)

    judged = judge(evidence(0.9, 0.5, 0.6))
    assert [(row["rule"], row["epsilon"]) for row in judged.findings.to_pylist()] == [
        ("worst_case_rises", 0.2)
    ]
    assert judged.worst_cases.to_pylist() == [
        {"victim_id": "v", "norm": "linf", "epsilon": 0.2, "verdict": "wrong", "checks": ["worst_case_rises"]}
    ]
    assert judge(evidence(0.9, 0.5, 0.5)).findings.num_rows == 0


def attacked_again(
    number: Cell | None, broken: Iterable[int], tried: Iterable[int] = range(N), **values: Any
) -> dict[str, Any]:
    """A row of `STRONGER`: an attack on the survivors of a cell, or of ONE's worst case."""
    at = {"victim_id": ONE.victim_id, "norm": "linf", "epsilon": 0.1, "attack": "bim", **values}
    row = {"attack_options": "steps=20", "attack_id": "bim-20", **at}
    cell_id = of_cell(number.cell_id, row["attack_id"]) if number else of_worst_case("p", row["attack_id"])
    flags = {name: np.zeros(N, bool) for name in ("attacked_at", "broken_at")}
    flags["attacked_at"][list(tried)] = True
    flags["broken_at"][list(broken)] = True
    return {**row, "cell_id": cell_id, **{name: bits(value) for name, value in flags.items()}}


STANDARD = {"attack": "standard", "attack_options": "", "attack_id": "standard-0"}


def test_numbers_that_have_not_converged() -> None:
    weak, strong = cell("bim", range(100)), cell("pgd", range(90, 310))
    # Of the 280 survivors of bim five fall to more steps; and of the 70 of the worst case ten to standard.
    left = range(310, N - 20)
    stronger = [
        attacked_again(weak, range(100, 105), range(100, N - 20)),
        attacked_again(None, range(310, 320), left, **STANDARD),
    ]
    results = results_of([weak, strong], stronger=stronger)
    findings = {row["attack"]: row for row in found(results)["not_converged"]}
    assert {name: (row["figure"], row["cell_id"]) for name, row in findings.items()} == {
        "bim": (5 / N, weak.cell_id),
        None: (10 / N, None),
    }
    assert findings["bim"]["message"] == (
        "of 280 survivors 5 fall to bim (steps=20): robust accuracy would be 68.8%, not 70.0%"
    )
    assert findings[None]["message"] == (
        "of 70 survivors 10 fall to standard: robust accuracy would be 15.0%, not 17.5%"
    )
    cells = run_query(results, "SELECT attack, verdict, checks FROM cells").to_pylist()
    assert {one["attack"]: one["checks"] for one in cells if one["verdict"]} == {"bim": ["not_converged"]}
    [worst] = run_query(results, "FROM worst_case").to_pylist()
    assert (worst["verdict"], worst["checks"]) == ("suspicious", ["not_converged"])
    assert worst["robust_accuracy"] == 70 / N  # as it was


@pytest.mark.parametrize(
    "stronger",
    [
        [],
        [attacked_again(ONE, range(100, 104))],  # a point, not more
        [attacked_again(ONE, range(100))],  # what the cell broke itself
        [attacked_again(ONE, range(N - 20, N))],  # what the victim gets wrong
        [attacked_again(ONE, range(100, 200), range(99))],  # what was not tried
        [attacked_again(ONE, range(100, 200), epsilon=0.2)],
        [attacked_again(ONE, range(100, 200), victim_id="other")],
        # Of another cell's survivors, and not of all of this one's.
        [attacked_again(replace(ONE, attack="pgd"), range(100, 200), range(101, N))],
    ],
)
def test_numbers_that_have_converged(stronger: list[dict[str, Any]]) -> None:
    assert "not_converged" not in found(results_of([ONE], stronger=stronger))


def test_few_examples_say_nothing_of_convergence() -> None:
    small = Cell(attack="bim", examples=20, rows=[GRADIENTS] * 20)
    for broken, fires in ((2, False), (3, True)):
        again = attacked_again(small, range(broken), victim_id=small.victim_id)
        assert ("not_converged" in found(results_of([small], stronger=[again]))) == fires


@pytest.mark.parametrize("change", [{"targeted": True}, {"adaptive": False}])
def test_only_adaptive_untargeted_cells_are_held_against_stronger_attacks(change: dict[str, bool]) -> None:
    other = cell("bim", range(100), **change)
    assert "not_converged" not in found(results_of([other], stronger=[attacked_again(other, range(N))]))


def test_a_worst_case_that_held_is_not_marked_for_its_attacks() -> None:
    """Each alone has not converged, and together they left nothing that anything breaks."""
    one, other = cell("bim", range(100)), cell("pgd", range(100, 200))
    stronger = [
        attacked_again(one, range(100, 200)),
        attacked_again(other, range(100), attack="pgd", attack_id="pgd-80"),
        attacked_again(None, [], **STANDARD),
    ]
    results = results_of([one, other], stronger=stronger)
    assert {row["cell_id"] for row in found(results)["not_converged"]} == {one.cell_id, other.cell_id}
    assert run_query(results, "SELECT checks FROM worst_case").to_pylist() == [{"checks": []}]


def test_the_view_of_stronger_attacks() -> None:
    again = attacked_again(ONE, range(100, 110), range(100, 300))
    columns = "cell_id, attack, stronger, n, survivors, tried, broken, robust_accuracy, robust_accuracy_after"
    asked = f"SELECT {columns} FROM strengthened"
    [row] = run_query(results_of([ONE], stronger=[again]), asked).to_pylist()
    said = {"cell_id": ONE.cell_id, "attack": "bim", "stronger": "bim (steps=20)", "n": N, "survivors": 280}
    # Of those that were not tried nobody knows, so that there is no number after.
    assert row == {
        **said,
        "tried": 200,
        "broken": 10,
        "robust_accuracy": 0.7,
        "robust_accuracy_after": None,
    }
    parts = [again, attacked_again(ONE, range(300, 305), range(300, N))]  # as another worst case had them
    [row, worst] = run_query(results_of([ONE], stronger=parts), asked).to_pylist()
    assert row == {
        **said,
        "tried": 280,
        "broken": 15,
        "robust_accuracy": 0.7,
        "robust_accuracy_after": 265 / N,
    }
    assert worst == {**row, "cell_id": None, "attack": None}


def test_a_wrong_number_is_null_beside_stronger_attacks_too() -> None:
    wrong = cell("bim", range(100), epsilon=0.1)
    wrong = without(wrong, 5, distance=0.3)
    results = results_of([wrong], stronger=[attacked_again(wrong, range(100, 200))])
    rows = run_query(results, "SELECT robust_accuracy, robust_accuracy_after FROM strengthened").to_pylist()
    assert len(rows) == 2 and {value for row in rows for value in row.values()} == {None}


def test_every_rule_is_tried() -> None:
    tried = FIGURES_THAT_FIRE.keys() | CELLS_THAT_FIRE.keys() | {flag.value for flag in OF_EXAMPLES}
    tried |= {"not_converged", "own_attack_only"}
    assert tried == RULES.keys()
    severities = [rule.severity for rule in RULES.values()]
    assert severities == sorted(severities, key=("wrong", "suspicious", "note").index)


# -- what findings come to ---------------------------------------------------------------------------------


def cells_of(results: Results) -> dict[tuple[str, float], dict[str, Any]]:
    return {(one["attack"], one["epsilon"]): one for one in run_query(results, "FROM cells").to_pylist()}


def test_a_wrong_number_is_null_where_people_read_it() -> None:
    cells = cells_of(results_of([cell("bim", [3], epsilon=0.0), BIM[1]]))
    zero, other = cells["bim", 0.0], cells["bim", 0.1]
    assert (zero["verdict"], zero["checks"], zero["status"]) == ("wrong", ["epsilon_zero"], "done")
    for name in ("robust_accuracy", "robust_low", "robust_high", "attack_success_rate"):
        assert zero[name] is None and other[name] is not None
    assert zero["robust_accuracy_unchecked"] == 379 / 400
    assert (other["verdict"], other["checks"]) == (None, [])


def test_blind_gradients_concern_what_goes_by_them_alone() -> None:
    cells = [CLEAN, *BIM[:2], FGSM, SQUARE, QUIET, cell("standard", range(320)), cell("pgd", range(380))]
    judged = cells_of(results_of(cells, victims=[victim(ONE)], probes=probes(ONE, robust_at_1=0.4)))
    wrong = {key for key, one in judged.items() if one["verdict"] == "wrong"}
    # Epsilon 0 needs no attack, and where all is broken no more is hidden.
    assert wrong == {("bim", 0.05), ("bim", 0.1), ("fgsm", 0.1)}


def test_a_worst_case_is_as_good_as_its_best_search() -> None:
    def worst(*cells: Cell, **figures: float) -> dict[float, tuple[Any, ...]]:
        results = results_of(cells, victims=[victim(ONE)], probes=probes(ONE, **figures))
        rows = run_query(results, "FROM worst_case").to_pylist()
        return {row["epsilon"]: (row["verdict"], row["robust_accuracy"] is None) for row in rows}

    assert worst(BIM[1], QUIET, robust_at_1=0.4) == {0.1: ("wrong", True)}
    assert worst(BIM[1], QUIET, SQUARE, robust_at_1=0.4) == {0.1: (None, False)}
    assert worst(FGSM, QUIET, robust_at_1=0.4) == {0.1: ("wrong", True)}
    # Successes that are none are in the worst case whoever else has looked.
    assert worst(without(BIM[1], 5, distance=0.2), SQUARE) == {0.1: ("wrong", True)}
    assert worst(BIM[1], SQUARE, batch_changed=0.5, batch_spread=0.5) == {0.1: ("wrong", True)}


def test_what_is_partial_is_judged_by_what_is_there() -> None:
    part = replace(cell("bim", [3], epsilon=0.0), examples=2 * N)
    assert cells_of(results_of([part]))["bim", 0.0]["verdict"] == "wrong"


def test_few_examples_say_nothing() -> None:
    few = [
        replace(made, examples=8, rows=list(made.positions().values())[:8])
        for made in (cell("fgsm", range(4)), cell("bim", range(2)), cell("bim", (), epsilon=0.2))
    ]
    assert found(results_of(few)).keys() <= {"catastrophic_overfitting"}


def test_nothing_is_found_in_nothing() -> None:
    with connect(results_of([])) as connection:
        assert connection.sql("FROM checks").fetchall() == []
    assert found(results_of([Cell(), Cell(epsilon=0.0)])) == {}


# -- statistics --------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_sign_test(more: int, fewer: int) -> None:
    expected = stats.binomtest(more, more + fewer, alternative="greater").pvalue if more + fewer else 1.0
    assert mcnemar(more, fewer) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.integers(1, 400), st.floats(0.001, 0.9), st.data())
def test_binomial_tails(trials: int, share: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, trials))
    assert binomial_tail(k, trials, share) == pytest.approx(stats.binom.sf(k - 1, trials, share), rel=1e-8)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_bonferroni_and_no_correction(probabilities: list[float]) -> None:
    found = holm(probabilities, 0.05)
    for p, significant in zip(probabilities, found, strict=True):
        assert significant or p > 0.05 / len(probabilities)
        assert not significant or p <= 0.05
    assert holm([0.01, 0.04, 0.02], 0.05) == [True, True, True]
    assert holm([0.03, 0.04, 0.02], 0.05) == [False, False, False]


# -- where people read it ----------------------------------------------------------------------------------

SICK = [cell("bim", [3], epsilon=0.0), *BIM[:2], FGSM, cell("pgd", range(150))]


def tables(results: Results) -> Any:
    return robustness_tables(*cells_and_worst_cases(results))


@pytest.mark.parametrize("form", ["rich", "md"])
def test_a_table_shows_no_wrong_number(form: str) -> None:
    results = results_of(SICK, victims=[victim(ONE)], probes=probes(ONE, robust_at_1=0.4))
    text = text_format(form).robustness(tables(results))
    unchecked = run_query(
        results, "SELECT DISTINCT robust_accuracy_unchecked AS x FROM cells WHERE verdict = 'wrong'"
    )
    assert unchecked.num_rows >= 4
    for share in unchecked["x"].to_pylist():
        assert f"{100 * share:.1f}%" not in text
    assert "wrong¹" in text and "wrong²" in text
    assert f"¹ wrong: {RULES['epsilon_one'].meaning}" in text
    assert f"² wrong: {RULES['epsilon_zero'].meaning}" in text
    assert f"³ suspicious: {RULES['weaker_than_fgsm'].meaning}" in text


@pytest.mark.parametrize("form", ["csv", "json"])
def test_records_say_what_is_wrong(form: str) -> None:
    results = results_of([cell("bim", [3], epsilon=0.0), BIM[1]], victims=[victim(ONE)])
    text = text_format(form).robustness(tables(results))
    if form == "json":
        zero, other = json.loads(text)
        assert (zero["robust_accuracy"], zero["robust_low"]) == (None, None)
        assert (zero["robust_accuracy_unchecked"], zero["verdict"]) == (379 / 400, "wrong")
        assert (zero["checks"], other["checks"], other["verdict"]) == (["epsilon_zero"], [], None)
    else:
        zero, other = csv.DictReader(io.StringIO(text))
        assert (zero["robust_accuracy"], zero["robust_accuracy_unchecked"]) == ("", str(379 / 400))
        assert (zero["verdict"], other["verdict"]) == ("wrong", "")


def test_a_wrong_seed_makes_the_mean_of_all_wrong() -> None:
    seeds = [cell("bim", [3], epsilon=0.0), cell("bim", [], epsilon=0.0, seed=1)]
    [[row]] = [table.rows for table in tables(results_of(seeds))]
    [entry] = row.entries
    assert (entry.mark, entry.value, entry.low, entry.sd) == ("wrong", None, None, None)
    assert entry.unchecked == pytest.approx((379 + 380) / 800)


def test_a_targeted_number_can_be_wrong_too() -> None:
    [made] = run_query(results_of([cell("bim", [3], epsilon=0.0, targeted=True)]), "FROM cells").to_pylist()
    assert (made["target_missed"], made["target_missed_low"], made["verdict"]) == (None, None, "wrong")
    assert (made["target_missed_unchecked"], made["robust_accuracy_unchecked"]) == (379 / 400, None)


def test_footnotes_are_few() -> None:
    sick = {"robust_at_1": 0.4, "gradient_gain": 0.0, "ties": 0.5, "bim@3": 0.9, "batch_changed": 0.5}
    sick |= {"batch_spread": 0.5, "square@2": 0.1}
    results = results_of(SICK, victims=[victim(ONE)], probes=probes(ONE, **sick))
    text = text_format("md").robustness(tables(results))
    assert "¹ wrong" in text and "⁵ " in text and "⁶" not in text
    assert "more: robustsweep verify" in text.splitlines()[-1]


def test_findings_in_words() -> None:
    results = results_of(SICK, victims=[victim(ONE)], probes=probes(ONE, robust_at_1=0.4, saturated=0.9))
    checks = run_query(results, "FROM checks")
    lines = list(findings.lines(checks, findings.unprobed(results)))
    text = "\n".join(line for _, line in lines)
    place = "bim linf on resnet50_v2 on mnist at epsilon 0"
    assert [line for severity, line in lines if severity][:2] == ["wrong: epsilon_one", "wrong: epsilon_zero"]
    assert f"- {place}: " in text and "note: saturated" in text and "not probed" not in text
    assert lines[-1] == (
        "wrong",
        "2 wrong, 1 suspicious, 1 note: a number that is wrong is shown in no table",
    )
    brief = findings.brief(checks)
    assert [severity for severity, _ in brief] == ["wrong", "wrong", "suspicious"]
    assert findings.unprobed(results_of([ONE])) == 1


@pytest.mark.parametrize(
    ("figures", "last"),
    [
        ({}, "nothing is wrong or suspicious"),
        ({"saturated": 0.9}, "nothing is wrong or suspicious, 1 note"),
        (
            {"ties": 0.5},
            "nothing is wrong, but 1 suspicious: models may be far less robust than their numbers say",
        ),
    ],
)
def test_the_last_line_says_what_it_comes_to(figures: dict[str, float], last: str) -> None:
    [*_, (_, line)] = findings.lines(found_table(probed(**figures)), 0)
    assert line == last


def found_table(results: Results) -> pa.Table:
    return run_query(results, "FROM checks")


def test_many_findings_of_a_rule_are_counted() -> None:
    cells = [cell("bim", [3], epsilon=0.0, seed=seed) for seed in range(9)]
    lines = [line for _, line in findings.lines(found_table(results_of(cells)), 0)]
    assert sum("(seed" in line for line in lines) == 4 and "  - and 4 more" in lines


def test_the_page_knows_every_rule() -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "write_checks.py"))
    assert script["PAGE"].read_text() == script["page"](), "run python docs/write_checks.py"
    for rule in RULES.values():
        for text in (rule.meaning, rule.advice):
            assert text and not text.endswith(".") and "|" not in text


# -- a folder ------------------------------------------------------------------------------------------------


def robustsweep(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    grid = write_grid(tmp_path / "g.yaml", epsilons=[0, 0.1, 0.5])
    summary = sweep(grid, tmp_path / "out")
    assert summary.exit_code == 0 and summary.checks.num_rows == 0
    return tmp_path / "out"


def spoil(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of the first shard, as if an attack had left them so."""
    path = sorted((folder / "shards").rglob("*.parquet"))[0]
    rows = pq.read_table(path)
    pq.write_table(change(rows).cast(rows.schema), path)


def set_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))


def claim_at_zero(rows: pa.Table) -> pa.Table:
    claims = [row["success"] or (row["epsilon"] == 0 and row["clean_correct"]) for row in rows.to_pylist()]
    distances = [
        0.0 if row["epsilon"] == 0 and row["clean_correct"] else row["linf"] for row in rows.to_pylist()
    ]
    return set_column(set_column(rows, "success", claims), "linf", distances)


def keep(value: float) -> Callable[[pa.Table], pa.Table]:
    """Every success keeps an image of that grey."""

    def change(rows: pa.Table) -> pa.Table:
        image = np.full((8, 8, 1), value, np.float32).tobytes()
        kept = [image if row["success"] else None for row in rows.to_pylist()]
        shapes = [[8, 8, 1] if row["success"] else None for row in rows.to_pylist()]
        return set_column(set_column(rows, "image", kept), "image_shape", shapes)

    return change


def test_verify_says_that_all_is_well(folder: Path) -> None:
    result = robustsweep("verify", folder)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "nothing is wrong or suspicious"
    assert "1 victim not probed" in result.output
    assert robustsweep("verify", folder, "--format", "json").output == "[]\n"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (claim_at_zero, "epsilon_zero"),
        (
            lambda rows: set_column(
                rows, "linf", [0.3 if x == 0.1 else x for x in rows["epsilon"].to_pylist()]
            ),
            "outside",
        ),
        (keep(1.5), "outside"),
        (keep(math.nan), "outside"),
    ],
)
def test_verify_finds_what_a_shard_cannot_mean(
    folder: Path, change: Callable[[pa.Table], pa.Table], rule: str
) -> None:
    spoil(folder, change)
    result = robustsweep("verify", folder)
    assert result.exit_code == 1
    assert f"wrong: {rule}" in result.output
    assert "wrong" in result.output.splitlines()[-1]
    for form in ("csv", "json", "md"):
        told = robustsweep("verify", folder, "--format", form)
        assert told.exit_code == 1 and rule in told.output
    assert "wrong¹" in robustsweep("table", folder).output


def test_images_that_are_too_far_apart_for_their_distances(folder: Path) -> None:
    """Both of an example lie within epsilon of one clean image, so they lie within two of each other."""

    def change(rows: pa.Table) -> pa.Table:
        greys = {0.1: 0.2, 0.5: grey}
        kept = [
            np.full((8, 8, 1), greys[row["epsilon"]], np.float32).tobytes() if row["success"] else None
            for row in rows.to_pylist()
        ]
        shapes = [[8, 8, 1] if row["success"] else None for row in rows.to_pylist()]
        return set_column(set_column(rows, "image", kept), "image_shape", shapes)

    grey = 0.75  # 0.55 from the other, and 0.1 + 0.5 are allowed
    spoil(folder, change)
    assert robustsweep("verify", folder).exit_code == 0
    grey = 0.85
    spoil(folder, change)
    assert "wrong: outside" in robustsweep("verify", folder).output


def test_a_run_says_what_is_wrong(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.yaml", epsilons=[0, 0.1])
    sweep(grid, tmp_path / "out")
    spoil(tmp_path / "out", claim_at_zero)
    prepared = prepare(load_grid(str(grid)), str(tmp_path / "out"))
    summary = sweep(grid, tmp_path / "out")
    assert summary.exit_code == 0  # everything that was asked for is there
    console = Console(width=300, record=True, file=io.StringIO())
    show.summary(console, prepared, summary)
    text = console.export_text()
    assert "wrong: epsilon_zero, work (mood=work) linf on small_cnn on digits at epsilon 0: " in text
    assert "robustsweep verify" in text
    written = pq.read_table(tmp_path / "out" / "tables" / "checks.parquet")
    assert written["rule"].to_pylist() == ["epsilon_zero"] and written.schema.equals(CHECKS)


@given(st.lists(st.lists(st.sampled_from("rbw"), min_size=1, max_size=12), min_size=1, max_size=5))
def test_the_pair_with_most_gain_is_that_of_comparing_each_with_each(cells: list[list[str]]) -> None:
    """r: right and robust, b: broken, w: wrong before. Cells may have seen different numbers of examples."""
    from orchestrator.results.checks import evidence

    kind = evidence.Kind("bim", "bim")
    some = [
        evidence.Cell(
            {
                "right_at": bits(np.array([one != "w" for one in cell])),
                "broken_at": bits(np.array([one == "b" for one in cell])),
            },
            kind,
        )
        for cell in cells
    ]
    assert list(evidence.most_ahead(some)) == [
        max((evidence.Pair.of(before, one) for before in some[:i]), key=lambda pair: pair.gain)
        for i, one in enumerate(some[1:], 1)
    ]
