"""What is said of the pixel scale of networks that were trained on a known one: counted, not timed.

It needs MNIST and CIFAR-10 in the folder that the environment's ROBUSTSWEEP_DATA names; some ten minutes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.reading import Reading
from workers.datasets import DATA_VARIABLE, Dataset, evaluation_order, load
from workers.network import network_for
from workers.unit import DatasetSpec
from workers.victims.base import ArchitectureError
from workers.victims.pixels import UNIT, PixelScale
from workers.victims.scale import candidates, check_scale

DATA: Mapping[str, tuple[int, int]] = {"mnist": (10_000, 3), "cifar10": (8_000, 6)}
"""Training images and epochs."""

KINDS = ("convolutional", "batch norm", "deep", "dense")
FACTORS = (1.0, 0.01, 100.0)
"""Of the logits."""


def measure(
    *, data: Mapping[str, tuple[int, int]] = DATA, kinds: tuple[str, ...] = KINDS, seeds: int = 2
) -> list[Reading]:
    """Networks of every kind on every scale, given without a word and then with the right one."""
    said: dict[str, Counter[str]] = {}
    for name, (examples, epochs) in data.items():
        dataset = load(DatasetSpec(name=name), os.environ.get(DATA_VARIABLE))
        for scale in _scales(dataset):
            for kind in kinds:
                for seed in range(seeds):
                    model = _trained(dataset, scale, kind, seed, examples, epochs)
                    counts = said.setdefault(f"{name}, {scale.option}", Counter())
                    counts.update(_verdicts(model, dataset, scale))
    return [
        Reading(what=f"{convention}: {verdict}", value=count, at_most=0 if "wrong" in verdict else None)
        for convention, counts in said.items()
        for verdict, count in sorted(counts.items())
    ]


def _scales(dataset: Dataset) -> list[PixelScale]:
    """All that a model may have been trained on, but for the statistics that have a name."""
    return [one for one in candidates(dataset) if one.is_published or one.option.endswith("std: 1}")]


def _trained(dataset: Dataset, scale: PixelScale, kind: str, seed: int, examples: int, epochs: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input(dataset.shape), *_layers(kind), keras.layers.Dense(dataset.classes)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    rows = np.arange(min(examples, len(dataset.y_train)))
    images = scale.apply(dataset.images("train", rows))
    model.fit(images, dataset.labels("train", rows), batch_size=64, epochs=epochs, verbose=0)
    return model


def _layers(kind: str) -> Iterator[Any]:
    from keras import layers

    if kind == "dense":
        yield from (layers.Flatten(), layers.Dense(128, activation="relu"))
        return
    if kind == "deep":
        for width in (16, 32, 32):
            yield layers.Conv2D(width, 3, padding="same", activation="gelu")
            yield layers.MaxPooling2D(padding="same")
        yield layers.GlobalAveragePooling2D()
        return
    for width, size in ((16, 5), (32, 3)):
        yield layers.Conv2D(width, size, strides=2, padding="same")
        if kind == "batch norm":
            yield layers.BatchNormalization(momentum=0.95)
        yield layers.ReLU()
    yield layers.Flatten()


def _verdicts(model: Any, dataset: Dataset, scale: PixelScale) -> Iterator[str]:
    for factor in FACTORS:
        yield f"nothing said: {_verdict(model, dataset, scale, None, factor)}"
    yield f"its own said: {_verdict(model, dataset, scale, scale, 1.0)}"


def _verdict(model: Any, dataset: Dataset, true: PixelScale, given: PixelScale | None, factor: float) -> str:
    import keras

    said = given or UNIT
    inputs = keras.Input(dataset.shape)
    scaled = keras.layers.Rescaling(list(said.factor), offset=list(said.offset))(inputs)
    victim = keras.Model(inputs, keras.layers.Rescaling(factor)(model(scaled)))
    network, rows = network_for(victim, dataset.shape), evaluation_order(dataset.y_test)
    try:
        found = check_scale(network, "it", dataset, rows, given)
    except ArchitectureError as error:
        return "wrong: refused" if true == UNIT else _advice(str(error), true)
    if found is None:
        return "silent" if true == said else "wrong: silent"
    return f"wrong: {found.flag}" if given else str(found.flag)


def _advice(message: str, true: PixelScale) -> str:
    advised = message.rpartition(": give it ")[2].partition(", or pixel_range: [0, 1]")[0]
    if ": give it " not in message:
        return "refused, several named" if true.option in message else "refused, no scale named"
    return "refused, its own advised" if advised == true.option else f"wrong: refused, {advised} advised"
