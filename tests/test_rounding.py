"""Images of 8 bits: within epsilon wherever rounding can keep them there."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import metrics
from workers.norms import NORMS, Images, Norm
from workers.rounding import LEVEL, moved_by_saving, rounded_within


def is_of_levels(images: Images) -> bool:
    return bool((np.abs(images * 255 - np.rint(images * 255)) < 1e-3).all())


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Images, Images, float, Norm]:
    """A clean image of 4 channels, of 8 bits or not, and another one within epsilon of it."""
    norm = NORMS[draw(st.sampled_from(sorted(NORMS)))]
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clean = generator.random((1, 2, 2, 1), np.float32)
    if draw(st.booleans()):
        clean = metrics.round_to_uint8(clean)
    epsilon = draw(st.floats(0.001, 0.05)) if draw(st.booleans()) else draw(st.integers(1, 12)) * LEVEL
    far = clean + norm.draw(generator, clean.shape) * np.float32(3 * epsilon)
    radius = np.full((1, 1, 1, 1), epsilon, np.float32)
    return norm.project(far, clean, radius), clean, epsilon, norm


@settings(max_examples=300, deadline=None)
@given(pairs())
def test_an_image_of_8_bits_within_epsilon_is_found_where_there_is_one(
    pair: tuple[Images, Images, float, Norm],
) -> None:
    """Against all sixteen ways to round each of four channels up or down."""
    image, clean, epsilon, norm = pair
    rounded, allowed = rounded_within(image, clean, epsilon, norm)
    assert is_of_levels(rounded) and np.abs(rounded - image).max() <= LEVEL + 1e-6
    assert allowed[0] == metrics.within(norm.distance(clean, rounded), epsilon)[0]
    low = np.floor(image * 255)
    ways = np.concatenate([(low + np.reshape(way, image.shape)) / 255 for way in product((0, 1), repeat=4)])
    ways = ways.astype(np.float32)
    # Not within a hair of epsilon, where the slacks of two comparisons decide.
    inside = norm.distance(np.repeat(clean, 16, axis=0), ways) <= epsilon * (1 + 1e-6)
    if inside.any():
        assert allowed[0]
    plain = metrics.round_to_uint8(image)
    if metrics.within(norm.distance(clean, plain), epsilon)[0]:
        assert np.array_equal(rounded, plain), "what rounding keeps within epsilon is left as it is"


@pytest.mark.parametrize("levels", [1, 8, 16])
def test_nothing_is_lost_at_whole_levels(levels: int) -> None:
    generator = np.random.default_rng(levels)
    clean = metrics.round_to_uint8(generator.random((50, 4, 4, 3), np.float32))
    signs = generator.choice([-1, 1], clean.shape).astype(np.float32)
    image = np.clip(clean + signs * np.float32(levels / 255), 0, 1)
    rounded, allowed = rounded_within(image, clean, levels / 255, NORMS["linf"])
    assert allowed.all() and np.abs(rounded - image).max() < 1e-6


def test_half_levels_are_rounded_inwards() -> None:
    """25.5 levels: half of the channels would round to 26, which is beyond epsilon."""
    clean = np.full((1, 2, 2, 1), 100 / 255, np.float32)
    image = clean + np.float32(0.1) * np.array([1, -1, 0.5, 0.0], np.float32).reshape(clean.shape)
    rounded, allowed = rounded_within(image, clean, 0.1, NORMS["linf"])
    assert allowed.all()
    assert np.rint(rounded * 255).ravel().tolist() == [125, 75, 113, 100]


def test_as_few_channels_as_are_enough_turn() -> None:
    generator = np.random.default_rng(0)
    clean = metrics.round_to_uint8(0.4 + 0.2 * generator.random((20, 16, 16, 3), np.float32))
    change = generator.normal(size=clean.shape).astype(np.float32)
    image = NORMS["l2"].project(clean + change, clean, np.full((20, 1, 1, 1), 0.5, np.float32))
    plain = metrics.round_to_uint8(image)
    beyond = ~metrics.within(NORMS["l2"].distance(clean, plain), 0.5)
    assert beyond.sum() > 10
    rounded, allowed = rounded_within(image, clean, 0.5, NORMS["l2"])
    assert allowed.all()
    turned = (np.abs(rounded - plain) > LEVEL / 2).mean(axis=(1, 2, 3))
    assert ((turned > 0) == beyond).all() and (turned < 0.1).all()
    # One channel less would not have been enough: the distance is just within.
    assert (NORMS["l2"].distance(clean, rounded)[beyond] > 0.4995).all()


def test_how_far_saving_may_have_moved_an_image() -> None:
    images = np.random.default_rng(0).random((2, 3, 3, 1))
    levels = np.rint(images * 255).astype(np.uint8)
    assert moved_by_saving(levels) == moved_by_saving(levels / 255) == LEVEL
    assert moved_by_saving((levels / 255).astype(np.float32)) == LEVEL
    assert moved_by_saving(images) == 0
