"""What one evaluation unit measures: the attack is run, then judged on the images that it returned."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers import attacks, metrics
from workers.attacks.base import AttackError, AttackResult
from workers.shards import DIMENSIONS, MEASURES, SCHEMA, unit_dimensions
from workers.unit import WorkUnit
from workers.victims.loaded import Victim

PERCEPTIBILITY_EXAMPLES = 64
"""Perceptibility is measured on the first so many positions of the evaluation order."""

Images = NDArray[np.float32]


@dataclass
class Clock:
    """Seconds per phase of a unit."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - begun


class Measurement:
    """One evaluation unit: attack, measure what came back independently, and lay it out as rows."""

    def __init__(self, unit: WorkUnit, victim: Victim, clock: Clock) -> None:
        if unit.attack is None:
            raise ValueError(f"unit {unit.unit_id} is not an evaluation unit")
        if not 0 <= unit.start < unit.stop <= len(victim.order):
            raise ValueError(
                f"positions [{unit.start}, {unit.stop}); [0, {len(victim.order)}) are those of "
                f"{victim.dataset.name}"
            )
        self._unit, self._spec, self._victim, self._clock = unit, unit.attack, victim, clock
        self._epsilons = [epsilon for _, epsilon in unit.cells]
        self._indices = victim.order[unit.start : unit.stop]
        self._labels = victim.dataset.labels("test", self._indices)

    def rows(self) -> pa.Table:
        """A table of `SCHEMA`: the unit's cells one after another, each with the unit's examples in order."""
        with self._clock.phase("clean"):
            clean_logits = self._victim.clean_logits(self._unit.start, self._unit.stop)
            answered = metrics.answered(clean_logits)
            clean_label, clean_confidence = _answer(clean_logits[answered])
            clean_correct = metrics.right(clean_logits, self._labels)
            attacked = np.flatnonzero(clean_correct)
            images = self._victim.dataset.images("test", self._indices[attacked])
            images.setflags(write=False)  # an attack that worked in place would be measured against itself
        measures = _Columns(len(self._epsilons), len(self._indices))
        measures.set("position", np.arange(self._unit.start, self._unit.stop))
        measures.set("example_index", self._indices)
        measures.set("label", self._labels)
        measures.set("clean_label", clean_label, at=answered)
        measures.set("clean_confidence", clean_confidence, at=answered)
        measures.set("clean_correct", clean_correct)
        measures.flag({"non_finite_logits": ~answered}, np.arange(len(answered)))
        for name in ("success", "success_uint8"):
            measures.set(name, np.False_)
        for name in ("forward_calls", "gradient_calls"):
            measures.set(name, 0)
        if len(attacked):
            self._attack(measures, attacked, images)
        cells = [self._unit_cell(k, measures) for k in range(len(self._epsilons))]
        return pa.concat_tables(cells)

    def _attack(self, measures: _Columns, attacked: NDArray[np.int64], images: Images) -> None:
        with self._clock.phase("attack"):
            attack = attacks.build(self._spec.config)
            result = self._call(attack, attacked, images, choose="first")
            found, claimed = self._checked(result, len(attacked))
        targets, missing = None, np.zeros(len(attacked), bool)
        if isinstance(result, AttackResult):
            measures.set("forward_calls", result.forward_calls_at, at=attacked)
            measures.set("gradient_calls", result.gradient_calls_at, at=attacked)
            measures.flag(result.flags, attacked)
            targets, missing = result.targets, result.flags.get("not_stored", missing)
        else:  # bare images: nobody counted
            for name in ("forward_calls", "gradient_calls"):
                measures.clear(name, at=attacked)
        with self._clock.phase("measure"):
            self._measure(measures, attacked, images, found, claimed, targets)
        if kept := int(np.searchsorted(attacked, self._unit.keep - self._unit.start)):
            measures.keep(attacked[:kept], found[:, :kept])
        if near := int(np.searchsorted(attacked, PERCEPTIBILITY_EXAMPLES - self._unit.start)):
            with self._clock.phase("perceptibility"):
                full = found[:, :near]
                if isinstance(result, AttackResult) and getattr(attack, "choose_matters", True):
                    strongest = self._call(attack, attacked[:near], images[:near], choose="strongest")
                    full, _ = self._checked(strongest, near)
                shown = np.flatnonzero(~missing[:near])  # no image is not an invisible one
                self._perceptibility(measures, attacked[shown], images[shown], full[:, shown])

    def _call(self, attack: Any, attacked: NDArray[np.int64], images: Images, *, choose: str) -> Any:
        return attack(
            self._victim.model,
            images,
            self._labels[attacked],
            self._epsilons,
            seed=self._spec.seed,
            example_indices=self._indices[attacked],
            clean_correct=np.ones(len(attacked), bool),
            choose=choose,
        )

    def _checked(self, result: Any, examples: int) -> tuple[Images, NDArray[np.bool_]]:
        """Images (E, N, H, W, C) and, (E, N), where the attack claims success; bare images all claim it."""
        epsilons = len(self._epsilons)
        if isinstance(result, AttackResult):
            images = result.images
            claimed = np.asarray(result.success)
        else:
            images = np.asarray(result)
            claimed = np.ones((epsilons, examples), bool)
        expected = (epsilons, examples, *self._victim.dataset.shape)
        if images.shape != expected or claimed.shape != expected[:2]:
            raise AttackError(
                f"{self._spec.name} returned images of shape {images.shape}; {expected} is allowed"
            )
        if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
            raise AttackError(f"{self._spec.name} returned {images.dtype} images; finite floats are allowed")
        return images.astype(np.float32, copy=False), claimed

    def _measure(
        self,
        measures: _Columns,
        attacked: NDArray[np.int64],
        images: Images,
        found: Images,
        claimed: NDArray[np.bool_],
        targets: NDArray[np.int32] | None,
    ) -> None:
        """Success is another class than the label, or, where there are `targets` (N,), the target."""
        level, example = np.nonzero(claimed)
        other = found[level, example]
        judged, classes = (
            (metrics.fools, self._labels[attacked]) if targets is None else (metrics.reaches, targets)
        )
        distances = metrics.distances(images[example], other)
        logits = self._victim.logits(other)
        unanswered = np.zeros(len(attacked), bool)
        unanswered[example[~metrics.answered(logits)]] = True
        measures.flag({"non_finite_logits": unanswered}, attacked)
        epsilon = np.array(self._epsilons)[level]
        in_box = ((other >= 0) & (other <= 1)).all(axis=(1, 2, 3))
        reach = getattr(distances, self._spec.norm)
        success = in_box & metrics.within(reach, epsilon) & judged(logits, classes[example])
        rounded = self._victim.logits(metrics.round_to_uint8(other[success]))
        for name in ("linf", "l2", "l0"):
            measures.set(name, np.inf, at=attacked)
        at = level[success], attacked[example[success]]
        adv_label, adv_confidence = _answer(logits[success])
        measures.put("adv_label", at, adv_label)
        measures.put("adv_confidence", at, adv_confidence)
        measures.put("success", at, np.True_)
        measures.put("success_uint8", at, judged(rounded, classes[example[success]]))
        for name in ("linf", "l2", "l0"):
            measures.put(name, at, getattr(distances, name)[success])

    def _perceptibility(
        self, measures: _Columns, attacked: NDArray[np.int64], images: Images, full: Images
    ) -> None:
        levels = len(full)
        clean = np.concatenate([images] * levels)
        visible = metrics.perceptibility(clean, full.reshape(clean.shape))
        columns = {"ssim": "ssim", "psnr": "psnr", "full_linf": "linf", "full_l2": "l2"}
        for column, name in {**columns, "changed_share": "changed_share"}.items():
            values = getattr(visible, name).reshape(levels, len(attacked))
            measures.set(column, values, at=attacked)
            if column == "ssim" and np.isnan(values).all():  # images too small for it
                measures.clear(column, at=attacked)

    def _unit_cell(self, k: int, measures: _Columns) -> pa.Table:
        cell_id, epsilon = self._unit.cells[k]
        values = unit_dimensions(self._unit, epsilon, cell_id)
        names = [pa.repeat(pa.scalar(values[f.name], f.type), len(self._indices)) for f in DIMENSIONS]
        return pa.Table.from_arrays([*names, *measures.arrays(k)], schema=SCHEMA)


