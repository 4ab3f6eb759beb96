"""`robustsweep report`: what the page says is what the tables say, and it stands alone."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import robustsweep
from orchestrator.cli import app
from orchestrator.grid.load import load_grid
from orchestrator.report import answer, gallery
from orchestrator.report.beside import certified, quality
from orchestrator.report.contest import contests
from orchestrator.report.facts import Facts, gather
from orchestrator.report.page import as_json, content, write_report
from orchestrator.report.sections import comparison, per_class, training, worst_cases
from orchestrator.report.series import series
from orchestrator.report.steps import step_curves
from orchestrator.report.visible import perceptibility
from orchestrator.results.attacked import chosen_attacks
from orchestrator.results.per_class import class_records
from orchestrator.results.schemas import Results
from orchestrator.results.text import quality as quality_words
from orchestrator.results.text.base import shown
from orchestrator.results.wilson import wilson
from tests.support.browser import Watched, needs_chromium, opened, running
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from tests.test_opened import keep_images

N = 200
EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&amp;"


def cell(broken: int, *, wrong: int = 10, epsilon: float = 0.1, **values: Any) -> Cell:
    """A cell of `N` examples, `wrong` of which are answered wrongly, and the first `broken` of the others
    broken."""
    success = {"success": True, "distance": epsilon / 2}
    rows: list[dict[str, Any]] = [{"label": i % 3} for i in range(N)]
    for i, row in enumerate(rows):
        row |= {"clean_correct": False} if i >= N - wrong else success if i < broken else {}
    return Cell(epsilon=epsilon, examples=N, rows=rows, **values)


def facts_of(*cells: Cell, **others: Any) -> Facts:
    return gather({}, [results_of(cells, **others)], ())


def said(*cells: Cell, **others: Any) -> str:
    """Which is the best, in words."""
    facts = facts_of(*cells, **others)
    (contest,) = contests(facts.tables)
    return " ".join(answer.best(contest, facts.known))


# -- the answer ----------------------------------------------------------------------------------------------


def test_the_best_is_named_with_its_test_and_a_tie_is_called_one() -> None:
    text = said(
        *(cell(broken, model="a", epsilon=epsilon) for epsilon, broken in ((0.1, 40), (0.2, 150))),
        *(cell(broken, model="b", epsilon=epsilon) for epsilon, broken in ((0.1, 100), (0.2, 152))),
    )
    assert "at epsilon 0.1, a is the most robust under fgsm; at epsilon 0.2, the highest are tied" in text
    assert "a keeps 75.0% [68.6, 80.5] under fgsm, b 45.0%" in text
    assert "60 hold for the former alone and 0 for the latter alone: +30.0 points" in text
    assert "exact McNemar test p < 0.0001" in text


def test_what_cannot_be_told_is_not_called_a_tie() -> None:
    high, low = cell(40, model="a"), cell(150, model="b")
    hole = replace(low, rows=dict(list(low.positions().items())[:50]))
    assert (
        "it cannot be told which is the most robust, since not all numbers are there (partial 50/200)"
        in said(high, hole)
    )
    assert "a is the most robust" not in said(high, hole)
    other = said(high, replace(low, attack="bim"))
    assert "they were not attacked alike" in other and "is the most robust under" not in other
    # The highest number is of a model that has learnt nothing, so that it says nothing.
    weak = [
        {"victim_id": one.victim_id, "test_accuracy": accuracy, "chance": 0.5}
        for one, accuracy in ((high, 0.51), (low, 0.9))
    ]
    assert "since the highest is suspicious (victim_weak)" in said(high, low, victims=weak)


def test_images_made_against_others_may_turn_the_order_round() -> None:
    a, b = cell(40, model="a"), cell(100, model="b")
    on_b = cell(20, model="b", source=a)

    def both(broken: int) -> Facts:
        return facts_of(a, b, cell(broken, model="a", source=b), on_b)

    facts = both(130)  # a keeps 75% under its own attack, 30% under images made against b
    (contest,) = contests(facts.tables)
    (text,) = answer.best(contest, facts.known)
    assert "it cannot be told which is the most robust, since images made against other victims" in text
    facts = both(50)
    (contest,) = contests(facts.tables)
    _, telling = answer.best(contest, facts.known)
    assert "Where images made against other victims count too, they keep 70.0%" in telling


def test_what_images_made_against_others_break_is_said_together_with_what_own_attacks_do() -> None:
    plain = cell(10)
    own = cell(40, defence="jpeg")
    others = [{"success": 100 <= i < 150, "distance": 0.05} if 100 <= i < 150 else {} for i in range(N)]
    tried = replace(
        own,
        source=plain,
        rows=[{**row, "success": False, **more} for row, more in zip(own.rows, others, strict=True)],
    )
    (text,) = [one.text for one in answer.distrust(facts_of(plain, own, tried)) if "falls to" in one.text]
    # 70% are left by these images alone, of the same model: in no number here.
    assert text.startswith(
        "resnet50_v2 with jpeg on mnist falls to images made against other victims too: at linf 0.1 its own "
        "attacks leave 75.0% [68.6, 80.5], together with those images 50.0% ["
    )


def test_where_each_breaks_says_what_lies_between() -> None:
    facts = facts_of(
        *(cell(broken, epsilon=epsilon) for epsilon, broken in ((0.05, 20), (0.3, 180))),
        Cell(epsilon=0.1, examples=N),
    )
    (contest,) = contests(facts.tables)
    (text,) = answer.breaking(contest)
    assert text.startswith(
        "resnet50_v2 falls below half between epsilon 0.05 (85.0% [79.4, 89.3]) and 0.3 (5.0%"
    )
    assert text.endswith("under fgsm; missing at 0.1")
    (contest,) = contests(facts_of(cell(20), cell(93, epsilon=0.2)).tables)
    assert "(one of these intervals includes half)" in answer.breaking(contest)[0]
    (contest,) = contests(facts_of(cell(88)).tables)
    assert "keeps at least half up to epsilon 0.1 (51.0%" in answer.breaking(contest)[0]


def test_oblivious_and_targeted_numbers_sum_no_model_up() -> None:
    flattering = cell(0, adaptive=False)
    aimed = cell(0, attack="pgd", targeted=True, attack_options="targeted=True")
    facts = facts_of(flattering, aimed)
    (contest,) = contests(facts.tables)
    assert contest.rows == [] and "nothing sums a model up" in answer.best(contest, facts.known)[0]
    texts = [one.text for one in answer.distrust(facts)]
    assert any("(oblivious)" in text for text in texts) and any("(targeted)" in text for text in texts)
    assert per_class(facts)["entries"] == [] and comparison(facts)["rows"] == []


def test_a_wrong_number_is_nowhere_in_the_page() -> None:
    wrong = cell(37, epsilon=0.0, attack="bim")  # nothing can be broken there
    facts = facts_of(wrong, cell(60, epsilon=0.1, attack="bim"))
    sections, drawn = content(facts)
    # But where it is said what is wrong with it.
    shown = re.sub(
        r"<li><span class=\"badge wrong\">.*?</li>|<section id=\"checks\".*?</section>",
        "",
        sections,
        flags=re.S,
    )
    for number in ("76.5", "0.765"):  # (200 - 10 - 37) / 200
        assert number not in shown and number not in drawn
    assert "65.0%" in shown and "epsilon_zero" in sections and ">wrong" in shown


def test_pairs_are_tested_as_compare_tests_them() -> None:
    a, b, c = (cell(broken, model=name) for name, broken in (("a", 40), ("b", 60), ("c", 61)))
    rows = {(row["first"], row["second"]): row for row in comparison(facts_of(a, b, c))["rows"]}
    assert rows.keys() == {("a", "b"), ("a", "c"), ("b", "c")}
    assert rows["a", "b"]["shown"].startswith("-10.0 [") and rows["a", "b"]["result"] == "worse"
    assert rows["b", "c"]["result"] == "tied"
    hole = replace(c, rows={})
    assert {row["result"] for row in comparison(facts_of(a, hole))["rows"]} == {"not compared"}


def test_of_nothing_and_of_damaged_records_there_is_a_page_too() -> None:
    assert "No cell was asked for." in content(facts_of()).body
    page = content(facts_of(cell(0), victims=[{"victim_id": cell(0).victim_id, "model": "m"}])).body
    assert "resnet50_v2 on mnist" in page and "not recorded" in page
    only = content(facts_of(Cell(examples=N))).body
    assert "0 of 1 cells are done; 1 missing." in only and "resnet50_v2 has no number; missing at 0.1" in only


def test_a_worst_case_is_of_the_attacks_that_count_for_it() -> None:
    oblivious = cell(5, attack="pgd", adaptive=False)
    facts = facts_of(cell(40), cell(50, attack="pgd"), oblivious)
    ((row,),) = [table["rows"] for table in worst_cases(facts)]
    assert row["of"] == "fgsm, pgd"


def test_cells_are_counted_as_plans_count_them() -> None:
    plain, other = cell(10), cell(20, model="b")
    certificates = Cell(
        attack="certify", norm="l2", sigma=0.25, n0=10, draws=100, alpha=0.001, epsilon=0.0, examples=N
    )
    facts = facts_of(plain, other, cell(5, source=other), cell(5, model="b", source=plain), certificates)
    *_, many, done = answer.asked(facts)
    assert many.startswith("5 cells (2 of attacks, 2 of transfers, 1 of certificates), on the first 200 ")
    assert done == "4 of 5 cells are done; 1 missing."
    assert "1 cell of 5 without a number: shown as holes" in [one.text for one in answer.distrust(facts)]
    *_, many, done = answer.asked(facts_of(plain, other))
    assert many.startswith("2 cells, on") and done == "All 2 cells are done."


def test_certificates_are_of_labels_and_say_how_far_they_can_reach() -> None:
    labels = {"model_label": "Small", "dataset_label": "Digits", "defence_label": "Noise"}
    victim = {"model": "small_cnn", "dataset": "digits", "defence": "smoothing"}
    certificates = Cell(
        **victim,
        attack="certify",
        norm="l2",
        sigma=0.25,
        n0=10,
        draws=200,
        alpha=0.001,
        epsilon=0.0,
        examples=N,
        rows=[{"radius": 0.4}] * N,
    )
    found = certified(facts_of(cell(10, **victim, **labels, norm="l2", epsilon=0.5), certificates))
    assert found["caption"].startswith("dataset Digits; model Small; defence Noise; certified: ")
    # 0.25 Phi^-1(0.001^(1/200)) = 0.25 * 1.8257
    assert "radii are at most 0.456 (sigma 0.25, 200 draws): beyond that 0%" in found["caption"]


def test_a_label_of_no_defence_is_in_sentences_too() -> None:
    text = said(cell(40, defence_label="undefended"), cell(150, defence="jpeg", defence_label="J"))
    assert "resnet50_v2 (undefended) is the most robust" in text and "resnet50_v2 with J " in text


def test_every_network_is_trained_by_itself() -> None:
    of = {"plain": cell(1), "jpeg": cell(2, defence="jpeg"), "hard": cell(3, defence="adversarial_training")}
    of["again"] = cell(4, seed=1)
    # A defence at inference has the network of the victim without any.
    weights = {"plain": "00", "jpeg": "00", "hard": "11", "again": "22"}
    known = [{"victim_id": one.victim_id, "weights": weights[name]} for name, one in of.items()]
    history = [
        {"victim_id": of[name].victim_id, "epoch": epoch, "accuracy": accuracy, "phase": "scratch"}
        for name, accuracy in (("plain", 0.9), ("jpeg", 0.9), ("hard", 0.5), ("again", 0.7))
        for epoch in (1, 2)
    ]
    found = training(facts_of(*of.values(), victims=known, history=history))
    assert [(one["victim"], one["epoch"], one["value"]) for one in found] == [
        ("resnet50_v2 on mnist", 1, 90.0),
        ("resnet50_v2 on mnist", 2, 90.0),
        ("resnet50_v2 on mnist with adversarial_training", 1, 50.0),
        ("resnet50_v2 on mnist with adversarial_training", 2, 50.0),
        ("resnet50_v2 on mnist, seed 1", 1, 70.0),
        ("resnet50_v2 on mnist, seed 1", 2, 70.0),
    ]


def test_classes_add_up_to_the_whole() -> None:
    facts = facts_of(cell(60), cell(80, attack="bim"))
    (entry,) = per_class(facts)["entries"]
    assert len(entry["numbers"]) == 3 and sum(n for _, n, *_ in entry["numbers"]) == N
    kept = sum(value * n for value, n, *_ in entry["numbers"]) / N
    assert kept == pytest.approx(100 * (N - 10 - 80) / N, abs=0.1)  # of the worst case
    assert all(low <= value <= high for value, _, low, high in entry["numbers"])


def test_classes_are_those_of_the_table_of_classes_also_over_seeds() -> None:
    """Of two seeds the intervals are averaged, as everywhere; pooled ones would look twice as sure."""
    results = results_of([cell(60), cell(90, seed=1)])
    (entry,) = per_class(gather({}, [results], ()))["entries"]
    records, _ = class_records([results], {})
    names = ("accuracy", "n", "low", "high")
    told = [[row[name] for name in names] for row in records.to_pylist()]
    assert entry["numbers"] == [
        [round(100 * a, 1), n, *(round(100 * e, 1) for e in ends)] for a, n, *ends in told
    ]
    low, high = entry["numbers"][0][2:]
    assert high - low > 1.3 * (wilson(40, 134)[1] - wilson(40, 134)[0]) * 100


def nearest(distances: Sequence[float], **values: Any) -> list[Cell]:
    """Cells of a minimum-norm attack at 0.1 and 0.2: by example the distance of its nearest image; -1: the
    model is wrong about it."""

    def row(distance: float, epsilon: float) -> dict[str, Any]:
        if distance < 0:
            return {"clean_correct": False}
        found = distance <= epsilon
        return {"success": found, "distance": distance if found else np.inf, "nearest": distance}

    return [
        Cell(
            attack="deepfool",
            minimum_norm=True,
            epsilon=epsilon,
            examples=len(distances),
            **{"rows": [row(distance, epsilon) for distance in distances], **values},
        )
        for epsilon in (0.1, 0.2)
    ]


def test_a_minimum_norm_attack_is_drawn_by_its_distances_and_not_straight_between_epsilons() -> None:
    """All that 0.1 leaves falls at 0.11; a straight line would promise 40% at 0.15."""
    distances = [-1, 0.04, *[0.11] * 7, np.inf]
    facts = facts_of(*nearest(distances), *(cell(60, epsilon=epsilon) for epsilon in (0.1, 0.2)))
    drawn = step_curves(facts)
    (curve,) = drawn["curves"].values()
    assert drawn["within"] == 0 and curve[0][:2] == [0.0, 90.0]
    for x in (0.0, 0.03, 0.05, 0.1, 0.12, 0.15, 0.2):
        at = max((step for step in curve if step[0] <= x), key=lambda step: step[0])
        assert at[1] == 100 * np.mean(np.array(distances) > x)
    rows = series(facts.tables)
    number = next(iter(drawn["curves"]))
    assert rows["rows"][number]["attack"] == "deepfool"
    ends = {epsilon: value for row, epsilon, _, value, *_ in rows["entries"] if row == number}
    assert ends == {0.1: 80.0, 0.2: 10.0}, "the numbers of the tables lie on it"
    # Where a check calls one of its numbers wrong, or not all examples were looked at, there is no curve.
    lost = [{"success": True, "distance": 0.9, "nearest": 0.9}] * 10
    assert step_curves(facts_of(*(replace(one, rows=lost) for one in nearest(distances))))["curves"] == {}
    short = [replace(one, examples=20) for one in nearest(distances)]
    assert step_curves(facts_of(*short))["curves"] == {}


def test_of_very_many_steps_some_are_left_out_and_how_many_points_that_is_is_said() -> None:
    rng = np.random.default_rng(0)
    distances = rng.uniform(0, 0.3, 3000)
    drawn = step_curves(facts_of(*nearest(distances.tolist())))
    (curve,) = drawn["curves"].values()
    assert len(curve) <= 1001 and drawn["within"] == 0.1
    at = np.array([step[0] for step in curve])
    for x in rng.uniform(0, 0.2, 200):
        drawn_share = curve[int(np.searchsorted(at, x, side="right")) - 1][1]
        assert -0.05 <= drawn_share - 100 * np.mean(distances > x) <= 0.1 + 0.05


def test_visibility_is_of_attacks_with_a_budget_and_says_why_there_is_no_ssim() -> None:
    seen = {"ssim": 0.9, "full_l2": 1.5}
    cells = [
        Cell(epsilon=0.1, examples=4, rows=[seen, {**seen, "ssim": 0.7}, {}, {}]),
        Cell(epsilon=0.1, examples=4, dataset="digits", rows=[{"full_l2": 0.5}] * 4),
        *nearest([0.15] * 4),
        Cell(epsilon=0.2, examples=8, rows=[seen] * 4),
        Cell(epsilon=0.1, examples=4, attack="pgd", targeted=True, rows=[seen] * 4),
    ]
    found = perceptibility(facts_of(*cells))
    shown = [(row["keys"]["dataset"], row["ssim_text"], row["l2_text"], row["n"]) for row in found["rows"]]
    assert shown == [("mnist", "0.800", "1.5", "2"), ("digits", "–", "0.5", "4")], "of a hole nothing is said"
    assert found["left_out"] and found["small"]
    body = content(facts_of(*cells)).body
    assert "Below 11 pixels there is" in body and "minimum-norm attacks spend what they need" in body
    assert "Below 11 pixels" not in content(facts_of(*cells[:1])).body
    assert 'id="visible"' not in content(facts_of(*nearest([0.15] * 4))).body


def test_the_quality_of_attacks_is_that_of_their_table() -> None:
    cells = [cell(60, attack_label="FGSM"), cell(80, attack="bim")]
    found = quality(facts_of(*cells))
    rows, _ = chosen_attacks([results_of(cells)], {})
    columns = quality_words.columns(rows)
    assert [[text for text, _ in row["cells"]] for row in found["rows"]] == [
        [shown(value) for value in row] for row in columns.rows
    ]
    assert [row["keys"]["attack"] for row in found["rows"]] == ["FGSM", "bim"]
    assert {"optimality", "gradient"} <= {name for name, _ in found["names"]} and "AttackBench" in found[
        "caption"
    ]


# -- the file ------------------------------------------------------------------------------------------------


def test_data_in_a_script_ends_no_script() -> None:
    text = as_json({"</script><!--": "\u2028", "nan": float("nan")})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script><!--": "\u2028", "nan": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that has kept images, of a model whose label is a script."""
    output = tmp_path_factory.mktemp("outputs") / "kept"
    models = [{"name": "small_cnn", "label": EVIL[:58]}, "wide_cnn"]
    grid = {"name": "kept", "models": models, "datasets": ["digits"], "attacks": ["fgsm", "bim"]}
    sweep(
        load_grid({**grid, "epsilons": [0, "8/255", 0.1, 0.2], "examples": 60}),
        output,
        runner="tests.support.runners:MadeUp",
    )
    keep_images(output)
    return output


