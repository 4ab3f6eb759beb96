"""Wrong grids: every problem at once, each with its line, what was found, what is allowed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from orchestrator.errors import GridError, UserError
from orchestrator.grid.load import load_grid, shipped_grids
from orchestrator.grid.numbers import exact, number_text
from orchestrator.grid.template import write_grid

GOOD = """\
models: [small_cnn]
datasets: [digits]
attacks: [fgsm]
epsilons: [0, 0.1]
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return str(path)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        load_grid(write(tmp_path, text), overrides)
    return [str(problem) for problem in caught.value.problems]


def test_every_shipped_grid_loads() -> None:
    assert "digits" in shipped_grids()
    for name in shipped_grids():
        assert load_grid(name).name == name


def test_the_grid_that_init_writes_loads(tmp_path: Path) -> None:
    write_grid(str(tmp_path / "mine.yaml"))
    assert load_grid(str(tmp_path / "mine.yaml")).name == "mine"
    with pytest.raises(UserError, match="never overwrites"):
        write_grid(str(tmp_path / "mine.yaml"))


def test_all_problems_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "modles: [small_cnn]\n"
        "models: [small_cn]\n"
        "datasets: [digit]\n"
        "attacks:\n"
        "  - fgms\n"
        "  - {name: bim, stepz: 3}\n"
        "epsilons: [-0.1]\n"
        "examples: 0\n",
    )
    assert [text.split(":")[0] for text in found] == [f"line {n}" for n in (1, 2, 3, 5, 6, 7, 8)]
    assert 'did you mean "models"?' in found[0]
    assert found[1].startswith(
        'line 2: models[0]: unknown model "small_cn"; did you mean "small_cnn"? allowed: '
    )
    assert found[1].endswith(", small_cnn, vgg16, vgg19, wide_cnn, xception")
    assert 'did you mean "digits"?' in found[2]
    assert 'did you mean "fgsm"?' in found[3]
    assert 'attacks[1].stepz: unknown option of attack bim "stepz"' in found[4]
    assert "allowed: eot, like, loss, relative_step_size, step_size, steps" in found[4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epsilons: [-0.1]", "epsilon -0.1 is negative; 0 or more is allowed"),
        (
            "epsilons: [8]",
            "epsilon 8 is more than the pixel range [0, 1] is wide; did you mean 8/255, or pixel_range: "
            "[0, 255]? at most 1 is allowed",
        ),
        ("epsilons: [255.0]", "did you mean 255/255, or pixel_range: [0, 255]?"),
        ("epsilons: [256]", "epsilon 256 is more than the pixel range [0, 1] is wide; at most 1 is allowed"),
        ("epsilons: [1.5]", "epsilon 1.5 is more than the pixel range [0, 1] is wide; at most 1 is allowed"),
        ("epsilons: [.nan]", "found nan; a finite number is allowed"),
        ("epsilons: [.inf]", "found inf; a finite number is allowed"),
        ('epsilons: ["8/0"]', 'found "8/0": a division by zero'),
        ('epsilons: ["1e"]', 'found "1e"; a number or a fraction such as "8/255" is allowed'),
        ('epsilons: ["1e999999999"]', "a number or a fraction"),
        ("epsilons: [true]", "found True; a number or a fraction"),
        ("epsilons: [0.1, 1/10]", "epsilon 1/10 stands here twice"),
        ("epsilons: []", "the list is empty"),
        ("epsilons: {linf: {digits: []}}", "epsilons.linf.digits: the list is empty"),
        ("epsilons: {l1: [0.1]}", 'unknown norm "l1"; allowed: l2, linf'),
        ("epsilons: {l2: [0.1]}", "no linf epsilons for fgsm on digits"),
        ("epsilons: {linf: {mnist: [0.1]}}", 'unknown dataset of this grid "mnist"; allowed: digits'),
        ("models: []", "models: the list is empty"),
        ("models: 3", "found 3; a name, or a mapping"),
        ("models: [models/mine.keras]", "it looks like a path, and a name is one word"),
        ("models: [{name: small_cnn, width: wide}]", "found 'wide'; allowed: a valid integer"),
        ("models: [{name: small_cnn, width: 0}]", "found 0; allowed: greater than or equal to 1"),
        ("models: [small_cnn, small_cnn]", '"small_cnn" stands twice with the same options'),
        ("models: [{width: 3}]", "a model needs a name"),
        ('models: ["no_such_module_at_all:build"]', 'cannot find the Python module "no_such_module_at_all"'),
        (
            'models: ["tests.support.runners:Nothing"]',
            'defines no "Nothing" at its top level',
        ),
        ("attacks: [{name: bim, steps: [1]}]", "attacks[0].steps: found [1]; allowed: a valid integer"),
        ("attacks: [{name: bim, steps: true}]", "attacks[0].steps: found True"),
        ("attacks: [{name: bim, step_size: 2/0}]", "division by zero"),
        ("attacks: [{name: fgsm, norm: l3}]", 'unknown norm of fgsm "l3"'),
        (
            "attacks: [{name: fgsm, adaptive: false}]",
            "attacks[0].adaptive: found false; an oblivious evaluation needs a defence at inference",
        ),
        (
            "attacks: [{name: fgsm, adaptive: 0}]\ndefences: [jpeg]",
            "attacks[0].adaptive: found 0; true or false is allowed",
        ),
        (
            "attacks: [{name: square, adaptive: false}]\ndefences: [jpeg]",
            "attacks[0].adaptive: found false; square uses no gradients",
        ),
        (
            "defences: [jpg]",
            'unknown defence "jpg"; did you mean "jpeg"? allowed: adversarial_training, bit_depth, ',
        ),
        ("defences: [{name: jpeg, quality: 0}]", "defences[0].quality: found 0; allowed: greater than or"),
        ("defences: [{name: jpeg, quality: 75.5}]", "defences[0].quality: found 75.5; allowed: a valid int"),
        ("defences: [{name: bit_depth, bits: 9}]", "defences[0].bits: found 9; allowed: less than or equal"),
        ("defences: [{name: median_smoothing, size: 1}]", "defences[0].size: found 1; allowed: greater"),
        ("defences: [{name: gaussian_noise, sigma: 0}]", "defences[0].sigma: found 0.0; allowed: greater"),
        ("defences: [{name: gaussian_noise, sigma: much}]", 'defences[0].sigma: found "much"; a number or'),
        ("defences: [{name: random_resize_pad, least: 1}]", "defences[0].least: found 1"),
        (
            "defences: [{name: random_resize_pad, least: 0.1}]",
            "defences: random_resize_pad with least 0.1 would shrink the images to nothing; those of digits "
            "have 8×8×1 (exclude: [{defence: random_resize_pad, dataset: digits}] leaves them out)",
        ),
        ("defences: [jpeg, {name: jpeg, quality: 75}]", '"jpeg" stands twice with the same options'),
        (
            "defences: [{name: none, factory: tests.test_defences:spec}]",
            'defences[0].name: "none" is the name of a defence that is there',
        ),
        ("defences: [{name: mine, factory: tests.test_defences:no}]", 'defines no "no" at its top level'),
        (
            "defences: [{name: mine, factory: tests.test_defences:spec, a: [1]}]",
            "found a list; a text, a num",
        ),
        ("train: {epochz: 3}", 'did you mean "epochs"?'),
        ("train: {epochs: 0}", "train.epochs: found 0"),
        ("train: 5", "found 5; a mapping such as {epochs: 5}"),
        ("examples: 1.5", "found 1.5; a whole number, 1 or more, is allowed"),
        ("keep: some", 'a whole number, 0 or more, is allowed or "all"'),
        ("seeds: [-1]", "found -1; a whole number, 0 to 2147483647"),
        ("seeds: [1, 1]", '"1" stands twice'),
        ("seeds: 3", "seeds: found 3; a list is allowed: [3] for the seed 3, [0, 1, 2] for 3 seeds"),
        ("seeds: 0", "found 0; a list is allowed: [0] for the seed 0"),
        ("seeds: 1", "found 1; a list is allowed: [1] for the seed 1, [0] for 1 seed"),
        ("seeds: 10", "[10] for the seed 10, [0, …, 9] for 10 seeds"),
        ("seeds: -1", "found -1; a whole number, 0 to 2147483647, is allowed"),
        ("pixel_range: [1, 1]", "two numbers, low then high"),
        ("pixel_range: 255", "two numbers, low then high"),
        ("name: ../evil", "and not a path"),
        ("name: victims", "the cache of victims lies there"),
        ("exclude: [{model: wide_cnn}]", '"wide_cnn" matches nothing in this grid; it has: small_cnn'),
        ("exclude: [{epsilon: 0.3}]", '"0.3" matches nothing in this grid; it has: 0, 0.1'),
        ("exclude: [{attack: FGSM}]", 'did you mean "fgsm"? it has: fgsm'),
        ("exclude: [{modle: small_cnn}]", 'did you mean "model"?'),
        ("exclude: [small_cnn]", "a mapping such as {model: small_cnn, epsilon: 0.3} is allowed"),
    ],
)
def test_one_wrong_line(tmp_path: Path, line: str, message: str) -> None:
    key = line.split(":")[0]
    kept = [one for one in GOOD.splitlines() if not one.startswith(f"{key}:")]
    found = problems(tmp_path, "\n".join([*kept, line]))
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("models: [a\nb: c", "line 2: not valid YAML"),
        ("models: small\n\tdatasets: x", "not valid YAML"),
        ("- a\n- b\n", "a grid is a mapping of keys"),
        ("models: [small_cnn]\nmodels: [wide_cnn]\n", "the key stands here twice"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{k}: &{k} [{','.join(['*' + j] * 9)}]\n" for j, k in zip("abcdefgh", "bcdefghi", strict=True)
        ), "values once its aliases are followed"),
        ("models: " + "[" * 400_000 + "]" * 400_000, "nested too deeply"),
        ("? [a]\n: b\n", "a key must be a plain word"),
        ("a: !!python/object/apply:os.system [true]\n", 'unknown key "a"'),
    ],
)  # fmt: skip
def test_what_is_no_grid_at_all(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GridError) as caught:
        load_grid(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_folder_a_huge_file_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GridError, match="this is a folder"):
        load_grid(str(tmp_path))
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as stream:
        stream.truncate(50_000_000)
    with pytest.raises(GridError, match="50,000,000 bytes; a grid has at most 1,000,000"):
        load_grid(str(huge))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(GridError, match="not UTF-8 text"):
        load_grid(str(tmp_path / "binary.yaml"))
    with pytest.raises(UserError, match="no such file"):
        load_grid(str(tmp_path / "missing.yaml"))
    with pytest.raises(UserError, match=r'no grid "digit".*did you mean "digits"'):
        load_grid("digit")


