"""What `plan` shows, where things share a label."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from orchestrator import show
from orchestrator.grid.load import load_grid
from orchestrator.run.prepare import prepare
from tests.support.sweeps import sweep, write_grid


def shown(grid: Path, output: Path) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show.plan(console, prepare(load_grid(str(grid)), str(output)))
    return console.export_text()


def rows(text: str) -> list[list[str]]:
    lines = text.splitlines()[3:]
    return [
        re.split(r" {2,}", line.strip())
        for line in lines[: next(i for i, x in enumerate(lines) if " cells: " in x)]
    ]


def attack(kind: str, epsilons: list[float]) -> dict[str, object]:
    return {"name": "foo", "factory": f"tests.support.runners:{kind}", "epsilons": epsilons}


def test_attacks_and_victims_of_one_label_have_rows_of_their_own(tmp_path: Path) -> None:
    grid = write_grid(
        tmp_path / "g.yaml",
        models=["small_cnn", {"name": "small_cnn", "train": {"epochs": 9}}, "wide_cnn"],
        attacks=[attack("MadeUp", [0, 0.1]), attack("Noop", [0.2]), "fgsm"],
        seeds=[0, 1],
    )
    found = rows(shown(grid, tmp_path / "out"))
    assert len(found) == len({(row[0], row[2]) for row in found}) == 9
    models = {row[0] for row in found}
    assert models == {"small_cnn", "small_cnn (epochs=9)", "wide_cnn"}
    for row in found:
        name, epsilons, cells = row[2], row[3], row[5]
        expected = {"fgsm linf": ("0 0.1", "4")}.get(name) or (
            ("0.2", "2") if "0.2" in epsilons else ("0 0.1", "4")
        )
        assert (epsilons, cells) == expected
        assert name == "fgsm linf" or re.fullmatch(r"foo linf \[[0-9a-f]{6}\]", name)


def test_what_is_left_to_do_is_counted_by_row(tmp_path: Path) -> None:
    output = tmp_path / "out"
    sweep(write_grid(tmp_path / "g.yaml", ["work"]), output)
    grid = write_grid(
        tmp_path / "g.yaml",
        ["work", "more"],
        epsilons=[0, 0.1, 0.2],
        exclude=[{"attack": "more", "epsilon": 0.1}],
    )
    found = {row[2]: (row[3], row[5], row[6]) for row in rows(shown(grid, output))}
    assert found["work (mood=work) linf"] == ("0 0.1 0.2", "3", "1")
    assert found["more (mood=more) linf"] == ("0 0.2", "2", "2")  # the epsilons of its own cells


def test_how_victims_come_by_their_weights_is_said_as_it_is(tmp_path: Path) -> None:
    grid = write_grid(
        tmp_path / "g.yaml",
        models=["small_cnn", {"name": "mobilenet_v2", "weights": "imagenet"}, "wide_cnn"],
        seeds=[0, 1],
    )
    text = shown(grid, tmp_path / "out")
    assert "victims: 4 to train and 2 to fine-tune, or find in the cache" in text


def test_a_model_that_is_only_loaded_is_not_trained(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(tmp_path / "mine.keras")
    models = [{"name": "mine", "path": str(tmp_path / "mine.keras")}, "small_cnn"]
    text = shown(write_grid(tmp_path / "g.yaml", models=models), tmp_path / "out")
    assert "victims: 1 to train, or find in the cache; 1 to load" in text
    only = shown(write_grid(tmp_path / "g.yaml", models=models[:1]), tmp_path / "out")
    assert "victims: 1 to load" in only


def test_a_plan_breaks_no_number_and_fits_its_terminal(tmp_path: Path) -> None:
    grid = write_grid(
        tmp_path / "g.yaml",
        models=["small_cnn", "wide_cnn"],
        attacks=["fgsm", {"name": "carlini_wagner", "norm": "l2", "epsilons": [0, 0.5, 1]}],
        epsilons=[0, 0.01, "6/255", "8/255", 0.1, 0.15],
    )
    words = set(shown(grid, tmp_path / "out").split())
    assert {"6/255", "8/255", "0.15"} <= words
    for width in (120, 80, 60, 40):
        with open("/dev/null", "w") as nowhere:
            console = Console(width=width, record=True, file=nowhere, force_terminal=True)
            show.plan(console, prepare(load_grid(str(grid)), str(tmp_path / "out")))
        lines = console.export_text().splitlines()[1:]
        table = lines[: next(i for i, line in enumerate(lines) if " cells: " in line)]
        assert max(map(len, table)) <= width
        assert {word for word in " ".join(table).split() if word[0].isdigit()} <= words
