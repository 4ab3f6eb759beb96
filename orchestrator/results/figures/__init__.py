"""Figures of sweeps: a registry of kinds, each a module with a function that draws it.

Light to import: matplotlib comes with the first figure that is drawn.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ChoiceError, UserError, did_you_mean

if TYPE_CHECKING:
    from orchestrator.results.figures.page import Drawing
    from orchestrator.results.schemas import Results

FORMATS = ("png", "svg", "pdf")
"""What a figure may be written as, by the end of its file's name."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which part of sweeps to draw, and how large."""

    wanted: Mapping[str, Sequence[str]] = field(default_factory=dict)  # as of `results.choice.choose`
    by: Sequence[str] = ()
    epsilon: float | None = None  # on the [0, 1] scale, for kinds that show one; None: one in the middle
    width: float | None = None  # inches; None: that of a column, or of a page where more is needed

    def __post_init__(self) -> None:
        if self.width is not None and not NARROWEST <= self.width <= WIDEST:
            raise ChoiceError(
                "width",
                f": found {self.width:g}; {NARROWEST:g} to {WIDEST:g} inches are allowed (a column of "
                "a paper is about 3.3 wide, its page 6.9)",
            )


NARROWEST, WIDEST = 2.5, 40.0
"""Inches."""

Draw = Callable[[Sequence["Results"], Choice], "Drawing"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of figure."""

    draws: str  # "module:function", a `Draw`
    shows: str  # what, for people
    at_one_epsilon: bool = False  # whether `Choice.epsilon` means something


_HERE = "orchestrator.results.figures"

KINDS: dict[str, Kind] = {
    "curves": Kind(draws=f"{_HERE}.curves:curves", shows="robust accuracy against epsilon"),
    "distances": Kind(
        draws=f"{_HERE}.distances:distances", shows="robust accuracy at any epsilon, of minimum-norm attacks"
    ),
    "heatmap": Kind(
        draws=f"{_HERE}.heatmap:heatmap", shows="every model under every attack", at_one_epsilon=True
    ),
    "transfer": Kind(
        draws=f"{_HERE}.transfer:transfer",
        shows="images made against one model, tried on others",
        at_one_epsilon=True,
    ),
    "perceptibility": Kind(
        draws=f"{_HERE}.perceptibility:perceptibility",
        shows="accuracy beside how visible the whole budget is",
    ),
    "per-class": Kind(
        draws=f"{_HERE}.per_class:per_class", shows="accuracy of each class", at_one_epsilon=True
    ),
    "gallery": Kind(
        draws=f"{_HERE}.gallery:gallery", shows="what attacks did to images", at_one_epsilon=True
    ),
    "training": Kind(draws=f"{_HERE}.training:training", shows="loss and accuracy by epoch"),
}
"""The kinds of figures by name."""


def draw(kind: str, results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw a figure. UserError for a kind or a name that is not there, and where there is nothing to draw."""
    if kind not in KINDS:
        raise UserError(f'no figure "{kind}"; {did_you_mean(kind, KINDS)}there are: {", ".join(KINDS)}')
    if choice.epsilon is not None and not KINDS[kind].at_one_epsilon:
        at_one = ", ".join(name for name, one in KINDS.items() if one.at_one_epsilon)
        raise ChoiceError(
            "epsilon", f" means nothing to {kind}, which shows all of them; it does to {at_one}"
        )
    module, _, name = KINDS[kind].draws.partition(":")
    function: Draw = getattr(importlib.import_module(module), name)
    from orchestrator.results.figures.page import styled

    with styled():
        return function(results, choice)


def form_of(path: str) -> str:
    """Which of `FORMATS` a file's name asks for; UserError for another."""
    form = Path(path).suffix.removeprefix(".").lower()
    if form not in FORMATS:
        found = f'"{Path(path).name}"'
        raise UserError(f"--out: found {found}; a name that ends in .{', .'.join(FORMATS)} is allowed")
    return form


def save(drawing: Drawing, path: str) -> None:
    """Write a drawing as its file's name ends; UserError for another end, or where it cannot be written."""
    from orchestrator.results.export import replacing
    from orchestrator.results.figures.page import image_bytes

    data = image_bytes(drawing, form_of(path))
    with replacing(path) as stream:
        stream.write(data)
