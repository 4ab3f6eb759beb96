"""What a victim is like as something to attack: figures from 64 clean images, before any attack is run.

Figures are measured here, and judged elsewhere. Each victim's are a file of its own in the output folder, for
the weights that the folder is pinned to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

from workers import layout
from workers.recorded import as_json, as_number
from workers.storage import Folder

VERSION = 2
"""Raised whenever a figure changes its meaning: a victim with figures of another version is probed again."""

EXAMPLES = 64
"""The first so many of the evaluation order are probed."""

EPSILONS = (1 / 255, 4 / 255, 16 / 255, 0.1, 0.25)
"""Linf, on the [0, 1] scale."""

ATTACKS = ("noise", "fgsm", "bim", "bim_margin", "square")
"""What is tried at each of `EPSILONS`: 3 points of noise; one step; ten steps on the cross-entropy, and on
the margin; 100 queries of the square attack."""

FIGURES: dict[str, str] = {
    "examples": "clean images probed",
    "clean_accuracy": "share of them that are answered rightly",
    "non_finite_logits": "share answered with NaN or infinity",
    "constant": "1 where every answer is the same, logit by logit; else 0",
    "probabilities": "share of answers that are 0 or more and sum to 1",
    "logit_size": "median of the largest absolute logit",
    "logit_spread": "median of the largest less the smallest logit",
    "top_probability": "median softmax probability of the answer",
    "saturated": "share of right answers whose probability is 1 in float32",
    "ties": "share whose two best logits float32 cannot tell apart",
    "draws_changed": "share whose class changes within five calls",
    "draws_spread": "largest difference of a logit between calls, as a share of the logits' spread",
    "batch_changed": "share whose class is another when asked alone",
    "batch_spread": "largest difference of a logit when asked alone, as a share of the logits' spread",
    "inference_changed": "share whose class is another with training=False than as the model is called",
    "inference_spread": "largest difference of a logit between the two, as a share of the logits' spread",
    "defence_changes": "mean change of a clean pixel by a defence at inference, in 255ths; null: no defence",
    "zero_gradients": "share of right answers whose margin has no gradient at all",
    "non_finite_gradients": "share of right answers whose margin has a NaN or infinite gradient",
    "gradient_size": "median L2 length of the margin's gradient, as a share of the logits' spread",
    "gradient_gain": "median rise of the margin over a step of 0.5, 2 or 8 grey levels, whichever is most, "
    "as a share of what its gradient promises",
    "gradient_agreement": "median cosine between the margin's gradients at an image and a hair beside it",
    "eot_agreement": "median cosine between the mean gradients of two halves of the draws; null: no draws",
    "robust_at_1": "share of right answers that survive Linf epsilon 1",
    **{
        f"{attack}@{level}": f"share of right answers that survive {attack} at epsilon {epsilon:.4g}"
        for attack in ATTACKS
        for level, epsilon in enumerate(EPSILONS)
    },
}
"""Figure -> what it is. One is null where nothing could be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The figures of one victim."""

    victim_id: str
    weights: str  # SHA-256
    version: int
    figures: Mapping[str, float | None]
    seconds: float


def publish_probes(output: Folder, probes: Probes) -> None:
    """Leave a victim's figures in an output folder; they replace earlier ones of the same weights."""
    data = json.dumps(asdict(probes), indent=1, sort_keys=True).encode()
    output.publish(layout.probes(probes.victim_id, probes.weights), data)


def find_probes(output: Folder, victim_id: str, weights: str) -> Probes | None:
    """A victim's figures; None where there are none, or none of this version."""
    try:
        values = as_json(output.read(layout.probes(victim_id, weights)))
        figures = {name: _figure(values["figures"].get(name)) for name in FIGURES}
        found = Probes(**{**{each.name: values[each.name] for each in fields(Probes)}, "figures": figures})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    same = (found.victim_id, found.weights, found.version) == (victim_id, weights, VERSION)
    return found if same else None


def read_probes(output: Folder, weights: Mapping[str, str]) -> list[Probes]:
    """The figures of the victims whose weights these are, by victim id."""
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda item: find_probes(output, *item), weights.items())
        return [probes for probes in found if probes]


def _figure(value: object) -> float | None:
    """None also for what is no finite number: no rule is to be met by one."""
    try:
        return as_number(value)
    except ValueError:
        return None
