"""Images of somebody else's tool: the file, what is made of it, and how a grid knows it."""

from __future__ import annotations

import hashlib
import io
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from orchestrator import show
from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.listing import listing
from orchestrator.run.prepare import prepare
from tests.support.models import affine, digits_cnn
from tests.support.victims import attack_spec, cells_of, victim_spec
from workers import metrics
from workers.attacks import build
from workers.attacks.stored_images import StoredImagesError, read_stored
from workers.datasets import load
from workers.evaluator import Evaluator
from workers.flags import Flag
from workers.norms import LINF, NORMS
from workers.unit import DatasetSpec, Evaluation, Training, WorkerSettings

pytestmark = pytest.mark.tf


def line_model() -> Any:
    """One pixel, two classes: class 1 from 0.5 on."""
    return affine([[-10.0, 10.0]], [5.0, -5.0])


def pixels(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


CLEAN = pixels(0.4, 0.4, 0.4, 0.4)
LABELS = np.zeros(4, int)
INDICES = np.array([30, 10, 20, 70])


def attack(path: Path, norm: str = "linf", **arrays: Any) -> Any:
    np.savez(path, **arrays)
    return build({"name": "stored", "norm": norm, "path": str(path)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "theirs.npz"


def test_images_are_found_by_their_row_and_measured_by_our_definitions(path: Path) -> None:
    stored = attack(path, images=pixels(0.55, 0.45, 0.7, 0.9), example_index=[20, 30, 10, 99])
    result = stored(line_model(), CLEAN, LABELS, [0.0, 0.1, 0.2, 0.4], example_indices=INDICES)
    assert result.success.tolist() == [
        [False, False, False, False],
        [False, False, False, False],  # 0.45 of row 30 lies within, but fools nobody
        [False, True, True, False],  # 0.7 of row 10, projected to 0.6
        [False, True, True, False],
    ]
    np.testing.assert_allclose(result.distance[3], [np.inf, 0.3, 0.15, np.inf], rtol=1e-5)
    # Too far: the image projected, and at 0.1 no success, though it fools.
    np.testing.assert_allclose(result.images[:, :3].ravel()[-3:], [0.45, 0.7, 0.55], atol=1e-6)
    np.testing.assert_allclose(result.images[1, :3].ravel(), [0.45, 0.5, 0.5], atol=1e-6)
    assert result.images[3, 3] == CLEAN[3]
    assert {name: touched.tolist() for name, touched in result.flags.items()} == {
        "not_stored": [False, False, False, True]
    }
    assert result.forward_calls_at.tolist() == [[1] * 4, [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert not result.gradient_calls.any()


def test_images_made_for_an_epsilon_count_at_that_one(path: Path) -> None:
    images = np.stack([pixels(0.45, 0.52), pixels(0.52, 0.6)])
    epsilon = np.array([0.1, 0.2], np.float32)  # whose float64 values are not 0.1 and 0.2
    stored = attack(path, images=images, example_index=[30, 10], epsilon=epsilon)
    result = stored(line_model(), CLEAN[:2], LABELS[:2], [0.2, 0.0, 0.1], example_indices=INDICES[:2])
    assert result.success.tolist() == [[True, True], [False, False], [False, False]]
    np.testing.assert_allclose(result.distance[0], [0.12, 0.2], rtol=1e-5)
    assert set(result.flags) == {"beyond_epsilon"}
    assert result.flags["beyond_epsilon"].tolist() == [False, True]  # 0.52 was made for 0.1
    with pytest.raises(StoredImagesError, match=r"no images for epsilon 0\.15 on .* has some for 0\.1, 0\.2"):
        stored(line_model(), CLEAN[:2], LABELS[:2], [0.1, 0.15], example_indices=INDICES[:2])


def test_eight_bits_and_an_l2_norm(path: Path) -> None:
    images = np.full((1, 1, 2, 1), 0.4, np.float32)
    model = affine([[-10.0, 10.0], [-10.0, 10.0]], [10.0, -10.0])  # class 1 where the sum is above 1
    stored = attack(path, "l2", images=np.array([[[[141], [140]]]], np.uint8), example_index=[0])
    distance = np.hypot(141 / 255 - 0.4, 140 / 255 - 0.4)
    result = stored(model, images, np.zeros(1, int), [0.5 * distance, 1.01 * distance, 0.99 * distance])
    assert result.success.tolist() == [[False], [True], [True]]
    np.testing.assert_allclose(result.distance[1:, 0], [distance, 0.99 * distance], rtol=1e-5)
    np.testing.assert_allclose(result.images[1].ravel(), [141 / 255, 140 / 255], rtol=1e-6)


def test_our_own_images_come_back_with_their_own_numbers(path: Path) -> None:
    digits = digits_cnn()
    indices = np.random.default_rng(0).permutation(len(digits.images))[:60]
    images, labels = digits.images[indices], digits.labels[indices]
    own = build({"name": "bim"})(digits.model, images, labels, [0.05, 0.2], example_indices=indices)
    order = np.random.default_rng(1).permutation(60)  # a file has its own order
    stored = attack(path, images=own.images[:, order], example_index=indices[order], epsilon=own.epsilons)
    result = stored(digits.model, images, labels, [0.05, 0.2], example_indices=indices)
    assert np.array_equal(result.success, own.success) and own.success.any() and not own.success.all()
    assert np.array_equal(result.distance, own.distance) and not result.flags


SAVED = {
    "rounded": lambda images: np.rint(images * 255).astype(np.uint8),
    "cut off": lambda images: (images * 255).astype(np.uint8),
    "as floats": lambda images: np.rint(images * 255) / 255,
}


class Theirs(NamedTuple):
    """What another tool found on digits, and what they were made from."""

    model: Any
    clean: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    images: np.ndarray  # (E, N, H, W, C)
    epsilons: list[float]
    success: np.ndarray  # (E, N)

    def judged(self, path: Path, norm: str, images: np.ndarray, **arrays: Any) -> Any:
        arrays = {"example_index": self.rows, "epsilon": self.epsilons, **arrays}
        if arrays["epsilon"] is None:
            del arrays["epsilon"]
        stored = attack(path, norm, images=images, **arrays)
        return stored(self.model, self.clean, self.labels, self.epsilons, example_indices=self.rows)


EPSILONS = {"linf": [0.1, 0.3], "l2": [0.7, 1.5]}


@cache
def theirs(norm: str, name: str = "bim") -> Theirs:
    digits = digits_cnn()
    rows = np.random.default_rng(0).permutation(len(digits.images))[:100]
    right = (
        np.asarray(digits.model(digits.images[rows], training=False)).argmax(axis=1) == digits.labels[rows]
    )
    rows = rows[right]
    clean, labels = digits.images[rows], digits.labels[rows]
    # As a tool does that knows nothing of early success: the whole budget spent.
    own = build({"name": name, "norm": norm})(digits.model, clean, labels, EPSILONS[norm], choose="last")
    return Theirs(digits.model, clean, labels, rows, own.images, EPSILONS[norm], own.success)


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("norm", EPSILONS)
def test_saving_with_8_bits_is_not_robustness(path: Path, norm: str, how: str) -> None:
    """Channels end up to half a level, or a level, beyond epsilon, and the attack is as strong as before."""
    their = theirs(norm)
    images = SAVED[how](their.images)
    floats = images / 255 if images.dtype == np.uint8 else images
    distance = NORMS[norm].distance(their.clean, floats[0].astype(np.float32))
    beyond = ~metrics.within(distance, their.epsilons[0])
    assert beyond.mean() > 0.9 if norm == "linf" else beyond.any()
    result = their.judged(path, norm, images)
    assert np.abs(result.success.mean(axis=1) - their.success.mean(axis=1)).max() <= 0.011
    assert 0.1 < their.success[0].mean() < 0.99 and not result.flags
    for k, epsilon in enumerate(their.epsilons):
        assert metrics.within(NORMS[norm].distance(their.clean, result.images[k]), epsilon).all()


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("epsilon", [True, False])
def test_shifted_indices_are_no_robustness(path: Path, norm: str, epsilon: bool) -> None:
    their = theirs(norm)
    shifted = np.roll(their.images, 1, axis=1)
    given = {} if epsilon else {"epsilon": None}
    images = shifted if epsilon else shifted[0]
    result = their.judged(path, norm, images, **given)
    assert result.success[0].mean() < 0.1 * their.success[0].mean() + 0.1, "it does look robust"
    assert result.flags["other_images"].mean() > 0.9 and Flag("other_images").severity == "wrong"
    assert ("beyond_epsilon" in result.flags) == epsilon
    whole = their.images if epsilon else their.images[0]
    assert not their.judged(path, norm, whole, **given).flags


def test_rows_mixed_up_within_a_class_are_flagged_too(path: Path) -> None:
    """As in a folder by class: the neighbour is much like it, and still too far away."""
    their = theirs("linf")
    order = np.argsort(their.labels, kind="stable")
    images = np.empty_like(their.images[0])
    images[order] = np.roll(their.images[0][order], 1, axis=0)
    result = their.judged(path, "linf", images, epsilon=None)
    assert result.flags and all(touched.mean() > 0.9 for touched in result.flags.values())
    assert set(result.flags) <= {"far_images", "other_images"}


@pytest.mark.parametrize("norm", EPSILONS)
def test_honest_images_are_not_flagged_however_far_they_lie(path: Path, norm: str) -> None:
    """Those of a minimum-norm attack, whose distances are their own, and of twice the largest epsilon."""
    nearest = theirs(norm, "fmn")
    result = build({"name": "fmn", "norm": norm})(
        nearest.model, nearest.clean, nearest.labels, [9.0], example_indices=nearest.rows
    )
    found = nearest.judged(path, norm, result.images[0], epsilon=None)
    assert not found.flags and found.success[1].mean() > 0.9 * (result.nearest <= nearest.epsilons[1]).mean()
    far = build({"name": "pgd", "norm": norm})(
        nearest.model, nearest.clean, nearest.labels, [2 * EPSILONS[norm][1]], choose="last"
    )
    assert not nearest.judged(path, norm, far.images[0], epsilon=None).flags


def test_other_preprocessing_is_flagged(path: Path) -> None:
    their = theirs("linf")
    grey = 0.5 + their.images[0] / 2  # [-1, 1] to [0, 1], of what was in [0, 1] already
    result = their.judged(path, "linf", grey * 0.4 + 0.6, epsilon=None)
    assert set(result.flags) <= {"far_images", "other_images"} and result.flags
    result = their.judged(path, "linf", np.stack([grey] * 2))
    assert result.flags["beyond_epsilon"].mean() > 0.9


def test_images_that_are_the_clean_ones_are_no_attack(path: Path) -> None:
    their = theirs("linf")
    for images in (their.clean, np.rint(their.clean * 255).astype(np.uint8)):
        for arrays in ({"images": np.stack([images] * 2)}, {"images": images, "epsilon": None}):
            assert their.judged(path, "linf", **arrays).flags["unchanged_images"].all()


def test_clean_images_are_held_against_the_datasets(path: Path) -> None:
    their = theirs("linf")
    for clean in (their.clean, np.rint(their.clean * 255).astype(np.uint8), their.clean.astype(np.float64)):
        assert not their.judged(path, "linf", their.images, clean=clean).flags
    shifted = np.roll(their.clean, 1, axis=0)
    message = rf"clean is not the dataset's image for {len(shifted)} of {len(shifted)} rows .* 1 apart"
    with pytest.raises(StoredImagesError, match=message):
        their.judged(path, "linf", their.images, clean=shifted)
    one = their.clean.copy()
    one[7, 3, 3] = 1 - one[7, 3, 3]
    with pytest.raises(StoredImagesError, match=rf"1 of .* in row {their.rows[7]}; its example_index"):
        their.judged(path, "linf", their.images, clean=one)


GOOD = {"images": pixels(0.1, 0.2), "example_index": np.array([3, 5])}
MANY = {**GOOD, "images": np.zeros((3, 2, 4, 4, 1), np.uint8), "epsilon": np.array([0.1, 0.2, 0.3])}
WRONG = [
    ({"images": GOOD["images"]}, "lacks example_index; it has images"),
    ({"x": GOOD["images"]}, "lacks images and example_index; it has x"),
    ({**GOOD, "images": np.zeros((2, 4, 4))}, r"images is of shape \(2, 4, 4\); \(N, H, W, C\) is allowed"),
    ({**GOOD, "images": MANY["images"]}, r"need an array epsilon \(E,\)"),
    ({**GOOD, "epsilon": np.array([0.1])}, r"\(E, N, H, W, C\), since there is an epsilon, is allowed"),
    ({**MANY, "epsilon": np.array([0.1, 0.2])}, "3 different numbers from 0"),
    ({**MANY, "epsilon": np.array([0.1, 0.2, 0.1])}, "3 different numbers from 0"),
    ({**MANY, "epsilon": np.array([0.1, 0.2, np.nan])}, "3 different numbers from 0"),
    ({**MANY, "epsilon": np.array(["a", "b", "c"])}, "3 different numbers from 0"),
    ({**GOOD, "images": pixels(0.1, 1.5)}, r"values in \[0.1, 1.5\]"),
    ({**GOOD, "images": pixels(0.1, np.nan)}, "NaN or infinite"),
    ({**GOOD, "images": np.zeros((2, 1, 1, 1), np.int64)}, "type int64; uint8, or floats"),
    ({**GOOD, "images": np.zeros((2, 0, 1, 1), np.uint8)}, "at least one image"),
    ({**GOOD, "example_index": np.array([3])}, "2 images, but 1 entries in example_index"),
    ({**GOOD, "example_index": np.array([3, 3])}, "has row 3 more than once"),
    ({**GOOD, "example_index": np.array([0.5, 1.5])}, "example_index is float64"),
    ({**GOOD, "example_index": np.array([-1, 1])}, "integers from 0"),
    ({**GOOD, "clean": pixels(0.1)}, r"clean is of shape \(1, 1, 1, 1\); \(2, 1, 1, 1\)"),
    ({**GOOD, "clean": pixels(0.1, 2)}, r"clean has values in \[0.1, 2\]"),
    ({**GOOD, "clean": np.zeros((2, 1, 1, 1), int)}, "clean is of type int64"),
    ({**GOOD, "images": np.array([[1], [None]], object)}, "is not a readable .npz"),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_file_is_named_with_what_is_allowed(path: Path, arrays: dict[str, Any], message: str) -> None:
    stored = attack(path, **arrays)
    with pytest.raises(StoredImagesError, match=message):
        stored(line_model(), CLEAN, LABELS, [0.1])


def test_what_is_no_file_of_images(path: Path) -> None:
    with pytest.raises(StoredImagesError, match="cannot read"):
        read_stored(str(path))
    np.save(lone := io.BytesIO(), GOOD["images"])
    np.savez(whole := io.BytesIO(), **GOOD)
    for data in (b"", b"no zip", lone.getvalue(), whole.getvalue()[:-30], whole.getvalue()[:200]):
        path.write_bytes(data)
        with pytest.raises(StoredImagesError, match="is not a readable"):
            read_stored(str(path))


def test_images_of_another_shape_are_refused(path: Path) -> None:
    stored = attack(path, **GOOD)
    with pytest.raises(StoredImagesError, match=r"images of shape \(1, 1, 1\); \(8, 8, 1\) is needed"):
        stored(digits_cnn().model, digits_cnn().images[:4], digits_cnn().labels[:4], [0.1])


def test_a_file_that_has_changed_since_planning_is_refused(path: Path) -> None:
    attack(path, **GOOD)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = build(
        {
            "name": "stored",
            "path": str(path),
            "content": content,
        }
    )
    assert not stored(line_model(), CLEAN, LABELS, [0.1]).success.any()
    attack(path, **{**GOOD, "images": pixels(0.5, 0.6)})
    changed = build({"name": "stored", "path": str(path), "content": "0" * 64})
    with pytest.raises(StoredImagesError, match="has changed since the sweep was planned"):
        changed(line_model(), CLEAN, LABELS, [0.1])


GRID = """\
models: [small_cnn]
datasets: [digits]
attacks: [{name: stored, path: theirs.npz}, fgsm]
epsilons: [0, 0.1, 0.2]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "theirs.npz")
    return tmp_path


def write_digits(path: Path, shape: tuple[int, ...] = (2, 8, 8, 1), **arrays: Any) -> None:
    np.savez(path, images=np.full(shape, 7, np.uint8), **{"example_index": [0, 499], **arrays})


def parse(text: str = GRID) -> Grid:
    Path("grid.yaml").write_text(text)
    return load_grid("grid.yaml")


def ids(text: str = GRID) -> list[str]:
    return [cell.cell_id for cell in cells_of(parse(text)) if cell.attack.name == "stored"]


def problems(text: str = GRID) -> list[str]:
    with pytest.raises(GridError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_counts_by_its_content_wherever_it_lies(here: Path) -> None:
    before = ids()
    assert len(before) == 3
    (here / "elsewhere").mkdir()
    os.rename("theirs.npz", "elsewhere/renamed.npz")
    assert ids(GRID.replace("theirs", "elsewhere/renamed")) == before
    assert ids(GRID.replace("theirs", f"file://{here}/elsewhere/renamed")) == before
    os.utime("elsewhere/renamed.npz", (0, 0))
    assert ids(GRID.replace("theirs", "elsewhere/renamed")) == before
    write_digits(here / "theirs.npz", example_index=[0, 498])
    assert not set(ids()) & set(before)


def test_workers_get_the_whole_path_and_people_the_one_they_wrote(here: Path) -> None:
    spec = cells_of(parse())[0].attack
    assert spec.config["path"] == str(here / "theirs.npz") and spec.shown == "path=theirs.npz"
    assert spec.config["content"] == hashlib.sha256((here / "theirs.npz").read_bytes()).hexdigest()
    build(spec.config)
    console = Console(width=200, record=True, file=io.StringIO())
    show.plan(console, prepare(parse(), "out"))
    line = next(line for line in console.export_text().splitlines() if "stored" in line)
    assert "stored (path=theirs.npz) linf" in line and "0 0.1 0.2" in line
    console = Console(width=200, record=True, file=io.StringIO())
    listing(console, "attacks")
    assert "path (needed)" in console.export_text() and "content" not in console.export_text()


def test_two_files_are_two_attacks_unless_they_are_the_same(here: Path) -> None:
    both = GRID.replace("fgsm", "{name: stored, path: other.npz}")
    write_digits(here / "other.npz", example_index=[1, 2])
    assert len({cell.cell_id for cell in cells_of(parse(both))}) == 6
    (here / "other.npz").write_bytes((here / "theirs.npz").read_bytes())
    assert any("stands twice" in problem for problem in problems(both))


def test_what_is_wrong_with_a_file_is_said_before_anything_runs(here: Path) -> None:
    for entry, message in (
        ("{name: stored}", "attacks[0]: stored needs the path: of an .npz"),
        ("{name: stored, path: nowhere.npz}", "attacks[0].path: cannot read"),
        ("{name: stored, path: 3}", "attacks[0].path: found 3; the path or URI of an .npz file"),
        (
            "{name: stored, path: theirs.npz, step: 1}",
            'attacks[0].step: unknown option of attack stored "step"',
        ),
        ("{name: stored, path: theirs.npz, content: a}", "attacks[0].content: unknown option"),
        ("{name: stored, path: theirs.npz, norm: l1}", "attacks[0].norm: unknown norm"),
    ):
        found = problems(GRID.replace("{name: stored, path: theirs.npz}", entry))
        assert any(message in problem for problem in found), found
    np.savez("theirs.npz", images=np.zeros((2, 8, 8, 1)))
    assert any("lacks example_index; it has images" in problem for problem in problems())


def test_a_file_must_fit_every_dataset_that_it_is_evaluated_on(here: Path) -> None:
    two = GRID.replace("[digits]", "[digits, mnist]")
    (problem,) = problems(two)
    assert "images of shape (8, 8, 1); (28, 28, 1) is needed" in problem and "for mnist" in problem
    assert parse(two + "exclude: [{attack: stored, dataset: mnist}]\n")
    write_digits(here / "theirs.npz", example_index=[0, 500])
    assert "row 500 of the test split; rows up to 499 are there" in problems()[0]
    write_digits(here / "theirs.npz", (2, 2, 8, 8, 1), epsilon=[0.1, 0.3])
    assert "no images for epsilon 0.2 on the [0, 1] scale; it has some for 0.1, 0.3" in problems()[0]
    assert parse(GRID.replace("0.2]", "0.3]"))


def test_rows_of_a_unit(tmp_path: Path, path: Path) -> None:
    """Negatives of the first ten of twelve images: a shard says how many of them count, and which lack."""
    digits, spec = load(DatasetSpec(name="digits")), victim_spec()
    settings = WorkerSettings(str(tmp_path / "out"), str(tmp_path / "victims"), "run-1")
    evaluator = Evaluator(settings)
    evaluator(Training("train", spec))
    order = evaluator._victims[spec.victim_id].order[:12]
    np.savez(path, images=1 - digits.images("test", order[:10]), example_index=order[:10])
    stored = attack_spec("stored", path=str(path))
    unit = Evaluation("u", spec, stored, (("near", 0.3), ("far", 1.0)), 0, 12)
    table = pq.read_table(tmp_path / "out" / str(evaluator(unit).shard)).to_pandas()
    correct, lacking = table["clean_correct"], table["position"] >= 10
    assert (correct & lacking).any()
    assert table[correct & lacking]["flags"].map(list).tolist() == [["not_stored"]] * 4
    assert table[~(correct & lacking)]["flags"].isna().all()
    assert not table[lacking]["success"].any() and table[correct & lacking]["psnr"].isna().all()
    far = table[(table["cell_id"] == "far") & correct & ~lacking]
    near = table[table["cell_id"] == "near"]  # projected, and so few of them fool
    assert far["success"].all() and near["success"].mean() < 0.2
    images = digits.images("test", far["example_index"].to_numpy())
    np.testing.assert_allclose(far["full_linf"], LINF.distance(images, 1 - images))
