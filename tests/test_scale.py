"""The scale of pixels that a model was trained on: said in the grid, or looked at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import GridError
from orchestrator.grid.load import load_grid
from tests.support.real_data import MARKS, REAL_DATA
from tests.support.victims import cells_of, model_spec, victim_spec
from workers.datasets import Dataset, evaluation_order, load
from workers.flags import Flag
from workers.network import network_for
from workers.unit import DatasetSpec
from workers.victims.architectures import ArchitectureError, build_model
from workers.victims.pixels import NORMALISATIONS, UNIT, PixelScale, stated
from workers.victims.scale import ScaleFinding, candidates, check_scale, fitted_losses
from workers.victims.victim import victim_as_it_is

pytestmark = pytest.mark.tf

BYTES, SIGNED = PixelScale.between(0, 255), PixelScale.between(-1, 1)
MNIST, CIFAR10 = (PixelScale.normalised(*NORMALISATIONS[name]) for name in ("mnist", "cifar10"))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


_trained: dict[tuple[str, str], Any] = {}


def net(dataset: Dataset, scale: PixelScale, epochs: int = 8) -> Any:
    """A small CNN, trained on pixels of one scale (seconds, once) and taking such pixels."""
    import keras

    if (dataset.name, scale.option) in _trained:
        return _trained[dataset.name, scale.option]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(dataset.shape),
            keras.layers.Conv2D(16, 3, strides=dataset.shape[0] // 8, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    images, labels = dataset.images("train", slice(5000)), dataset.labels("train", slice(5000))
    model.fit(scale.apply(images), labels, batch_size=32, epochs=epochs, verbose=0)
    return _trained.setdefault((dataset.name, scale.option), model)


def times(model: Any, factor: float) -> Any:
    """The same model with its logits multiplied."""
    import keras

    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, keras.layers.Rescaling(factor)(model(inputs)))


def behind(model: Any, scale: PixelScale) -> Any:
    """The victim that a grid makes of a model on whose scale it says something."""
    import keras

    inputs = keras.Input(model.input_shape[1:])
    layer = keras.layers.Rescaling(list(scale.factor), offset=list(scale.offset))
    return keras.Model(inputs, model(layer(inputs)))


def check(model: Any, dataset: Dataset, said: PixelScale | None = None) -> ScaleFinding | None:
    victim = behind(model, said) if said else model
    rows = evaluation_order(dataset.y_test)
    return check_scale(network_for(victim, dataset.shape), "mine", dataset, rows, said)


@pytest.fixture(scope="module")
def own(digits: Dataset) -> PixelScale:
    """What is estimated of the digits: no published normalisation is near."""
    [divided] = (one for one in candidates(digits) if "std: 0" in one.option)
    return divided


# -- which scale it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [BYTES, SIGNED], ids=lambda scale: scale.option)
def test_another_scale_is_asked_for_by_its_option(scale: PixelScale, digits: Dataset) -> None:
    model = times(net(digits, scale), 0.01)
    with pytest.raises(ArchitectureError) as error:
        check(model, digits)
    advice = f": give it {scale.option}, or pixel_range: [0, 1] if that is what it was trained on"
    assert advice in str(error.value)
    assert check(model, digits, scale) is None


@pytest.mark.parametrize("factor", [1e-6, 0.01, 1e6])
def test_the_size_of_logits_is_no_judge_of_the_scale(factor: float, digits: Dataset) -> None:
    """At × 0.01 the cross-entropy is far lower on [0, 255], where the model is no better."""
    model = net(digits, UNIT)
    without = check(model, digits)
    assert (check(times(model, factor), digits) is None) == (without is None)
    assert check(times(model, factor), digits, UNIT) is None


def test_a_normalisation_of_ones_own_is_found(digits: Dataset, own: PixelScale) -> None:
    model = net(digits, own)
    with pytest.raises(ArchitectureError, match="normalise: "):
        check(model, digits)
    assert check(model, digits, own) is None


def test_no_advice_where_none_of_the_scales_is_the_one(digits: Dataset) -> None:
    odd = PixelScale.between(-6, -2)
    model = net(digits, odd)
    with pytest.raises(ArchitectureError) as error:
        check(model, digits)
    assert "give it pixel_range: [" not in str(error.value)
    assert "none of the scales known here is its own" in str(error.value)


def test_what_the_grid_says_is_taken_and_doubted_where_it_is_plainly_wrong(digits: Dataset) -> None:
    model = net(digits, BYTES)
    found = check(model, digits, SIGNED)
    assert found and found.flag == Flag.SCALE_DOUBTED
    assert "give it pixel_range: [0, 255]" in found.message
    assert check(model, digits, BYTES) is None


def test_a_model_that_has_learnt_nothing_has_no_scale(digits: Dataset) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(digits.shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    assert check(model, digits) is None
    constant = keras.Sequential([model, keras.layers.Rescaling(0.0)])
    assert check(constant, digits) is None


def test_a_model_that_does_not_mind_its_scale_is_not_asked_for_it(digits: Dataset) -> None:
    """Without biases an affine model is the same on any range that begins at 0, and attacked the same."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input(digits.shape), keras.layers.Flatten(), keras.layers.Dense(10, use_bias=False)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(digits.images("train", slice(None)), digits.y_train, epochs=30, batch_size=32, verbose=0)
    found = check(model, digits)
    assert found is None or "[0, 255]" not in found.message


