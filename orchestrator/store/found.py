"""What the files among the shards hold: one shard each, or the many that `compact` has merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.store.merged import read_merged
from workers.shards import ShardInfo, check_rows, open_footer, shard_of
from workers.storage import Folder


class Found(NamedTuple):
    """A file among the shards, and what its footer says that it holds."""

    file: str  # below the output folder's `shards/`
    size: int
    mtime_ns: int
    shards: tuple[ShardInfo, ...]
    generation: int = 0  # how often, at the most, some of it was merged; 0 is a shard by itself

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of two files that hold the same shard, the one of higher rank has it.

        None of it ever changes, so that everybody decides alike, and no two who tidy up at once can each
        remove what the other goes by: a file is removed only where all of it is in higher ones.
        """
        return self.generation, len(self.shards), self.file


class Superseded(NamedTuple):
    """A file whose shards all lie in others too, which have them now."""

    found: Found
    by: tuple[str, ...]  # those files
    since: int  # when the last of them was written, in ns since the epoch


def read_file(shards: Folder, name: str, *, size: int, mtime_ns: int) -> Found:
    """What a file among the shards holds, by its footer and, of a shard by itself, which rows there are.

    InvalidShardError, OSError: as `workers.shards.read_footer`.
    """
    parquet = open_footer(shards, name, size=size)
    if merged := read_merged(parquet, name):
        return Found(name, size, mtime_ns, merged.members, merged.generation)
    info = shard_of(parquet, name=name, size=size, mtime_ns=mtime_ns)
    check_rows(shards, info, parquet)
    return Found(name, size, mtime_ns, (info,))


def at_home(found: Sequence[Found]) -> tuple[list[ShardInfo], list[Superseded]]:
    """Each shard once, in the file that has it, and the files that have none."""
    home: dict[str, Found] = {}
    where: dict[str, ShardInfo] = {}
    if not any(one.generation for one in found):
        return [shard for one in found for shard in one.shards], []
    for one in sorted(found, key=lambda one: one.rank):
        for shard in one.shards:
            home[shard.name], where[shard.name] = one, shard
    if len(where) == sum(len(one.shards) for one in found):
        return list(where.values()), []
    superseded = []
    for one in found:
        homes = {home[shard.name].file: home[shard.name] for shard in one.shards}
        if one.file not in homes:
            since = max(each.mtime_ns for each in homes.values())
            superseded.append(Superseded(one, tuple(sorted(homes)), since))
    return list(where.values()), superseded
