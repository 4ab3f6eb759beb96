"""Building victims: small networks, a user's constructor, a user's own trained model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from tests.support.victims import cells_of, model_spec, victim_spec
from workers.datasets import Dataset, load
from workers.recipe import Recipe
from workers.unit import DatasetSpec, Weights
from workers.victims.architectures import ArchitectureError, build_model
from workers.victims.training import build_and_train
from workers.victims.victim import victim_as_it_is

pytestmark = pytest.mark.tf

SHAPE = (8, 8, 1)
SMALL = ["small_cnn", "wide_cnn"]

FACTORIES = """
import keras


def linear(*, bias=True, input_shape, classes):
    flat = keras.layers.Flatten()
    return keras.Sequential([keras.Input(input_shape), flat, keras.layers.Dense(classes, use_bias=bias)])


def softmax(*, input_shape, classes):
    return keras.Sequential([linear(input_shape=input_shape, classes=classes), keras.layers.Softmax()])


def too_many(*, input_shape, classes):
    return linear(input_shape=input_shape, classes=classes + 1)


def other_shape(*, input_shape, classes):
    return linear(input_shape=(5, 5, 2), classes=classes)


def nothing(*, input_shape, classes):
    return None
"""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "nets_for_tests.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_for_tests", raising=False)
    return "nets_for_tests"


# -- small networks, and factories ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 9, 4), (32, 32, 3)])
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_map_images_of_any_size_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(model_spec(name, width=3), shape, 7)
    images = np.random.default_rng(0).random((5, *shape), dtype=np.float32)
    logits = model(images).numpy()
    assert logits.shape == (5, 7) and logits.dtype == np.float32
    assert not np.allclose(logits.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_the_images(name: str) -> None:
    import tensorflow as tf

    model = build_model(model_spec(name), SHAPE, 10)
    images = tf.constant(np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(model(images)[:, 0])
    assert np.abs(tape.gradient(total, images).numpy()).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ({"name": "smal_cnn"}, SHAPE, 'unknown model "smal_cnn"; allowed: .*small_cnn, vgg16'),
        ({"name": "small_cnn"}, (8, 7, 1), "at least 8 pixels; found 8×7"),
        ({"name": "small_cnn", "width": 0}, SHAPE, "width"),
        ({"name": "small_cnn", "width": True}, SHAPE, "width"),
        ({"name": "small_cnn", "depth": 3}, SHAPE, "depth"),
    ],
)
def test_wrong_models_are_refused(model: dict[str, Any], shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_model(model_spec(**model), shape, 10)


def test_a_users_constructor_gets_its_options(factories: str) -> None:
    mine = model_spec("mine", factory=f"{factories}:linear", bias=False)
    assert build_model(mine, SHAPE, 10).count_params() == 640


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("softmax", "answers with probabilities; logits are needed"),
        ("too_many", r"maps \(4, 8, 8, 1\) to \(4, 11\); \(4, 10\) is allowed"),
        ("other_shape", r"cannot take images of shape \(8, 8, 1\)"),
        ("nothing", "returned a NoneType"),
        ("absent", 'cannot import "nets_for_tests:absent"'),
    ],
)
def test_what_is_no_victim_is_refused(factories: str, name: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_model(model_spec("mine", factory=f"{factories}:{name}"), SHAPE, 10)


@pytest.mark.parametrize("name", SMALL)
def test_thirty_epochs_learn_the_digits(name: str, digits: Dataset) -> None:
    recipe = Recipe(epochs=30)
    model, history = build_and_train(victim_spec(model=model_spec(name), recipe=recipe), digits)
    right = model(digits.x_test).numpy().argmax(axis=1) == digits.y_test
    assert right.mean() >= 0.95
    assert history.rows[-1]["validation_accuracy"] >= 0.9


# -- a user's own trained model ---------------------------------------------------------------------------


def functional(body: Callable[[Any, Any], Any]) -> Any:
    import keras

    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, body(keras, keras.layers.Flatten()(inputs)))


ENDINGS: dict[str, Callable[[Any, Any], Any]] = {
    "logits": lambda k, x: k.layers.Dense(10)(x),
    "dense softmax": lambda k, x: k.layers.Dense(10, activation="softmax")(x),
    "softmax activation": lambda k, x: k.layers.Activation("softmax")(k.layers.Dense(10)(x)),
    "softmax layer": lambda k, x: k.layers.Softmax()(k.layers.Dense(10)(x)),
    "softmax operation": lambda k, x: k.ops.softmax(k.layers.Dense(10)(x)),
    "sigmoid": lambda k, x: k.layers.Dense(10, activation="sigmoid")(x),
    "nested": lambda k, x: k.Sequential(
        [k.Input((64,)), k.Sequential([k.Input((64,)), k.layers.Dense(10), k.layers.Softmax()])]
    )(x),
    "linear after": lambda k, x: k.layers.Activation("linear")(k.layers.Dense(10)(x)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_in_softmax_is_turned_into_logits(ending: str, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(3)
    model = functional(ENDINGS[ending])
    path = tmp_path / "mine.keras"
    model.save(path)
    victim = build_model(model_spec("mine", path=str(path)), SHAPE, 10)
    images = np.random.default_rng(1).random((20, *SHAPE), dtype=np.float32)
    logits, answers = victim(images).numpy(), model(images).numpy()
    if "linear" in ending or ending == "logits":
        np.testing.assert_array_equal(logits, answers)
    else:
        assert logits.min() < 0
        squash = keras.activations.sigmoid if ending == "sigmoid" else keras.activations.softmax
        np.testing.assert_allclose(squash(logits).numpy(), answers, atol=1e-6)


def lambda_model(keras: Any, path: Path) -> None:
    keras.Sequential([keras.Input(SHAPE), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]).save(
        path
    )


def two_outputs(keras: Any, path: Path) -> None:
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    keras.Model(inputs, [keras.layers.Dense(10)(x), keras.layers.Dense(10)(x)]).save(path)


def nine_classes(keras: Any, path: Path) -> None:
    functional(lambda k, x: k.layers.Dense(9)(x)).save(path)


def one_sigmoid(keras: Any, path: Path) -> None:
    functional(lambda k, x: k.layers.Dense(1, activation="sigmoid")(x)).save(path)


def colour(keras: Any, path: Path) -> None:
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(path)


def not_built(keras: Any, path: Path) -> None:
    keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)]).save(path)


def hidden_softmax(keras: Any, path: Path) -> None:
    functional(lambda k, x: k.layers.Rescaling(1.0)(k.layers.Dense(10, activation="softmax")(x))).save(path)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda_model, "cannot load .*safe mode.*factory:"),
        (two_outputs, "1 inputs and 2 outputs"),
        (nine_classes, r"answers with shape \(9,\); the dataset has 10 classes"),
        (one_sigmoid, r"answers with shape \(1,\); the dataset has 10 classes"),
        (colour, r"takes images of shape \(8, 8, 3\); the dataset's have \(8, 8, 1\)"),
        (not_built, "before it was built"),
        (hidden_softmax, "answers with probabilities; logits are needed"),
    ],
)
def test_models_that_are_no_victim_are_refused(
    save: Callable[[Any, Path], None], message: str, tmp_path: Path
) -> None:
    import keras

    path = tmp_path / "mine.keras"
    save(keras, path)
    with pytest.raises(ArchitectureError, match=message):
        build_model(model_spec("mine", path=str(path)), SHAPE, 10)


def test_a_file_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.keras"
    functional(ENDINGS["logits"]).save(path)
    with pytest.raises(ArchitectureError, match="has changed since the sweep was planned"):
        build_model(model_spec("mine", path=str(path), sha256="0" * 64), SHAPE, 10)


@pytest.fixture(scope="module")
def trained_on_255(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """Plain Keras code, ending in softmax, on pixels in [0, 255]."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits.x_train * 255, digits.y_train, epochs=8, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("models") / "mine.keras"
    model.save(path)
    return path


