"""What every attack is: validated options, one way to be called, one kind of result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as options

from workers import metrics
from workers.answers import fresh_draws, summarise
from workers.attacks.active_set import DRAWS, ActiveSet, Choose, Findings, Task
from workers.attacks.randomness import Randomness
from workers.flags import Flag
from workers.inference import inference_flags
from workers.network import Network, NoGradientError, network_for
from workers.norms import NORMS, NormName

_CLEAN, _SEARCH, _SCORED = range(3)  # keys of draws: those that score are never those that searched

ROW_BYTES = 2**26
"""What the rows of one call may take, an array of them at a time: more examples go one part after another."""


class AttackError(RuntimeError):
    """An attack that returned what no attack may return; the message says what was found."""


@dataclass(frozen=True, slots=True, eq=False)
class AttackResult:
    """What an attack found on N images at E epsilons, and what it spent.

    A call that serves several epsilons is counted at the first of them, so that sums over E are true; a
    gradient call brings its own logits and is not counted as a forward call too.

    Of a minimum-norm attack, `nearest` and `nearest_images` are the nearest images found, whatever the
    epsilons: the clean ones, at infinity, where there is none. Of any other attack they are None.

    `flags` maps what was found wrong (`workers.flags.Flag`) to the examples that it touched, (N,) bool.
    """

    epsilons: NDArray[np.float64]  # (E,), [0, 1] scale, in the order given
    clean_correct: NDArray[np.bool_]  # (N,)
    success: NDArray[np.bool_]  # (E, N)
    distance: NDArray[np.float32]  # (E, N), in the attack's norm; inf where it failed
    images: NDArray[np.float32]  # (E, N, H, W, C), in [0, 1]
    gradient_calls_at: NDArray[np.int32]  # (E, N)
    forward_calls_at: NDArray[np.int32]  # (E, N)
    targets: NDArray[np.int32] | None = None  # (N,), of a targeted attack: success means this class
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    nearest: NDArray[np.float32] | None = None  # (N,), in the attack's norm
    nearest_images: NDArray[np.float32] | None = None  # (N, H, W, C), in [0, 1]
    members: NDArray[np.object_] | None = None  # (E, N), of a bundle: which member broke it (str), or None

    def adversarial(self, k: int) -> NDArray[np.float32]:
        """The images at `epsilons[k]`, (N, H, W, C): the success, else the last try, else the clean image."""
        images: NDArray[np.float32] = self.images[k]
        return images

    @property
    def gradient_calls(self) -> NDArray[np.int64]:
        """(N,): gradients computed for each image."""
        calls: NDArray[np.int64] = self.gradient_calls_at.sum(axis=0, dtype=np.int64)
        return calls

    @property
    def forward_calls(self) -> NDArray[np.int64]:
        """(N,): forward passes without a gradient computed for each image."""
        calls: NDArray[np.int64] = self.forward_calls_at.sum(axis=0, dtype=np.int64)
        return calls

    @property
    def robust_accuracy(self) -> NDArray[np.float64]:
        """(E,): the share of all N examples that are clean-correct and not broken; NaN for no examples."""
        robust = self.clean_correct & ~self.success
        return robust.mean(axis=1) if robust.shape[1] else np.full(len(robust), np.nan)


@options(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Attack(ABC):
    """Options of an attack. Call it with a model and images to run it; subclasses define `search`.

    `eot`: over how many draws a randomised model's gradients and answers are estimated, at every step;
    "auto": 20 where the model's answers to an image differ, else 1.
    """

    name: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1  # raised whenever results change: it is part of every cell's identity
    NORMS: ClassVar[tuple[str, ...]] = ("linf", "l2")  # the first is the default
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset()  # options on the pixel scale, as epsilon is
    randomised: ClassVar[bool] = False  # whether the result depends on the seed
    minimum_norm: ClassVar[bool] = False  # whether it looks for the nearest image, whatever the epsilons
    by_gradients: ClassVar[bool] = True  # False: it asks for answers at most
    choose_matters: ClassVar[bool] = True  # False: there is one image to choose from
    asks_model: ClassVar[bool] = True  # False: its images are the same whatever the model is

    @classmethod
    def no_transfer(cls) -> str:
        """Why its images are not to be tried on other victims, behind its name; "": they may be."""
        if cls.minimum_norm:
            return "looks for the nearest image and stops there, with no budget to spend"
        return "" if cls.asks_model else "makes the same images whatever the victim is"

    norm: NormName = "linf"
    eot: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    @abstractmethod
    def search(self, rows: ActiveSet) -> None:
        """Work on the rows until all are decided or the budget is spent, passing iterates to `rows.judge`."""

    def __call__(
        self,
        model: Callable[..., Any],
        images: NDArray[np.float32],
        labels: NDArray[np.integer],
        epsilons: Sequence[float] | NDArray[np.float64],
        *,
        seed: int = 0,
        example_indices: NDArray[np.integer] | None = None,
        clean_correct: NDArray[np.bool_] | None = None,
        targets: NDArray[np.integer] | None = None,
        choose: Choose = "first",
        score_draws: bool = True,
        gradients_of: Callable[..., Any] | None = None,
    ) -> AttackResult:
        """Attack (N, H, W, C) float32 images in [0, 1] with (N,) labels, at every epsilon ([0, 1] scale).

        `model` maps images to (N, K) logits. `example_indices` (N,) and `seed` key an example's randomness.
        `clean_correct` (N,) spares a forward pass where the caller knows it; the others are not attacked.
        `targets` (N,) are the classes to reach; given only to a targeted attack, which draws its own without.
        `choose="first"` stops an example at its first success; "strongest" spends the whole budget and
        takes the iterate of highest cross-entropy, "last" the last one; success then means that image.

        What a randomised model answers is decided by 20 fresh draws, keyed by the seed: most of them must be
        right on a clean image, and wrong on an adversarial one. A claim of the attack's that does not survive
        them is no success, and flagged. `score_draws=False` leaves the claims to a caller that scores them.

        `gradients_of` is another model, of the same images and classes, whose losses and gradients are taken
        while the model's own logits decide: with an undefended model here, an oblivious attack on a defended.

        Raises ValueError for arguments of the wrong shape, type or range. What is wrong with the model is in
        the result's `flags`.
        """
        radii = _checked_epsilons(epsilons)
        labels = _checked(images, labels, example_indices, clean_correct, targets, choose)
        if targets is not None and not self._targeted:
            raise ValueError(
                f"found targets for {self.name}, which is not targeted: build it with targeted=True"
            )
        network = network_for(model, images.shape[1:], gradients_of)
        if example_indices is None:
            example_indices = np.arange(len(images))
        whole = Findings.none(len(radii), images, minimum_norm=self.minimum_norm)
        if not len(images):
            return _result(radii, np.zeros(0, bool), whole, targets)
        health = network.health(images)
        for fault in (*health.faults, *inference_flags(model, images)):
            whole.flag(fault, np.arange(len(images)))
        draws = (DRAWS if health.randomised else 1) if self.eot == "auto" else self.eot
        if clean_correct is None:
            clean_correct = _clean_correct(network, images, labels, whole, health.randomised, seed)
        if targets is None and self._targeted:
            targets = _drawn_targets(labels, health.classes, seed, example_indices)
        per_part = max(1, ROW_BYTES // (images[0].nbytes * len(radii)))
        for start in range(0, len(images), per_part):
            part = slice(start, start + per_part)
            task = Task(
                network,
                images[part],
                labels[part],
                None if targets is None else targets[part].astype(np.int32),
                clean_correct[part],
                radii,
                NORMS[self.norm],
                choose,
                Randomness(self.name, seed, example_indices[part]),
                draws,
            )
            network.reseed(_SEARCH, seed, int(example_indices[part][0]))
            rows = ActiveSet(task, minimum_norm=self.minimum_norm)
            self.run(rows)
            whole.take(part, rows.found)
        if health.randomised and score_draws:
            _score(network, labels, targets, whole, seed)
        return _result(radii, clean_correct, whole, targets)

    def run(self, rows: ActiveSet) -> None:
        """Search; where no gradient flows at all, give up, and flag the examples still in the set."""
        try:
            self.search(rows)
        except NoGradientError:
            rows.found.flag(Flag.ZERO_GRADIENTS, rows.example)

    @property
    def _targeted(self) -> bool:
        return bool(getattr(self, "targeted", False))


def _result(
    epsilons: NDArray[np.float64],
    clean_correct: NDArray[np.bool_],
    found: Findings,
    targets: NDArray[np.integer] | None,
) -> AttackResult:
    return AttackResult(
        epsilons,
        clean_correct,
        found.success,
        found.distance,
        found.images,
        found.gradient_calls,
        found.forward_calls,
        None if targets is None else targets.astype(np.int32),
        found.flags,
        found.nearest,
        found.nearest_images,
        found.members,
    )


def _clean_correct(
    network: Network,
    images: NDArray[np.float32],
    labels: NDArray[np.int32],
    found: Findings,
    randomised: bool,
    seed: int,
) -> NDArray[np.bool_]:
    classes = network.health(images).classes
    if labels.max() >= classes:
        raise ValueError(f"found label {labels.max()}; the model has {classes} classes, numbered from 0")
    draws = list(fresh_draws(network, images, _CLEAN, seed)) if randomised else [network.logits(images)]
    found.forward_calls[0] += len(draws)
    answers = summarise(draws, partial(metrics.favours, classes=labels, scale=network.logit_size))
    found.flag(Flag.NON_FINITE_LOGITS, np.flatnonzero(~answers.finite))
    return answers.mostly


def _score(
    network: Network,
    labels: NDArray[np.int32],
    targets: NDArray[np.integer] | None,
    found: Findings,
    seed: int,
) -> None:
    """Keep of the successes those that most of some fresh draws are, and flag the others' examples."""

    def lost(rows: NDArray[np.intp], images: NDArray[np.float32], level: int) -> NDArray[np.intp]:
        if not len(rows):
            return rows
        judge = (
            partial(metrics.fools, labels=labels[rows], scale=network.logit_size)
            if targets is None
            else partial(metrics.favours, classes=targets[rows], scale=network.logit_size)
        )
        answers = summarise(fresh_draws(network, images[rows], _SCORED, seed, level), judge)
        found.flag(Flag.LOST_CLAIMS, rows[~answers.mostly])
        return rows[~answers.mostly]

    for level, claimed in enumerate(found.success):
        gone = lost(np.flatnonzero(claimed), found.images[level], level)
        found.success[level, gone] = False
        found.distance[level, gone] = np.inf
    if found.nearest is not None and found.nearest_images is not None:
        gone = lost(np.flatnonzero(np.isfinite(found.nearest)), found.nearest_images, len(found.success))
        found.nearest[gone] = np.inf


