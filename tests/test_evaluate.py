"""The evaluator, end to end: real training, real attacks, the shards read back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.real_data import REAL_DATA, needs_real_data
from tests.support.victims import attack_spec, model_spec, victim_spec
from workers.attacks import AttackError
from workers.datasets import evaluation_order, load
from workers.evaluator import Evaluator
from workers.network import network_for
from workers.norms import LINF
from workers.pins import pinned_weights
from workers.recipe import Recipe
from workers.shards import SCHEMA, read_footer
from workers.storage import Folder
from workers.unit import AttackSpec, DatasetSpec, Done, Evaluation, Training, WorkerSettings
from workers.victims.base import ArchitectureError, WeightsMismatchError

pytestmark = pytest.mark.tf

SPEC = victim_spec()
ID = SPEC.victim_id
EPSILONS = (0.0, 0.05, 0.2)
TRAINING = Training(f"{ID}/train", SPEC)

USERS_ATTACKS = """
import numpy as np


class Returns:
    def __init__(self, norm, images):
        self.change = images

    def __call__(self, model, images, labels, epsilons, *, seed, example_indices, clean_correct, choose):
        found = np.stack([images] * len(epsilons))
        if self.change == "nan":
            found[0, 0] = np.nan
        elif self.change == "shape":
            found = found[:, :, :4]
        elif self.change == "outside":
            found = found - 5 * np.sign(found - 0.5)
        elif self.change == "in place":
            images += 0.5
        elif self.change == "far":
            found = 1 - found
        return found


class Claims:
    # Of every second image the negative as the nearest; the first of these is not what it claims.
    def __init__(self, norm):
        pass

    def __call__(self, model, images, labels, epsilons, **rest):
        from workers.attacks import AttackResult

        shape = len(epsilons), len(images)
        nearest = np.where(np.arange(shape[1]) % 2, np.inf, 0.01).astype(np.float32)
        negatives = 1 - images
        negatives[0] = images[0]
        return AttackResult(
            epsilons=np.array(epsilons),
            clean_correct=np.ones(shape[1], bool),
            success=np.zeros(shape, bool),
            distance=np.full(shape, np.inf, np.float32),
            images=np.stack([images + 1e-3 * (0.5 - images)] * len(epsilons)),
            gradient_calls_at=np.zeros(shape, np.int32),
            forward_calls_at=np.zeros(shape, np.int32),
            nearest=nearest,
            nearest_images=negatives,
        )


class Aims:
    # Negatives, all of which are claimed to reach their target; the threes were hard to attack.
    def __init__(self, norm):
        pass

    def __call__(self, model, images, labels, epsilons, **rest):
        from workers.attacks import AttackResult

        shape = len(epsilons), len(images)
        return AttackResult(
            epsilons=np.array(epsilons),
            clean_correct=np.ones(shape[1], bool),
            success=np.ones(shape, bool),
            distance=np.zeros(shape, np.float32),
            images=np.stack([1 - images] * len(epsilons)),
            gradient_calls_at=np.zeros(shape, np.int32),
            forward_calls_at=np.zeros(shape, np.int32),
            targets=((labels + 5) % 10).astype(np.int32),
            flags={"zero_gradients": labels == 3, "probabilities": np.ones(shape[1], bool)},
        )
