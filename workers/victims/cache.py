"""Trained weights, kept for every sweep that names the same victim."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pyarrow import fs

from workers import layout
from workers.runtime import library_versions
from workers.storage import Folder
from workers.unit import VictimSpec, recorded
from workers.victims import copies
from workers.victims.base import CacheError
from workers.victims.manifest import CleanAccuracy, History, Manifest
from workers.victims.resuming import Keeper

if TYPE_CHECKING:
    import keras


def describe(
    model: keras.Model,
    victim: VictimSpec,
    data: Mapping[str, Any],
    history: History,
    clean: CleanAccuracy,
    *,
    content: str = "",
) -> Manifest:
    """The manifest of a victim with the weights that `model` has now; `data` are the dataset's `record()`."""
    last = history.rows[-1] if history.rows else {}
    return Manifest(
        victim_id=victim.victim_id,
        weights=weights_hash(model),
        content=content,
        model=recorded(victim.model),
        model_options=victim.model.shown,
        dataset={**recorded(victim.dataset), **data},
        recipe=asdict(victim.recipe) if victim.recipe else {},
        defence=recorded(victim.defence),
        seed=victim.seed,
        parameters=model.count_params(),
        train_examples=history.train_examples,
        train_accuracy=last.get("accuracy"),
        validation_accuracy=last.get("validation_accuracy"),
        test_accuracy=clean.share,
        test_examples=clean.examples,
        chance=clean.chance,
        seconds=history.seconds,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        history=list(history.rows),
        versions=library_versions(),
    )


