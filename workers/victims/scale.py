"""Whether a model is given the pixels that it was trained on: looked at, since nothing in a file says it.

Accuracy and certainty say it, both on paired images. Accuracy by McNemar's exact test. Certainty by the
cross-entropy at the temperature that suits each scale best (Guo et al., arXiv:1706.04599): the raw one goes
by the size of the logits, which follows that of the pixels in networks of rectified units, and says nothing
of where they were trained. What a model was trained on is where both are best, also among its neighbours, so
that a scale can be told that none of the candidates is (docs/models.md has what was measured).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.datasets import Dataset
from workers.flags import Flag
from workers.network import Network
from workers.norms import Images
from workers.statistics import mcnemar
from workers.victims.base import ArchitectureError
from workers.victims.pixels import NORMALISATIONS, UNIT, PixelScale

FIRST, ALL, MOST = 256, 2048, 8192
"""Images: so many for all candidates, then so many for those that these do not rule out, and up to so many
for those on which a model is surer of its answers than on its own."""

_CLEARLY = 1e-3  # p of McNemar's test, for all candidates together
_CERTAINLY = 5.0  # standard errors of the mean difference in cross-entropy
_DOUBTFUL = 0.05  # p of McNemar's test, for what a person is told to do
_LIKELY = (0.01, 3.0)  # the same two, for what need not be named to a person
_MUCH = 0.25  # more right answers, or fewer wrong ones
_SURE = (_CLEARLY, _CERTAINLY)
_SURER = 0.05  # less cross-entropy
_HOPEFUL = 2.0  # standard errors, for looking at more images
_ALIKE = 0.05  # relative difference of the median distance to the decision boundary
_STATISTICS_FROM = 2000  # training images
_STEPS = (0.2, 1.5)  # to a neighbour: in brightness, of the range of pixels; in contrast, a factor


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """How a model does on N images on one scale."""

    scale: PixelScale
    right: NDArray[np.bool_]  # (N,)
    losses: NDArray[np.float64]  # (N,), cross-entropy at the best temperature

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


@dataclass(frozen=True, slots=True)
class ScaleFinding:
    """What is to be said of a model's pixels: a flag for its results, and a sentence for a person."""

    flag: Flag
    message: str


def check_scale(
    network: Network, name: str, dataset: Dataset, rows: NDArray[np.integer], given: PixelScale | None
) -> ScaleFinding | None:
    """Whether a victim's pixels are on the scale that it was trained on; None where nothing is to be said.

    `network` takes images in [0, 1] and puts them on the scale `given`, if any; `name` is the model's, for
    messages. Looked at on the first `ALL` of the test images `rows`, on training images too where these are
    fewer, for all that `candidates` has.

    Raises ArchitectureError where none is given and the model is clearly better on another than [0, 1]; the
    message names the option to give, where one stands out. A model that answers at random is not tried: its
    noise stays as it is while pixels are stretched, so that a wider scale always looks better.
    """
    if network.health(dataset.images("test", rows[:FIRST])).randomised:
        text = f"{name} answers at random, which hides the scale of pixels that it was trained on"
        return None if given else ScaleFinding(Flag.SCALE_UNSETTLED, text)
    return _ScaleCheck(network, name, dataset, rows[:ALL], given).finding()


def candidates(dataset: Dataset) -> list[PixelScale]:
    """The scales that a model of a dataset's images may have been trained on, [0, 1] first.

    The usual ranges, the published normalisations that fit the channels, and the dataset's own: less its
    mean, with and without division by its standard deviation, both estimated on training images.
    """
    channels = dataset.shape[2]
    found = [UNIT, PixelScale.between(0, 255), PixelScale.between(-1, 1)]
    known = [one for one in NORMALISATIONS.values() if len(one.mean) == channels]
    found += [PixelScale.normalised(*one) for one in known]
    mean, std = _statistics(dataset)
    if (std < 1e-3).any():
        return found
    alike = (
        np.abs(mean - one.mean).max() < 0.01 and np.abs(np.log(std / one.std)).max() < 0.03 for one in known
    )
    if not any(alike):
        found.append(PixelScale.normalised(mean.tolist(), std.tolist()))
    return [*found, PixelScale.normalised(mean.tolist(), [1.0])]


