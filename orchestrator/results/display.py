"""What people read in place of names: the labels of grids, told apart where one stands for several things.

A thing has one text in everything that is made of the same cells. Where several sweeps label it differently,
that of the first one counts. Where one text would stand for several things, what differs is said behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from workers.unit import NO_DEFENCE, label

Cell = Mapping[str, Any]
"""A row of the view `cells`."""


class Texts(NamedTuple):
    """What people read of a cell."""

    dataset: str
    model: str
    defence: str
    attack: (
        str  # marked "(oblivious)" where gradients were not those of the defended victim, and "(targeted)"
    )


def display(cells: Sequence[Cell]) -> Callable[[Cell], Texts]:
    """What people read of each of some cells, in the order of sweeps and of their grids.

    A model goes by its label, or by its name with its options; its recipe is said where it tells it from
    another on the same dataset. Defaults are not named.
    """
    models = _Namer("model_label", _of_model, within=lambda cell: (cell["dataset"],))
    datasets = _Namer("dataset_label", lambda cell: (cell["dataset"], "", ""))
    defences = _Namer("defence_label", lambda cell: (cell["defence"], "", ""))
    attacks = _Namer("attack_label", _of_attack, within=_kind)
    namers = (datasets, models, defences, attacks)
    for cell in cells:
        for namer in namers:
            namer.see(cell)

    def texts(cell: Cell) -> Texts:
        found = Texts(*(namer.text(cell) for namer in namers))
        marks = (" (oblivious)", not cell["adaptive"]), (" (targeted)", cell["targeted"])
        return found._replace(attack=found.attack + "".join(mark for mark, holds in marks if holds))

    return texts


def epsilon_text(epsilon: float) -> str:
    """An epsilon as a grid writes it: `8/255` where it is the float of that fraction, else as a decimal.

    The same as `orchestrator.grid.numbers.number_text` says of the exact number, but for other fractions.
    """
    levels = round(epsilon * 255)
    if 0 < levels < 255 and epsilon == levels / 255 and float(f"{epsilon:.6g}") != epsilon:
        return f"{levels // 85}/3" if levels % 85 == 0 else f"{levels}/255"
    return f"{epsilon:.4g}"


def behind(defence: str, text: str) -> str:
    """What is said of a defence behind its model: nothing where there is none, and nobody called that
    anything. `text` is what people read of it."""
    if defence != NO_DEFENCE.name:
        return f" with {text}"
    return "" if text == NO_DEFENCE.name else f" ({text})"


_Parts = tuple[str, str, str]
"""A name, its options, and what else tells it from others of that name and those options."""


def _of_model(cell: Cell) -> _Parts:
    return cell["model"], cell["model_options"], cell["recipe"]


def _of_attack(cell: Cell) -> _Parts:
    options = cell["attack_options"].split(", ")
    shown = (option for option in options if option != "targeted=True" or not cell["targeted"])
    return cell["attack"], ", ".join(shown), ""


def _kind(cell: Cell) -> tuple[Any, ...]:
    """Attacks that differ in any of this are never beside each other, or have marks."""
    return cell["norm"], cell["adaptive"], cell["targeted"]


class _Namer:
    """Texts of one kind of thing. `within`: where two of them may not have the same one."""

    def __init__(
        self,
        column: str,
        parts: Callable[[Cell], _Parts],
        within: Callable[[Cell], tuple[Any, ...]] = lambda cell: (),
    ) -> None:
        self._column, self._parts, self._within = column, parts, within
        self._labels: dict[_Parts, str] = {}
        self._seen: dict[tuple[Any, ...], dict[_Parts, None]] = {}
        self._texts: dict[tuple[tuple[Any, ...], _Parts], str] = {}

    def see(self, cell: Cell) -> None:
        parts = self._parts(cell)
        self._seen.setdefault(self._within(cell), {})[parts] = None
        self._labels[parts] = self._labels.get(parts, "") or cell[self._column]

    def text(self, cell: Cell) -> str:
        place, parts = self._within(cell), self._parts(cell)
        if (place, parts) not in self._texts:
            self._texts[place, parts] = self._told_apart(parts, self._seen[place])
        return self._texts[place, parts]

    def _told_apart(self, parts: _Parts, others: Iterable[_Parts]) -> str:
        base = self._base(parts)
        alike = [one for one in others if self._base(one) == base or self._half_labelled(parts, one)]
        differ = [len({one[i] for one in alike}) > 1 for i in range(len(parts))]
        if self._labels[parts]:
            return label(base, _joined(part for part, told in zip(parts, differ, strict=True) if told))
        name, options, other = parts
        # A name that is another's label says once more that it is its own.
        return label(name, _joined([name if differ[0] else "", options, other if differ[2] else ""]))

    def _half_labelled(self, one: _Parts, other: _Parts) -> bool:
        """Whether they are one thing but for what else tells them apart, and only one of them has a label.

        Two sweeps may speak so of one model, and nobody could see that its recipes differ.
        """
        return one[:2] == other[:2] and bool(self._labels[one]) != bool(self._labels[other])

    def _base(self, parts: _Parts) -> str:
        return self._labels[parts] or label(parts[0], parts[1])


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(filter(None, parts))