def as_it_is(path: Path, pixel_range: Any = None) -> Any:
    return victim_spec("mine", model=model_spec("mine", path=str(path), pixel_range=pixel_range), recipe=None)


def test_the_pixel_range_of_a_model_is_asked_for_and_used(trained_on_255: Path, digits: Dataset) -> None:
    with pytest.raises(ArchitectureError, match=r"on 9\S+% with .*: give it pixel_range: \[0, 255\]"):
        victim_as_it_is(as_it_is(trained_on_255), digits)
    _, manifest = victim_as_it_is(as_it_is(trained_on_255, [0.0, 255.0]), digits)
    assert manifest.test_accuracy > 0.9 and manifest.test_examples == 500
    assert manifest.chance == pytest.approx(np.bincount(digits.y_test).max() / 500)
    assert (manifest.history, manifest.train_accuracy, manifest.train_examples) == ([], None, 0)
    _, said = victim_as_it_is(as_it_is(trained_on_255, [0.0, 1.0]), digits)  # taken at its word
    assert said.test_accuracy < 0.5


def test_a_model_of_ones_own_is_fine_tuned_when_asked(trained_on_255: Path, digits: Dataset) -> None:
    spec = victim_spec(
        model=model_spec("mine", path=str(trained_on_255), pixel_range=[0.0, 255.0]),
        recipe=Recipe(epochs=2, fine_tune="all"),
    )
    before = build_model(spec.model, SHAPE, 10)
    model, history = build_and_train(spec, digits)
    assert [row["phase"] for row in history.rows] == ["fine_tune", "fine_tune"]
    assert history.rows[0]["accuracy"] > 0.9  # it went on from where it was
    assert any((a != b).any() for a, b in zip(model.get_weights(), before.get_weights(), strict=True))


