"""Which code a process runs: a driver and its workers must agree on it, since it decides every number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from workers.version import VERSION

_LIBRARIES = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The version, a hash of the source of `workers`, and the libraries that decide the bits of a result."""

    version: str
    source: str  # SHA-256
    libraries: tuple[tuple[str, str], ...]  # (name, version)

    def differences(self, other: Code) -> list[str]:
        """In words, this one's first: "tensorflow 2.20.0, not 2.21.0"; empty where they agree."""
        found = []
        if self.version != other.version:
            found.append(f"robustsweep {self.version}, not {other.version}")
        if self.source != other.source:
            found.append(f"other source files ({self.source[:8]}, not {other.source[:8]})")
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
    return Code(
        version=VERSION,
        source=_source_hash(Path(__file__).parent),
        libraries=tuple((name, _version(name)) for name in _LIBRARIES),
    )


def _source_hash(folder: Path) -> str:
    """Over the names and texts of all Python files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        text = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
