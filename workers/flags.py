"""What can be wrong with a number, by name: workers set flags, tables mark and explain them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Severity = Literal["wrong", "suspicious", "note"]


class Flag(StrEnum):
    """A name as it stands in results; `mark`, behind a model's name in tables; `meaning`, the footnote.

    `wrong`: the number is not what it says. `suspicious`: the model may be far less robust than the number
    says. `note`: worth knowing. They stand in the order in which a table explains them. The first
    two are set in SQL, from how a victim trained (`orchestrator.results.views.CELLS`); all others where an
    example is attacked.
    """

    mark: str
    severity: Severity
    meaning: str

    def __new__(cls, name: str, mark: str, severity: Severity, meaning: str) -> Flag:
        flag = str.__new__(cls, name)
        flag._value_ = name
        flag.mark, flag.severity, flag.meaning = mark, severity, meaning
        return flag

    VICTIM_WEAK = (
        "victim_weak",
        "†",
        "suspicious",
        "has not learnt: clean accuracy below twice chance",
    )
    VICTIM_OVERFIT = (
        "victim_overfit",
        "‡",
        "note",
        "overfitted: training accuracy more than 15 points above validation",
    )
    ZERO_GRADIENTS = (
        "zero_gradients",
        "§",
        "suspicious",
        "zero gradients: this attack was blind, and the model may be far less robust",
    )
    NON_FINITE_GRADIENTS = (
        "non_finite_gradients",
        "∇",
        "suspicious",
        "NaN or infinite gradients, taken as zero: this attack was partly blind",
    )
    NON_FINITE_LOGITS = (
        "non_finite_logits",
        "¤",
        "suspicious",
        "NaN or infinite logits, which count as no success of the attack",
    )
    CONSTANT_MODEL = ("constant_model", "◊", "suspicious", "the same logits for every image")
    PROBABILITIES = (
        "probabilities",
        "¶",
        "suspicious",
        "answers that look like probabilities: attacks need logits",
    )
    RANDOMISED = (
        "randomised",
        "≈",
        "note",
        "answers drawn at random: attacked by expectation, and scored by the majority of fresh draws",
    )
    LOST_CLAIMS = (
        "lost_claims",
        "⇣",
        "note",
        "successes of the attack that did not survive fresh draws, and count as none",
    )
    AS_CALLED = (
        "as_called",
        "⟳",
        "note",
        "layers in training mode when the model is called (dropout, batch norm): measured as it is called",
    )
    SWITCHED_OFF = (
        "switched_off",
        "⊘",
        "note",
        "layers that are in training mode when the model is called are switched off here",
    )
    SCALE_DOUBTED = (
        "scale_doubted",
        "≠",
        "suspicious",
        "clearly better, or surer, on pixels of another scale than the grid says",
    )
    SCALE_UNSETTLED = (
        "scale_unsettled",
        "∼",
        "note",
        "clean images do not tell on which pixel scale it was trained: pixel_range: or normalise: says it",
    )
    NOT_STORED = (
        "not_stored",
        "○",
        "suspicious",
        "examples that the file of images does not hold count as robust",
    )
    BEYOND_EPSILON = (
        "beyond_epsilon",
        "↗",
        "suspicious",
        "images of the file farther away than the epsilon that they were made for",
    )
    OTHER_IMAGES = (
        "other_images",
        "⊗",
        "wrong",
        "images of the file nearer to other test images than to those that it names: it mixes up its rows",
    )
    FAR_IMAGES = (
        "far_images",
        "↝",
        "suspicious",
        "images of the file about as far away as other test images: of other preprocessing, or other rows",
    )
    UNCHANGED_IMAGES = (
        "unchanged_images",
        "⊜",
        "suspicious",
        "most images of the file are the clean ones",
    )
