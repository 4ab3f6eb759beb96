"""Random numbers that belong to an example: the same whatever else is in the call."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


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

    def cube(
        self, examples: NDArray[np.integer], shape: tuple[int, ...], stream: int = 0
    ) -> NDArray[np.float32]:
        """Uniform in [-1, 1], (R, *shape); equal for rows of the same example."""

        def draw(generator: np.random.Generator) -> NDArray[np.float32]:
            return 2 * generator.random(shape, np.float32) - 1

        return self._each(examples, shape, stream, draw)

    def ball(
        self, examples: NDArray[np.integer], shape: tuple[int, ...], stream: int = 0
    ) -> NDArray[np.float32]:
        """Uniform in the L2 ball of radius 1, (R, *shape); equal for rows of the same example."""
        dimensions = int(np.prod(shape))

        def draw(generator: np.random.Generator) -> NDArray[np.float32]:
            vector = generator.standard_normal(shape)
            vector *= generator.random() ** (1 / dimensions) / np.linalg.norm(vector)
            return vector.astype(np.float32)

        return self._each(examples, shape, stream, draw)

    def _each(
        self,
        examples: NDArray[np.integer],
        shape: tuple[int, ...],
        stream: int,
        draw: Callable[[np.random.Generator], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        distinct, back = np.unique(examples, return_inverse=True)
        drawn = np.zeros((len(distinct), *shape), np.float32)
        for row, generator in enumerate(self.generators(distinct, stream)):
            drawn[row] = draw(generator)
        return drawn[back]
