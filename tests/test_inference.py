"""How a model is called: layers that its author calls with training=True are honoured, or it is said."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.grid.load import load_grid
from tests.support.victims import cells_of, model_spec, victim_spec
from workers import defences
from workers.attacks import build
from workers.datasets import Dataset, load
from workers.defences import InputTransformation, defend
from workers.flags import Flag
from workers.inference import choose, difference, inference_flags, inference_of
from workers.network import network_for
from workers.unit import DatasetSpec, DefenceSpec
from workers.victims.architectures import build_model
from workers.victims.saved import trains_by_default
from workers.victims.victim import victim_as_it_is

pytestmark = pytest.mark.tf

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


@pytest.fixture(scope="module")
def images(digits: Dataset) -> np.ndarray:
    return digits.images("test", slice(0, 32))


def functional(middle: Callable[[Any], Any]) -> Any:
    """A net with something between its convolution and its logits."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    hidden = middle(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(hidden)))


def monte_carlo(x: Any) -> Any:
    import keras

    return keras.layers.Dropout(0.5)(x, training=True)


def batch_norm(x: Any) -> Any:
    import keras

    return keras.layers.BatchNormalization()(x, training=True)


def nested(x: Any) -> Any:
    import keras

    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, monte_carlo(inputs))(x)


def nested_in_training(x: Any) -> Any:
    import keras

    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, keras.layers.Dropout(0.5)(inputs))(x, training=True)


def nested_in_a_sequence(x: Any) -> Any:
    import keras

    inputs = keras.Input(x.shape[1:])
    inner = keras.Model(inputs, batch_norm(inputs))
    return keras.Sequential([keras.Input(x.shape[1:]), inner])(x)


def plain_dropout(x: Any) -> Any:
    import keras

    return keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(x))


def nested_in_inference(x: Any) -> Any:
    import keras

    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, monte_carlo(inputs))(x, training=False)


def resizing(x: Any) -> Any:
    """Keras hands on its training=True to the batch norm, which nobody has asked to be trained."""
    import keras

    return keras.layers.BatchNormalization()(keras.layers.Resizing(6, 6)(x))


def noise_always_on(x: Any) -> Any:
    import keras

    class Noise(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    return Noise()(x)


def subclassed() -> Any:
    """Its author's own call, which takes dropout to be on unless it is told otherwise."""
    import keras

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.dropout = keras.layers.Flatten(), keras.layers.Dropout(0.5)
            self.dense = keras.layers.Dense(10)

        def call(self, x: Any, training: bool = True) -> Any:
            return self.dense(self.dropout(self.flatten(x), training=training))

    keras.utils.set_random_seed(0)
    return Own()


AS_CALLED = [monte_carlo, batch_norm, nested, nested_in_training, nested_in_a_sequence]


@pytest.mark.parametrize("middle", AS_CALLED)
def test_layers_that_their_author_trains_are_honoured(middle: Any, images: np.ndarray) -> None:
    import keras

    model = functional(middle)
    keras.utils.set_random_seed(1)
    expected = keras.ops.convert_to_numpy(model(images))
    assert inference_of(model) == "as_called"
    assert inference_flags(model, images) == (Flag.AS_CALLED,)
    # Random draws differ from call to call; that layers are on at all shows in any.
    off = keras.ops.convert_to_numpy(model(images, training=False))
    found = network_for(model, SHAPE).logits(images)
    assert np.abs(found - off).max() > 1e-3
    if middle in (batch_norm, nested_in_a_sequence):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "middle, flags",
    [
        (plain_dropout, ()),
        (nested_in_inference, ()),
        (resizing, (Flag.SWITCHED_OFF,)),
    ],
)
def test_what_nobody_asked_for_stays_off(middle: Any, flags: Any, images: np.ndarray) -> None:
    import keras

    model = functional(middle)
    assert inference_of(model) == "off"
    assert inference_flags(model, images) == flags
    found = network_for(model, SHAPE).logits(images)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(model(images, training=False)), atol=1e-5)


