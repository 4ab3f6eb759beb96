"""Random numbers that belong to an example: the same whatever else is in the call."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from workers.norms import Norm


class Randomness:
    """Generators keyed by an attack's name, its seed, an example's index, and a stream of the attack's own.

    `example_indices` (N,): rows of the test split.
    """

    def __init__(self, name: str, seed: int, example_indices: NDArray[np.integer]) -> None:
        self._key = (zlib.crc32(name.encode()), seed)
        self._seed, self.example_indices = seed, example_indices

    def of(self, name: str) -> Randomness:
        """What the attack of this name would draw from, for the same seed and examples."""
        return Randomness(name, self._seed, self.example_indices)

    def generators(self, examples: NDArray[np.integer], stream: int = 0) -> list[np.random.Generator]:
        """A fresh generator for each of the call's `examples` (R,). Another stream, other numbers."""
        return [
            np.random.Generator(np.random.PCG64((*self._key, int(index), stream)))
            for index in self.example_indices[examples]
        ]

    def draw(
        self, norm: Norm, examples: NDArray[np.integer], shape: tuple[int, ...], stream: int = 0
    ) -> NDArray[np.float32]:
        """Uniform in the norm's unit ball around 0, (R, *shape); equal for rows of the same example."""
        distinct, back = np.unique(examples, return_inverse=True)
        drawn = np.zeros((len(distinct), *shape), np.float32)
        for row, generator in enumerate(self.generators(distinct, stream)):
            drawn[row] = norm.draw(generator, shape)
        return drawn[back]
