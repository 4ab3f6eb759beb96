"""Defences at inference: each against an independent implementation, and gradients as they are said to be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tests.support.models import affine, digits_cnn
from workers.answers import fresh_draws
from workers.attacks import build
from workers.defences import DEFENCES, DefenceError, InputTransformation, defend
from workers.factories import look_in
from workers.flags import Flag
from workers.network import network_for
from workers.unit import DefenceSpec

pytestmark = pytest.mark.tf

COLOUR, GREY = (13, 20, 3), (11, 9, 1)  # neither square, nor of whole JPEG blocks
NAMES = sorted(name for name, defence in DEFENCES.items() if defence.at_inference)
RANDOM = ("gaussian_noise", "random_resize_pad", "smoothing")

Images = NDArray[np.float32]


def spec(name: str, **options: Any) -> DefenceSpec:
    return DefenceSpec(name=name, version=DEFENCES[name].VERSION, options=options)


def some_images(shape: tuple[int, int, int], count: int = 7) -> Images:
    """Noise, some of it smooth, with exact zeros and ones."""
    images = np.random.default_rng(1).random((count, *shape), np.float32)
    images[::2] = ndimage.uniform_filter(images[::2], (1, 3, 3, 1))
    return np.clip(1.4 * images - 0.2, 0, 1).astype(np.float32)


def linear(shape: tuple[int, int, int], classes: int = 3) -> Any:
    """A model whose logits are sums of the pixels with fixed weights, (H·W·C, classes)."""
    import keras

    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes, use_bias=False)]
    )
    weights = np.random.default_rng(2).normal(size=model.get_weights()[0].shape).astype(np.float32)
    model.set_weights([weights])
    return model


def transformed(name: str, images: Images, **options: Any) -> Images:
    import keras

    model = defend(linear(images.shape[1:]), spec(name, **options), images.shape[1:])
    return np.asarray(keras.ops.convert_to_numpy(model.transformation(images)))


def by_pillow(image: Images, quality: int) -> Images:
    levels = np.rint(image * 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data)).reshape(image.shape).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("shape", [COLOUR, GREY])
@pytest.mark.parametrize("quality", [10, 75, 100])
def test_jpeg_is_pillows(shape: tuple[int, int, int], quality: int) -> None:
    images = some_images(shape)
    expected = np.stack([by_pillow(image, quality) for image in images])
    np.testing.assert_array_equal(transformed("jpeg", images, quality=quality), expected)
    assert (expected != images).any()


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_is_numpys(bits: int) -> None:
    images = some_images(COLOUR)
    levels = 2**bits - 1
    found = transformed("bit_depth", images, bits=bits)
    np.testing.assert_allclose(found, np.rint(images * levels) / levels, atol=1e-7)
    assert len(np.unique(found)) == min(levels + 1, len(np.unique(images)))


@pytest.mark.parametrize("shape", [COLOUR, GREY])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_median_smoothing_is_scipys(shape: tuple[int, int, int], size: int) -> None:
    images = some_images(shape)
    expected = np.stack([ndimage.median_filter(image, size=(size, size, 1)) for image in images])
    np.testing.assert_array_equal(transformed("median_smoothing", images, size=size), expected)


def test_noise_is_gaussian_and_each_images_own() -> None:
    images = np.full((64, *COLOUR), 0.5, np.float32)
    noise = transformed("gaussian_noise", images, sigma=0.2) - images
    assert abs(noise.mean()) < 0.005 and noise.std() == pytest.approx(0.2, rel=0.02)
    assert len(np.unique(noise[:, 0, 0, 0])) == 64
    assert np.mean(np.abs(noise) < 0.2) == pytest.approx(0.6827, abs=0.01)


def test_what_is_resized_and_padded_is_the_image_as_pillow_resizes_it() -> None:
    height, width, _ = COLOUR
    images = np.tile(0.5 + some_images(COLOUR, 1) / 2, (200, 1, 1, 1))  # nothing in it is black
    found = transformed("random_resize_pad", images, least=0.8)
    seen = set()
    for image in found:
        rows, columns = (np.flatnonzero(image.any(axis=axes)) for axes in ((1, 2), (0, 2)))
        top, left, size = rows[0], columns[0], (len(rows), len(columns))
        part = image[top : rows[-1] + 1, left : columns[-1] + 1]
        assert part.shape[:2] == size and part.all()  # the rest is black
        seen.add((size, top, left))
        import tensorflow as tf

        np.testing.assert_allclose(part, tf.image.resize(images[0], size), atol=1e-5)
    heights = {size[0] for size, *_ in seen}
    assert heights == set(range(int(0.8 * height), height + 1))
    assert {size[1] for size, *_ in seen} == set(range(int(0.8 * width), width + 1))
    assert min(top for _, top, _ in seen) == 0
    assert max(top + size[0] for size, top, _ in seen) == height
    assert max(left + size[1] for size, _, left in seen) == width


@pytest.mark.parametrize("name", NAMES)
def test_all_keep_what_images_are(name: str) -> None:
    for shape in (COLOUR, GREY):
        images = some_images(shape)
        found = transformed(name, images)
        assert (found.shape, found.dtype) == (images.shape, np.float32) and np.isfinite(found).all()
        if name not in ("gaussian_noise", "smoothing"):
            assert found.min() >= 0 and found.max() <= 1
        if name not in RANDOM:
            # Each image by itself, whatever the batch.
            np.testing.assert_array_equal(transformed(name, images[2:3])[0], found[2])


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_from_their_key(name: str) -> None:
    images = some_images(GREY)
    model = linear(GREY)
    network = network_for(defended := defend(model, spec(name), GREY), GREY)
    first, again, other = (list(fresh_draws(network, images, key)) for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert network.health(images).randomised == (name in RANDOM)
    assert (not np.array_equal(first, other)) == (name in RANDOM)
    assert [w.shape for w in defended.get_weights()] == [w.shape for w in model.get_weights()]


def gradient(name: str, images: Images, **options: Any) -> tuple[Images, Images]:
    """Of the margin of class 1 over class 0, (N, H, W, C): behind the defence, and without it, (H, W, C)."""
    model = linear(images.shape[1:])
    network = network_for(
        defended := defend(model, spec(name, **options), images.shape[1:]), images.shape[1:]
    )
    classes = np.ones((len(images), 1), np.int32)
    _, found = network.differences(images, np.zeros(len(images), np.int32), classes)
    weights = model.get_weights()[0]
    assert defended is not model
    return found[:, 0], (weights[:, 1] - weights[:, 0]).reshape(images.shape[1:])


@pytest.mark.parametrize("name", ["jpeg", "bit_depth", "gaussian_noise"])
def test_a_straight_through_gradient_is_that_of_the_identity(name: str) -> None:
    found, plain = gradient(name, some_images(COLOUR))
    np.testing.assert_allclose(found, np.broadcast_to(plain, found.shape), rtol=1e-5)


def test_a_straight_through_gradient_is_taken_at_what_the_network_sees() -> None:
    """∇f at g(x), not at x: of the sum of squares, twice the rounded image."""
    import keras
    import tensorflow as tf

    inputs = keras.Input(GREY)
    squares = keras.layers.Lambda(lambda x: tf.reduce_sum(x**2, axis=(1, 2, 3))[:, None])(inputs)
    model = keras.Model(inputs, keras.layers.Concatenate()([squares, 0 * squares]))
    images = some_images(GREY)
    network = network_for(defended := defend(model, spec("bit_depth", bits=1), GREY), GREY)
    ones = np.ones(len(images), np.int32)
    logits, found = network.differences(images, ones, 0 * ones[:, None])
    np.testing.assert_allclose(found[:, 0], 2 * np.rint(images), atol=1e-6)
    np.testing.assert_allclose(logits[:, 0], np.rint(images).sum(axis=(1, 2, 3)), rtol=1e-6)
    assert defended.get_weights() == []


def test_the_medians_gradient_goes_to_the_pixel_that_is_selected() -> None:
    images = some_images(GREY)  # with many that are equal, 0 or 1
    found, plain = gradient("median_smoothing", images, size=3)
    for image, one in zip(images, found, strict=True):
        padded = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="symmetric")
        rows, columns = (np.pad(np.arange(n), 1, mode="symmetric") for n in GREY[:2])
        expected = np.zeros(GREY)
        for y, x in np.ndindex(GREY[:2]):
            window = padded[y : y + 3, x : x + 3, 0].ravel()
            place = np.flatnonzero(window == np.median(window))[0]
            expected[rows[y + place // 3], columns[x + place % 3], 0] += plain[y, x, 0]
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)


def test_resizing_has_its_own_gradient() -> None:
    """It is linear in the image: the gradient times the image is the logit."""
    images = some_images(COLOUR)
    model = linear(COLOUR)
    network = network_for(defended := defend(model, spec("random_resize_pad", least=0.5), COLOUR), COLOUR)
    zeros = np.zeros(len(images), np.int32)
    logits, found = network.differences(images, zeros, 1 + zeros[:, None])
    np.testing.assert_allclose(
        np.einsum("nhwc,nhwc->n", found[:, 0], images), logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-4
    )
    assert defended.transformation.supports_jit


def test_what_xla_cannot_compile_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: jpeg has no kernel there."""
    from workers import network

    monkeypatch.setattr(network, "COMPILE", {"CPU": True, "GPU": True})
    images = some_images(GREY)
    model = linear(GREY)
    for name in ("jpeg", "random_resize_pad"):
        defended = defend(model, spec(name), GREY)
        assert network.network_for(defended, GREY).logits(images).shape == (len(images), 3)