def test_the_command_writes_a_page_without_tensorflow_or_ray(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    script = (
        f"import sys; sys.argv = ['robustsweep', 'report', {str(folder)!r}, '-o', {str(path)!r}]\n"
        "import orchestrator.cli\ntry:\n    orchestrator.cli.main()\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint({'tensorflow', 'keras', 'ray'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"
    assert run.stdout.startswith(f"wrote {path} (")
    assert path.read_text().startswith("<!doctype html>")


def test_bad_input_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([str(tmp_path / "none")], "no such output folder"),
        ([str(folder), "-o", str(tmp_path)], "is a folder; the name of a file is needed"),
        ([str(folder), "-o", str(tmp_path / "none" / "x.html")], "cannot write"),
    ):
        result = CliRunner().invoke(app, ["report", *arguments])
        assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_kept_images_are_in_the_page_as_far_as_they_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_sweep = robustsweep.open(folder)
    facts = gather(opened_sweep._stores, opened_sweep._results, ())
    found = gallery.gallery(facts)
    groups = [group for _, groups in found["victims"] for group in groups]
    assert len(groups) == 4 and found["left_out"] == 0
    assert {group["at"] for group in groups} == {"linf 8/255"}  # the smallest that has as many as any
    for image in (image for group in groups for image in group["images"]):
        assert image["scale"] == 10  # the most that keeps 8/255 about grey within black and white
        clean, change, after = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(image[name])))).astype(float)
            for name in ("clean", "change", "adversarial")
        )
        # A change of d is drawn as 0.5 + 10 d; each image is rounded to 8 bits.
        assert np.abs(change - (127.5 + 10 * (after - clean))).max() <= 10.5
        assert abs(change.max() - (127.5 + 10 * 8)) <= 0.5
        assert re.fullmatch(r"\d \(90%\)", image["before"])
        assert image["after"] == f"{(int(image['label']) + 1) % 10} (70%)"
    monkeypatch.setattr(gallery, "BYTES", 1)
    assert gallery.gallery(facts)["left_out"] == sum(len(group["images"]) for group in groups) - 1


