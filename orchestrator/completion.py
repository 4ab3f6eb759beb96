"""What a shell offers behind a command: grids, output folders, names. Light: a key is being pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path

import typer

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


def parts(context: typer.Context, incomplete: str) -> list[str]:
    """What `--only` takes: keys, then the names that the grid of this command has."""
    before, comma, part = incomplete.rpartition(",")
    key, equals, _ = part.partition("=")
    if not equals:
        offered = [f"{key}=" for key in ("model", "dataset", "attack", "defence", "norm", "seed", "epsilon")]
    else:
        # An option that still lacks its value ends parsing before arguments have their names.
        grid = context.params.get("grid") or next(iter(context.args), "")
        offered = [f"{key}={name}" for name in _named(grid, f"{key}s")]
    return _matching((f"{before}{comma}{one}" for one in offered), incomplete)


def one_of(names: Iterable[str]) -> Offered:
    """The names of a registry."""

    def offered(incomplete: str) -> list[str]:
        return _matching(names, incomplete)

    return offered


def _named(grid: str, section: str) -> list[str]:
    """The names in a section of a grid as it is written, which may be half written."""
    import yaml

    with suppress(OSError, yaml.YAMLError):
        path = Path(grid).expanduser()
        text = path.read_text() if path.exists() else (resources.files("grids") / f"{grid}.yaml").read_text()
        document = yaml.safe_load(text)
        entries = document.get(section) if isinstance(document, dict) else None
        if isinstance(entries, list):
            names = (entry.get("name") if isinstance(entry, dict) else entry for entry in entries)
            return [name for name in names if isinstance(name, str)]
    return []


def _beside(incomplete: str, pattern: str) -> list[str]:
    """Paths, written as the one so far is, that match a pattern in the folder that it leads to."""
    before, slash, _ = incomplete.rpartition("/")
    folder = Path(before + slash).expanduser()
    return [f"{before}{slash}{path.relative_to(folder)}" for path in folder.glob(pattern)]


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
