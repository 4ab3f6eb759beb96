"""Every column of every view has its meaning, and the page says it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from orchestrator.results.columns import MEANINGS
from orchestrator.results.fence import VIEWS

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "write_columns.py"))


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_has_a_meaning_and_no_other(view: str) -> None:
    names = [name for name, _ in SCRIPT["columns_of_views"]()[view]]
    assert sorted(MEANINGS[view]) == sorted(names)
    for meaning in MEANINGS[view].values():
        assert meaning and not meaning.endswith(".") and "|" not in meaning and "{" not in meaning


def test_the_page_is_what_is_written_from_them() -> None:
    assert SCRIPT["PAGE"].read_text() == SCRIPT["page"](), "run python docs/write_columns.py"