def test_pixel_quantities_move_to_the_unit_scale_exactly(tmp_path: Path) -> None:
    text = GOOD.replace("[fgsm]", "[{name: bim, step_size: 0.02}]").replace("[0, 0.1]", "[0, 0.1, 8/255]")
    grid = load_grid(write(tmp_path, text + "pixel_range: [-1, 1]\n"))
    (attack,) = grid.attacks
    assert attack.epsilons["digits"] == (Fraction(0), Fraction(4, 255), Fraction(1, 20))
    assert attack.options["step_size"] == 0.01
    assert any("8/255 is written on the pixel range [-1, 1]" in warning for warning in grid.warnings)
    grid = load_grid(write(tmp_path, GOOD.replace("[0, 0.1]", "[0, 8]") + "pixel_range: [0, 255]\n"))
    assert grid.attacks[0].epsilons["digits"] == (Fraction(0), Fraction(8, 255))
    assert float(grid.attacks[0].epsilons["digits"][1]) == 8 / 255


def test_epsilons_by_norm_dataset_and_attack(tmp_path: Path) -> None:
    text = """\
models: [small_cnn]
datasets: [digits, mnist]
attacks:
  - fgsm
  - {name: fgsm, norm: l2}
  - {name: bim, epsilons: [0.5]}
epsilons: {linf: [0.1], l2: {digits: [1], mnist: [2, 4]}}
"""
    linf, l2, own = load_grid(write(tmp_path, text)).attacks
    assert {k: [float(e) for e in v] for k, v in linf.epsilons.items()} == {"digits": [0.1], "mnist": [0.1]}
    assert {k: [float(e) for e in v] for k, v in l2.epsilons.items()} == {
        "digits": [1.0],
        "mnist": [2.0, 4.0],
    }
    assert {k: [float(e) for e in v] for k, v in own.epsilons.items()} == {"digits": [0.5], "mnist": [0.5]}


