"""Errors that a person can mend. The command line prints their message and exits with their code.

UserError
├── GridError      what is wrong with a grid, all of it at once
├── StoreError     an output folder that cannot be used as asked
├── QueryError     SQL that is not one SELECT over the views
└── BackendError   the machine or the cluster cannot give what was asked for
    └── ClusterLostError   a cluster that was joined is no more
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """Bad input; the message names what was found, where, and what is allowed."""

    exit_code = 2


class StoreError(UserError):
    """An output folder that cannot be used as asked."""


class QueryError(UserError):
    """SQL that is not one SELECT over the views, or that DuckDB refuses."""


class BackendError(UserError):
    """The machine or the cluster cannot give what was asked for."""


class ClusterLostError(BackendError):
    """A cluster that was joined is no more; the same command resumes once there is one again."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a grid: where it stands and what is allowed there."""

    path: str  # "attacks[1].steps"
    message: str
    line: int | None = None  # 1-based; None for what came from --set or is not in the file at all

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class GridError(UserError):
    """Everything that is wrong with a grid."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


def did_you_mean(word: object, allowed: Iterable[str]) -> str:
    """`; did you mean "fgsm"?` for a near miss, else an empty text."""
    near = get_close_matches(str(word).lower(), list(allowed), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
