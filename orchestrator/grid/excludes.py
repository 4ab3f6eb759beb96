"""The cells that a grid leaves out, and what to say of those that it has not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from orchestrator.errors import did_you_mean
from orchestrator.grid.aliases import ALIASES
from orchestrator.grid.checker import Checker, kind, show
from orchestrator.grid.document import Keys
from orchestrator.grid.entries import AttackEntry, DefenceEntry, ModelEntry, Selector
from orchestrator.grid.numbers import exact, number_text

_SECTIONS = {
    "model": "models",
    "dataset": "datasets",
    "attack": "attacks",
    "norm": "attacks",
    "epsilon": "epsilons",
    "defence": "defences",
    "seed": "seeds",
}


def parse_exclude(check: Checker, raw: Any, width: Fraction) -> Selector | None:
    """One entry of `exclude:`; its epsilon moved to the [0, 1] scale by the pixel range's width."""
    if not isinstance(raw, dict) or not raw:
        check.problem(f"found {show(raw)}; a mapping such as {{model: small_cnn, epsilon: 0.3}} is allowed")
        return None
    result: dict[str, Any] = {}
    for key, value in raw.items():
        with check.at(key):
            if key not in _SECTIONS:
                check.unknown("key", key, _SECTIONS)
            elif key == "epsilon":
                try:
                    result[key] = exact(value) / width
                except ValueError as error:
                    check.problem(str(error))
            elif isinstance(value, str | int) and not isinstance(value, bool):
                result[key] = value
            else:
                check.problem(f"found {kind(value)}; one name or number is allowed")
    return Selector(**result)


def check_excludes(
    check: Checker,
    excludes: Mapping[Keys, Selector],
    models: Sequence[ModelEntry],
    datasets: Sequence[str],
    attacks: Sequence[AttackEntry],
    defences: Sequence[DefenceEntry],
    seeds: Sequence[int],
    width: Fraction,
) -> None:
    """An exclude that matches nothing is a typo, and would run what was meant to be left out.

    What stands in a section that is wrong itself is not held against the exclude. `width` is that of the
    pixel range.
    """
    runs = [
        {"attack": attack.name, "norm": attack.norm, "dataset": dataset, "epsilon": epsilon}
        for attack in attacks
        for dataset, epsilons in attack.epsilons.items()
        for epsilon in epsilons
    ]
    found: dict[str, set[Any]] = {
        "model": {model.name for model in models},
        "dataset": set(datasets),
        "attack": {run["attack"] for run in runs},
        "norm": {run["norm"] for run in runs},
        "epsilon": {run["epsilon"] for run in runs},
        "defence": {defence.name for defence in defences},
        "seed": set(seeds),
    }
    for path, exclude in excludes.items():
        with check.at(*path):
            if any(check.broken(_SECTIONS[key]) for key in exclude.keys):
                continue
            wrong = mismatches(exclude, found, width)
            for key, problem in wrong.items():
                with check.at(key):
                    check.problem(problem)
            if not wrong and not any(exclude.concerns(**run) for run in runs):
                check.problem(NOT_TOGETHER)


NOT_TOGETHER = "matches no cell of this grid: its keys do not occur together"


def mismatches(selector: Selector, found: Mapping[str, Collection[Any]], width: Fraction) -> dict[str, str]:
    """By key, what to say of each value that nothing in a grid has; `found` are the values there are.

    Epsilons, on the [0, 1] scale, are named as the grid writes them: on a pixel range of that width.
    """

    def text(value: Any) -> str:
        return number_text(value * width) if isinstance(value, Fraction) else str(value)

    problems = {}
    for key, value in selector.keys.items():
        if value not in found[key]:
            names = [text(one) for one in sorted(found[key])]
            near = did_you_mean(value, names, ALIASES) if isinstance(value, str) else ""
            problems[key] = f'"{text(value)}" matches nothing in this grid; {near}it has: {", ".join(names)}'
    return problems
