"""What an output folder may be called."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.store.locate import existing_output


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made("outputs/digits")
    made("outputs/poster")
    Path("outputs/victims").mkdir()


def made(folder: str) -> None:
    run = Path(folder) / "runs" / "20300101T000000"
    run.mkdir(parents=True)
    (run / "cells.parquet").touch()


@pytest.mark.parametrize("name", ["digits", "outputs/digits", "./outputs/digits", "outputs/digits/"])
def test_a_bare_name_is_that_of_a_folder_in_outputs(name: str, tmp_path: Path) -> None:
    store = existing_output(name)
    assert Path(store.location).resolve() == tmp_path / "outputs" / "digits"
    assert len(store.run_ids()) == 1


def test_a_folder_here_goes_first() -> None:
    made("digits")
    assert existing_output("digits").location == "digits"
    Path("poster").mkdir()
    with pytest.raises(StoreError, match=r"^poster is not an output folder: .*; outputs/poster is one$"):
        existing_output("poster")
    Path("outputs/plain").mkdir()
    Path("plain").mkdir()
    with pytest.raises(StoreError, match=r"no sweep has run into it$"):
        existing_output("plain")


def test_a_file_of_that_name_is_no_folder() -> None:
    Path("digits").touch()
    assert existing_output("digits").location == "outputs/digits"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such output folder: nowhere, nor outputs/nowhere"),
        ("digit", 'no such output folder: digit, nor outputs/digit; did you mean "digits"?'),
        ("victms", "no such output folder: victms, nor outputs/victms"),  # a cache is no output folder
        ("outputs/digit", "no such output folder: outputs/digit"),
        ("../digits", "no such output folder: ../digits"),
        ("/digits", "no such output folder: /digits"),
        ("victims", "outputs/victims is not an output folder: no sweep has run into it"),
        (".", ". is not an output folder: no sweep has run into it"),
    ],
)
def test_the_error_says_where_was_looked(name: str, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        existing_output(name)
    assert str(caught.value) == message
