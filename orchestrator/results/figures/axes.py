"""What axes of several figures have in common: epsilons as grids write them, shares in percent."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from orchestrator.results.display import epsilon_text
from orchestrator.results.figures.page import measured
from orchestrator.results.figures.style import FONT_SIZES

_NORMS = {"linf": "Linf", "l2": "L2"}
_ROOM = 0.62  # inches of a panel that its axis does not have


def epsilon_axis(panel: Axes, epsilons: Sequence[float], norm: str, width: float, *, label: bool) -> None:
    """Ticks at the epsilons that there are, as many as can be read; `width` is the panel's, in inches."""
    low, high = min(epsilons), max(epsilons)
    span = (high - low) or 1.0
    panel.set_xlim(low - 0.04 * span, high + 0.04 * span)
    scale = (width - _ROOM) / (1.08 * span)  # inches for one
    chosen: list[float] = []
    for epsilon in sorted(epsilons, key=lambda one: (one not in (low, high), one)):
        text = epsilon_text(epsilon)
        half = measured(text, FONT_SIZES["small"]) / 2
        room = all(
            abs(epsilon - other) * scale
            > half + measured(epsilon_text(other), FONT_SIZES["small"]) / 2 + 0.05
            for other in chosen
        )
        if room:
            chosen.append(epsilon)
    panel.set_xticks(sorted(chosen), [epsilon_text(one) for one in sorted(chosen)])
    panel.set_xticks([one for one in epsilons if one not in chosen], minor=True)
    panel.tick_params(axis="x", which="minor", length=1.5, width=0.6)
    if label:
        panel.set_xlabel(epsilon_label(norm))


def epsilon_label(norm: str) -> str:
    return f"epsilon ({_NORMS.get(norm, norm)}, pixels in [0, 1])"


def share_axis(panel: Axes, text: str, *, label: bool, floor: float = 0.0) -> None:
    """From 0 to 100%, with room for marks below where `floor` (of 1) is negative."""
    panel.set_ylim(100 * floor - 2, 102)
    panel.set_yticks([0, 25, 50, 75, 100])
    if label:
        panel.set_ylabel(text)