"""


def unit(
    attack: AttackSpec, start: int, stop: int, *, epsilons: Sequence[float] = EPSILONS, keep: int = 0
) -> Evaluation:
    cells = tuple((f"{attack.attack_id}-{epsilon:g}", epsilon) for epsilon in epsilons)
    return Evaluation(f"{ID}/{attack.attack_id}.{start}-{stop}", SPEC, attack, cells, start, stop, keep)


def settings(folder: Path, **changes: Any) -> WorkerSettings:
    return WorkerSettings(str(folder / "out"), str(folder / "victims"), "run-1", **changes)


def rows_of(folder: Path, report: Done) -> pa.Table:
    assert report.shard
    table = pq.read_table(folder / "out" / report.shard)
    assert table.schema.remove_metadata().equals(SCHEMA)
    assert table.num_rows == report.rows
    return table.replace_schema_metadata(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Done:
    return Evaluator(settings(folder))(TRAINING)


@pytest.fixture(scope="module")
def evaluator(folder: Path, trained: Done) -> Evaluator:
    """Another worker than the one that trained the victim."""
    evaluator = Evaluator(settings(folder, provenance={"git_commit": "abc"}))
    report = evaluator(TRAINING)
    assert not report.trained and report.weights == trained.weights and "train" not in report.phases
    return evaluator


@pytest.fixture(scope="module")
def bim(folder: Path, evaluator: Evaluator) -> pa.Table:
    return rows_of(folder, evaluator(unit(attack_spec("bim"), 0, 100, keep=3)))


def columns(table: pa.Table, epsilon: float) -> dict[str, np.ndarray]:
    """The columns of one epsilon as arrays; null numbers as NaN."""
    frame = table.to_pandas()
    return {name: values.to_numpy() for name, values in frame[frame["epsilon"] == epsilon].items()}


def test_training_publishes_and_pins(folder: Path, trained: Done) -> None:
    assert trained.trained and trained.shard is None and trained.phases["train"] > 0
    assert pinned_weights(Folder.at(folder / "out")) == {ID: trained.weights}
    names = {file.name for file in (folder / "victims" / ID).iterdir()}
    assert names == {f"{trained.weights}.json", f"{trained.weights}.weights.h5"}


def test_the_footer_says_what_the_rows_are(folder: Path, trained: Done, evaluator: Evaluator) -> None:
    one = unit(attack_spec("fgsm"), 20, 40)
    report = evaluator(one)
    assert report.shard and set(report.phases) - {"trace"} == {
        "load",
        "clean",
        "attack",
        "measure",
        "perceptibility",
    }
    name = report.shard.removeprefix("shards/")
    info = read_footer(Folder.at(folder / "out" / "shards"), name, size=1, mtime_ns=0)
    assert (info.victim_id, info.start, info.stop, info.weights) == (ID, 20, 40, trained.weights)
    assert info.cells == tuple(cell for cell, _ in one.cells)
    assert info.device
    footer = pq.read_schema(folder / "out" / report.shard).metadata[b"robustsweep"]
    for part in (b'"git_commit": "abc"', b'"run_id": "run-1"', b'"tensorflow"', b'"host"'):
        assert part in footer


def test_rows_name_their_examples_in_evaluation_order(bim: pa.Table) -> None:
    digits = load(DatasetSpec(name="digits"))
    order = evaluation_order(digits.y_test)[:100]
    for epsilon in EPSILONS:
        rows = columns(bim, epsilon)
        assert rows["position"].tolist() == list(range(100))
        assert rows["example_index"].tolist() == order.tolist()
        assert rows["label"].tolist() == digits.y_test[order].tolist()
        assert ((rows["clean_label"] == rows["label"]) == rows["clean_correct"]).all()
        assert ((rows["clean_confidence"] > 0.1) & (rows["clean_confidence"] <= 1)).all()
    assert set(bim["cell_id"].to_pylist()) == {f"bim-linf-0123456789-{epsilon:g}" for epsilon in EPSILONS}


@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_robust_accuracy_falls_from_the_clean_one(folder: Path, evaluator: Evaluator, name: str) -> None:
    table = rows_of(folder, evaluator(unit(attack_spec(name), 0, 100)))
    robust = []
    for epsilon in EPSILONS:
        rows = columns(table, epsilon)
        robust.append((rows["clean_correct"] & ~rows["success"]).mean())
    assert robust[0] == columns(table, 0.0)["clean_correct"].mean() >= 0.85
    assert robust[0] > robust[1] > robust[2]
    assert robust[2] < 0.5


def test_measurements_agree_with_the_kept_images(folder: Path, evaluator: Evaluator) -> None:
    table = rows_of(folder, evaluator(unit(attack_spec("bim"), 0, 30, keep=30)))
    digits, model = load(DatasetSpec(name="digits")), evaluator._victims[ID].model
    for row in table.filter(pa.compute.field("success")).to_pylist():
        image = np.frombuffer(row["image"], np.float32).reshape(row["image_shape"])
        clean = digits.x_test[row["example_index"]]
        # To 8 bits within epsilon: the nearest of the levels that are.
        low, high = (255 * (clean + sign * row["epsilon"]) + sign * 1e-3 for sign in (-1, 1))
        levels = np.clip(np.rint(image * 255), np.ceil(low), np.floor(high))
        logits, rounded = (
            model(np.asarray([each])).numpy()[0] for each in (image, levels.astype(np.float32) / 255)
        )
        assert logits.argmax() == row["adv_label"] != row["label"]
        assert row["adv_confidence"] == pytest.approx(np.exp(logits).max() / np.exp(logits).sum(), abs=1e-4)
        assert row["success_uint8"] == (np.delete(rounded, row["label"]).max() - rounded[row["label"]] > 1e-4)
        assert row["linf"] == pytest.approx(np.abs(image - clean).max(), abs=1e-7)
        assert row["linf"] <= row["epsilon"] + 2e-6
        assert row["l2"] == pytest.approx(np.linalg.norm(image - clean), rel=1e-5)
        assert row["l0"] == (image != clean).any(axis=-1).sum()


def test_a_bundles_rows_say_which_member_broke_the_example(
    folder: Path, evaluator: Evaluator, bim: pa.Table
) -> None:
    bundle = attack_spec("standard", steps=2, targeted_classes=1, queries=30)
    rows = rows_of(folder, evaluator(unit(bundle, 0, 40, epsilons=(0.05, 0.1)))).to_pylist()
    assert all((row["member"] is not None) == row["success"] for row in rows)
    broken = {row["member"] for row in rows if row["success"]}
    assert "apgd-ce" in broken <= {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert bim["member"].null_count == len(bim), "no bundle"


def test_what_is_null_and_what_is_infinite(bim: pa.Table) -> None:
    digits = load(DatasetSpec(name="digits"))
    for epsilon in EPSILONS:
        rows = columns(bim, epsilon)
        correct, success = rows["clean_correct"], rows["success"]
        assert not success[~correct].any() and not (rows["success_uint8"] & ~success).any()
        for name in ("adv_label", "adv_confidence"):
            assert (np.isnan(rows[name]) == ~success).all()
        for name in ("linf", "l2", "l0"):
            assert (np.isnan(rows[name]) == ~correct).all()
            assert (np.isinf(rows[name]) == (correct & ~success)).all()
        assert (rows["gradient_calls"][~correct] == 0).all() and (rows["forward_calls"][~correct] == 0).all()
        near = correct & (rows["position"] < 64)
        for name in ("psnr", "full_linf", "full_l2", "changed_share"):
            assert (np.isnan(rows[name]) == ~near).all()
        assert np.isnan(rows["ssim"]).all()  # 8 pixels are too few for it
        kept = np.array([image is not None for image in rows["image"]])
        first_broken = success & (np.cumsum(success) <= 3)
        assert (kept == (correct & (rows["position"] < 3) | first_broken)).all()
        for place in np.flatnonzero(kept):
            clean = digits.images("test", rows["example_index"][[place]])
            assert rows["clean_image"][place] == clean.tobytes()
        assert all(image is None for image in rows["clean_image"][~kept])
    assert (~columns(bim, 0.0)["clean_correct"]).any(), (
        "no example was left unattacked: the test shows nothing"
    )


def test_perceptibility_is_of_the_full_budget(bim: pa.Table) -> None:
    near = bim.filter((pa.compute.field("position") < 64) & pa.compute.field("success")).to_pandas()
    assert len(near) > 20
    assert ((near["full_l2"] - near["l2"]).abs() > 1e-3).mean() > 0.5  # the first success is another image
    assert (near["full_linf"] <= near["epsilon"] + 2e-6).all()
    clean = columns(bim, 0.0)
    assert np.isinf(clean["psnr"][clean["clean_correct"] & (clean["position"] < 64)]).all()


def test_the_cut_into_units_does_not_matter(folder: Path, evaluator: Evaluator) -> None:
    spec = attack_spec("bim")
    whole = rows_of(folder, evaluator(unit(spec, 0, 40)))
    parts = [rows_of(folder, evaluator(unit(spec, start, start + 20))) for start in (0, 20)]
    order = [("cell_id", "ascending"), ("position", "ascending")]
    together = pa.concat_tables(parts).sort_by(order).to_pandas()
    whole = whole.sort_by(order).to_pandas()
    clean = ["clean_label", "clean_confidence", "clean_correct"]
    assert together[clean].equals(whole[clean])  # to the bit
    exact = ["cell_id", "position", "example_index", "label", "adv_label", "success", "gradient_calls"]
    assert together[exact].equals(whole[exact])
    for name in ("adv_confidence", "linf", "l2", "full_linf", "full_l2"):
        np.testing.assert_allclose(together[name], whole[name], atol=1e-4)


def test_a_units_epsilons_may_come_alone(folder: Path, evaluator: Evaluator, bim: pa.Table) -> None:
    alone = rows_of(folder, evaluator(unit(attack_spec("bim"), 0, 100, epsilons=[0.2])))
    assert (
        alone["success"].to_pylist() == bim.filter(pa.compute.field("epsilon") == 0.2)["success"].to_pylist()
    )


@pytest.mark.parametrize("change", ["far", "outside", "same"])
def test_claims_are_measured_not_believed(
    folder: Path, evaluator: Evaluator, users_attacks: str, change: str
) -> None:
    """A user's attack may return bare images: far away, outside the box, or not adversarial at all."""
    spec = attack_spec("mine", factory=f"{users_attacks}:Returns", images=change)
    rows = rows_of(folder, evaluator(unit(spec, 0, 40, epsilons=[0.3, 10.0]))).to_pandas()
    far = rows[rows["epsilon"] == 10.0]
    assert not rows[rows["epsilon"] == 0.3]["success"].any()
    assert far["success"].any() == (change == "far")
    correct = rows["clean_correct"]
    assert (np.isinf(rows["linf"]) == (correct & ~rows["success"])).all()
    assert rows["gradient_calls"].isna().tolist() == correct.tolist()  # nobody counted
    if change == "far":
        near = far[far["clean_correct"]]
        expected = LINF.distance(*images_and_negatives(near["example_index"].to_numpy()))
        np.testing.assert_allclose(near["full_linf"], expected)


