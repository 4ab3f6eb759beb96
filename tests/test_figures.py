"""Figures: what is drawn is what is there, holes are gaps that are named, and all of it can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import robustsweep
from orchestrator.errors import UserError
from orchestrator.plots import Plots
from orchestrator.results.chosen import chosen
from orchestrator.results.figures import KINDS, Choice, draw, save
from orchestrator.results.figures.curves import mark
from orchestrator.results.figures.gallery import change
from orchestrator.results.figures.page import image_bytes, wrapped
from orchestrator.results.figures.style import DASHES, MARKERS, PALETTE, contrast, looks
from orchestrator.results.per_class import ByClass, class_records
from orchestrator.results.schemas import Results
from orchestrator.results.steps import steps
from orchestrator.results.text import per_class as words
from orchestrator.results.views import _wilson
from orchestrator.results.wilson import wilson
from tests.support.figures import faults
from tests.support.results import Cell, results_of

EPSILONS = (0.0, 0.05, 0.1, 0.2)


def rows(broken: int, n: int = 20, **every: Any) -> list[dict[str, Any]]:
    """Of `n` examples the first so many are broken, near the clean image, and the first 8 images are kept."""
    hit = {"success": True, "success_uint8": True, "distance": 0.001, "adv_label": 5, "adv_confidence": 0.7}
    clean, changed = np.full((4, 4, 1), 0.5, np.float32), np.full((4, 4, 1), 0.501, np.float32)
    kept = {"image": changed.tobytes(), "image_shape": [4, 4, 1], "clean_image": clean.tobytes()}
    seen = {"ssim": 0.9, "full_l2": 0.004}
    return [
        {**(hit if i < broken else {}), **(kept if i < 8 else {}), **(seen if i < 4 else {}), **every}
        for i in range(n)
    ]


def cells(**of: Any) -> list[Cell]:
    """Cells at all epsilons, broken on 0, 5, 10 and 15 of 20 examples."""
    return [Cell(epsilon=epsilon, examples=20, rows=rows(5 * i), **of) for i, epsilon in enumerate(EPSILONS)]


def with_weak(results: list[Cell]) -> Results:
    """Of victims that answer no better than chance: what checks call suspicious."""
    victims = {cell.victim_id: cell for cell in results}
    return results_of(
        results,
        victims=[
            {
                "victim_id": victim,
                "model": cell.model,
                "dataset": cell.dataset,
                "defence": cell.defence,
                "seed": cell.seed,
                "test_accuracy": 0.12,
                "chance": 0.1,
            }
            for victim, cell in victims.items()
        ],
    )


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def lines(figure: Figure, colour: str) -> list[np.ndarray]:
    """The lines (not points) of one colour, each as (points, 2)."""
    return [
        line.get_xydata()
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_color() == colour and line.get_linestyle() != "None" and len(line.get_xdata()) > 1
    ]


def test_a_curve_is_the_numbers_of_the_table() -> None:
    figure = draw("curves", [results_of(cells())], Choice())
    [line] = lines(figure, PALETTE[0])
    assert_allclose(line, [(0, 100), (0.05, 75), (0.1, 50), (0.2, 25)])
    assert "n = 20 test images; bands: 95% intervals" in texts(figure) and faults(figure) == []


def test_nothing_is_drawn_across_a_hole() -> None:
    """Where a cell is missing, partial or wrong, a line ends, and what is so is said."""
    some = cells()
    for hole, said in ((some[2], "missing, no number"), (some[1], "partial, no number")):
        held = [cell for cell in some if cell is not hole]
        partial = Cell(epsilon=hole.epsilon, examples=20, rows=rows(0, 7) if hole is some[1] else ())
        figure = draw("curves", [results_of([*held, partial])], Choice())
        found = [x for line in lines(figure, PALETTE[0]) for x, _ in line]
        assert hole.epsilon not in found
        # No stretch passes over it either.
        assert all(not line[0, 0] < hole.epsilon < line[-1, 0] for line in lines(figure, PALETTE[0]))
        assert said in texts(figure) and "not done" in texts(figure)
        assert f"at {hole.epsilon:g}" in texts(figure) and faults(figure) == []


def test_the_mark_of_a_hole_is_a_question_mark() -> None:
    """Names are no formulas here, and so "$?$" would be three letters, wider than high."""
    marker = mark("missing", PALETTE[0])["marker"]
    assert 1.3 < marker.get_extents().height / marker.get_extents().width < 2.5


def test_a_number_that_a_check_calls_wrong_is_not_drawn() -> None:
    some = cells()
    # Successes beyond epsilon contradict their own rows.
    wrong = Cell(epsilon=0.1, examples=20, rows=rows(10, distance=0.15))
    sweep = [results_of([*(cell for cell in some if cell.epsilon != 0.1), wrong])]
    for kind in ("curves", "heatmap"):
        figure = draw(kind, sweep, Choice(epsilon=0.1 if kind == "heatmap" else None))
        assert "wrong, no number: resnet50_v2" in texts(figure) and faults(figure) == []
    assert "wrong" in texts(figure).split("\n") and "50" not in texts(figure).split("\n")
    assert 0.1 not in {x for line in lines(draw("curves", sweep, Choice()), PALETTE[0]) for x, _ in line}


def test_what_a_check_calls_suspicious_is_hollow() -> None:
    figure = draw("curves", [with_weak(cells())], Choice())
    points = [
        line.get_markerfacecolor()
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_marker() == MARKERS[0] and len(line.get_xdata()) == 1
    ]
    assert points == ["white"] * 4 and "hollow points, suspicious: " in texts(figure)
    assert "25*" in texts(draw("heatmap", [with_weak(cells())], Choice(epsilon=0.2)))


def test_an_incomplete_worst_case_has_no_number() -> None:
    half = Cell(attack="bim", epsilon=0.1, examples=20)
    figure = draw("curves", [results_of([*cells(), *cells(attack="bim")[:2], half])], Choice())
    assert "incomplete, no number: resnet50_v2, mnist, linf, worst case at 0.1" in texts(figure)
    # At 0.2 it is of FGSM alone, which is less than elsewhere.
    assert "mnist, linf: fgsm alone for resnet50_v2 at 0.2" in texts(figure)


def test_attacks_that_are_asked_for_have_panels() -> None:
    sweep = [
        results_of([*cells(), *cells(attack="bim"), *cells(attack="pgd", adaptive=False, defence="jpeg")])
    ]
    assert [axes.get_title(loc="left") for axes in draw("curves", sweep, Choice()).axes] == [
        "mnist, linf, worst case"
    ]
    asked = draw("curves", sweep, Choice(wanted={"attack": ["fgsm", "pgd"]}))
    assert [axes.get_title(loc="left") for axes in asked.axes] == [
        "mnist, linf, fgsm",
        "mnist, linf, pgd (oblivious)",
    ]
    assert len(draw("curves", sweep, Choice(by=["attack"])).axes) == 4


def test_targeted_attacks_say_so() -> None:
    figure = draw("curves", [results_of(cells(targeted=True, attack_options="targeted=True"))], Choice())
    assert "right and not driven to the target (%)" in texts(figure) and "robust accuracy" not in texts(
        figure
    )


def test_labels_are_read_in_figures() -> None:
    named = cells(model_label="Net $x_1$", dataset_label="Digits", attack_label="FGM", defence_label="bare")
    text = texts(draw("curves", [results_of(named)], Choice()))
    assert "Digits, linf, FGM" in text and "Net $x_1$, bare" in text and "resnet50_v2" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_many_long_names_can_be_read_at_the_width_of_a_column(kind: str) -> None:
    some: list[Cell] = []
    for model in ("a_model_of_a_rather_long_name", "another_one_that_is_longer_still_and_has_no_end_of_it"):
        for defence in ("none", "random_resize_pad (least=0.8)"):
            for attack, nearest in (
                ("fgsm", False),
                ("carlini_wagner", True),
                ("a_very_long_name_of_an_attack", False),
            ):
                some += cells(
                    model=model,
                    model_options="width=64, depth=7",
                    defence=defence,
                    attack=attack,
                    attack_options="binary_search_steps=5, steps=50",
                    minimum_norm=nearest,
                )
    made = [cell for cell in some if cell.attack == "fgsm" and cell.epsilon == 0.1]
    some += [replace(on, source=by) for by in made for on in made if on.victim_id != by.victim_id]
    history = [
        {"victim_id": victim, "epoch": epoch, "phase": "scratch", "loss": 1.0, "accuracy": 0.5,
         "validation_loss": 1.2, "validation_accuracy": 0.4}
        for victim in dict.fromkeys(cell.victim_id for cell in some)
        for epoch in (1, 2)
    ]  # fmt: skip
    victims = [{"victim_id": victim, "weights": victim} for victim in {one["victim_id"] for one in history}]
    sweep = results_of(some, history=history, victims=victims)
    for width in (3.3, 6.9):
        figure = draw(kind, [sweep], Choice(width=width))
        assert figure.get_figwidth() == width and faults(figure) == []


@given(
    distances=st.lists(st.one_of(st.floats(0, 3), st.just(np.inf)), min_size=1, max_size=30),
    epsilon=st.floats(0, 4),
)
@settings(deadline=None, max_examples=100)
def test_steps_are_the_share_that_is_farther(distances: list[float], epsilon: float) -> None:
    found = steps([np.array(distances)])
    place = np.searchsorted(found.at, epsilon, side="right") - 1
    assert_allclose(found.share[place], np.mean(np.array(distances) > epsilon))


def test_distances_meet_the_table_at_its_epsilons() -> None:
    nearest = [0.0, 0.03, 0.07, 0.15, 0.3, np.inf, None, None]
    at = [
        {"clean_correct": False}
        if d is None
        else {"success": d <= e, "distance": d if d <= e else np.inf, "nearest": d}
        for e in (0.1,)
        for d in nearest
    ]
    cell = Cell(attack="deepfool", minimum_norm=True, norm="l2", epsilon=0.1, examples=8, rows=at)
    figure = draw("distances", [results_of([cell])], Choice())
    [line] = lines(figure, PALETTE[0])
    place = np.searchsorted(line[:, 0], 0.1, side="right") - 1
    assert_allclose(line[place, 1], 100 * 3 / 8)
    assert_allclose(line[-1], (1e6, 100 / 8))  # what no distance reaches stays


def test_bars_are_drawn_where_a_figure_says_so() -> None:
    """Of distances over several seeds ± SD, where points are; a heatmap has no bars and speaks of none."""
    near = [{"success": True, "distance": 0.05, "nearest": 0.05}] * 4
    far = [{"success": False, "distance": np.inf, "nearest": np.inf}] * 4
    seeds = [
        Cell(attack="deepfool", minimum_norm=True, norm="l2", seed=seed, examples=8, rows=some)
        for seed, some in ((0, near + far), (1, near + near))
    ]
    figure = draw("distances", [results_of(seeds)], Choice())
    bars = [path for found in figure.axes[0].collections for path in found.get_paths() if len(path) == 2]
    assert "bars: ± SD" in texts(figure).replace("\n", " ")
    [fallen] = {tuple(np.round(bar.vertices[:, 1], 6)) for bar in bars} - {(100, 100)}
    sd = 100 * np.std([0.5, 0.0], ddof=1)
    assert_allclose(sorted(fallen), [25 - sd, 25 + sd], rtol=1e-6)
    heat = texts(draw("heatmap", [results_of(seeds)], Choice()))
    assert "mean over training seeds" in heat and "bars" not in heat


def test_a_curve_of_a_minimum_norm_attack_has_steps_between_epsilons() -> None:
    """All that 0.1 leaves falls at 0.11: a straight line to 0.2 would promise what is not there."""
    near = [0.05, *[0.11] * 7, np.inf, np.inf]
    some = [
        Cell(
            attack="deepfool",
            minimum_norm=True,
            epsilon=epsilon,
            examples=10,
            rows=[
                {"success": d <= epsilon, "distance": d if d <= epsilon else np.inf, "nearest": d}
                for d in near
            ],
        )
        for epsilon in (0.1, 0.2)
    ]
    (axes,) = draw("curves", [results_of(some)], Choice()).axes
    (line,) = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    assert line.get_drawstyle() == "steps-post"
    at, share = (np.asarray(of, float) for of in line.get_data())
    for x in (0.0, 0.08, 0.1, 0.12, 0.15, 0.2):
        assert share[np.searchsorted(at, x, side="right") - 1] == 100 * np.mean(np.array(near) > x)
    points = {tuple(np.ravel(line.get_data())) for line in axes.get_lines() if len(line.get_xdata()) == 1}
    assert points == {(0.1, 90.0), (0.2, 20.0)}
    fgsm = [
        replace(
            one,
            attack="fgsm",
            minimum_norm=False,
            rows=[{**row, "nearest": None} for row in one.positions().values()],
        )
        for one in some
    ]
    (axes,) = draw("curves", [results_of(fgsm)], Choice()).axes
    assert all(line.get_drawstyle() == "default" for line in axes.get_lines())


def test_distances_of_a_cell_that_is_not_done_are_not_drawn() -> None:
    some = Cell(
        attack="deepfool",
        minimum_norm=True,
        norm="l2",
        examples=8,
        rows=[{"distance": 0.3, "nearest": 0.3}] * 5,
    )
    figure = draw("distances", [results_of([some])], Choice())
    assert lines(figure, PALETTE[0]) == [] and "partial, no number: resnet50_v2" in texts(figure)
    with pytest.raises(
        UserError, match=r"distances are of minimum-norm attacks, such as deepfool; there are: fgsm"
    ):
        draw("distances", [results_of(cells())], Choice())


def test_visibility_is_of_whole_budgets_alone() -> None:
    several = [*cells(), *cells(attack="deepfool", minimum_norm=True)]
    figure = draw("perceptibility", [results_of(several)], Choice())
    accuracy, ssim, l2 = figure.axes
    assert "fgsm" in accuracy.get_title(loc="left") and "without minimum-norm attacks" in texts(figure)
    assert_allclose(ssim.get_lines()[0].get_xydata(), [(epsilon, 0.9) for epsilon in EPSILONS])
    assert_allclose(l2.get_lines()[0].get_ydata(), 0.004, rtol=1e-6)
    assert "means over 4 of the first 64 images" in texts(figure)
    with pytest.raises(UserError, match="minimum-norm attacks spend what they need"):
        draw("perceptibility", [results_of(several)], Choice(wanted={"attack": ["deepfool"]}))


def test_small_images_have_no_ssim() -> None:
    at = [{**row, "ssim": None} for row in rows(5)]
    figure = draw("perceptibility", [results_of([Cell(examples=20, rows=at)])], Choice())
    assert "no SSIM of images\nbelow 11 pixels" in texts(figure)


def test_where_nothing_is_measured_nothing_is_said_of_sizes() -> None:
    figure = draw("perceptibility", [results_of([Cell(examples=20)])], Choice())
    assert "not measured" in texts(figure) and "below 11" not in texts(figure)


def test_classes_add_up_to_the_table() -> None:
    """Positions by turns of three classes; the first ten of twenty are broken, and one is wrong without."""
    at = [{**row, "label": i % 3} for i, row in enumerate(rows(10))]
    at[19] = {"label": 1, "clean_correct": False}
    cell = Cell(examples=20, rows=at)
    known = results_of([cell], victims=[{"victim_id": cell.victim_id, "class_names": ["ant", "bee", "cow"]}])
    found = chosen([known], {})
    [table] = found.tables
    [row], [entry] = table.rows, table.rows[0].entries
    assert entry is not None
    shares = ByClass([known], found.cells).shares(row, entry)
    assert shares is not None and shares.names == ("ant", "bee", "cow") and shares.n.tolist() == [7, 7, 6]
    assert_allclose(shares.clean, [1, 6 / 7, 1])
    assert_allclose(shares.robust, [3 / 7, 3 / 7, 3 / 6])
    assert_allclose((shares.robust * shares.n).sum() / 20, entry.value)
    figure = draw("per-class", [known], Choice())
    assert {"ant", "bee", "cow"} <= set(texts(figure).split("\n")) and "6–7 test images of a class" in texts(
        figure
    )


def test_a_worst_case_by_class() -> None:
    """What either attack breaks: the first ten, and the last five."""
    first = Cell(examples=20, rows=rows(10))
    last = Cell(attack="bim", examples=20, rows=[{}] * 15 + rows(5, 5))
    found = chosen(known := [results_of([first, last])], {})
    worst = found.tables[0].rows[-1]
    shares = ByClass(known, found.cells).shares(worst, worst.entries[0])  # type: ignore[arg-type]
    assert shares is not None and shares.robust[3] == pytest.approx(0.25) and np.isnan(shares.robust[0])


def test_a_table_class_by_class() -> None:
    at = [{**row, "label": i % 2} for i, row in enumerate(rows(10))]
    good = Cell(examples=20, rows=at, model_label="Net", dataset_label="Digits")
    wrong = Cell(model="b", examples=20, rows=rows(10, distance=0.15))
    sweep = [results_of([good, wrong])]
    records, of = class_records(sweep, {})
    found = records.to_pylist()
    assert [(row["model"], row["label"], row["n"], row["accuracy"]) for row in found] == [
        ("resnet50_v2", 0, 10, 0.5),
        ("resnet50_v2", 1, 10, 0.5),
        ("b", None, None, None),
    ]
    columns = words.columns(records, of)
    assert columns.rows[0] == [
        *("Digits", "linf", "Net", "none", "fgsm", "0.1"),
        *("0", "100.0%", "50.0%", "23.7% to 76.3%", "10"),
    ]
    assert columns.rows[2][-5:] == ["–", "–", "wrong", "–", "–"]
    assert "wrong: robustsweep verify" in words.caption(records)
    with pytest.raises(UserError, match=r"--epsilon: found 0.3; there are: 0.1"):
        class_records(sweep, {}, 0.3)


def test_many_classes_are_the_least_and_the_most_robust() -> None:
    at = [{**row, "label": i} for i, row in enumerate(rows(15, 40))]
    figure = draw("per-class", [results_of([Cell(examples=40, rows=at)])], Choice())
    assert "20 of 40 classes, the least robust and the most" in texts(figure).replace("\n", " ")


def test_numbers_that_are_wrong_or_missing_have_no_classes() -> None:
    wrong = Cell(examples=20, rows=rows(10, distance=0.15))
    figure = draw("per-class", [results_of([wrong])], Choice())
    assert "no number" in texts(figure).split("\n") and "wrong, no number: resnet50_v2" in texts(figure)


def test_a_gallery_shows_what_was_broken_and_how_much() -> None:
    cell = Cell(epsilon=0.1, examples=20, rows=rows(10))
    known = results_of([cell], victims=[{"victim_id": cell.victim_id, "class_names": list("abcdefgh")}])
    figure = draw("gallery", [known], Choice())
    said = texts(figure).split("\n")
    assert said.count("d") == said.count("f") == 3 and said.count("90%") == said.count("70%") == 3
    assert said.count("× 500") == 3 and said.count("linf 0.001") == 3
    images = [image.get_array() for image in figure.axes[0].get_images()]
    assert_allclose(images[0], 0.5)
    assert_allclose(images[1], 1.0, atol=1e-5)  # 0.5 + 500 × 0.001
    assert len(images) == 9 and faults(figure) == []
    with pytest.raises(UserError, match="none was broken"):
        draw("gallery", [results_of([Cell(examples=20, rows=rows(0))])], Choice())
    with pytest.raises(UserError, match="`keep: N` in a grid"):
        draw(
            "gallery",
            [results_of([Cell(examples=4, rows=[{"success": True, "distance": 0.01}] * 4)])],
            Choice(),
        )


@given(st.floats(1 / 1024, 1.0), st.floats(-1.0, 1.0))
def test_a_change_is_enlarged_by_what_is_said(most: float, share: float) -> None:
    clean, delta = np.zeros((1, 2, 1), np.float32), np.array([most, share * most], np.float32)
    shown, said = change(clean, clean + delta.reshape(1, 2, 1))
    scale = float(said.removeprefix("× "))
    assert_allclose(shown.ravel(), np.clip(0.5 + scale * delta, 0, 1), atol=1e-4)
    assert 0.95 <= shown[0, 0, 0] <= 1  # by a factor of one decimal


def test_a_gallery_is_in_the_order_of_the_grid() -> None:
    """Of each dataset the cells as the grid lists them, whatever their norms; and of which seed."""
    of = {"examples": 20, "rows": rows(10)}
    some = [
        Cell(dataset=dataset, attack=attack, norm=norm, seed=seed, **of)
        for dataset in ("mnist", "digits")
        for attack, norm in (("fgsm", "l2"), ("bim", "linf"), ("pgd", "l2"))
        for seed in (3, 4)
    ]
    said = texts(draw("gallery", [results_of(some)], Choice())).replace("\n", " ")
    titles = [
        f"{dataset}, {norm}: resnet50_v2 under {attack}, epsilon 0.1, seed 3 (of 2)"
        for dataset in ("mnist", "digits")
        for attack, norm in (("fgsm", "l2"), ("bim", "linf"), ("pgd", "l2"))
    ]
    places = [said.find(title) for title in titles]
    assert -1 not in places and places == sorted(places)


def test_a_gallery_shows_nothing_of_what_a_check_calls_wrong() -> None:
    good, wrong = (
        Cell(examples=20, rows=rows(10)),
        Cell(attack="bim", examples=20, rows=rows(10, distance=0.15)),
    )
    figure = draw("gallery", [results_of([good, wrong])], Choice())
    assert len(figure.axes[0].get_images()) == 9 and "wrong, no number" in texts(figure)


def test_who_breaks_whom() -> None:
    """Images made against b leave 75% of a; a itself keeps half, and b three quarters."""
    a = Cell(model="a", model_label="Net A", examples=20, rows=rows(10))
    b = Cell(model="b", examples=20, rows=rows(5))
    b_on_a = replace(a, source=b, rows=rows(4))
    figure = draw("transfer", [results_of([a, b, b_on_a])], Choice(epsilon=0.1))
    said = texts(figure).split("\n")
    # By rows: on a what was made against a and against b; on b itself alone, as nothing else was tried on it.
    numbers = [text for text in figure.axes[0].texts if text.get_text().isdecimal()]
    where = {(text.get_position(), text.get_weight()): text.get_text() for text in numbers}
    assert where == {
        ((0.5, 0.5), "bold"): "50",
        ((0.5, 1.5), "normal"): "80",
        ((1.5, 1.5), "bold"): "75",
    }
    assert {"Net A", "b", "made against", "tried on"} <= set(
        said
    ) and "mnist, linf, fgsm, epsilon 0.1" in said
    partial = replace(b_on_a, rows=rows(4, 7))
    some = texts(draw("transfer", [results_of([a, b, partial])], Choice()))
    assert "part" in some.split("\n") and "partial, no number: b → Net A" in some
    with pytest.raises(UserError, match="no attack of these has `transfer: true`"):
        draw("transfer", [results_of([a, b])], Choice())
    # Who looks at classes or images does not stumble over the worst case with transfer.
    both = Choice(by=["attack"])
    for kind in ("per-class", "gallery", "heatmap", "curves", "perceptibility"):
        drawn = draw(kind, [results_of([a, b, b_on_a])], both)
        titles = [axes.get_title(loc="left").replace("\n", " ") for axes in drawn.axes]
        assert drawn.axes and any("with transfer" in title for title in titles) == (
            kind in ("curves", "heatmap")
        )
        defined = "worst case, with transfer: right, and broken neither by" in texts(drawn).replace("\n", " ")
        assert defined == (kind in ("curves", "heatmap"))


def test_images_that_were_made_blindly_are_marked_where_they_were_tried_and_made() -> None:
    """b has no gradients, so that what was made against it breaks nothing: a is no more robust for that."""
    blind = [{"flags": ["zero_gradients"]}] * 20
    a, b = Cell(model="a", examples=20, rows=rows(10)), Cell(model="b", examples=20, rows=blind)
    figure = draw("transfer", [results_of([a, b, replace(a, source=b, rows=blind)])], Choice())
    numbers = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert numbers[0.5, 1.5] == "100§" and numbers[0.5, 0.5] == "50" and numbers[1.5, 1.5] == "100*§"
    assert "§ where these images were made: zero gradients: this attack was blind" in texts(figure).replace(
        "\n", " "
    )
    seeing = draw("transfer", [results_of([a, replace(b, rows=rows(5)), replace(a, source=b)])], Choice())
    assert "§" not in texts(seeing)


def smoothed(**values: Any) -> list[Cell]:
    """A smoothed victim, three quarters of which are certified beyond 0.25 and one quarter beyond 0.5."""
    victim = {"model": "net", "defence": "smoothing", "norm": "l2", "examples": 4}
    taken = {"sigma": 0.25, "n0": 10, "draws": 100, "alpha": 0.001}
    radii = [{"radius": 0.6}, {"radius": 0.3}, {"radius": 0.3}, {"radius": None}]
    return [
        *(Cell(**victim, epsilon=epsilon, rows=rows(0, 4), **values) for epsilon in (0.25, 0.5)),
        Cell(**victim, attack="certify", epsilon=0.0, rows=radii, **taken),
    ]


def test_certified_bounds_are_lines_of_their_own_below() -> None:
    plain = [
        Cell(model="net", norm="l2", epsilon=epsilon, examples=4, rows=rows(2, 4)) for epsilon in (0.25, 0.5)
    ]
    figure = draw("curves", [results_of([*plain, *smoothed()])], Choice())
    (axes,) = figure.axes
    bounds = [line for line in axes.get_lines() if line.get_marker() == "v"]
    assert [list(line.get_ydata()) for line in bounds] == [[75.0, 25.0]]
    assert list(bounds[0].get_xdata()) == [0.25, 0.5]
    said = texts(figure).replace("\n", " ")
    assert "net, smoothing: certified, a lower bound" in said and "is an upper bound" in said
    assert "100 draws, each certificate wrong with a probability of at most 0.001" in said
    assert "certified radii are at most 0.375 (sigma 0.25, 100 draws): beyond that 0% is by const" in said
    # The number under attack is where it was.
    values = {tuple(line.get_ydata()) for line in axes.get_lines() if line not in bounds}
    assert (100.0, 100.0) in values and (50.0, 50.0) in values
    linf = [replace(one, norm="linf") for one in plain]
    assert "certified" not in texts(draw("curves", [results_of([*linf, *smoothed()[2:]])], Choice()))


def test_a_certificate_that_an_attack_contradicts_is_not_drawn() -> None:
    *cells, certificates = smoothed()
    sure = replace(certificates, examples=40, rows=[{"radius": 0.9}] * 40, alpha=1e-9)
    broken = [replace(one, examples=40, rows=rows(30, 40)) for one in cells]
    figure = draw("curves", [results_of([*broken, sure])], Choice())
    assert not [line for line in figure.axes[0].get_lines() if line.get_marker() == "v"]
    assert "certified, wrong, no number: net, smoothing" in texts(figure).replace("\n", " ")


def test_training_draws_a_network_once() -> None:
    some = [*cells(), *cells(defence="jpeg")]
    victims = dict.fromkeys(cell.victim_id for cell in some)
    history = [
        {"victim_id": victim, "epoch": epoch, "phase": "head" if epoch < 3 else "fine_tune",
         "loss": 2.0 / epoch, "accuracy": 0.2 * epoch,
         "validation_loss": None, "validation_accuracy": 0.1 * epoch}
        for victim in victims
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    same = [{"victim_id": victim, "weights": "same"} for victim in victims]
    figure = draw("training", [results_of(some, history=history, victims=same)], Choice())
    assert "jpeg" not in texts(figure) and "dotted: from head to fine_tune" in texts(figure)
    found = lines(figure, PALETTE[0])
    assert_allclose(found[0], [(1, 2), (2, 1), (3, 2 / 3)])
    assert_allclose(found[2], [(1, 20), (2, 40), (3, 60)])
    with pytest.raises(UserError, match="all are used as they are"):
        draw("training", [results_of(some)], Choice())


def test_training_says_of_which_images_its_numbers_are() -> None:
    """A defence that alters images has its accuracy measured on clean ones after the epoch, and its loss is
    another than the validation's."""
    plain, altered = Cell(), Cell(defence="adversarial_training (epsilon=0.1)")
    row = {"phase": "scratch", "loss": 2.0, "accuracy": 0.5, "validation_loss": 1.0,
           "validation_accuracy": 0.4}  # fmt: skip
    attacked = {"adversarial_accuracy": 0.3, "validation_adversarial_accuracy": 0.2}
    history = [
        {**row, **more, "victim_id": cell.victim_id, "epoch": epoch}
        for cell, more in ((plain, {}), (altered, attacked))
        for epoch in (1, 2)
    ]
    victims = [{"victim_id": cell.victim_id, "weights": cell.defence} for cell in (plain, altered)]
    of = {"history": history, "victims": victims}
    alone = texts(draw("training", [results_of([plain], **of)], Choice()))
    assert "training accuracy: of training images as the epoch went" in alone.replace("\n", " ")
    assert "clean training images" not in alone and "under attack" not in alone
    figure = draw("training", [results_of([plain, altered], **of)], Choice())
    assert faults(figure) == []
    said = texts(figure).replace("\n", " ")
    assert (
        "training accuracy of resnet50_v2, adversarial_training (epsilon=0.1): of up to 1,024 clean" in said
    )
    assert "training accuracy of the others" in said and "not to be held against the validation loss" in said
    assert [line[0, 1] for line in lines(figure, PALETTE[1])][-4:] == pytest.approx([50, 30, 40, 20])


