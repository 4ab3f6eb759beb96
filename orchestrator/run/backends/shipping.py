"""What workers on other machines need and may lack: our own source, the user's modules, what else is named.

All of it is copied into one folder, which Ray brings to every machine and makes the working folder of every
worker there. Our packages come first on their path then, whatever else a machine has under these names.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import BackendError
from workers import factories
from workers.unit import WorkerSettings

OURS = ("workers", "orchestrator", "grids", "robustsweep")
_PLACES = "places"
_MOST_BYTES = 200 * 10**6  # Ray keeps packages in the memory of the head, and takes 500 MB at the most


@dataclass(frozen=True, slots=True)
class Shipment:
    """A folder to be brought to every machine."""

    folder: Path
    python_path: tuple[str, ...]  # where the user's modules are in it, relative to it


def owned_by_job() -> bool:
    """Whether this process was started as a job of Ray's, which has its own way to bring code to machines."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def packed(settings: WorkerSettings, ship: Collection[str]) -> Iterator[Shipment]:
    """Everything in one folder, for as long as this lasts. BackendError for what cannot be shipped.

    Outputs, the cache of victims and the data stay out, and so does what tools leave behind. The user's
    modules lie apart, since only modules that a grid names are checked for names that are taken.
    """
    with tempfile.TemporaryDirectory(prefix="robustsweep-ship-") as name:
        root = Path(name)
        packer = _Packer(apart={Path(place).resolve() for place in _folders(settings)})
        packer.copy_ours(root)
        path = []
        for place, sources in _needed(settings.factories, settings.python_path).items():
            below = f"{_PLACES}/{settings.python_path.index(place)}"
            path.append(below)
            for source in sources:
                packer.copy(source, root / below / source.name)
        for given in ship:
            source = Path(given).expanduser().resolve()
            target = _name(source)
            if target.parts[0] in (*OURS, _PLACES):
                raise BackendError(f"--ship {given}: its name is taken by robustsweep's own: rename it")
            packer.copy(source, root / target)
            module = source.suffix == ".py" or (source / "__init__.py").is_file()
            if module and target.parent != Path():  # what lies in the working folder itself is found anyway
                path.append(target.parent.as_posix())
        yield Shipment(root, tuple(dict.fromkeys(path)))


def pack_job(
    root: Path, grid: Path | None, named: Collection[str], python_path: Sequence[str], apart: Collection[str]
) -> None:
    """Fill the working folder of a job that runs a grid: our packages, the file, and beside it the modules
    that it names. BackendError for what cannot be shipped, and for two modules of one name."""
    packer = _Packer(apart={Path(place).resolve() for place in apart})
    packer.copy_ours(root)
    if grid:
        packer.copy(grid, root / grid.name)
    for sources in _needed(named, python_path).values():
        for source in sources:
            if (root / source.name).exists():
                raise BackendError(f"cannot ship {source}: its name is taken in the working folder of a job")
            packer.copy(source, root / source.name)


def _needed(named: Collection[str], python_path: Sequence[str]) -> dict[str, list[Path]]:
    """The user's modules that are to be shipped, by the places where they were found, in order."""
    try:
        needed = factories.needed(named, python_path, but=OURS)
    except ValueError as error:
        raise BackendError(f"cannot ship {error}") from None
    return {place: sorted(needed[place]) for place in python_path if needed.get(place)}


def _folders(settings: WorkerSettings) -> list[str]:
    """Local folders that are never shipped: they are the same storage everywhere."""
    return [
        place
        for place in (settings.output, settings.cache, settings.data_dir)
        if place is not None and "://" not in place
    ]


def _name(source: Path) -> Path:
    """Below the working folder as here, so that one relative path is right on all machines; else its name."""
    here = Path.cwd()
    return source.relative_to(here) if source != here and source.is_relative_to(here) else Path(source.name)


class _Packer:
    """Copies files and folders, as long as they are not too many bytes; never what lies `apart`."""

    def __init__(self, apart: Collection[Path]) -> None:
        self.apart = apart
        self.bytes = 0

    def copy_ours(self, root: Path) -> None:
        for package in OURS:
            spec = importlib.util.find_spec(package)
            for folder in (spec.submodule_search_locations or []) if spec else []:
                self.copy(Path(folder), root / package)

    def copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            self._copy_file(str(source), str(target))
        else:
            shutil.copytree(
                source, target, ignore=self._left_out, copy_function=self._copy_file, dirs_exist_ok=True
            )

    def _left_out(self, folder: str, names: list[str]) -> set[str]:
        return {name for name in names if not self._wanted(Path(folder, name))}

    def _wanted(self, path: Path) -> bool:
        """Not what tools leave beside code; a `.gitignore` would decide what Ray takes."""
        tools = path.name.startswith(".") or path.name == "__pycache__" or (path / "pyvenv.cfg").exists()
        return not tools and (path.is_file() or path.is_dir()) and path.resolve() not in self.apart

    def _copy_file(self, source: str, target: str) -> None:
        size = os.stat(source).st_size
        self.bytes += size
        if self.bytes > _MOST_BYTES:
            raise BackendError(
                f"what workers on other machines need is more than {_MOST_BYTES / 1e6:.0f} MB, which was "
                f"reached at {source} ({size / 1e6:,.1f} MB): large files belong on storage that all "
                "machines share"
            )
        shutil.copyfile(source, target)
