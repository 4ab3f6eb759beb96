"""What a plain loop around Foolbox would have published of each victim of the zoo, what a sweep says, and the
truth: `python -m benchmarks.honesty [FOLDER]` writes docs/honesty.md.

Needs MNIST in the folder that the environment's ROBUSTSWEEP_DATA names. FOLDER keeps networks and results;
what is there already is not computed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

import robustsweep
from benchmarks import nets, truth, zoo
from benchmarks.zoo import Case, Zoo
from workers.datasets import DATA_VARIABLE, Dataset, evaluation_order, load
from workers.flags import Flag
from workers.machine import available_cpus
from workers.runtime import set_up_tensorflow
from workers.unit import DatasetSpec

PAGE = Path(__file__).parents[1] / "docs" / "honesty.md"

TRAINING = {
    "mnist": nets.Plan(
        examples=10_000,
        epochs=4,
        robust_epochs=15,
        width=16,
        linf=0.2,
        l2=1.5,
        sigma=0.3,
        mean=0.1307,
        std=0.3081,
    ),
    "digits": nets.Plan(
        examples=1297,
        epochs=16,
        robust_epochs=18,
        width=8,
        linf=0.15,
        l2=0.8,
        sigma=0.2,
        mean=0.3053,
        std=0.3762,
    ),
}

EPSILONS = (0.1, 0.2)
"""Linf, of every number on the page."""

EXAMPLES = 300

POINTS = 0.02
"""How near to the truth a number is right."""

ATTACKS: tuple[Any, ...] = (
    "fgsm",
    "bim",
    "pgd",
    {"name": "deepfool", "norm": "linf"},
    {"name": "ddn", "epsilons": [1.0, 2.0]},
    {"name": "square", "queries": 500},
    "noise",
    {"name": "standard", "steps": 50, "targeted_classes": 5, "queries": 500},
)

# -- what the sweep says ----------------------------------------------------------------------------------

Severity = Literal["wrong", "suspicious", "note"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a sweep says of a victim: its worst-case robust accuracy by epsilon, and what is wrong with it.

    `marks`: name -> severity, of flags and of findings. `refused`: why it was not evaluated at all.
    """

    clean: float | None = None
    robust: Mapping[float, float] = field(default_factory=dict)
    marks: Mapping[str, Severity] = field(default_factory=dict)
    refused: str = ""

    @property
    def doubted(self) -> list[str]:
        """The marks that say that a number is not what it seems."""
        return [name for name, severity in self.marks.items() if severity != "note"]


def said_by(output: str) -> dict[str, Said]:
    """What a sweep's tables say, by the names of its models.

    A note that a healthy victim of the zoo has too says nothing of the sick, and is left out.
    """

    def rows(sql: str) -> list[dict[str, Any]]:
        return robustsweep.query(output, sql).to_pylist()

    clean = {row["model"]: row["clean"] for row in rows(_CLEAN)}
    robust: dict[str, dict[float, float]] = {}
    for row in rows(_WORST_CASE):
        if row["robust_accuracy"] is not None:  # else a check calls it wrong
            robust.setdefault(row["model"], {})[row["epsilon"]] = row["robust_accuracy"]
    marks: dict[str, dict[str, Severity]] = {}
    for row in rows(_FLAGS):
        marks.setdefault(row["model"], {})[row["flag"]] = Flag(row["flag"]).severity
    for row in rows(_FINDINGS):
        marks.setdefault(row["model"], {})[row["rule"]] = row["severity"]
    usual = {
        name
        for case in zoo.HEALTHY
        for name, severity in marks.get(case.name, {}).items()
        if severity == "note"
    }
    marks = {
        model: {name: severity for name, severity in found.items() if name not in usual}
        for model, found in marks.items()
    }
    refused = {row["model"]: row["error"] for row in rows(_REFUSED)}
    models = [row["model"] for row in rows("SELECT DISTINCT model FROM cells")]
    return {
        name: Said(clean.get(name), robust.get(name, {}), marks.get(name, {}), refused.get(name, ""))
        for name in models
    }


