"""Robustness tables as a paper has them, and as a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from orchestrator.results.attacked import chosen_attacks
from orchestrator.results.bounds import chosen_certificates
from orchestrator.results.choice import choose, made
from orchestrator.results.matrix import chosen_transfers, matrix
from orchestrator.results.query import run_query
from orchestrator.results.text import certified, quality, text_format, transfer
from orchestrator.results.text.base import Columns
from orchestrator.results.text.latex import escaped
from tests.support.results import Cell, results_of
from workers.certify import radii
from workers.flags import Flag

BROKEN = {"success": True, "distance": 0.001}
WRONG = {"clean_correct": False}
NASTY = "<script>alert(1)</script>_50%&$#{}~^\\|"


def held(robust, broken=0, wrong=0):
    return [{}] * robust + [BROKEN] * broken + [WRONG] * wrong


def cell(robust, broken=0, wrong=0, **values):
    return Cell(rows=held(robust, broken, wrong), examples=robust + broken + wrong, **values)


def tables(*cells, metric="robust_accuracy", **others):
    return made([results_of(cells, **others)], metric)


def latex(*cells, digits=1, **others):
    return text_format("latex", digits=digits).robustness(tables(*cells, **others))


def body(text):
    """The rows of a tabular, as lists of cells."""
    inside = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    return [
        [part.strip() for part in line.strip().removesuffix(r"\\").split(" & ")]
        for line in inside.strip().splitlines()
        if "&" in line
    ]


def test_a_table_has_the_order_the_epsilons_and_the_intervals_of_the_grid():
    cells = [
        cell(robust, 100 - robust, model=model, epsilon=epsilon)
        for model, found in (("wide", (90, 30)), ("small", (90, 30)))
        for epsilon, robust in zip((8 / 255, 0.1), found, strict=True)
    ]
    text = latex(*cells)
    head = next(line for line in text.splitlines() if "varepsilon" in line)
    assert r"$\varepsilon = 8/255$ & $\varepsilon = 0.1$ & $n$ \\" in head
    assert body(text) == [
        ["wide", "none", "fgsm", "100.0", r"90.0\,$\pm$\,7.4", r"30.0\,$\pm$\,9.6", "100"],
        ["small", "none", "fgsm", "100.0", r"90.0\,$\pm$\,7.4", r"30.0\,$\pm$\,9.6", "100"],
    ]
    assert "95\\% Wilson interval" in text and r"\toprule" in text and r"\usepackage{booktabs}" in text
    assert body(latex(cells[0], digits=0))[0][4] == r"90\,$\pm$\,7"


def test_seeds_have_their_deviation_instead_of_the_interval():
    text = latex(*(cell(r, 100 - r, seed=seed) for seed, r in enumerate((40, 50, 60))))
    assert body(text)[0][4:] == [r"50.0\,$\pm$\,10.0", r"100 $\times$ 3 seeds"]
    assert "Mean $\\pm$ SD over training seeds" in text and "Wilson" not in text


def test_best_is_bold_only_where_a_paired_test_says_so():
    far = [cell(90, 10, model="good"), cell(50, 50, model="bad")]
    text = latex(*far)
    assert [row[4].startswith(r"\textbf{") for row in body(text)] == [True, False]
    assert "Bold: better than all others" in text and "McNemar" in text
    near = latex(cell(60, 40, model="good"), cell(58, 42, model="bad"))
    assert r"\textbf" not in near and "tied" in near
    three = latex(*far, cell(89, 11, model="as good"))
    assert r"\textbf" not in three, "better than one of two others is not the best"
    alone = latex(far[0])
    assert r"\textbf" not in alone and "tied" not in alone


def test_best_needs_every_seed_the_same_examples_and_no_doubt():
    def of(model, *robust, **values):
        return [cell(r, 100 - r, model=model, seed=seed, **values) for seed, r in enumerate(robust)]

    assert r"\textbf" in latex(*of("good", 90, 90), *of("bad", 50, 50))
    assert r"\textbf" not in latex(*of("good", 90, 60), *of("bad", 50, 60))
    assert r"\textbf" not in latex(*of("good", 90, 90), *of("bad", 50)), "other seeds"
    good, bad = of("good", 90)[0], of("bad", 50)[0]
    data = [{"victim_id": one.victim_id, "data": name} for one, name in ((good, "x"), (bad, "y"))]
    assert r"\textbf" not in latex(good, bad, victims=data), "other images"
    blind = replace(good, rows=[{"flags": ["zero_gradients"]}] * 90 + [BROKEN] * 10)
    assert r"\textbf" not in latex(blind, bad), "what is masked looks best"


def test_a_hole_or_a_wrong_number_beside_it_leaves_the_question_open():
    far = [cell(90, 10, model="good"), cell(50, 50, model="bad")]
    wrong = [{"success": True, "distance": 0.9}] * 100
    for rows in ((), held(99), wrong):
        assert r"\textbf" not in latex(*far, Cell(model="other", examples=100, rows=rows))
    assert r"\textbf" in latex(*far, Cell(model="other", attack="bim", examples=100))


def test_worst_cases_are_compared_where_they_are_of_the_same_attacks():
    def both(model, robust, attacks):
        return [cell(robust, 100 - robust, model=model, attack=attack) for attack in attacks]

    same = latex(*both("good", 90, ("fgsm", "bim")), *both("bad", 50, ("fgsm", "bim")))
    rows = {(row[0], row[2]): row[4] for row in body(same)}
    assert rows["good", "worst case"].startswith(r"\textbf{")
    other = latex(*both("good", 90, ("fgsm", "bim")), *both("bad", 50, ("fgsm", "pgd")))
    rows = {(row[0], row[2]): row[4] for row in body(other)}
    assert rows["good", "fgsm"].startswith(r"\textbf{")
    assert not rows["good", "worst case"].startswith(r"\textbf{")


def test_holes_are_dashes_with_footnotes_and_a_wrong_number_is_nowhere():
    wrong = [{"success": True, "distance": 0.9}] * 37 + [{}] * 63  # farther away than epsilon
    text = latex(
        cell(90, 10),
        Cell(epsilon=0.2, examples=100, rows=held(30)),
        Cell(epsilon=0.3, examples=100),
        Cell(epsilon=0.4, examples=100, rows=wrong),
        cell(90, 10, attack="bim"),
    )
    (first, second, *_) = body(text)
    assert [entry.partition("\\")[0] for entry in first[5:8]] == ["--"] * 3
    assert "63" not in first[7] and "wrong" in text
    notes = dict(re.findall(r"\\textsuperscript\{(\w)\}\\,([^.]*)", text))
    marks = [re.fullmatch(r"--\\textsuperscript\{(.)\}", entry)[1] for entry in first[5:8]]
    assert [notes[mark].split()[0] for mark in marks] == ["partial", "missing", "wrong:"]
    assert notes[re.search(r"\{(.)\}", second[5])[1]] == "not in the grid"


def test_marks_are_explained_below():
    text = latex(Cell(examples=100, rows=[{"flags": ["zero_gradients"]}] * 90 + [BROKEN] * 10))
    (row,) = body(text)
    letters = re.search(r"\\textsuperscript\{([^}]*)\}", row[0])[1].split(",")
    notes = dict(re.findall(r"\\textsuperscript\{(\w)\}\\,(\w+)", text))
    assert {notes[letter] for letter in letters} == {"suspicious"}
    assert "§" not in text


def test_a_targeted_number_is_named_and_another_metric_too():
    options = {"attack_options": "targeted=True", "targeted": True}
    text = latex(cell(90, 10, **options))
    assert "fgsm (targeted)" in text and "which is no robust accuracy" in text
    text = latex(cell(90, 10), metric="attack_success_rate")
    assert "attack success rate by epsilon, in percent" in text and body(text)[0][4] == "10.0"
    text = latex(cell(90, 10), metric="forward_calls")
    assert "images put through the model by epsilon." in text and body(text)[0][4] == "300"


def test_what_people_name_means_itself():
    assert escaped("a_b & 50% {x} <|> ~^\\ ×±ε") == (
        r"a\_b \& 50\% \{x\} \textless{}\textbar{}\textgreater{} \textasciitilde{}\textasciicircum{}"
        r"\textbackslash{} $\times$$\pm$$\varepsilon$"
    )
    text = latex(cell(9, 1, model=NASTY))
    assert "<script>" not in text and r"\textless{}script\textgreater{}" in text


def test_any_answer_is_a_table_too():
    answer = run_query(results_of([cell(9, 1)]), "SELECT 'a_b' AS \"c_d\", 1 AS one, NULL AS none")
    text = text_format("latex").columns(Columns.of(answer))
    assert r"c\_d & one & none \\" in text and r"a\_b & 1 & -- \\" in text


def _beside() -> str:
    """The tables of transfers, of certificates and of attacks: marks, a hole, names of every kind."""
    blind = [{"flags": ["zero_gradients"]}] * 100
    a, b = cell(50, 50, model=NASTY), Cell(model="naïve", examples=100, rows=blind)
    behind = cell(60, 40, model=NASTY, defence="jpeg (quality=75)")
    tried = [
        replace(a, source=b, rows=blind),
        replace(b, source=a, rows=held(30)),
        replace(behind, source=a, rows=held(70, 30)),
    ]
    rows, own, _ = chosen_transfers(results_of([a, b, behind, *tried]), {})
    found = matrix(rows, own)
    form = text_format("latex", digits=2)
    texts = [form.captioned(transfer.columns(found, 2), transfer.caption(found))]
    smooth = {"model": NASTY, "defence": "smoothing (sigma=0.25)", "norm": "l2", "examples": 100}
    certificates = [
        *(Cell(**smooth, epsilon=epsilon, rows=held(70, 20, 10)) for epsilon in (0.25, 1.5)),
        Cell(
            **smooth,
            attack="certify",
            epsilon=0.0,
            sigma=0.25,
            n0=100,
            draws=10_000,
            alpha=0.001,
            rows=[{"radius": 0.3}] * 60 + [{"radius": None}] * 40,
        ),
    ]
    bounds, _ = chosen_certificates(results_of(certificates), {})
    texts.append(form.captioned(certified.columns(bounds, 2), certified.caption(bounds)))
    attacks, _ = chosen_attacks(results_of([a, replace(a, attack="bim", attack_label="B_{10}%")]), {})
    texts.append(form.captioned(quality.columns(attacks, 2), quality.caption(attacks)))
    assert all(texts) and "-- & 30/100" not in texts[0] and r"\S" in texts[0]
    return "\n".join(map(str, texts))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no TeX here")
def test_a_table_compiles(tmp_path: Path) -> None:
    wrong = [{"success": True, "distance": 0.9}] * 37 + [{}] * 63
    text = latex(
        cell(90, 10, model=NASTY, defence="jpeg (quality=75)"),
        Cell(epsilon=8 / 255, examples=100, rows=wrong),
        Cell(epsilon=8 / 255, examples=100, rows=[{"flags": ["zero_gradients"]}] * 90 + [BROKEN] * 10),
        cell(50, 50, model="naïve", attack="bim", attack_options="steps=20, step_size=0.01"),
        cell(50, 50, model="naïve"),
        *(cell(50, 50, model="seeded", seed=seed) for seed in (0, 1)),
        cell(10, 90, norm="l2", epsilon=1.5),
    )
    answer = text_format("latex").table(run_query(results_of([cell(9, 1)]), "FROM cells"))
    source = (
        "\\documentclass[landscape]{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{text}\n{_beside()}\n{{\\tiny {answer}}}\n\\end{{document}}\n"
    )
    (tmp_path / "table.tex").write_text(source, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert "Missing character" not in (tmp_path / "table.log").read_text("utf-8", "replace")


# -- as a page --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Which elements there are, and what they say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_a_page_says_what_the_table_says_and_runs_nothing():
    found = tables(cell(90, 10, model=NASTY), cell(50, 50, model="bad"))
    text = text_format("html").robustness(found)
    page = Page(text)
    assert page.open == [] and "script" not in page.tags and "http" not in text
    assert any(NASTY in said for said in page.said) and "90.0%" in page.said
    assert page.tags.count("strong") == 1 and "bold: better than all others" in text
    assert '<meta charset="utf-8">' in text
    answer = text_format("html").table(run_query(results_of([cell(9, 1)]), "FROM cells"))
    assert Page(answer).tags.count("td") > 10


def test_tables_by_name():
    found = tables(*(cell(9, 1, model=m, attack=a) for m in "ab" for a in ("fgsm", "bim")))
    text = text_format("latex").robustness(choose(found, {"model": ["a"]}, ["attack", "model"]))
    assert text.count(r"\begin{table}") == 3 and "mnist, linf, worst case, a: robust accuracy" in text
    assert all(row[0] == "none" and len(row) == 4 for row in body(text.split(r"\end{table}")[0]))
    everything = choose(found, {}, ["sweep", "model", "defence", "attack"])
    for name in ("rich", "md", "html", "latex", "csv", "json"):
        assert text_format(name).robustness(everything)


def test_a_table_with_its_caption_is_as_a_paper_has_it():
    made = Columns(["on a_b", "n"], [["90.0%≈", 5]], [True, True])
    text = text_format("latex").captioned(made, "certified: ≈ 50% of Small & CNN_1")
    assert text.startswith("% \\usepackage{booktabs}\n\\begin{table}\n") and text.endswith("\\end{table}\n")
    assert r"\caption{Certified: $\approx$ 50\% of Small \& CNN\_1.}" in text
    assert r"90.0\%$\approx$ & 5" in text and text.count(r"\begin{tabular}") == 1
    assert text_format("html").captioned(made, "x") is None
    marks = {escaped(flag.mark) for flag in Flag}
    assert len(marks) == len(Flag) and all(mark.isascii() for mark in marks)


def test_how_far_certificates_reach_is_what_all_votes_give():
    row = {"sigma": 0.25, "draws": 200, "alpha": 0.001}
    [radius] = radii(np.array([200]), 200, 0.25, 0.001)
    assert f"radii are at most {radius:.3g} (sigma 0.25, 200 draws): beyond" in certified.reach([row])[0]
    assert certified.reach([{**row, "draws": 5}]) == ["so few draws certify nothing: 0% is by construction"]
