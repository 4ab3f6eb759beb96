"""What a shell is offered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import completion

ROOT = Path(__file__).parents[1]


POSTER = ["poster", "poster_defences", "poster_pretrained", "poster_small"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("outputs/digits/runs", "outputs/victims", "here/runs", "other", "deep/out/runs"):
        Path(folder).mkdir(parents=True)
    for file in ("mine.yaml", "dim.yml", "notes.txt", "deep/grid.yaml"):
        Path(file).touch()


@pytest.mark.parametrize(
    ("offered", "incomplete", "expected"),
    [
        (completion.grids, "", ["digits", "dim.yml", "mine.yaml", *POSTER, "robust_mnist"]),
        (completion.grids, "di", ["digits", "dim.yml"]),
        (completion.grids, "deep/", ["deep/grid.yaml"]),
        (completion.grids, "./mi", ["./mine.yaml"]),
        (completion.grids, "no/such/", []),
        (completion.outputs, "", ["digits", "here"]),
        (completion.outputs, "outputs/", ["outputs/digits"]),
        (completion.outputs, "deep/o", ["deep/out"]),
        (completion.outputs, "x", []),
        (completion.cleanable, "", ["digits", "here", "victims"]),
        (completion.one_of(["ray", "inline"]), "r", ["ray"]),
    ],
)
def test_what_is_offered(offered: completion.Offered, incomplete: str, expected: list[str]) -> None:
    assert offered(incomplete) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("robustsweep plan d", ["digits", "dim.yml"]),
        ("robustsweep table ", ["digits", "here"]),
        ("robustsweep query digits --format p", ["parquet"]),
        ("robustsweep status digits --format ", ["json", "rich"]),
        ("robustsweep run digits --backend ", ["inline", "ray"]),
        ("robustsweep run digits --only mo", ["model="]),
        ("robustsweep run digits --only model=", ["model=small_cnn", "model=wide_cnn"]),
        ("robustsweep plan digits --only model=small_cnn,attack=b", ["model=small_cnn,attack=bim"]),
        ("robustsweep plan mine.yaml --only model=", []),
        ("robustsweep plan nowhere --only model=", []),
        ("robustsweep list at", ["attacks"]),
        ("robustsweep pl", ["plan"]),
    ],
)
def test_a_shell_is_offered_it(line: str, expected: list[str]) -> None:
    words = line.split() + [""] * line.endswith(" ")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_ROBUSTSWEEP_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import orchestrator.cli, sys; orchestrator.cli.app(prog_name='robustsweep'); "
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.split() == expected, run.stderr
