"""Datasets in a grid: what is refused before any work starts, what enters an identity, what is planned."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from orchestrator.errors import GridError, UserError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import PlainProgress
from orchestrator.run.sweep import run_sweep
from tests.support.data import own_arrays, write_images, write_npz
from tests.support.victims import cells_of
from workers.datasets import DATASETS

GRID = """\
models: [small_cnn]
datasets:
  - {name: birds, path: data/birds.npz}
  - {name: signs, path: data/signs/}
attacks: [fgsm]
epsilons: {linf: {birds: [0.1], signs: [0.1, 0.2]}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_npz(tmp_path / "data" / "birds.npz")
    write_images(tmp_path / "data" / "signs")


def parse(text: str = GRID, *overrides: str) -> Grid:
    Path("grid.yaml").write_text(text)
    return load_grid("grid.yaml", overrides)


def problems(text: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def ids(text: str = GRID) -> list[str]:
    return [cell.cell_id for cell in cells_of(parse(text))]


def test_a_grid_names_own_data_by_path(tmp_path: Path) -> None:
    birds, signs = parse().datasets
    assert (birds.name, birds.shape, birds.test_size) == ("birds", (24, 24, 3), 25)
    assert (signs.name, signs.shape, signs.test_size) == ("signs", (24, 24, 1), 12)
    specs = {cell.victim.dataset.name: cell.victim.dataset for cell in cells_of(parse())}
    assert specs["birds"].path == str(tmp_path / "data" / "birds.npz")  # workers are elsewhere
    assert specs["signs"].content and specs["signs"].size is None
    prepared = prepare(parse(), "out")
    assert prepared.plan.examples == {"birds": 25, "signs": 12}
    assert any("birds has 25 test examples: 25 are used, not 1,000" in one for one in prepared.warnings)


def test_own_data_count_by_content_wherever_they_lie() -> None:
    before = ids()
    os.rename("data", "elsewhere")
    moved = GRID.replace("data/", "elsewhere/")
    assert ids(moved) == before
    assert ids(moved.replace("path: ", f"path: file://{Path.cwd()}/")) == before
    os.utime("elsewhere/birds.npz", (0, 0))
    assert ids(moved) == before
    write_npz(Path("elsewhere/birds.npz"), y_test=own_arrays()["y_test"][::-1])
    assert [one in before for one in ids(moved)] == [False, True, True]
    next(Path("elsewhere/signs/test/stop").iterdir()).unlink()
    assert not set(ids(moved)) & set(before)


def test_a_size_makes_other_results() -> None:
    sized = GRID.replace("path: data/signs/", "path: data/signs/, size: 24")
    assert [one in ids() for one in ids(sized)] == [True, False, False]
    assert parse(sized.replace("24", "30")).datasets[1].shape == (30, 30, 1)


def test_every_problem_is_told_with_its_line() -> None:
    write_npz(Path("data/odd.npz"), x_test=np.zeros((25, 24)), y_train=np.full(60, 0.5))
    write_images(Path("data/mixed"))
    Image.new("L", (9, 9)).save("data/mixed/train/stop/x.png")
    found = problems(
        "models: [small_cnn]\n"
        "datasets:\n"
        "  - {name: gone, path: data/gone.npz}\n"
        "  - {name: odd, path: data/odd.npz}\n"
        "  - {name: mixed, path: data/mixed}\n"
        "  - {name: mnist, path: data/birds.npz}\n"
        "  - {path: data/birds.npz}\n"
        "  - data/birds.npz\n"
        "  - {name: birds, path: data/birds.npz, sise: 3}\n"
        "  - {name: signs, path: data/signs, size: 0}\n"
        "  - {name: again, path: [data/signs]}\n"
        "  - {name: digits, size: 3}\n"
        "  - cifar1O\n"
        "  - 'tfds:Svhn Cropped'\n"
        "  - {name: elsewhere, path: 'nowhere://data'}\n"
        "  - 7\n"
        "attacks: [fgsm]\n"
        "epsilons: [0.1]\n"
    )
    expected = [
        (3, "there is nothing at"),
        (4, "y_train is float64 of shape (60,)"),
        (4, "x_test is of shape (25, 24)"),
        (5, "1 of 43 images are not 24×24 pixels: train/stop/x.png (9×9)"),
        (6, '"mnist" is the name of a registered dataset'),
        (7, "a dataset needs a name"),
        (8, "{name: birds, path: data/birds.npz}"),
        (9, 'unknown option of dataset birds "sise"; did you mean "size"? allowed: label, path, size, train'),
        (10, "found 0; a whole number of pixels"),
        (11, "found a list; an .npz file or a folder"),
        (12, 'unknown option of dataset digits "size"; allowed: label, train'),
        (13, 'did you mean "cifar10"?'),
        (14, '"tfds:Svhn Cropped" is not a name of tensorflow-datasets'),
        (15, "cannot open nowhere://data"),
        (16, "found 7; a name"),
    ]
    for problem, (line, message) in zip(found, expected, strict=True):
        assert problem.startswith(f"line {line}: datasets[") and message in problem


def test_the_page_on_data_shows_what_works_and_every_error() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "datasets.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert [dataset.shape for dataset in parse(text).datasets] == [(8, 8, 1), (24, 24, 3), (64, 64, 1)]
    rows = [row.split("|")[1] for row in page.partition("the message has")[2].splitlines()[2:]]
    shown = [piece for row in rows for piece in re.findall("`(.+?)`", row)]
    sources = [*(root / "workers" / "datasets").glob("*.py"), *(root / "orchestrator" / "grid").glob("*.py")]
    code = "".join(
        path.read_text()
        for path in [*sources, *root.glob("workers/victims/base.py"), *root.glob("workers/[es]*.py")]
    )
    code = re.sub(r'"\n\s*f?"', "", code)  # strings over several lines
    assert len(shown) > 40
    for message in shown:
        for part in re.split(r"…|\d+|<split>|x_train|x_test|test/|train/|uint8|tfds:|\(\.png.*?\)", message):
            assert part.strip() in code, message


def test_images_too_small_for_a_model_are_refused_at_planning() -> None:
    tiny = GRID.replace("path: data/signs/", "path: data/signs/, size: 4")
    (problem,) = problems(tiny)
    assert "small_cnn needs images of at least 8 pixels; those of signs have 4×4×1" in problem


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is not None, reason="tensorflow-datasets is installed"
)
def test_the_missing_extra_is_said_at_planning() -> None:
    (problem,) = problems(
        GRID.replace("{name: birds, path: data/birds.npz}", "tfds:svhn_cropped").replace(
            "birds", "'tfds:svhn_cropped'"
        )
    )
    assert problem.startswith("line 3: datasets[0]: tensorflow-datasets is not installed")


KNOWN = "models: [small_cnn]\ndatasets: [mnist]\nattacks: [fgsm]\nepsilons: [0.1]\n"


def test_a_part_of_a_known_dataset_is_used_and_said() -> None:
    arrays = own_arrays(size=28)
    np.savez(
        "data/mnist.npz",
        **{**arrays, "x_train": arrays["x_train"][..., 0], "x_test": arrays["x_test"][..., :1]},
    )
    prepared = prepare(parse(KNOWN), "out", data_dir="data")
    assert prepared.plan.examples == {"mnist": 25}
    assert any(
        "60 training and 25 test examples, the original 60,000 and 10,000" in warning
        for warning in prepared.warnings
    )


def test_data_that_cannot_be_had_stop_a_run_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", "keras")
    monkeypatch.delenv("ROBUSTSWEEP_DATA", raising=False)
    # Nothing listens on the discard port of this machine.
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], origin="http://127.0.0.1:9/mnist.npz"))
    monkeypatch.setenv("no_proxy", "*")
    prepared = prepare(parse(KNOWN), "out", data_dir="data")
    assert prepared.plan.examples == {"mnist": 1000}  # a plan alone needs no data
    options = RunOptions(output="out", backend="inline", data_dir="data")
    with pytest.raises(UserError, match=r"cannot download mnist .*put mnist\.npz.* as .*data/mnist\.npz"):
        run_sweep(prepared, options, PlainProgress(Console(quiet=True)))
    assert not Path("out").exists()


def test_broken_data_stop_a_plan(tmp_path: Path) -> None:
    Path("data/mnist.npz").write_bytes(b"text")
    with pytest.raises(UserError, match=r"mnist\.npz is not a readable \.npz"):
        prepare(parse(KNOWN), "out", data_dir="data")
