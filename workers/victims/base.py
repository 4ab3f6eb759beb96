"""What an architecture is, the contract between the networks and the grid; and what can go wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]  # (H, W, C)

OPTIONS_CONFIG = ConfigDict(extra="forbid")

BACKBONE = "backbone"
"""Name of the layer that holds a network of `keras.applications`; what follows it is the head."""


class ArchitectureError(Exception):
    """A model that cannot be built, or is no victim: the message says what was found and what is allowed."""


class TrainingError(Exception):
    """Training that came to nothing; the message says why."""


class CacheError(Exception):
    """An entry of the cache that does not hold what its manifest says."""


class WeightsMismatchError(Exception):
    """A victim has other weights than its results in this output folder; the message says what to do."""


class DataMismatchError(Exception):
    """A victim was trained on other data of the same name; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network by name; `version` is raised whenever what it builds changes.

    `build(options, shape, classes)` takes an instance of `options`, the images' (H, W, C) and the number of
    classes, and returns a model from float32 images (N, H, W, C) in [0, 1] to logits (N, classes), with
    fresh weights. `load_pretrained(model, options, sha256)` then gives it those that `options.weights` names,
    checking the file's hash where there is one; it is None for a network that takes none.
    """

    name: str
    version: int
    options: type
    build: Callable[[Any, Shape, int], keras.Model]
    min_size: int = 1  # pixels: the least height and width of an image
    least_input: int = 0  # pixels: smaller images are resized to it
    channels: tuple[int, ...] = ()  # those that images may have; empty: any number
    load_pretrained: Callable[[keras.Model, Any, str | None], None] | None = None