def test_a_targeted_success_is_the_target(folder: Path, evaluator: Evaluator, users_attacks: str) -> None:
    spec = attack_spec("aims", factory=f"{users_attacks}:Aims")
    rows = rows_of(folder, evaluator(unit(spec, 0, 100, epsilons=[0.3, 10.0]))).to_pandas()
    far = rows[(rows["epsilon"] == 10.0) & rows["clean_correct"]]
    _, negatives = images_and_negatives(far["example_index"].to_numpy())
    model = evaluator._victims[ID].model

    def reached(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images)).argmax(axis=1) == (far["label"] + 5) % 10

    assert (far["success"] == reached(negatives)).all() and far["success"].any()
    assert (far["adv_label"] == (far["label"] + 5) % 10)[far["success"]].all()
    fooled = np.asarray(model(negatives)).argmax(axis=1) != far["label"]
    assert (fooled & ~far["success"]).any(), "no image fooled the victim without reaching its target"
    rounded = np.rint(negatives * 255).astype(np.float32) / 255
    assert (far["success_uint8"] == far["success"] & reached(rounded)).all()
    assert not rows[rows["epsilon"] == 0.3]["success"].any()
    assert rows["target"].isna().tolist() == (~rows["clean_correct"]).tolist()
    assert (far["target"] == (far["label"] + 5) % 10).all()


