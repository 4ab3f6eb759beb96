"""Rules about a victim as something to attack, from the figures of its probes (`workers.probes`).

They need no cell, so they speak before anything expensive has run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from orchestrator.results.checks.evidence import Cell, Evidence
from orchestrator.results.checks.rule import Found, Rule, attacked, by_gradients, every
from workers.probes import EPSILONS

Figures = Mapping[str, float]

BLUR = 1e-4
"""As a share of the logits' spread: below it two answers differ by what rounding may do."""

GAP = 0.15
"""By how much two attacks on the probes must differ: 10 of 64 examples, which chance gives once in 1,000."""

_OVERFIT_GAP = 0.2
"""MNIST at Linf 0.2: 3 points with pgd; digits: 10, and 30 where fgsm had collapsed."""

_ROUND = 1e-9  # limits are reached by shares like 1/64, as floats


class Judged(NamedTuple):
    figure: float
    allowed: float
    message: str


def of_victims(judge: Callable[[Figures], Judged | None]) -> Callable[[Evidence], Iterator[Found]]:
    """A rule that looks at one victim's figures; a figure that is missing (KeyError) is no finding."""

    def find(evidence: Evidence) -> Iterator[Found]:
        for place, figures in evidence.probed():
            try:
                judged = judge(figures)
            except KeyError:
                continue
            if judged:
                yield Found(place, *judged)

    return find


def above(figure: str, allowed: float, message: str) -> Callable[[Evidence], Iterator[Found]]:
    """A rule that fires where a figure is above what is allowed; `message` may hold `{percent}` of it."""

    def judge(figures: Figures) -> Judged | None:
        value = figures[figure]
        if value <= allowed + _ROUND:
            return None
        return Judged(value, allowed, message.format(percent=percent(value), value=f"{value:.2g}"))

    return of_victims(judge)


def below(figure: str, allowed: float, message: str) -> Callable[[Evidence], Iterator[Found]]:
    """The same where it is below."""

    def judge(figures: Figures) -> Judged | None:
        value = figures[figure]
        if value >= allowed - _ROUND:
            return None
        return Judged(value, allowed, message.format(percent=percent(value), value=f"{value:.2g}"))

    return of_victims(judge)


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def randomised(figures: Figures) -> bool:
    return figures.get("draws_changed", 0.0) > 0 or figures.get("draws_spread", 0.0) > BLUR


def _drawn(figures: Figures) -> Judged | None:
    if not randomised(figures):
        return None
    changed, spread = figures["draws_changed"], figures["draws_spread"]
    return Judged(
        spread,
        BLUR,
        f"five calls on the same images differ by {percent(spread)} of the logits' spread, and change the "
        f"class of {percent(changed)} of them",
    )


def _epsilon_one(figures: Figures) -> Judged | None:
    survive = figures["robust_at_1"]
    if survive <= _ROUND or figures.get("constant"):  # of a constant model it is true
        return None
    return Judged(
        survive,
        0.0,
        f"at Linf epsilon 1, where an attack may paint any image, {percent(survive)} of the right answers "
        "survive: gradients do not lead to adversarial images that are there",
    )


def _company(figures: Figures) -> Judged | None:
    changed, spread = figures["batch_changed"], figures["batch_spread"]
    # A randomised victim changes its mind whatever the batch.
    by_chance = figures.get("draws_changed", 0.0) + GAP if randomised(figures) else 0.0
    if changed <= by_chance + _ROUND or spread <= BLUR:
        return None
    return Judged(
        changed,
        by_chance,
        f"{percent(changed)} of the images get another class when the victim is asked for them alone: "
        "answers depend on what else is in the batch",
    )


def _slight_company(figures: Figures) -> Judged | None:
    spread = figures["batch_spread"]
    if randomised(figures) or figures["batch_changed"] > _ROUND or spread <= 10 * BLUR:
        return None
    return Judged(
        spread,
        10 * BLUR,
        f"logits differ by {percent(spread)} of their spread when an image is asked for alone, though no "
        "class changes",
    )


def _inference(figures: Figures) -> Judged | None:
    changed, spread = figures["inference_changed"], figures["inference_spread"]
    # Between two calls a randomised victim differs from itself.
    by_chance = 2 * figures.get("draws_spread", 0.0) if randomised(figures) else BLUR
    if spread <= by_chance and changed <= figures.get("draws_changed", 0.0) + _ROUND:
        return None
    return Judged(
        spread,
        by_chance,
        f"with training=False logits differ by {percent(spread)} of their spread, and the class of "
        f"{percent(changed)} of the images, from the model as its author calls it",
    )