_CLEAN = "SELECT model, max(clean_accuracy) AS clean FROM cells GROUP BY model"
_WORST_CASE = "SELECT model, epsilon, robust_accuracy FROM worst_case WHERE norm = 'linf' AND complete"
_FLAGS = "SELECT DISTINCT model, unnest(flags) AS flag FROM cells ORDER BY ALL"
_FINDINGS = "SELECT DISTINCT model, rule, severity FROM checks WHERE model IS NOT NULL ORDER BY ALL"
_REFUSED = """
SELECT model, any_value(error) AS error FROM failures JOIN cells USING (victim_id)
WHERE final AND failures.attack_id IS NULL GROUP BY model
"""


def write_grid(
    made: Zoo,
    cases: Sequence[Case],
    dataset: str,
    *,
    examples: int,
    attacks: Sequence[Any] = ATTACKS,
    epsilons: Sequence[float] = EPSILONS,
    exclude: Sequence[Mapping[str, str]] = (),
) -> Path:
    """The grid that runs them all, beside their files."""
    file = made.folder / "zoo.yaml"
    text = {
        "name": "zoo",
        "models": [made.entry(case) for case in cases],
        "datasets": [dataset],
        "attacks": list(attacks),
        "epsilons": list(epsilons),
        "examples": examples,
        "slice": examples,
        "keep": 0,
        "exclude": list(exclude),
    }
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    return file


# -- what a loop around Foolbox says ----------------------------------------------------------------------


LOOP = {"BIM": "LinfBasicIterativeAttack", "PGD": "LinfPGD", "DeepFool": "LinfDeepFoolAttack"}
"""The attacks of the loop, and what Foolbox calls them."""


def foolbox_says(
    model: Any, images: NDArray[np.float32], labels: NDArray[np.int64], attacks: Sequence[str] = tuple(LOOP)
) -> dict[str, dict[float, float] | str]:
    """Robust accuracy by attack of `LOOP` and epsilon, as users compute it; or the error that they get."""
    import foolbox
    import tensorflow as tf

    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    found: dict[str, dict[float, float] | str] = {}
    for name in attacks:
        attack = getattr(foolbox.attacks, LOOP[name])()
        tf.random.set_seed(0)
        try:
            _, _, success = attack(wrapped, tf.constant(images), tf.constant(labels), epsilons=list(EPSILONS))
        except Exception as error:  # whatever a model without a gradient makes of it
            found[name] = f"{type(error).__name__}"
        else:
            robust = 1 - success.numpy().mean(axis=-1)
            found[name] = dict(zip(EPSILONS, robust.tolist(), strict=True))
    return found


# -- all of a victim --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What others say of a victim, and the truth; robust accuracies by Linf epsilon."""

    clean: float
    truth: Mapping[float, float]
    foolbox: Mapping[str, Mapping[float, float] | str]


