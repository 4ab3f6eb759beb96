"""The networks of `keras.applications`: one table, held against Keras itself."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.real_data import REAL_DATA, needs_real_data
from tests.support.victims import model_spec, victim_spec
from workers.datasets import load
from workers.recipe import Recipe
from workers.storage import Folder
from workers.unit import DatasetSpec
from workers.victims.applications import TABLE, _as_efficientnet_was_trained, preprocess
from workers.victims.architectures import ARCHITECTURES, ArchitectureError, build_model
from workers.victims.cache import CleanAccuracy, VictimCache
from workers.victims.manifest import History
from workers.victims.victim import train_victim

pytestmark = pytest.mark.tf

SMALL = {"name": "mobilenet", "alpha": 0.25}


def grey(size: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network as a user would save them: built by Keras' own constructor."""
    import keras

    keras.utils.set_random_seed(5)
    network = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    path = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    network.save_weights(path)
    return path


def test_every_constructor_of_keras_is_there() -> None:
    import keras

    constructors = {name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)}
    assert {application.constructor for application in TABLE.values()} == constructors
    assert len(TABLE) == len(constructors) and TABLE.keys() <= ARCHITECTURES.keys()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_least_size_and_options_are_those_of_keras(name: str) -> None:
    import keras

    constructor = getattr(keras.applications, TABLE[name].constructor)
    options = ARCHITECTURES[name].options.__dataclass_fields__.keys() - {"input_size", "weights"}
    assert options <= inspect.signature(constructor).parameters.keys()
    least = TABLE[name].least
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        constructor(weights=None, include_top=False, input_shape=(least - 1, least - 1, 3))


@pytest.mark.parametrize("name", sorted(TABLE))
def test_preprocessing_is_that_of_keras(name: str) -> None:
    import keras

    module = sys.modules[getattr(keras.applications, TABLE[name].constructor).__module__]
    images = np.random.default_rng(1).random((2, 5, 6, 3), dtype=np.float32)
    expected = module.preprocess_input(255 * images.astype(np.float64))
    inputs = keras.Input((5, 6, 3))
    ours = keras.Model(inputs, preprocess(inputs, TABLE[name].preprocessing))
    np.testing.assert_allclose(ours(images).numpy(), expected, atol=1e-3, rtol=1e-5)
    assert (TABLE[name].preprocessing == "none") == (np.abs(expected - 255 * images).max() < 1e-3)


def test_efficientnet_with_imagenet_weights_is_normalised_as_keras_does_it() -> None:
    """Keras puts Rescaling(1 / sqrt(std)) behind the network's normalisation; ours stands before it."""
    import keras

    mean, variance, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], [0.229, 0.224, 0.225]
    inputs = keras.Input((4, 4, 3))
    network = keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=mean, variance=variance)]
    )
    ours = keras.Model(inputs, network(_as_efficientnet_was_trained(inputs)))
    images = 255 * np.random.default_rng(2).random((3, 4, 4, 3), dtype=np.float32)
    expected = network(images).numpy() / np.sqrt(std)
    np.testing.assert_allclose(ours(images).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((28, 28, 1), {}, (32, 32)),
        ((28, 28, 1), {"input_size": 40}, (40, 40)),
        ((64, 40, 3), {}, (64, 40)),
        ((20, 50, 1), {}, (32, 50)),
    ],
)
def test_what_the_network_is_given(shape: Any, options: dict[str, Any], expected: tuple[int, int]) -> None:
    model = build_model(model_spec(**{**SMALL, **options}), shape, 7)
    assert model.get_layer("backbone").input_shape == (None, *expected, 3)
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    assert model(images).shape == (2, 7)


def test_a_model_called_without_saying_is_in_inference_mode() -> None:
    """As other libraries call it. Keras' own resizing layer would put all that follows into training mode."""
    model = build_model(model_spec(**SMALL, input_size=48), (28, 28, 1), 10)
    images = grey(28, 3)
    inferred, unsaid = model(images, training=False).numpy(), model(images).numpy()
    np.testing.assert_array_equal(unsaid, inferred)
    assert np.abs(model(images, training=True) - inferred).max() > 1e-3