def _shattered(figures: Figures) -> Judged | None:
    gain, agreement = figures["gradient_gain"], figures["gradient_agreement"]
    if min(gain, agreement) >= 0.25:
        return None
    return Judged(
        min(gain, agreement),
        0.25,
        f"a small step along the gradient brings {gain:.2g} of the rise that it promises, and gradients "
        f"a hair apart have a cosine of {agreement:.2f}: they say little about the model",
    )


def _tiny(figures: Figures) -> Judged | None:
    size = figures["gradient_size"]
    if size >= 1e-6 or size == 0:  # none at all is a rule of its own
        return None
    return Judged(
        size,
        1e-6,
        f"the margin's gradient is {size:.1g} of the logits' spread per unit of distance: attacks use its "
        "direction alone",
    )


def widest(
    figures: Figures, stronger: str, weaker: str, gap: float = GAP
) -> tuple[float, float, float] | None:
    """Where what should be the stronger attack leaves most more than the other: epsilon and both shares."""
    found = [
        (figures[f"{stronger}@{level}"] - figures[f"{weaker}@{level}"], level)
        for level in range(len(EPSILONS))
        if f"{stronger}@{level}" in figures and f"{weaker}@{level}" in figures
    ]
    if not found:
        return None
    most, level = max(found)
    if most < gap - _ROUND:
        return None
    return EPSILONS[level], figures[f"{stronger}@{level}"], figures[f"{weaker}@{level}"]


def weaker_on_probes(
    stronger: str, weaker: str, words: tuple[str, str]
) -> Callable[[Evidence], Iterator[Found]]:
    """A rule that fires where an attack that should be the stronger one leaves more than another."""

    def judge(figures: Figures) -> Judged | None:
        found = widest(figures, stronger, weaker)
        if not found:
            return None
        epsilon, leaves, other = found
        return Judged(
            leaves - other,
            GAP,
            f"on {figures['examples']:.0f} probes at Linf {epsilon:.3g}, {words[0]} leaves {percent(leaves)} "
            f"unbroken and {words[1]} {percent(other)}",
        )

    return of_victims(judge)


def _losses(evidence: Evidence) -> Iterator[Found]:
    words = ("ten steps on the cross-entropy", "ten on the margin")
    yield from weaker_on_probes("bim", "bim_margin", words)(evidence)
    yield from weaker_on_probes("bim_margin", "bim", (words[1], words[0]))(evidence)


def _rises(figures: Figures) -> Judged | None:
    lowest: tuple[float, float] | None = None
    worst: tuple[float, float, float, float] | None = None
    for level, epsilon in enumerate(EPSILONS):
        leaves = figures.get(f"bim@{level}")
        if leaves is None:
            continue
        if lowest and leaves - lowest[0] >= GAP - _ROUND and (not worst or leaves - lowest[0] > worst[0]):
            worst = leaves - lowest[0], leaves, epsilon, lowest[1]
        if lowest is None or leaves < lowest[0]:
            lowest = leaves, epsilon
    if not worst:
        return None
    rise, leaves, epsilon, before = worst
    return Judged(
        rise,
        GAP,
        f"on {figures['examples']:.0f} probes bim leaves {percent(leaves)} unbroken at Linf {epsilon:.3g}, "
        f"and {percent(leaves - rise)} at {before:.3g}",
    )


def _by_length(cell: Cell) -> bool:
    """Attacks that take from a gradient's length how far to go."""
    return attacked(cell) and cell.kind.name in ("deepfool", "fab", "fmn", "carlini_wagner")


def _own_attack_only(evidence: Evidence) -> Iterator[Found]:
    """What was trained against an attack is to withstand others of its epsilon, on images it has not seen."""
    for place, victim in evidence.trained():
        own, pgd = victim["adversarial_accuracy"], victim["validation_adversarial_accuracy"]
        if own is None or pgd is None or own - pgd <= _OVERFIT_GAP + _ROUND:
            continue
        yield Found(
            place,
            own - pgd,
            _OVERFIT_GAP,
            f"when training ended {percent(own)} of the training images withstood the training's own attack, "
            f"and {percent(pgd)} of those held out pgd of 10 steps",
        )


rises_on_probes = of_victims(_rises)
drawn_on_probes = of_victims(_drawn)

