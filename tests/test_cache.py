"""The cache of victims: whole entries are found, everything else is passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from tests.support.victims import model_spec, victim_spec
from workers.storage import Folder
from workers.victims.architectures import build_model
from workers.victims.cache import CacheError, CleanAccuracy, Manifest, VictimCache, weights_hash
from workers.victims.manifest import History

pytestmark = pytest.mark.tf

SPEC = victim_spec()
ID = SPEC.victim_id
DATA = {"fingerprint": "0" * 64, "train_size": 1, "test_size": 1}
HISTORY = History(
    rows=(
        {
            "epoch": 1,
            "loss": 1.0,
            "accuracy": 0.5,
            "validation_loss": 1.1,
            "validation_accuracy": 0.4,
            "seconds": 0.1,
        },
    ),
    train_examples=100,
    seconds=0.2,
)
CLEAN = CleanAccuracy(share=0.45, examples=100, chance=0.1)


def new_model(seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    return build_model(SPEC.model, (8, 8, 1), 10)


@pytest.fixture(params=["local", "another filesystem"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> VictimCache:
    if request.param == "local":
        return VictimCache(Folder.at(tmp_path))
    return VictimCache(Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "cache"))


def test_weights_come_back_bit_for_bit(cache: VictimCache) -> None:
    assert cache.find(ID) is None
    model = new_model(0)
    manifest = cache.publish(model, SPEC, DATA, HISTORY, CLEAN)
    assert cache.find(ID) == manifest
    assert manifest.parameters == model.count_params()
    assert (manifest.train_accuracy, manifest.validation_accuracy) == (0.5, 0.4)
    assert (manifest.test_accuracy, manifest.test_examples, manifest.chance) == CLEAN
    assert manifest.history == list(HISTORY.rows) and set(manifest.versions) == {
        "tensorflow",
        "keras",
        "numpy",
    }
    other = new_model(1)
    assert weights_hash(other) != manifest.weights
    cache.load_into(other, manifest)
    assert weights_hash(other) == manifest.weights == weights_hash(model)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_hash_sees_shape_type_and_bytes() -> None:
    class Arrays:
        def __init__(self, *arrays: np.ndarray) -> None:
            self.get_weights = lambda: list(arrays)

    base = np.arange(6, dtype=np.float32)
    variants = [
        Arrays(base),
        Arrays(base.reshape(2, 3)),
        Arrays(base.reshape(3, 2)),
        Arrays(base.view(np.int32)),
        Arrays(base[:3], base[3:]),
        Arrays(base[3:], base[:3]),
        Arrays(-base),
    ]
    assert len({weights_hash(model) for model in variants}) == len(variants)
    assert weights_hash(Arrays(base.reshape(2, 3).T)) == weights_hash(Arrays(base.reshape(2, 3).T.copy()))


def test_publishing_beside_a_whole_entry_keeps_that_one(cache: VictimCache) -> None:
    first = cache.publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    late = new_model(1)
    assert cache.publish(late, SPEC, DATA, HISTORY, CLEAN) == first
    assert weights_hash(late) == first.weights


def published_twice(tmp_path: Path) -> tuple[VictimCache, list[Manifest]]:
    """Two entries of one victim, as two workers leave them that trained it at once; smaller hash first."""
    manifests = []
    for seed in (0, 1):
        manifests.append(
            VictimCache(Folder.at(tmp_path / str(seed))).publish(new_model(seed), SPEC, DATA, HISTORY, CLEAN)
        )
    together = tmp_path / "cache" / ID
    together.mkdir(parents=True)
    for seed in (0, 1):
        for file in (tmp_path / str(seed) / ID).iterdir():
            file.rename(together / file.name)
    return VictimCache(Folder.at(tmp_path / "cache")), sorted(
        manifests, key=lambda manifest: manifest.weights
    )


def test_of_two_entries_the_smaller_hash_counts_unless_another_is_preferred(tmp_path: Path) -> None:
    cache, (small, large) = published_twice(tmp_path)
    assert cache.find(ID) == small
    assert cache.find(ID, prefer=large.weights) == large
    assert cache.find(ID, prefer="0" * 64) == small


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "empty manifest"])
def test_a_damaged_entry_is_passed_over_and_rebuilt(tmp_path: Path, damage: str) -> None:
    cache, (small, large) = published_twice(tmp_path)
    folder = tmp_path / "cache" / ID
    weights, manifest = folder / f"{small.weights}.weights.h5", folder / f"{small.weights}.json"
    data = weights.read_bytes()
    if damage == "truncate":
        weights.write_bytes(data[:1000])
    elif damage == "flip":
        array = stored(small.weights).get_weights()[0].tobytes()
        assert data.count(array) == 1
        weights.write_bytes(data.replace(array, array[:-1] + bytes([array[-1] ^ 1])))
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    else:
        manifest.write_bytes(b"{}")
    assert cache.find(ID) == large
    for file in folder.glob(f"{large.weights}*"):
        file.unlink()
    assert cache.find(ID) is None
    rebuilt = cache.publish(stored(small.weights), SPEC, DATA, HISTORY, CLEAN)
    assert rebuilt.weights == small.weights
    assert cache.find(ID) == rebuilt


def stored(weights: str) -> Any:
    """The one of the two models whose weights have this hash."""
    return next(model for model in (new_model(0), new_model(1)) if weights_hash(model) == weights)


def test_a_file_and_a_manifest_from_two_workers_make_one_entry(tmp_path: Path) -> None:
    """Two workers that train the same victim at once publish the same weights in files of other bytes."""
    files = []
    for worker in ("a", "b"):
        manifest = VictimCache(Folder.at(tmp_path / worker)).publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
        files.append(tmp_path / worker / ID / f"{manifest.weights}.weights.h5")
    assert files[0].read_bytes() != files[1].read_bytes()
    files[1].rename(files[0])
    cache = VictimCache(Folder.at(tmp_path / "a"))
    found = cache.find(ID)
    assert found
    cache.load_into(new_model(1), found)


def test_weights_without_a_manifest_are_not_an_entry(tmp_path: Path) -> None:
    cache = VictimCache(Folder.at(tmp_path))
    manifest = cache.publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    (tmp_path / ID / f"{manifest.weights}.json").unlink()  # a worker that died between the two
    assert cache.find(ID) is None


def test_an_entry_copied_to_another_victim_does_not_count(tmp_path: Path) -> None:
    cache = VictimCache(Folder.at(tmp_path))
    cache.publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    (tmp_path / ID).rename(tmp_path / "another")
    assert cache.find("another") is None


def test_loading_checks_the_weights_themselves(tmp_path: Path) -> None:
    cache = VictimCache(Folder.at(tmp_path))
    manifest = cache.publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    lying = replace(manifest, weights="0" * 64)
    (tmp_path / ID / f"{manifest.weights}.weights.h5").rename(tmp_path / ID / f"{lying.weights}.weights.h5")
    with pytest.raises(
        CacheError, match=f"hash to {manifest.weights[:12]}…, its manifest says 000000000000…"
    ):
        cache.load_into(new_model(1), lying)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    cache = VictimCache(Folder.at(tmp_path))
    manifest = cache.publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    with pytest.raises(CacheError, match="do not fit its model"):
        cache.load_into(build_model(model_spec("small_cnn", width=9), (8, 8, 1), 10), manifest)


def test_entries_say_what_is_whole(tmp_path: Path) -> None:
    cache, (small, large) = published_twice(tmp_path)
    folder = tmp_path / "cache" / ID
    assert [(one.weights, one.state, one.manifest) for one in cache.entries()] == [
        (small.weights, "whole", small),
        (large.weights, "whole", large),
    ]
    first = cache.entries()[0]
    assert first.victim_id == ID
    # The manifest goes first: half removed, an entry is no entry.
    assert first.files == (f"{ID}/{small.weights}.json", f"{ID}/{small.weights}.weights.h5")
    assert first.size == sum(file.stat().st_size for file in folder.glob(f"{small.weights}*"))
    (folder / f"{small.weights}.json").unlink()
    (folder / f"{large.weights}.weights.h5").write_bytes(b"")
    (folder / "notes.txt").write_text("none of ours")
    assert [(one.state, one.manifest) for one in cache.entries()] == [("unfinished", None), ("broken", None)]
    (folder / f"{large.weights}.weights.h5").unlink()
    assert cache.entries()[1].state == "broken"
