"""A user's own object: the one that planning reads is the one that workers run, wherever others lie."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from orchestrator.errors import GridError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from tests.support.sweeps import Scripted, sweep
from workers import factories
from workers.factories import find, identity, load
from workers.unit import WorkerSettings
from workers.victims.architectures import build_model
from workers.victims.base import ArchitectureError
from workers.worker import Worker

GRID = """\
models: [small_cnn]
datasets: [digits]
attacks: [{name: own, factory: "nearby_things:Own"}]
epsilons: [0.1]
examples: 20
"""


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder `here`, with a folder `there` for the grid; what a test imports is forgotten."""
    (tmp_path / "here" / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    others = [finder for finder in sys.meta_path if finder is not factories._OWN]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.setattr(factories, "_loaded", {})
    monkeypatch.setattr(factories, "_OWN", factories._OwnModules())
    for name in ("nearby_things", "nearby_package"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("there/grid.yaml").write_text(GRID)


def own(place: str | Path, value: str, name: str = "nearby_things") -> Path:
    """A module whose `Own()` is an object with that `value`."""
    file = Path(place) / f"{name}.py"
    file.write_text(f"class Own:\n    value = {value!r}\n    def __init__(self, **options): ...\n")
    return file


def planned(grid: str = "there/grid.yaml", **changes: str) -> Grid:
    return load_grid(grid, [f"{key}={value}" for key, value in changes.items()])


def worked(grid: Grid) -> str:
    """The value of the grid's attack, as a worker makes it."""
    settings: list[WorkerSettings] = []

    def pool(options: RunOptions, settings_: WorkerSettings, **_: object) -> Scripted:
        settings.append(settings_)
        backend = Scripted(settings_, lambda unit, attempt: backend.runner(unit))
        return backend

    sweep(grid, f"out{uuid.uuid4().hex}", pool=pool)
    Worker(settings[0])
    [attack] = prepare(grid, "elsewhere").plan.victims[0].attacks
    config = attack.attack.config
    return str(load(config["factory"], version=config["version"], source=config["source"]).value)


def test_beside_the_grid_then_where_the_command_runs() -> None:
    with pytest.raises(
        GridError, match=r'cannot find the Python module "nearby_things": not in .*/there or '
    ):
        planned()
    own(".", "here")
    here = planned()
    assert worked(here) == "here"
    own("there", "there")
    there = planned()
    assert there.attacks[0].identity != here.attacks[0].identity
    assert worked(there) == "there"
    assert there.python_path == (str(Path("there").absolute()), str(Path.cwd()))


def test_the_grids_folder_goes_first_whatever_python_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Ray, `python -m` or a notebook has put the working folder in front."""
    own(".", "here")
    own("there", "there")
    monkeypatch.syspath_prepend(Path.cwd())
    __import__("nearby_things")
    assert worked(planned()) == "there"


def test_grids_of_two_folders_in_one_process_run_each_its_own(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "grid.yaml").write_text(GRID)
        own(tmp_path / name, name)
    assert [worked(planned(str(tmp_path / name / "grid.yaml"))) for name in ("one", "two", "one")] == [
        "one",
        "two",
        "one",
    ]


def test_where_a_grid_lies_is_no_part_of_what_is_measured(tmp_path: Path) -> None:
    own(".", "same")
    own(tmp_path, "same")
    (tmp_path / "grid.yaml").write_text(GRID)
    ids = [
        prepare(planned(path), "out").plan.victims[0].attacks[0].cells[0].cell_id
        for path in ("there/grid.yaml", str(tmp_path / "grid.yaml"))
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("name", "taken_by"),
    [
        ("workers", "workers/__init__.py"),
        ("numpy", "numpy/__init__.py"),
        ("json", "json"),
        ("sys", "built-in"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, taken_by: str) -> None:
    own("there", "there", name)
    with pytest.raises(GridError, match=f"has a name that is taken, by .*{taken_by}") as caught:
        planned(attacks=f'[{{name: own, factory: "{name}:Own"}}]')
    assert f"there/{name}.py" in str(caught.value) and "rename yours" in str(caught.value)


def test_what_else_lies_beside_the_grid_shadows_nothing() -> None:
    own("there", "there")
    for name in ("numpy", "workers", "json", "yaml"):
        Path(f"there/{name}.py").write_text("raise RuntimeError('this shadows another')\n")
    grid = planned()
    script = (
        "from workers import factories\n"
        f"factories.look_in({grid.python_path!r})\n"
        "import numpy, workers.unit, json, yaml\n"
        "print(factories.load('nearby_things:Own').value)\n"
    )
    root = str(Path(__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False
    )
    assert (run.returncode, run.stdout) == (0, "there\n"), run.stderr


def test_a_package_is_read_without_running_any_of_it() -> None:
    package = Path("there/nearby_package/deep")
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("raise RuntimeError('planning must not run this')\n")
    own(package, "deep", "nets")
    grid = planned(attacks='[{name: own, factory: "nearby_package.deep.nets:Own"}]')
    assert grid.attacks[0].identity["source"]
    assert "nearby_package" not in sys.modules


def test_a_folder_without_an_init_is_a_package_too() -> None:
    Path("there/nearby_package").mkdir()
    own("there/nearby_package", "there", "nets")
    grid = planned(attacks='[{name: own, factory: "nearby_package.nets:Own"}]')
    assert worked(grid) == "there"


def test_a_module_that_is_installed_needs_no_place() -> None:
    grid = planned(attacks='[{name: own, factory: "tests.support.runners:MadeUp"}]')
    assert grid.attacks[0].identity == identity(find("tests.support.runners:MadeUp", []))


def test_a_folder_beside_the_grid_is_no_package_where_there_is_one_of_that_name() -> None:
    Path("there/tests").mkdir()
    test_a_module_that_is_installed_needs_no_place()


def test_another_module_of_that_name_on_a_workers_machine_is_refused(tmp_path: Path) -> None:
    own("there", "there")
    attack = planned().attacks[0]
    other = tmp_path / "other"
    other.mkdir()
    own(other, "other")
    factories.look_in([str(other)])
    with pytest.raises(ImportError, match=r'other/nearby_things.py does not hold the "nearby_things:Own"'):
        load("nearby_things:Own", **attack.identity)
    Path(other / "nearby_things.py").write_text("from pathlib import Path as Own\n")
    factories.look_in([str(other)])
    sys.modules.pop("nearby_things")
    with pytest.raises(ImportError, match='defines no "Own" at its top level'):
        load("nearby_things:Own", **attack.identity)


def test_an_edited_module_is_imported_anew_by_a_new_plan_and_by_it_alone() -> None:
    own("there", "before")
    grid = planned()
    before = grid.attacks[0].identity
    assert worked(grid) == "before"
    own("there", "after it was edited")
    assert load("nearby_things:Own", **before).value == "before"  # what runs goes on
    assert worked(planned()) == "after it was edited"


def test_a_declared_version_is_what_counts(tmp_path: Path) -> None:
    file = own("there", "one")
    file.write_text(file.read_text().replace("class Own:\n", "class Own:\n    VERSION = 4\n"))
    grid = planned()
    assert grid.attacks[0].identity == {"version": 4, "source": "declared by Own"}
    file.write_text(file.read_text().replace("one", "two"))
    assert worked(grid) == "two"


def test_a_constructor_is_held_to_its_plan_too() -> None:
    own("there", "one")
    grid = planned(models='[{name: mine, factory: "nearby_things:Own"}]', attacks="[fgsm]")
    own("there", "two")
    factories.look_in(grid.python_path)
    victim = prepare(grid, "out").plan.victims[0].victim
    with pytest.raises(ArchitectureError, match=r'cannot import "nearby_things:Own": .* edited since'):
        build_model(victim.model, (8, 8, 1), 10)


def test_a_constructor_may_come_with_its_weights() -> None:
    own("there", "one")
    entry = '[{name: mine, factory: "nearby_things:Own", train: false}]'
    grid = planned(models=entry, attacks="[fgsm]", seeds="[0, 1]")
    (alone,) = prepare(grid, "out").plan.victims
    assert alone.victim.recipe is None
    assert alone.victim.preparation == "load"
    trained = planned(models=entry.replace(", train: false", ""), attacks="[fgsm]", seeds="[0, 1]")
    ids = {each.victim.victim_id for each in prepare(trained, "out").plan.victims}
    assert len(ids | {alone.victim.victim_id}) == 3
    for name in (
        '{name: mine, factory: "nearby_things:Own", train: true}',
        "{name: small_cnn, train: false}",
    ):
        with pytest.raises(GridError, match=r"train: found (true|false).*; a mapping such as"):
            planned(models=f"[{name}]", attacks="[fgsm]")


def test_every_way_to_be_wrong_is_said() -> None:
    places = [str(Path("there").absolute())]
    for factory, message in [
        ("Own", '"package.module:object" is allowed'),
        ("nearby_things.deeper:Own", 'cannot find the Python module "nearby_things.deeper"'),
        ("json.decoder.nothing:Own", "cannot find the Python module"),
        ("sys:path", "cannot find the Python module"),
    ]:
        own("there", "there")
        with pytest.raises(ValueError, match=message):
            find(factory, places)
    with pytest.raises(ValueError, match=r'nearby_things.py defines no "Absent" at its top level; .*: Own'):
        identity(find("nearby_things:Absent", places))


@pytest.mark.tf
def test_a_sweep_runs_the_attack_beside_its_grid() -> None:
    module = "import numpy as np\nclass Own:\n    def __init__(self, norm): ...\n"
    call = "    def __call__(self, model, images, labels, epsilons, **rest):\n"
    Path("nearby_things.py").write_text(f"{module}{call}        raise RuntimeError('not this one')\n")
    Path("there/nearby_things.py").write_text(
        f"{module}{call}        return np.stack([images] * len(epsilons))\n"
    )
    command = [sys.executable, "-m", "robustsweep"]
    arguments = ["run", "there/grid.yaml", "--backend", "inline", "--set", "train={epochs: 1}"]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    sql = "SELECT attack, status, n, forward_calls, gradient_calls FROM cells"
    asked = [*command, "query", "outputs/grid", sql, "-f", "json"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    uncounted = {"forward_calls": None, "gradient_calls": None}
    assert json.loads(told.stdout) == [{"attack": "own", "status": "done", "n": 20, **uncounted}]
