"""What a queue is asked to run: a grid that is known to be sound, and options of `robustsweep run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from typer import TyperException
from typer.core import TyperCommand

from orchestrator.commands.groups import Running
from orchestrator.errors import UserError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.plan.cells import expand
from orchestrator.plan.only import select
from orchestrator.store import OUTPUTS
from workers.storage import redacted

_OURS = {
    "address": "the job has a cluster of its own",
    "backend": "a job runs on Ray",
    "dry_run": "`robustsweep plan` shows the plan",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A run of a grid, checked as far as can be without the machines that it is for."""

    name: str  # of the job: lower-case letters, digits and "-", at most 40 of them
    grid: str  # as the command line has it: a file, or a shipped grid's name
    file: Path | None  # of the grid; None for a shipped one
    factories: tuple[str, ...]  # that it names, whose modules must be wherever it runs
    python_path: tuple[str, ...]  # where these modules are
    output: str
    cache: str | None
    data: str | None
    arguments: tuple[str, ...]  # further options of `run`
    stops: bool  # after a while, whether everything is done by then or not

    def command(self, grid: str | None = None) -> str:
        """The `robustsweep run` of the job, for a shell, where the grid may lie elsewhere."""
        return shlex.join(["robustsweep", "run", grid or self.grid, *self.arguments])


def make_request(grid: str, arguments: Sequence[str], run: TyperCommand, *, ray_job: bool = False) -> Request:
    """A request for `robustsweep run GRID ARGUMENTS`, where `run` is that command; `ray_job`: as a job of Ray
    has it.

    UserError for options that `run` does not have, for those that are the job's to set, and for URIs with a
    key or a password, which a job's file would show; GridError for what is wrong with the grid.
    """
    try:
        given = run.make_context("run", [grid, *arguments])
    except TyperException as error:
        raise UserError(f"options of run, after --: {getattr(error, 'message', error)}") from None
    for name, why in _OURS.items():
        source = given.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise UserError(f"options of run, after --: found --{name.replace('_', '-')}; {why}")
    if ray_job and given.params["ship"]:
        raise UserError(
            "options of run, after --: found --ship, which has no meaning in a Ray job: what it needs is in "
            "its image or its working folder"
        )
    for word in (grid, *arguments):
        if redacted(word) != word:
            raise UserError(
                f"{redacted(word)}: a job's file can be read by others; leave keys and passwords to the "
                "environment, or to the storage's own configuration"
            )
    loaded = load_grid(grid, given.params["overrides"] or ())
    _check(loaded, given.params)
    name = re.sub(r"[^a-z0-9]+", "-", f"robustsweep-{loaded.name}".lower()).strip("-")[:40].rstrip("-")
    defences = [part.spec for defence in loaded.defences for part in defence.each]
    named = [
        *(model.factory for model in loaded.models),
        *(attack.factory for attack in loaded.attacks),
        *(defence.factory for defence in defences),
    ]
    path = Path(grid).expanduser()
    return Request(
        name=name,
        grid=grid,
        file=path if path.exists() else None,
        factories=tuple(filter(None, named)),
        python_path=loaded.python_path,
        output=given.params["output"] or f"{OUTPUTS}/{loaded.name}",
        cache=given.params["cache_dir"],
        data=given.params["data_dir"],
        arguments=tuple(arguments),
        stops=given.params["stop_after"] is not None,
    )


def _check(grid: Grid, given: Mapping[str, Any]) -> None:
    """UserError for what the run would not start with; only what lies on other machines is left to it."""
    running = Running(**{option.name: given[option.name] for option in fields(Running)})
    try:
        replace(running, address="auto").options(given["output"] or "", only=tuple(given["only"] or ()))
        if given["only"]:
            select(list(expand(grid)), given["only"], grid.pixel_range.width)
    except UserError as error:
        raise UserError(f"options of run, after --: {error}") from None


def write_job(text: str, file: str) -> None:
    """Write a job's file; UserError where that cannot be."""
    try:
        Path(file).expanduser().write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"--out: cannot write {file}: {error.strerror or error}") from None
