"""The phases of a training, and what each option of a recipe does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.support.victims import model_spec, victim_spec
from workers.datasets import Dataset, load
from workers.layout import training_progress
from workers.recipe import Recipe
from workers.storage import Folder
from workers.unit import DatasetSpec, ModelSpec
from workers.victims.base import TrainingError
from workers.victims.batch_norm import batch_norms, reestimate
from workers.victims.batches import flip_crop
from workers.victims.progress import TrainingProgress, progress_text, progress_writer
from workers.victims.training import build_and_train

pytestmark = pytest.mark.tf

NORMALISED = """
import keras


def normalised(*, input_shape, classes):
    layers = keras.layers
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.999),
        layers.ReLU(),
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.999),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(classes),
    ])
"""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("nets")
    (folder / "normalised_for_tests.py").write_text(NORMALISED)
    sys.path.append(str(folder))
    yield model_spec("mine", factory="normalised_for_tests:normalised")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A small network of keras.applications, with weights saved a moment before."""
    import keras

    keras.utils.set_random_seed(5)
    network = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    # With initial statistics nothing would come through its 27 normalisations, and nothing could be learnt.
    for layer in batch_norms(network):
        layer.momentum = 0.0
    network(np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype(np.float32), training=True)
    path = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    network.save_weights(path)
    return model_spec("mobilenet", alpha=0.25, weights=str(path))


def recipe(**options: Any) -> Recipe:
    return Recipe(**{"epochs": 1, "examples": 200, "batch_size": 32, **options})


def frozen_backbone(model: ModelSpec) -> list[np.ndarray]:
    import keras

    network = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    network.load_weights(model.weights.location)
    return network.get_weights()


def test_defaults_depend_on_the_optimiser_and_may_be_spelled_out() -> None:
    assert asdict(Recipe())["learning_rate"] == 1e-3
    assert Recipe(learning_rate=1e-3, fine_tune_learning_rate=1e-4) == Recipe()
    assert Recipe(optimizer="sgd") == Recipe(optimizer="sgd", learning_rate=0.01)
    assert Recipe(learning_rate=0.02).fine_tune_learning_rate == pytest.approx(0.002)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": "64"},
        {"learning_rate": float("inf")},
        {"learning_rate": 0.0},
        {"examples": 1},
        {"epoch": 5},
        {"optimizer": "lion"},
        {"augmentation": True},
        {"early_stopping": 0},
        {"fine_tune": None},
    ],
)
def test_wrong_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_from_scratch_is_one_phase_bit_identical_by_seed(digits: Dataset) -> None:
    spec = victim_spec()
    np.random.seed(99)  # what came before must not matter
    first, history = build_and_train(spec, digits)
    np.random.random(7)
    again, _ = build_and_train(spec, digits)
    other, _ = build_and_train(victim_spec(seed=1), digits)
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first.get_weights(), other.get_weights(), strict=True))
    assert [(row["epoch"], row["phase"]) for row in history.rows] == [(n, "scratch") for n in (1, 2, 3, 4)]
    assert history.train_examples == 1297 - 130
    losses = [row["loss"] for row in history.rows]
    assert losses == sorted(losses, reverse=True)
    assert all(row["seconds"] > 0 for row in history.rows)


def test_the_recipe_limits_the_examples(digits: Dataset) -> None:
    _, history = build_and_train(victim_spec(recipe=recipe(examples=40)), digits)
    assert history.train_examples == 36


def test_a_loss_that_is_not_finite_stops_training(digits: Dataset) -> None:
    wrong = Recipe(epochs=3, batch_size=32, learning_rate=1e30)
    with pytest.raises(TrainingError, match="after epoch 1; lower the learning_rate"):
        build_and_train(victim_spec(recipe=wrong), digits)


def test_options_of_the_optimisation_matter(digits: Dataset) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"optimizer": "sgd"},
        {"schedule": "constant"},
        {"augmentation": "flip_crop"},
    ]
    losses = []
    for options in variants:
        _, history = build_and_train(victim_spec(recipe=recipe(epochs=2, examples=400, **options)), digits)
        assert history.rows[1]["loss"] < history.rows[0]["loss"]
        losses.append(history.rows[1]["validation_loss"])
    assert len(set(losses)) == len(variants)


def test_augmented_training_is_bit_identical_too(digits: Dataset) -> None:
    spec = victim_spec(recipe=recipe(epochs=2, augmentation="flip_crop"))
    one, two = (build_and_train(spec, digits)[1].rows[1]["loss"] for _ in range(2))
    assert one == two


def test_flip_crop_mirrors_and_shifts_within_an_eighth() -> None:
    images = np.zeros((400, 16, 24, 2), np.float32)
    images[:, 8, 4] = 1  # one dot, left of the middle
    changed = flip_crop(images, np.random.default_rng(0))
    assert changed.shape == images.shape and changed.dtype == np.float32
    assert set(np.unique(changed)) == {0, 1} and (changed.sum(axis=(1, 2, 3)) == 2).all()
    _, rows, columns, _ = np.nonzero(changed[..., :1])
    assert set(rows) == set(range(6, 11))
    mirrored = columns > 11
    assert set(columns[~mirrored]) == set(range(1, 8)) and set(columns[mirrored]) == set(range(16, 23))
    assert 0.4 < mirrored.mean() < 0.6
    assert (images.sum(), images[0, 8, 4, 0]) == (800, 1)  # left as they were


