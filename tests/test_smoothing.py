"""Randomised smoothing: what is certified, against closed forms; how that stands beside attacks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import expand
from orchestrator.results.certified import mistaken
from orchestrator.results.checks import certified as rules
from orchestrator.results.query import run_query
from orchestrator.results.schemas import Results
from orchestrator.store.folder import Store
from tests.support.results import Cell, results_of
from tests.support.sweeps import sweep
from tests.support.victims import cells_of
from workers.certify import certify, radii
from workers.unit import Evaluation

GRID = """\
models: [small_cnn]
datasets: [digits]
attacks: [{name: bim, norm: l2, steps: 5}]
epsilons: {l2: [0, 0.25, 0.5]}
defences: [none, {name: smoothing, sigma: 0.25}]
examples: 100
slice: 50
"""


def parse(tmp_path: Path, *overrides: str) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return load_grid(str(path), overrides)


def problems(tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(GridError) as caught:
        parse(tmp_path, *overrides)
    return str(caught.value)


# -- certificates -----------------------------------------------------------------------------------------


@given(n=st.integers(1, 3000), share=st.floats(0, 1), alpha=st.floats(1e-6, 0.5), sigma=st.floats(0.01, 1.0))
def test_a_radius_is_that_of_the_exact_lower_bound(n: int, share: float, alpha: float, sigma: float) -> None:
    votes = round(share * n)
    [radius] = radii(np.array([votes]), n, sigma, alpha)
    bound = stats.binomtest(votes, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    if bound <= 0.5:
        assert np.isnan(radius)
    else:
        assert radius == pytest.approx(sigma * stats.norm.ppf(bound), rel=1e-6, abs=1e-9)


def test_more_votes_never_certify_less_and_all_of_them_only_so_far() -> None:
    found = radii(np.arange(1001), 1000, 0.25, 0.001)
    certified = found[~np.isnan(found)]
    assert np.isnan(found[:500]).all() and (np.diff(certified) > 0).all()
    # However sure: 0.001^(1/1000), at a quarter.
    assert certified[-1] == pytest.approx(0.25 * stats.norm.ppf(0.001 ** (1 / 1000)))


@given(st.floats(0.01, 1.5), st.floats(0.001, 0.2), st.integers(50, 2000), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_no_more_certificates_than_alpha_go_too_far(distance: float, alpha: float, n: int, seed: int) -> None:
    """Behind a hyperplane so many sigmas away: its class is drawn with a probability of Phi of that."""
    tries = 4000
    votes = np.random.default_rng(seed).binomial(n, stats.norm.cdf(distance), tries)
    too_far = int((radii(votes, n, 1.0, alpha) > distance).sum())
    assert stats.binom.sf(too_far - 1, tries, alpha) > 1e-7


@pytest.mark.tf
def test_of_a_linear_model_the_certificate_is_just_below_the_distance_to_its_boundary() -> None:
    """Two classes and a hyperplane: the smoothed model is the model, its true radius the distance, whatever
    sigma is. Cohen et al. show that smoothing is exact there; what is certified lacks only the draws."""
    from tests.support.models import affine
    from workers.network import network_for

    rng = np.random.default_rng(1)
    shape, n, alpha, sigma = (3, 3, 1), 4000, 0.01, 0.25
    weights = rng.normal(size=9)
    model = affine(np.stack([weights, -weights], axis=1), [0.1, -0.1])
    direction = (weights / np.linalg.norm(weights)).reshape(shape)
    offset = 0.1 / np.linalg.norm(weights)
    distance = np.array([0.02, 0.1, 0.2, 0.3, 0.4, -0.1, -0.25, -0.4] * 6)
    images = ((distance - offset)[:, None, None, None] * direction).astype(np.float32)
    found = certify(network_for(model, shape), images, np.arange(48), sigma=sigma, n0=100, n=n, alpha=alpha)
    radius, truth = found.radius, np.abs(distance)
    known = ~np.isnan(radius)
    assert known[truth >= 0.1].all()
    assert (found.label[known] == (distance < 0)[known]).all()
    # Each too large with a probability of at most alpha: of 48, more than 3 with one of 0.001.
    assert (radius[known] > truth[known]).sum() <= 3
    # What the exact bound comes to where as many draws agree as are expected.
    expected = radii(np.floor(n * stats.norm.cdf(truth / sigma)).astype(int), n, sigma, alpha)
    assert np.nanmax(np.abs(radius - expected)) < 0.06
    assert (truth - radius)[known].mean() < 0.04


@pytest.mark.tf
def test_noise_follows_from_the_example_alone_and_not_from_how_work_is_cut() -> None:
    from tests.support.models import random_affine
    from workers.network import network_for

    shape = (4, 4, 1)
    model = random_affine(shape, 3, 0)  # which nobody else keeps
    network = network_for(model, shape)
    images = np.random.default_rng(0).random((6, *shape), np.float32)
    given_ = {"sigma": 0.5, "n0": 20, "n": 300, "alpha": 0.01}
    whole = certify(network, images, np.arange(6), **given_)
    parts = [certify(network, images[i : i + 2], np.arange(6)[i : i + 2], **given_) for i in (0, 2, 4)]
    for name in whole._fields:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    other = certify(network, images, np.arange(6), **given_, seed=1)
    assert (other.votes != whole.votes).any()


@pytest.mark.tf
def test_answers_that_are_not_finite_are_votes_for_nobody() -> None:
    import tensorflow as tf

    from workers.network import network_for

    def broken(images: Any) -> Any:
        logits = tf.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], axis=1)
        return tf.where(images[:, 1:2, 0, 0] > 0.5, logits * float("nan"), logits)

    images = np.full((1, 2, 2, 1), 0.5, np.float32)
    found = certify(network_for(broken, (2, 2, 1)), images, np.arange(1), sigma=0.1, n0=50, n=500, alpha=0.01)
    # Half of the draws are NaN: though class 0 has all the others, it has no majority.
    assert found.label[0] == 0 and 200 < found.votes[0] < 300 and np.isnan(found.radius[0])


@pytest.mark.tf
def test_a_smoothed_victim_answers_by_its_noise_and_is_certified_by_the_network_behind_it() -> None:
    from tests.support.models import digits_cnn
    from tests.support.victims import victim_spec
    from workers.certify import certificate_rows
    from workers.datasets import load
    from workers.unit import AttackSpec, DatasetSpec, DefenceSpec
    from workers.victims.victim import Victim

    smoothing = DefenceSpec(name="smoothing", version=1, options={"sigma": 0.2})
    network = Victim(digits_cnn().model, load(DatasetSpec(name="digits"), None), "w")
    victim = network.defended(smoothing)
    assert victim.randomised and victim.behind_noise is network.model
    both = (smoothing, DefenceSpec(name="bit_depth", version=1, options={"bits": 1}))
    quantised = network.defended(DefenceSpec(name="smoothing + bit_depth", parts=both))
    assert quantised.behind_noise is not network.model

    spec = AttackSpec(
        attack_id="certify-l2-1", name="certify", norm="l2", options={"n0": 50, "n": 400, "alpha": 0.001}
    )
    unit = Evaluation("u", victim_spec(defence=smoothing), spec, (("c", 0.0),), 5, 25)
    rows = certificate_rows(unit, victim).to_pandas()
    assert list(rows["position"]) == list(range(5, 25))
    labels = network.dataset.labels("test", network.order[5:25])
    assert (rows["label"] == labels).all()
    sure = rows[~rows["abstained"]]
    assert len(sure) >= 15 and (sure["answer"] == sure["label"]).mean() > 0.8
    assert (sure["radius"] <= 0.2 * stats.norm.ppf(0.001 ** (1 / 400)) + 1e-9).all()
    # Beside 20 draws of the victim itself.
    clean = victim.clean(5, 25)
    assert (clean.label[~rows["abstained"]] == sure["answer"]).mean() > 0.85
    # The same votes from draws of one's own.
    draws = np.random.default_rng(0).normal(0, 0.2, (400, *network.dataset.shape)).astype(np.float32)
    image = network.dataset.images("test", network.order[5:6])
    votes = (network.logits(image + draws).argmax(1) == rows["top_label"][0]).mean()
    assert rows["votes"][0] / 400 == pytest.approx(votes, abs=0.1)


# -- the grid ---------------------------------------------------------------------------------------------


def test_a_grid_says_what_is_wrong_with_smoothing(tmp_path: Path) -> None:
    found = problems(tmp_path, "defences=[{name: smoothing, n: 5}]")
    assert "n 5 certifies nothing at alpha 0.001, however the draws fall; at least 10 is allowed" in found
    assert "sigma" in problems(tmp_path, "defences=[{name: smoothing, sigma: 0}]")
    found = problems(tmp_path, "defences=[[jpeg, smoothing]]")
    assert "smoothing stands behind jpeg, so that noise would not be added to the image itself" in found
    assert [d.name for d in parse(tmp_path, "defences=[[smoothing, jpeg]]").defences] == ["smoothing + jpeg"]
    found = problems(tmp_path, 'attacks=[{name: certify, factory: "x:Y"}]')
    assert '"certify" is what certificates are called' in found


def test_what_certificates_take_is_no_part_of_the_victim(tmp_path: Path) -> None:
    def ids(*overrides: str) -> tuple[set[str], set[str], set[str]]:
        cells = [cell for cell in cells_of(parse(tmp_path, *overrides)) if cell.victim.defence.name != "none"]
        of = {kind: {c.cell_id for c in cells if c.attack.kind == kind} for kind in ("attack", "certificate")}
        return {c.victim.victim_id for c in cells}, of["attack"], of["certificate"]

    plain = ids()
    assert plain[0] == {"small_cnn-digits-smoothing-s0-b8b5cf3d6f"}
    assert plain[2] == {"small_cnn-digits-smoothing-s0-certify-1f3d9934f4576f49"}
    victims, attacked, certified = ids("defences=[none, {name: smoothing, sigma: 0.25, n: 5000}]")
    assert (victims, attacked) == plain[:2] and certified != plain[2]
    assert ids("defences=[none, {name: smoothing, n0: 100, n: 1000, alpha: 0.001}]") == plain  # defaults
    assert ids("pixel_range=[0, 255]", "defences=[{name: smoothing, sigma: 63.75}]")[2] == plain[2]
    assert not any(a & b for a, b in zip(ids("defences=[{name: smoothing, sigma: 0.5}]"), plain, strict=True))
    cells = cells_of(parse(tmp_path, "exclude=[{defence: smoothing}]"))
    assert all(cell.attack.kind == "attack" for cell in cells)


# -- a sweep ----------------------------------------------------------------------------------------------

MADE_UP = {"runner": "tests.support.runners:MadeUp"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoothing")
    assert sweep(parse(folder), folder / "out", **MADE_UP).exit_code == 0
    return folder / "out"


def test_certificates_are_work_that_resumes_by_example(swept: Path, tmp_path: Path) -> None:
    grid, out = parse(tmp_path), tmp_path / "out"
    assert sweep(grid, out, **MADE_UP).exit_code == 0
    assert sweep(grid, out, **MADE_UP).state.units == 0
    assert sweep(parse(tmp_path, "examples=120"), out, **MADE_UP).state.units_done == 2 + 3  # 20 more of each
    # A shard that is gone: its 50 alone. Other draws: all certificates, and no attack.
    next(out.glob("shards/*/certify-*.0-50.*")).unlink()
    assert sweep(grid, out, **MADE_UP).state.units_done == 1 + 1
    more = parse(tmp_path, "defences=[none, {name: smoothing, n: 5000}]")
    assert sweep(more, out, **MADE_UP).state.units_done == 1 + 2
    [row] = run_query(
        Store(str(out)).results(), "SELECT draws, n, status FROM certified_accuracy WHERE epsilon = 0"
    ).to_pylist()
    assert row == {"draws": 5000, "n": 100, "status": "done"}


def test_both_bounds_stand_side_by_side_and_nowhere_else(swept: Path) -> None:
    results = Store(str(swept)).results()
    rows = {row["epsilon"]: row for row in run_query(results, "FROM certified_accuracy").to_pylist()}
    # Made up: a seventh abstains, a tenth is certified to be wrong, the radius grows with the position.
    right = [p for p in range(100) if p % 7 and p % 10]
    for epsilon in (0.0, 0.25, 0.5):
        certified = sum(0.004 * (p + 1) > epsilon for p in right) / 100
        assert rows[epsilon]["certified_accuracy"] == pytest.approx(certified)
        # At 95%, no more than one of 100 is wrong by chance.
        assert rows[epsilon]["certified_at_least"] == pytest.approx(max(0.0, certified - 0.01))
        assert (rows[epsilon]["abstained"], rows[epsilon]["clean_accuracy"]) == (15, 0.9)
    cells = run_query(results, "FROM cells").to_pylist()
    assert {cell["attack"] for cell in cells} == {"bim"}
    assert run_query(results, "SELECT DISTINCT attack FROM examples").to_pylist() == [{"attack": "bim"}]
    worst = {
        row["epsilon"]: row["robust_accuracy_unchecked"]
        for row in run_query(results, "FROM worst_case WHERE defence = 'smoothing'").to_pylist()
    }
    assert worst.keys() == rows.keys()
    assert {row["attacks"][0] for row in run_query(results, "FROM worst_case").to_pylist()} == {
        "bim (steps=5)"
    }
    assert run_query(results, "SELECT count(*) AS n FROM certified").to_pylist() == [{"n": 100}]


def test_the_table_for_people_and_for_programs(swept: Path) -> None:
    def table(*words: str) -> Any:
        return CliRunner().invoke(app, ["table", str(swept), "--certified", *words])

    text = table("-f", "md").stdout
    assert "| 0 | 90.0% |" in text and "\n\ndataset digits; model small_cnn; defence smoothing; " in text
    assert "radii are at most 0." in text and "(sigma 0.25, " in text
    assert "a lower bound" in text and "an upper bound" in text and "0.001" in text and "95%" in text
    records = json.loads(table("-f", "json").stdout)
    assert [record["epsilon"] for record in records] == [0, 0.25, 0.5]
    assert table("--by", "model").exit_code == table("--model", "nobody").exit_code == 2
    assert "no certificate is chosen by it" in table("--attack", "bim").output
    assert (swept / "tables" / "certified.parquet").exists()
    answer = CliRunner().invoke(app, ["table", str(swept), "-f", "md"])
    assert "certify" not in answer.stdout


def test_without_smoothing_there_is_nothing_certified(tmp_path: Path) -> None:
    assert sweep(parse(tmp_path, "defences=[none]"), tmp_path / "out", **MADE_UP).exit_code == 0
    answer = CliRunner().invoke(app, ["table", str(tmp_path / "out"), "--certified"])
    assert answer.exit_code == 2 and "a defence named smoothing" in answer.output


@given(st.integers(1, 2000), st.floats(1e-5, 0.2))
@settings(max_examples=50, deadline=None)
def test_how_many_certificates_may_be_wrong(examples: int, alpha: float) -> None:
    assert mistaken(examples, alpha) == stats.binom.ppf(0.95, examples, alpha)


# -- the rule ---------------------------------------------------------------------------------------------

SIGMA, ALPHA = 0.25, 0.001
N = 200


def attacked(broken: Iterable[int], epsilon: float = 0.25, **values: Any) -> Cell:
    here = set(broken)
    rows = [
        {"success": i in here, "distance": epsilon if i in here else np.inf, "gradient_calls": 5}
        for i in range(N)
    ]
    cell = {"model": "a", "attack": "pgd", "norm": "l2", "defence": "smoothing", "epsilon": epsilon}
    return Cell(**{**cell, "examples": N, "rows": rows, **values})


def certificates(radius: float | None, *, right: bool = True) -> Cell:
    rows = [{"radius": radius, "right": right}] * N
    taken: dict[str, Any] = {"sigma": SIGMA, "n0": 100, "draws": 1000, "alpha": ALPHA}
    place: dict[str, Any] = {"model": "a", "attack": "certify", "norm": "l2", "defence": "smoothing"}
    return Cell(**place, epsilon=0.0, examples=N, rows=rows, **taken)


def fires(results: Results) -> bool:
    return "inside_certificate" in {row["rule"] for row in run_query(results, "FROM checks").to_pylist()}


def test_an_attack_inside_certificates_makes_both_wrong() -> None:
    results = results_of([attacked(range(20)), certificates(0.6)])
    assert fires(results)
    [cell] = run_query(results, "FROM cells").to_pylist()
    [worst] = run_query(results, "FROM worst_case").to_pylist()
    certified = run_query(results, "FROM certified_accuracy").to_pylist()
    assert cell["verdict"] == worst["verdict"] == "wrong"
    assert cell["robust_accuracy"] is worst["robust_accuracy"] is None
    assert {row["certified_accuracy"] for row in certified} == {None}
    assert {row["certified_accuracy_unchecked"] for row in certified} == {1.0}


def test_images_from_another_victim_may_not_get_inside_either() -> None:
    source = Cell(model="b", attack="pgd", norm="l2", epsilon=0.25)
    moved = replace(attacked(range(20)), source=source)
    results = results_of([attacked([]), moved, certificates(0.6)])
    assert fires(results)
    [row] = run_query(results, "FROM transfer").to_pylist()
    assert row["verdict"] == "wrong" and row["robust_accuracy"] is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 8))
def test_the_tail_of_unequal_chances(chances: list[float], successes: int) -> None:
    by_hand = np.array([1.0])
    for chance in chances:
        by_hand = np.convolve(by_hand, [1 - chance, chance])
    assert rules.tail(successes, chances) == pytest.approx(by_hand[successes:].sum(), abs=1e-9)


def test_how_likely_a_success_is_though_a_certificate_holds() -> None:
    from workers.answers import DRAWS

    assert DRAWS == rules._DRAWS
    for radius, epsilon in ((0.5, 0.5), (0.5, 0.4), (1.0, 0.25)):
        other = stats.norm.sf((radius - epsilon) / SIGMA)
        lost = stats.binom.sf(DRAWS // 2, DRAWS, other)
        assert rules.by_chance(radius, epsilon, SIGMA, ALPHA) == pytest.approx(ALPHA + (1 - ALPHA) * lost)


def test_a_victim_of_which_nothing_else_is_asked_is_certified(tmp_path: Path) -> None:
    """Every attack excluded: certificates are cells of their own."""
    grid = parse(tmp_path, "exclude=[{attack: bim}]")
    victims = list(expand(grid))
    assert [run.attack.kind for _, runs in victims for run in runs] == ["certificate"]
