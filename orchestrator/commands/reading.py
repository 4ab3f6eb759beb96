"""The sweeps that a command is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.console import saying, warn

if TYPE_CHECKING:
    from orchestrator.results.schemas import Results


def read(outputs: list[str]) -> list[Results]:
    with saying("reading shards"):
        from orchestrator.store.locate import existing_outputs, read_results

        results, warnings = read_results(existing_outputs(outputs))
    warn(warnings)
    return results
