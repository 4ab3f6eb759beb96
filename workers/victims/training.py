"""Training a victim, deterministically, from its recipe and seed: one phase or two."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from workers.datasets import Dataset, stratified_order
from workers.defences import in_training
from workers.unit import VictimSpec
from workers.victims.architectures import build_model
from workers.victims.base import TrainingError
from workers.victims.batch_norm import batch_norms, following, reestimate
from workers.victims.fitting import Record, Task
from workers.victims.head import train_head
from workers.victims.manifest import History
from workers.victims.progress import Listener
from workers.victims.resuming import Keeper

if TYPE_CHECKING:
    import keras

_ORDER_SEED = 2
_VALIDATION_SHARE = 0.1


def build_and_train(
    victim: VictimSpec,
    dataset: Dataset,
    listen: Listener = lambda progress: None,
    keeper: Keeper | None = None,
) -> tuple[keras.Model, History]:
    """Build a victim's network and train it, both from the victim's seed, with its defence in training.

    With a `keeper` it goes on from where an earlier attempt was lost. Bit for bit the same on one type of CPU
    with one number of threads. Raises ArchitectureError, DefenceError or TrainingError, the last when the
    loss is no longer finite.
    """
    import keras

    recipe = victim.recipe
    if recipe is None:
        raise ValueError(f"{victim.victim_id} has no recipe: it is evaluated as it is")
    keras.utils.set_random_seed(victim.seed)
    model = build_model(victim.model, dataset.shape, dataset.classes)
    order = stratified_order(dataset.y_train, _ORDER_SEED)[: recipe.examples]
    held_out = math.ceil(len(order) * _VALIDATION_SHARE)
    if len(order) <= held_out:
        raise TrainingError(f"{len(order)} training examples; at least 2 are needed")
    halfway = keeper.find() if keeper else None
    task = Task(
        dataset=dataset,
        training=order[held_out:],
        validation=order[:held_out],
        recipe=recipe,
        seed=victim.seed,
        record=Record(listen, list(halfway.rows) if halfway else []),
        defence=in_training(victim.defence),
        keeper=keeper,
        halfway=halfway,
    )
    if victim.model.path:
        _fine_tune(model, model, task)
    elif victim.model.weights:
        backbone = train_head(model, task)
        if recipe.fine_tune != "none":
            _fine_tune(model, backbone, task)
    else:
        _from_scratch(model, task)
    return model, History(
        rows=tuple(task.record.rows),
        train_examples=len(task.training),
        seconds=task.seconds,
    )


def _from_scratch(model: keras.Model, task: Task) -> None:
    """Train a whole network, its batch norm re-estimated before every look at the validation images.

    Where a defence trains on other images, its statistics follow those instead: an attack meets the network
    as it will answer, in inference mode.
    """

    def settle() -> None:
        reestimate(model, task.dataset, task.training, task.recipe.batch_size)

    fit = partial(task.fit_images, model, phase="scratch", learning_rate=task.recipe.learning_rate)
    if task.defence and task.defence.alters_images:
        with following(model):
            fit()
    else:
        fit(before_validation=[settle] if batch_norms(model) else [])


def _fine_tune(model: keras.Model, backbone: keras.Model, task: Task) -> None:
    """Train the top of a backbone, or all of it, and what follows it; its batch norm stays as it is."""
    recipe = task.recipe
    if recipe.fine_tune == "none":
        raise TrainingError("fine_tune: none leaves nothing to train in a model that is trained already")
    leaves = [
        layer
        for layer in backbone._flatten_layers(include_self=False)
        if layer.weights and not any(layer._flatten_layers(include_self=False))
    ]
    lower = leaves[: len(leaves) * 2 // 3] if recipe.fine_tune == "top" else []
    for layer in [*lower, *batch_norms(backbone)]:
        layer.trainable = False  # of a batch norm: Keras runs it in inference mode, too
    task.fit_images(model, phase="fine_tune", learning_rate=recipe.fine_tune_learning_rate)
