"""Attacks as a user might write them, each wrong in its own way until a file `mended` lies beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[..., np.ndarray]


def _mended(images: np.ndarray, epsilons: list[float]) -> np.ndarray:
    """Every pixel brighter by epsilon, (E, N, H, W, C): weak, but an attack."""
    return np.stack([np.clip(images + np.float32(epsilon), 0, 1) for epsilon in epsilons])


def _faulty(go_wrong: Callable[[], float]) -> Callable[..., Call]:
    def build(norm: str) -> Call:
        def attack(
            model: Any, images: np.ndarray, labels: Any, epsilons: list[float], **_: Any
        ) -> np.ndarray:
            if Path(__file__).with_name("mended").exists():
                return _mended(images, epsilons)
            return _mended(images, epsilons) * np.float32(go_wrong())

        return attack

    return build


def _raise() -> float:
    raise ArithmeticError("this attack cannot count")


def _die() -> float:
    os._exit(9)


raises = _faulty(_raise)
dies = _faulty(_die)
returns_nan = _faulty(lambda: float("nan"))
