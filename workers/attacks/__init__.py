"""Attacks by name. Importing this imports no TensorFlow; calling an attack does.

    attack = build({"name": "bim", "norm": "linf", "steps": 10})
    result = attack(model, images, labels, epsilons=[0.01, 0.05, 0.1])

`REGISTRY` holds the attacks by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
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
from workers.network import NoGradientError

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
    "NoGradientError",
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

_IDENTITY = ("version", "source")


def build(config: Mapping[str, Any]) -> Attack:
    """Make the attack that a configuration describes.

    `name` selects from `REGISTRY`, the other keys are its options; `version` and `source`, which only
    identify it, are ignored. With `factory: "package.module:object"` that object is called with the options
    instead, and `name` is a label. Raises ValueError for an unknown name, pydantic's ValidationError for
    wrong options, ImportError or AttributeError for a factory that cannot be found.
    """
    options = {key: value for key, value in config.items() if key not in _IDENTITY}
    name, factory = options.pop("name", None), options.pop("factory", None)
    if factory is not None:
        module, _, attribute = factory.partition(":")
        attack: Attack = getattr(import_module(module), attribute)(**options)
        return attack
    if name not in REGISTRY:
        raise ValueError(f"found attack {name!r}; allowed: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name](**options)
