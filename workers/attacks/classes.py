"""Which classes an attack aims at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def likeliest(logits: NDArray[np.float32], labels: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The classes other than the (N,) labels by falling (N, K) logits: (N, min(count, K − 1)) int32."""
    ranked = np.argsort(-logits, axis=1, kind="stable")
    others = ranked[ranked != labels[:, None]].reshape(len(logits), logits.shape[1] - 1)
    chosen: NDArray[np.int32] = others[:, :count].astype(np.int32)
    return chosen
