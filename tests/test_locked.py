"""What somebody else has made is data: it leads nowhere, is as large as it says, and moves no terminal."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from orchestrator import console as consoles
from orchestrator.cli import app
from orchestrator.errors import StoreError, UserError
from orchestrator.printable import SafeConsole, printable
from orchestrator.results.export_images import export_images
from orchestrator.results.text import FORMATS
from orchestrator.store.folder import Store
from tests.support.fuzzing import changed, fuzz
from tests.support.results import Cell, results_of
from tests.support.sweeps import rows, sweep, write_grid
from workers import archives, layout
from workers.attacks.stored_images import StoredImagesError, read_stored
from workers.datasets.base import DatasetError
from workers.datasets.images import LARGEST, ImageFolderReader
from workers.datasets.npz import NpzReader
from workers.photographs import PhotographError, read_photograph
from workers.storage import Folder, redacted
from workers.victims.base import ArchitectureError
from workers.victims.cache import _content_hash
from workers.victims.saved import describe_saved


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "out"
    assert sweep(write_grid(tmp_path / "moods.yaml", examples=8, slice=4), output).exit_code == 0
    return output


def invoked(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# -- names and links --------------------------------------------------------------------------------------


def asked_for(output: Path, **changes: str) -> None:
    """Rewrite what the folder's run was asked for."""
    [path] = output.glob("runs/*/cells.parquet")
    table = pq.read_table(path)
    for name, value in changes.items():
        place = table.schema.get_field_index(name)
        values = [value, *table[name].to_pylist()[1:]]
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.types[place]))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "a/b", "..", ".hidden", "a\0b", "", "x" * 300]
)
def test_an_id_that_is_a_path_makes_no_path(output: Path, tmp_path: Path, name: str) -> None:
    asked_for(output, cell_id=name)
    code, said = invoked("table", str(output))
    assert code == 2 and "cells.parquet" in said and "is no cell_id" in said
    cell = Cell(rows=[{"success": True, "distance": 0.1}])
    with pytest.raises(UserError, match=r"is no name of a cell|no image of these cells"):
        export_images([results_of([cell])], {}, tmp_path / "images")
    assert not layout.is_name(name)


def test_a_link_among_what_was_sent_is_no_way_out(output: Path, tmp_path: Path) -> None:
    """Somebody sends an output folder in which `index/` is a link to files of whoever looks at it."""
    before, own = rows(output), tmp_path / "own"
    own.mkdir()
    for name in ("a.parquet", "0" * 32 + ".parquet"):
        pq.write_table(pa.table({"x": [1]}), own / name)
    for name in ("index", "measured"):
        shutil.rmtree(output / name)
        (output / name).symlink_to(own)
    (output / "grid.yaml").unlink()
    (tmp_path / "private").write_text("not for everybody")
    (output / "grid.yaml").symlink_to(tmp_path / "private")
    code, said = invoked("table", str(output))
    assert code == 0, said
    assert rows(output) == before and len(list(own.iterdir())) == 2
    assert Store(str(output)).grid_text() == ""
    (output / "shards" / "other").symlink_to(own)
    code, said = invoked("clean", str(output), "--yes")
    assert code == 0 and len(list(own.iterdir())) == 2
    (output / "shards").rename(tmp_path / "elsewhere")
    (output / "shards").symlink_to(tmp_path / "elsewhere")
    code, said = invoked("clean", str(output), "--yes")
    assert code == 2 and "is a link" in said
    assert rows(output) == before


# -- terminals --------------------------------------------------------------------------------------------

ESCAPES = "\x1b]0;pwned\x07\x1b[2J\x1b[31m\x9b2J\x7f\u202eexe.txt"


@given(st.text())
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    if text.isprintable():
        assert shown == text


