"""`import robustsweep`: what it exports, and that each of it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robustsweep
from tests.support.models import digits_cnn
from tests.support.sweeps import write_grid


def test_what_is_exported() -> None:
    assert robustsweep.__all__ == [
        "Grid",
        "Images",
        "Plots",
        "Relation",
        "Sweep",
        "Tables",
        "UserError",
        "__version__",
        "attack",
        "cells",
        "compact",
        "compare",
        "load_grid",
        "open",
        "query",
        "run",
        "strengthen",
        "verify",
    ]
    for name in robustsweep.__all__:
        assert getattr(robustsweep, name)
    with pytest.raises(AttributeError, match="has no attribute 'Gird'"):
        robustsweep.Gird  # noqa: B018


def test_a_sweep_from_python(tmp_path: Path) -> None:
    path = write_grid(tmp_path / "moods.yaml", ["work"])
    options = {"backend": "inline", "runner": "tests.support.runners:Misbehaving", "quiet": True}
    output = str(tmp_path / "out")
    summary = robustsweep.run(str(path), output, **options)  # type: ignore[arg-type]
    assert (summary.exit_code, summary.state.cells_done) == (0, 2)
    grid = robustsweep.load_grid(str(path), ["examples=50"])
    assert isinstance(grid, robustsweep.Grid)
    assert robustsweep.run(grid, output, **options).state.units == 0  # type: ignore[arg-type]
    assert robustsweep.cells(output)["n"].to_pylist() == [50, 50]
    answer = robustsweep.query(output, "SELECT count(*) AS n FROM examples")
    assert answer.to_pylist() == [{"n": 200}]
    assert robustsweep.verify(output).num_rows == summary.checks.num_rows == 0
    again = robustsweep.strengthen(output, steps=5, only=("epsilon=0.1",), **options)  # type: ignore[arg-type]
    assert set(again["stronger"].to_pylist()) == {"standard (steps=5)"}
    with pytest.raises(robustsweep.UserError, match=r"strengthen: .*unexpected keyword argument 'workrs'"):
        robustsweep.strengthen(output, workrs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workrs": 2}, "unexpected keyword argument 'workrs'"),
        ({"backend": "slurm"}, '--backend: found "slurm"; allowed: ray, inline'),
        ({"backend": "inline", "workers": 2}, "--workers has no meaning with --backend inline"),
        ({"data_dir": "no/such"}, "--data-dir: no folder no/such"),
    ],
)
def test_wrong_options_are_one_clear_error(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write_grid(tmp_path / "moods.yaml")
    with pytest.raises(robustsweep.UserError, match=message):
        robustsweep.run(str(path), str(tmp_path / "out"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.tf
def test_an_attack_alone() -> None:
    digits = digits_cnn()
    images, labels = digits.images[:20], digits.labels[:20]
    result = robustsweep.attack(
        digits.model, images, labels, "bim", epsilons=[0.0, 0.3], norm="linf", steps=5
    )
    assert result.robust_accuracy[0] > result.robust_accuracy[1]
    assert np.abs(result.adversarial(1) - images).max() <= 0.3 + 1e-6


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bmi", {}, 'unknown attack "bmi"; did you mean "bim"? allowed: apgd, bim'),
        ("cw", {}, 'unknown attack "cw"; did you mean "carlini_wagner"?'),
        ("bim", {"steps": 0}, "attack bim: steps: found 0; allowed: greater than or equal to 1"),
        ("bim", {"stps": 3}, 'attack bim: unknown option "stps"; did you mean "steps"? allowed: eot, like'),
        ("fgsm", {"norm": "l7"}, "attack fgsm: norm: found 'l7'; allowed: 'linf' or 'l2'"),
    ],
)
def test_wrong_options_of_an_attack_are_our_error(
    name: str, options: dict[str, object], message: str
) -> None:
    images, labels = np.zeros((1, 4, 4, 1), np.float32), np.zeros(1, int)
    with pytest.raises(ValueError) as caught:
        robustsweep.attack(len, images, labels, name, epsilons=[0.1], **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message) and isinstance(caught.value, robustsweep.UserError)


@pytest.mark.tf
def test_a_model_that_cannot_be_traced_is_one_clear_error() -> None:
    """NumPy inside works on arrays, and would fail deep in TensorFlow with a tensor that has no values."""
    images, labels = np.zeros((2, 4, 4, 1), np.float32), np.zeros(2, int)
    weights = np.ones((16, 3), np.float32)

    def by_numpy(given: Any) -> Any:
        return np.asarray(given).reshape(len(given), 16) @ weights

    assert by_numpy(images).shape == (2, 3)
    with pytest.raises(robustsweep.UserError) as caught:
        robustsweep.attack(by_numpy, images, labels, "fgsm", epsilons=[0.1])
    said = str(caught.value)
    assert said.startswith("model: TensorFlow cannot trace it (") and "\n" not in said
    assert said.endswith("a function of TensorFlow's or Keras' operations, from images to logits, is allowed")

    def by_tensorflow(given: Any) -> Any:
        import tensorflow as tf

        return tf.reshape(given, (-1, 16)) @ weights

    assert robustsweep.attack(by_tensorflow, images, labels, "fgsm", epsilons=[0.1]).success.shape == (1, 2)


def test_it_is_the_command_line_too() -> None:
    command = [sys.executable, "-m", "robustsweep", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"robustsweep {robustsweep.__version__}\n"
