"""A job of a Ray cluster that runs already: a working folder, which Ray brings to all machines."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.run.backends.shipping import pack_job
from orchestrator.submit.request import Request

_MARK = ".robustsweep-job"  # a folder that has it is ours to replace


def write_folder(request: Request, folder: str) -> None:
    """Fill a working folder anew: robustsweep's own source, the grid, and the modules that it names.

    UserError where the folder is there and was not made by this; BackendError for what cannot be shipped.
    """
    root = Path(folder).expanduser()
    if root.exists():
        if not (root / _MARK).exists():
            raise UserError(f"--out: {folder} is there, and no job's folder: another name is allowed")
        shutil.rmtree(root)
    try:
        root.mkdir(parents=True)
        (root / _MARK).touch()
    except OSError as error:
        raise UserError(f"--out: cannot write {folder}: {error.strerror or error}") from None
    apart = [place for place in (request.output, request.cache, request.data, folder) if place]
    pack_job(root, request.file, request.factories, request.python_path, apart)


def submission(request: Request, folder: str, address: str | None) -> list[str]:
    """The command that hands the job in; without an address it goes where Ray's own variables say."""
    grid = request.file.name if request.file else request.grid
    where = ["--address", address] if address else []
    run = shlex.split(request.command(grid))[1:]
    return [
        *("ray", "job", "submit", *where, "--no-wait", "--working-dir", folder, "--"),
        *("python", "-m", "robustsweep", *run, "--address", "auto"),
    ]
