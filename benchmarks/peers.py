"""Other libraries' attacks, called as their users do: images, at each epsilon or the nearest, and success.

Foolbox tells itself what came of its images; for the others the model is asked, as whoever wants a robust
accuracy has to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.norms import NormName

Images = NDArray[np.float32]

BATCH = 250
"""Images per call of a peer: all of them were fastest, or within noise of it, at 250 to 1,000."""


class Found(NamedTuple):
    """Images, (E, N, H, W, C) or the nearest ones (N, H, W, C), and which of them fool the model."""

    images: Images
    success: NDArray[np.bool_]


class Foolbox:
    """Foolbox 3, eager as it is."""

    def __init__(self, model: Any) -> None:
        import foolbox

        self._attacks, self._model = foolbox.attacks, foolbox.TensorFlowModel(model, bounds=(0, 1))

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Found:
        return self._at(self._attacks.LinfFastGradientAttack(random_start=False), images, labels, epsilons)

    def pgd(
        self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], norm: NormName
    ) -> Found:
        attacks = self._attacks
        attack = attacks.LinfPGD() if norm == "linf" else attacks.L2PGD()
        return self._at(attack, images, labels, epsilons)

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Found:
        attack = self._attacks.LinfBasicIterativeAttack(steps=steps, rel_stepsize=0.2, random_start=False)
        return self._at(attack, images, labels, epsilons)

    def deepfool(self, images: Images, labels: NDArray[np.int64]) -> Found:
        return self._nearest(self._attacks.L2DeepFoolAttack(), images, labels)

    def carlini_wagner(
        self,
        images: Images,
        labels: NDArray[np.int64],
        *,
        binary_search_steps: int,
        steps: int,
        learning_rate: float,
    ) -> Found:
        attack = self._attacks.L2CarliniWagnerAttack(
            binary_search_steps=binary_search_steps, steps=steps, stepsize=learning_rate
        )
        return self._nearest(attack, images, labels)

    def ddn(self, images: Images, labels: NDArray[np.int64], *, steps: int) -> Found:
        return self._nearest(self._attacks.DDNAttack(steps=steps), images, labels)

    def fmn(self, images: Images, labels: NDArray[np.int64], *, steps: int) -> Found:
        return self._nearest(self._attacks.L2FMNAttack(steps=steps), images, labels)

    def _at(self, attack: Any, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Found:
        import tensorflow as tf

        found, fooled = [], []
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            _, clipped, success = attack(
                self._model, tf.constant(images[rows]), tf.constant(labels[rows]), epsilons=list(epsilons)
            )
            found.append(np.stack([each.numpy() for each in clipped]))
            fooled.append(success.numpy())
        return Found(np.concatenate(found, axis=1), np.concatenate(fooled, axis=1))

    def _nearest(self, attack: Any, images: Images, labels: NDArray[np.int64]) -> Found:
        import tensorflow as tf

        found, _, success = attack(self._model, tf.constant(images), tf.constant(labels), epsilons=None)
        return Found(found.numpy(), success.numpy())


class CleverHans:
    """CleverHans 4: functions of one epsilon. Its Carlini & Wagner does not run on Keras 3."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        # Its tutorials pass the model itself; traced, the look at what came of the images is faster.
        self._model = tf.function(lambda images: model(images, training=False))

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Found:
        from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

        def attack(rows: slice, epsilon: float) -> Any:
            return fast_gradient_method(
                self._model, images[rows], epsilon, np.inf, clip_min=0.0, clip_max=1.0, y=labels[rows]
            )

        return self._at(attack, labels, epsilons)

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Found:
        from cleverhans.tf2.attacks.basic_iterative_method import basic_iterative_method

        def attack(rows: slice, epsilon: float) -> Any:
            return basic_iterative_method(
                self._model,
                images[rows],
                epsilon,
                0.2 * epsilon,
                steps,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=labels[rows],
                sanity_checks=False,
            )

        return self._at(attack, labels, epsilons)

    def _at(self, attack: Any, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Found:
        found, fooled = [], []
        for epsilon in epsilons:
            for start in range(0, len(labels), BATCH):
                rows = slice(start, start + BATCH)
                found.append(attack(rows, epsilon))
                fooled.append(self._model(found[-1]).numpy().argmax(axis=1) != labels[rows])
        shape = len(epsilons), len(labels)
        images = np.concatenate(found)
        return Found(images.reshape(*shape, *images.shape[1:]), np.concatenate(fooled).reshape(shape))


class ART:
    """The Adversarial Robustness Toolbox: an object of one epsilon."""

    def __init__(self, model: Any, images: Images, classes: int) -> None:
        import keras
        from art.estimators.classification import TensorFlowV2Classifier

        self._model = TensorFlowV2Classifier(
            model=model,
            nb_classes=classes,
            input_shape=images.shape[1:],
            loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0.0, 1.0),
        )

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Found:
        from art.attacks.evasion import FastGradientMethod

        attacks = [FastGradientMethod(self._model, eps=epsilon, batch_size=BATCH) for epsilon in epsilons]
        return self._at(attacks, images, labels)

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Found:
        from art.attacks.evasion import BasicIterativeMethod

        attacks = [
            BasicIterativeMethod(
                self._model,
                eps=epsilon,
                eps_step=0.2 * epsilon,
                max_iter=steps,
                batch_size=BATCH,
                verbose=False,
            )
            for epsilon in epsilons
        ]
        return self._at(attacks, images, labels)

    def apgd(
        self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], norm: NormName
    ) -> Found:
        """100 steps from each of 5 points, its default, beginning at twice epsilon as the paper says."""
        from art.attacks.evasion import AutoProjectedGradientDescent

        attacks = [
            AutoProjectedGradientDescent(
                self._model,
                norm=np.inf if norm == "linf" else 2,
                eps=epsilon,
                eps_step=2 * epsilon,
                batch_size=BATCH,
                verbose=False,
            )
            for epsilon in epsilons
        ]
        return self._at(attacks, images, labels)

    def deepfool(self, images: Images, labels: NDArray[np.int64]) -> Found:
        from art.attacks.evasion import DeepFool

        attack = DeepFool(self._model, max_iter=50, epsilon=0.02, batch_size=len(images), verbose=False)
        found: Images = attack.generate(images)
        return Found(found, self._model.predict(found).argmax(axis=1) != labels)

    def _at(self, attacks: Sequence[Any], images: Images, labels: NDArray[np.int64]) -> Found:
        found = np.stack([attack.generate(images, y=labels) for attack in attacks])
        fooled = [self._model.predict(each, batch_size=BATCH).argmax(axis=1) != labels for each in found]
        return Found(found, np.stack(fooled))
