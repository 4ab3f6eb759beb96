"""Exact tests of counts, so that a difference which chance explains is taken for none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def binomial_tail(successes: int, trials: int, share: float = 0.5) -> float:
    """The probability of at least so many successes in so many trials that each succeed with `share`."""
    if successes <= 0:
        return 1.0
    k = np.arange(successes, trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    terms = logs[trials] - logs[k] - logs[trials - k] + k * np.log(share) + (trials - k) * np.log1p(-share)
    return min(1.0, float(np.exp(terms).sum()))


def mcnemar(more: int, fewer: int) -> float:
    """The exact one-sided McNemar test (McNemar, 1947; its exact form is a sign test).

    The probability of `more` or more among the examples that only one of two breaks, or answers rightly, if
    either were as likely to be that one.
    """
    return binomial_tail(more, more + fewer)


def holm_adjusted(probabilities: Sequence[float]) -> list[float]:
    """Probabilities after Holm's correction (Holm, 1979): those of at most alpha are significant together."""
    found = [0.0] * len(probabilities)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        highest = max(highest, min(1.0, probabilities[i] * (len(probabilities) - rank)))
        found[i] = highest
    return found


def holm(probabilities: Sequence[float], alpha: float) -> list[bool]:
    """Which of several tests are significant together, any by chance with `alpha` (Holm, 1979)."""
    return [probability <= alpha for probability in holm_adjusted(probabilities)]
