"""Archives that somebody else has made: held against their own promises before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from typing import IO

import numpy as np

from workers.machine import physical_memory

BROKEN = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,  # a member that is encrypted; RecursionError
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zip files, and NumPy's headers in them, raise when they are not what they should be."""

_SHARE = 2
"""What an archive unpacks to may be one part in so many of this machine's memory."""


def ensure_sound(archive: zipfile.ZipFile, *, at_once: bool = True) -> None:
    """ValueError for an archive whose members lead out of a folder, share a name or, where they are to be
    held `at_once`, are more than memory allows: as it says itself, and nobody reads further than that."""
    members = archive.infolist()
    if at_once:
        ensure_memory(sum(member.file_size for member in members))
    for name, times in Counter(member.filename for member in members).items():
        if times > 1:
            raise ValueError(f"it has {name!a} twice")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ValueError(f"it has {name!a}, which is no place inside of it")


def ensure_memory(size: int) -> None:
    """ValueError where so many bytes are more than may be held at once."""
    if size > (most := physical_memory() // _SHARE):
        raise ValueError(f"it unpacks to {size:,} bytes; at most {most:,} are allowed here")


def array_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape of an array in NumPy's format, whether it is in Fortran's order, and its type; its file has
    `size` bytes.

    ValueError for one that is not as large as it says, so that nobody makes room for what is not there.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array is in version {version} of NumPy's format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    promised = dtype.itemsize * math.prod(map(int, shape))
    if min(shape, default=0) < 0 or promised > size:
        raise ValueError(f"an array of shape {shape} is promised, and {size:,} bytes are there")
    return shape, fortran, dtype
