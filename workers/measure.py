"""What one evaluation unit measures: the attack is run, then judged on the images that it returned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers import attacks, metrics
from workers.attacks.base import Attack, AttackError, AttackResult
from workers.flags import Flag
from workers.network import TRACING
from workers.norms import NORMS, Images
from workers.rounding import rounded_within
from workers.shards import DIMENSIONS, MEASURES, SCHEMA, dimensions
from workers.unit import Evaluation
from workers.victims.victim import Victim

_FOUND, _ROUNDED, _NEAREST = 1, 2, 3  # keys of the draws that images of each kind are scored by

PERCEPTIBILITY_EXAMPLES = 64
"""Perceptibility is measured on the first so many positions of the evaluation order."""

Judge = Callable[[NDArray[np.intp], NDArray[np.float32], NDArray[np.integer]], NDArray[np.bool_]]

Columns = dict[str, "np.ma.MaskedArray[Any, Any]"]
"""The `MEASURES` columns of a unit, (E, N) each: a row for each epsilon, masked where null."""


@dataclass
class Clock:
    """Seconds per phase of a unit; tracing is one, whatever it was traced for."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun, before = time.perf_counter(), TRACING.seconds
        try:
            yield
        finally:
            traced = TRACING.seconds - before
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - begun - traced
            if traced:
                self.phases["trace"] = self.phases.get("trace", 0.0) + traced


@dataclass(frozen=True, slots=True, eq=False)
class FullBudget:
    """The images that an attack came to against one victim, for others to be tried with."""

    examples: NDArray[np.int64]  # (N,), ascending: places in the unit
    epsilons: list[float]  # (E,)
    images: Images  # (E, N, H, W, C)
    targets: NDArray[np.int32] | None  # (N,), of a targeted attack
    flags: Mapping[str, NDArray[np.bool_]]  # as of `AttackResult`: of the victim that they were made against


