"""Rules for what was found where examples were attacked (`workers.flags`): each flag is one, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.results.checks.evidence import Cell, Evidence
from orchestrator.results.checks.rule import Found, Place, Rule, attacked, by_gradients, every
from orchestrator.results.checks.victims import above, drawn_on_probes
from orchestrator.results.views import TOUCHED
from workers.flags import Flag

Find = Callable[[Evidence], Iterator[Found]]

OF_VICTIMS = (Flag.VICTIM_WEAK, Flag.VICTIM_OVERFIT)
"""The flags that say how a victim has trained; all others are of examples."""

ADVICE = {
    Flag.VICTIM_WEAK: "train it better before its robustness is spoken of: there is little to break",
    Flag.VICTIM_OVERFIT: "train on more images, or for fewer epochs",
    Flag.ZERO_GRADIENTS: "compare with square, and with standard, which falls back on it",
    Flag.NON_FINITE_GRADIENTS: "look for a logarithm, a root or a division in the model that meets 0",
    Flag.NON_FINITE_LOGITS: "look for what overflows in the model",
    Flag.CONSTANT_MODEL: "check its weights, and the scale of the pixels that it expects",
    Flag.PROBABILITIES: "leave the softmax out of the model",
    Flag.RANDOMISED: "read the number as one over draws; raise eot until it does not fall any more",
    Flag.LOST_CLAIMS: "raise eot, the number of draws: the attack fits single draws, not the model",
    Flag.AS_CALLED: "if that is not meant, say inference: off, which switches those layers off",
    Flag.SWITCHED_OFF: "if those layers are meant, say inference: as_called, which keeps them on",
    Flag.SCALE_DOUBTED: "give the model the pixel_range: or normalise: that it was trained with",
    Flag.SCALE_UNSETTLED: "say the pixel_range: or normalise: that the model was trained with",
    Flag.NOT_STORED: "make images of all the examples that the cell covers",
    Flag.OTHER_IMAGES: "write into example_index the rows of the test split that the images were made from",
    Flag.FAR_IMAGES: "check example_index, and that pixels are on the scale of the dataset",
    Flag.UNCHANGED_IMAGES: "check that the file holds what the attack returned, not what it was given",
    Flag.BEYOND_EPSILON: "make the images anew, within epsilon after rounding",
}

ON_PROBES: dict[Flag, Find] = {
    Flag.ZERO_GRADIENTS: above(
        "zero_gradients", TOUCHED, "{percent} of the right answers have a margin without any gradient"
    ),
    Flag.NON_FINITE_GRADIENTS: above(
        "non_finite_gradients", 0.0, "{percent} of the right answers have a NaN or infinite gradient"
    ),
    Flag.NON_FINITE_LOGITS: above(
        "non_finite_logits", 0.0, "{percent} of the images are answered with NaN or infinity"
    ),
    Flag.CONSTANT_MODEL: above("constant", 0.0, "every image gets the same logits"),
    Flag.PROBABILITIES: above("probabilities", 0.5, "{percent} of the answers are 0 or more and sum to 1"),
    Flag.RANDOMISED: drawn_on_probes,
}
"""What the same looks like on the probes of a victim, before it is attacked."""


def _rule(flag: Flag) -> Rule:
    of_victims = flag in OF_VICTIMS

    def find(evidence: Evidence) -> Iterator[Found]:
        if flag in ON_PROBES:
            yield from ON_PROBES[flag](evidence)
        yield from _of_victims(flag, evidence) if of_victims else _of_cells(flag, evidence)

    return Rule(
        name=flag.value,
        severity=flag.severity,
        meaning=flag.meaning,
        advice=ADVICE[flag],
        find=find,
        concerns=_CONCERNS.get(flag, attacked),
    )


def _of_cells(flag: Flag, evidence: Evidence) -> Iterator[Found]:
    for cell in evidence.flagged:
        if flag in cell.flags:
            touched = {one["key"]: one["value"] for one in cell.touched or ()}[flag.value]
            share = touched / cell.correct if cell.correct else 1.0
            yield Found(
                cell.place,
                share,
                TOUCHED,
                f"{_named(flag)} on {touched:,} of {cell.correct:,} attacked examples ({100 * share:.1f}%)",
            )


def _named(flag: Flag) -> str:
    return flag.value.replace("_", " ")


def _of_victims(flag: Flag, evidence: Evidence) -> Iterator[Found]:
    carrying: dict[Place, Cell] = {}
    for cell in evidence.flagged:
        if flag in cell.flags:
            carrying.setdefault(cell.of_victim, cell)
    for place in carrying:
        [victim] = [one for one in evidence.victims if one["victim_id"] == place.victim_id]
        if flag == Flag.VICTIM_WEAK:
            allowed = min(2 * victim["chance"], (1 + victim["chance"]) / 2)
            right = victim["test_accuracy"]
            message = (
                f"{100 * right:.1f}% right on clean test images, chance being {100 * victim['chance']:.1f}%"
            )
            yield Found(place, right, allowed, message)
        else:
            gap = victim["train_accuracy"] - victim["validation_accuracy"]
            message = (
                f"{100 * victim['train_accuracy']:.1f}% right on its training images, "
                f"{100 * victim['validation_accuracy']:.1f}% on those held out"
            )
            yield Found(place, gap, 0.15, message)


_CONCERNS: dict[Flag, Callable[[Cell], bool]] = {
    Flag.VICTIM_WEAK: every,
    Flag.VICTIM_OVERFIT: every,
    Flag.SCALE_DOUBTED: every,
    Flag.SCALE_UNSETTLED: every,
    Flag.ZERO_GRADIENTS: by_gradients,
    Flag.NON_FINITE_GRADIENTS: by_gradients,
}

RULES = tuple(map(_rule, Flag))