def test_a_nearest_distance_is_measured_on_an_image_that_fools(
    folder: Path, evaluator: Evaluator, users_attacks: str
) -> None:
    spec = attack_spec("claims", factory=f"{users_attacks}:Claims")
    rows = rows_of(folder, evaluator(unit(spec, 0, 80, epsilons=[0.1, 0.3]))).to_pandas()
    first, second = (rows[rows["epsilon"] == epsilon] for epsilon in (0.1, 0.3))
    assert (first["nearest"].isna() == ~first["clean_correct"]).all()
    assert first["nearest"].tolist() == pytest.approx(second["nearest"].tolist(), nan_ok=True)
    attacked = first[first["clean_correct"]]
    images, negatives = images_and_negatives(attacked["example_index"].to_numpy())
    answers = np.asarray(evaluator._victims[ID].model(negatives)).argmax(axis=1)
    claimed = (np.arange(len(attacked)) % 2 == 0) & (np.arange(len(attacked)) > 0)
    real = claimed & (answers != attacked["label"])
    assert (np.isfinite(attacked["nearest"]) == real).all() and real.any()
    assert np.isinf(attacked["nearest"].iloc[0]), "the clean image was claimed to be adversarial"
    np.testing.assert_allclose(attacked["nearest"][real], LINF.distance(images, negatives)[real])
    # No image was found, so nothing says how visible one is.
    assert (attacked["psnr"].notna() == (real & (attacked["position"] < 64))).all()


