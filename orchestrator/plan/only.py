"""The part of a grid that `--only` asks for: what is computed now, the inverse of `exclude`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from orchestrator.errors import UserError, did_you_mean
from orchestrator.grid.entries import Selector
from orchestrator.grid.excludes import NOT_TOGETHER, mismatches
from orchestrator.grid.numbers import exact
from orchestrator.plan.cells import AttackCells, VictimCells, place

_KEYS = tuple(Selector.model_fields)


def select(victims: Sequence[VictimCells], only: Sequence[str], width: Fraction) -> list[VictimCells]:
    """The cells that any text of `only` covers, in their order; victims and attacks without any are left out.

    A text is `key=value`, several joined by commas, all of which must agree: "model=small_cnn,epsilon=0.1".
    Epsilons are written on a pixel range of that width. Raises UserError with every problem: a text that is
    none, a value that nothing in the grid has, values that do not occur together.
    """
    problems: list[str] = []
    found = _values(victims)
    selectors = []
    for text in only:
        selector, wrong = _parse(text, width)
        if not wrong:
            wrong = [f"{key} {problem}" for key, problem in mismatches(selector, found, width).items()]
        if not wrong and not _selected(victims, [selector]):
            wrong = [NOT_TOGETHER]
        problems += [f'--only "{text}": {problem}' for problem in wrong]
        selectors.append(selector)
    if problems:
        raise UserError("\n".join(problems))
    return _selected(victims, selectors)


def _parse(text: str, width: Fraction) -> tuple[Selector, list[str]]:
    """What a text asks for, and what is wrong with it."""
    given: dict[str, Any] = {}
    problems = []
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            problems.append(f'found "{part}"; key=value is allowed, such as model=small_cnn,attack=fgsm')
        elif key not in _KEYS:
            near = did_you_mean(key, _KEYS)
            problems.append(f'unknown key "{key}"; {near}allowed: {", ".join(_KEYS)}')
        elif key in given:
            problems.append(f"{key} stands here twice, and both must agree; --only again asks for either")
        else:
            try:
                given[key] = _value(key, value, width)
            except ValueError as error:
                problems.append(f"{key}: {error}")
    return Selector(**given), problems


def _value(key: str, text: str, width: Fraction) -> str | int | Fraction:
    if key == "epsilon":
        return exact(text) / width
    if key != "seed":
        return text
    if text.isdecimal():
        return int(text)
    raise ValueError(f'found "{text}"; a whole number, 0 or more, is allowed')


def _values(victims: Iterable[VictimCells]) -> Mapping[str, Collection[Any]]:
    """By key, what there is in a grid."""
    found: dict[str, set[Any]] = {key: set() for key in _KEYS}
    for victim, runs in victims:
        for run in runs:
            for key, value in place(victim, run.attack).items():
                found[key].add(value)
            found["epsilon"].update(cell.exact for cell in run.cells)
    return found


def _selected(victims: Iterable[VictimCells], selectors: Sequence[Selector]) -> list[VictimCells]:
    chosen = []
    for victim, runs in victims:
        kept = []
        for run in runs:
            where = place(victim, run.attack)
            # A transfer is asked for where both of its victims are: else one would be trained unasked.
            of = (
                [where]
                if run.attack.made_against is None
                else [where, place(run.attack.made_against, run.attack)]
            )
            cells = tuple(
                cell
                for cell in run.cells
                if all(
                    any(selector.covers(**each, epsilon=cell.exact) for selector in selectors) for each in of
                )
            )
            if cells:
                kept.append(AttackCells(run.attack, cells))
        if kept:
            chosen.append(VictimCells(victim, tuple(kept)))
    return chosen