def test_images_that_a_defence_cannot_take() -> None:
    with pytest.raises(DefenceError, match=r"jpeg takes images of 1 or 3 channels; found 8×8×4"):
        defend(linear((8, 8, 4)), spec("jpeg"), (8, 8, 4))
    with pytest.raises(DefenceError, match="median_smoothing with a size of 5 takes images of at least 5"):
        defend(linear((4, 8, 1)), spec("median_smoothing", size=5), (4, 8, 1))
    with pytest.raises(DefenceError, match="would shrink the images to nothing"):
        defend(linear((4, 8, 1)), spec("random_resize_pad", least=0.2), (4, 8, 1))
    with pytest.raises(DefenceError, match='unknown defence "jpg"; allowed: adversarial_training, bit_'):
        defend(linear(GREY), DefenceSpec(name="jpg", version=1), GREY)


# -- a user's own -----------------------------------------------------------------------------------------

OWN = """
import keras
import tensorflow as tf


class Weighted(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.5))

    def call(self, images):
        return tf.round(images * self.factor * 255) / 255


def halved(factor=0.5):
    return lambda images: images * factor


def weighted():
    return Weighted(), lambda images: images * 0.25


def blind():
    return tf.round


def in_training_only():
    return keras.layers.GaussianNoise(0.5)


def drawn():
    seed = keras.random.SeedGenerator(3)
    layer = keras.layers.Lambda(lambda images: images + keras.random.normal((1, 11, 9, 1), seed=seed))
    layer.seed = seed
    return layer


def cropped():
    return lambda images: images[:, 1:]


def wrong_surrogate():
    return tf.round, lambda images: images[:, 1:]


def whole_numbers():
    return lambda images: tf.cast(images, tf.int32)


def infinite():
    return lambda images: images / 0


def nothing():
    return None
"""