@pytest.mark.parametrize("name", ["deepfool", "ddn"])
def test_distances_are_kept_whatever_the_epsilons(folder: Path, evaluator: Evaluator, name: str) -> None:
    spec = attack_spec(name, "l2")

    def rows(*epsilons: float) -> Any:
        return rows_of(folder, evaluator(unit(spec, 0, 60, epsilons=epsilons))).to_pandas()

    far = rows(100.0)
    attacked = far["clean_correct"]
    assert far[attacked]["success"].all() and (far["nearest"][attacked] == far["l2"][attacked]).all()
    median = far["nearest"].median()
    for found in (rows(0.0), rows(0.0, 1e-4, median)):
        for _, cell in found.groupby("epsilon"):
            np.testing.assert_array_equal(cell["nearest"], far["nearest"])
            expected = far["nearest"] <= cell["epsilon"].iloc[0]
            assert cell["success"].tolist() == expected.tolist()
    plain = rows_of(folder, evaluator(unit(attack_spec("fgsm", "l2"), 0, 20)))
    assert plain["nearest"].null_count == plain.num_rows


def test_a_search_that_failed_is_not_an_invisible_image(folder: Path, evaluator: Evaluator) -> None:
    """One step of DeepFool: where it does not get there, what it returns is the clean image."""
    spec = attack_spec("deepfool", "l2", steps=1, overshoot=0.0)
    rows = rows_of(folder, evaluator(unit(spec, 0, 64, epsilons=[0.0, 0.5]))).to_pandas()
    attacked = rows["clean_correct"]
    failed = attacked & np.isinf(rows["nearest"])
    assert failed.any() and (attacked & ~failed).any()
    for name in ("psnr", "full_l2", "changed_share"):
        assert (rows[name].isna() == ~(attacked & ~failed)).all()
    far = rows[(rows["epsilon"] == 0.5) & attacked & ~failed]
    assert np.isfinite(far["psnr"]).all()


def test_flags_stand_with_the_examples_that_they_touch(
    folder: Path, evaluator: Evaluator, users_attacks: str, bim: pa.Table
) -> None:
    spec = attack_spec("aims", factory=f"{users_attacks}:Aims")
    rows = rows_of(folder, evaluator(unit(spec, 0, 100))).to_pandas()
    correct, threes = rows["clean_correct"], rows["label"] == 3
    assert rows[~correct]["flags"].isna().all() and not correct.all()
    for chosen, names in ((~threes, ("probabilities",)), (threes, ("probabilities", "zero_gradients"))):
        assert {tuple(found) for found in rows[correct & chosen]["flags"]} == {names}
    assert bim["flags"].null_count == len(bim), "nothing is wrong with this victim"


def images_and_negatives(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = load(DatasetSpec(name="digits")).images("test", indices)
    return images, 1 - images


@pytest.mark.parametrize(
    ("change", "message"), [("nan", "finite floats"), ("shape", r"returned images of shape")]
)
def test_what_an_attack_returns_is_checked(
    folder: Path, evaluator: Evaluator, users_attacks: str, change: str, message: str
) -> None:
    spec = attack_spec("mine", factory=f"{users_attacks}:Returns", images=change)
    with pytest.raises(AttackError, match=message):
        evaluator(unit(spec, 0, 10))


@pytest.fixture
def users_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "attacks_for_tests.py").write_text(USERS_ATTACKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "attacks_for_tests", raising=False)
    return "attacks_for_tests"


@needs_real_data
def test_images_large_enough_have_a_similarity_that_falls_with_epsilon(tmp_path: Path) -> None:
    recipe = Recipe(epochs=5, batch_size=32, learning_rate=2e-3)
    spec = victim_spec("fashion", dataset=DatasetSpec(name="fashion_mnist"), recipe=recipe)
    fashion = replace(unit(attack_spec("fgsm"), 50, 70), victim=spec)
    report = Evaluator(settings(tmp_path, data_dir=str(REAL_DATA)))(fashion)
    rows = rows_of(tmp_path, report).to_pandas()
    measured = rows["clean_correct"] & (rows["position"] < 64)
    assert measured.any() and (rows["ssim"].notna() == measured).all()
    similarity = rows[measured].groupby("epsilon")["ssim"].mean()
    assert similarity[0.0] == pytest.approx(1, abs=1e-5)
    assert 1 > similarity[0.05] > similarity[0.2] > -1


def test_an_attack_cannot_change_the_clean_images(evaluator: Evaluator, users_attacks: str) -> None:
    spec = attack_spec("mine", factory=f"{users_attacks}:Returns", images="in place")
    with pytest.raises(ValueError, match="read-only"):
        evaluator(unit(spec, 0, 10))


