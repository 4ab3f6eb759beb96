"""The weights of a cache that lies on an object store, one copy on each machine for all its workers.

A copy goes by what it holds, so that it is right or none: it is looked into each time, and whatever is wrong
with it or with the disk, the cache itself is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack, suppress

from workers import node
from workers.storage import Folder

_ROOM = "victims-1"
_HASH = re.compile("[0-9a-f]{64}")


def content(name: str, read: Callable[[], bytes], holds: Callable[[bytes, str], bool]) -> bytes:
    """The bytes of a file that holds what is known by `name`, a hash.

    `read` brings them from the cache, once on this machine as long as the copy is there; `holds` says whether
    bytes are those of a name. What the cache has is returned as it is. Raises what `read` raises.
    """
    if not _HASH.fullmatch(name):  # what a manifest says, and no name for a file
        return read()
    if held := _held(name, holds):
        return held
    with ExitStack() as stack:
        # A full disk, a folder of somebody else's: nothing that keeps a victim from its work.
        ours = False
        with suppress(OSError):
            stack.enter_context(node.locked(_ROOM, name))
            if held := _held(name, holds):  # another worker has brought it meanwhile
                return held
            ours = True
        data = read()
        if ours and holds(data, name):
            with suppress(OSError):
                Folder.at(node.shared(_ROOM)).publish(name, data)
    return data


def _held(name: str, holds: Callable[[bytes, str], bool]) -> bytes | None:
    try:
        node.ensure_ours()
        data = (node.shared(_ROOM) / name).read_bytes()
    except OSError:
        return None
    return data if holds(data, name) else None
