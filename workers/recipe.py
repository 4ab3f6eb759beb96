"""How a victim is trained, as options; what they come to is in `workers.victims.training`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

UNTRAINED = "as it is"
"""What stands in place of a recipe's options where a model is evaluated as it is."""

_LEARNING_RATES = {"adam": 1e-3, "sgd": 1e-2}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
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

    def changed(self, *, pretrained: bool) -> dict[str, Any]:
        """The options that differ from their defaults; those that this training does not come to aside."""
        idle = () if pretrained else self.PRETRAINED_ONLY
        defaults = asdict(Recipe())
        return {
            key: value for key, value in asdict(self).items() if key not in idle and value != defaults[key]
        }


def recipe_text(recipe: Recipe | None, *, pretrained: bool) -> str:
    """How a victim is trained, for people: what differs from the defaults, as "epochs=30, optimizer=sgd"; an
    empty text where nothing does, `UNTRAINED` without a recipe."""
    if recipe is None:
        return UNTRAINED
    return ", ".join(f"{key}={value}" for key, value in sorted(recipe.changed(pretrained=pretrained).items()))