def test_positions_beyond_the_test_split_are_refused(evaluator: Evaluator) -> None:
    with pytest.raises(ValueError, match=r"positions \[490, 510\)"):
        evaluator(unit(attack_spec("fgsm"), 490, 510))


def test_nothing_is_retraced(evaluator: Evaluator) -> None:
    evaluator(
        unit(attack_spec("fgsm"), 0, 33)
    )  # some of these it answers rightly, or no gradient is asked for
    network = network_for(evaluator._victims[ID].model, (8, 8, 1))
    traces = network.traces
    for stop in (1, 7, 32):
        evaluator(unit(attack_spec("fgsm"), 0, stop))
    assert network.traces == traces >= 2  # forwards, gradients of one loss, and whatever other attacks need


def test_a_lost_cache_is_rebuilt_with_the_same_weights(tmp_path: Path, trained: Done) -> None:
    """Corrupt weights are noticed and trained again; here to the same bits, so that the pin holds."""
    first = Evaluator(settings(tmp_path))(TRAINING)
    assert first.trained and first.weights == trained.weights
    weights = tmp_path / "victims" / ID / f"{first.weights}.weights.h5"
    weights.write_bytes(weights.read_bytes()[:2000])
    again = Evaluator(settings(tmp_path))(TRAINING)
    assert again.trained and again.weights == first.weights
    assert not Evaluator(settings(tmp_path))(TRAINING).trained


def test_other_weights_than_the_pinned_are_refused_with_a_way_out(
    folder: Path, tmp_path: Path, trained: Done
) -> None:
    pinned = "0" * 64
    Folder.at(tmp_path / "out").publish(f"pins/{ID}.{pinned}.json", b"{}")
    here = replace(settings(tmp_path), cache=str(folder / "victims"))
    evaluator = Evaluator(here)
    for one in (TRAINING, unit(attack_spec("fgsm"), 0, 5)):
        with pytest.raises(WeightsMismatchError, match="restore the cache folder") as error:
            evaluator(one)
        assert f"shards/{ID}" in str(error.value) and f"pins/{ID}.*" in str(error.value)
    assert not (tmp_path / "out" / "shards").exists()
    (tmp_path / "out" / "pins" / f"{ID}.{pinned}.json").unlink()
    assert evaluator(TRAINING).weights == trained.weights


def test_the_oldest_victims_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.evaluator._VICTIM_BYTES", 3 * 2**25)
    evaluator = Evaluator(settings(tmp_path))
    recipe = Recipe(epochs=1, examples=100)
    units = [Training("train", victim_spec(f"victim-s{seed}", seed=seed, recipe=recipe)) for seed in range(3)]
    for seed in (0, 1, 0, 2):
        evaluator(units[seed])
    assert list(evaluator._victims) == ["victim-s0", "victim-s2"]
    report = evaluator(units[1])
    assert not report.trained


def test_answers_that_are_not_finite_are_flagged_and_no_success() -> None:
    import tensorflow as tf

    from workers.measure import Clock, Measurement
    from workers.victims.architectures import build_model
    from workers.victims.victim import Victim

    digits = load(DatasetSpec(name="digits"))
    network = build_model(model_spec("small_cnn"), digits.shape, digits.classes)

    def sometimes(images: Any, training: bool = False) -> Any:
        logits = network(images, training=training)
        return tf.where(images[:, 2, 3, :] < 0.4, logits * np.nan, logits)

    victim = Victim(sometimes, digits, "0" * 64)
    table = Measurement(unit(attack_spec("fgsm"), 0, 60), victim, Clock()).rows()
    rows = columns(table, 0.2)
    dark = digits.images("test", victim.order[:60])[:, 2, 3, 0] < 0.4
    assert 0 < dark.sum() < 60 and np.isnan(rows["clean_label"].astype(float))[dark].all()
    assert not rows["clean_correct"][dark].any() and not rows["success"][dark].any()
    flagged = np.array([flags is not None and "non_finite_logits" in flags for flags in rows["flags"]])
    assert flagged[dark].all() and rows["clean_correct"].any()
    assert 0 < victim.clean_accuracy().share < 0.5

    never = Victim(lambda images, training=False: network(images) * np.nan, digits, "0" * 64)
    with pytest.raises(ArchitectureError, match="every image with NaN"):
        never.clean_accuracy()


