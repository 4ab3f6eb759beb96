"""How `compact` says what it would do with folders, and what it has done."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from orchestrator.store.compacting import Compacted, Compaction
from orchestrator.store.found import Superseded


def plan(console: Console, name: str, found: Compaction) -> None:
    """What `compact` would do with a folder."""
    files = [one for group in found.groups for one in group.files]
    said = []
    if files:
        size = sum(one.size for one in files)
        gone = "" if found.grace > 0 else " and remove them"
        said.append(f"would merge {_files(len(files), size)} into about {len(found.groups):,}{gone}")
    if found.removable:
        said.append(f"would remove {_superseded(found.removable)} merged before")
    if found.waiting:
        said.append(f"{_superseded(found.waiting)} merged before stay for now")
    console.print(escape(f"{name}: {'; '.join(said) or _NOTHING_TO_MERGE}"), highlight=False, soft_wrap=True)


def done(console: Console, name: str, found: Compacted) -> None:
    """What `compact` has done with a folder."""
    said = []
    if found.merged:
        size = decimal(sum(size for _, size in found.into))
        said.append(f"merged {_files(found.merged, found.merged_bytes)} into {len(found.into):,} ({size})")
    if found.removed:
        said.append(f"removed {_files(found.removed, found.removed_bytes)} that had been merged")
    if found.waiting:
        files = _files(found.waiting, found.waiting_bytes)
        said.append(
            f"{files} that have been merged stay for who is reading them: the same command removes them once "
            "the grace is over"
        )
    console.print(escape(f"{name}: {'; '.join(said) or _NOTHING_TO_MERGE}"), highlight=False, soft_wrap=True)


_NOTHING_TO_MERGE = "nothing to merge"


def _files(count: int, size: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'} ({decimal(size)})"


def _superseded(some: Sequence[Superseded]) -> str:
    return _files(len(some), sum(one.found.size for one in some))
