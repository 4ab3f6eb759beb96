"""The defences a victim can carry: what a grid's `defences:` may name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """A defence by name; `version` is raised whenever it changes results."""

    name: str
    version: int


def _registry(*defences: Defence) -> dict[str, Defence]:
    return {defence.name: defence for defence in defences}


DEFENCES: dict[str, Defence] = _registry(
    Defence(name="none", version=1),
)