class _Columns:
    """The `MEASURES` columns of a unit, (E, N) each, null until they are set."""

    def __init__(self, levels: int, examples: int) -> None:
        shape = (levels, examples)
        self._values: dict[str, NDArray[Any]] = {}
        for column in MEASURES:
            plain = not pa.types.is_binary(column.type) and not pa.types.is_list(column.type)
            self._values[column.name] = np.zeros(shape, column.type.to_pandas_dtype() if plain else object)
        self._null = {column.name: np.ones(shape, bool) for column in MEASURES}

    def set(self, name: str, values: Any, *, at: Any = slice(None)) -> None:
        """Set examples `at` for all epsilons; `values` broadcast to (E, examples)."""
        self._values[name][:, at] = values
        self._null[name][:, at] = False

    def put(self, name: str, at: tuple[NDArray[np.int64], NDArray[np.int64]], values: Any) -> None:
        """Set single (epsilon, example) pairs."""
        self._values[name][at] = values
        self._null[name][at] = False

    def clear(self, name: str, *, at: NDArray[np.int64]) -> None:
        self._null[name][:, at] = True

    def flag(self, flags: Mapping[str, NDArray[np.bool_]], examples: NDArray[np.int64]) -> None:
        """Add to each of the examples, at all epsilons, the names of the flags (N,) that touch it."""
        for n, example in enumerate(examples):
            if names := {name for name, touched in flags.items() if touched[n]}:
                for level in self._values["flags"]:
                    level[example] = sorted(names.union(level[example] or ()))
                self._null["flags"][:, example] = False

    def keep(self, examples: NDArray[np.int64], images: Images) -> None:
        """Store (E, examples, H, W, C) images with the examples."""
        shape = list(images.shape[2:])
        for k, level in enumerate(images):
            for example, image in zip(examples, level, strict=True):
                self._values["image"][k, example] = image.tobytes()
                self._values["image_shape"][k, example] = shape
        for name in ("image", "image_shape"):
            self._null[name][:, examples] = False

    def arrays(self, k: int) -> list[pa.Array]:
        """The columns of one epsilon."""
        return [
            pa.array(self._values[column.name][k], type=column.type, mask=self._null[column.name][k])
            for column in MEASURES
        ]


def _answer(logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The class that (N, K) logits favour, and its softmax probability, (N,) each."""
    label = logits.argmax(axis=1)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return label, (1 / np.exp(shifted).sum(axis=1)).astype(np.float32)