def test_set_overrides_anything(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    grid = load_grid(path, ["examples=20", "epsilons=[0.3]", "models.0=wide_cnn", "train.epochs=2"])
    assert (grid.examples, grid.models[0].name, grid.train) == (20, "wide_cnn", {"epochs": 2})
    assert grid.attacks[0].epsilons["digits"] == (Fraction(3, 10),)
    assert "examples: 20" in grid.text
    with pytest.raises(GridError, match=r'--set "examples": key=value is allowed'):
        load_grid(path, ["examples"])
    with pytest.raises(GridError, match=r'--set "models.3=x": the grid has nothing at "3"'):
        load_grid(path, ["models.3=x"])
    with pytest.raises(GridError, match="1 problem\n  --set \"examples=many\": examples: found 'many'"):
        load_grid(path, ["examples=many"])
    with pytest.raises(GridError, match="not valid YAML"):
        load_grid(path, ["examples=["])


def test_problems_of_set_name_it_and_no_line_of_the_file(tmp_path: Path) -> None:
    """Of a part of an entry too: the entry stands on a line that says nothing of it."""
    grid = "models: [small_cnn]\ndatasets: [digits]\nattacks: [{name: bim, steps: 5}]\nepsilons: [0.1]\n"
    wrong = "attacks.0.name=bmi"
    assert problems(tmp_path, grid, wrong)[0].startswith(f'--set "{wrong}": attacks[0]: unknown attack "bmi"')
    assert problems(tmp_path, grid, "attacks.0.stps=3")[0].startswith(
        '--set "attacks.0.stps=3": attacks[0].stps'
    )
    both = problems(tmp_path, grid.replace("steps: 5", "steps: 0"), "attacks.0.norm=l7", "epsilons.0=-1")
    assert [one.split(": ")[0] for one in sorted(both)] == [
        '--set "attacks.0.norm=l7"',
        '--set "epsilons.0=-1"',
        "line 3",
    ]
    # The latest of two is what is there.
    assert problems(tmp_path, grid, "examples=x", "examples=y")[0].startswith('--set "examples=y"')


@pytest.mark.parametrize(
    ("section", "name", "registered"),
    [
        ("attacks", "cw", "carlini_wagner"),
        ("attacks", "c&w", "carlini_wagner"),
        ("attacks", "carlini", "carlini_wagner"),
        ("attacks", "Carlini & Wagner", "carlini_wagner"),
        ("attacks", "autoattack", "standard"),
        ("attacks", "AA", "standard"),
        ("attacks", "ifgsm", "bim"),
        ("attacks", "I-FGSM", "bim"),
        ("attacks", "projected_gradient_descent", "pgd"),
        ("attacks", "deep_fool", "deepfool"),
        ("datasets", "cifar-10", "cifar10"),
        ("datasets", "cifar_10", "cifar10"),
        ("datasets", "CIFAR 10", "cifar10"),
        ("datasets", "cifar-100", "cifar100"),
        ("datasets", "fashion-mnist", "fashion_mnist"),
        ("datasets", "fmnist", "fashion_mnist"),
        ("models", "resnet50v2", "resnet50_v2"),
        ("models", "mobilenetv2", "mobilenet_v2"),
        ("models", "inceptionv3", "inception_v3"),
        ("models", "inception-v3", "inception_v3"),
        ("models", "resnet-50", "resnet50"),
        ("models", "EfficientNetB0", "efficientnet_b0"),
    ],
)
def test_other_names_are_hints(tmp_path: Path, section: str, name: str, registered: str) -> None:
    kept = [one for one in GOOD.splitlines() if not one.startswith(f"{section}:")]
    [found] = [
        text
        for text in problems(tmp_path, "\n".join([*kept, f"{section}: ['{name}']"]))
        if f"{section}[0]" in text
    ]
    assert f'"{name}"' in found and f'; did you mean "{registered}"? allowed: ' in found


@pytest.mark.parametrize(
    ("epsilons", "pixel_range", "warned"),
    [
        ("[8/255]", "[0, 1]", True),
        ("[' 8/255 ', 1]", "[0.5, 1.5]", True),
        ("{digits: [4/255]}", "[0, 1]", True),
        ("8/255", "[0, 1]", True),
        ("[0.03]", "[0, 1]", False),  # tiny too, but nobody's habit from linf
        ("[36/255, 128/255]", "[0, 1]", False),  # usual in l2
        ("[0/255, 0.5]", "[0, 1]", False),
        ("[8/255]", "[0, 255]", False),  # another warning says what it is
    ],
)
def test_linf_epsilons_in_l2_are_a_warning(
    tmp_path: Path, epsilons: str, pixel_range: str, warned: bool
) -> None:
    text = f"{GOOD}pixel_range: {pixel_range}\n".replace("[0, 0.1]", f"{{linf: 8/255, l2: {epsilons}}}")
    grid = load_grid(write(tmp_path, text.replace("[fgsm]", "[{name: fgsm, norm: l2}, fgsm]")))
    found = [warning for warning in grid.warnings if warning.startswith("l2 epsilon")]
    assert len(found) == warned
    if warned:
        assert "/255 is tiny" in found[0] and "0.5 is usual in l2 for CIFAR-10" in found[0]


def test_a_wide_epsilon_on_another_scale_suggests_that_scale(tmp_path: Path) -> None:
    text = GOOD.replace("[0, 0.1]", "[8]") + "pixel_range: [-1, 1]\n"
    [found] = problems(tmp_path, text)
    assert "[-1, 1] is wide; did you mean pixel_range: [0, 255]? at most 2 is allowed" in found


def test_a_lone_seed_is_refused_on_the_command_line_too(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    with pytest.raises(GridError, match=r'--set "seeds=3": seeds: found 3; .* \[0, 1, 2\] for 3 seeds'):
        load_grid(path, ["seeds=3"])
    assert load_grid(path, ["seeds=[3]"]).seeds == (3,)


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("digist.yaml", "digits"),
        ("nowhere/digits.yml", "digits"),
        ("mien.yaml", "mine.yaml"),
        ("mine", "mine.yaml"),
        ("grids/foo.yaml", "grids/fool.yaml"),
        ("grids/digist.yaml", "grids/digits.yml"),  # lies there, so that one and not the shipped one
        ("digit", "digits"),
        ("qqqq.yaml", None),
        ("no/such/folder/", None),
    ],
)
def test_a_missing_grid_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, near: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grids").mkdir()
    for name in ("mine.yaml", "grids/fool.yaml", "grids/digits.yml", "grids/notes.txt"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(UserError) as caught:
        load_grid(asked)
    hint = f'; did you mean "{near}"?' if near else ";"
    assert f"{hint} shipped grids: {', '.join(shipped_grids())}" in str(caught.value)


def test_numbers_are_exact() -> None:
    assert exact(0.1) == Fraction(1, 10)
    assert exact("1e-2") == Fraction(1, 100)
    assert [number_text(exact(text)) for text in ("0.1", "8/255", "1/3", "0.30")] == [
        "0.1",
        "8/255",
        "1/3",
        "0.3",
    ]
