"""A victim in memory: its network and its answers to clean images; and getting one there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.answers import Answers, fresh_draws, summarise
from workers.datasets import Dataset, evaluation_order
from workers.defences import defend
from workers.flags import Flag
from workers.inference import inference_flags
from workers.network import Network, network_for
from workers.unit import DefenceSpec, ModelSpec, VictimSpec, recorded
from workers.victims.architectures import build_model
from workers.victims.base import ArchitectureError
from workers.victims.cache import VictimCache, describe, weights_hash
from workers.victims.manifest import CleanAccuracy, History, Manifest
from workers.victims.pixels import stated
from workers.victims.progress import Listener
from workers.victims.scale import ScaleFinding, check_scale
from workers.victims.training import build_and_train

if TYPE_CHECKING:
    import keras

BATCH = 128
"""Images per forward pass, always, as far as memory allows: an answer must not depend on its company."""

_CLEAN = 0  # key of the draws that clean images are scored by
_ACCURACY_EXAMPLES = 1000
_FLAG_EXAMPLES = 64
_TRACED_BYTES = 2**25  # roughly what the traced functions of a network take, beside its weights


class Victim:
    """A trained network, maybe defended, with the test split that it is evaluated on, in evaluation order."""

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        weights: str,
        scale: ScaleFinding | None = None,
        undefended: keras.Model | None = None,
    ) -> None:
        self.model = model
        self.undefended = undefended or model  # the same without its defence at inference
        self.dataset = dataset
        self.weights = weights  # SHA-256
        self.scale = scale  # what is to be said of the scale of its pixels
        self.order = evaluation_order(dataset.y_test)
        self._clean: dict[int, Answers] = {}

    def defended(self, defence: DefenceSpec) -> Victim:
        """Another victim: its network with a defence at inference.

        Raises DefenceError, and what importing a user's own defence raises.
        """
        model = defend(self.model, defence, self.dataset.shape)
        # Those of the network, unless the defence brings some of its own.
        return Victim(model, self.dataset, weights_hash(model), self.scale, undefended=self.model)

    @property
    def behind_noise(self) -> keras.Model:
        """Of a smoothed victim, the network that answers once noise has been added."""
        return self.model.network

    @property
    def nbytes(self) -> int:
        """Roughly the memory that it takes."""
        weights: int = sum(array.nbytes for array in self.model.get_weights())
        return _TRACED_BYTES + weights

    @property
    def network(self) -> Network:
        """The one way to call its model."""
        return network_for(self.model, self.dataset.shape)

    @property
    def randomised(self) -> bool:
        """Whether its answers to an image differ from call to call."""
        return self.network.health(self._images(0)).randomised

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What is to be known of it whatever the attack: how it is called, and the scale of its pixels."""
        scale = (self.scale.flag,) if self.scale else ()
        return (*inference_flags(self.model, self._images(0)[:_FLAG_EXAMPLES]), *scale)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, classes) float32 logits of (N, H, W, C) float32 images, as they are: NaN and infinity too."""
        if not len(images):
            return np.empty((0, self.dataset.classes), np.float32)
        return self.network.logits(images, batch_size=BATCH)

    def clean(self, start: int, stop: int) -> Answers:
        """Its answers to the clean images at positions [start, stop), computed once; judged: they are right.

        Always in the same blocks of positions: how a sweep is cut into units must not change a bit of them.
        """
        blocks = range(start // BATCH, -(-stop // BATCH))
        for block in blocks:
            if block not in self._clean:
                labels = self.dataset.labels("test", self._block(block))
                right = partial(metrics.favours, classes=labels, scale=self.network.logit_size)
                self._clean[block] = summarise(self._draws(block, self._images(block), _CLEAN), right)
        offset = blocks.start * BATCH
        whole = (
            np.concatenate(parts) for parts in zip(*(self._clean[block] for block in blocks), strict=True)
        )
        return Answers(*(values[start - offset : stop - offset] for values in whole))

    def judged(
        self,
        positions: NDArray[np.integer],
        images: NDArray[np.float32],
        judge: Callable[[NDArray[np.float32], NDArray[np.integer]], NDArray[np.bool_]],
        key: int,
    ) -> Answers:
        """Its answers to images (R, H, W, C) in place of the clean ones at R different positions (R,).

        `judge` says of logits (r, K), and of which of the R images they are (r,), what is true, (r,) bool.
        A randomised victim is asked for fresh draws that follow from an image's position and the key, an
        integer from 1, whatever else is asked for.
        """
        if not self.randomised:
            return summarise([self.logits(images)], lambda logits: judge(logits, np.arange(len(images))))
        parts, places = [], []
        for block in np.unique(positions // BATCH):
            rows = np.flatnonzero(positions // BATCH == block)
            inside = positions[rows] % BATCH
            whole = self._images(int(block)).copy()
            whole[inside] = images[rows]
            draws = (logits[inside] for logits in self._draws(int(block), whole, key))
            parts.append(summarise(draws, lambda logits, rows=rows: judge(logits, rows)))  # type: ignore[misc]
            places.append(rows)
        if not parts:
            return summarise([self.logits(images)], lambda logits: np.zeros(0, bool))
        order = np.argsort(np.concatenate(places))
        return Answers(*(np.concatenate(values)[order] for values in zip(*parts, strict=True)))

    def _block(self, block: int) -> NDArray[np.int64]:
        """Rows of the test split."""
        return self.order[block * BATCH : (block + 1) * BATCH]

    def _images(self, block: int) -> NDArray[np.float32]:
        return self.dataset.images("test", self._block(block))

    def _draws(self, block: int, images: NDArray[np.float32], key: int) -> Iterable[NDArray[np.float32]]:
        if not self.randomised:
            return [self.logits(images)]
        return fresh_draws(self.network, images, key, block, batch_size=BATCH)

    def clean_accuracy(self) -> CleanAccuracy:
        """On the first 1,000 of the evaluation order, whose logits are then there for the attacks.

        An answer that is not finite is wrong; ArchitectureError if all of them are.
        """
        examples = min(_ACCURACY_EXAMPLES, len(self.order))
        answers = self.clean(0, examples)
        if not answers.finite.any():
            raise ArchitectureError("the victim answers every image with NaN or infinite logits")
        share = answers.mostly.mean()
        counts = np.bincount(self.dataset.y_test)
        return CleanAccuracy(float(share), examples, float(counts.max() / counts.sum()))


def train_victim(
    spec: VictimSpec, dataset: Dataset, cache: VictimCache, listen: Listener
) -> tuple[Victim, Manifest]:
    """Train a victim without a defence at inference by its recipe, and keep its weights.

    Goes on from where an earlier attempt was lost. Raises ArchitectureError, DefenceError, TrainingError or
    CacheError.
    """
    keeper = cache.keeper(spec.victim_id, dataset.record()["fingerprint"])
    model, history = build_and_train(spec, dataset, listen, keeper)
    victim = Victim(model, dataset, weights_hash(model))
    manifest = cache.publish(model, spec, dataset.record(), history, victim.clean_accuracy())
    if manifest.weights != victim.weights:  # another worker's were there first, and the model has them now
        victim = Victim(model, dataset, manifest.weights)
    keeper.forget()
    return victim, manifest


def victim_as_it_is(spec: VictimSpec, dataset: Dataset) -> tuple[Victim, Manifest]:
    """A user's own trained model. ArchitectureError unless it is a classifier of this dataset's images."""
    model = build_model(spec.model, dataset.shape, dataset.classes)
    scale = scale_of(model, spec.model, dataset)
    victim = Victim(model, dataset, weights_hash(model), scale)
    history = History(rows=(), train_examples=0, seconds=0.0)
    return victim, describe(model, spec, dataset.record(), history, victim.clean_accuracy())


def describe_defended(victim: Victim, network: Manifest, spec: VictimSpec) -> Manifest:
    """The manifest of a victim with a defence at inference, from that of its network.

    ArchitectureError where every answer is NaN or infinite.
    """
    clean = victim.clean_accuracy()
    return replace(
        network,
        victim_id=spec.victim_id,
        weights=victim.weights,
        defence=recorded(spec.defence),
        test_accuracy=clean.share,
        test_examples=clean.examples,
        chance=clean.chance,
    )


def scale_of(model: keras.Model, spec: ModelSpec, dataset: Dataset) -> ScaleFinding | None:
    """What is to be said of the scale of a user's own model's pixels, without any defence, once it is built.

    ArchitectureError where it is plainly not the one that it was trained on, and the spec says nothing of it.
    """
    name = spec.path or spec.factory or spec.name
    rows = evaluation_order(dataset.y_test)
    return check_scale(network_for(model, dataset.shape), name, dataset, rows, stated(spec.options))


def victim_from_cache(spec: VictimSpec, dataset: Dataset, cache: VictimCache, manifest: Manifest) -> Victim:
    """A victim without a defence at inference, with the weights of a cache's entry.

    CacheError unless they are what the manifest says.
    """
    model = build_model(spec.model, dataset.shape, dataset.classes, pretrained=False)
    cache.load_into(model, manifest)
    return Victim(model, dataset, manifest.weights)