RULES = (
    Rule(
        name="epsilon_one",
        severity="wrong",
        meaning="not broken at epsilon 1, where any image may be painted: attacks by gradients are blind",
        advice="believe no number of an attack by gradients: use square, or standard, which has it; then "
        "look for what hides the gradients",
        find=of_victims(_epsilon_one),
        concerns=by_gradients,
    ),
    Rule(
        name="company",
        severity="wrong",
        meaning="an image's answer depends on the others in its batch, so every number depends on batches",
        advice="put batch normalisation, and whatever else looks across a batch, into inference mode",
        find=of_victims(_company),
        concerns=every,
    ),
    Rule(
        name="slight_company",
        severity="suspicious",
        meaning="an image's logits depend on the others in its batch",
        advice="look for layers that look across a batch: they make attacks chase a moving model",
        find=of_victims(_slight_company),
    ),
    Rule(
        name="shattered_gradients",
        severity="suspicious",
        meaning="gradients that say nothing of the loss one small step away",
        advice="compare with square, and with standard: attacks by gradients are partly blind here",
        find=of_victims(_shattered),
    ),
    Rule(
        name="own_attack_only",
        severity="suspicious",
        meaning="robust to what it was trained against, on the images it was trained on, and hardly beyond",
        advice="attack it by pgd or standard, never by fgsm alone; train with attack: pgd, or a smaller "
        "relative_step_size or a longer ramp, and early_stopping",
        find=_own_attack_only,
    ),
    Rule(
        name="idle_defence",
        severity="suspicious",
        meaning="a defence that leaves clean images as they are, and snaps small changes of them back",
        advice="attack other images: these look as if the defence had made them, as JPEG copies look to jpeg "
        "of the same quality, and what it does for them it does for no others",
        find=below(
            "defence_changes",
            0.25,
            "the defence changes a pixel of clean images by {value} of 255 in the mean",
        ),
        concerns=every,
    ),
    Rule(
        name="ties",
        severity="suspicious",
        meaning="best logits that float32 cannot tell apart: neither right nor fooled can be said of them",
        advice="leave out what saturates or rounds the logits, or compute them in float64",
        find=above(
            "ties", 0.01, "{percent} of the images have two best logits that float32 cannot tell apart"
        ),
        concerns=every,
    ),
    Rule(
        name="noisy_expectation",
        severity="suspicious",
        meaning="so much randomness that the mean of the draws' gradients hardly has a direction",
        advice="raise eot, the number of draws, until the number does not fall any more",
        find=below(
            "eot_agreement", 0.1, "the mean gradients of two halves of the draws have a cosine of {value}"
        ),
    ),
    Rule(
        name="loss_matters",
        severity="suspicious",
        meaning="the cross-entropy and the margin, as losses of one attack, break different shares",
        advice="attack with both: pgd with loss: margin, or standard",
        find=_losses,
    ),
    Rule(
        name="tiny_gradients",
        severity="suspicious",
        meaning="gradients far smaller than the logits: they do not tell how far away the boundary is",
        advice="believe attacks that go by their direction, as pgd, apgd, ddn and standard; deepfool, fab, "
        "fmn and carlini_wagner go by their length too",
        find=of_victims(_tiny),
        concerns=_by_length,
    ),
    Rule(
        name="saturated",
        severity="note",
        meaning="softmax probabilities of exactly 1; attacks here compute the slope that is lost in them",
        advice="mind it with other tools, whose cross-entropy has no gradient there",
        find=above("saturated", 0.5, "{percent} of the right answers have a probability of 1 in float32"),
    ),
    Rule(
        name="flat_softmax",
        severity="note",
        meaning="logits so close together that softmax is flat; attacks here do not depend on their scale",
        advice="mind it with other tools: scale the logits up, or use a margin loss there",
        find=below("logit_spread", 1.0, "logits are {value} apart in the median"),
    ),
    Rule(
        name="small_logits",
        severity="note",
        meaning="logits close to 0; success here needs what float32 can tell apart, not a fixed margin",
        advice="mind it with other tools, whose constants may be larger",
        find=below("logit_size", 1e-3, "the largest logits are {value} in the median"),
    ),
    Rule(
        name="inference",
        severity="note",
        meaning="the model answers otherwise with training=False than as its author calls it",
        advice="say with inference: as_called or off which of the two is meant",
        find=of_victims(_inference),
    ),
)