@pytest.fixture
def own(tmp_path: Path) -> Any:
    (tmp_path / "own_defences.py").write_text(OWN)
    look_in([str(tmp_path)])

    def make(function: str, **options: Any) -> Any:
        named = DefenceSpec(name="mine", factory=f"own_defences:{function}", options=options)
        return defend(linear(GREY), named, GREY)

    yield make
    look_in([])


def slopes(model: Any, images: Images) -> Images:
    zeros = np.zeros(len(images), np.int32)
    return network_for(model, GREY).differences(images, zeros, 1 + zeros[:, None])[1][:, 0]


def test_a_users_own_function_or_layer_with_or_without_a_surrogate(own: Any) -> None:
    images = some_images(GREY)
    plain = slopes(linear(GREY), images)
    np.testing.assert_allclose(slopes(own("halved"), images), plain / 2, rtol=1e-5)
    np.testing.assert_allclose(slopes(own("halved", factor=0.1), images), plain / 10, rtol=1e-5)
    model = own("weighted")
    np.testing.assert_allclose(slopes(model, images), plain / 4, rtol=1e-5)
    seen = np.rint(images * np.float32(0.5 * 255)) / np.float32(255)
    np.testing.assert_allclose(
        network_for(model, GREY).logits(images), network_for(linear(GREY), GREY).logits(seen), atol=1e-4
    )
    assert len(model.get_weights()) == 2  # its own belongs to what a victim's hash is of
    assert not slopes(own("blind"), images).any()


