"""Probes: each figure, on a victim that was made to show it and on one that is healthy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.results.checks import judge_victims
from tests.support.models import digits_cnn
from tests.support.victims import victim_spec
from workers.datasets import load
from workers.probes import EPSILONS, FIGURES, Probes, find_probes, publish_probes
from workers.probing import probe
from workers.storage import Folder
from workers.unit import DatasetSpec, DefenceSpec
from workers.victims.victim import Victim

pytestmark = pytest.mark.tf

WEIGHTS = "a" * 64


def layer(function: Callable[[Any], Any]) -> Any:
    """A layer that applies a function of a batch, drawing and looking across it as the function does."""
    import keras

    class Applied(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return function(inputs)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    return Applied()


def network(*, before: Callable[[Any], Any] | None = None, after: Callable[[Any], Any] | None = None) -> Any:
    import keras

    x = inputs = keras.Input((8, 8, 1))
    x = layer(before)(x) if before else x
    x = digits_cnn().model(x)
    return keras.Model(inputs, layer(after)(x) if after else x)


@tf.custom_gradient  # type: ignore[misc]
def faded(images: Any) -> Any:
    return tf.identity(images), lambda upstream: upstream * 1e-18


@tf.custom_gradient  # type: ignore[misc]
def random_gradient(images: Any) -> Any:
    return tf.identity(images), lambda upstream: tf.random.normal(tf.shape(upstream))


SICK: dict[str, Callable[[], Any]] = {
    "healthy": lambda: digits_cnn().model,
    "small": lambda: network(after=lambda logits: 1e-6 * logits),
    "huge": lambda: network(after=lambda logits: 1e5 * logits),
    "offset": lambda: network(after=lambda logits: logits + 1e7),
    "faded": lambda: network(before=faded),
    "random_gradient": lambda: network(before=random_gradient),
    "shattered": lambda: network(before=lambda x: x + 1e-3 * tf.sin(1e5 * x)),
    "rounded": lambda: network(before=lambda x: tf.round(4 * x) / 4),
    "saturated": lambda: network(after=lambda logits: tf.tanh(100 * logits)),
    "noisy": lambda: network(before=lambda x: x + tf.random.normal(tf.shape(x), stddev=0.3)),
    "company": lambda: network(before=lambda x: x - tf.reduce_mean(x, axis=0, keepdims=True)),
    "softmax": lambda: network(after=tf.nn.softmax),
    "constant": lambda: network(after=lambda logits: 0.0 * logits + tf.range(10.0)),
    "nan": lambda: network(after=lambda logits: tf.where(logits > 5, np.nan, logits)),
}


@cache
def probes(name: str) -> Probes:
    victim = Victim(SICK[name](), load(DatasetSpec(name="digits"), None), WEIGHTS)
    return probe("v", victim)


def figures(name: str) -> dict[str, float | None]:
    return dict(probes(name).figures)


def test_a_healthy_victim() -> None:
    found = figures("healthy")
    assert found.keys() == FIGURES.keys()
    assert [name for name, value in found.items() if value is None] == ["defence_changes", "eot_agreement"]
    assert found["clean_accuracy"] > 0.9 and found["examples"] == 64  # type: ignore[operator]
    zero = ("ties", "constant", "probabilities", "zero_gradients", "robust_at_1", "draws_changed")
    assert all(found[name] == 0 for name in (*zero, "batch_changed", "inference_changed"))
    assert found["gradient_gain"] == pytest.approx(1, abs=0.1)
    assert found["gradient_agreement"] > 0.95  # type: ignore[operator]
    for attack in ("fgsm", "bim", "bim_margin", "square"):
        left = [found[f"{attack}@{level}"] for level in range(len(EPSILONS))]
        assert left[0] > left[-1] and found["noise@3"] > left[3]  # type: ignore[operator]


def test_what_a_defence_does_to_clean_images() -> None:
    """Images that a defence has made itself it leaves as they are, which says nothing of others."""
    digits = load(DatasetSpec(name="digits"), None)
    plain = Victim(SICK["healthy"](), digits, WEIGHTS)
    images = digits.images("test", plain.order[:64])

    def changes(**options: Any) -> float | None:
        return probe("v", plain.defended(DefenceSpec(name="bit_depth", options=options))).figures[
            "defence_changes"
        ]

    expected = 255 * np.abs(np.rint(images) - images).mean()
    assert changes(bits=1) == pytest.approx(expected, rel=1e-5) and expected > 10
    np.testing.assert_allclose(
        changes(bits=8), 255 * np.abs(np.rint(255 * images) / 255 - images).mean(), rtol=1e-4
    )


def test_figures_have_no_scale() -> None:
    healthy = figures("healthy")
    for name, scale in (("small", 1e-6), ("huge", 1e5)):
        found = figures(name)
        for figure in ("logit_size", "logit_spread"):
            assert found[figure] == pytest.approx(scale * healthy[figure], rel=1e-4)  # type: ignore[operator]
        for figure in ("bim@3", "square@3", "ties", "gradient_size", "gradient_gain", "robust_at_1"):
            assert found[figure] == pytest.approx(healthy[figure], rel=1e-3, abs=0.04)
    assert figures("small")["top_probability"] == pytest.approx(0.1, abs=0.01)
    assert figures("huge")["saturated"] == 1.0


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("offset", lambda found: found["ties"] > 0.9),
        ("faded", lambda found: 0 < found["gradient_size"] < 1e-15 and found["bim@4"] < 0.1),
        ("random_gradient", lambda found: found["gradient_agreement"] < 0.25 and found["square@4"] < 0.1),
        ("shattered", lambda found: found["gradient_gain"] < 0.25),
        ("rounded", lambda found: found["zero_gradients"] == 1.0),
        ("saturated", lambda found: found["zero_gradients"] + found["ties"] > 0.5),
        ("noisy", lambda found: found["draws_changed"] > 0 and found["eot_agreement"] > 0.5),
        ("company", lambda found: found["batch_spread"] > 0.1 and found["batch_changed"] > 0.1),
        ("softmax", lambda found: found["probabilities"] == 1.0),
        ("constant", lambda found: found["constant"] == 1.0 and found["robust_at_1"] in (None, 1.0)),
        ("nan", lambda found: found["non_finite_logits"] > 0.5 and found["ties"] is None),
    ],
)
def test_a_sick_victim_shows(name: str, shows: Callable[[dict[str, float | None]], bool]) -> None:
    found = figures(name)
    assert shows(found), {figure: value for figure, value in found.items() if "@" not in figure}
    assert not shows(figures("healthy")), "a figure that everyone shows, shows nothing"


@pytest.mark.parametrize(
    ("name", "rule", "severity"),
    [
        ("small", "small_logits", "note"),
        ("huge", "saturated", "note"),
        ("offset", "ties", "suspicious"),
        ("faded", "tiny_gradients", "suspicious"),
        ("random_gradient", "shattered_gradients", "suspicious"),
        ("shattered", "shattered_gradients", "suspicious"),
        ("rounded", "zero_gradients", "suspicious"),
        ("noisy", "randomised", "note"),
        ("company", "company", "wrong"),
        ("softmax", "probabilities", "suspicious"),
    ],
)
def test_rules_speak_of_a_sick_victim_before_it_is_attacked(name: str, rule: str, severity: str) -> None:
    spec = victim_spec("v")
    rows = judge_victims([spec], [probes(name)]).to_pylist()
    assert (rule, severity) in {(row["rule"], row["severity"]) for row in rows}
    assert all(row["victim_id"] == "v" and row["model"] == spec.model.name for row in rows)


def test_rules_are_silent_about_a_healthy_one() -> None:
    assert judge_victims([victim_spec("v")], [probes("healthy")]).num_rows == 0


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Folder]:
    yield Folder.at(str(tmp_path))


def test_figures_are_kept_for_the_weights_that_they_are_of(output: Folder) -> None:
    publish_probes(output, probes("healthy"))
    assert find_probes(output, "v", WEIGHTS) == probes("healthy")
    assert find_probes(output, "v", "b" * 64) is None and find_probes(output, "w", WEIGHTS) is None
    [file] = output.files("probes")
    for data in (
        b"",
        b"[]",
        b'{"figures": 3}',
        output.read("probes/" + file.base_name).replace(b"1,", b"9,"),
    ):
        output.publish("probes/" + file.base_name, data)
        found = find_probes(output, "v", WEIGHTS)
        assert found is None or found.version == probes("healthy").version


# -- before a sweep, and while it runs -----------------------------------------------------------------------

GRID = """\
models: [{{name: sick, path: {folder}/sick.keras}}, {{name: sound, path: {folder}/sound.keras}}{more}]
datasets: [digits]
attacks: [{{name: bim, steps: 2}}]
epsilons: [0.1]
examples: 20
train: {{epochs: 1, examples: 100}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models as `.keras` files: one takes from every image the mean of its batch."""
    import keras

    place = tmp_path_factory.mktemp("models")
    inputs = keras.Input((8, 8, 1))
    centred = inputs - keras.ops.mean(inputs, axis=0, keepdims=True)
    keras.Model(inputs, digits_cnn().model(centred)).save(place / "sick.keras")
    digits_cnn().model.save(place / "sound.keras")
    (place / "grid.yaml").write_text(GRID.format(folder=place, more=", small_cnn"))
    (place / "known.yaml").write_text(GRID.format(folder=place, more=""))
    return place


def robustsweep(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_plan_probes_what_needs_no_training_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    told = robustsweep("plan", folder / "grid.yaml", "--check", "-o", tmp_path / "out")
    assert told.exit_code == 1 and "wrong: company" in told.output
    assert "2 victims probed, 1 not trained yet" in told.output
    assert not (tmp_path / "out").exists()
    record = robustsweep("plan", folder / "grid.yaml", "--check", "-o", tmp_path / "out", "--format", "json")
    found = json.loads(record.stdout)["check"]
    assert {row["model"] for row in found["findings"] if row["severity"] == "wrong"} == {"sick"}
    assert {row["model"] for row in found["findings"]} <= {"sick"} and found["probed"] == 2


def test_plan_says_which_victims_a_run_could_not_attack(folder: Path, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    broken = keras.layers.Lambda(lambda x: x)(inputs)  # code in a file, which is not run
    keras.Model(inputs, digits_cnn().model(broken)).save(tmp_path / "code.keras")
    (tmp_path / "grid.yaml").write_text(
        GRID.format(folder=folder, more=f", {{name: code, path: {tmp_path}/code.keras}}")
    )
    told = robustsweep("plan", tmp_path / "grid.yaml", "--check", "-o", tmp_path / "out")
    assert told.exit_code == 1 and "refused: code on digits" in told.output


def test_a_run_says_at_once_what_probes_show(folder: Path, tmp_path: Path) -> None:
    told = robustsweep("run", folder / "known.yaml", "--backend", "inline", "-o", tmp_path / "out")
    at, table = told.output.index("company, sick"), told.output.index("cells done")
    assert at < table, told.output
    assert len(list((tmp_path / "out" / "probes").iterdir())) == 2
    verified = robustsweep("verify", tmp_path / "out")
    assert verified.exit_code == 1 and "company" in verified.output
    shown = robustsweep("table", tmp_path / "out", "--format", "md").output
    [sick] = [line for line in shown.splitlines() if line.startswith("| sick")]
    assert "wrong" in sick and "%" not in sick.partition("wrong")[2].split("|")[0]
    again = robustsweep("plan", folder / "known.yaml", "--check", "-o", tmp_path / "out")
    assert again.exit_code == 1 and "2 victims probed" in again.output
