"""Rules that hold attacks on one victim against each other, example by example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.checks.cells import POINT
from orchestrator.results.checks.evidence import ALPHA, Cell, Evidence, Pair, clearly_ahead
from orchestrator.results.checks.rule import Found, Place, Rule
from orchestrator.results.checks.victims import weaker_on_probes
from workers.statistics import binomial_tail, holm, mcnemar

_LOST = 0.02  # to a single step: default searches lose a point to it on small images, and hide nothing
_MASKED = 0.05  # of the correct examples: on small images square breaks some that ten steps of bim do not
_NOISE_BREAKS = 0.05  # of the correct examples, and `_NOISE_EXAMPLES`: below it there is nothing to compare
_NOISE_EXAMPLES = 10
_ONE_SIDED = 0.05
_FLOOR = 0.1  # of the correct examples left: an attack that has broken the rest is no blind one
_FARTHER = 1.1  # times: default searches on small healthy networks end within a twentieth of each other
_ENOUGH = 50  # distances, before medians are compared
_OVERFIT_FGSM, _OVERFIT_BELOW = 0.7, 0.2  # of clean accuracy


def _weaker_than_fgsm(evidence: Evidence) -> Iterator[Found]:
    yield from weaker_on_probes("bim", "fgsm", ("bim", "fgsm"))(evidence)
    pairs = [
        Pair.of(single, cell)
        for cells in evidence.points
        for single in cells
        if single.kind.name == "fgsm"
        for cell in cells
        if cell.kind.iterative
    ]
    for pair in clearly_ahead(pairs, _LOST):
        yield Found(
            pair.other.place,
            pair.gain,
            _LOST,
            f"of {pair.n:,} examples fgsm, with one step, breaks {pair.only_one:,} that "
            f"{pair.other.named} does not, and {pair.only_other:,} the other way round",
        )


def _black_box_better(evidence: Evidence) -> Iterator[Found]:
    words = ("bim", "square, which asks for answers only,")
    yield from weaker_on_probes("bim", "square", words)(evidence)
    yield from _only_black_box(evidence, _MASKED)


def _black_box_helps(evidence: Evidence) -> Iterator[Found]:
    masked = {found.place for found in _only_black_box(evidence, _MASKED)}
    yield from (found for found in _only_black_box(evidence, POINT) if found.place not in masked)


def _only_black_box(evidence: Evidence, allowed: float) -> Iterator[Found]:
    """Where an attack without gradients breaks more than `allowed` that all those by gradients miss."""
    found: list[tuple[Cell, Cell, int, int]] = []
    for cells in evidence.points:
        white = [cell for cell in cells if cell.kind.white_box]
        if not any(cell.kind.iterative for cell in white):
            continue
        # An example that any of them breaks shows that gradients lead there; the number of the strongest is
        # the one that is read.
        broken, right = _any_of(white)
        for black in (cell for cell in cells if cell.kind.black_box):
            both = _both(right, black.right)
            missed = both & ~broken[: len(both)]
            best = max(white, key=lambda cell: int(cell.successes))
            found.append((black, best, int((black.broken[: len(both)] & missed).sum()), int(both.sum())))
    significant = holm([binomial_tail(only, n, allowed) for _, _, only, n in found], ALPHA)
    for (black, best, only, n), sure in zip(found, significant, strict=True):
        if sure and only > allowed * n:
            yield Found(
                best.place,
                only / n,
                allowed,
                f"{black.named}, which asks for answers only, breaks {only:,} of {n:,} examples "
                f"({100 * only / n:.1f}%) that no attack by gradients breaks",
            )


def _transfer_better(evidence: Evidence) -> Iterator[Found]:
    yield from _only_transfer(evidence, _MASKED)


def _transfer_helps(evidence: Evidence) -> Iterator[Found]:
    masked = {found.place for found in _only_transfer(evidence, _MASKED)}
    yield from (found for found in _only_transfer(evidence, POINT) if found.place not in masked)


def _only_transfer(evidence: Evidence, allowed: float) -> Iterator[Found]:
    """Where images that were made against another victim break more than `allowed` that no attack by the
    victim's own gradients does: of several such, those that break most."""
    tried: dict[tuple[str, str, float], list[Cell]] = {}
    for cell in evidence.transfers:
        if not cell.targeted:
            tried.setdefault((cell.victim_id, cell.norm, cell.epsilon), []).append(cell)
    names = ("victim_id", "attack", "attack_options", "norm", "epsilon")
    oblivious = {tuple(cell.values[name] for name in names) for cell in evidence.cells if not cell.adaptive}
    found: list[tuple[Cell, Cell, int, int]] = []
    for cells in evidence.points:
        white = [cell for cell in cells if cell.kind.white_box]
        here = tried.get((cells[0].victim_id, cells[0].norm, cells[0].epsilon), ())
        if not any(cell.kind.iterative for cell in white) or not here:
            continue
        broken, right = _any_of(white)
        best = max(white, key=lambda cell: int(cell.successes))
        for transfer in here:
            if transfer.same_network and tuple(transfer.values[name] for name in names) in oblivious:
                continue  # that is what `oblivious_better` compares
            both = _both(right, transfer.right)
            missed = both & ~broken[: len(both)]
            only = int((transfer.broken[: len(both)] & missed).sum())
            found.append((transfer, best, only, int(both.sum())))
    significant = holm([binomial_tail(only, n, allowed) for _, _, only, n in found], ALPHA)
    most: dict[Place, tuple[Cell, int, int]] = {}
    for (transfer, best, only, n), sure in zip(found, significant, strict=True):
        if sure and only > allowed * n and only > most.get(best.place, (None, 0, 0))[1]:
            most[best.place] = transfer, only, n
    for place, (transfer, only, n) in most.items():
        own = ("model", "model_options", "defence", "seed")
        source = evidence.placed.model(
            {name: transfer.values[f"source_{name}"] for name in own}
            | {"victim_id": transfer.source_id, "dataset": transfer.dataset}
        )
        yield Found(
            place,
            only / n,
            allowed,
            f"images that {transfer.named} made against {source} (seed {transfer.source_seed}) break "
            f"{only:,} of {n:,} examples ({100 * only / n:.1f}%) that no attack by the victim's own "
            "gradients breaks",
        )


