"""What is known of a trained victim: light, so that results can be read without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from workers.recorded import as_json
from workers.storage import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How training went; `rows` as the history table has them, one an epoch, counted from 1."""

    rows: tuple[Mapping[str, Any], ...]
    train_examples: int
    seconds: float


class CleanAccuracy(NamedTuple):
    """How a victim does on clean test images."""

    share: float  # right, of the first `examples` of the evaluation order
    examples: int
    chance: float  # the share of the most frequent class in the test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a trained victim; as JSON it is also what an output folder's pin says.

    `model`, `dataset`, `recipe` and `defence` are the fields of the victim's parts that say something
    (`workers.unit`); `dataset` also tells which data were actually used (`Dataset.record`).
    """

    victim_id: str
    weights: str  # SHA-256 of the weight arrays
    content: str  # SHA-256 of what the weights file holds, as the cache computes it
    model: Mapping[str, Any]
    model_options: str
    dataset: Mapping[str, Any]
    recipe: Mapping[str, Any]
    defence: Mapping[str, Any]
    seed: int
    parameters: int
    train_examples: int
    train_accuracy: float | None  # None, like the next: evaluated as it is
    validation_accuracy: float | None
    test_accuracy: float  # on the first `test_examples` of the evaluation order
    test_examples: int
    chance: float  # the share of the most frequent class in the test split
    seconds: float
    trained_at: str
    history: list[Mapping[str, Any]]
    versions: Mapping[str, str]

    def to_json(self) -> bytes:
        return redacted(json.dumps(asdict(self), indent=1, sort_keys=True)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ValueError, KeyError or TypeError for anything but a manifest; unknown keys are ignored."""
        values = as_json(data)
        return cls(**{field.name: values[field.name] for field in fields(cls)})
