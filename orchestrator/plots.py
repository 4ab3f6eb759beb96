"""Figures of sweeps from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.errors import arguments
from orchestrator.results.choice import Names, several, wanted_names
from orchestrator.results.figures import KINDS, Choice, draw
from orchestrator.results.schemas import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plots:
    """Figures, as `robustsweep figure` writes them: each a matplotlib figure, which a notebook shows.

    All take names as `Sweep.table` does (`dataset`, `model`, `defence`, `attack`, `norm`, `by`) and a `width`
    in inches; UserError for a name that is not there, and where there is nothing to draw.
    """

    def __init__(self, take: Callable[[Callable[[Sequence[Results]], Figure]], Figure]) -> None:
        """`take` calls what it is given with the sweeps."""
        self._take = take

    def curves(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        width: float | None = None,
    ) -> Figure:
        """Robust accuracy against epsilon: of the worst case where there is one, or of the attacks named."""
        return self._draw("curves", _chosen(dataset, model, defence, attack, norm), by, None, width)

    def distances(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        width: float | None = None,
    ) -> Figure:
        """Robust accuracy at any epsilon under minimum-norm attacks, a step for each image."""
        return self._draw("distances", _chosen(dataset, model, defence, attack, norm), by, None, width)

    def heatmap(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        epsilon: float | None = None,
        width: float | None = None,
    ) -> Figure:
        """Every model under every attack at one epsilon, by default one in the middle of the grid's."""
        return self._draw("heatmap", _chosen(dataset, model, defence, attack, norm), by, epsilon, width)

    def transfer(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        epsilon: float | None = None,
        width: float | None = None,
    ) -> Figure:
        """Images made against each model, tried on each other, at one epsilon."""
        return self._draw("transfer", _chosen(dataset, model, defence, attack, norm), by, epsilon, width)

    def perceptibility(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        width: float | None = None,
    ) -> Figure:
        """Accuracy, SSIM and L2 against epsilon, of images that spend the whole budget."""
        return self._draw("perceptibility", _chosen(dataset, model, defence, attack, norm), by, None, width)

    def per_class(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        epsilon: float | None = None,
        width: float | None = None,
    ) -> Figure:
        """The accuracy of each class, clean and under attack, at one epsilon."""
        return self._draw("per-class", _chosen(dataset, model, defence, attack, norm), by, epsilon, width)

    def gallery(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        epsilon: float | None = None,
        width: float | None = None,
    ) -> Figure:
        """The first images that attacks broke: clean, the change, adversarial; at one epsilon."""
        return self._draw("gallery", _chosen(dataset, model, defence, attack, norm), by, epsilon, width)

    def training(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        by: Names = (),
        width: float | None = None,
    ) -> Figure:
        """Loss and accuracy by epoch, on training and validation images."""
        return self._draw("training", _chosen(dataset, model, defence, (), ()), by, None, width)

    def _draw(
        self,
        kind: str,
        wanted: Mapping[str, Sequence[str]],
        by: Names,
        epsilon: float | None,
        width: float | None,
    ) -> Figure:
        with arguments():
            choice = Choice(wanted=wanted, by=several(by), epsilon=epsilon, width=width)
            return self._take(lambda results: draw(kind, results, choice))

    def __repr__(self) -> str:
        return f"<figures: {', '.join(f'.{name}()' for name in map(_method, KINDS))}>"


def _method(kind: str) -> str:
    return kind.replace("-", "_")


def _chosen(dataset: Names, model: Names, defence: Names, attack: Names, norm: Names) -> dict[str, list[str]]:
    return wanted_names(dataset=dataset, model=model, defence=defence, attack=attack, norm=norm)
