"""What a shell offers behind a command: grids, output folders, names. Light: a key is being pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from orchestrator.store import OUTPUTS
from workers import layout

Offered = Callable[[str], list[str]]
"""What is offered for a word so far."""


def grids(incomplete: str) -> list[str]:
    """Shipped grids by name, and YAML files where the path so far leads."""
    shipped = (entry.name for entry in resources.files("grids").iterdir())
    names = [name.removesuffix(".yaml") for name in shipped if name.endswith(".yaml")]
    return _matching([*names, *_beside(incomplete, "*.yaml"), *_beside(incomplete, "*.yml")], incomplete)


def outputs(incomplete: str) -> list[str]:
    """Sweeps in `outputs/` by name, and output folders where the path so far leads."""
    names = (path.parent.name for path in Path(OUTPUTS).glob(f"*/{layout.RUNS}"))
    folders = (found.removesuffix(f"/{layout.RUNS}") for found in _beside(incomplete, f"*/{layout.RUNS}"))
    return _matching([*names, *folders], incomplete)


def cleanable(incomplete: str) -> list[str]:
    """What `clean` takes: the cache of victims, or an output folder."""
    return _matching(["victims", *outputs(incomplete)], incomplete)


def one_of(names: Iterable[str]) -> Offered:
    """The names of a registry."""

    def offered(incomplete: str) -> list[str]:
        return _matching(names, incomplete)

    return offered


def _beside(incomplete: str, pattern: str) -> list[str]:
    """Paths, written as the one so far is, that match a pattern in the folder that it leads to."""
    before, slash, _ = incomplete.rpartition("/")
    folder = Path(before + slash).expanduser()
    return [f"{before}{slash}{path.relative_to(folder)}" for path in folder.glob(pattern)]


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