def weights_hash(model: keras.Model) -> str:
    """SHA-256 over a model's weight arrays in order: shape, dtype and bytes of each."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape} {array.dtype.str}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


CacheState = Literal["whole", "unfinished", "broken", "unreadable"]
"""Unfinished: weights without a manifest. Unreadable: not now, which says nothing of what is there."""


class CacheEntry(NamedTuple):
    """Everything in the cache that belongs to one set of weights of one victim."""

    victim_id: str
    weights: str  # SHA-256
    files: tuple[str, ...]  # names in the cache, in the order in which they are to be removed
    size: int  # bytes
    changed_at: datetime
    state: CacheState
    manifest: Manifest | None  # of a whole one


class VictimCache:
    """Entries `<victim_id>/<hash>.weights.h5` and, published after it, `<hash>.json`, the manifest.

    An entry counts when its manifest is readable and its weights file holds what it held when it was
    published. Two workers may train the same victim at once: of several entries the smallest hash counts.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def find(self, victim_id: str, *, prefer: str | None = None) -> Manifest | None:
        """The entry to use, or None: that with the weights `prefer`, else that with the smallest hash.

        Broken and half-written entries are passed over. OSError for one that cannot be read now: it may be
        the one to use.
        """
        names = (file.base_name for file in self._folder.files(victim_id))
        hashes = {weights for name in names if (weights := layout.weights_of(name))}
        for weights in sorted(hashes, key=lambda weights: (weights != prefer, weights)):
            if manifest := self._whole(victim_id, weights):
                return manifest
        return None

    def entries(self) -> list[CacheEntry]:
        """What there is, by victim and hash. Reads every file, as only that shows what is whole."""
        found: dict[tuple[str, str], list[fs.FileInfo]] = {}
        for file in self._folder.files(recursive=True):
            victim_id, _, name = self._folder.relative(file.path).rpartition("/")
            if weights := layout.weights_of(name):
                found.setdefault((victim_id, weights), []).append(file)
        entries = []
        for (victim_id, weights), files in sorted(found.items()):
            names = sorted((self._folder.relative(file.path) for file in files), key=len)
            try:
                manifest = self._whole(victim_id, weights, itself=True)
                state: CacheState = "whole" if manifest else "broken"
            except OSError:
                manifest, state = None, "unreadable"
            if layout.cached_manifest(victim_id, weights) not in names:
                state = "unfinished"
            entries.append(
                CacheEntry(
                    victim_id,
                    weights,
                    tuple(names),
                    sum(file.size for file in files),
                    max(file.mtime for file in files),
                    state,
                    manifest,
                )
            )
        return entries

    def trainings(self) -> list[tuple[str, str, int]]:
        """Those that can go on from where they were lost: victim id, name in the cache, bytes."""
        found = []
        for file in self._folder.files(recursive=True):
            name = self._folder.relative(file.path)
            victim_id = name.rpartition("/")[0]
            if name == layout.cached_training(victim_id):
                found.append((victim_id, name, file.size))
        return sorted(found)

    def keeper(self, victim_id: str, data: str) -> Keeper:
        """Of how far a training of a victim on data of this fingerprint is."""
        return Keeper(self._folder, victim_id, {"data": data, "versions": library_versions()})

    def load_into(self, model: keras.Model, manifest: Manifest) -> None:
        """Give a model, built as the manifest says, its weights. CacheError unless they are what it says."""
        data = self._content(manifest)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "victim.weights.h5"
            path.write_bytes(data)
            try:
                model.load_weights(path)
            except (OSError, ValueError, KeyError) as error:
                raise CacheError(
                    f"the weights of {manifest.victim_id} do not fit its model: {error}"
                ) from error
        if (found := weights_hash(model)) != manifest.weights:
            raise CacheError(
                f"the weights of {manifest.victim_id} hash to {found[:12]}…, its manifest says "
                f"{manifest.weights[:12]}…"
            )

    def publish(
        self,
        model: keras.Model,
        victim: VictimSpec,
        data: Mapping[str, Any],
        history: History,
        clean: CleanAccuracy,
    ) -> Manifest:
        """Keep a model's weights, unless a whole entry is there by now: then the model gets that one's.

        Returns the manifest of the weights that the model has afterwards.
        """
        if present := self.find(victim.victim_id):
            self.load_into(model, present)
            return present
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "victim.weights.h5"
            model.save_weights(path)
            content = path.read_bytes()
        manifest = describe(model, victim, data, history, clean, content=_content_hash(content))
        self._folder.publish(layout.cached_weights(victim.victim_id, manifest.weights), content)
        self._folder.publish(layout.cached_manifest(victim.victim_id, manifest.weights), manifest.to_json())
        return manifest

    def _whole(self, victim_id: str, weights: str, *, itself: bool = False) -> Manifest | None:
        """The manifest of an entry, if all of it is there; `itself`: in the cache, whatever this machine has
        a copy of. OSError where it cannot be read."""
        try:
            manifest = Manifest.from_json(self._folder.read(layout.cached_manifest(victim_id, weights)))
            if (manifest.victim_id, manifest.weights) != (victim_id, weights):
                return None
            data = self._read(manifest) if itself else self._content(manifest)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None
        return manifest if _holds(data, manifest.content) else None

    def _content(self, manifest: Manifest) -> bytes:
        """The weights file of an entry, which of a cache elsewhere is copied to this machine once."""
        if self._folder.is_local:
            return self._read(manifest)
        return copies.content(manifest.content, lambda: self._read(manifest), _holds)

    def _read(self, manifest: Manifest) -> bytes:
        return self._folder.read(layout.cached_weights(manifest.victim_id, manifest.weights))


def _holds(data: bytes, content: str) -> bool:
    """Whether a file holds arrays of this hash."""
    try:
        return _content_hash(data) == content
    # As HDF5 has it of broken files; and one may promise more than there is memory.
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError):
        return False


def _content_hash(data: bytes) -> str:
    """SHA-256 over the arrays of an HDF5 file, by name.

    Not over its bytes, in which Keras records how many layers the process had made before: two workers
    that train the same victim at once may leave one's file and the other's manifest.
    """
    import h5py

    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual or item.id.get_storage_size() < item.nbytes:
                raise ValueError(f"{name} is not all in this file")  # but in another, or a promise
            array = np.ascontiguousarray(item[()])
            digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
            digest.update(array.tobytes())

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(add)
    return digest.hexdigest()
