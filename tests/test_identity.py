"""Ids are a promise to everyone with results on disk: what changes them, and what must not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from tests.support.victims import cells_of

GRID = """\
models: [small_cnn, {name: wide_cnn, width: 8}]
datasets: [digits]
attacks: [fgsm, {name: bim, norm: l2, steps: 5, epsilons: [1]}]
epsilons: [0, 8/255]
seeds: [0, 1]
"""

# What these cells measure is on people's disks under these names. A changed id means that every result
# is computed again: edit this list only where a VERSION was raised because results change. (FGSM and BIM: 3,
# metrics: 2.)
GOLDEN = [
    "small_cnn-digits-s0-fgsm-linf-0-f2683040b4ad4098",
    "small_cnn-digits-s0-fgsm-linf-0.0313725-bfd6ae765573e20d",
    "small_cnn-digits-s0-bim-l2-1-de2adf09e829b04b",
    "small_cnn-digits-s1-fgsm-linf-0-396f7b08f7346aaf",
    "small_cnn-digits-s1-fgsm-linf-0.0313725-19285e8aba2f5798",
    "small_cnn-digits-s1-bim-l2-1-a913d1d7cf42f659",
    "wide_cnn-digits-s0-fgsm-linf-0-bde43dd633c47137",
    "wide_cnn-digits-s0-fgsm-linf-0.0313725-6b0418205eb08b7a",
    "wide_cnn-digits-s0-bim-l2-1-d2f0f4447c839eba",
    "wide_cnn-digits-s1-fgsm-linf-0-79144c84b193a293",
    "wide_cnn-digits-s1-fgsm-linf-0.0313725-be088a69e7713b12",
    "wide_cnn-digits-s1-bim-l2-1-f5c1000327ed1ecb",
]


def parse(tmp_path: Path, text: str, *overrides: str) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return load_grid(str(path), overrides)


def ids(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    return [cell.cell_id for cell in cells_of(parse(tmp_path, text, *overrides))]


def test_golden_ids(tmp_path: Path) -> None:
    assert ids(tmp_path, GRID) == GOLDEN


def test_ids_are_unique_and_fit_a_file_name(tmp_path: Path) -> None:
    cells = list(cells_of(parse(tmp_path, GRID)))
    assert len({cell.cell_id for cell in cells}) == len(cells) == 12
    for cell in cells:
        for part in (cell.victim.victim_id, cell.attack.attack_id):
            assert set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")


@pytest.mark.parametrize(
    "overrides",
    [
        ["examples=7", "slice=3", "keep=all"],  # how much
        ["name=other"],
        ["attack_seed=5"],  # neither attack has randomness
        ["models=[{name: small_cnn, width: 16}, {name: wide_cnn, width: 8}]"],  # a default spelled out
        ["attacks.0={name: fgsm, norm: linf, adaptive: true}"],
        ["train={epochs: 5, batch_size: 64}"],
        ["pixel_range=[0, 255]", "epsilons=[0, 8]", "attacks.1.epsilons=[255]"],  # another scale
        ["epsilons=[8/255, 0.0]"],  # another order
        ["seeds=[1, 0]"],
        ["models=[{name: wide_cnn, width: 8}, small_cnn]"],
        ["defences=[none]"],
        ["datasets=[{name: digits, train: {epochs: 5}}]"],
    ],
)
def test_what_does_not_change_ids(tmp_path: Path, overrides: list[str]) -> None:
    assert sorted(ids(tmp_path, GRID, *overrides)) == sorted(GOLDEN)


@pytest.mark.parametrize(
    "overrides",
    [
        ["models=[{name: small_cnn, width: 17}, {name: wide_cnn, width: 9}]"],
        ["train={epochs: 6}"],
        ["datasets=[{name: digits, train: {learning_rate: 0.01}}]"],
        ["seeds=[2, 3]"],
        ["epsilons=[0.01, 0.02]", "attacks.1.epsilons=[2]"],
    ],
)
def test_what_changes_every_id(tmp_path: Path, overrides: list[str]) -> None:
    assert not set(ids(tmp_path, GRID, *overrides)) & set(GOLDEN)


def test_a_users_own_object_counts_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = GRID.replace(
        "[small_cnn, {name: wide_cnn, width: 8}]", '[{name: mine, factory: "my_own_nets:build"}]'
    )
    module = tmp_path / "my_own_nets.py"
    module.write_text("raise RuntimeError('planning must not run this')\ndef build(): return 1\n")
    first = ids(tmp_path, text)
    module.write_text("import nothing_there\n# a comment elsewhere\ndef build(): return 1\n")
    assert ids(tmp_path, text) == first
    module.write_text("def build(): return 2\n")
    assert not set(ids(tmp_path, text)) & set(first)
    module.write_text("VERSION = 3\ndef build(): return 2\n")
    declared = ids(tmp_path, text)
    module.write_text("VERSION = 3\ndef build(): return 4\n")
    assert ids(tmp_path, text) == declared
    module.write_text("VERSION = 4\ndef build(): return 4\n")
    assert not set(ids(tmp_path, text)) & set(declared)
    assert "my_own_nets" not in sys.modules


def test_exclude_leaves_out_what_it_names(tmp_path: Path) -> None:
    cells = list(
        cells_of(parse(tmp_path, GRID, "exclude=[{model: small_cnn, attack: fgsm, epsilon: 8/255}]"))
    )
    left_out = set(GOLDEN) - {cell.cell_id for cell in cells}
    assert left_out == {one for one in GOLDEN if one.startswith("small_cnn") and "fgsm-linf-0.03" in one}
    assert len(left_out) == 2


DEFENDED = """\
models: [small_cnn]
datasets: [digits]
attacks: [fgsm, {name: fgsm, adaptive: false}]
epsilons: [0.1]
defences: [none, jpeg, {name: bit_depth, bits: 1}, {name: gaussian_noise, sigma: 0.2}]
"""

GOLDEN_DEFENDED = [
    "small_cnn-digits-s0-fgsm-linf-0.1-3c518f8ae0ab0d09",
    "small_cnn-digits-jpeg-s0-fgsm-linf-0.1-c430743b3bc7489c",
    "small_cnn-digits-jpeg-s0-fgsm-linf-0.1-c5847c7beaaac005",
    "small_cnn-digits-bit_depth-s0-fgsm-linf-0.1-17226dec82fa3679",
    "small_cnn-digits-bit_depth-s0-fgsm-linf-0.1-fb0fa88fb7f137d9",
    "small_cnn-digits-gaussian_noise-s0-fgsm-linf-0.1-9592bc633a922267",
    "small_cnn-digits-gaussian_noise-s0-fgsm-linf-0.1-b77dc96fa1ccc02b",
]


def test_golden_ids_of_defences_and_oblivious_attacks(tmp_path: Path) -> None:
    """An oblivious attack has cells of its own, but for a victim whose gradients are the same."""
    assert ids(tmp_path, DEFENDED) == GOLDEN_DEFENDED
    spelled = "defences=[{name: jpeg, quality: 75}, {name: bit_depth, bits: 1}, null]"
    assert set(ids(tmp_path, DEFENDED, spelled)) < set(GOLDEN_DEFENDED)
    scaled = ["pixel_range=[0, 255]", "epsilons=[25.5]", "defences=[{name: gaussian_noise, sigma: 51}]"]
    assert ids(tmp_path, DEFENDED, *scaled) == GOLDEN_DEFENDED[-2:]


def test_a_defence_at_inference_has_the_network_of_the_undefended_victim(tmp_path: Path) -> None:
    cells = cells_of(parse(tmp_path, DEFENDED, "seeds=[0, 1]", "train={epochs: 2}"))
    undefended = {cell.victim.victim_id: cell.victim for cell in cells if cell.victim.defence.name == "none"}
    assert {cell.victim.network.victim_id: cell.victim.network for cell in cells} == undefended
    assert len(undefended) == 2 and len({cell.victim.victim_id for cell in cells}) == 8
    for cell in cells:
        assert cell.victim.network.seed == cell.victim.seed
        assert (cell.victim.network == cell.victim) == (cell.victim.defence.name == "none")


def test_a_users_own_defence_counts_by_its_source(tmp_path: Path) -> None:
    text = DEFENDED.replace("defences: [", 'defences: [{name: mine, factory: "my_own_filters:make"}, ')
    module = tmp_path / "my_own_filters.py"
    module.write_text("raise RuntimeError('planning must not run this')\ndef make(): return 1\n")
    first = ids(tmp_path, text)
    assert [one for one in first if "-mine-" in one] == first[:2] and first[2:] == GOLDEN_DEFENDED
    module.write_text("def make(): return 2\n")
    assert len(set(ids(tmp_path, text)) & set(first)) == len(first) - 2
