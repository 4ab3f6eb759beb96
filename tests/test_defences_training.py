"""Defences in training: what a step trains on and for, against independent computations; the result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from orchestrator.results.query import run_query
from orchestrator.store.folder import Store
from tests.support.sweeps import sweep
from tests.support.victims import model_spec, victim_spec
from workers.attacks import build
from workers.datasets import Dataset, load, stratified_order
from workers.defences import DEFENCES, TrainingDefence, ascent
from workers.defences.adversarial_training import AdversarialTraining
from workers.defences.base import Moment
from workers.defences.gaussian_augmentation import GaussianAugmentation
from workers.defences.label_smoothing import LabelSmoothing
from workers.defences.trades import Trades
from workers.norms import NORMS, NormName
from workers.recipe import Recipe
from workers.unit import DatasetSpec, DefenceSpec
from workers.victims.base import TrainingError
from workers.victims.batch_norm import batch_norms
from workers.victims.cache import weights_hash
from workers.victims.fitting import attacked_examples
from workers.victims.training import build_and_train

pytestmark = pytest.mark.tf

SHAPE = (6, 5, 2)


def spec(name: str, **options: Any) -> DefenceSpec:
    return DefenceSpec(name=name, options=options, in_training=True)


def moment(epoch: float = 9.0, epochs: int = 9, seed: tuple[int, int] = (0, 0)) -> Moment:
    import tensorflow as tf

    return Moment(tf.constant(seed, tf.int32), tf.constant(epoch, tf.float32), epochs)


def affine_answers(classes: int, size: float = 1.0) -> tuple[Any, NDArray[np.float64]]:
    """Answers of an affine network, and its weights (D, classes)."""
    import tensorflow as tf

    weights = size * np.random.default_rng(3).normal(size=(int(np.prod(SHAPE)), classes))
    matrix = tf.constant(weights, tf.float32)
    return lambda images, training: tf.reshape(images, (tf.shape(images)[0], -1)) @ matrix, weights


def some_images(count: int = 9) -> NDArray[np.float32]:
    """With many black and white pixels, as digits have."""
    images = np.random.default_rng(1).random((count, *SHAPE), np.float32)
    return np.clip(1.6 * images - 0.3, 0, 1).astype(np.float32)


# -- the steps, against `workers.norms` ----------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_steps_and_projections_are_those_of_the_engine(norm: NormName) -> None:
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(9, *SHAPE)).astype(np.float32)
    gradients[0], gradients[1] = 0, gradients[1] * 1e-30
    found = np.asarray(ascent.direction(norm, gradients))
    np.testing.assert_allclose(found, NORMS[norm].direction(gradients), rtol=2e-6, atol=1e-7)
    clean = some_images()
    for radius in (0.0, 1e-3, 0.3, 4.0):
        moved = clean + generator.normal(size=clean.shape).astype(np.float32)
        moved[0] = clean[0]
        radii = np.full((9, 1, 1, 1), radius, np.float32)
        expected = NORMS[norm].confine(moved, clean, radii)
        found = np.asarray(ascent.confined(norm, moved, clean, np.float32(radius)))
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-7)
        assert (NORMS[norm].distance(clean, found) <= radius * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_uniform_in_the_ball_and_each_images_own(norm: NormName) -> None:
    points = np.asarray(ascent.drawn(norm, (400, *SHAPE), np.array([5, 7], np.int32)))
    again = np.asarray(ascent.drawn(norm, (400, *SHAPE), np.array([5, 7], np.int32)))
    other = np.asarray(ascent.drawn(norm, (400, *SHAPE), np.array([5, 8], np.int32)))
    np.testing.assert_array_equal(points, again)
    assert abs(np.corrcoef(points.ravel(), other.ravel())[0, 1]) < 0.02
    generator = np.random.default_rng(0)
    ours, engine = (
        np.abs(NORMS[norm].distance(np.zeros_like(some), some))
        for some in (points, np.stack([NORMS[norm].draw(generator, SHAPE) for _ in range(400)]))
    )
    assert stats.ks_2samp(ours, engine).pvalue > 0.01
    assert stats.ks_2samp(points[:, 0, 0, 0], points[:, 3, 2, 1]).pvalue > 0.01 and abs(points.mean()) < 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_finds_the_worst_of_the_ball_of_an_affine_network(norm: NormName) -> None:
    """Two classes: the loss rises along one direction, so that the worst point of ball and box is known."""
    answers, weights = affine_answers(2)
    images, labels = some_images(), np.arange(9) % 2
    away = (weights[:, 1] - weights[:, 0]).reshape(SHAPE) * np.where(labels == 0, 1, -1)[:, None, None, None]
    radius = {"linf": 0.2, "l2": 1.0}[norm]
    made = AdversarialTraining(norm=norm, epsilon=radius, steps=60, relative_step_size=0.1, ramp=0)
    found = np.asarray(made.altered(answers, images, labels, moment()))
    assert (NORMS[norm].distance(images, found) <= radius * (1 + 1e-5)).all()
    assert found.min() >= 0 and found.max() <= 1
    if norm == "linf":
        best = np.clip(images + radius * np.sign(away), 0, 1)
        np.testing.assert_allclose(found, best, atol=1e-6)
        return
    gained = ((found - images) * away).sum(axis=(1, 2, 3))
    # The optimum by its multiplier: clip(x + t·away) with t such that the length is the radius.
    for image, direction, reached in zip(images.astype(float), away, gained, strict=True):
        low, high = 0.0, 1e3
        for _ in range(80):
            t = (low + high) / 2
            change = np.clip(image + t * direction, 0, 1) - image
            low, high = (t, high) if np.linalg.norm(change) < radius else (low, t)
        assert reached >= 0.99 * (change * direction).sum()


def test_steps_are_the_same_written_out_and_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, _ = affine_answers(4)
    images, labels = some_images(), np.arange(9) % 4
    made = AdversarialTraining(epsilon=0.1, norm="l2", steps=5, ramp=0)
    written_out = made.altered(answers, images, labels, moment())
    monkeypatch.setattr(ascent, "_WRITTEN_OUT", 4)
    np.testing.assert_array_equal(written_out, made.altered(answers, images, labels, moment()))


# -- what is lowered ----------------------------------------------------------------------------------------


def test_smoothed_labels_are_those_of_keras_and_of_the_formula() -> None:
    import keras

    answers, weights = affine_answers(5)
    images, labels = some_images(), np.arange(9) % 5
    losses, logits = LabelSmoothing(smoothing=0.3).losses(answers, images, images, labels)
    one_hot = np.eye(5)[labels]
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None)
    np.testing.assert_allclose(losses, theirs(one_hot, logits), rtol=1e-5)
    exact = images.reshape(9, -1).astype(float) @ weights
    expected = -((0.7 * one_hot + 0.06) * special.log_softmax(exact, axis=1)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_trades_is_the_formula_of_its_paper() -> None:
    answers, weights = affine_answers(5, 0.3)
    images, labels = some_images(), np.arange(9) % 5
    moved = np.clip(images + 0.1, 0, 1)
    losses, logits = Trades(epsilon=0.1, beta=4.0).losses(answers, images, moved, labels)
    clean, after = (some.reshape(9, -1).astype(float) @ weights for some in (images, moved))
    p, q = special.softmax(clean, axis=1), special.softmax(after, axis=1)
    expected = -np.log(p[np.arange(9), labels]) + 4 * special.rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(logits, after, rtol=1e-4, atol=1e-5)  # its accuracy is that of moved images


def test_trades_moves_images_where_their_answers_change() -> None:
    answers, weights = affine_answers(5, 0.3)
    images, labels = some_images(), np.arange(9) % 5
    trades = Trades(epsilon=0.1, ramp=0)
    found = np.asarray(trades.altered(answers, images, labels, moment()))
    assert 0.09 < np.abs(found - images).max() <= 0.1 + 1e-6
    noise = np.random.default_rng(0).choice([-0.1, 0.1], (50, *images.shape))
    p = special.softmax(images.reshape(9, -1).astype(float) @ weights, axis=1)

    def apart(some: NDArray[Any]) -> NDArray[Any]:
        q = special.softmax(some.reshape(9, -1).astype(float) @ weights, axis=1)
        return special.rel_entr(p, q).sum(axis=1)

    others = np.max([apart(np.clip(images + one, 0, 1)) for one in noise], axis=0)
    assert (apart(found) > others).all()
    # The labels say nothing of where that is.
    np.testing.assert_array_equal(found, trades.altered(answers, images, (labels + 1) % 5, moment()))


def test_noise_has_its_size_is_not_clipped_and_differs_from_step_to_step() -> None:
    answers, _ = affine_answers(2)
    images = np.zeros((300, *SHAPE), np.float32)
    made = GaussianAugmentation(sigma=0.2)
    first, again, other = (
        np.asarray(made.altered(answers, images, np.zeros(300, int), moment(seed=seed)))
        for seed in ((0, 4), (0, 4), (0, 5))
    )
    np.testing.assert_array_equal(first, again)
    assert first.std() == pytest.approx(0.2, rel=0.02) and first.min() < -0.5
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02
    assert stats.kstest(first.ravel() / 0.2, "norm").pvalue > 0.001


def test_epsilon_grows_over_the_first_epochs_and_no_longer() -> None:
    def radii(ramp: int | None, epochs: int, *at: float) -> list[float]:
        made = AdversarialTraining(epsilon=0.3, ramp=ramp)
        return [float(made.radius(moment(epoch, epochs))) for epoch in at]

    assert radii(4, 10, 0, 1, 2, 4, 9.9) == pytest.approx([0, 0.075, 0.15, 0.3, 0.3])
    assert radii(None, 12, 0, 2, 4, 11) == pytest.approx([0, 0.15, 0.3, 0.3])  # a third of the epochs
    assert radii(0, 10, 0, 5) == pytest.approx([0.3, 0.3])


def test_gradients_are_counted() -> None:
    counts = {
        1: (LabelSmoothing(), GaussianAugmentation()),
        2: (AdversarialTraining(epsilon=0.1, attack="fgsm"),),
        8: (AdversarialTraining(epsilon=0.1),),
        12: (Trades(epsilon=0.1),),
    }
    for count, defences in counts.items():
        assert all(defence.gradients == count for defence in defences)


def test_each_says_what_it_is_and_where_it_comes_from() -> None:
    found = {name: one for name, one in DEFENCES.items() if one.in_training}
    assert set(found) == {"adversarial_training", "trades", "gaussian_augmentation", "label_smoothing"}
    for name, defence in found.items():
        assert issubclass(defence, TrainingDefence) and not defence.at_inference
        assert defence.name == name and defence.VERSION >= 1 and "arXiv:" in (defence.__doc__ or "")


# -- what comes of it ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


RECIPE = Recipe(epochs=10, batch_size=32, learning_rate=5e-3)


@pytest.fixture(scope="module")
def robust(digits: Dataset) -> tuple[Any, Any]:
    return build_and_train(
        victim_spec(defence=spec("adversarial_training", epsilon=0.2), recipe=RECIPE), digits
    )


def left(model: Any, digits: Dataset, config: dict[str, Any], epsilon: float) -> float:
    """Robust accuracy on 200 test images."""
    images, labels = digits.images("test", np.arange(200)), digits.labels("test", np.arange(200))
    return float(build(config)(model, images, labels, [epsilon]).robust_accuracy[0])


def test_what_is_trained_on_attacks_withstands_them(digits: Dataset, robust: tuple[Any, Any]) -> None:
    plain, _ = build_and_train(victim_spec(recipe=RECIPE), digits)
    model, history = robust
    pgd = {"name": "pgd", "steps": 20}
    assert left(plain, digits, pgd, 0.2) < 0.1 < 0.2 < left(model, digits, pgd, 0.2)
    assert left(plain, digits, pgd, 0.1) + 0.2 < left(model, digits, pgd, 0.1)
    last = history.rows[-1]
    # What is said of attacked images stands apart from what is said of clean ones.
    assert last["accuracy"] > 0.85 and last["validation_accuracy"] > 0.85
    assert last["adversarial_accuracy"] < 0.6 and last["validation_adversarial_accuracy"] < 0.6


def test_validation_under_attack_is_what_the_engine_finds(digits: Dataset, robust: tuple[Any, Any]) -> None:
    """PGD of 10 steps on the images held out, another implementation of it: within sampling of its starts."""
    model, history = robust
    held_out = stratified_order(digits.y_train, 2)[
        : attacked_examples(AdversarialTraining(epsilon=0.2), 1167)
    ]
    assert len(held_out) == 84
    images, labels = digits.images("train", held_out), digits.labels("train", held_out)
    attack = build({"name": "pgd", "steps": 10, "relative_step_size": 0.25, "loss": "cross_entropy"})
    found = attack(model, images, labels, [0.2]).robust_accuracy[0]
    assert found == pytest.approx(history.rows[-1]["validation_adversarial_accuracy"], abs=0.05)


def test_fgsm_is_examined_by_more_than_itself(digits: Dataset) -> None:
    """A step of twice epsilon and no room to learn it: robust to its own attack, and to no other."""
    fgsm = spec("adversarial_training", epsilon=0.2, attack="fgsm", relative_step_size=2.0, ramp=0)
    recipe = Recipe(epochs=6, batch_size=32, learning_rate=5e-3)
    _, history = build_and_train(victim_spec(defence=fgsm, recipe=recipe), digits)
    last = history.rows[-1]
    assert last["validation_adversarial_accuracy"] < last["adversarial_accuracy"] - 0.15


def test_each_defence_makes_another_network_and_says_what_it_has_measured(digits: Dataset) -> None:
    defences = {
        "none": DefenceSpec(name="none"),
        "trades": spec("trades", epsilon=0.6, norm="l2", steps=2),
        "fgsm": spec("adversarial_training", epsilon=0.1, attack="fgsm"),
        "noise": spec("gaussian_augmentation", sigma=0.2),
        "smooth": spec("label_smoothing", smoothing=0.2),
    }
    short, hashes = Recipe(epochs=1, examples=100, batch_size=32), set()
    for name, defence in defences.items():
        model, history = build_and_train(victim_spec(recipe=short, defence=defence), digits)
        hashes.add(weights_hash(model))
        assert ("adversarial_accuracy" in history.rows[0]) == (name in ("trades", "fgsm"))
        # Of clean images, whatever it was trained on.
        rows = digits.images("train", stratified_order(digits.y_train, 2)[10:100])
        labels = digits.labels("train", stratified_order(digits.y_train, 2)[10:100])
        accuracy = (model(rows).numpy().argmax(axis=1) == labels).mean()
        if name not in ("none", "smooth"):
            assert history.rows[0]["accuracy"] == pytest.approx(accuracy)
    assert len(hashes) == len(defences)


NETS = """
import keras


