"""What a URI needs to be opened with is written down and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.store.folder import Store
from tests.support.runners import Misbehaving
from tests.support.sweeps import Quiet, sweep, write_grid
from workers.storage import Folder, redacted
from workers.unit import Done, Unit

SECRET = "s3://AKIA123:HuSh+HuSh@bucket/{}?region=eu&secret_key=HuSh&endpoint_override=localhost%3A9000"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("cannot open 's3://key@bucket': no", "cannot open 's3://***@bucket': no"),
        ("gs://b/x?access_token=abc&x=1", "gs://b/x?access_token=***&x=1"),
        ("abfss://c@account/x?sas_token=a%20b", "abfss://***@account/x?sas_token=***"),
        ("s3://bucket/a@b/c?region=eu", "s3://bucket/a@b/c?region=eu"),
        ("a@b.c and /local/p@th", "a@b.c and /local/p@th"),
        (SECRET.format("x"), "s3://***@bucket/x?region=eu&secret_key=***&endpoint_override=localhost%3A9000"),
    ],
)
def test_what_lets_one_in_is_taken_out_of_a_text(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_secrets_of_a_uri_are_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in footers, records, grids, pins or tables, nor on the screen."""
    bucket = tmp_path / "bucket"

    def at(location: str | Path) -> Folder:
        place = str(location).removeprefix("s3://AKIA123:HuSh+HuSh@bucket").partition("?")[0]
        root = bucket if str(location).startswith("s3://") else Path()
        return Folder(fs.LocalFileSystem(), str(root / place.lstrip("/") if root != Path() else location))

    monkeypatch.setattr(Folder, "at", staticmethod(at))
    output = SECRET.format("out")
    monkeypatch.setattr("sys.argv", ["robustsweep", "run", "grid.yaml", "--output", output])
    grid = write_grid(tmp_path / "moods.yaml", ["work", "raise"])
    progress = Quiet()
    summary = sweep(grid, output, progress=progress, runner="tests.test_secrets:Telltale")
    assert (summary.exit_code, summary.state.units_failed) == (1, 2)
    app_output = ""
    for command in (
        ["status", output],
        ["table", output],
        ["plan", str(grid), "-o", output],
        ["plan", str(grid), "-o", output, "-f", "json"],
        ["status", output, "-f", "json"],
        ["query", output, "FROM failures", "-f", "csv"],
        ["table", output + "x"],
    ):
        result = CliRunner().invoke(app, command)
        app_output += result.output
    assert "***@bucket" in app_output and "units" in app_output
    written = [path for path in bucket.rglob("*") if path.is_file()]
    assert len(written) > 10
    texts = [app_output, *capfd.readouterr(), *progress.said]
    texts += [path.read_bytes().decode("latin-1") for path in written]
    assert not [text for text in texts if "HuSh" in text or "AKIA" in text]
    errors = [failure.error for failure in Store(output).failures()]
    assert all("cannot write to s3://***@bucket/out" in error for error in errors)


class Telltale(Misbehaving):
    """Says in its errors where its output is."""

    def __call__(self, unit: Unit) -> Done:
        try:
            return super().__call__(unit)
        except ValueError as error:
            raise OSError(f"cannot write to {SECRET.format('out')}") from error
