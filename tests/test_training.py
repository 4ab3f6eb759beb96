"""Epochs and accuracy of trainings under way, as the driver shows them; victims that failed to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.results.judged import cells_table
from orchestrator.results.records import robustness_records
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import text_format
from orchestrator.run.progress import SweepState
from orchestrator.run.training import TrainingWatch
from tests.support.results import Cell, results_of
from tests.support.victims import attack_spec, victim_spec
from workers.storage import Folder
from workers.unit import Evaluation, Training
from workers.victims.progress import TrainingProgress, progress_writer

TRAINING = Training("train", victim_spec())
ATTACK = Evaluation("attack", victim_spec(), attack_spec(), (), 0, 1)


def test_a_workers_label_says_how_far_its_training_is(tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    state = SweepState(grid="g", cells=1, cells_done=0, units=1)
    watch = TrainingWatch(output, "run", state)
    for worker, unit in (("a", TRAINING), ("b", ATTACK), ("c", TRAINING)):
        state.workers[worker] = unit.label
        watch.began(worker, unit)
    watch.look()
    assert state.on()["a"] == "train small_cnn on digits"
    row = TrainingProgress("head", 3, 5, 0.91)
    progress_writer(output, "run", TRAINING.victim.victim_id)(row)
    watch.ended("c")
    watch.look()
    workers = state.on()
    assert workers["a"] == "train small_cnn on digits: head, epoch 3/5, validation accuracy 0.91"
    assert workers["b"] == ATTACK.label and workers["c"] == TRAINING.label


@pytest.mark.parametrize(
    ("victim", "flags", "marks"),
    [
        ({"test_accuracy": 0.19, "chance": 0.1}, ["victim_weak"], "†"),
        ({"test_accuracy": 0.21, "chance": 0.1}, [], ""),
        ({"test_accuracy": 0.74, "chance": 0.5}, ["victim_weak"], "†"),  # twice chance would be perfect
        ({"test_accuracy": 0.76, "chance": 0.5}, [], ""),
        ({"train_accuracy": 0.95, "validation_accuracy": 0.79}, ["victim_overfit"], "‡"),
        ({"train_accuracy": 0.95, "validation_accuracy": 0.81}, [], ""),
        (
            {"test_accuracy": 0.1, "chance": 0.1, "train_accuracy": 0.9, "validation_accuracy": 0.1},
            ["victim_weak", "victim_overfit"],
            "†‡",
        ),
        ({}, [], ""),  # evaluated as it is, by a worker that did not say how good it is
    ],
)
def test_victims_that_failed_to_learn_are_flagged(
    victim: dict[str, Any], flags: list[str], marks: str
) -> None:
    cell = Cell(rows=[{}, {}, {}, {}])
    cells = cells_table(results_of([cell], victims=[{"victim_id": cell.victim_id, **victim}]))
    assert cells["flags"].to_pylist() == [flags]
    tables = robustness_tables(cells)
    assert robustness_records(tables)["flags"].to_pylist() == [sorted(flags)]
    text = text_format("md").robustness(tables)
    assert f"| resnet50_v2 {marks}".rstrip() + " |" in text
    assert ("† has not learnt" in text) == ("victim_weak" in flags)
    assert ("‡ overfitted" in text) == ("victim_overfit" in flags)