def test_gradients_reach_every_pixel_through_resizing_and_repetition() -> None:
    import tensorflow as tf

    model = build_model(model_spec(**SMALL, input_size=48), (28, 28, 1), 10)
    images = tf.constant(grey(28, 2))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(model(images)[:, 0])
    assert (np.abs(tape.gradient(total, images).numpy()) > 0).mean() > 0.99


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ({"name": "inception_v3", "input_size": 64}, (28, 28, 1), "greater than or equal to 75"),
        ({"name": "resnet50_v2", "alpha": 0.5}, (28, 28, 1), "alpha"),
        ({"name": "mobilenet", "alpha": 0}, (28, 28, 1), "greater than 0"),
        ({"name": "mobilenet"}, (28, 28, 4), "images of 1 or 3 channels; found 4"),
        ({"name": "mobilenet", "weights": "nowhere.h5"}, (28, 28, 1), "cannot read nowhere.h5"),
    ],
)
def test_wrong_options_are_refused(model: dict[str, Any], shape: Any, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_model(model_spec(**model), shape, 10)


def test_weights_by_path_are_those_of_the_file(weights: Path) -> None:
    import keras

    source = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    source.load_weights(weights)
    model = build_model(model_spec(**SMALL, weights=str(weights), input_size=40), (28, 28, 1), 10)
    backbone = model.get_layer("backbone")
    for ours, theirs in zip(backbone.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    gone = model_spec(**SMALL, weights=str(weights.parent / "gone.h5"))
    fresh = build_model(gone, (28, 28, 1), 10, pretrained=False)
    assert not np.array_equal(fresh.get_layer("backbone").get_weights()[0], source.get_weights()[0])


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    given = {**SMALL, "weights": str(weights)}
    with pytest.raises(ArchitectureError, match=r"do not fit.*include_top=False"):
        build_model(model_spec(**{**given, "alpha": 0.5}), (28, 28, 1), 10)
    with pytest.raises(ArchitectureError, match="has changed since the sweep was planned"):
        build_model(model_spec(**given, weights_sha256="0" * 64), (28, 28, 1), 10)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(ArchitectureError, match="do not fit"):
        build_model(model_spec(**SMALL, weights=str(broken)), (28, 28, 1), 10)


def test_without_a_connection_the_file_to_get_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    model = {"name": "mobilenet_v2", "weights": "imagenet", "alpha": 1.3, "input_size": 96}
    with pytest.raises(ArchitectureError) as error:
        build_model(model_spec(**model), (28, 28, 1), 10)
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.3_96_no_top.h5"
    assert f"put {file} into " in str(error.value) and "/models" in str(error.value)
    with pytest.raises(ArchitectureError, match="alpha must be one of"):
        build_model(model_spec(**{**model, "alpha": 0.77}), (28, 28, 1), 10)


@pytest.mark.slow
def test_a_network_trained_from_scratch_answers_alike_in_both_modes(tmp_path: Path) -> None:
    """A handful of steps at the least size. A short training is where moving statistics are wrong, above all
    those of MobileNetV2: re-estimated, answers in inference mode are close to those in training mode."""
    digits = load(DatasetSpec(name="digits"))
    recipe = Recipe(epochs=1, examples=160, batch_size=48)
    spec = victim_spec("trained", model=model_spec("mobilenet_v2"), recipe=recipe)
    cache = VictimCache(Folder.at(tmp_path))
    victim, manifest = train_victim(spec, digits, cache, lambda progress: None)
    assert manifest.history[0]["phase"] == "scratch" and manifest.test_examples == 500

    images = digits.images("train", np.arange(96))
    trained, inferred = (victim.model(images, training=mode).numpy() for mode in (True, False))
    assert np.abs(trained - inferred).mean() < 0.5 * np.abs(inferred).mean() + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_v2", "inception_v3"])
def test_the_posters_networks_come_back_from_the_cache(name: str, tmp_path: Path) -> None:
    spec = victim_spec(name, model=model_spec(name))
    model, again = (build_model(spec.model, (8, 8, 1), 10, pretrained=False) for _ in range(2))
    images = np.random.default_rng(0).random((4, 8, 8, 1), dtype=np.float32)
    expected = model(images, training=False).numpy()
    assert not np.array_equal(again(images, training=False), expected)
    cache = VictimCache(Folder.at(tmp_path))
    history = History(rows=(), train_examples=0, seconds=0.0)
    manifest = cache.publish(model, spec, {}, history, CleanAccuracy(0.1, 4, 0.1))
    cache.load_into(again, manifest)
    np.testing.assert_array_equal(again(images, training=False), expected)


@pytest.mark.slow
@needs_real_data
def test_imagenet_weights_from_kerass_folder_beat_a_random_start() -> None:
    script = f"""
import numpy as np
from tests.support.victims import model_spec, victim_spec
from workers.datasets import load
from workers.unit import DatasetSpec
from workers.recipe import Recipe
from workers.victims.training import build_and_train
dataset = load(DatasetSpec(name="cifar10"), {str(REAL_DATA)!r})
model = model_spec("mobilenet_v2", alpha=0.35, input_size=64, weights="imagenet")
recipe = Recipe(examples=600, head_epochs=8, fine_tune="none")
network, history = build_and_train(victim_spec(model=model, recipe=recipe), dataset)
images, labels = dataset.images("test", slice(300)), dataset.labels("test", slice(300))
print("accuracy", (network.predict(images, verbose=0).argmax(axis=1) == labels).mean())
"""
    environment = {**os.environ, "KERAS_HOME": str(REAL_DATA / "keras"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[-1]) > 0.4
