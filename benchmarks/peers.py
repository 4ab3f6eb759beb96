"""Other libraries' attacks, called as their users do: images at each epsilon, or the nearest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]

BATCH = 250
"""Images per call of a peer: all of them were fastest, or within noise of it, at 250 to 1,000."""


class Foolbox:
    """Foolbox 3, eager as it is."""

    def __init__(self, model: Any) -> None:
        import foolbox

        self._attacks, self._model = foolbox.attacks, foolbox.TensorFlowModel(model, bounds=(0, 1))

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Images:
        return self._at(self._attacks.LinfFastGradientAttack(random_start=False), images, labels, epsilons)

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Images:
        attack = self._attacks.LinfBasicIterativeAttack(steps=steps, rel_stepsize=0.2, random_start=False)
        return self._at(attack, images, labels, epsilons)

    def deepfool(self, images: Images, labels: NDArray[np.int64]) -> Images:
        return self._nearest(self._attacks.L2DeepFoolAttack(), images, labels)

    def carlini_wagner(
        self,
        images: Images,
        labels: NDArray[np.int64],
        *,
        binary_search_steps: int,
        steps: int,
        learning_rate: float,
    ) -> Images:
        attack = self._attacks.L2CarliniWagnerAttack(
            binary_search_steps=binary_search_steps, steps=steps, stepsize=learning_rate
        )
        return self._nearest(attack, images, labels)

    def ddn(self, images: Images, labels: NDArray[np.int64], *, steps: int) -> Images:
        return self._nearest(self._attacks.DDNAttack(steps=steps), images, labels)

    def fmn(self, images: Images, labels: NDArray[np.int64], *, steps: int) -> Images:
        return self._nearest(self._attacks.L2FMNAttack(steps=steps), images, labels)

    def _at(
        self, attack: Any, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]
    ) -> Images:
        import tensorflow as tf

        parts = []
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            _, clipped, _ = attack(
                self._model, tf.constant(images[rows]), tf.constant(labels[rows]), epsilons=list(epsilons)
            )
            parts.append(np.stack([each.numpy() for each in clipped]))
        return np.concatenate(parts, axis=1)

    def _nearest(self, attack: Any, images: Images, labels: NDArray[np.int64]) -> Images:
        import tensorflow as tf

        found, _, _ = attack(self._model, tf.constant(images), tf.constant(labels), epsilons=None)
        nearest: Images = found.numpy()
        return nearest


class CleverHans:
    """CleverHans 4: functions of one epsilon. Its Carlini & Wagner does not run on Keras 3."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        # Wrapped as its tutorial does it: the function alone, traced.
        self._model = tf.function(lambda images: model(images, training=False))

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Images:
        from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

        def attack(rows: slice, epsilon: float) -> Any:
            return fast_gradient_method(
                self._model, images[rows], epsilon, np.inf, clip_min=0.0, clip_max=1.0, y=labels[rows]
            )

        return self._at(attack, len(images), epsilons)

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Images:
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

        return self._at(attack, len(images), epsilons)

    @staticmethod
    def _at(attack: Any, examples: int, epsilons: Sequence[float]) -> Images:
        parts = [slice(start, start + BATCH) for start in range(0, examples, BATCH)]
        return np.stack(
            [np.concatenate([np.asarray(attack(rows, epsilon)) for rows in parts]) for epsilon in epsilons]
        )


class ART:
    """The Adversarial Robustness Toolbox: an object of one epsilon."""

    def __init__(self, model: Any, images: Images, classes: int) -> None:
        import keras
        from art.estimators.classification import TensorFlowV2Classifier

        self._classes = classes
        self._model = TensorFlowV2Classifier(
            model=model,
            nb_classes=classes,
            input_shape=images.shape[1:],
            loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0.0, 1.0),
        )

    def fgsm(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float]) -> Images:
        from art.attacks.evasion import FastGradientMethod

        return np.stack(
            [
                FastGradientMethod(self._model, eps=epsilon, batch_size=BATCH).generate(images, y=labels)
                for epsilon in epsilons
            ]
        )

    def bim(self, images: Images, labels: NDArray[np.int64], epsilons: Sequence[float], steps: int) -> Images:
        from art.attacks.evasion import BasicIterativeMethod

        return np.stack(
            [
                BasicIterativeMethod(
                    self._model,
                    eps=epsilon,
                    eps_step=0.2 * epsilon,
                    max_iter=steps,
                    batch_size=BATCH,
                    verbose=False,
                ).generate(images, y=labels)
                for epsilon in epsilons
            ]
        )

    def deepfool(self, images: Images, labels: NDArray[np.int64]) -> Images:
        from art.attacks.evasion import DeepFool

        attack = DeepFool(self._model, max_iter=50, epsilon=0.02, batch_size=len(images), verbose=False)
        found: Images = attack.generate(images)
        return found