def test_no_name_moves_a_terminal(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, labels, failures and errors of a crafted folder, as a person at a terminal sees them."""
    asked_for(output, model=f"a{ESCAPES}", model_label=f"b{ESCAPES}", recipe=ESCAPES)
    [status] = output.glob("runs/*/status.json")
    said = {**json.loads(status.read_text()), "grid": ESCAPES, "note": ESCAPES, "failures": [ESCAPES]}
    status.write_text(json.dumps({**said, "workers": {ESCAPES: ESCAPES}}))
    [pin] = (output / "pins").iterdir()
    pin.write_text(json.dumps({**json.loads(pin.read_text()), "dataset": {"name": ESCAPES}}))
    (output / "shards" / f"x{ESCAPES.replace('/', '')}.parquet").write_bytes(b"no shard")
    monkeypatch.setattr(consoles.Console, "is_terminal", property(lambda self: True))
    commands = [["table"], ["status"], ["query", "FROM victims"], ["query", "SELECT model FROM cells"]]
    commands += [["query", "SELECT model, model_label FROM cells", "--format", name] for name in FORMATS]
    commands += [["table", "--format", name] for name in FORMATS] + [["status", "--format", "json"]]
    for words in commands:
        _, text = invoked(words[0], str(output), *words[1:])
        text = re.sub(r"\x1b\[[0-9;?]*[A-Zhlm]", "", text)  # Rich's own, for colours and its spinner
        assert not re.search("[\x07\x1b\x7f-\x9f\u202a-\u202e]", text), (words, text)
        assert len(text) > 20
    _, text = invoked("table", str(output / ESCAPES))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Zhlm]", "", text)
    assert "\x1b" not in text and r"\x1b]0;pwned" in text


def test_a_safe_console_still_has_colours() -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=True, color_system="standard")
    console.print("[red]plain[/] \x1b[32mnot\x1b[0m", highlight=False)
    assert stream.getvalue() == "\x1b[31mplain\x1b[0m \\x1b[32mnot\\x1b[0m\n"


# -- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcDEF123456", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic ***"),
        ("the key is wJalrXUtnFEMI/K7MDENG/bPx", "the key is ***"),
        (
            "a path /home/me/.ssh/id_ed25519 and a word standard",
            "a path /home/me/.ssh/id_ed25519 and a word standard",
        ),
    ],
)
def test_secrets_of_headers_and_of_the_environment_are_taken_out(
    monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPx")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id_ed25519")
    monkeypatch.setenv("TOKEN_MODE", "standard")
    assert redacted(text) == shown


# -- archives and images ----------------------------------------------------------------------------------


def npz(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """The beginning of an array in NumPy's format, and nothing behind it."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": kind, "fortran_order": False, "shape": shape})
    return sink.getvalue()


PLAIN = {
    "x_train": np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4),
    "y_train": np.arange(6) % 2,
    "x_test": np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4),
    "y_test": np.arange(4) % 2,
}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    reader, found = NpzReader(name="data", file=Folder.at(path)), {}

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        found[name] = np.zeros(shape, dtype)
        return found[name]

    reader.read(reader.info(), allocate)
    return found


@pytest.mark.parametrize("shape", [(10**12,), (10**18, 4, 4), (-5, 4), (2**62, 2**62)])
@pytest.mark.parametrize("name", sorted(PLAIN))
def test_an_array_that_is_not_there_gets_no_room(tmp_path: Path, shape: tuple[int, ...], name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(npz(**PLAIN))) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    (tmp_path / "data.npz").write_bytes(zipped({**members, f"{name}.npy": header(shape)}))
    with pytest.raises(DatasetError, match=r"is promised, and \d+ bytes are there"):
        read_npz(tmp_path / "data.npz")


def test_an_archive_larger_than_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "physical_memory", lambda: 2 * 10**6)
    bomb = npz(images=np.zeros((1, 1100, 1000, 1), np.uint8), example_index=np.zeros(1, int))
    (tmp_path / "bomb.npz").write_bytes(bomb)
    with pytest.raises(StoredImagesError, match=r"unpacks to 1,100,\d+ bytes; at most 1,000,000 are allowed"):
        read_stored(str(tmp_path / "bomb.npz"))
    bomb = zipped({"config.json": b" " * 1_100_000, "model.weights.h5": b""})
    with pytest.raises(ArchitectureError, match="unpacks to 1,100,000 bytes"):
        describe_saved(bomb)


@pytest.mark.parametrize("name", ["../../.ssh/authorized_keys", "/etc/cron.d/x", "a\\..\\b", "C:x"])
def test_a_keras_file_whose_members_lead_elsewhere_is_none(name: str) -> None:
    with pytest.raises(ArchitectureError, match="which is no place inside of it"):
        describe_saved(zipped({"config.json": b"{}", "model.weights.h5": b"", name: b""}))


