"""Epochs and accuracy of trainings under way, as the driver shows them; victims that failed to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.formats import render_robustness
from orchestrator.progress import SweepState
from orchestrator.tables import cells_table, robustness_records, robustness_tables
from orchestrator.training import TrainingWatch
from tests.results_for_tests import Cell, results_of
from tests.victims_for_tests import victim_spec
from workers.storage import Folder
from workers.unit import AttackSpec, WorkUnit
from workers.victims.progress import progress_writer

TRAINING = WorkUnit("train", victim_spec())
ATTACK = WorkUnit("attack", victim_spec(), AttackSpec("fgsm", {}, "fgsm", "linf"))


def test_a_workers_label_says_how_far_its_training_is(tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    state = SweepState(grid="g", output="o", cells=1, cells_done=0, units=1)
    watch = TrainingWatch(output, "run", state)
    for worker, unit in (("a", TRAINING), ("b", ATTACK), ("c", TRAINING)):
        state.workers[worker] = unit.label
        watch.began(worker, unit)
    assert watch.snapshot()["workers"]["a"] == "fine-tune small_cnn on digits"
    row = {"phase": "head", "epoch": 3, "epochs": 5, "accuracy": 0.9, "validation_accuracy": 0.91}
    progress_writer(output, "run", TRAINING.victim.victim_id)(row)
    watch.ended("c")
    workers = watch.snapshot()["workers"]
    assert workers["a"] == "fine-tune small_cnn on digits: head, epoch 3/5, validation accuracy 0.91"
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
    text = render_robustness(tables, "md")
    assert f"| resnet50_v2 {marks}".rstrip() + " |" in text
    assert ("† has not learnt" in text) == ("victim_weak" in flags)
    assert ("‡ overfitted" in text) == ("victim_overfit" in flags)
