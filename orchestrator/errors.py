"""Errors that a person can mend. The command line prints their message and exits with their code.

UserError
├── GridError      what is wrong with a grid, all of it at once
├── StoreError     an output folder that cannot be used as asked
├── QueryError     SQL that is not one SELECT over the views
├── OptionError    options of a call from Python; a ValueError too
├── ChoiceError    options of a command, which calls from Python turn into the former
├── LibraryError   a library that is not installed; an ImportError too
└── BackendError   the machine or the cluster cannot give what was asked for
    └── ClusterLostError   a cluster that was joined is no more
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """Bad input; the message names what was found, where, and what is allowed."""

    exit_code = 2


class StoreError(UserError):
    """An output folder that cannot be used as asked."""


class QueryError(UserError):
    """SQL that is not one SELECT over the views, or that DuckDB refuses."""


class OptionError(UserError, ValueError):
    """Options of a call from Python: what was found, and what is allowed."""


class ChoiceError(UserError):
    """What is asked for by an option of a command, or by the argument of that name of a call from Python."""

    def __init__(self, option: str, message: str, *, argument: str = "") -> None:
        """`message` is what follows the name; `argument` is that of a call, where it is called otherwise."""
        super().__init__(f"--{option}{message}")
        self.argument = f"{argument or option}={message}"


@contextmanager
def arguments() -> Iterator[None]:
    """Errors of options as those of a call from Python: OptionError, of `attack=` rather than `--attack`."""
    try:
        yield
    except ChoiceError as error:
        raise OptionError(error.argument) from None


class LibraryError(UserError, ImportError):
    """A library that something optional needs is not installed."""


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
    given: str = ""  # the key=value of the --set that it came from

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else f'--set "{self.given}": ' if self.given else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class GridError(UserError):
    """Everything that is wrong with a grid."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


def did_you_mean(word: object, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """`did you mean "fgsm"? ` for a near miss among the names, else an empty text.

    It goes before the list of what is allowed, which can be long. `aliases` are as of `nearest`.
    """
    near = nearest(word, names, aliases)
    return f'did you mean "{near}"? ' if near else ""


def nearest(word: object, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> str | None:
    """The name that a word most likely stands for, if any.

    One spelt alike but for case, "-", "_" and spaces; else one that is also known by that word (`aliases`:
    such a word, squeezed, to a name); else one spelt nearly so.
    """
    names = list(names)
    squeezed = {squeeze(name): name for name in names}
    other = (aliases or {}).get(squeeze(word))
    if found := squeezed.get(squeeze(word)) or (other if other in names else None):
        return found
    lower = {name.lower(): name for name in reversed(names)}
    near = get_close_matches(str(word).lower(), list(lower), n=1, cutoff=0.6)
    return lower[near[0]] if near else None


def squeeze(word: object) -> str:
    """A word without case, "-", "_", "&" and spaces: ResNet-50 V2 and resnet50_v2 are one."""
    return re.sub(r"[-_&\s]", "", str(word).lower())
