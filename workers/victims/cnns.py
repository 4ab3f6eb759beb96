"""Small convolutional networks, trained from scratch in seconds to minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass as options_dataclass

from workers.victims.base import OPTIONS_CONFIG, Architecture, Shape

if TYPE_CHECKING:
    import keras


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class SmallCNNOptions:
    width: int = Field(default=16, strict=True, ge=1, le=1024)  # filters of the first convolution


@options_dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class WideCNNOptions:
    width: int = Field(default=32, strict=True, ge=1, le=1024)  # filters of the first convolution


def _small_cnn(options: SmallCNNOptions, shape: Shape, classes: int) -> keras.Model:
    """Two convolutions, each followed by pooling, and a hidden dense layer."""
    from keras import Sequential, layers

    width = options.width
    return Sequential(
        [
            layers.Input(shape),
            layers.Rescaling(2.0, offset=-1.0),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu"),
            layers.Dense(classes),
        ],
        name="small_cnn",
    )


def _wide_cnn(options: WideCNNOptions, shape: Shape, classes: int) -> keras.Model:
    """Three convolutions, pooled over the whole image before the logits, without a hidden dense layer."""
    from keras import Sequential, layers

    width = options.width
    return Sequential(
        [
            layers.Input(shape),
            layers.Rescaling(2.0, offset=-1.0),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes),
        ],
        name="wide_cnn",
    )


CNNS = (
    Architecture(name="small_cnn", version=1, options=SmallCNNOptions, min_size=8, build=_small_cnn),
    Architecture(name="wide_cnn", version=1, options=WideCNNOptions, min_size=8, build=_wide_cnn),
)