def _any_of(cells: Sequence[Cell]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where any of them broke an example, and where all of them were to."""
    length = min(len(cell.right) for cell in cells)
    broken = np.any([cell.broken[:length] for cell in cells], axis=0)
    return broken, np.all([cell.right[:length] for cell in cells], axis=0)


def _both(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    length = min(len(one), len(other))
    return one[:length] & other[:length]


def _oblivious_better(evidence: Evidence) -> Iterator[Found]:
    """Gradients through a defence that lead worse than those without it do not lead where they should."""
    names = ("victim_id", "attack", "attack_options", "norm", "epsilon", "targeted")
    kinds: dict[tuple[Any, ...], dict[bool, Cell]] = {}
    for cell in evidence.cells:
        if cell.epsilon > 0:
            kinds.setdefault(tuple(cell.values[name] for name in names), {})[cell.adaptive] = cell
    pairs = [Pair.of(both[False], both[True]) for both in kinds.values() if len(both) == 2]
    for pair in clearly_ahead(pairs, _LOST):
        yield Found(
            pair.other.place,
            pair.gain,
            _LOST,
            f"of {pair.n:,} examples {pair.other.named} breaks {pair.only_one:,} only with gradients of "
            f"the undefended network, and {pair.only_other:,} only with those of the victim as defended",
        )


def _noise_as_good(evidence: Evidence) -> Iterator[Found]:
    """Where noise breaks anything to speak of, a search breaks far more; where neither does, who knows."""
    for cells in evidence.points:
        for noise in (cell for cell in cells if cell.kind.name == "noise"):
            for cell in cells:
                if not (cell.kind.iterative or cell.kind.black_box):
                    continue
                pair = Pair.of(noise, cell)
                broken = int((_both(noise.broken, cell.right)).sum())
                enough = broken >= max(_NOISE_EXAMPLES, _NOISE_BREAKS * pair.n)
                if not enough or cell.robust <= _FLOOR * cell.correct or not pair.only_one:
                    continue
                if mcnemar(pair.only_other, pair.only_one) > _ONE_SIDED:
                    yield Found(
                        cell.place,
                        pair.only_other / pair.n,
                        pair.only_one / pair.n,
                        f"noise breaks {broken:,} of {pair.n:,} examples, {pair.only_one:,} of which "
                        f"{cell.named} does not; it breaks no more than {pair.only_other:,} others",
                    )


def _farther_than_deepfool(evidence: Evidence) -> Iterator[Found]:
    """The first step to the boundary bounds what a search for the nearest image should come to."""
    runs: dict[str, dict[str, list[Cell]]] = {}
    for cells in evidence.runs:
        if cells[0].minimum_norm and cells[0].norm == "l2" and cells[0].searched:
            runs.setdefault(cells[0].victim_id, {}).setdefault(cells[0].kind.name, []).append(cells[-1])
    for found in runs.values():
        near = [cell.median_nearest for cell in found.get("deepfool", ()) if _has_median(cell)]
        for cell in (one for name in ("carlini_wagner", "ddn") for one in found.get(name, ())):
            if near and _has_median(cell) and cell.median_nearest > _FARTHER * min(near):
                yield Found(
                    cell.of_attack,
                    cell.median_nearest,
                    min(near),
                    f"the median distance of {cell.named} is {cell.median_nearest:.4g}, and deepfool's "
                    f"{min(near):.4g}",
                )


def _has_median(cell: Cell) -> bool:
    return cell.median_nearest is not None and np.isfinite(cell.median_nearest) and cell.correct >= _ENOUGH


def _catastrophic(evidence: Evidence) -> Iterator[Found]:
    for cells in evidence.points:
        iterative = [cell for cell in cells if cell.kind.iterative and cell.done]
        for fgsm in (cell for cell in cells if cell.kind.name == "fgsm" and cell.done and iterative):
            best = min(iterative, key=lambda cell: float(cell.robust / cell.n))
            clean = fgsm.correct / fgsm.n
            single, searched = fgsm.robust / fgsm.n, best.robust / best.n
            if clean and single >= _OVERFIT_FGSM * clean and searched <= _OVERFIT_BELOW * clean:
                yield Found(
                    fgsm.place,
                    single - searched,
                    (_OVERFIT_FGSM - _OVERFIT_BELOW) * clean,
                    f"fgsm leaves {100 * single:.1f}% where {best.named} leaves {100 * searched:.1f}%",
                )


def _clean_differs(evidence: Evidence) -> Iterator[Found]:
    """All attacks on a victim meet the same clean images, so they must find it right on the same."""
    first: dict[str, Cell] = {}
    done: set[tuple[str, str]] = set()
    for cell in evidence.cells:
        if not cell.done:  # where it has no rows it is right nowhere
            continue
        reference = first.setdefault(cell.victim_id, cell)
        one, other = (each.right for each in (reference, cell))
        length = min(cell.n, reference.n)
        differing = int((one[:length] != other[:length]).sum())
        if differing >= 2 and differing > 0.002 * length and (cell.victim_id, cell.attack_id) not in done:
            done.add((cell.victim_id, cell.attack_id))
            yield Found(
                cell.of_attack,
                differing / length,
                0.002,
                f"{differing:,} of {length:,} clean images are right in one attack and wrong in another: "
                f"{cell.named} and {reference.named}",
            )


RULES = (
    Rule(
        name="weaker_than_fgsm",
        severity="suspicious",
        meaning="an iterative attack that breaks less than a single step: it gets lost, or is blind",
        advice="give it more steps, or smaller ones; compare with standard",
        find=_weaker_than_fgsm,
    ),
    Rule(
        name="black_box_better",
        severity="suspicious",
        meaning="an attack without gradients breaks what no attack by gradients does: they are masked",
        advice="read the worst case over all attacks, and take it for an upper bound",
        find=_black_box_better,
    ),
    Rule(
        name="oblivious_better",
        severity="suspicious",
        meaning="an attack that is stronger with the undefended network's gradients than through the defence",
        advice="look at what the defence does to gradients: a surrogate may lead better; use square, and "
        "take the lower of the two numbers for an upper bound",
        find=_oblivious_better,
    ),
    Rule(
        name="transfer_better",
        severity="suspicious",
        meaning="images that were made against another victim break what no attack by the victim's own "
        "gradients does: they are masked",
        advice="read worst_case.robust_with_transfer, and take it for an upper bound; use square or standard",
        find=_transfer_better,
    ),
    Rule(
        name="noise_as_good",
        severity="suspicious",
        meaning="an attack that is no better than noise of the same size",
        advice="do not read its number: compare with standard",
        find=_noise_as_good,
    ),
    Rule(
        name="farther_than_deepfool",
        severity="suspicious",
        meaning="a search for the nearest image that ends farther away than DeepFool's few steps",
        advice="give it more steps, or more binary search",
        find=_farther_than_deepfool,
    ),
    Rule(
        name="clean_differs",
        severity="suspicious",
        meaning="clean images that are right in one attack's cells and wrong in another's",
        advice="look for answers that change between calls or devices; run the sweep on one kind of machine",
        find=_clean_differs,
    ),
    Rule(
        name="black_box_helps",
        severity="note",
        meaning="an attack without gradients breaks some that no attack by gradients does",
        advice="read the worst case over all attacks, or give those by gradients more steps",
        find=_black_box_helps,
    ),
    Rule(
        name="transfer_helps",
        severity="note",
        meaning="images that were made against another victim break some that no attack by the victim's own "
        "gradients does",
        advice="read worst_case.robust_with_transfer, or give the attacks on the victim itself more steps",
        find=_transfer_helps,
    ),
    Rule(
        name="catastrophic_overfitting",
        severity="note",
        meaning="robust to one step, not to several, as after training with single steps",
        advice="do not report robustness to fgsm",
        find=_catastrophic,
    ),
)
