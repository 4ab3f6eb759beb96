"""Kept images: the first broken ones of a cell and its first ones, however it was cut; their clean ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.results.kept import Kept, class_names, kept_images
from orchestrator.results.schemas import Results
from tests.support.results import Cell, results_of
from workers import datasets
from workers.datasets.classes import CLASS_NAMES
from workers.datasets.named import DATASETS
from workers.measure import kept
from workers.unit import DatasetSpec

SHAPE = (2, 2, 1)


def shown_of(results: Results, cell: str, broken: bool | None, n: int) -> Kept:
    return kept_images(results, [cell], broken=broken, n=n)[cell]


def image(position: int) -> np.ndarray:
    return np.full(SHAPE, position / 255, np.float32)


def sweep(broken: list[bool], cuts: list[tuple[int, int]]) -> tuple[Results, str]:
    """A cell of attacked examples, measured in units: each the positions up to one, and its `keep`."""
    rows: list[dict[str, Any]] = []
    for start, (stop, keep) in zip([0, *(stop for stop, _ in cuts)], cuts, strict=False):
        positions, success = np.arange(start, stop), np.array([broken[start:stop]], bool)
        for position, is_kept in zip(positions, kept(positions, success, keep)[0], strict=True):
            values: dict[str, Any] = {
                "success": broken[position],
                "distance": 0.01 if broken[position] else np.inf,
            }
            if is_kept:
                clean = np.full(SHAPE, position % 256, np.uint8)
                values |= {
                    "image": image(position).tobytes(),
                    "image_shape": list(SHAPE),
                    "clean_image": clean.tobytes(),
                }
            rows.append(values)
    cell = Cell(examples=len(broken), rows=rows)
    return results_of([cell]), cell.cell_id


@st.composite
def measured(draw: st.DrawFn) -> tuple[list[bool], list[tuple[int, int]], int]:
    broken = draw(st.lists(st.booleans(), min_size=1, max_size=30))
    stops = sorted(draw(st.sets(st.integers(1, len(broken)), max_size=4)) | {len(broken)})
    keep = draw(st.integers(0, 5))
    return broken, [(stop, keep) for stop in stops], keep


@given(measured())
def test_however_a_cell_is_cut_the_same_images_are_shown(
    of: tuple[list[bool], list[tuple[int, int]], int],
) -> None:
    broken, cuts, keep = of
    results, cell = sweep(broken, cuts)
    first = [p for p, hit in enumerate(broken) if hit]
    if keep == 0:
        assert kept_images(results, [cell], broken=True) == {}
        return
    for n in range(keep + 1):
        shown = shown_of(results, cell, True, n)
        if shown.shape:
            assert shown.rows["position"].to_pylist() == first[:n]
            assert [value for value in shown.adversarial[:, 0, 0, 0] * 255] == pytest.approx(first[:n])
        every = shown_of(results, cell, None, n).rows["position"].to_pylist()
        assert every == list(range(min(n, len(broken))))
    others = [p for p, hit in enumerate(broken[:keep]) if not hit]
    assert shown_of(results, cell, False, 99).rows["position"].to_pylist() == others


@given(measured(), st.integers(1, 5))
def test_what_is_shown_is_never_one_from_further_behind(
    of: tuple[list[bool], list[tuple[int, int]], int], first: int
) -> None:
    """A grid that keeps more, or less, from some time on."""
    broken, cuts, _ = of
    results, cell = sweep(broken, [(cuts[0][0], first), *cuts[1:]])
    for which in (True, False, None):
        wanted = [p for p, hit in enumerate(broken) if which in (None, hit)]
        shown = shown_of(results, cell, which, 99).rows["position"].to_pylist()
        assert shown == wanted[: len(shown)]


def test_what_lies_beyond_the_grid_is_not_shown() -> None:
    results, cell = sweep([True] * 6, [(6, 6)])
    place = results.wanted.schema.get_field_index("examples")
    fewer = pa.array([2], pa.int32())
    wanted = results.wanted.set_column(place, results.wanted.schema.field(place), fewer)
    shown = shown_of(replace(results, wanted=wanted), cell, True, 9)
    assert shown.rows["position"].to_pylist() == [0, 1]


def test_clean_images_are_as_the_dataset_has_them() -> None:
    results, cell = sweep([True] * 3, [(3, 3)])
    shown = shown_of(results, cell, True, 3)
    assert shown.clean is not None and shown.clean.dtype == np.float32
    np.testing.assert_array_equal(shown.clean, shown.adversarial)


def test_an_image_of_another_size_is_an_error() -> None:
    broken = {"success": True, "distance": 0.01, "image": b"123", "image_shape": [2, 2, 1]}
    cell = Cell(examples=1, rows=[broken])
    shown = shown_of(results_of([cell]), cell.cell_id, True, 1)
    with pytest.raises(UserError, match="a kept image has 3 bytes; its shape takes 4 or 16"):
        _ = shown.adversarial
    with pytest.raises(UserError, match="without their clean ones"):
        _ = shown.clean


def test_classes_have_names() -> None:
    assert {name: len(names) for name, names in CLASS_NAMES.items()} == {
        name: source.info.classes for name, source in DATASETS.items()
    }
    assert list(CLASS_NAMES["cifar100"]) == sorted(set(CLASS_NAMES["cifar100"]))
    assert datasets.load(DatasetSpec(name="digits")).record()["class_names"] == list("0123456789")
    cell = Cell(rows=[{}] * 4)
    known = results_of([cell], victims=[{"victim_id": cell.victim_id, "class_names": ["a", "b"]}])
    assert class_names(known, cell.victim_id) == ("a", "b") and class_names(known, "other") == ()