def test_images(dataset: Dataset, examples: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images that a sweep of so many examples attacks, and their labels."""
    rows = evaluation_order(dataset.y_test)[:examples]
    return dataset.images("test", rows), dataset.labels("test", rows).astype(np.int64)


def the_truth(
    case: Case,
    made: Zoo,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    epsilons: Sequence[float] = EPSILONS,
) -> tuple[float, dict[float, float]]:
    """Clean accuracy, and robust accuracy by epsilon, of a victim as it is called by its author."""
    return truth.robust_accuracy(
        made.model(case),
        made.straight(case),
        images,
        labels,
        epsilons,
        draws=case.draws,
        together=case.together,
    )


def verdict(case: Case, said: Said, true: Mapping[float, float]) -> str:
    """What a sweep's word on a victim is worth, the truth by epsilon being known. In capitals: a fault."""
    off = [said.robust.get(epsilon, np.inf) - robust for epsilon, robust in true.items()]
    near = max(map(abs, off)) <= POINTS + 1e-9
    if not case.sick and (said.doubted or said.refused):
        return "FALSE ALARM"
    if not case.sick and not near:
        return "TOO HIGH" if max(off) > POINTS else "TOO LOW"
    if not case.sick:
        return "trusted"
    if case.repaired and not near:
        return "NOT REPAIRED"
    if said.refused:
        return "refused" if case.refused else "NOT RUN"
    if not said.marks:
        return "UNMARKED"
    if near:
        return "marked, and right"
    return "marked" if said.doubted else "MISLEADING"


# -- the page ---------------------------------------------------------------------------------------------


def main(folder: Path, written: Path = PAGE) -> None:
    """Train, attack, sweep and write the page: what `folder` does not hold yet."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    set_up_tensorflow(cpus=available_cpus(), gpus=0)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    dataset = load(DatasetSpec(name="mnist"), os.environ.get(DATA_VARIABLE))
    plan = TRAINING["mnist"]
    nets.train_all(zoo.BASES, dataset, plan, folder)
    made = Zoo(folder=folder, mean=plan.mean, std=plan.std)
    images, labels = test_images(dataset, EXAMPLES)
    facts: dict[str, Facts] = {}
    for case in zoo.CASES:
        facts[case.name] = _facts(case, made, images, labels)
        print(f"{time.perf_counter() - begun:6.0f} s {case.name}: {facts[case.name]}", flush=True)
    grid = write_grid(made, zoo.CASES, "mnist", examples=EXAMPLES, exclude=list(_left_out()))
    said = _swept(grid, folder / "sweep")
    for name, says in said.items():  # where somebody's files lay is nobody's business
        said[name] = replace(says, refused=says.refused.replace(f"{folder}/", ""))
    for name, what in said.items():
        print(f"{name}: {what}")
    written.write_text(page(facts, said))
    print(f"{time.perf_counter() - begun:6.0f} s, written to {written}")


def _left_out() -> Iterator[dict[str, str]]:
    """What would take longer than all the rest, and no verdict waits for: a sick victim whose number nobody
    relies on has to be found out without the bundle, and random answers are asked for twenty at a time."""
    for case in zoo.SICK:
        if case.draws > 1:
            yield from ({"model": case.name, "attack": attack} for attack in ("standard", "square", "ddn"))
        elif not case.repaired:
            yield {"model": case.name, "attack": "standard"}


def _facts(case: Case, made: Zoo, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Facts:
    kept = made.folder / f"{case.name}.json"
    if kept.exists():
        return _read(kept)
    clean, robust = the_truth(case, made, images, labels)
    loop = foolbox_says(made.model(case), images, labels)
    facts = Facts(clean=clean, truth=robust, foolbox=loop)
    kept.write_text(json.dumps(asdict(facts)))
    return facts


def _read(kept: Path) -> Facts:
    def by_epsilon(values: Any) -> Any:
        return values if isinstance(values, str) else {float(key): value for key, value in values.items()}

    read = json.loads(kept.read_text())
    loop = {name: by_epsilon(values) for name, values in read["foolbox"].items()}
    return Facts(clean=read["clean"], truth=by_epsilon(read["truth"]), foolbox=loop)


def _swept(grid: Path, output: Path) -> dict[str, Said]:
    """Run a grid by the command line; some victims are refused, so that exit code 1 is no surprise."""
    command = [sys.executable, "-m", "robustsweep", "run", str(grid), "--output", str(output)]
    code = subprocess.run([*command, "--retry-failed"]).returncode
    if code not in (0, 1):
        raise RuntimeError(f"exit code {code}")
    return said_by(str(output))


def page(facts: Mapping[str, Facts], said: Mapping[str, Said]) -> str:
    """docs/honesty.md."""
    verdicts = {case.name: verdict(case, said[case.name], facts[case.name].truth) for case in zoo.CASES}
    return _PAGE.format(
        epsilons=" and ".join(f"{epsilon:g}" for epsilon in EPSILONS),
        points=f"{100 * POINTS:g}",
        examples=EXAMPLES,
        trained=f"{TRAINING['mnist'].examples:,}",
        summary=_summary(facts, verdicts),
        sick=_table(zoo.SICK, facts, said, verdicts),
        healthy=_table(zoo.HEALTHY, facts, said, verdicts),
        marks=_marks(said),
    )


def _summary(facts: Mapping[str, Facts], verdicts: Mapping[str, str]) -> str:
    """What the numbers come to, in words."""
    flattered = [
        case
        for case in zoo.SICK
        if any(
            number > facts[case.name].truth[epsilon] + POINTS
            for epsilon, number in loop_says(facts[case.name]).items()
        )
    ]
    short = sorted(case.name for case in zoo.CASES if verdicts[case.name].isupper())
    lines = [
        f"Of {len(zoo.SICK)} sick victims, the loop flatters {len(flattered)} by more than "
        f"{100 * POINTS:g} points, and says so of none.",
        f"This tool falls short of its aims with: {', '.join(f'`{name}`' for name in short)}."
        if short
        else "This tool marks or refuses all of them, is right where they can be repaired, and doubts none "
        "of the healthy ones.",
    ]
    return "\n".join(lines)


def loop_says(facts: Facts) -> dict[float, float]:
    """The lowest number that the loop gives, by epsilon; nothing where all it gives is errors."""
    given = [values for values in facts.foolbox.values() if not isinstance(values, str)]
    return {epsilon: min(values[epsilon] for values in given) for epsilon in EPSILONS} if given else {}


def _table(
    cases: Sequence[Case],
    facts: Mapping[str, Facts],
    said: Mapping[str, Said],
    verdicts: Mapping[str, str],
) -> str:
    lines = [
        "| victim | clean | Foolbox loop | robustsweep | marks | truth | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases:
        fact, says = facts[case.name], said[case.name]
        errors = {values for values in fact.foolbox.values() if isinstance(values, str)}
        cells = [
            f"`{case.name}`" + (f": {case.ailment}" if case.sick else ""),
            _percent(fact.clean),
            _percents(loop_says(fact)) or ", ".join(sorted(errors)),
            "refused" if says.refused else _percents(says.robust) or "no number",
            ", ".join(f"`{mark}`" for mark in says.doubted or says.marks) or "–",
            _percents(fact.truth),
            verdicts[case.name],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _percents(by_epsilon: Mapping[float, float]) -> str:
    """At each epsilon that there is a number at."""
    return ", ".join(_percent(by_epsilon.get(epsilon)) for epsilon in EPSILONS) if by_epsilon else ""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _marks(said: Mapping[str, Said]) -> str:
    refusals = [f"- `{name}`: {says.refused}" for name, says in said.items() if says.refused]
    return "\n".join(refusals) or "None was."


_PAGE = """# Can its numbers mislead?

<!-- Written by `python -m benchmarks.honesty`, from a sweep: change that, not this. -->

A robust accuracy is an upper bound: it says what an attack did not manage. On a victim whose gradients are
broken, or whose answers are random, it can be far from what is true, and nothing in the number shows it. So
here is a zoo of such victims, all made from networks trained on {trained} images of MNIST, with healthy ones
beside them; {examples} test images, Linf {epsilons}.

- *Foolbox loop*: the lowest robust accuracy that BIM, PGD and DeepFool of Foolbox give, at its defaults.
- *robustsweep*: the worst case over all attacks of a sweep, as `table` has it, with
  what marks it.
- *truth*: projected gradient ascent by somebody who knows the ailment and goes around it
  (`benchmarks/truth.py`): through what is behind a broken gradient, in expectation over what is random. It is
  an upper bound too, but nothing was hidden from it.

A number within {points} points of the truth is right. Verdicts in capitals are faults of this tool:
`UNMARKED` and `MISLEADING`, a number that is wrong without saying so, or with no more than a note;
`NOT REPAIRED`, one that should have been right; `NOT RUN`, one that is not there; `TOO HIGH`, `TOO LOW` and
`FALSE ALARM`, of healthy victims.

{summary}

## Sick

{sick}

## Healthy

{healthy}

## Refused

{marks}
"""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
