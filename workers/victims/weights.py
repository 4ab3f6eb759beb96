"""Pretrained weights: a file at a path or URI, or ImageNet's through Keras."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workers.storage import Folder
from workers.victims.base import ArchitectureError

if TYPE_CHECKING:
    import keras

IMAGENET = "imagenet"
SUFFIXES = (".weights.h5", ".h5")


def read_file(location: str, *, sha256: str | None = None) -> bytes:
    """The bytes of a file at a local path or URI.

    Raises ArchitectureError when it cannot be read, or is not the one whose SHA-256 is given.
    """
    folder, _, name = location.rpartition("/")
    try:
        data = Folder.at(folder or ("/" if location.startswith("/") else ".")).read(name)
    except (OSError, ValueError) as error:
        raise ArchitectureError(f"cannot read {location}: {error}") from error
    if sha256 and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise ArchitectureError(
            f"{location} has changed since the sweep was planned: its SHA-256 was {sha256[:12]}…, "
            f"it is {found[:12]}…; run the sweep again to evaluate it as it is now"
        )
    return data


def load_weights_file(network: keras.Model, location: str, sha256: str | None) -> None:
    """Give a network the weights in a `.weights.h5` or `.h5` file; ArchitectureError when they do not fit."""
    data = read_file(location, sha256=sha256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / location.rpartition("/")[2]  # Keras tells the two layouts apart by suffix
        path.write_bytes(data)
        try:
            network.load_weights(path)
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # whatever HDF5 makes of broken files
            raise ArchitectureError(
                f"the weights in {location} do not fit; those of the same network without its top "
                f"(include_top=False) are allowed. Keras says: {error}"
            ) from error


def imagenet_network(construct: Callable[[], keras.Model]) -> keras.Model:
    """A network with its ImageNet weights from Keras' folder, else downloaded by Keras.

    Raises ArchitectureError that says which file to put where when there is no connection, or what Keras
    has to say against the network's options.
    """
    try:
        return construct()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        address = re.search(r"URL fetch failure on (\S+?):? ", f"{error} ")
        if not address:
            raise ArchitectureError(f"cannot load the imagenet weights: {error}") from error
        name = address[1].rpartition("/")[2]
        home = os.environ.get("KERAS_HOME", "~/.keras")
        raise ArchitectureError(
            f"cannot download the imagenet weights ({error}); put {name} into {home}/models on every "
            "machine, or into the folder models/ below one that KERAS_HOME names"
        ) from error
