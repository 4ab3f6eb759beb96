"""The measures behind every number: checked against arithmetic done by hand and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workers import metrics
from workers.norms import L2, LINF

pytestmark = pytest.mark.tf

PIXELS = st.floats(0, 1, width=32)


def test_logits_that_are_not_finite_favour_no_class() -> None:
    logits = np.array([[0.0, np.inf], [np.inf, 0.0], [np.nan, 3.0], [-np.inf, 1.0], [0.0, 1.0]])
    labels = np.zeros(5, int)
    assert metrics.answered(logits).tolist() == [False] * 4 + [True]
    assert metrics.fools(logits, labels).tolist() == [False] * 4 + [True]
    assert not metrics.reaches(logits, labels).any() and not metrics.right(logits, labels).any()
    assert metrics.right(logits, 1 - labels).tolist() == [False] * 4 + [True]


def test_fools_needs_a_lead_above_the_margin():
    logits = np.array([[1, 1.00005, 0], [1, 1.0002, 0], [2, 1, 0], [0, 0, 0], [-9, -7, -8]], np.float32)
    assert metrics.fools(logits, np.zeros(5, int)).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.3, 2.0])
def test_within_allows_rounding_and_no_more(epsilon):
    limit = epsilon * (1 + 1e-5) + 1e-6
    assert metrics.within([0, epsilon, limit * (1 - 1e-9)], epsilon).all()
    assert not metrics.within([limit * (1 + 1e-6), np.inf, np.nan], epsilon).any()


def test_distances_by_hand():
    clean = np.zeros((2, 2, 2, 3), np.float32)
    other = clean.copy()
    other[0, 0, 1] = 0.5, 0, 0.25  # one pixel, two of its channels
    other[0, 1, 0] = 0, 0.25, 0
    found = metrics.distances(clean, other)
    assert found.linf.tolist() == [0.5, 0] and found.l0.tolist() == [2, 0]
    np.testing.assert_allclose(found.l2, [np.sqrt(0.375), 0], rtol=1e-6)
    assert all(each.dtype == np.float32 for each in found)


@given(hnp.arrays(np.float32, (2, 3, 2, 5, 2), elements=PIXELS))
def test_distances_agree_with_numpy_norms(pair):
    clean, other = pair
    change = (other.astype(np.float64) - clean).reshape(3, -1)
    np.testing.assert_allclose(LINF.distance(clean, other), np.linalg.norm(change, np.inf, axis=1), atol=1e-7)
    np.testing.assert_allclose(
        L2.distance(clean, other), np.linalg.norm(change, axis=1), rtol=1e-5, atol=1e-7
    )


@given(hnp.arrays(np.float32, (1, 4, 4, 1), elements=PIXELS))
def test_rounding_to_8_bits_is_what_saving_and_loading_does(images):
    rounded = metrics.round_to_uint8(images)
    levels = np.rint(images.astype(np.float64) * 255)
    assert rounded.dtype == np.float32 and rounded.shape == images.shape
    # Half-way cases may go either way once the product is in float32; everything else is the level itself.
    assert np.abs(rounded.astype(np.float64) * 255 - levels).max() <= 1 + 1e-4
    assert np.abs(rounded - images).max() <= 0.5 / 255 + 1e-7
    saved_and_loaded = np.rint(rounded * 255).astype(np.uint8).astype(np.float32) / np.float32(255)
    assert np.array_equal(rounded, saved_and_loaded)
    assert np.array_equal(metrics.round_to_uint8(rounded), rounded)


def test_perceptibility_golden():
    """These are the numbers of metrics.VERSION 2: raise the version when they change."""
    ramp = np.linspace(0, 1, 16 * 12 * 3, dtype=np.float32).reshape(1, 16, 12, 3)
    clean = np.concatenate([ramp, ramp])
    other = clean.copy()
    other[1, :4] = np.clip(other[1, :4] + 0.1, 0, 1)
    other[1, 5, 5, 0] += 1 / 520  # below what counts as a change
    found = metrics.perceptibility(clean, other)
    assert metrics.VERSION == 2
    assert found.psnr[0] == np.inf
    np.testing.assert_allclose(found.psnr[1], 26.0195, rtol=1e-4)
    np.testing.assert_allclose(found.ssim, [1, 0.98074], rtol=1e-4)
    np.testing.assert_allclose(found.linf, [0, 0.1], rtol=1e-5)
    np.testing.assert_allclose(found.l2, [0, 1.2], rtol=1e-4)
    np.testing.assert_allclose(found.changed_share, [0, 0.25])


def test_ssim_of_flat_images_has_a_closed_form():
    """Wang et al. 2004: without variance only the luminance term is left, with C1 = 0.01²."""
    clean, other = np.full((1, 12, 13, 3), 0.25, np.float32), np.full((1, 12, 13, 3), 0.75, np.float32)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    np.testing.assert_allclose(metrics.perceptibility(clean, other).ssim, expected, rtol=5e-4)


@pytest.mark.parametrize(("height", "width", "defined"), [(11, 11, True), (10, 30, False), (30, 10, False)])
def test_ssim_is_undefined_below_its_window(height, width, defined):
    images = np.random.default_rng(0).random((3, height, width, 3), dtype=np.float32)
    found = metrics.perceptibility(images, 1 - images)
    assert np.isfinite(found.ssim).all() == defined and np.isnan(found.ssim).all() != defined
    assert (found.changed_share > 0.9).all() and np.isfinite(found.psnr).all()


def test_no_images_have_no_measures():
    none = np.zeros((0, 16, 16, 3), np.float32)
    assert all(
        each.shape == (0,) for each in (*metrics.perceptibility(none, none), *metrics.distances(none, none))
    )