def test_a_keras_file_of_endless_brackets_is_none() -> None:
    with pytest.raises(ArchitectureError, match="nested too deeply"):
        describe_saved(zipped({"config.json": b"[" * 10**5, "model.weights.h5": b""}))


@fuzz
@given(data=changed(npz(**PLAIN)))
def test_damaged_datasets(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(data)
    try:
        found = read_npz(path)
    except DatasetError as error:
        assert str(error).strip()
        return
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.astype(found[name].dtype).tobytes() for name, array in PLAIN.items()
    }


STORED = {"images": PLAIN["x_test"][..., None], "example_index": np.arange(4)}


@fuzz
@given(data=changed(npz(**STORED)))
def test_damaged_files_of_stored_images(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "stored.npz"
    path.write_bytes(data)
    try:
        found = read_stored(str(path))
    except StoredImagesError as error:
        assert str(error).strip()
        return
    assert (found.images[0] == STORED["images"]).all() and (found.example_index == np.arange(4)).all()


CONFIG = {"config": {"layers": [{"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 1]}}]}}


@fuzz
@given(data=changed(zipped({"config.json": json.dumps(CONFIG).encode(), "model.weights.h5": b"w" * 99})))
def test_damaged_keras_files(data: bytes) -> None:
    try:
        assert describe_saved(data).input_shape in ((8, 8, 1), None)
    except ArchitectureError as error:
        assert str(error).strip()


def png(width: int, height: int) -> bytes:
    """A file that says it is so large; there are no pixels behind it."""
    sink = io.BytesIO()
    Image.new("L", (8, 8)).save(sink, format="PNG")
    data = bytearray(sink.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_460, 30_000, 2**31 - 1])
def test_an_image_too_large_to_decode_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    assert 9_459**2 < LARGEST < 9_460**2
    for split in ("train", "test"):
        for kind in ("a", "b"):
            (tmp_path / split / kind).mkdir(parents=True)
            (tmp_path / split / kind / "0.png").write_bytes(png(side, side))
    with pytest.raises(DatasetError, match=r"at most 89,478,485 are allowed|exceeds limit|cannot be decoded"):
        ImageFolderReader(name="bombs", folder=Folder.at(tmp_path), size=8).info()
    with pytest.raises(PhotographError, match=r"at most 89,478,485 are allowed|exceeds limit|no image"):
        read_photograph(str(tmp_path / "train" / "a" / "0.png"), (8, 8, 1))


def test_weights_that_lie_in_another_file_are_not_looked_for(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "private").write_bytes(b"a secret of 16 by")
    for kind in ("external", "virtual", "promised"):
        sink = io.BytesIO()
        with h5py.File(sink, "w") as file:
            if kind == "external":
                file.create_dataset("w", (4,), "f4", external=[(str(tmp_path / "private"), 0, 16)])
            elif kind == "virtual":
                layout_ = h5py.VirtualLayout((4,), "f4")
                layout_[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "w", (4,))
                file.create_virtual_dataset("w", layout_)
            else:
                file.create_dataset("w", (10**10,), "f4", chunks=(10**6,))
        with pytest.raises(ValueError, match="w is not all in this file"):
            _content_hash(sink.getvalue())


# -- a shard that says one thing and holds another ---------------------------------------------------------


def test_rows_that_a_disk_has_changed_are_an_error_and_no_number(output: Path) -> None:
    """One bit of the pixels or of a distance: Parquet's pages have checksums, which are looked at."""
    shard = min((output / "shards").rglob("*.parquet"))
    metadata = pq.read_metadata(shard)
    names = [metadata.row_group(0).column(i).path_in_schema for i in range(metadata.num_columns)]
    column = metadata.row_group(0).column(names.index("linf"))
    data = bytearray(shard.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    before = shard.stat()
    shard.write_bytes(data)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))  # the index still knows it
    shutil.rmtree(output / "measured")
    with pytest.raises(StoreError, match=rf"cannot read the rows of shards/.*{shard.name}.*page"):
        Store(str(output)).results().measured()
    for words in (("table", str(output)), ("query", str(output), "SELECT sum(linf) FROM examples")):
        code, said = invoked(*words)
        assert code == 2 and "Traceback" not in said and said.startswith("error:"), said
