"""Rules about what stands beside each other: a grid that tells nothing, and results that are not alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from orchestrator.results.checks.cells import POINT
from orchestrator.results.checks.evidence import Cell, Evidence
from orchestrator.results.checks.rule import Found, Place, Rule, every


def _grid_tells_nothing(evidence: Evidence) -> Iterator[Found]:
    found: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in evidence.cells:
        if cell.epsilon > 0 and cell.correct and cell.done and (cell.kind.white_box or cell.kind.black_box):
            found[cell.dataset, cell.norm].append(cell)
    for (dataset, norm), cells in found.items():
        left = [cell.robust / cell.correct for cell in cells]
        if max(left) <= POINT:
            words = f"no more than {100 * max(left):.1f}% of what is right survives"
        elif min(left) >= 1 - POINT:
            words = f"at least {100 * min(left):.1f}% of what is right survives"
        else:
            continue
        epsilons = sorted({cell.epsilon for cell in cells})
        yield Found(
            Place(dataset=dataset, norm=norm),
            max(left),
            POINT,
            f"{words} in all {len(cells):,} cells, from epsilon {epsilons[0]:.4g} to {epsilons[-1]:.4g}",
        )


def _mixed(column: str, what: str) -> Callable[[Evidence], Iterator[Found]]:
    """Fires where shards that are compared say different things."""

    def find(evidence: Evidence) -> Iterator[Found]:
        if evidence.coverage is None:
            return
        said = Counter(value for value in evidence.coverage[column].to_pylist() if value)
        if len(said) > 1:
            names = [value[:8] if column == "code" else value for value, _ in said.most_common(3)]
            more = f" and {len(said) - 3} more" if len(said) > 3 else ""
            yield Found(
                Place(), len(said), 1.0, f"cells were computed {what} {len(said)}: {'; '.join(names)}{more}"
            )

    return find


RULES = (
    Rule(
        name="grid_tells_nothing",
        severity="note",
        meaning="all victims at the floor, or at the ceiling, at every epsilon: nothing can be compared",
        advice="choose smaller epsilons, or larger ones",
        find=_grid_tells_nothing,
        concerns=every,
    ),
    Rule(
        name="mixed_code",
        severity="note",
        meaning="cells by several states of robustsweep's source",
        advice="for a comparison that is to be published, run the grid into a new folder",
        find=_mixed("code", "by several states of the source, in all"),
        concerns=every,
    ),
    Rule(
        name="mixed_versions",
        severity="note",
        meaning="cells by several versions of TensorFlow, Keras or NumPy",
        advice="for a comparison that is to be published, run the grid with one",
        find=_mixed("versions", "with several versions of the libraries, in all"),
        concerns=every,
    ),
    Rule(
        name="mixed_devices",
        severity="note",
        meaning="cells on several kinds of processor, whose rounding differs in up to 0.2% of examples",
        advice="take no difference of a few examples for one between models",
        find=_mixed("device", "on several kinds of device, in all"),
        concerns=every,
    ),
)