# -- in a browser --------------------------------------------------------------------------------------------


def test_images_that_were_kept_without_their_clean_ones_are_counted_and_not_shown() -> None:
    image = {"image": bytes(4), "image_shape": [2, 2, 1], "adv_label": 1, "adv_confidence": 0.5}
    whole, damaged = cell(2), cell(3, attack="bim")
    for one, more in ((whole, {"clean_image": bytes(4)}), (damaged, {})):
        for row in list(one.positions().values())[: 2 if one is whole else 3]:
            row |= image | more  # type: ignore[operator]
    found = gallery.gallery(facts_of(whole, damaged))
    ((_, (group,)),) = found["victims"]
    assert group["title"] == "fgsm" and len(group["images"]) == 2 and found["unclean"] == 3
    assert "3 were kept without their clean images" in content(facts_of(damaged)).body


@pytest.mark.parametrize(
    ("largest", "scale"), [(0, 1), (1, 0.5), (0.6, 0.5), (0.5, 1), (0.1, 5), (8 / 255, 10), (1e-9, 5000)]
)
def test_perturbations_are_drawn_as_large_as_they_fit(largest: float, scale: float) -> None:
    assert gallery._scale(float(np.float32(largest))) == scale


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running() as found:
        yield found


def shown_cells() -> Sequence[Cell]:
    """Two models, one of an evil name; a hole; a number that is wrong."""
    return [
        *(cell(20 + 30 * i, epsilon=0.05 * (i + 1), model=EVIL, attack="fgsm") for i in range(4)),
        *(cell(21 + 30 * i, epsilon=0.05 * (i + 1), model=EVIL, attack="bim") for i in range(4)),
        *(cell(60 + 30 * i, epsilon=0.05 * (i + 1), model="plain", attack="fgsm") for i in range(4)),
        *(cell(62 + 30 * i, epsilon=0.05 * (i + 1), model="plain", attack="bim") for i in range(3)),
        Cell(epsilon=0.2, model="plain", attack="bim", examples=N),
        cell(37, epsilon=0.0, model="plain", attack="fgsm"),
    ]


