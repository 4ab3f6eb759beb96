"""`list victims` and `clean`: what is there, and what may go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.grid.load import load_grid
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import PlainProgress
from orchestrator.run.sweep import run_sweep
from orchestrator.store.folder import Store
from tests.test_cache import CLEAN, DATA, HISTORY, ID, SPEC, new_model
from workers import layout
from workers.storage import Folder
from workers.victims.cache import VictimCache
from workers.victims.manifest import Manifest

pytestmark = pytest.mark.tf

GRID = "models: [small_cnn]\ndatasets: [digits]\nattacks: [fgsm]\nepsilons: [0.1]\nexamples: 20\n"


@pytest.fixture
def cached(tmp_path: Path) -> Manifest:
    return VictimCache(Folder.at(tmp_path / "victims")).publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)


def robustsweep(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def age(path: Path) -> None:
    two_hours_ago = time.time() - 7200
    os.utime(path, (two_hours_ago, two_hours_ago))


def test_the_cache_is_listed(cached: Manifest, tmp_path: Path) -> None:
    text = robustsweep("list", "victims", "--cache-dir", tmp_path / "victims")
    assert ID in text and cached.weights[:12] in text and "45.0%" in text and "whole" in text
    text = robustsweep("list", "victims", "--cache-dir", tmp_path / "nowhere", code=2)
    assert "no cache of victims at" in text and "--cache-dir" in text


def test_only_what_is_useless_goes_unnamed_and_only_with_yes(cached: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "victims" / ID
    manifest, weights = (folder / f"{cached.weights}.{suffix}" for suffix in ("json", "weights.h5"))
    clean = ("clean", "victims", "--cache-dir", tmp_path / "victims")
    assert "nothing to remove" in robustsweep(*clean, "--yes")
    leftover = folder / ".0123.tmp"
    leftover.write_bytes(b"half")
    manifest.rename(tmp_path / "kept.json")  # a worker between the two, or one that died there
    assert "nothing to remove" in robustsweep(*clean, "--yes")
    age(leftover)
    age(weights)
    text = robustsweep(*clean)
    assert "unfinished" in text and "left behind by a crash" in text and "--yes" in text
    assert weights.exists() and leftover.exists()
    assert "removed " in robustsweep(*clean, "--yes")
    assert list(folder.iterdir()) == []


def test_a_broken_entry_goes_and_a_whole_one_only_when_named(cached: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "victims" / ID
    clean = ("clean", "victims", "--cache-dir", tmp_path / "victims")
    assert "no victim in the cache matches resnet*" in robustsweep(
        "clean", "victims", "resnet*", *clean[2:], code=2
    )
    assert "asked for" in robustsweep("clean", "victims", "small_*", *clean[2:])
    assert len(list(folder.iterdir())) == 2
    (folder / f"{cached.weights}.weights.h5").write_bytes(b"")
    assert "broken" in robustsweep(*clean, "--yes")
    assert list(folder.iterdir()) == []
    VictimCache(Folder.at(tmp_path / "victims")).publish(new_model(0), SPEC, DATA, HISTORY, CLEAN)
    robustsweep("clean", "victims", ID, *clean[2:], "-y")
    assert list(folder.iterdir()) == []


def test_a_training_that_could_go_on_goes_when_named_or_when_its_victim_is_there(
    cached: Manifest, tmp_path: Path
) -> None:
    clean = ("clean", "victims", "--cache-dir", tmp_path / "victims")
    waiting, through = (tmp_path / "victims" / layout.cached_training(one) for one in ("waiting-s0", ID))
    waiting.parent.mkdir()
    for path in (waiting, through):
        path.write_bytes(b"half way")
    assert "not ended" in robustsweep(*clean, "--yes")
    assert waiting.exists() and not through.exists()
    assert "waiting-s0" in robustsweep("clean", "victims", "waiting-*", *clean[2:], "-y")
    assert not waiting.exists() and VictimCache(Folder.at(tmp_path / "victims")).find(ID) == cached


def test_an_output_folder_loses_what_does_not_count(tmp_path: Path) -> None:
    from rich.console import Console

    (tmp_path / "grid.yaml").write_text(GRID)
    grid = load_grid(str(tmp_path / "grid.yaml"))
    out = tmp_path / "out"
    options = RunOptions(output=str(out), backend="inline", runner="tests.support.runners:MadeUp")
    run_sweep(prepare(grid, str(out)), options, PlainProgress(Console(quiet=True)))
    assert "nothing to remove" in robustsweep("clean", out, "--yes")
    [shard] = (out / "shards").rglob("*.parquet")
    broken = shard.with_name(shard.name.replace(".parquet", "0.parquet"))
    broken.write_bytes(shard.read_bytes()[:100])
    leftover = out / "tables" / ".0123.tmp"
    leftover.write_bytes(b"half")
    age(leftover)
    text = robustsweep("clean", out)
    name = str(broken.relative_to(out))  # the table folds what is longer than this
    assert name[:50] in text and "tables/.0123.tmp" in text and broken.exists()
    robustsweep("clean", out, "--yes")
    assert shard.exists() and not broken.exists() and not leftover.exists()
    assert not Store.existing(str(out)).accepted_shards().set_aside
    assert "only victims can be named" in robustsweep("clean", out, "small_cnn", code=2)
    assert "no such output folder" in robustsweep("clean", tmp_path / "nowhere", code=2)