class Measurement:
    """One evaluation unit: attack, measure what came back independently, and lay it out as rows."""

    claims: ClassVar[bool] = True  # whoever made the images says where they succeed

    def __init__(self, unit: Evaluation, victim: Victim, clock: Clock) -> None:
        if not 0 <= unit.start < unit.stop <= len(victim.order):
            raise ValueError(
                f"positions [{unit.start}, {unit.stop}); [0, {len(victim.order)}) are those of "
                f"{victim.dataset.name}"
            )
        self._unit, self._spec, self._victim, self._clock = unit, unit.attack, victim, clock
        self._epsilons = [epsilon for _, epsilon in unit.cells]
        self._indices = victim.order[unit.start : unit.stop]
        self._labels = victim.dataset.labels("test", self._indices)
        self._columns = _no_columns(len(unit.cells), len(self._indices))

    def rows(self) -> pa.Table:
        """A table of `SCHEMA`: the unit's cells one after another, each with the unit's examples in order."""
        columns = self._columns
        with self._clock.phase("clean"):
            clean = self._victim.clean(self._unit.start, self._unit.stop)
            clean_correct = clean.mostly
            attacked = np.flatnonzero(clean_correct & self._chosen())
            images = self._victim.dataset.images("test", self._indices[attacked])
            images.setflags(write=False)  # an attack that worked in place would be measured against itself
        columns["position"][:] = np.arange(self._unit.start, self._unit.stop)
        columns["example_index"][:] = self._indices
        columns["label"][:] = self._labels
        columns["clean_label"][:, clean.finite] = clean.label[clean.finite]
        columns["clean_confidence"][:, clean.finite] = clean.confidence[clean.finite]
        columns["clean_correct"][:] = clean_correct
        if self._victim.randomised:
            columns["clean_wrong_draws"][:] = 1 - clean.share
        for name in ("success", "success_uint8", "forward_calls", "gradient_calls"):
            columns[name][:] = 0
        self._flag({Flag.NON_FINITE_LOGITS: ~clean.finite}, np.arange(len(clean_correct)))
        for flag in self._victim.flags:
            self._flag({flag: np.ones_like(clean_correct)}, np.arange(len(clean_correct)))
        if len(attacked):
            self._attack(attacked, images)
        return pa.concat_tables([self._cell(k) for k in range(len(self._epsilons))])

    def full_budget(self, examples: NDArray[np.int64]) -> FullBudget:
        """The attack on some of the unit's examples, by their places in it, whatever the victim answers to
        the clean image: never stopped early, the image of highest loss taken."""
        images = self._victim.dataset.images("test", self._indices[examples])
        images.setflags(write=False)
        with self._clock.phase("attack"):
            result = self._call(attacks.build(self._spec.config), examples, images, choose="strongest")
            found, _ = self._checked(result, len(examples))
        ours = isinstance(result, AttackResult)
        return FullBudget(
            examples, self._epsilons, found, result.targets if ours else None, result.flags if ours else {}
        )

    def _chosen(self) -> NDArray[np.bool_]:
        """The examples that are to be attacked, if their clean image is answered rightly, (N,)."""
        positions = np.arange(self._unit.start, self._unit.stop)
        if self._unit.attacked is None:
            return np.ones(len(positions), bool)
        return np.isin(positions, self._unit.attacked)

    def _attack(self, attacked: NDArray[np.int64], images: Images) -> None:
        columns = self._columns
        with self._clock.phase("attack"):
            attack = attacks.build(self._spec.config)
            result = self._call(attack, attacked, images, choose="first")
            found, claimed = self._checked(result, len(attacked))
        targets, missing, nearest, members = None, np.zeros(len(attacked), bool), None, None
        if isinstance(result, AttackResult):
            columns["forward_calls"][:, attacked] = result.forward_calls_at
            columns["gradient_calls"][:, attacked] = result.gradient_calls_at
            self._flag(result.flags, attacked)
            targets, members = result.targets, result.members
            missing = result.flags.get(Flag.NOT_STORED, missing)
            nearest = self._nearest_images(result, len(attacked))
        else:  # bare images: nobody counted
            for name in ("forward_calls", "gradient_calls"):
                columns[name][:, attacked] = np.ma.masked
        with self._clock.phase("measure"):
            says = self.claims and isinstance(result, AttackResult)  # of bare images nobody said anything
            self._measure(attacked, images, found, claimed, targets, members, says=says)
            if nearest is not None:
                missing = missing | self._measure_nearest(attacked, images, *nearest, targets)
        if targets is not None:
            columns["target"][:, attacked] = targets
        self._keep(attacked, found)
        if self._unit.attacked is not None:  # of some that were hard to break, visibility says nothing
            return
        if near := int(np.searchsorted(attacked, PERCEPTIBILITY_EXAMPLES - self._unit.start)):
            with self._clock.phase("perceptibility"):
                full = found[:, :near]
                if isinstance(result, AttackResult) and getattr(attack, "choose_matters", True):
                    strongest = self._call(attack, attacked[:near], images[:near], choose="strongest")
                    full, _ = self._checked(strongest, near)
                shown = np.flatnonzero(~missing[:near])  # no image is not an invisible one
                self._perceptibility(attacked[shown], images[shown], full[:, shown])

    def _call(self, attack: Any, attacked: NDArray[np.int64], images: Images, *, choose: str) -> Any:
        victim, ours = self._victim, isinstance(attack, Attack)
        own: dict[str, Any] = {"score_draws": False} if ours else {}
        if ours and not self._spec.adaptive:
            own["gradients_of"] = victim.undefended
        return attack(
            # Another's attack takes gradients itself: it meets the network that it is to know.
            victim.model if ours or self._spec.adaptive else victim.undefended,
            images,
            self._labels[attacked],
            self._epsilons,
            seed=self._spec.seed,
            example_indices=self._indices[attacked],
            clean_correct=np.ones(len(attacked), bool),
            choose=choose,
            **own,
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
        return self._sound(images), claimed

    def _sound(self, images: Images) -> Images:
        """Images as float32; AttackError unless they are finite floats."""
        if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
            raise AttackError(f"{self._spec.name} returned {images.dtype} images; finite floats are allowed")
        return images.astype(np.float32, copy=False)

    def _nearest_images(self, result: AttackResult, examples: int) -> tuple[Images, NDArray[np.bool_]] | None:
        """Of a minimum-norm attack, the nearest images (N, H, W, C), and which of them it claims, (N,)."""
        if result.nearest is None or result.nearest_images is None:
            return None
        images, claimed = result.nearest_images, np.isfinite(result.nearest)
        expected = (examples, *self._victim.dataset.shape)
        if images.shape != expected or claimed.shape != expected[:1]:
            raise AttackError(
                f"{self._spec.name} returned nearest images of shape {images.shape} at distances of shape "
                f"{claimed.shape}; {expected} and {expected[:1]} are allowed"
            )
        return self._sound(images), claimed

    def _measure_nearest(
        self,
        attacked: NDArray[np.int64],
        images: Images,
        nearest: Images,
        claimed: NDArray[np.bool_],
        targets: NDArray[np.int32] | None,
    ) -> NDArray[np.bool_]:
        """Measure the nearest images (N, H, W, C) that are claimed. Returns where there is none, (N,)."""
        columns, example = self._columns, np.flatnonzero(claimed)
        other = nearest[example]
        judge = partial(self._judge(attacked, targets), example)
        answers = self._victim.judged(self._unit.start + attacked[example], other, judge, _NEAREST)
        distance = NORMS[self._spec.norm].distance(images[example], other)
        success = ((other >= 0) & (other <= 1)).all(axis=(1, 2, 3)) & answers.mostly
        measured = np.full(len(attacked), np.inf, np.float32)
        measured[example[success]] = distance[success]
        # What counts as a success at an epsilon is an image too.
        reached = np.ma.getdata(columns[self._spec.norm])[:, attacked].min(axis=0)
        columns["nearest"][:, attacked] = np.minimum(measured, reached)
        none: NDArray[np.bool_] = np.isinf(np.minimum(measured, reached))
        return none

    def _measure(
        self,
        attacked: NDArray[np.int64],
        images: Images,
        found: Images,
        claimed: NDArray[np.bool_],
        targets: NDArray[np.int32] | None,
        members: NDArray[np.object_] | None,
        *,
        says: bool = False,
    ) -> None:
        """Success is another class than the label, or, where there are `targets` (N,), the target.

        `members` (E, N): which member of a bundle found each image. `says`: what is claimed was said to be a
        success, so that it is lost where it is none.
        """
        columns = self._columns
        for name in metrics.Distances._fields:
            columns[name][:, attacked] = np.inf
        judge = self._judge(attacked, targets)
        troubled: dict[str, NDArray[np.bool_]] = {
            Flag.NON_FINITE_LOGITS: np.zeros(len(attacked), bool),  # of the model, whatever epsilon
            Flag.LOST_CLAIMS: np.zeros((len(self._epsilons), len(attacked)), bool),
        }
        for level, epsilon in enumerate(self._epsilons):
            example = np.flatnonzero(claimed[level])
            clean, other = images[example], found[level, example]
            positions = self._unit.start + attacked[example]
            answers = self._victim.judged(positions, other, partial(judge, example), _FOUND)
            distances = metrics.distances(clean, other)
            within = metrics.within(getattr(distances, self._spec.norm), epsilon)
            allowed = ((other >= 0) & (other <= 1)).all(axis=(1, 2, 3)) & within
            success = np.flatnonzero(allowed & answers.mostly)
            troubled[Flag.NON_FINITE_LOGITS][example[~answers.finite]] = True
            if self._victim.randomised:
                columns["wrong_draws"][level, attacked[example]] = answers.share
                if says:
                    troubled[Flag.LOST_CLAIMS][level, example[allowed & ~answers.mostly]] = True
            rounded, inside = rounded_within(other[success], clean[success], epsilon, NORMS[self._spec.norm])
            still = self._victim.judged(
                positions[success], rounded, partial(judge, example[success]), _ROUNDED
            )
            at = level, attacked[example[success]]
            columns["adv_label"][at] = answers.label[success]
            columns["adv_confidence"][at] = answers.confidence[success]
            columns["success"][at] = True
            if members is not None:
                columns["member"][at] = members[level, example[success]]
            columns["success_uint8"][at] = inside & still.mostly
            for name in distances._fields:
                columns[name][at] = getattr(distances, name)[success]
        self._flag(troubled, attacked)

    def _judge(self, attacked: NDArray[np.int64], targets: NDArray[np.int32] | None) -> Judge:
        """What success is: of some of the attacked examples, logits (r, K), and of which they are (r,)."""
        labels, size = self._labels[attacked], self._victim.network.logit_size

        def judge(
            example: NDArray[np.intp], logits: NDArray[np.float32], rows: NDArray[np.integer]
        ) -> NDArray[np.bool_]:
            if targets is None:
                return metrics.fools(logits, labels[example[rows]], size)
            return metrics.favours(logits, targets[example[rows]], size)

        return judge

    def _perceptibility(self, attacked: NDArray[np.int64], images: Images, full: Images) -> None:
        """How visible full-budget images (E, N, H, W, C) are; an image left as it was, above epsilon 0, does
        not say."""
        unchanged = (full == images).all(axis=(2, 3, 4)) & (np.array(self._epsilons) > 0)[:, None]
        clean = np.concatenate([images] * len(full))
        visible = metrics.perceptibility(clean, full.reshape(clean.shape))._asdict()
        if np.isnan(visible["ssim"]).all():  # images too small for it
            del visible["ssim"]
        for name, values in visible.items():
            column = self._columns[f"full_{name}" if name in ("linf", "l2") else name]
            column[:, attacked] = np.ma.MaskedArray(values.reshape(unchanged.shape), mask=unchanged)

    def _flag(self, flags: Mapping[str, NDArray[np.bool_]], examples: NDArray[np.int64]) -> None:
        """Add to each of the examples the names of the flags that touch it: at all epsilons, (N,), or at some
        of them, (E, N)."""
        column = self._columns["flags"]
        null = np.ma.getmaskarray(column)
        shape = len(column), len(examples)
        at = {str(name): np.broadcast_to(touched, shape) for name, touched in flags.items()}
        some = np.any([np.zeros(shape, bool), *at.values()], axis=0)
        for level, n in np.argwhere(some):
            known = () if null[level, examples[n]] else column.data[level, examples[n]]
            names = {name for name, touched in at.items() if touched[level, n]}
            column[level, examples[n]] = sorted(names.union(known))

    def _keep(self, attacked: NDArray[np.int64], images: Images) -> None:
        """Store some of the images (E, N, H, W, C) of what was attacked, each with its clean one."""
        columns = self._columns
        success = np.ma.getdata(columns["success"])[:, attacked].astype(bool)
        for level, place in np.argwhere(kept(self._unit.start + attacked, success, self._unit.keep)):
            image, at = images[level, place], (level, attacked[place])
            clean = self._victim.dataset.stored("test", self._indices[attacked[place]])
            columns["image"][at] = image.tobytes()
            columns["image_shape"][at] = list(image.shape)
            columns["clean_image"][at] = clean.tobytes()

    def _cell(self, k: int) -> pa.Table:
        cell_id, epsilon = self._unit.cells[k]
        values = dimensions(self._unit.victim, self._spec, cell_id, epsilon)
        names = [pa.repeat(pa.scalar(values[f.name], f.type), len(self._indices)) for f in DIMENSIONS]
        measured = [
            pa.array(column.data[k], type=MEASURES.field(name).type, mask=np.ma.getmaskarray(column)[k])
            for name, column in self._columns.items()
        ]
        return pa.Table.from_arrays([*names, *measured], schema=SCHEMA)


def kept(positions: NDArray[np.int64], success: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Which images of a unit are kept, (E, N): of the first `count` positions, and of the unit's first
    `count` successes at each epsilon.

    However a cell is cut into units, its own first successes are among those. `positions` (N,), ascending,
    are those attacked; `success` (E, N).
    """
    return (positions < count) | (success & (np.cumsum(success, axis=1) <= count))


def _no_columns(levels: int, examples: int) -> Columns:
    """Every column of `MEASURES`, all of it null."""
    columns: Columns = {}
    for column in MEASURES:
        dtype = column.type.to_pandas_dtype() if pa.types.is_primitive(column.type) else object
        columns[column.name] = np.ma.MaskedArray(np.zeros((levels, examples), dtype), mask=True)
    return columns