def made_up_results() -> Results:
    history = [
        {"victim_id": shown_cells()[0].victim_id, "epoch": i, "accuracy": 0.3 * i, "phase": "scratch"}
        for i in (1, 2, 3)
    ]
    failures = [
        {"victim_id": "v", "unit": EVIL, "error": EVIL, "traceback": EVIL, "final": True, "at": "2030"}
    ]
    known = [
        {"victim_id": one.victim_id, "model": one.model, "weights": f"{one.model:.1}0" * 32, "parameters": 1}
        for one in (shown_cells()[0], shown_cells()[-1])
    ]
    return results_of(shown_cells(), history=history, failures=failures, victims=known, sweep=EVIL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(lambda: gather({}, [made_up_results()], [EVIL]), str(path))
    return path.as_uri()


def draw(watched: Watched) -> None:
    watched.page.evaluate("window.report.drawAll()")


def healthy(watched: Watched, own: str) -> None:
    """No error, no warning, no request elsewhere, and no name that has run."""
    assert watched.said == [] and watched.elsewhere(own) == []
    assert watched.page.evaluate("window.hacked") is None
    assert (
        watched.page.locator("script").count() == 3 and watched.page.locator("main img[src=x]").count() == 0
    )


@needs_chromium
def test_a_page_in_a_browser_filters_sorts_and_hovers(browser: Any, page: str) -> None:
    with opened(browser, page) as watched:
        look = watched.page
        draw(watched)
        healthy(watched, page)
        assert EVIL in look.inner_text("#tables") and EVIL in look.inner_text("#failures")
        assert len(watched.texts("table.robustness tbody tr")) == 6

        # Filters hide rows of tables and lines of charts, and say so.
        look.click("details.filter[data-key=model] summary")
        look.get_by_role("checkbox", name=EVIL).uncheck()
        assert look.inner_text("#shown") == "3 of 6 rows shown"
        assert all("plain" in text for text in watched.texts("table.robustness tbody tr"))
        assert look.inner_text("#legend") == "plain"
        look.keyboard.press("Escape")
        look.click("#reset")
        assert len(watched.texts("table.robustness tbody tr")) == 6

        # Sorting: by number, holes last both ways, and said to who cannot see it.
        head = look.locator("table.robustness th", has_text=re.compile(r"^0\.2$"))
        column = 1 + head.evaluate("head => head.cellIndex")
        for direction in ("ascending", "descending"):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == direction
            texts = watched.texts(f"table.robustness tbody tr > :nth-child({column})")
            numbers = [float(text.partition("%")[0]) for text in texts if "%" in text]
            assert len(numbers) == 4 and numbers == sorted(numbers, reverse=direction == "descending")
            assert texts[-2:] == ["missing", "missing"] or set(texts[-2:]) == {"missing", "incomplete"}

        # A panel for each attack; hovering tells a number, and an evil name is text there too.
        look.select_option("#lines", "models")
        draw(watched)
        assert look.locator("#curve-panels figure").count() == 3
        look.locator("#curve-panels .mark-symbol path").last.hover(force=True)
        look.wait_for_selector("#vg-tooltip-element.visible")
        tip = look.inner_text("#vg-tooltip-element")
        assert EVIL in tip or "plain" in tip
        assert re.search(r"robust accuracy\s+\d+\.\d% \(", tip) and "undefined" not in tip
        look.select_option("#lines", "attacks")
        draw(watched)
        healthy(watched, page)


@needs_chromium
@pytest.mark.parametrize(
    ("width", "options"), [(390, {}), (390, {"color_scheme": "dark"}), (1280, {"color_scheme": "dark"})]
)
def test_a_page_fits_phones_and_follows_the_system_into_the_dark(
    browser: Any, page: str, width: int, options: dict[str, Any]
) -> None:
    with opened(browser, page, width=width, **options) as watched:
        draw(watched)
        healthy(watched, page)
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        ground = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 21, 26)" if options else "rgb(255, 255, 255)")
        # Colours of charts are the page's own.
        ink = watched.page.evaluate(
            "getComputedStyle(document.querySelector('#curve-panels .mark-line path')).stroke"
        )
        assert ink == ("rgb(74, 168, 224)" if options else "rgb(0, 114, 178)")


