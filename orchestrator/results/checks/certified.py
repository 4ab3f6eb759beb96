"""Rules that hold attacks against certificates of the same victim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.checks.evidence import ALPHA, Cell, Certificates, Evidence
from orchestrator.results.checks.rule import Found, Rule
from workers.statistics import holm

_DRAWS = 20
"""`workers.answers.DRAWS`, by which a victim that answers at random is scored; a test holds the two equal."""

_MOST = _DRAWS // 2 + 1  # of them make a success


def by_chance(radius: float, epsilon: float, sigma: float, alpha: float) -> float:
    """How likely a success within epsilon is at the most where a certificate reaches to `radius` > epsilon.

    The certificate is wrong with a probability of `alpha`. Where it is right, the class that is certified is
    still drawn with a probability of at least Phi((radius - epsilon) / sigma) at any image so near (Cohen et
    al., 2019, Theorem 1); so most of some draws may be of others all the same, the nearer to the radius the
    more easily.
    """
    other = 1 - NormalDist().cdf((radius - epsilon) / sigma)
    lost = sum(
        math.comb(_DRAWS, k) * other**k * (1 - other) ** (_DRAWS - k) for k in range(_MOST, _DRAWS + 1)
    )
    return min(1.0, alpha + (1 - alpha) * lost)


def tail(successes: int, chances: Sequence[float]) -> float:
    """The probability of so many successes or more, in independent trials of these chances."""
    fewer = np.zeros(max(successes, 1))  # of so many so far, but for `successes` and more
    fewer[0] = 1.0
    for chance in chances:
        fewer[1:] = fewer[1:] * (1 - chance) + fewer[:-1] * chance
        fewer[0] *= 1 - chance
    return 1.0 if successes == 0 else max(0.0, 1 - float(fewer.sum()))


def _inside_certificate(evidence: Evidence) -> Iterator[Found]:
    """Each cell by itself: its successes among the examples that are certified beyond its epsilon."""
    known = {each.victim_id: each for each in evidence.certificates}
    found: list[tuple[Cell, int, int, float]] = []
    for cell in (*evidence.cells, *evidence.transfers):
        if cell.norm != "l2" or cell.epsilon == 0 or cell.victim_id not in known:
            continue
        certified = known[cell.victim_id]
        at, broken = _inside(cell, certified)
        if not broken:
            continue
        chances = [
            by_chance(radius, cell.epsilon, certified.sigma, certified.alpha)
            for radius in certified.radii[: len(at)][at]
        ]
        found.append((cell, broken, len(chances), tail(broken, chances)))
    significant = holm([probability for *_, probability in found], ALPHA)
    for (cell, broken, n, _), sure in zip(found, significant, strict=True):
        if sure:
            yield Found(
                cell.place,
                broken / n,
                known[cell.victim_id].alpha,
                f"{cell.named} breaks {broken:,} of {n:,} examples that are certified beyond epsilon",
            )


def _inside(cell: Cell, certified: Certificates) -> tuple[NDArray[np.bool_], int]:
    """Where the cell was right and the certificate reaches beyond its epsilon, (P,); how many it broke."""
    length = min(len(cell.right), len(certified.radii))
    at = cell.right[:length] & (certified.radii[:length] > cell.epsilon)
    return at, int((cell.broken[:length] & at).sum())


RULES = (
    Rule(
        name="inside_certificate",
        severity="wrong",
        meaning="an attack succeeds where a certificate says that nothing can, more often than its alpha and "
        "the draws allow: one of the two numbers is wrong",
        advice="look for a network that answers otherwise in one process than in another, or that draws at "
        "random by itself; delete the victim's shards and run again",
        find=_inside_certificate,
        makes_up=True,
    ),
)