def test_a_model_that_normalises_each_image_is_not_asked_for_its_scale(digits: Dataset) -> None:
    """It is as right on every scale, and attacked it is the same on each."""
    import keras

    class Own(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            mean = keras.ops.mean(x, axis=(1, 2, 3), keepdims=True)
            return (x - mean) / keras.ops.std(x, axis=(1, 2, 3), keepdims=True)

    inputs = keras.Input(digits.shape)
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(Own()(inputs)))
    inner = keras.Model(inputs, keras.layers.Dense(10)(hidden))
    inner.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inner.fit(digits.images("train", slice(None)), digits.y_train, epochs=8, batch_size=32, verbose=0)
    assert check(inner, digits) is None


@MARKS[0]
@MARKS[1]
def test_mnist_normalised_as_published_is_never_trusted_on_plain_pixels() -> None:
    """Though clean test images hardly tell: all but a handful of them are answered alike on both."""
    mnist = load(DatasetSpec(name="mnist"), str(REAL_DATA))
    model = net(mnist, MNIST, epochs=4)
    try:
        found = check(model, mnist)
        assert found and found.flag == Flag.SCALE_DOUBTED
        message = found.message
    except ArchitectureError as error:
        message = str(error)
    assert "normalise: mnist" in message and "give it pixel_range: [0, 255]" not in message
    assert check(model, mnist, MNIST) is None
    healthy = check(net(mnist, UNIT, epochs=4), mnist)
    assert healthy is None or healthy.flag == Flag.SCALE_UNSETTLED


@MARKS[0]
@MARKS[1]
def test_cifar10_normalised_as_published_is_asked_for_it() -> None:
    cifar10 = load(DatasetSpec(name="cifar10"), str(REAL_DATA))
    model = net(cifar10, CIFAR10, epochs=6)
    with pytest.raises(ArchitectureError, match="normalise: cifar10"):
        check(model, cifar10)
    assert check(model, cifar10, CIFAR10) is None
    healthy = net(cifar10, UNIT, epochs=6)
    assert check(healthy, cifar10) is None
    doubted = check(healthy, cifar10, CIFAR10)
    assert doubted and doubted.flag == Flag.SCALE_DOUBTED


@MARKS[0]
@MARKS[1]
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_published_normalisations_are_those_of_the_data(name: str) -> None:
    data = load(DatasetSpec(name=name), str(REAL_DATA))
    images = data.images("train", slice(0, 10000))
    mean, std = NORMALISATIONS[name]
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2), dtype=np.float64), mean, atol=0.004)
    np.testing.assert_allclose(images.std(axis=(0, 1, 2), dtype=np.float64), std, atol=0.004)


# -- what it is judged by ----------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.floats(-3, 3),
    st.integers(2, 12),
)
def test_the_fitted_cross_entropy_knows_no_temperature(seed: int, exponent: float, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 50)
    logits = (rng.normal(size=(50, classes)) + 2 * np.eye(classes)[labels]).astype(np.float32)
    losses = fitted_losses(logits, labels)
    scaled = fitted_losses((logits * 10**exponent).astype(np.float32), labels)
    np.testing.assert_allclose(scaled, losses, rtol=1e-3, atol=1e-4)
    best = min(
        _plain(logits.astype(np.float64) * factor, labels).mean() for factor in np.geomspace(0.05, 20, 300)
    )
    assert losses.mean() <= best + 1e-4
    assert losses.mean() <= math.log(classes) + 1e-6