# -- in a grid --------------------------------------------------------------------------------------------

GRID = """\
models: [{name: mine, path: %s}]
datasets: [digits]
attacks: [fgsm]
epsilons: [0.1]
seeds: [0, 1]
"""


def parse(folder: Path, text: str, *overrides: str) -> Grid:
    file = folder / "grid.yaml"
    file.write_text(text)
    return load_grid(str(file), overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(GridError) as error:
        parse(folder, text, *overrides)
    return [str(problem) for problem in error.value.problems]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.keras"
    functional(ENDINGS["logits"]).save(path)
    return path


def test_a_model_counts_by_its_content_and_once_for_all_seeds(own: Path, tmp_path: Path) -> None:
    text = GRID % own
    [cell] = cells_of(parse(tmp_path, text))
    assert cell.victim.recipe is None and cell.victim.seed == 0
    assert cell.victim.model.path == str(own) and len(cell.victim.model.sha256) == 64
    copy = tmp_path / "elsewhere.keras"
    copy.write_bytes(own.read_bytes())
    assert [one.cell_id for one in cells_of(parse(tmp_path, GRID % copy))] == [cell.cell_id]
    assert cells_of(parse(tmp_path, text, "models.0.pixel_range=[0, 1]"))[0].cell_id == cell.cell_id
    assert cells_of(parse(tmp_path, text, "models.0.pixel_range=[0, 255]"))[0].cell_id != cell.cell_id
    trained = list(cells_of(parse(tmp_path, text, "models.0.train={epochs: 1}")))
    assert [one.victim.seed for one in trained] == [0, 1]
    assert trained[0].victim.recipe.epochs == 1
    functional(ENDINGS["dense softmax"]).save(own)
    assert cells_of(parse(tmp_path, text))[0].cell_id != cell.cell_id


def test_what_is_wrong_with_a_model_is_said_before_anything_runs(own: Path, tmp_path: Path) -> None:
    text = GRID % own
    assert problems(tmp_path, text, "datasets=[digits, mnist]") == [
        "line 1: models: mine takes images of 8×8×1; those of mnist have 28×28×1 "
        "(exclude: [{model: mine, dataset: mnist}] leaves them out)"
    ]
    parse(tmp_path, text, "datasets=[digits, mnist]", "exclude=[{model: mine, dataset: mnist}]")
    [missing] = problems(tmp_path, GRID % (tmp_path / "gone.keras"))
    assert "models[0].path: cannot read" in missing
    (tmp_path / "broken.keras").write_bytes(own.read_bytes()[:200])
    [broken] = problems(tmp_path, GRID % (tmp_path / "broken.keras"))
    assert "it is not a .keras file" in broken
    found = problems(
        tmp_path,
        text,
        "models.0.pixel_range=[1, 0]",
        "models.0.width=3",
        "models.0.train={fine_tune: none, weights: imagenet}",
    )
    assert len(found) == 4
    assert 'unknown option of model mine "width"' in found[0]
    assert "takes no pretrained weights" in found[1]
    assert "leaves nothing to train" in found[2]
    assert "two numbers such as [0, 255]" in found[3]
    [suffix] = problems(tmp_path, GRID % (tmp_path / "model.h5"))
    assert "the path or URI of a .keras file" in suffix


WEIGHTS = """\
models: [mobilenet_v2, {name: resnet50_v2, weights: null}, small_cnn]
datasets: [digits, {name: mnist, train: {weights: null}}]
attacks: [fgsm]
epsilons: [0.1]
train: {weights: imagenet, head_epochs: 3}
"""


def test_weights_of_the_grid_are_the_default_of_those_that_take_some(tmp_path: Path) -> None:
    cells = {
        (cell.victim.model.name, cell.victim.dataset.name): cell.victim
        for cell in cells_of(parse(tmp_path, WEIGHTS))
    }
    starts = {key: victim.model.weights for key, victim in cells.items()}
    assert starts.pop(("mobilenet_v2", "digits")) == Weights(location="imagenet")
    assert not any(starts.values())
    assert cells["mobilenet_v2", "digits"].model.shown == "weights=imagenet"
    assert cells["mobilenet_v2", "digits"].recipe.head_epochs == 3
    assert cells["small_cnn", "digits"].recipe == Recipe()


def test_options_that_a_training_does_not_come_to_leave_its_victim_as_it_is(tmp_path: Path) -> None:
    text = WEIGHTS.replace("weights: imagenet, head_epochs: 3", "")
    ids = [cell.cell_id for cell in cells_of(parse(tmp_path, text))]
    same = [
        cell.cell_id for cell in cells_of(parse(tmp_path, text, "train={head_epochs: 3, fine_tune: all}"))
    ]
    assert same == ids
    other = [cell.cell_id for cell in cells_of(parse(tmp_path, text, "train={optimizer: sgd}"))]
    assert not set(other) & set(ids)


def test_weights_by_path_count_by_their_content(tmp_path: Path) -> None:
    import h5py

    for name, value in (("one", 1), ("copy", 1), ("two", 2)):
        with h5py.File(tmp_path / f"{name}.weights.h5", "w", track_order=False) as file:
            file.create_dataset("x", data=value, track_times=False)
    text = WEIGHTS.replace("imagenet", str(tmp_path / "one.weights.h5"))
    one, copy, two = (
        cells_of(parse(tmp_path, text.replace("one.", f"{name}.")))[0] for name in ("one", "copy", "two")
    )
    assert one.cell_id == copy.cell_id != two.cell_id
    assert one.victim.model.weights.location == str(tmp_path / "one.weights.h5")
    assert len(one.victim.model.weights.sha256) == 64
    assert one.victim.model.shown == "weights=one.weights.h5"
    (tmp_path / "page.h5").write_text("<html>")
    found = problems(
        tmp_path,
        WEIGHTS,
        "train.weights=best",
        f"models.0={{name: mobilenet_v2, weights: {tmp_path}/page.h5}}",
        f"models.1={{name: resnet50_v2, weights: {tmp_path}/gone.h5}}",
        "models.2={name: small_cnn, train: {weights: imagenet}}",
    )
    assert len(found) == 4
    for place, what in (
        ("models[0].weights", "page.h5 is not an HDF5 file"),
        ("models[1].weights", "cannot read"),
        ("models[2].train.weights", "takes no pretrained weights"),
        ("train.weights", "'best'; imagenet, null, or the path"),
    ):
        assert any(f"{place}: " in problem and what in problem for problem in found), (place, found)


def test_sizes_and_channels_are_checked_when_planning(tmp_path: Path) -> None:
    text = WEIGHTS.replace("weights: imagenet, head_epochs: 3", "")
    [small] = problems(tmp_path, text, "models=[{name: inception_v3, input_size: 64}]")
    assert "input_size: found 64; allowed: greater than or equal to 75" in small
    [option] = problems(tmp_path, text, "models=[{name: resnet50_v2, alpha: 0.5}]")
    assert 'unknown option of model resnet50_v2 "alpha"; allowed: input_size, weights' in option
