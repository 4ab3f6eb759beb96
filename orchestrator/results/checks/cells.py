"""Rules that one cell, or one attack on one victim, breaks by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from orchestrator.results.checks.evidence import Cell, Evidence, Pair, clearly_ahead, most_ahead
from orchestrator.results.checks.rule import Found, Place, Rule, attacked, every
from orchestrator.results.checks.victims import rises_on_probes
from workers.flags import Flag

POINT = 0.01
"""The smallest effect that is worth a word: one point of robust accuracy."""

SOME = 3
"""So many examples make a share of them more than one odd image."""

_LOST_BY_CHANCE = 0.05  # of a randomised victim's answers at epsilon 0: near one half a majority may turn
_REACHABLE = 0.5
_ROOM = 0.02  # beside the share of a class: the examples are near-stratified, not stratified
_MANY = 20  # examples, before a share says much


def _epsilon_zero(evidence: Evidence) -> Iterator[Found]:
    for cell in evidence.cells:
        if cell.epsilon or not cell.n:
            continue
        share = cell.successes / cell.n
        allowed = _LOST_BY_CHANCE if Flag.RANDOMISED in cell.flags else 0.0
        if share > allowed:
            clean, robust = cell.correct / cell.n, cell.robust / cell.n
            yield Found(
                cell.place,
                share,
                allowed,
                f"at epsilon 0 robust accuracy is {_percent(robust)}, and clean accuracy {_percent(clean)}: "
                f"{cell.successes:,} of {cell.n:,} examples change their class by rounding alone",
            )


def _outside(evidence: Evidence) -> Iterator[Found]:
    for cell in evidence.cells:
        if cell.contradicted:
            yield Found(
                cell.place,
                cell.contradicted,
                0.0,
                f"{cell.contradicted:,} of {cell.successes:,} successes lie farther away than epsilon "
                f"{cell.epsilon:.4g}, or are of examples that were wrong before",
            )
        if cell.misplaced:
            yield Found(
                cell.place,
                cell.misplaced,
                0.0,
                f"{cell.misplaced:,} kept images are outside [0, 1], or farther from others of the same "
                "example than their distances allow",
            )


def _not_found(evidence: Evidence) -> Iterator[Found]:
    for cells in evidence.runs:
        # One search serves all epsilons; the cell with most examples knows most of it.
        cell = max(cells, key=lambda cell: int(cell.correct))
        if cell.not_found is None or not cell.correct or cell.targeted:
            continue
        share = cell.not_found / cell.correct
        if share > POINT and cell.not_found >= SOME:
            yield Found(
                cell.of_attack,
                share,
                POINT,
                f"{cell.named} found no adversarial image at any distance for {cell.not_found:,} of "
                f"{cell.correct:,} examples ({_percent(share)}), though every image of another class is one",
            )


def _distances_rise(evidence: Evidence) -> Iterator[Found]:
    """One search decides every epsilon, so that what is broken at one is broken at all larger ones."""
    for cells in evidence.runs:
        if not cells[0].minimum_norm:
            continue
        for before, cell in pairwise(cells):
            regained = Pair.of(before, cell).only_one
            if regained:
                yield Found(
                    cell.place,
                    regained,
                    0.0,
                    f"{regained:,} examples are broken at epsilon {before.epsilon:.4g} and "
                    f"not at {cell.epsilon:.4g}, though {cell.named} measures one distance for both",
                )


def _rising(evidence: Evidence, *, single_step: bool) -> Iterator[Found]:
    """Robust accuracy that rises with epsilon more than chance explains, from its lowest before."""
    pairs: list[Pair] = []
    for cells in evidence.runs:
        if cells[0].minimum_norm or cells[0].kind.name == "stored" or cells[0].targeted:
            continue
        if (cells[0].kind.iterative or cells[0].kind.black_box) == single_step:
            continue
        positive = [cell for cell in cells if cell.epsilon > 0]
        pairs += most_ahead(positive) if positive else []
    for pair in clearly_ahead(pairs, POINT):
        yield Found(
            pair.other.place,
            pair.gain,
            POINT,
            f"of {pair.n:,} examples {pair.other.named} breaks {pair.only_one:,} at epsilon "
            f"{pair.one.epsilon:.4g} and not at {pair.other.epsilon:.4g}, and {pair.only_other:,} the "
            "other way round",
        )


def _rises(evidence: Evidence) -> Iterator[Found]:
    yield from rises_on_probes(evidence)
    yield from _rising(evidence, single_step=False)


def _single_step_rises(evidence: Evidence) -> Iterator[Found]:
    yield from _rising(evidence, single_step=True)


def _worst_case_rises(evidence: Evidence) -> Iterator[Found]:
    """By construction it cannot, so the construction is held to it."""
    lowest: dict[tuple[str, str], dict[str, object]] = {}
    for row in sorted(evidence.worst_cases, key=lambda row: float(row["epsilon"])):
        if not row["complete"] or row["robust_accuracy"] is None:
            continue
        before = lowest.setdefault((row["victim_id"], row["norm"]), row)
        rise = row["robust_accuracy"] - float(str(before["robust_accuracy"]))
        if rise > 0 and row["n"] == before["n"]:
            names = ("victim_id", "model", "model_options", "dataset", "defence", "seed", "norm", "epsilon")
            yield Found(
                Place(**{name: row[name] for name in names}),
                rise,
                0.0,
                f"the worst case leaves {_percent(row['robust_accuracy'])} at epsilon {row['epsilon']:.4g}, "
                f"and less at {float(str(before['epsilon'])):.4g}",
            )
        if rise < 0:
            lowest[row["victim_id"], row["norm"]] = row


def _grey_in_reach(evidence: Evidence) -> Iterator[Found]:
    """At Linf 0.5 every ball holds the grey image, which has one class: no more than that can survive."""
    chance = {victim["victim_id"]: victim["chance"] for victim in evidence.victims}
    for cell in evidence.cells:
        most = chance.get(cell.victim_id)
        if most is None or cell.norm != "linf" or cell.epsilon < _REACHABLE or cell.n < _MANY:
            continue
        share = cell.robust / cell.n
        if cell.searched and cell.kind.iterative and share > most + _ROOM:
            yield Found(
                cell.place,
                share,
                most + _ROOM,
                f"{cell.named} leaves {_percent(share)} at Linf {cell.epsilon:.4g}, where the grey image is "
                f"within reach of all: no more than its class, {_percent(most)}, can be robust",
            )


def _oblivious_alone(evidence: Evidence) -> Iterator[Found]:
    names = ("victim_id", "attack", "attack_options", "norm", "epsilon")
    adaptive = {tuple(cell[name] for name in names) for cell in evidence.wanted if cell["adaptive"]}
    for cells in evidence.runs:
        alone = [cell for cell in cells if tuple(cell.values[name] for name in names) not in adaptive]
        alone = [cell for cell in alone if cell.epsilon > 0 and cell.defence != "none"]
        if alone and not cells[0].adaptive:
            yield Found(
                alone[0].of_attack,
                len(alone),
                0.0,
                f"{cells[0].named} uses gradients of the undefended network, and the grid has no cell in "
                f"which it uses those of {evidence.placed.defence(cells[0].values)}",
            )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _oblivious(cell: Cell) -> bool:
    return attacked(cell) and not cell.adaptive


RULES = (
    Rule(
        name="epsilon_zero",
        severity="wrong",
        meaning="robust accuracy at epsilon 0 is not clean accuracy",
        advice="look for answers that differ between two calls, or that jump within rounding",
        find=_epsilon_zero,
        concerns=every,
        makes_up=True,
    ),
    Rule(
        name="outside",
        severity="wrong",
        meaning="successes or kept images that contradict their own distances, or lie outside [0, 1]",
        advice="delete the shards of this cell and run again; if it is back, the attack is at fault",
        find=_outside,
        concerns=every,
        makes_up=True,
    ),
    Rule(
        name="distances_rise",
        severity="wrong",
        meaning="a minimum-norm attack that breaks less at a larger epsilon, which one distance cannot do",
        advice="delete the shards of this attack and run again",
        find=_distances_rise,
        concerns=every,
        makes_up=True,
    ),
    Rule(
        name="worst_case_rises",
        severity="wrong",
        meaning="the worst case over all attacks breaks less at a larger epsilon, which it cannot",
        advice="say so to the authors of robustsweep: it is their mistake",
        find=_worst_case_rises,
        concerns=lambda cell: False,
    ),
    Rule(
        name="grey_in_reach",
        severity="wrong",
        meaning="more robust at Linf 0.5 or above than any model can be, the grey image being within reach",
        advice="believe no number of this attack on this victim, at smaller epsilons either",
        find=_grey_in_reach,
    ),
    Rule(
        name="rises",
        severity="suspicious",
        meaning="an iterative attack breaks less at a larger epsilon: it gets lost",
        advice="give it more steps, or smaller ones, and compare with standard",
        find=_rises,
    ),
    Rule(
        name="not_found",
        severity="suspicious",
        meaning="a minimum-norm attack that finds nothing, at any distance, for more than 1% of the examples",
        advice="give it more steps; compare its median distance with those of other attacks",
        find=_not_found,
    ),
    Rule(
        name="oblivious_alone",
        severity="suspicious",
        meaning="attacked with gradients of the undefended network only, which flatters the defence",
        advice="add the same attack without adaptive: false",
        find=_oblivious_alone,
        concerns=_oblivious,
    ),
    Rule(
        name="single_step_rises",
        severity="note",
        meaning="an attack without a search breaks less at a larger epsilon, as one long step may",
        advice="read the iterative attacks instead",
        find=_single_step_rises,
    ),
)
