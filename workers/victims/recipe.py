"""How a victim is trained: deterministically, from its recipe and seed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as options_dataclass

from workers.datasets import Dataset, stratified_order
from workers.unit import VictimSpec
from workers.victims.architectures import build_model
from workers.victims.batch_norm import batch_norms, reestimate
from workers.victims.features import train_head
from workers.victims.fitting import Record, Report, Training, TrainingError

if TYPE_CHECKING:
    import keras

__all__ = ["History", "Recipe", "TrainingError", "build_and_train"]

_ORDER_SEED = 2
_VALIDATION_SHARE = 0.1
_LEARNING_RATES = {"adam": 1e-3, "sgd": 1e-2}


@options_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Cross-entropy, by Adam (Kingma and Ba, 2015) or by SGD with Nesterov's momentum of 0.9.

    A network with fresh weights is trained whole for `epochs`. One with pretrained weights first gets a new
    head, trained for `head_epochs` on features that the frozen network computes once; then its last third
    of layers (`fine_tune: top`), or all of them, are trained with the head for `epochs` at the lower rate.
    A user's own trained model goes straight to the latter. `schedule: cosine` takes the rate of each phase
    to 0. A tenth of the examples is held out, for the history and for early stopping only: after
    `early_stopping` epochs without a lower validation loss, the phase ends with its best weights.
    """

    VERSION: ClassVar[int] = 1
    PRETRAINED_ONLY: ClassVar[tuple[str, ...]] = ("head_epochs", "fine_tune", "fine_tune_learning_rate")

    epochs: int = Field(strict=True, default=5, ge=1)
    batch_size: int = Field(strict=True, default=64, ge=1)
    learning_rate: float | None = Field(
        strict=True, default=None, gt=0, allow_inf_nan=False
    )  # None: 0.001 for adam, 0.01 for sgd
    examples: int | None = Field(
        default=None, ge=2
    )  # the first so many of a fixed, stratified order; None: all
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    augmentation: Literal["none", "flip_crop"] = "none"  # not of the features that a head is trained on
    early_stopping: int | None = Field(strict=True, default=None, ge=1)
    head_epochs: int = Field(strict=True, default=10, ge=1)
    fine_tune: Literal["none", "top", "all"] = "top"
    fine_tune_learning_rate: float | None = Field(
        strict=True, default=None, gt=0, allow_inf_nan=False
    )  # None: a tenth of learning_rate

    def __post_init__(self) -> None:
        # Filled in here, so that a default spelled out is the same recipe.
        rate = self.learning_rate or _LEARNING_RATES[self.optimizer]
        object.__setattr__(self, "learning_rate", rate)
        object.__setattr__(self, "fine_tune_learning_rate", self.fine_tune_learning_rate or rate / 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How training went; `rows` as the history table has them, one an epoch, counted from 1."""

    rows: tuple[Mapping[str, Any], ...]
    train_examples: int
    seconds: float


def build_and_train(
    victim: VictimSpec, dataset: Dataset, report: Report = lambda progress: None
) -> tuple[keras.Model, History]:
    """Build a victim's network and train it, both from the victim's seed.

    Bit for bit the same on one type of CPU with one number of threads. Raises ArchitectureError or
    TrainingError, the latter when the loss is no longer finite.
    """
    import keras

    given = {key: value for key, value in victim.recipe.items() if key != "version"}
    recipe = Recipe(**given)
    keras.utils.set_random_seed(victim.seed)
    model = build_model(victim.model, dataset.shape, dataset.classes)
    order = stratified_order(dataset.y_train, _ORDER_SEED)[: recipe.examples]
    held_out = math.ceil(len(order) * _VALIDATION_SHARE)
    if len(order) <= held_out:
        raise TrainingError(f"{len(order)} training examples; at least 2 are needed")
    begun = time.perf_counter()
    task = Training(
        dataset=dataset,
        training=order[held_out:],
        validation=order[:held_out],
        recipe=recipe,
        seed=victim.seed,
        record=Record(report),
    )
    if victim.model.get("path"):
        _fine_tune(model, model, task)
    elif victim.model.get("weights"):
        backbone = train_head(model, task)
        if recipe.fine_tune != "none":
            _fine_tune(model, backbone, task)
    else:
        _from_scratch(model, task)
    return model, History(
        rows=tuple(task.record.rows),
        train_examples=len(task.training),
        seconds=time.perf_counter() - begun,
    )


def _from_scratch(model: keras.Model, task: Training) -> None:
    """Train a whole network, its batch norm re-estimated before every look at the validation images."""

    def settle() -> None:
        reestimate(model, task.dataset, task.training, task.recipe.batch_size)

    task.fit_images(
        model,
        phase="scratch",
        learning_rate=task.recipe.learning_rate,
        before_validation=[settle] if batch_norms(model) else [],
    )


def _fine_tune(model: keras.Model, backbone: keras.Model, task: Training) -> None:
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