def test_looks_tell_apart_without_colour() -> None:
    series = [(f"m{i}", f"d{j}") for i in range(11) for j in range(6)]
    found = looks(series)
    assert len({(look.marker, look.dashes) for look in found.values()}) == len(series)
    assert len(set(PALETTE)) == 7 and len(set(MARKERS)) == 11 and len(set(DASHES)) == 6
    alone = looks([("m", f"d{j}") for j in range(4)])
    assert [len(set(part)) for part in zip(*alone.values(), strict=True)] == [4, 4, 4]
    assert all(contrast(colour, "white") > 1.9 for colour in PALETTE)


@given(st.integers(0, 500), st.integers(1, 500))
@settings(deadline=None, max_examples=25)
def test_intervals_are_those_of_the_views(successes: int, n: int) -> None:
    k = min(successes, n)
    sql = ", ".join(_wilson(sign, str(k), str(n)) for sign in "-+")
    assert_allclose(wilson(k, n), duckdb.sql(f"SELECT {sql}").fetchall()[0], atol=1e-12)


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=80))
@settings(deadline=None, max_examples=20)
def test_wrapping_loses_no_letter(text: str) -> None:
    assert "".join(wrapped(text, 0.5, 7)).replace(" ", "") == text.replace(" ", "")


def test_files_by_their_ends_and_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    sweep = [results_of(cells())]
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for form, begin in begins.items():
        path = tmp_path / f"x.{form}"
        save(draw("curves", sweep, Choice()), str(path))
        data = path.read_bytes()
        assert data.startswith(begin)
        assert data == image_bytes(draw("curves", sweep, Choice()), form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pdf", "x.png", "x.svg"]
    with pytest.raises(
        UserError, match=r'--out: found "x.gif"; a name that ends in .png, .svg, .pdf is allowed'
    ):
        save(draw("curves", sweep, Choice()), str(tmp_path / "x.gif"))


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    before = dict(mpl.rcParams)
    draw("curves", [results_of(cells())], Choice())
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("kind", "choice", "message"),
    [
        ("curve", {}, 'no figure "curve"; did you mean "curves"?'),
        ("curves", {"epsilon": 0.1}, "--epsilon means nothing to curves"),
        ("heatmap", {"epsilon": 0.15}, "--epsilon: found 0.15; there are: 0, 0.05, 0.1, 0.2"),
        ("curves", {"wanted": {"attack": ["fgsn"]}}, '--attack: found "fgsn"; did you mean "fgsm"?'),
        ("curves", {"width": 1.0}, "--width: found 1; 2.5 to 40 inches"),
    ],
)
def test_bad_input_is_one_clear_error(kind: str, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        draw(kind, [results_of(cells())], Choice(**choice))
    assert message in str(caught.value)


def test_from_python_and_in_notebooks() -> None:
    from orchestrator.plots import Plots

    plot = Plots(lambda use: use([results_of(cells())]))
    figure = plot.curves(dataset="mnist", width=3.3)
    assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert isinstance(plot.heatmap(epsilon=0.1), Figure)
    methods = {name for name in vars(Plots) if not name.startswith("_")}
    assert methods == {kind.replace("-", "_") for kind in KINDS} and all(
        name in repr(plot) for name in methods
    )
    assert isinstance(robustsweep.Plots, type)


def test_python_speaks_of_arguments(tmp_path: Path) -> None:
    sweep = Plots(lambda use: use([results_of(cells())]))
    for draws, message in (
        (lambda: sweep.curves(attack="fgms"), 'attack=: found "fgms"; did you mean "fgsm"?'),
        (lambda: sweep.heatmap(epsilon=0.15), "epsilon=: found 0.15; there are: 0"),
        (lambda: sweep.curves(width=1), "width=: found 1; 2.5 to 40 inches"),
        (lambda: sweep.curves(by="colour"), 'by=: found "colour"; '),
    ):
        with pytest.raises(ValueError) as caught:
            draws()
        assert str(caught.value).startswith(message) and isinstance(caught.value, UserError)


def test_a_figure_imports_neither_tensorflow_nor_ray(tmp_path: Path) -> None:
    output, drawn = tmp_path / "out", tmp_path / "x.svg"
    code = (
        "import sys; from pathlib import Path; from tests.support.sweeps import sweep, write_grid\n"
        f"sweep(write_grid(Path({str(tmp_path / 'g.yaml')!r})), {str(output)!r})"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True)
    code = (
        "import sys, orchestrator.cli\n"
        f"sys.argv = ['robustsweep', 'figure', 'curves', {str(output)!r}, '-o', {str(drawn)!r}]\n"
        "try:\n    orchestrator.cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'tensorflow', 'keras', 'ray', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True)
    assert drawn.read_bytes().startswith(b"<?xml")
