"""One entry of a grid's `defences:`."""

from __future__ import annotations

from typing import Any

from orchestrator.grid.checker import Checker
from orchestrator.grid.entries import DefenceEntry, options_text
from workers.defences import DEFENCES
from workers.unit import DefenceSpec


def parse_defence(check: Checker, raw: Any) -> DefenceEntry | None:
    """A registered name, or a mapping with one and options; null is none. None, with the problems noted,
    for anything else."""
    entry = check.named("none" if raw is None else raw, "defence", DEFENCES, own=())
    if entry is None:
        return None
    defence = DEFENCES[entry.pop("name")]
    checked = check.options(defence.options, entry, f"defence {defence.name}")
    if checked is None:
        return None
    options, given = checked
    spec = DefenceSpec(name=defence.name, version=defence.version, options=options, shown=options_text(given))
    return DefenceEntry(spec=spec, given=given)
