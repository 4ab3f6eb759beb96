"""Pins: which weights an output folder belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.pins import Pin, pin, pinned_weights, read_pins
from workers.storage import Folder
from workers.victims.manifest import Manifest


def manifest(victim_id: str, weights: str, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "victim_id": victim_id,
        "weights": weights,
        "content": "f" * 64,
        "model": {"name": "small_cnn"},
        "model_options": "",
        "dataset": {"name": "digits"},
        "recipe": {},
        "defence": {"name": "none"},
        "seed": 0,
        "parameters": 10,
        "train_examples": 20,
        "train_accuracy": 0.9,
        "validation_accuracy": 0.8,
        "test_accuracy": 0.85,
        "test_examples": 30,
        "chance": 0.1,
        "seconds": 1.5,
        "trained_at": "2020-01-01T00:00:00+00:00",
        "history": [{"epoch": 1, "loss": 0.5}],
        "versions": {"numpy": "2"},
    }
    return Manifest(**values | changes)


A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_the_first_pin_stays(tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    assert read_pins(output) == {}
    first = pin(output, manifest("v1.5-digits", B))
    assert (first.victim_id, first.weights) == ("v1.5-digits", B)
    assert first.manifest["history"] == [{"epoch": 1, "loss": 0.5}]
    assert pin(output, manifest("v1.5-digits", A)).weights == B
    assert [file.name for file in (tmp_path / "pins").iterdir()] == [f"v1.5-digits.{B}.json"]
    assert read_pins(output) == {"v1.5-digits": first}


def test_of_two_pins_the_smaller_hash_counts(tmp_path: Path) -> None:
    for order in ((A, B, C), (C, B, A)):
        output = Folder.at(tmp_path / order[0])
        for weights in order:  # as workers do that have all found no pin yet
            output.publish(f"pins/v.{weights}.json", manifest("v", weights).to_json())
        assert pinned_weights(output) == {"v": A}
        assert pin(output, manifest("v", C)).weights == A


def test_victims_are_pinned_independently(tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    pin(output, manifest("v", B))
    pin(output, manifest("v.w", A))
    assert pinned_weights(output) == {"v": B, "v.w": A}


def test_foreign_files_are_ignored_and_a_garbled_pin_still_pins(tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    for name in ("notes.txt", "v.json", f"v.{A[:10]}.json", f"v.{A.upper()}.json"):
        output.publish(f"pins/{name}", b"{}")
    for name, content in (("v", b'{"half'), ("w", b"[]")):
        output.publish(f"pins/{name}.{B}.json", content)
    assert read_pins(output) == {name: Pin(name, B, {"victim_id": name, "weights": B}) for name in ("v", "w")}


def test_the_output_folder_may_be_any_filesystem(tmp_path: Path) -> None:
    output = Folder.at(f"file://{tmp_path}/out")
    assert pin(output, manifest("v", A)) == read_pins(output)["v"]
