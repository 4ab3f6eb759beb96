"""What may go: from the cache of victims, and from an output folder. Nothing that counts goes unasked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple

from orchestrator.errors import StoreError, UserError
from orchestrator.run.status import live_runs
from orchestrator.store.locate import existing_output
from workers.storage import Folder
from workers.victims.cache import CacheEntry, VictimCache

DEFAULT_CACHE = "outputs/victims"
_GRACE = 3600.0  # seconds: what is younger may still be in the making


class Removal(NamedTuple):
    """Files to remove together, in order."""

    what: str
    why: str
    folder: Folder
    files: tuple[str, ...]
    size: int  # bytes


def cached_victims(cache_dir: str | None) -> list[CacheEntry]:
    """The entries of a cache of victims; UserError when there is none at that place."""
    return VictimCache(_cache_folder(cache_dir)).entries()


def removable_victims(cache_dir: str | None, patterns: Sequence[str]) -> list[Removal]:
    """Entries whose victim id matches a pattern such as "resnet50_v2-*", and trainings that could go on;
    without patterns, what no sweep can use: broken entries, and weights, trainings of what is there and
    temporary files that were never finished."""
    folder = _cache_folder(cache_dir)
    entries = VictimCache(folder).entries()
    trainings = {
        victim_id: Removal(victim_id, "a training that was not ended", folder, (name,), size)
        for victim_id, name, size in VictimCache(folder).trainings()
    }
    if patterns:
        known = {one.victim_id for one in entries} | trainings.keys()
        missing = [pattern for pattern in patterns if not any(fnmatchcase(one, pattern) for one in known)]
        if missing:
            raise UserError(
                f"no victim in the cache matches {', '.join(missing)}; robustsweep list victims shows them"
            )
        chosen = {one for one in known if any(fnmatchcase(one, pattern) for pattern in patterns)}
        return [
            *(
                Removal(one.victim_id, "asked for", folder, one.files, one.size)
                for one in entries
                if one.victim_id in chosen
            ),
            *(one for victim_id, one in trainings.items() if victim_id in chosen),
        ]
    latest = datetime.now(UTC) - timedelta(seconds=_GRACE)
    useless = [
        one
        for one in entries
        if one.state == "broken" or (one.state == "unfinished" and one.changed_at < latest)
    ]
    through = {one.victim_id for one in entries if one.state == "whole"}
    return [
        *(Removal(one.victim_id, one.state, folder, one.files, one.size) for one in useless),
        *(one for victim_id, one in trainings.items() if victim_id in through),
        *_leftovers(folder),
    ]


def removable_output(output: str) -> list[Removal]:
    """Files of an output folder that count for nothing: shards set aside, shards whose rows are all stored
    in others too (as when two runs computed them), temporary files left by a crash.

    What cannot be read now is left alone, as it may be whole; so is what a later robustsweep wrote. Of a file
    that shards were merged into, all have to be useless. Those that were merged are `compact`'s to remove,
    which looks first whether they lie where they were merged into.

    UserError while a run is writing to it.
    """
    store = existing_output(output)
    if runs := live_runs(store):
        raise UserError(f"run {runs[0].run_id} on {runs[0].host} is writing to {output}; wait for it")
    if store.shards.is_link():
        raise UserError(
            f"{output}/shards is a link: what lies behind it is not removed; clean that place itself"
        )
    accepted = store.accepted_shards()
    sizes = {store.shards.relative(file.path): file.size for file in store.shards.files(recursive=True)}
    useless = {one.name: one.reason for one in accepted.set_aside if not one.later}
    useless |= {one.name: "its rows are stored twice" for one in accepted.twice}
    read: dict[str, list[str]] = {
        name: [name] for name in useless.keys() - {one.name for one in accepted.infos}
    }
    for info in accepted.infos:
        read.setdefault(info.path, []).append(info.name)
    return [
        *(
            Removal(f"shards/{file}", useless[names[0]], store.shards, (file,), sizes.get(file, 0))
            for file, names in sorted(read.items())
            if all(name in useless for name in names) and not _through_a_link(store.shards, file)
        ),
        *_leftovers(store.folder),
    ]


def remove(removals: Sequence[Removal]) -> None:
    """Remove files for good; one that is gone already is no error."""
    for removal in removals:
        for name in removal.files:
            try:
                removal.folder.delete(name)
            except FileNotFoundError:
                continue


def _through_a_link(folder: Folder, name: str) -> bool:
    """Whether one of the folders on the way to a file leads elsewhere, where nothing is ours to remove."""
    parts = name.split("/")[:-1]
    return any(folder.is_link("/".join(parts[: i + 1])) for i in range(len(parts)))


def _leftovers(folder: Folder) -> list[Removal]:
    return [
        Removal(name := folder.relative(file.path), "left behind by a crash", folder, (name,), file.size)
        for file in folder.leftovers(older_than=_GRACE)
        if not _through_a_link(folder, folder.relative(file.path))
    ]


def _cache_folder(cache_dir: str | None) -> Folder:
    location = cache_dir or DEFAULT_CACHE
    try:
        folder = Folder.at(location)
    except ValueError as error:
        raise StoreError(str(error)) from None
    if not folder.exists():
        raise UserError(f"no cache of victims at {location}; --cache-dir says where it is")
    return folder
