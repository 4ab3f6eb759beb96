"""Attacks by name. Importing this imports no TensorFlow; calling an attack does.

    attack = build({"name": "bim", "norm": "linf", "steps": 10})
    result = attack(model, images, labels, epsilons=[0.01, 0.05, 0.1])

`REGISTRY` holds the attacks by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.attacks.apgd import APGD
from workers.attacks.base import Attack, AttackError, AttackResult
from workers.attacks.bim import BIM
from workers.attacks.carlini_wagner import CarliniWagner
from workers.attacks.ddn import DDN
from workers.attacks.deepfool import DeepFool
from workers.attacks.fab import FAB
from workers.attacks.fgsm import FGSM
from workers.attacks.fmn import FMN
from workers.attacks.noise import Noise
from workers.attacks.pgd import PGD
from workers.attacks.square import Square
from workers.attacks.standard import Standard
from workers.attacks.stored import Stored
from workers.factories import load

__all__ = [
    "APGD",
    "BIM",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "PGD",
    "REGISTRY",
    "Attack",
    "AttackError",
    "AttackResult",
    "CarliniWagner",
    "DeepFool",
    "Noise",
    "Square",
    "Standard",
    "Stored",
    "build",
]

REGISTRY: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        FGSM,
        BIM,
        PGD,
        Noise,
        APGD,
        FAB,
        Square,
        Standard,
        DeepFool,
        Stored,
        DDN,
        FMN,
        CarliniWagner,
    )
}


def build(config: Mapping[str, Any]) -> Attack:
    """Make the attack that a configuration describes.

    `name` selects from `REGISTRY`, the other keys are its options. With `factory: "package.module:object"`
    that object is called with the options instead, and `name` is a label; `version` and `source` identify it,
    and are no options. Raises ValueError for an unknown name, pydantic's ValidationError for wrong options,
    ImportError or AttributeError for a factory that cannot be found, or is not the one identified.
    """
    options = dict(config)
    name, factory = options.pop("name", None), options.pop("factory", None)
    if factory is not None:
        version, source = options.pop("version", None), options.pop("source", None)
        attack: Attack = load(factory, version=version, source=source)(**options)
        return attack
    if name not in REGISTRY:
        raise ValueError(f"found attack {name!r}; allowed: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name](**options)
