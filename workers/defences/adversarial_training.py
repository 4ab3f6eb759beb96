"""Training on adversarial images."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from workers.defences.ascent import AttackedTraining, pgd
from workers.defences.base import OPTIONS_CONFIG, Answers, Moment

_STEPS = 7
_REACH = 2.5  # the sum of all steps, in epsilons
_FGSM_STEP = 1.25


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class AdversarialTraining(AttackedTraining):
    """Training on adversarial images alone, made against the network as it is at each step.

    `attack: pgd`: from a point drawn from the ball, `steps` (7) of 2.5 / `steps` of epsilon along the
    gradient. Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models Resistant to
    Adversarial Attacks" (arXiv:1706.06083).
    `attack: fgsm`: one step of 1.25 epsilons from such a point. Wong, Rice and Kolter, "Fast is better than
    free: Revisiting adversarial training" (arXiv:2001.03994); the training of Goodfellow, Shlens and Szegedy
    (arXiv:1412.6572) with the random start that it needs.
    """

    name: ClassVar[str] = "adversarial_training"

    attack: Literal["pgd", "fgsm"] = "pgd"

    @model_validator(mode="after")
    def _fgsm_has_one_step(self) -> AdversarialTraining:
        if self.attack == "fgsm" and self.steps not in (None, 1):
            raise ValueError(f"found steps {self.steps} together with attack fgsm, which has one")
        return self

    @property
    def taken_steps(self) -> int:
        return 1 if self.attack == "fgsm" else self.steps or _STEPS

    @property
    def step_size(self) -> float:
        usual = _FGSM_STEP if self.attack == "fgsm" else _REACH / self.taken_steps
        return self.relative_step_size or usual

    def altered(self, answers: Answers, images: Any, labels: Any, moment: Moment) -> Any:
        return pgd(
            answers,
            images,
            labels,
            norm=self.norm,
            radius=self.radius(moment),
            steps=self.taken_steps,
            step_size=self.step_size,
            seed=moment.seed,
        ).images
