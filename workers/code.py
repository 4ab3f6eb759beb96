"""Which code a process runs: a driver and its workers must agree on it, since it decides every number."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("tensorflow", "keras", "numpy")
_NAMED = 3  # files that differ are named, so many at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The version, the source of `workers`, and the libraries that decide the bits of a result."""

    version: str
    source: str  # SHA-256 over `files`
    files: tuple[tuple[str, str], ...] = ()  # (path below `workers`, SHA-256), sorted
    libraries: tuple[tuple[str, str], ...]  # (name, version)

    def differences(self, other: Code) -> list[str]:
        """In words, this one's first: "tensorflow 2.20.0, not 2.21.0"; empty where they agree."""
        found = []
        if self.version != other.version:
            found.append(f"robustsweep {self.version}, not {other.version}")
        if self.source != other.source:
            files = sorted({name for name, _ in set(self.files) ^ set(other.files)})
            more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
            named = f": {', '.join(files[:_NAMED])}{more}" if files else ""
            found.append(f"other source files ({self.source[:8]}, not {other.source[:8]}{named})")
        theirs = dict(other.libraries)
        found += [
            f"{name} {version}, not {theirs.get(name, 'any')}"
            for name, version in self.libraries
            if version != theirs.get(name)
        ]
        return found


@cache
def this_code() -> Code:
    """The code of this process; nothing of it is imported for that."""
    return code_in(Path(__file__).parent)


def code_in(folder: Path) -> Code:
    """The code of a process whose package `workers` lies in a folder.

    A preflight sends this function, as it is here, to machines whose own may be another.
    """
    files = tuple(
        (file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(folder.rglob("*.py"))
    )
    version = folder / "version.py"
    declared = re.search(r'^VERSION = "(.*)"', version.read_text(), re.M) if version.is_file() else None
    return Code(
        version=declared[1] if declared else "of no version",
        source=hashlib.sha256("".join(f"{name} {sha256}\n" for name, sha256 in files).encode()).hexdigest(),
        files=files,
        libraries=tuple((name, _version(name)) for name in _LIBRARIES),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
