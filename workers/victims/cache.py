"""Trained weights, kept for every sweep that names the same victim."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyarrow import fs

from workers.storage import Folder
from workers.unit import VictimSpec
from workers.victims.recipe import History

if TYPE_CHECKING:
    import keras

_MANIFEST = re.compile(r"([0-9a-f]{64})\.json")
_FILE = re.compile(r"([0-9a-f]{64})\.(json|weights\.h5)")


class CacheError(Exception):
    """An entry of the cache that does not hold what its manifest says."""


class CleanAccuracy(NamedTuple):
    """How a victim does on clean test images."""

    share: float  # right, of the first `examples` of the evaluation order
    examples: int
    chance: float  # the share of the most frequent class in the test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a trained victim; as JSON it is also what an output folder's pin says."""

    victim_id: str
    weights: str  # SHA-256 of the weight arrays, as `weights_hash`
    content: str  # SHA-256 of what the weights file holds, as `_content_hash`
    model: Mapping[str, Any]
    model_options: str
    dataset: Mapping[str, Any]
    recipe: Mapping[str, Any]
    defence: Mapping[str, Any]
    seed: int
    parameters: int
    train_examples: int
    train_accuracy: float | None  # None, like the next: evaluated as it is
    validation_accuracy: float | None
    test_accuracy: float  # on the first `test_examples` of the evaluation order
    test_examples: int
    chance: float  # the share of the most frequent class in the test split
    seconds: float
    trained_at: str
    history: list[Mapping[str, Any]]
    versions: Mapping[str, str]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ValueError, KeyError or TypeError for anything but a manifest; unknown keys are ignored."""
        values = json.loads(data)
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def describe(
    model: keras.Model,
    victim: VictimSpec,
    history: History,
    clean: CleanAccuracy,
    *,
    content: str = "",
) -> Manifest:
    """The manifest of a victim with the weights that `model` has now."""
    last = history.rows[-1] if history.rows else {}
    return Manifest(
        victim_id=victim.victim_id,
        weights=weights_hash(model),
        content=content,
        model=dict(victim.model),
        model_options=victim.model_options,
        dataset=dict(victim.dataset),
        recipe=dict(victim.recipe),
        defence=dict(victim.defence),
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


class CacheEntry(NamedTuple):
    """Everything in the cache that belongs to one set of weights of one victim."""

    victim_id: str
    weights: str  # SHA-256
    files: tuple[str, ...]  # names in the cache, in the order in which they are to be removed
    size: int  # bytes
    changed_at: datetime
    state: str  # "whole"; "unfinished", weights without a manifest; or "broken"
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

        Broken and half-written entries are passed over.
        """
        names = (file.base_name for file in self._folder.files(victim_id))
        hashes = [match[1] for name in names if (match := _MANIFEST.fullmatch(name))]
        for weights in sorted(hashes, key=lambda weights: (weights != prefer, weights)):
            if manifest := self._whole(victim_id, weights):
                return manifest
        return None

    def entries(self) -> list[CacheEntry]:
        """What there is, by victim and hash. Reads every file, as only that shows what is whole."""
        found: dict[tuple[str, str], list[fs.FileInfo]] = {}
        for file in self._folder.files(recursive=True):
            victim_id, _, name = self._folder.relative(file.path).rpartition("/")
            if match := _FILE.fullmatch(name):
                found.setdefault((victim_id, match[1]), []).append(file)
        entries = []
        for (victim_id, weights), files in sorted(found.items()):
            names = sorted((self._folder.relative(file.path) for file in files), key=len)
            manifest = self._whole(victim_id, weights)
            whole = "whole" if manifest else "broken"
            entries.append(
                CacheEntry(
                    victim_id,
                    weights,
                    tuple(names),
                    sum(file.size for file in files),
                    max(file.mtime for file in files),
                    whole if _manifest_name(victim_id, weights) in names else "unfinished",
                    manifest,
                )
            )
        return entries

    def load_into(self, model: keras.Model, manifest: Manifest) -> None:
        """Give a model, built as the manifest says, its weights. CacheError unless they are what it says."""
        data = self._folder.read(_weights_name(manifest.victim_id, manifest.weights))
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
        self, model: keras.Model, victim: VictimSpec, history: History, clean: CleanAccuracy
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
            data = path.read_bytes()
        manifest = describe(model, victim, history, clean, content=_content_hash(data))
        self._folder.publish(_weights_name(victim.victim_id, manifest.weights), data)
        self._folder.publish(_manifest_name(victim.victim_id, manifest.weights), manifest.to_json())
        return manifest

    def _whole(self, victim_id: str, weights: str) -> Manifest | None:
        """The manifest of an entry, if all of it is there."""
        try:
            manifest = Manifest.from_json(self._folder.read(_manifest_name(victim_id, weights)))
            content = _content_hash(self._folder.read(_weights_name(victim_id, weights)))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ):  # whatever HDF5 makes of broken files
            return None
        names = (manifest.victim_id, manifest.weights, manifest.content)
        return manifest if names == (victim_id, weights, content) else None


def _content_hash(data: bytes) -> str:
    """SHA-256 over the arrays of an HDF5 file, by name.

    Not over its bytes, in which Keras records how many layers the process had made before: two workers
    that train the same victim at once may leave one's file and the other's manifest.
    """
    import h5py  # type: ignore[import-untyped]

    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.ascontiguousarray(item[()])
            digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
            digest.update(array.tobytes())

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(add)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of what decides the bits of a result."""
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}


def _weights_name(victim_id: str, weights: str) -> str:
    return f"{victim_id}/{weights}.weights.h5"


def _manifest_name(victim_id: str, weights: str) -> str:
    return f"{victim_id}/{weights}.json"