def test_a_model_that_cannot_be_looked_into_is_called_as_its_author_calls_it(images: np.ndarray) -> None:
    model = subclassed()
    assert inference_of(model) == "as_called"
    assert inference_flags(model, images) == (Flag.AS_CALLED,)
    network = network_for(model, SHAPE)
    assert np.abs(network.logits(images) - network.logits(images)).max() > 0.01


def test_noise_that_is_always_on_says_nothing_of_how_a_model_is_called(images: np.ndarray) -> None:
    model = functional(noise_always_on)
    share, relative = difference(model, images)
    assert share > 0 and relative > 0.01
    assert inference_flags(model, images) == ()


def test_the_difference_is_that_of_the_two_calls(images: np.ndarray) -> None:
    import keras

    model = functional(batch_norm)
    off = keras.ops.convert_to_numpy(model(images, training=False))
    called = keras.ops.convert_to_numpy(model(images))  # which moves its averages
    share, relative = difference(functional(batch_norm), images)
    assert share == np.mean(called.argmax(1) != off.argmax(1))
    spread = np.median(off.max(1) - off.min(1))
    assert relative == pytest.approx(np.abs(called - off).max() / spread, rel=1e-4)
    assert difference(functional(plain_dropout), images) == (0, 0)
    assert difference(lambda x: x, images) == (0, 0)


@pytest.mark.parametrize("middle", [batch_norm, monte_carlo])
def test_measuring_a_model_does_not_change_it(middle: Any, images: np.ndarray) -> None:
    model = functional(middle)
    before = [array.copy() for array in model.get_weights()]
    network = network_for(model, SHAPE)
    network.gradients(images, np.zeros(len(images), np.int32))
    network.logits(images)
    inference_flags(model, images)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    first, second = network.logits(images), network.logits(images)
    assert np.array_equal(first, second) == (middle is batch_norm)  # each call is a fresh draw


def test_what_was_chosen_wins_and_survives_a_defence(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Half(InputTransformation):
        def transform(self, images: Any, seed: Any) -> Any:
            return images / 2

    monkeypatch.setitem(defences.DEFENCES, "half", Half)
    half = DefenceSpec(name="half", version=1)
    model = functional(monte_carlo)
    assert inference_of(defend(model, half, SHAPE)) == "as_called"
    choose(model, "off")
    defended = defend(model, half, SHAPE)
    assert inference_of(model) == inference_of(defended) == "off"
    assert inference_flags(defended, images) == (Flag.SWITCHED_OFF,)
    logits = network_for(defended, SHAPE).logits(images)
    np.testing.assert_allclose(logits, np.asarray(model(images / 2, training=False)), atol=1e-5)
    other = functional(resizing)
    choose(other, "as_called")
    expected = np.asarray(other(images))
    np.testing.assert_allclose(network_for(other, SHAPE).logits(images), expected, atol=1e-4)


def test_no_model_is_kept_alive(images: np.ndarray) -> None:
    model = functional(monte_carlo)
    choose(model, "as_called")
    inference_flags(model, images)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_attacks_from_python_go_by_the_same_rule(digits: Dataset, images: np.ndarray) -> None:
    labels = digits.labels("test", slice(0, 32))
    fgsm = build({"name": "fgsm"})
    for middle, expected in ((monte_carlo, True), (plain_dropout, False)):
        result = fgsm(functional(middle), images, labels, [0.1])
        assert (Flag.AS_CALLED in result.flags) == expected


# -- a saved model, in a grid -------------------------------------------------------------------------------

GRID = """\
models: [{name: mine, path: %s}]
datasets: [digits]
attacks: [fgsm]
epsilons: [0.1]
"""


@pytest.mark.parametrize("middle", [*AS_CALLED, plain_dropout, nested_in_inference, resizing])
def test_planning_and_loading_agree_on_a_saved_model(middle: Any, tmp_path: Path, digits: Dataset) -> None:
    path, file = tmp_path / "mine.keras", tmp_path / "grid.yaml"
    functional(middle).save(path)
    file.write_text(GRID % path)
    grid = load_grid(str(file), [])
    warned = any("with training=True" in warning for warning in grid.warnings)
    loaded = build_model(model_spec("mine", path=str(path)), SHAPE, 10)
    assert warned == (middle in AS_CALLED) == (inference_of(loaded) == "as_called")


def test_the_layers_that_are_in_training_mode_by_default_are_known_by_name() -> None:
    import keras

    for name, kind in vars(keras.layers).items():
        if inspect.isclass(kind) and issubclass(kind, keras.Layer):
            training = inspect.signature(kind.call).parameters.get("training")
            assert trains_by_default(name) == (training is not None and training.default is True), name


@pytest.mark.parametrize("ending", ["softmax", "nested softmax"])
def test_taking_a_softmax_off_keeps_how_layers_are_called(ending: str, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input(SHAPE)
    if ending == "softmax":
        dropped = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs), training=True)
        outputs = keras.layers.Dense(10, activation="softmax")(dropped)
    else:
        top = keras.Input((64,))
        dense = keras.layers.Dense(10, activation="softmax")(keras.layers.Dropout(0.5)(top))
        outputs = keras.Model(top, dense)(keras.layers.Flatten()(inputs), training=True)
    path = tmp_path / "mine.keras"
    keras.Model(inputs, outputs).save(path)
    loaded = build_model(model_spec("mine", path=str(path), pixel_range=[-1, 1]), SHAPE, 10)
    assert inference_of(loaded) == "as_called"
    images = np.ones((4, *SHAPE), np.float32)
    assert np.abs(np.asarray(loaded(images)) - np.asarray(loaded(images))).max() > 1e-3