def test_early_stopping_ends_with_the_best_weights(digits: Dataset) -> None:
    spec = victim_spec(recipe=recipe(epochs=60, examples=100, learning_rate=0.05, early_stopping=3))
    model, history = build_and_train(spec, digits)
    losses = [row["validation_loss"] for row in history.rows]
    assert len(losses) < 60 and int(np.argmin(losses)) == len(losses) - 4
    from workers.datasets import stratified_order

    held_out = stratified_order(digits.y_train, 2)[:10]
    found = model.evaluate(digits.images("train", held_out), digits.labels("train", held_out), verbose=0)
    assert found[0] == pytest.approx(min(losses), rel=1e-4)


def test_moving_statistics_are_those_of_the_training_images(digits: Dataset, normalised: Any) -> None:
    """With a momentum of 0.999 they would be 93% initial values after the 72 steps of this training."""
    spec = victim_spec(model=normalised, recipe=recipe(epochs=12, examples=200, learning_rate=5e-3))
    model, history = build_and_train(spec, digits)
    assert history.rows[-1]["validation_accuracy"] > 0.7
    first, second = batch_norms(model)
    assert first.momentum == second.momentum == 0.999
    indices = np.arange(300)
    reestimate(model, digits, indices, 100)
    outputs = model.layers[0](digits.images("train", indices)).numpy()
    np.testing.assert_allclose(first.moving_mean.numpy(), outputs.mean(axis=(0, 1, 2)), atol=1e-5)
    variances = [outputs[i : i + 100].var(axis=(0, 1, 2)) for i in (0, 100, 200)]
    np.testing.assert_allclose(first.moving_variance.numpy(), np.mean(variances, axis=0), rtol=1e-4)


def test_the_head_alone_leaves_the_backbone_as_it_was(digits: Dataset, pretrained: ModelSpec) -> None:
    spec = victim_spec(model=pretrained, recipe=recipe(head_epochs=3, fine_tune="none"))
    model, history = build_and_train(spec, digits)
    assert [(row["epoch"], row["phase"]) for row in history.rows] == [(n, "head") for n in (1, 2, 3)]
    for ours, theirs in zip(
        model.get_layer("backbone").get_weights(), frozen_backbone(pretrained), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    features = model.layers[-2].output
    assert features.shape == (None, 256)
    again, _ = build_and_train(spec, digits)
    for one, two in zip(model.layers[-1].get_weights(), again.layers[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("fine_tune", ["top", "all"])
def test_fine_tuning_changes_what_it_says(fine_tune: str, digits: Dataset, pretrained: ModelSpec) -> None:
    told: list[TrainingProgress] = []
    spec = victim_spec(model=pretrained, recipe=recipe(head_epochs=1, fine_tune=fine_tune))
    model, history = build_and_train(spec, digits, told.append)
    assert [row["phase"] for row in history.rows] == ["head", "fine_tune"]
    assert [row["epoch"] for row in history.rows] == [1, 2]
    assert [(one.phase, one.epoch, one.epochs) for one in told] == [
        ("head", 0, 1),
        ("head", 1, 1),
        ("fine_tune", 0, 1),
        ("fine_tune", 1, 1),
    ]
    backbone = model.get_layer("backbone")
    before = frozen_backbone(pretrained)
    leaves = [layer for layer in backbone.layers if layer.weights]
    sizes = np.cumsum([0, *(len(layer.weights) for layer in leaves)])
    changed = []
    for layer, start, stop in zip(leaves, sizes, sizes[1:], strict=False):
        pairs = list(zip(layer.get_weights(), before[start:stop], strict=True))
        changed.append(any((one != two).any() for one, two in pairs))
    norms = {id(layer) for layer in batch_norms(model)}
    first = len(leaves) * 2 // 3 if fine_tune == "top" else 0
    expected = [i >= first and id(layer) not in norms for i, layer in enumerate(leaves)]
    assert changed == expected


def test_progress_is_left_in_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.5, 11.5])
    monkeypatch.setattr("workers.victims.progress.time.monotonic", lambda: next(clock))
    output = Folder.at(tmp_path)
    report = progress_writer(output, "run", "victim")
    assert progress_text(output, "run", "victim") == ""
    report(TrainingProgress("fine_tune", 0, 5))
    assert progress_text(output, "run", "victim") == "fine tune, epoch 0/5"
    report(TrainingProgress("fine_tune", 3, 5, 0.876))  # within the same second
    assert json.loads((tmp_path / training_progress("run", "victim")).read_bytes())["epoch"] == 0
    report(TrainingProgress("fine_tune", 4, 5, 0.876))
    assert progress_text(output, "run", "victim") == "fine tune, epoch 4/5, validation accuracy 0.88"
    (tmp_path / training_progress("run", "victim")).write_text("{")
    assert progress_text(output, "run", "victim") == ""


def test_a_folder_that_cannot_be_written_to_does_not_stop_a_training(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, where a folder is to be")
    progress_writer(Folder.at(tmp_path), "run", "victim")(TrainingProgress("head", 1, 2))
    assert (tmp_path / "runs").is_file()


def test_too_few_examples_are_refused(digits: Dataset) -> None:
    one = replace(digits, x_train=digits.x_train[:1], y_train=digits.y_train[:1])
    with pytest.raises(TrainingError, match="1 training examples; at least 2 are needed"):
        build_and_train(victim_spec(), one)