def normalised(*, input_shape, classes):
    layers = keras.layers
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Conv2D(8, 3, use_bias=False, kernel_regularizer="l2"),
        layers.BatchNormalization(momentum=0.999),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Flatten(),
        layers.ActivityRegularization(l2=1e-4),
        layers.Dense(classes),
    ])
"""


@pytest.fixture
def normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "normalised_for_defences.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "normalised_for_defences", raising=False)
    return model_spec("mine", factory="normalised_for_defences:normalised")


def test_moving_statistics_follow_what_is_trained_on(digits: Dataset, normalised: Any) -> None:
    """With noise of 0.5 the images are others: a network judged by the statistics of clean ones would not
    answer as it has learnt to. With its own momentum of 0.999 they would be initial values."""
    noisy = victim_spec(
        model=normalised,
        defence=spec("gaussian_augmentation", sigma=0.5),
        recipe=Recipe(epochs=6, batch_size=32, learning_rate=3e-3),
    )
    model, history = build_and_train(noisy, digits)
    [norm] = batch_norms(model)
    assert norm.momentum == 0.999
    images = digits.images("train", np.arange(600))
    images = images + 0.5 * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    seen = model.layers[0](images).numpy()
    np.testing.assert_allclose(norm.moving_variance.numpy(), seen.var(axis=(0, 1, 2)), rtol=0.15)
    assert history.rows[-1]["validation_accuracy"] > 0.7


def test_regularised_layers_train_under_attack_too(digits: Dataset, normalised: Any) -> None:
    attacked = victim_spec(
        model=normalised,
        defence=spec("adversarial_training", epsilon=0.1, steps=2),
        recipe=Recipe(epochs=6, batch_size=32, learning_rate=5e-3),
    )
    _, history = build_and_train(attacked, digits)
    losses = [row["loss"] for row in history.rows]
    assert all(np.isfinite(losses)) and history.rows[-1]["validation_adversarial_accuracy"] > 0.4


def test_a_loss_that_is_not_finite_stops_a_defended_training_too(digits: Dataset) -> None:
    wrong = Recipe(epochs=3, batch_size=32, learning_rate=1e30)
    for defence in (spec("adversarial_training", epsilon=0.1, steps=1), spec("label_smoothing")):
        with pytest.raises(TrainingError, match="after epoch 1; lower the learning_rate"):
            build_and_train(victim_spec(recipe=wrong, defence=defence), digits)


def test_early_stopping_goes_by_the_loss_under_attack(digits: Dataset) -> None:
    stopping = Recipe(epochs=30, examples=120, batch_size=16, learning_rate=2e-2, early_stopping=2)
    attacked = victim_spec(
        recipe=stopping, defence=spec("adversarial_training", epsilon=0.1, attack="fgsm", ramp=0)
    )
    _, history = build_and_train(attacked, digits)
    assert len(history.rows) < 30
    clean = [row["validation_loss"] for row in history.rows]
    # By the clean loss it would have ended elsewhere.
    assert int(np.argmin(clean)) != len(clean) - 3


def test_no_training_stops_before_its_ramp_is_over(digits: Dataset) -> None:
    """At a rate that learns nothing, it would stop after two epochs, never trained at its epsilon."""
    idle = Recipe(epochs=6, examples=60, batch_size=32, learning_rate=1e-9, early_stopping=1)
    options = {"epsilon": 0.1, "attack": "fgsm", "ramp": 4}
    _, history = build_and_train(
        victim_spec(recipe=idle, defence=spec("adversarial_training", **options)), digits
    )
    assert len(history.rows) > 4


# -- in a sweep ---------------------------------------------------------------------------------------------

GRID = """\
models: [{name: small_cnn, width: 8}]
datasets: [digits]
attacks: [{name: bim, steps: 5}, {name: bim, steps: 5, adaptive: false}]
epsilons: [0, 0.1]
examples: 60
slice: 60
train: {epochs: 4, batch_size: 32, learning_rate: 0.005}
defences:
  - none
  - {name: gaussian_augmentation, sigma: 0.1}
  - [{name: gaussian_augmentation, sigma: 0.1}, {name: bit_depth, bits: 1}, median_smoothing]
