"""Kept images as files: what is in them is what the table says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import UserError
from orchestrator.results.export_images import IMAGES, export_images, png
from tests.support.results import Cell, results_of
from tests.test_opened import keep_images, made_up
from workers.norms import LINF
from workers.rounding import rounded_within

EPSILON = 0.1


def kept(success: bool, seed: int, *, uint8: bool = True, channels: int = 1) -> dict[str, Any]:
    """A row with its images: random ones, as far apart as epsilon allows."""
    draw = np.random.default_rng(seed)
    stored = draw.integers(0, 256, (4, 5, channels)).astype(np.uint8)
    clean = stored.astype(np.float32) / np.float32(255)
    signs = draw.choice([-1, 1], clean.shape).astype(np.float32)
    adversarial = np.clip(clean + np.float32(EPSILON) * signs, 0, 1).astype(np.float32)
    row: dict[str, Any] = {
        "image": adversarial.tobytes(),
        "image_shape": [4, 5, channels],
        "clean_image": stored.tobytes() if uint8 else clean.tobytes(),
    }
    if success:
        row |= {
            "success": True,
            "success_uint8": True,
            "distance": EPSILON,
            "adv_label": 1,
            "adv_confidence": 0.6,
        }
    return row


def images_of(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    shape = row["image_shape"]
    stored = np.frombuffer(row["clean_image"], np.uint8).reshape(shape)
    return stored.astype(np.float32) / np.float32(255), np.frombuffer(row["image"], np.float32).reshape(shape)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_what_was_judged(tmp_path: Path, channels: int) -> None:
    at = [kept(i % 3 != 0, i, channels=channels) for i in range(6)]
    cell = Cell(epsilon=EPSILON, examples=6, rows=at)
    names = [{"victim_id": cell.victim_id, "class_names": ["ant", "bee", "cow", "dog"]}]
    done = export_images([results_of([cell], victims=names)], {}, tmp_path / "to" / "here")
    assert (done.images, done.cells) == (6, 1)
    rows = table(tmp_path / "to" / "here")
    assert list(rows[0]) == IMAGES.names and [row["position"] for row in rows] == list("012345")
    for row, made in zip(rows, at, strict=True):
        clean, adversarial = images_of(made)
        written = np.asarray(Image.open(tmp_path / "to" / "here" / row["adversarial_file"]))
        shown = np.asarray(Image.open(tmp_path / "to" / "here" / row["clean_file"]))
        np.testing.assert_array_equal(shown.reshape(clean.shape) / np.float32(255), clean)
        back = written.reshape(clean.shape).astype(np.float32) / np.float32(255)
        if row["success"] == "true":
            expected, inside = rounded_within(adversarial[None], clean[None], EPSILON, LINF)
            assert inside.all()
            np.testing.assert_allclose(back, expected[0], atol=1e-7)
            # Rounding to the nearest level would have gone beyond epsilon.
            assert np.abs(back - clean).max() <= EPSILON + 1e-6
            assert (row["adv_name"], row["adv_confidence"][:3], row["success_uint8"]) == (
                "bee",
                "0.6",
                "true",
            )
        else:
            np.testing.assert_allclose(back, adversarial, atol=0.5 / 255 + 1e-6)
            assert row["adv_label"] == row["adv_name"] == ""
        assert row["label_name"] == "dog"


def test_only_what_is_asked_for_and_several_sweeps_apart(tmp_path: Path) -> None:
    cells = [Cell(epsilon=epsilon, examples=1, rows=[kept(True, 0)]) for epsilon in (EPSILON, 0.2)]
    sweeps = [results_of(cells, sweep=name) for name in ("a", "b/c")]
    done = export_images(sweeps, {"model": ["resnet50_v2"]}, tmp_path, epsilon=0.2)
    assert (done.images, done.cells) == (2, 2) and sorted(path.name for path in tmp_path.iterdir()) == [
        "a",
        "b_c",
        "images.csv",
    ]
    assert {row["sweep"] for row in table(tmp_path)} == {"a", "b/c"}
    with pytest.raises(UserError, match=r"--epsilon: found 0.3; there are: 0.1, 0.2"):
        export_images(sweeps, {}, tmp_path, epsilon=0.3)
    with pytest.raises(UserError, match='--model: found "x"'):
        export_images(sweeps, {"model": ["x"]}, tmp_path)


def test_what_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    cell = Cell(examples=1, rows=[kept(True, 0)])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--to: cannot write to .*file"):
        export_images([results_of([cell])], {}, tmp_path / "file")
    with pytest.raises(UserError, match="no image of these cells is kept"):
        export_images([results_of([Cell(examples=1, rows=[{}])])], {}, tmp_path)
    with pytest.raises(UserError, match="an image of 2 channels is no PNG"):
        png(np.zeros((2, 2, 2), np.float32))


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    output = made_up(tmp_path / "kept", models=["small_cnn"])
    keep_images(output)
    arguments = ["export", "images", str(output), "--to", str(tmp_path / "to"), "--epsilon", "0.1"]
    done = CliRunner().invoke(app, [*arguments, "--attack", "fgsm"])
    assert done.exit_code == 0, done.output
    assert "9 images of 1 cell in" in done.stdout and done.stderr == ""
    assert len(list((tmp_path / "to").glob("*/*.png"))) == 2 * 9 == 2 * len(table(tmp_path / "to"))
    wrong = CliRunner().invoke(app, [*arguments[:-1], "8/x"])
    assert wrong.exit_code == 2 and '--epsilon: found "8/x"; a number such as 0.1 or 8/255' in wrong.stderr