def _drawn_targets(
    labels: NDArray[np.int32], classes: int, seed: int, example_indices: NDArray[np.integer]
) -> NDArray[np.int32]:
    """For each example one of the other classes, all equally likely."""
    generators = Randomness("target", seed, example_indices).generators(np.arange(len(labels)))
    steps = np.array([generator.integers(1, classes) for generator in generators], np.int32)
    return (labels + steps) % classes


def _checked_epsilons(epsilons: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    radii = np.array(epsilons, np.float64)
    if radii.ndim != 1 or not len(radii):
        raise ValueError(f"found epsilons of shape {radii.shape}; a sequence of at least one is allowed")
    if not (np.isfinite(radii) & (radii >= 0)).all():
        raise ValueError(f"found epsilons {radii.tolist()}; finite numbers, 0 or more, are allowed")
    return radii


def _checked(
    images: NDArray[np.float32],
    labels: NDArray[np.integer],
    example_indices: NDArray[np.integer] | None,
    clean_correct: NDArray[np.bool_] | None,
    targets: NDArray[np.integer] | None,
    choose: str,
) -> NDArray[np.int32]:
    """The labels as int32, when all arguments fit together."""
    if images.ndim != 4 or images.dtype != np.float32:
        raise ValueError(f"found images {images.dtype} {images.shape}; float32 (N, H, W, C) is allowed")
    if not np.isfinite(images).all():
        bad = int((~np.isfinite(images).all(axis=(1, 2, 3))).sum())
        raise ValueError(f"the images hold NaN or infinity for {bad} of {len(images)} images")
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"found pixels from {images.min()} to {images.max()}; [0, 1] is allowed")
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (not np.issubdtype(classes.dtype, np.integer) or (classes < 0).any()):
            least = classes.min(initial=0)
            raise ValueError(f"found {name} {classes.dtype}, least {least}; integers from 0 are allowed")
    for name, values in (
        ("labels", labels),
        ("targets", targets),
        ("example_indices", example_indices),
        ("clean_correct", clean_correct),
    ):
        if values is not None and np.shape(values) != (len(images),):
            raise ValueError(
                f"found {name} of shape {np.shape(values)}; ({len(images)},) is allowed, one an image"
            )
    if targets is not None and (targets == labels).any():
        raise ValueError("found targets equal to the label; another class is allowed")
    if clean_correct is not None and clean_correct.dtype != bool:
        raise ValueError(f"found clean_correct {clean_correct.dtype}; bool is allowed")
    if choose not in get_args(Choose):
        raise ValueError(f"found choose={choose!r}; allowed: {', '.join(get_args(Choose))}")
    return labels.astype(np.int32)