@needs_chromium
def test_a_page_prints_on_white_with_its_charts(browser: Any, page: str, tmp_path: Path) -> None:
    with opened(browser, page, color_scheme="dark") as watched:
        watched.page.emulate_media(media="print")
        draw(watched)
        ground = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)" and watched.texts("nav, #filters") == []
        assert len(watched.page.pdf(format="A4")) > 10_000
        healthy(watched, page)


@needs_chromium
def test_everything_has_a_name_for_who_cannot_see_it_and_is_reached_by_keys(browser: Any, page: str) -> None:
    with opened(browser, page) as watched:
        draw(watched)
        look = watched.page
        unnamed = look.evaluate(
            """[...document.querySelectorAll('[role=img],[role=region],img,select,button,input,section')]
            .filter(one => !(one.getAttribute('aria-label') || one.alt || one.labels?.length
                || one.textContent || document.getElementById(one.getAttribute('aria-labelledby')))).length"""
        )
        assert unnamed == 0
        levels = look.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(one => +one.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        look.keyboard.press("Tab")
        assert look.evaluate("document.activeElement.textContent") == "Skip to the answer"
        look.focus("details.filter summary")
        look.keyboard.press("Enter")
        assert look.locator("details.filter[open]").count() == 1
        look.keyboard.press("Escape")
        assert look.locator("details.filter[open]").count() == 0


@needs_chromium
def test_a_sweep_of_many_images_in_a_browser(browser: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept.html"
    robustsweep.open(folder).report(path)
    assert os.path.getsize(path) < 2_000_000
    with opened(browser, path.as_uri()) as watched:
        draw(watched)
        healthy(watched, path.as_uri())
        wide = watched.page.evaluate("[...document.images].map(one => one.naturalWidth)")
        assert len(wide) >= 12 and set(wide) == {8}


@needs_chromium
def test_steps_and_visibility_in_a_browser(browser: Any, tmp_path: Path) -> None:
    seen = {"ssim": 0.9, "full_l2": 1.5}
    cells = [
        *nearest([0.04, *[0.11] * 7, np.inf, -1], model=EVIL),
        *(Cell(epsilon=e, examples=4, model=EVIL, rows=[seen] * 4) for e in (0.1, 0.2)),
        *(Cell(epsilon=e, examples=4, dataset="small", rows=[{"full_l2": e}] * 4) for e in (0.1, 0.2)),
    ]
    path = tmp_path / "steps.html"
    write_report(lambda: gather({}, [results_of(cells)], []), str(path))
    with opened(browser, path.as_uri(), width=390) as watched:
        look = watched.page
        look.select_option("#lines", "models")
        draw(watched)
        healthy(watched, path.as_uri())
        assert look.locator("#visible-panels figure").count() == 2
        assert look.locator("#visible-panels .chart").count() == 5
        assert watched.texts("#visible-panels .beside p") == ["no SSIM of images below 11 pixels"]
        panel = look.locator("#curve-panels figure", has_text="deepfool")
        path_of = panel.locator(".mark-line path").first.get_attribute("d")
        corners = [tuple(map(float, pair.split(","))) for pair in re.findall(r"[\d.]+,[\d.]+", path_of or "")]
        assert len(corners) >= 5, path_of
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners)), "right angles alone"
        assert look.evaluate("document.documentElement.scrollWidth") <= 390


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_chart_is_cut_or_looks_like_another(browser: Any, tmp_path: Path, width: int) -> None:
    long = "a_network_of_a_rather_long_name_that_ends_in_"
    attacks = ("attack with a long name, the first", "attack with a long name, the second")
    cells = [cell(20 + 9 * i, model=f"{long}{i}", attack=attack) for i in range(3) for attack in attacks]
    path = tmp_path / "long.html"
    write_report(lambda: gather({}, [results_of(cells)], []), str(path))
    with opened(browser, path.as_uri(), width=width) as watched:
        draw(watched)
        healthy(watched, path.as_uri())
        for panels, names in (("heatmap", 3 + 3), ("difference", 3)):
            found = watched.page.evaluate(
                """place => [...document.querySelectorAll(place)].map(label => {
                    const box = label.getBoundingClientRect();
                    const whole = label.closest('svg').getBoundingClientRect();
                    const inside = box.left >= whole.left - 1 && box.right <= whole.right + 1
                        && box.bottom <= whole.bottom + 1;
                    return [label.textContent.trim(), inside];
                })""",
                f"#{panels}-panels .role-axis-label text",
            )
            texts = [text for text, _ in found if re.search("[a-z]", text)]
            assert len(texts) == len(set(texts)) == names and "…" not in "".join(texts)
            assert all(inside for _, inside in found), found