"""


def test_a_combination_has_the_network_of_its_part_in_training(tmp_path: Path) -> None:
    grid, output = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(GRID)
    assert sweep(grid, output, runner="workers.evaluator:Evaluator").exit_code == 0
    assert len(list((tmp_path / "victims").glob("*/*.json"))) == 2  # two networks for three victims
    results = Store(str(output)).results()
    victims = run_query(results, "FROM victims").to_pandas().set_index("defence")
    combined = "gaussian_augmentation + bit_depth + median_smoothing"
    assert set(victims.index) == {"none", "gaussian_augmentation", combined}
    assert victims.loc[combined, "weights"] == victims.loc["gaussian_augmentation", "weights"]
    assert victims.loc["none", "weights"] != victims.loc["gaussian_augmentation", "weights"]
    cells = run_query(results, "FROM cells").to_pandas()
    assert (cells["status"] == "done").all()
    options = "gaussian_augmentation (sigma=0.1) + bit_depth (bits=1) + median_smoothing"
    by = cells.groupby(["defence", "adaptive"]).size().to_dict()
    assert by == {
        ("none", True): 2,
        ("gaussian_augmentation (sigma=0.1)", True): 2,
        (options, True): 2,
        (options, False): 2,
    }
    clean = cells[cells["epsilon"] == 0].set_index(["defence", "adaptive"])["robust_accuracy"]
    # Images go through both parts, in their order: its answers are those of the network behind them.
    from workers.defences import defend
    from workers.storage import Folder
    from workers.unit import NO_DEFENCE
    from workers.victims.cache import VictimCache
    from workers.victims.victim import victim_from_cache

    digits = load(DatasetSpec(name="digits"))
    manifests = VictimCache(Folder.at(str(tmp_path / "victims"))).entries()
    [manifest] = [one.manifest for one in manifests if "augmentation" in one.victim_id]
    assert manifest is not None and manifest.defence["name"] == "gaussian_augmentation"
    network = victim_spec(manifest.victim_id, model=model_spec("small_cnn", width=8))
    victim = victim_from_cache(network, digits, VictimCache(Folder.at(str(tmp_path / "victims"))), manifest)
    parts = (DefenceSpec(name="bit_depth", options={"bits": 1}), DefenceSpec(name="median_smoothing"))
    images, labels = digits.images("test", victim.order[:60]), digits.labels("test", victim.order[:60])
    alone = [defend(victim.model, part, digits.shape) for part in parts]
    through = alone[1].transformation(alone[0].transformation(images))
    right = (victim.logits(np.asarray(through)).argmax(axis=1) == labels).mean()
    assert clean[options, True] == clean[options, False] == pytest.approx(right)
    both = DefenceSpec(name="both", parts=(spec("gaussian_augmentation"), *parts))
    assert both.network != NO_DEFENCE
    changes = results.probes.to_pandas().query("figure == 'defence_changes'")["value"].dropna()
    expected = 255 * np.abs(np.asarray(through) - images).mean()
    assert len(changes) == 1 and changes.iloc[0] == pytest.approx(expected, rel=0.1)
