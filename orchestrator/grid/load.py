"""A grid from a file, or a shipped one by its bare name, with `--set` applied: checked as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import GridError, Problem, UserError, nearest
from orchestrator.grid.document import Document, parse_yaml, read_yaml
from orchestrator.grid.entries import Grid
from orchestrator.grid.parse import parse_grid


def shipped_grids() -> dict[str, str]:
    """The grids that come with robustsweep: bare name -> YAML text."""
    folder = resources.files("grids")
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in files if f.name.endswith(".yaml")}


def load_grid(location: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Grid:
    """Read and check a grid, or a mapping that is what its file would hold.

    GridError lists every problem; nothing has run by then.
    """
    if isinstance(location, Mapping):
        return _grid(_written(location), "the grid", "grid", overrides, None)
    document, source, folder = _read(location)
    default_name = Path(location).stem if re.search(r"\.ya?ml$", location) else location
    return _grid(document, source, default_name, overrides, folder)


def grid_of_text(text: str, source: str, overrides: Sequence[str] = ()) -> Grid:
    """A grid as an output folder keeps it, named `source` in messages; it says its name. GridError.

    Paths, and modules of factories, are looked for from the working folder.
    """
    return _grid(parse_yaml(text, source), source, "grid", overrides, None)


def _grid(
    document: Document, source: str, default_name: str, overrides: Sequence[str], folder: str | None
) -> Grid:
    problems: list[Problem] = []
    for override in overrides:
        _apply_override(document, override, problems)
    here = str(Path.cwd())
    python_path = (here,) if folder in (None, here) else (folder, here)
    return parse_grid(document, source, default_name=default_name, python_path=python_path, problems=problems)


def _read(location: str) -> tuple[Document, str, str | None]:
    """A grid, what to call it in messages, and its folder, absolute; a shipped grid's folder is nobody's."""
    path = Path(location).expanduser()
    if os.path.exists(path):
        return read_yaml(path), location, str(path.absolute().parent)
    shipped = shipped_grids()
    if location in shipped:
        return parse_yaml(shipped[location], f"grid {location}"), f"grid {location}", None
    if re.fullmatch(r"[\w-]+", location):
        what = f'no grid "{location}": neither a file here nor a shipped grid'
    else:
        what = f"no such file: {location}"
    # By its stem, as it would be typed: a file that lies where the missing one was looked for goes first.
    there = {file.stem: str(file) for file in sorted(path.parent.glob("*.y*ml"))}
    known = {**{name: name for name in shipped}, **there}
    near = nearest(re.sub(r"\.\w+$", "", path.name), known)
    hint = f'did you mean "{known[near]}"? ' if near else ""
    raise UserError(f"{what}; {hint}shipped grids: {', '.join(shipped)}")


def _written(grid: Mapping[str, Any]) -> Document:
    """A grid from Python, by way of its YAML, so that it means what it would mean in a file."""
    try:
        text = yaml.safe_dump(dict(grid), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        found = error.args[-1] if error.args else error
        kind = type(found).__name__
        message = f"found {found!r}, {kind}; texts, numbers, lists, dicts, True, False and None are allowed"
        raise GridError("the grid", [Problem("", message)]) from None
    document = parse_yaml(text, "the grid")
    document.lines.clear()  # of a text that nobody has seen
    return document


def _apply_override(document: Document, override: str, problems: list[Problem]) -> None:
    """Apply one `--set a.b.0=value`; the value is YAML. Its lines then belong to the command line."""
    key, equals, text = override.partition("=")
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in key.strip().split(".")]
    if not equals or not all(step != "" for step in steps):
        problems.append(Problem(f'--set "{override}"', "key=value is allowed, such as examples=100"))
        return
    try:
        value = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        problems.append(Problem(f'--set "{override}"', "the value is not valid YAML"))
        return
    target = document.data
    for step in steps[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(str(step), {})
        elif isinstance(target, list) and isinstance(step, int) and step < len(target):
            target = target[step]
        else:
            problems.append(Problem(f'--set "{override}"', f'the grid has nothing at "{step}" to set'))
            return
    last = steps[-1]
    if isinstance(target, dict):
        target[str(last)] = value
    elif isinstance(target, list) and isinstance(last, int) and last < len(target):
        target[last] = value
    else:
        problems.append(Problem(f'--set "{override}"', f'the grid has nothing at "{last}" to set'))
        return
    document.overridden.append((tuple(steps), override))