def _plain(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def test_answers_that_are_not_finite_are_a_guess() -> None:
    logits = np.array([[5.0, 0, 0], [np.nan, 0, 0], [0, 0, 0]], np.float32)
    losses = fitted_losses(logits, np.array([0, 0, 0]))
    assert losses[1] == pytest.approx(math.log(3))
    np.testing.assert_allclose(fitted_losses(np.full((4, 3), 7, np.float32), np.zeros(4, int)), math.log(3))


@given(
    st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 0.9), min_size=3, max_size=3),
)
def test_a_scale_is_what_it_says_and_can_be_undone(mean: list[float], std: list[float]) -> None:
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    scale = PixelScale.normalised(mean, std)
    np.testing.assert_allclose(scale.apply(images), (images - mean) / std, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scale.undo(scale.apply(images)), images, atol=1e-5)
    assert stated({"pixel_range": None, "normalise": {"mean": mean, "std": std}}) == scale


def test_candidates_are_those_that_fit_and_each_only_once(digits: Dataset) -> None:
    options = [one.option for one in candidates(digits)]
    assert options[:4] == [
        "pixel_range: [0, 1]",
        "pixel_range: [0, 255]",
        "pixel_range: [-1, 1]",
        "normalise: mnist",
    ]
    assert len(options) == len(set(options)) == 6  # and its own, with and without its standard deviation
    assert not any("imagenet" in one or "cifar10" in one for one in options)


# -- in a grid ----------------------------------------------------------------------------------------------

GRID = """\
models: [{name: mine, path: %s, %s}]
datasets: [digits]
attacks: [fgsm]
epsilons: [0.1]
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    path = tmp_path_factory.mktemp("models") / "mine.keras"
    net(digits, MNIST).save(path)
    return path


def cell(folder: Path, path: Path, said: str) -> Any:
    file = folder / "grid.yaml"
    file.write_text(GRID % (path, said))
    return cells_of(load_grid(str(file), []))[0]


def test_normalise_is_a_layer_of_the_victim_and_part_of_what_it_is(
    saved: Path, tmp_path: Path, digits: Dataset
) -> None:
    import keras

    named = cell(tmp_path, saved, "normalise: mnist")
    assert named.victim.model.shown == "normalise=mnist"
    same = [
        cell(tmp_path, saved, f"normalise: {{mean: {mean}, std: {std}}}")
        for mean, std in (("0.1307", "0.3081"), ("[0.1307]", "[0.3081]"))
    ]
    assert {one.cell_id for one in same} == {named.cell_id}
    others = [
        "normalise: {mean: 0.1, std: 0.3}",
        "pixel_range: [0, 255]",
        "train: {}",
        "inference: as_called",
    ]
    assert len({named.cell_id, *(cell(tmp_path, saved, said).cell_id for said in others)}) == 5
    model = build_model(named.victim.model, digits.shape, 10)
    images = digits.images("test", slice(0, 8))
    plain = keras.saving.load_model(saved, compile=False)
    np.testing.assert_allclose(model(images), plain((images - 0.1307) / 0.3081), atol=1e-4)


def test_a_victim_as_it_is_is_asked_for_its_scale(saved: Path, digits: Dataset) -> None:
    def victim(**options: Any) -> Any:
        spec = victim_spec("mine", model=model_spec("mine", path=str(saved), **options), recipe=None)
        return victim_as_it_is(spec, digits)[0]

    mean, std = NORMALISATIONS["mnist"]
    assert victim(normalise={"mean": mean, "std": std}).flags == ()
    try:
        assert {Flag.SCALE_UNSETTLED, Flag.SCALE_DOUBTED} & set(victim().flags)
    except ArchitectureError as error:
        assert "normalise: " in str(error)
    assert Flag.SCALE_UNSETTLED not in victim(pixel_range=[0.0, 1.0]).flags


@pytest.mark.parametrize(
    "said, message",
    [
        ("normalise: imagnet", "found 'imagnet'; imagenet, cifar10, mnist or {mean: …, std: …}"),
        ("normalise: {mean: 0.5}", "or {mean: …, std: …}"),
        ("normalise: {mean: 0.5, std: 0}", "std above 0"),
        ("normalise: {mean: [0.5, 0.5], std: [0.1, 0.1, 0.1]}", "one for each channel"),
        ("normalise: {mean: 120.7, std: 64.15}", "divide those of [0, 255] by 255"),
        ("normalise: {mean: .nan, std: 1}", "or {mean: …, std: …}"),
        ("normalise: mnist, pixel_range: [0, 1]", "found beside pixel_range:; one of the two is allowed"),
        ("normalise: cifar10", "mine normalises images of 3 channels; those of digits have 8×8×1"),
    ],
)
def test_a_wrong_normalisation_is_said_before_anything_runs(
    said: str, message: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(GridError) as error:
        cell(tmp_path, saved, said)
    [problem] = error.value.problems
    assert message in str(problem)
