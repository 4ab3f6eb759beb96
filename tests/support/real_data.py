"""The real images and weights that lie beside the project, and what skips where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"

MARKS = (
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real images are not beside the project"),
)


def needs_real_data(test: Callable[..., Any]) -> Callable[..., Any]:
    for mark in MARKS:
        test = mark(test)
    return test
