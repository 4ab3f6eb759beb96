"""A training that is lost goes on at its last epoch, and comes to the weights that it would have come to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.victims import model_spec, victim_spec
from workers.datasets import Dataset, load
from workers.layout import cached_training
from workers.recipe import Recipe
from workers.storage import Folder
from workers.unit import DatasetSpec, DefenceSpec, VictimSpec
from workers.victims.cache import VictimCache, weights_hash
from workers.victims.progress import TrainingProgress
from workers.victims.resuming import Keeper
from workers.victims.training import build_and_train
from workers.victims.victim import train_victim

pytestmark = pytest.mark.tf

ROOT = Path(__file__).parents[1]

NETS = """
import keras


def stirred(*, input_shape, classes):
    layers = keras.layers
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Conv2D(6, 3),
        layers.BatchNormalization(momentum=0.99),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(classes),
    ])
"""

PGD = DefenceSpec(
    name="adversarial_training", options={"epsilon": 0.2, "steps": 2, "ramp": 3}, in_training=True
)
NOISE = DefenceSpec(name="gaussian_augmentation", options={"sigma": 0.2}, in_training=True)
SMOOTH = DefenceSpec(name="label_smoothing", options={"smoothing": 0.2}, in_training=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DatasetSpec(name="digits"))


@pytest.fixture(scope="module", autouse=True)
def nets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("nets")
    (folder / "stirred_for_tests.py").write_text(NETS)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


class Lost(Exception):
    """The worker is gone."""


def lost_at(epoch: int, phase: str = "scratch") -> Any:
    """A listener that ends a training when an epoch of a phase has been kept, and the next is through."""

    def listen(progress: TrainingProgress) -> None:
        if progress.phase == phase and progress.epoch == epoch + 1:
            raise Lost

    return listen


def keeper(folder: Path, spec: VictimSpec, every: float = 0.0) -> Keeper:
    return Keeper(Folder.at(folder), spec.victim_id, {"data": "d"}, every=every)


def outcome(model: Any, history: Any) -> tuple[str, list[dict[str, Any]]]:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
    return weights_hash(model), rows


SCRATCH = Recipe(epochs=4, examples=200, batch_size=32, learning_rate=5e-3)
STIRRED = model_spec("mine", factory="stirred_for_tests:stirred")

CASES = {
    "augmented, with dropout and batch norm": victim_spec(
        model=STIRRED, recipe=replace(SCRATCH, augmentation="flip_crop", optimizer="sgd")
    ),
    "adversarial, likewise": victim_spec(model=STIRRED, recipe=SCRATCH, defence=PGD),
    "smoothed": victim_spec(recipe=SCRATCH, defence=SMOOTH, seed=3),
    # It stops after 3 epochs without a lower loss, and has the weights of the best.
    "stopped early": victim_spec(
        recipe=Recipe(epochs=40, examples=100, batch_size=32, learning_rate=0.05, early_stopping=3)
    ),
}


@pytest.mark.parametrize(
    "case", ["augmented, with dropout and batch norm", "adversarial, likewise", "stopped early"]
)
def test_what_goes_on_comes_to_the_same_weights(case: str, digits: Dataset, tmp_path: Path) -> None:
    spec = CASES[case]
    whole = outcome(*build_and_train(spec, digits))
    for epochs in (1, 3):  # the second time it goes on from the first
        with pytest.raises(Lost):
            build_and_train(spec, digits, lost_at(epochs), keeper(tmp_path, spec))
        found = keeper(tmp_path, spec).find()
        assert found is not None and found.epoch == len(found.rows) == epochs
    told: list[TrainingProgress] = []
    assert outcome(*build_and_train(spec, digits, told.append, keeper(tmp_path, spec))) == whole
    # No epoch was trained twice.
    assert [one.epoch for one in told] == list(range(3, len(whole[1]) + 1))
    # Also from where it was through, or had stopped, but for publishing.
    told = []
    assert outcome(*build_and_train(spec, digits, told.append, keeper(tmp_path, spec))) == whole
    assert len(told) == 1


@pytest.mark.slow
def test_both_phases_of_a_pretrained_network_go_on(digits: Dataset, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(5)
    network = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    path = tmp_path / "mine.weights.h5"
    network.save_weights(path)
    recipe = Recipe(epochs=2, head_epochs=2, examples=40, batch_size=16)
    spec = victim_spec(
        model=model_spec("mobilenet", alpha=0.25, weights=str(path)),
        recipe=recipe,
        defence=NOISE,
    )
    whole = outcome(*build_and_train(spec, digits))
    assert [row["phase"] for row in whole[1]] == ["head", "head", "fine_tune", "fine_tune"]
    for phase in ("head", "fine_tune"):
        with pytest.raises(Lost):
            build_and_train(spec, digits, lost_at(1, phase), keeper(tmp_path, spec))
        found = keeper(tmp_path, spec).find()
        assert found is not None and (found.phase, found.epoch) == (phase, 1)
    told: list[TrainingProgress] = []
    assert outcome(*build_and_train(spec, digits, told.append, keeper(tmp_path, spec))) == whole
    assert [(one.phase, one.epoch) for one in told] == [("fine_tune", 1), ("fine_tune", 2)]


def test_other_data_libraries_or_broken_files_are_begun_anew(digits: Dataset, tmp_path: Path) -> None:
    spec = CASES["smoothed"]
    with pytest.raises(Lost):
        build_and_train(spec, digits, lost_at(2), keeper(tmp_path, spec))
    assert keeper(tmp_path, spec).find() is not None
    for of in ({"data": "other"}, {"data": "d", "versions": {"keras": "1"}}):
        assert Keeper(Folder.at(tmp_path), spec.victim_id, of).find() is None
    assert keeper(tmp_path, victim_spec("another")).find() is None
    file = tmp_path / cached_training(spec.victim_id)
    whole = file.read_bytes()
    middle = len(whole) // 2
    damaged = (b"", b"PK", whole[:-100], whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    for data in damaged:
        file.write_bytes(data)
        assert keeper(tmp_path, spec).find() is None
    assert outcome(*build_and_train(spec, digits, keeper=keeper(tmp_path, spec, every=1e9))) == outcome(
        *build_and_train(spec, digits)
    )


def test_short_trainings_keep_nothing_and_what_is_kept_goes(digits: Dataset, tmp_path: Path) -> None:
    spec, cache = CASES["smoothed"], VictimCache(Folder.at(tmp_path))
    kept = tmp_path / cached_training(spec.victim_id)
    build_and_train(spec, digits, keeper=keeper(tmp_path, spec, every=60.0))
    assert not kept.exists()
    with pytest.raises(Lost):
        build_and_train(spec, digits, lost_at(2), keeper(tmp_path, spec))
    assert kept.exists() and cache.find(spec.victim_id) is None
    _, manifest = train_victim(spec, digits, cache, lambda progress: None)
    assert not kept.exists() and cache.find(spec.victim_id) == manifest and len(manifest.history) == 4


LONG = victim_spec(recipe=replace(SCRATCH, epochs=12), defence=PGD)

KILLED = """
import sys
from workers.victims.resuming import Keeper

Keeper.__init__.__kwdefaults__["every"] = 0.0
from tests.test_resuming import LONG, attempt
attempt(sys.argv[1])
"""


def attempt(folder: str) -> tuple[str, int]:
    """The weights of a victim, and of how many epochs."""
    cache = VictimCache(Folder.at(folder))
    _, manifest = train_victim(LONG, load(DatasetSpec(name="digits")), cache, lambda progress: None)
    return manifest.weights, len(manifest.history)


def test_a_process_that_is_killed_in_the_midst_of_it(tmp_path: Path) -> None:
    """By a signal that leaves it no time; what the next attempt publishes is what one alone comes to."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    kept = broken / cached_training(LONG.victim_id)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(broken)], env=environment, cwd=ROOT) as killed:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and not kept.exists():
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    with np.load(kept) as file:
        assert 1 <= json.loads(str(file["said"]))["epoch"] < 12
    weights, epochs = attempt(str(broken))
    assert (weights, epochs) == attempt(str(whole)) and epochs == 12
    assert not kept.exists()