def test_what_a_users_own_draws_is_keyed(own: Any) -> None:
    images = some_images(GREY)
    network = network_for(model := own("drawn"), GREY)
    first, again, other = (list(fresh_draws(network, images, key)) for key in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert network.health(images).randomised and not np.array_equal(first, other)
    assert len(model.get_weights()) == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("in_training_only", "leaves images as they are, so it is no defence: a layer that acts in training"),
        ("cropped", r"own_defences:cropped made float32 \(2, 10, 9, 1\) of images float32 \(2, 11, 9, 1\)"),
        ("wrong_surrogate", r"the surrogate of own_defences:wrong_surrogate made float32 \(2, 10, 9, 1\)"),
        ("whole_numbers", r"made int32 \(2, 11, 9, 1\) of images float32"),
        ("infinite", r"made float32 \(2, 11, 9, 1\), not finite, of images"),
        ("nothing", "returned NoneType; a layer or function of images, or a pair of one and its surrogate"),
    ],
)
def test_a_users_own_that_is_no_defence(own: Any, function: str, message: str) -> None:
    with pytest.raises(DefenceError, match=message):
        own(function)


# -- attacked ---------------------------------------------------------------------------------------------


def test_an_oblivious_attack_takes_its_gradients_elsewhere_and_its_success_here() -> None:
    """Two affine models of opposite slopes: the one's gradients lead away from the other's boundary."""
    images = np.full((6, 4, 4, 1), 0.5, np.float32)
    labels = np.zeros(6, np.int64)
    weights = np.random.default_rng(3).normal(size=(16, 2))
    model, other = affine(weights, [1.0, 0.0]), affine(-weights, [1.0, 0.0])
    for config in (
        {"name": "fgsm"},
        {"name": "bim"},
        {"name": "deepfool"},
        {"name": "fab"},
    ):
        attack = build(config)
        epsilons = [0.5]
        assert attack(model, images, labels, epsilons).success.all()
        assert not attack(model, images, labels, epsilons, gradients_of=other).success.any()
        # The other way round a model's own gradients are what it would have anyway.
        result = attack(model, images, labels, epsilons, gradients_of=model)
        np.testing.assert_array_equal(result.images, attack(model, images, labels, epsilons).images)


@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_oblivious_images_are_those_of_the_undefended_network(name: str) -> None:
    """Kept to the end of the budget, they do not depend on the defence; their success does."""
    digits = digits_cnn()
    images, labels = digits.images[:40], digits.labels[:40]
    defended = defend(digits.model, spec("median_smoothing", size=3), (8, 8, 1))
    run = {"epsilons": [0.1, 0.3], "choose": "last"}
    attack = build({"name": name, "eot": 1})
    plain = attack(digits.model, images, labels, clean_correct=np.ones(40, bool), **run)
    found = attack(
        defended, images, labels, clean_correct=np.ones(40, bool), gradients_of=digits.model, **run
    )
    np.testing.assert_array_equal(found.images, plain.images)
    wrong = network_for(defended, (8, 8, 1)).logits(found.images[1]).argmax(axis=1) != labels
    np.testing.assert_array_equal(found.success[1], wrong)
    assert (found.success != plain.success).any()


def test_random_defences_are_attacked_by_expectation() -> None:
    digits = digits_cnn()
    images, labels = digits.images[:20], digits.labels[:20]
    defended = defend(digits.model, spec("gaussian_noise", sigma=0.2), (8, 8, 1))
    result = build({"name": "bim"})(defended, images, labels, [0.2])
    assert result.flags[Flag.RANDOMISED].all()
    assert (result.gradient_calls[result.clean_correct] % 20 == 0).all() and result.success.any()


def test_no_gradient_is_flagged(own: Any) -> None:
    images = some_images(GREY)
    result = build({"name": "bim"})(own("blind"), images, np.zeros(len(images), int), [0.1])
    assert result.flags[Flag.ZERO_GRADIENTS][result.clean_correct].all()


def test_every_defence_says_what_it_is_and_where_it_comes_from() -> None:
    for name in NAMES:
        defence = DEFENCES[name]
        assert issubclass(defence, InputTransformation) and defence.name == name and defence.VERSION >= 1
        assert "arXiv:" in (defence.__doc__ or "") and DEFENCES[name]() == DEFENCES[name]()