def test_a_grid_says_how_a_model_is_called(tmp_path: Path, digits: Dataset, images: np.ndarray) -> None:
    path, file = tmp_path / "mine.keras", tmp_path / "grid.yaml"
    functional(monte_carlo).save(path)
    file.write_text(GRID % path)

    def cell(*overrides: str) -> Any:
        return cells_of(load_grid(str(file), overrides))[0]

    as_it_looks = cell()
    assert cell("models.0.inference=as_called").cell_id == as_it_looks.cell_id
    off = cell("models.0.inference=off")
    assert off.cell_id != as_it_looks.cell_id
    assert off.victim.model.shown == "inference=off" and off.victim.model.inference == "off"
    assert any("switched off" in one for one in load_grid(str(file), ["models.0.inference=off"]).warnings)
    for one, flag in ((as_it_looks, Flag.AS_CALLED), (off, Flag.SWITCHED_OFF)):
        victim, manifest = victim_as_it_is(one.victim, digits)
        assert flag in victim.flags
        assert manifest.weights == victim.weights  # also after it was called
    with pytest.raises(Exception, match='unknown inference "never"; allowed: as_called, off'):
        cell("models.0.inference=never")


def test_batch_norm_in_training_mode_keeps_the_weights_of_its_pin(tmp_path: Path, digits: Dataset) -> None:
    path = tmp_path / "mine.keras"
    functional(batch_norm).save(path)
    spec = victim_spec("mine", model=model_spec("mine", path=str(path)), recipe=None)
    (one, first), (two, second) = (victim_as_it_is(spec, digits) for _ in range(2))
    assert one.weights == two.weights == first.weights == second.weights


def test_a_factory_says_how_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "own_nets.py").write_text(
        "def build(input_shape, classes, rate=0.5):\n"
        "    import keras\n"
        "    inputs = keras.Input(input_shape)\n"
        "    x = keras.layers.Dropout(rate)(keras.layers.Flatten()(inputs), training=True)\n"
        "    return keras.Model(inputs, keras.layers.Dense(classes)(x))\n"
    )
    file = tmp_path / "grid.yaml"
    text = GRID.replace("path: %s", 'factory: "own_nets:build"')
    file.write_text(text)
    plain = cells_of(load_grid(str(file), []))[0]
    file.write_text(text.replace('build"', 'build", inference: off, rate: 0.4'))
    said = cells_of(load_grid(str(file), []))[0]
    assert said.victim.model.options == {"rate": 0.4} and said.victim.model.inference == "off"
    assert plain.victim.model.inference is None
