"""What a new defence, format, backend or library of datasets needs: itself, and a line in a registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import GridError
from orchestrator.grid.load import load_grid
from orchestrator.results.text import FORMATS
from orchestrator.results.text.base import Columns, ForPrograms
from orchestrator.run.backends.registry import BACKENDS, BackendEntry
from orchestrator.store.folder import Store
from tests.support.sweeps import Scripted, rows, sweep, times_counted, write_grid
from tests.support.victims import cells_of
from workers.datasets import SCHEMES, Scheme, load
from workers.datasets.base import Allocate, DatasetInfo
from workers.defences import DEFENCES, InputTransformation
from workers.unit import DatasetSpec, WorkerSettings


@dataclass(frozen=True, kw_only=True)
class Grey(InputTransformation):
    """All images look the more alike, the larger the share: what is left of them is scaled down."""

    name: ClassVar[str] = "grey"
    VERSION: ClassVar[int] = 3
    share: float = Field(default=0.5, ge=0, le=1)

    def transform(self, images: Any, seed: Any) -> Any:
        return images * (1 - self.share) + self.share / 2


@pytest.fixture
def greying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFENCES, "grey", Grey)


GRID = """\
models: [small_cnn]
datasets: [digits]
attacks: [fgsm]
epsilons: [0, 0.1]
examples: 60
train: {epochs: 2}
"""


def with_defences(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(f"{GRID}defences: {text}\n")
    return path


@pytest.mark.usefixtures("greying")
def test_a_defence_has_cells_of_its_own_and_its_options_count(tmp_path: Path) -> None:
    cells = cells_of(load_grid(str(with_defences(tmp_path, "[none, grey, {name: grey, share: 0.9}]"))))
    assert len({cell.cell_id for cell in cells}) == 6 and len({cell.victim.victim_id for cell in cells}) == 3
    assert all(cell.cell_id.startswith("small_cnn-digits-grey-s0-fgsm") for cell in cells[2:])
    spelled_out = cells_of(load_grid(str(with_defences(tmp_path, "[{name: grey, share: 0.5}]"))))
    assert [cell.cell_id for cell in spelled_out] == [cell.cell_id for cell in cells[2:4]]
    with pytest.raises(GridError) as caught:
        load_grid(
            str(with_defences(tmp_path, "[{name: grey, share: 2}, {name: grey, shade: 1}, grye, grey]"))
        )
    text = str(caught.value)
    assert "defences[0].share: found 2; allowed: less than or equal to 1" in text
    assert 'unknown option of defence grey "shade"; did you mean "share"? allowed: share' in text
    assert 'unknown defence "grye"; did you mean "grey"? allowed: adversarial_training, bit_depth,' in text


@pytest.mark.tf
@pytest.mark.usefixtures("greying")
def test_a_defence_is_part_of_its_victim(tmp_path: Path) -> None:
    grid = with_defences(tmp_path, "[none, {name: grey, share: 1}]")
    output = tmp_path / "out"
    summary = sweep(grid, output, runner="workers.evaluator:Evaluator")
    assert (summary.exit_code, summary.state.cells_done) == (0, 4)
    table = rows(output).to_pandas()
    assert set(table["defence"]) == {"none", "grey (share=1.0)"}
    answers = table[table["epsilon"] == 0].groupby("defence")["clean_label"].nunique()
    assert answers["none"] > 5 and answers["grey (share=1.0)"] == 1  # it sees nothing but grey
    text = CliRunner().invoke(app, ["plan", str(grid), "-o", str(output)]).stdout
    assert "small_cnn, grey (share=1.0)" in text
    text = CliRunner().invoke(app, ["table", str(output)]).stdout
    assert re.search(r"small_cnn\b.* grey \(share=1\.0\) +fgsm", text)


class Counting(ForPrograms):
    """How many rows and columns a table has."""

    def columns(self, columns: Columns) -> str:
        return f"{len(columns.rows)} × {len(columns.names)}\n"


def test_an_output_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path / "out")
    sweep(write_grid(tmp_path / "moods.yaml"), output)
    monkeypatch.setitem(FORMATS, "count", "tests.test_extending:Counting")
    query = ["query", output, "SELECT cell_id, n FROM cells", "--format", "count"]
    assert CliRunner().invoke(app, query).stdout == "2 × 2\n"
    assert CliRunner().invoke(app, ["table", output, "--format", "count"]).stdout.startswith("2 × ")


def scripted(options: Any, settings: WorkerSettings, *, most: int, logs: Path | None) -> Scripted:
    backend = Scripted(settings, lambda unit, attempt: backend.runner(unit))
    return backend


def test_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "scripted", BackendEntry(target="tests.test_extending:scripted"))
    summary = sweep(write_grid(tmp_path / "moods.yaml"), tmp_path / "out", backend="scripted")
    assert summary.exit_code == 0
    assert times_counted(rows(tmp_path / "out")) == {1: 200}
    assert len(Store(str(tmp_path / "out")).run_ids()) == 1


class Stripes:
    """A dataset of another library: pictures with a bright row, whose place is the class."""

    def __init__(self, spec: DatasetSpec, data_dir: str | None) -> None:
        self.classes = int(spec.name.removeprefix("stripes:"))

    def key(self) -> str:
        return f"stripes-{self.classes}"

    def info(self) -> DatasetInfo:
        size = self.classes
        return DatasetInfo(shape=(size, size, 1), classes=size, train_size=4 * size, test_size=2 * size)

    def class_names(self) -> tuple[str, ...]:
        return ()

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        for split, count in (("train", info.train_size), ("test", info.test_size)):
            labels = allocate(f"y_{split}", (count,), np.int64)
            labels[:] = np.arange(count) % info.classes
            images = allocate(f"x_{split}", (count, *info.shape), np.uint8)
            images[:] = 0
            images[np.arange(count), labels] = 255


def test_a_library_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = Scheme(
        prefix="stripes:",
        library="stripes",
        example="stripes:8",
        names=re.compile(r"stripes:\d+"),
        version=1,
        reader=Stripes,
        missing=lambda: None,
    )
    monkeypatch.setitem(SCHEMES, scheme.prefix, scheme)
    data = load(DatasetSpec(name="stripes:8"))
    assert (data.shape, data.classes, len(data.y_test)) == ((8, 8, 1), 8, 16)
    grid = write_grid(tmp_path / "moods.yaml", datasets=["stripes:8"])
    summary = sweep(grid, tmp_path / "out")
    assert (summary.exit_code, summary.state.cells_done) == (0, 2)
    assert times_counted(rows(tmp_path / "out")) == {1: 2 * 16}
    with pytest.raises(GridError, match='"stripes:x" is not a name of stripes; such as stripes:8 is allowed'):
        load_grid(str(write_grid(tmp_path / "moods.yaml", datasets=["stripes:x"])))