class _ScaleCheck:
    def __init__(
        self,
        network: Network,
        name: str,
        dataset: Dataset,
        rows: NDArray[np.integer],
        given: PixelScale | None,
    ) -> None:
        self._network, self._name, self._given, self._dataset = network, name, given, dataset
        self._tested, self._trained = rows, _drawn(len(dataset.y_train), MOST - len(rows))
        self._labels = np.concatenate(
            [dataset.labels("test", self._tested), dataset.labels("train", self._trained)]
        )
        self._scale = given or UNIT
        self._tried: dict[tuple[PixelScale, int], _Trial] = {}

    def finding(self) -> ScaleFinding | None:
        others = [one for one in candidates(self._dataset) if one.option != self._scale.option]
        own, trials = self._contest(others)
        best = min([own, *trials], key=_loss)
        if not self._learnt(best):
            return None
        clearly = _CLEARLY / len(others)
        better = [one for one in trials if _beats(one, own, clearly)]
        if better:
            message = self._advice(own, better)
            if self._given is None:
                raise ArchitectureError(message)
            return ScaleFinding(Flag.SCALE_DOUBTED, message)
        surer = [one.scale for one in trials if self._surer(own, one)]
        if surer:
            own, better = self._try(self._scale, MOST), [self._try(scale, MOST) for scale in surer]
            return ScaleFinding(Flag.SCALE_DOUBTED, self._advice(own, better))
        if self._given is not None:
            return None
        rivals = [one for one in trials if not _rules_out(own, one, *_LIKELY) and not self._alike(own, one)]
        if not rivals and not self._beside(own, clearly):
            return None
        return ScaleFinding(Flag.SCALE_UNSETTLED, self._doubt(own, rivals))

    def _contest(self, others: Sequence[PixelScale]) -> tuple[_Trial, list[_Trial]]:
        """The scale as it is, and all others that the best of all does not rule out."""
        own, *trials = (self._try(one, FIRST) for one in (self._scale, *others))
        best = min([own, *trials], key=_loss)
        left = [one.scale for one in trials if one is best or not _rules_out(best, one, *_SURE)]
        if len(self._labels) <= FIRST:
            return own, [one for one in trials if one.scale in left]
        return self._try(self._scale), [self._try(one) for one in left]

    def _try(self, scale: PixelScale, number: int = ALL) -> _Trial:
        """On the first so many images, a part of them in memory at a time; once."""
        if (trial := self._tried.get((scale, number))) is not None:
            return trial
        labels = self._labels[:number]
        logits = np.concatenate(
            [
                self._network.logits(self._as_given(scale, self._images(start, min(start + FIRST, number))))
                for start in range(0, len(labels), FIRST)
            ]
        )
        trial = _Trial(scale, metrics.favours(logits, labels), fitted_losses(logits, labels))
        self._tried[scale, number] = trial
        return trial

    def _images(self, start: int, stop: int) -> Images:
        """Those from `start` to `stop`, or the last one, of the test and then the training images."""
        before = len(self._tested)
        trained = self._trained[max(0, start - before) : max(0, stop - before)]
        return np.concatenate(
            [
                self._dataset.images("test", self._tested[start:stop]),
                self._dataset.images("train", trained),
            ]
        )

    def _as_given(self, scale: PixelScale, images: Images) -> Images:
        """What the victim must be given for its network to see images on that scale."""
        return self._scale.undo(scale.apply(images))

    def _learnt(self, best: _Trial) -> bool:
        """Whether there is anything to judge by: as of `victim_weak`, which says so elsewhere."""
        chance = float(np.bincount(self._labels).max() / len(self._labels))
        return best.accuracy >= min(2 * chance, (1 + chance) / 2)

    def _surer(self, own: _Trial, other: _Trial) -> bool:
        """Whether a model is surer of its answers on another scale, though hardly more often right.

        Trained on that, it would not be: training leaves the loss on training images least where it was done.
        Looks at twice as many images as long as those do not tell.
        """
        number = len(own.losses)
        while number < min(MOST, len(self._labels)) and _HOPEFUL < _certainty(other, own) <= _CERTAINLY:
            number *= 2
            own, other = self._try(own.scale, number), self._try(other.scale, number)
        less = _loss(other) < (1 - _SURER) * _loss(own)
        surely = _certainty(other, own) > _CERTAINLY
        return less and surely and other.accuracy >= own.accuracy and not self._alike(own, other)

    def _beside(self, trial: _Trial, p: float) -> bool:
        """Whether a model is better a step beside a scale, in both respects: so that is not its own."""
        return any(
            _mcnemar(one, trial) < p and _certainty(one, trial) > _CERTAINLY
            for one in (self._try(scale, len(trial.right)) for scale in self._neighbours(trial.scale))
        )

    def _neighbours(self, scale: PixelScale) -> Iterable[PixelScale]:
        factor, offset = np.array(scale.factor), np.array(scale.offset)
        brightness, contrast = _STEPS
        mean = self._images(0, FIRST).mean(axis=(0, 1, 2), dtype=np.float64)
        for step in (-brightness, brightness):
            yield PixelScale(scale.factor, tuple((offset + step * factor).tolist()))
        for times in (1 / contrast, contrast):
            moved = np.broadcast_to(offset + factor * mean * (1 - times), mean.shape)
            yield PixelScale(tuple((factor * times).tolist()), tuple(moved.tolist()))

    def _alike(self, own: _Trial, other: _Trial) -> bool:
        """Whether it makes no difference to an attack on which of two scales a model is given its pixels.

        Judged by the distance to the decision boundary as far as it is linear (Linf, on the [0, 1] scale).
        """
        both = np.flatnonzero(own.right[:FIRST] & other.right[:FIRST])
        if not len(both) or self._dataset.classes < 2:
            return False
        ours, theirs = (float(np.median(self._distances(one.scale, both))) for one in (own, other))
        return abs(ours - theirs) <= _ALIKE * min(ours, theirs)

    def _distances(self, scale: PixelScale, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        images = self._as_given(scale, self._images(0, FIRST)[rows])
        labels = self._labels[rows].astype(np.int32)
        logits = self._network.logits(images).astype(np.float64)
        margins = -metrics.lead(logits, labels)
        logits[np.arange(len(labels)), labels] = -np.inf
        nearest = logits.argmax(axis=1).astype(np.int32)
        _, slopes = self._network.differences(images, labels, nearest[:, None])
        per_pixel = slopes[:, 0].astype(np.float64) * np.array(scale.factor) / np.array(self._scale.factor)
        steepness = np.abs(per_pixel).sum(axis=(1, 2, 3))
        with np.errstate(divide="ignore"):
            return np.asarray(margins / steepness)

    def _advice(self, own: _Trial, better: Sequence[_Trial]) -> str:
        best = min(better, key=_loss)
        peers = [one for one in better if one is best or not _rules_out(best, one, *_SURE)]
        # An estimate that comes to the same for an attack as what others use is no answer of its own.
        usual = [one for one in peers if one.scale.is_published]
        peers = [one for one in peers if one in usual or not any(self._alike(each, one) for each in usual)]
        peers.sort(key=_loss)
        best = peers[0]
        seen = _list([f"{_share(one)} with {one.scale.option}" for one in peers], "and")
        assumed = "" if self._given else ", which is assumed where a grid does not say"
        surer = "" if _beats(best, own, _DOUBTFUL) else ", and surer of its answers"
        text = f"{self._right(own)} with {own.scale.option}{assumed}; on {seen}{surer}"
        keep = f"{own.scale.option} if that is what it was trained on"
        if self._beside(best, _DOUBTFUL):
            return (
                f"{text}, and better still on pixels beside it: none of the scales known here is its own. "
                f"Give it pixel_range: or normalise: as it was trained, or {keep}"
            )
        if len(peers) == 1:
            return f"{text}: give it {best.scale.option}, or {keep}"
        return (
            f"{text}; these images do not tell which: find out what it was trained on, and give it that, "
            f"or {keep}"
        )

    def _doubt(self, own: _Trial, rivals: Sequence[_Trial]) -> str:
        others = [f"{one.scale.option} ({_share(one)})" for one in sorted(rivals, key=_loss)]
        than = _list(others, "or") or "a brighter, darker, flatter or steeper scale, on which it is better"
        return (
            f"{self._right(own)} with pixels in [0, 1], and they do not tell whether it was trained on that "
            f"or on {than}: say it with pixel_range: or normalise:"
        )

    def _right(self, trial: _Trial) -> str:
        return f"{self._name} is right on {_share(trial)} of {len(trial.right):,} images"


def _statistics(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, (C,), over training images, to four digits."""
    rows = _drawn(len(dataset.y_train), _STATISTICS_FROM)
    sums = np.zeros((2, dataset.shape[2]))
    for start in range(0, len(rows), FIRST):
        images = dataset.images("train", rows[start : start + FIRST])
        sums += [part.sum(axis=(0, 1, 2), dtype=np.float64) for part in (images, images**2)]
    mean, square = sums / (len(rows) * dataset.shape[0] * dataset.shape[1])
    return np.round(mean, 4), np.round(np.sqrt(np.maximum(square - mean**2, 0)), 4)


def _drawn(total: int, number: int) -> NDArray[np.int64]:
    """So many of `total` rows, all of them where these are fewer; always the same ones.

    Drawn, not evenly spaced: data may be stored in a period.
    """
    return np.random.default_rng(0).permutation(total)[: max(0, number)]


def fitted_losses(logits: NDArray[np.float32], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(N,) cross-entropies of (N, K) logits divided by the temperature that makes their mean least.

    Multiplying all logits by a constant changes nothing. Logits that are not finite answer nothing: log K.
    """
    rows, classes = logits.shape
    losses = np.full(rows, math.log(classes))
    usable = np.isfinite(logits).all(axis=1)
    values = logits[usable].astype(np.float64)
    values -= values.max(axis=1, keepdims=True, initial=-np.inf)
    spread = values.std() if len(values) else 0.0
    if not spread:
        return losses
    values /= spread
    at = np.arange(len(values)), labels[usable]

    def probabilities(inverse: float) -> NDArray[np.float64]:
        raised = np.exp(inverse * values)
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    low, high = 1e-6, 1e6  # inverse temperatures: the mean is convex in them, its slope rises from the left
    for _ in range(60):
        middle = math.sqrt(low * high)
        slope = ((probabilities(middle) * values).sum(axis=1) - values[at]).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    scaled = low * values
    losses[usable] = np.log(np.exp(scaled).sum(axis=1)) - scaled[at]
    return losses


def _loss(trial: _Trial) -> float:
    return float(trial.losses.mean())


def _mcnemar(better: _Trial, worse: _Trial) -> float:
    """The p of McNemar's exact test, two-sided; 1 where `better` is not right more often.

    Of the images on which the two differ, each is as likely as the other to be right if they are as good.
    """
    gained = int((better.right & ~worse.right).sum())
    lost = int((worse.right & ~better.right).sum())
    if gained <= lost:
        return 1.0
    return min(1.0, 2 * mcnemar(gained, lost))


def _certainty(better: _Trial, worse: _Trial) -> float:
    """By how many standard errors the mean cross-entropy is lower."""
    gain = worse.losses - better.losses
    error = float(gain.std()) / math.sqrt(len(gain))
    return float(gain.mean()) / error if error else 0.0


def _beats(one: _Trial, other: _Trial, clearly: float) -> bool:
    """Whether a model is better on one scale than luck and a short training explain."""
    right, before = int(one.right.sum()), int(other.right.sum())
    wrong, wrong_before = len(one.right) - right, len(other.right) - before
    much = right >= (1 + _MUCH) * before or wrong <= (1 - _MUCH) * wrong_before
    surely = _mcnemar(one, other) < clearly or _certainty(one, other) > _CERTAINLY
    return right > before and much and _loss(one) < _loss(other) and surely


def _rules_out(one: _Trial, other: _Trial, p: float, errors: float) -> bool:
    return _loss(one) < _loss(other) and (_mcnemar(one, other) < p or _certainty(one, other) > errors)


def _share(trial: _Trial) -> str:
    return f"{trial.accuracy:.1%}"


def _list(items: Sequence[str], word: str) -> str:
    return f" {word} ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
