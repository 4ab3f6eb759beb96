"""Adam for many small problems at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.norms import Images

_DECAY_MEAN, _DECAY_SQUARE = np.float32(0.9), np.float32(0.999)
_TINY = np.float32(1e-8)


class Adam:
    """Kingma and Ba's moments (arXiv:1412.6980, with its constants) of R rows' gradients, (R, H, W, C)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._mean, self._square = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._taken = 0

    def step(self, gradients: Images) -> Images:
        """The direction to go, to be scaled by the learning rate and subtracted; about 1 in size at first."""
        self._taken += 1
        self._mean += (1 - _DECAY_MEAN) * (gradients - self._mean)
        self._square += (1 - _DECAY_SQUARE) * (gradients * gradients - self._square)
        spread = np.sqrt(self._square / (1 - _DECAY_SQUARE**self._taken)) + _TINY
        direction: Images = self._mean / (1 - _DECAY_MEAN**self._taken) / spread
        return direction

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Go on with some of the rows, (R,) bool."""
        self._mean, self._square = self._mean[rows], self._square[rows]
