"""The files among the shards: listed as of one moment, and removed so that who lists them can tell."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from pyarrow import fs

from orchestrator.store.accepted import SetAside
from orchestrator.store.found import Found, read_file
from workers import layout
from workers.shards import InvalidShardError, LaterShardError
from workers.storage import READERS, Folder, first_line, redacted

_PAUSES = (0.2, 1.0)  # seconds before footers that could not be read are tried again

_File = tuple[str, int, int]
"""The name of a file below `shards/`, its size in bytes, and when it was written, in ns since the epoch."""


class Listed(NamedTuple):
    """What the files among the shards are."""

    found: list[Found]
    broken: list[SetAside]
    unreadable: list[SetAside]  # now
    fresh: int  # how many of `found` were not known before


def listed(output: Folder, known: Mapping[str, Found]) -> Listed:
    """List the shards of an output folder, and read the footers of those files that are not `known`."""
    shards = output.folder(layout.SHARDS)
    read: dict[_File, Found | SetAside] = {}
    vanished: set[_File] = set()
    while True:
        found: list[Found] = []
        unknown: list[_File] = []
        for file in _files(output, shards):
            name, size, mtime = shards.relative(file.path), file.size, file.mtime_ns or 0
            one = known.get(name)
            if one and one.size == size and one.mtime_ns == mtime:
                found.append(one)
            elif (name, size, mtime) not in vanished:
                unknown.append((name, size, mtime))
        unreadable, gone = _read(shards, [file for file in unknown if file not in read], read)
        if not gone:
            break
        vanished |= gone  # what has their rows was there before they went: it is in the next listing
    here = [read[file] for file in unknown if file in read]
    fresh = [one for one in here if isinstance(one, Found)]
    broken = [one for one in here if isinstance(one, SetAside)]
    return Listed([*found, *fresh], broken, unreadable, len(fresh))


def remove(output: Folder, files: Sequence[str], record: Mapping[str, Any]) -> None:
    """Remove files from among the shards whose rows lie in others, which are there already.

    `record` goes into the file that says so, to who lists them meanwhile and to people.
    """
    if not files:
        return
    before = _removals(output)
    said = {"files": len(files), **record}
    output.publish(layout.new_removal(), json.dumps(said, indent=1, sort_keys=True).encode())
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(partial(_remove, output.folder(layout.SHARDS)), files))
    for name in before:  # the last is enough to tell that something has been removed
        with suppress(OSError):
            output.delete(f"{layout.REMOVALS}/{name}")


def _remove(shards: Folder, name: str) -> None:
    with suppress(FileNotFoundError):
        shards.delete(name)


def _files(output: Folder, shards: Folder) -> list[fs.FileInfo]:
    """As of one moment, as far as removals go.

    Listing takes a while. Who removes files that were merged into others says so first, when those others
    are there: a listing in which that was said meanwhile may lack both, and is made again.
    """
    removals = _removals(output)
    while True:
        files = shards.files(recursive=True)
        before, removals = removals, _removals(output)
        if removals == before:
            return files


def _removals(output: Folder) -> list[str]:
    return sorted(file.base_name for file in output.files(layout.REMOVALS))


def _read(
    shards: Folder, files: Sequence[_File], into: dict[_File, Found | SetAside]
) -> tuple[list[SetAside], set[_File]]:
    """Put what files turn out to be into a dict: what they hold, or why they do not count. Returns what
    cannot be read now, and what has been removed since it was listed.

    An error in reading is not a broken file: these are tried again, and only then given up for now.
    """
    unreadable: list[SetAside] = []
    gone: set[_File] = set()

    def read(file: _File) -> Found | InvalidShardError | OSError:
        name, size, mtime = file
        try:
            return read_file(shards, name, size=size, mtime_ns=mtime)
        except (InvalidShardError, OSError) as error:
            return error

    for pause in (*_PAUSES, None):
        failed = []
        unreadable.clear()
        with ThreadPoolExecutor(READERS) as pool:
            for file, found in zip(files, pool.map(read, files), strict=True):
                match found:
                    case Found():
                        into[file] = found
                    case InvalidShardError():
                        later = isinstance(found, LaterShardError)
                        into[file] = SetAside(file[0], str(found), later=later)
                    case FileNotFoundError():
                        gone.add(file)
                    case OSError():
                        failed.append(file)
                        unreadable.append(SetAside(file[0], redacted(first_line(found))))
        if not failed or pause is None:
            break
        files = failed
        time.sleep(pause * random.uniform(0.5, 1.5))
    return unreadable, gone
