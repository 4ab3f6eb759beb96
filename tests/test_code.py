"""Which code runs: what counts as a difference, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workers.code import Code, code_in, this_code
from workers.unit import WorkerSettings
from workers.worker import Worker


def test_this_code_agrees_with_itself() -> None:
    assert this_code().differences(this_code()) == []
    assert len(this_code().source) == 64
    assert dict(this_code().libraries).keys() == {"tensorflow", "keras", "numpy"}


def test_a_changed_added_or_moved_file_is_another_source(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    file = tmp_path / "attacks" / "fgsm.py"
    file.write_text("STEP = 1.0")
    found = [code_in(tmp_path).source]
    file.write_text("STEP = 0.25")
    found.append(code_in(tmp_path).source)
    file.rename(tmp_path / "fgsm.py")
    found.append(code_in(tmp_path).source)
    (tmp_path / "more.py").touch()
    found.append(code_in(tmp_path).source)
    assert len(set(found)) == 4
    (tmp_path / "notes.txt").touch()  # no code
    assert code_in(tmp_path).source == found[-1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(this_code(), version="99.0"), r"robustsweep \S+, not 99\.0: install the same everywhere"),
        (replace(this_code(), source="0" * 64), r"other source files \(\w{8}, not 00000000\)"),
        (
            replace(this_code(), libraries=(("keras", "2.15"), ("numpy", "1.0"))),
            r"keras \S+, not 2\.15; numpy",
        ),
        (replace(this_code(), libraries=()), "tensorflow .*, not any"),
    ],
)
def test_a_worker_with_other_code_does_not_start(other: Code, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"runs other code than the driver: .*{message}"):
        Worker(WorkerSettings("o", "c", "r"), code=other)