class Corner:
    """Sets the pixel in the corner, which is 0 in all digits, and claims success."""

    def __init__(self, norm: str, level: float) -> None:
        self.level = level  # of 255

    def __call__(self, model: Any, images: np.ndarray, labels: Any, epsilons: Any, **rest: Any) -> np.ndarray:
        found = np.stack([images] * len(epsilons))
        found[:, :, 0, 0, 0] = np.float32(self.level / 255)
        return found


@pytest.mark.parametrize(
    ("level", "success", "success_uint8", "flags"),
    [
        (0.3, False, False, None),
        (0.45, True, False, None),  # rounded away
        (0.9, True, True, None),
        (3.0, False, False, ["non_finite_logits"]),
    ],
)
def test_what_an_image_is_worth_rounded_or_unanswered(
    evaluator: Evaluator, level: float, success: bool, success_uint8: bool, flags: list[str] | None
) -> None:
    import tensorflow as tf

    from workers.measure import Clock, Measurement
    from workers.victims.victim import Victim

    network, digits = evaluator._victims[ID].model, load(DatasetSpec(name="digits"))

    def cornered(images: Any, training: bool = False) -> Any:
        """Another answer where the corner is above 0.4 of 255, and none above 2."""
        logits, corner = network(images, training=training), 255 * images[:, 0, 0, :]
        answer = tf.where(corner > 0.4, tf.roll(logits, 1, axis=1), logits)
        return tf.where(corner > 2, answer * np.nan, answer)

    corner = attack_spec("corner", factory="tests.test_evaluate:Corner", level=level)
    measured = Measurement(unit(corner, 0, 60, epsilons=[0.1]), Victim(cornered, digits, "0" * 64), Clock())
    rows = measured.rows().to_pandas()
    right = rows[rows["clean_correct"]]
    assert len(right) > 40
    assert (right["success"] == success).all() and (right["success_uint8"] == success_uint8).all()
    assert all((list(one) if one is not None else None) == flags for one in right["flags"])


def test_a_lost_claim_is_flagged_at_its_own_epsilon_alone(evaluator: Evaluator) -> None:
    """At epsilon 0 nothing is claimed; there the mark would say of the clean accuracy what is not so."""
    import tensorflow as tf

    from workers.measure import Clock, Measurement
    from workers.victims.victim import Victim

    network, digits = evaluator._victims[ID].model, load(DatasetSpec(name="digits"))

    def noisy(images: Any, training: bool = False) -> Any:
        return network(images + tf.random.normal(tf.shape(images), stddev=0.25), training=training)

    def lost(attack: AttackSpec) -> tuple[Any, np.ndarray]:
        victim = Victim(noisy, digits, "0" * 64)
        rows = Measurement(unit(attack, 0, 150, epsilons=[0.0, 0.05, 0.1]), victim, Clock()).rows()
        rows = rows.to_pandas()
        return rows, np.array([one is not None and "lost_claims" in one for one in rows["flags"]])

    rows, flagged = lost(attack_spec("bim", steps=3))
    assert flagged.any() and not flagged[rows["epsilon"] == 0].any()
    claimed = rows["wrong_draws"].notna()
    assert (flagged == (claimed & ~rows["success"] & (rows["epsilon"] > 0))).all()
    kept = rows["flags"][rows["epsilon"] == 0].dropna()
    assert all("randomised" in one for one in kept) and len(kept) == rows["clean_correct"].sum() / 3
    # Of bare images nobody has claimed anything.
    _, none = lost(attack_spec("corner", factory="tests.test_evaluate:Corner", level=1.0))
    assert not none.any()


def test_a_victim_is_always_asked_for_as_many_images_at_once() -> None:
    import tensorflow as tf

    from workers.victims.victim import BATCH, Victim

    def counts(images: Any) -> Any:
        asked = tf.cast(tf.shape(images)[0], tf.float32)
        return asked + 0 * tf.reduce_sum(images, axis=(1, 2)) + tf.zeros((1, 10))

    digits = load(DatasetSpec(name="digits"))
    victim = Victim(counts, digits, "0" * 64)
    for number in (1, 7, BATCH, 200):
        logits = victim.logits(digits.images("test", np.arange(number)))
        assert logits.shape == (number, 10) and (logits == BATCH).all()
    assert victim.logits(digits.images("test", np.arange(0))).shape == (0, 10)
