"""What the sections of a page show, as plain values for its templates and scripts."""

from __future__ import annotations

import importlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from orchestrator.report.answer import probability
from orchestrator.report.contest import contests, victim_key, victim_name
from orchestrator.report.facts import Facts
from orchestrator.report.series import percent, row_keys
from orchestrator.results.checks import RULES
from orchestrator.results.display import behind, epsilon_text
from orchestrator.results.metrics import WORST_CASE
from orchestrator.results.per_class import Left
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import NO_VALUE
from orchestrator.results.text.comparison import difference
from orchestrator.run.progress import duration
from workers.unit import COMBINED, NO_DEFENCE, without_options
from workers.version import VERSION

_FINDINGS = 200  # of a rule
_ERRORS = 100


def robustness(facts: Facts) -> Iterator[dict[str, Any]]:
    """Robustness tables: every number with its interval, every hole with its reason."""
    for table in facts.tables:
        names, _ = words.header(table)
        first = words.first_entry(table)
        rows = []
        for row, texts in zip(table.rows, words.rows(table), strict=True):
            cells = []
            for text, entry in zip(texts[first : first + len(row.entries)], row.entries, strict=True):
                cells.append(
                    {
                        "text": text,
                        "value": None if entry is None else percent(entry.value),
                        "low": None if entry is None else percent(entry.low),
                        "high": None if entry is None else percent(entry.high),
                        "best": bool(entry and entry.best),
                        "doubt": ", ".join(entry.checks)
                        if entry and entry.verdict in ("wrong", "suspicious")
                        else "",
                        "hole": entry is None or entry.value is None,
                        "targeted": row.targeted,
                    }
                )
            rows.append(
                {
                    "keys": row_keys(table, row),
                    "labels": texts[: first - 1],
                    "clean": texts[first - 1],
                    "clean_value": percent(row.clean_accuracy),
                    "cells": cells,
                    "n": texts[-1],
                }
            )
        said = [words.caption(table), words.said_of_best(table)]
        yield {
            "title": words.title(table),
            "labels": names[: first - 1],
            "epsilons": words.epsilons(table),
            "rows": rows,
            "caption": "; ".join(filter(None, said)),
        }


def worst_cases(facts: Facts) -> Iterator[dict[str, Any]]:
    """Where each victim breaks: the last epsilon that has at least half left, and the first with less."""
    for table, contest in zip(facts.tables, contests(facts.tables), strict=True):
        known = words.attack_labels(table)
        names = words.epsilons(table)
        rows = []
        for row in contest.rows:
            there = [
                (name, entry.value)
                for name, entry in zip(names, row.entries, strict=True)
                if entry is not None and entry.value is not None
            ]
            lost = next((i for i, (_, value) in enumerate(there) if value < 0.5), len(there))
            attacks = sorted({attack for entry in row.entries if entry for attack in entry.attacks})
            rows.append(
                {
                    "keys": row_keys(table, row),
                    "name": victim_name(row, table),
                    "clean": words.percent(row.clean_accuracy, row.clean_sd),
                    "clean_value": percent(row.clean_accuracy),
                    "kept": there[lost - 1][0] if lost else "–",
                    "lost": there[lost][0] if lost < len(there) else "–",
                    "of": ", ".join(known.get(attack, attack) for attack in attacks)
                    or ("no attack yet" if row.attack == WORST_CASE else row.attack_label),
                }
            )
        if rows:
            yield {"title": f"{table.dataset_label}, {table.norm}", "rows": rows}


_PAIRS = 3000  # of which a page is made; `robustsweep compare` has no limit


def comparison(facts: Facts) -> dict[str, Any]:
    """Every two victims, example by example."""
    pairs = facts.pairs
    rows = []
    known = {victim_key(row): (victim_name(row, table), row) for table in facts.tables for row in table.rows}
    datasets = {table.dataset: table.dataset_label for table in facts.tables}
    for pair in pairs if len(pairs) <= _PAIRS else ():
        if not all(side in known for side in pair["sides"]):
            continue  # told apart by an id alone: see `robustness_tables`
        (first, one), (second, other) = (known[side] for side in pair["sides"])
        rows.append(
            {
                "dataset": datasets[pair["dataset"]],
                "norm": pair["norm"],
                "epsilon": pair["epsilon"],
                "text": epsilon_text(pair["epsilon"]),
                "attack": pair["texts"].attack,
                "seed": pair["seed"],
                "first": first,
                "second": second,
                "models": [one.model_label, other.model_label],
                "defences": [one.defence_label, other.defence_label],
                "n": pair["n"],
                "difference": _points(pair["difference"]),
                "low": _points(pair["low"]),
                "high": _points(pair["high"]),
                "shown": difference(pair["difference"], pair["low"], pair["high"]),
                "p": "–" if pair["adjusted"] is None else probability(pair["adjusted"]).removeprefix("= "),
                "result": pair["result"] or "not compared",
                "note": pair["note"],
            }
        )
    return {"rows": rows, "left_out": len(pairs) if len(pairs) > _PAIRS else 0}


def _points(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


_CLASSES = 60_000  # numbers of which a page is made; `figure per-class` draws any of them


def per_class(facts: Facts) -> dict[str, Any]:
    """Robust accuracy by true class, of what sums each victim up: one entry for each victim and epsilon, its
    `numbers` by class: percent, test images, and the ends of the interval. `left_out`: how many numbers,
    where they are too many for a page."""
    found: list[dict[str, Any]] = []
    names: dict[str, tuple[str, ...]] = {}
    for table, contest in zip(facts.tables, contests(facts.tables), strict=True):
        for row in contest.rows:
            for name, entry in zip(words.epsilons(table), row.entries, strict=True):
                if entry is None or (left := facts.by_class.left(row, entry)) is None:
                    continue  # a hole, or wrong
                names[table.dataset_label] = left.names
                found.append(
                    {
                        **row_keys(table, row),
                        "victim": victim_name(row, table),
                        "text": name,
                        "doubt": ", ".join(entry.checks) if entry.verdict == "suspicious" else "",
                        "numbers": _by_class(left),
                    }
                )
    many = sum(len(entry["numbers"]) for entry in found)
    if many > _CLASSES:
        return {"entries": [], "names": {}, "left_out": many}
    return {"entries": found, "names": names, "left_out": 0}


def _by_class(found: Left) -> list[list[Any]]:
    shares = 100 * np.stack([found.robust, found.low, found.high], axis=1)
    return [
        [round(float(share), 1), int(n), *(round(float(end), 1) for end in ends)]
        for n, (share, *ends) in zip(found.n, shares, strict=True)
    ]


def training(facts: Facts) -> list[dict[str, Any]]:
    """Accuracy and loss by epoch, of the victims of the grids; once of a network that several defences at
    inference stand before. It is called after that which it was trained with, if anything."""
    pinned = {(row["sweep"], row["victim_id"]): row for row in facts.rows("victims")}
    epochs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in facts.rows("history"):
        epochs[row["sweep"], row["victim_id"]].append(row)
    weights = {key: row["weights"] or key[1] for key, row in pinned.items()}
    undefended = {
        (key[0], weights[key])
        for key, victim in facts.victims.items()
        if key in weights and victim["defence"] == NO_DEFENCE.name
    }
    found, seen = [], set()
    for key, victim in facts.victims.items():
        if key not in weights or (network := (key[0], weights[key])) in seen:
            continue
        seen.add(network)
        name = _victim_text(victim, facts, defence=network not in undefended)
        texts = victim["texts"]
        for epoch, (of, prefix) in product(
            epochs[key], (("training images", ""), ("images held out", "validation_"))
        ):
            if epoch[f"{prefix}accuracy"] is not None:
                found.append(
                    {
                        "victim": name,
                        "dataset": texts.dataset,
                        "model": texts.model,
                        "of": of,
                        "epoch": epoch["epoch"],
                        "phase": epoch["phase"],
                        "value": percent(epoch[f"{prefix}accuracy"]),
                        "loss": epoch[f"{prefix}loss"],
                    }
                )
    return found


def victims(facts: Facts) -> list[dict[str, str]]:
    """What was attacked: how it was made, how good it is on clean images."""
    pinned = {(row["sweep"], row["victim_id"]): row for row in facts.rows("victims")}
    return [
        {
            "name": _victim_text(victim, facts),
            "recipe": row["recipe"] or "the default recipe",
            "parameters": NO_VALUE if row["parameters"] is None else f"{row['parameters']:,}",
            "train": words.percent(row["train_accuracy"], None),
            "validation": words.percent(row["validation_accuracy"], None),
            "test": words.percent(row["test_accuracy"], None),
            "seconds": duration(row["seconds"] or 0.0),
            "weights": (row["weights"] or NO_VALUE)[:12],
            "data": (row["data"] or "not recorded")[:12],
        }
        for key, victim in facts.victims.items()
        if (row := pinned.get(key))
    ]


def _victim_text(victim: Mapping[str, Any], facts: Facts, *, defence: bool = True) -> str:
    texts = victim["texts"]
    after = behind(victim["defence"], texts.defence) if defence else ""
    seed = f", seed {victim['seed']}" if victim["seed"] else ""
    sweep = f" in {victim['sweep']}" if len(facts.results) > 1 else ""
    return f"{texts.model} on {texts.dataset}{after}{seed}{sweep}"


def checks(facts: Facts) -> list[dict[str, Any]]:
    """Every rule that found something, the gravest first, with what it found and what to do."""
    by_rule: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in facts.rows("checks"):
        by_rule[row["rule"]].append(row)
    return [
        {
            "name": name,
            "severity": RULES[name].severity,
            "meaning": RULES[name].meaning,
            "advice": RULES[name].advice,
            "count": len(by_rule[name]),
            "found": [f"{row['place']}: {row['message']}" for row in by_rule[name][:_FINDINGS]],
        }
        for name in RULES
        if name in by_rule
    ]


def failures(facts: Facts) -> list[dict[str, Any]]:
    """What failed, one entry for each error, the most frequent first."""
    by_error: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    for row in facts.rows("failures"):
        by_error[row["error"], row["final"]].append(row)
    ordered = sorted(by_error.items(), key=lambda item: (not item[0][1], -len(item[1])))
    return [
        {
            "error": error,
            "final": final,
            "count": len(rows),
            "units": list(dict.fromkeys(row["unit"] for row in rows))[:20],
            "traceback": next((row["traceback"] for row in rows if row["traceback"]), ""),
            "last": max(row["at"] for row in rows),
        }
        for (error, final), rows in ordered[:_ERRORS]
    ]


def effort(facts: Facts) -> dict[str, Any]:
    """Where the time went: by phase, as runs have said; by attack and by model, as shards have."""
    phases: Counter[str] = Counter()
    for runs in facts.runs.values():
        for run in runs:
            phases.update(run.status.phases if run.status else {})
    attacks: Counter[str] = Counter()
    models: Counter[str] = Counter()
    calls: dict[str, dict[str, int | None]] = {}
    devices: Counter[str] = Counter()
    for cell in facts.rows("cells"):
        attack = f"{facts.attacks[cell['sweep'], cell['attack_id']]} {cell['norm']}"
        texts = facts.victims[cell["sweep"], cell["victim_id"]]["texts"]
        attacks[attack] += cell["seconds"]
        models[f"{texts.model} on {texts.dataset}"] += cell["seconds"]
        if cell["n"]:
            before = calls.get(attack, {"forward": 0, "gradient": 0})
            calls[attack] = {name: _sum(had, cell[f"{name}_calls"]) for name, had in before.items()}
        devices.update([cell["device"]] if cell["device"] else [])
    return {
        "bars": {
            name: _bars(found) for name, found in (("phase", phases), ("attack", attacks), ("model", models))
        },
        "calls": [{"attack": name, **n} for name, n in calls.items()],
        "devices": list(devices),
        "runs": [
            {
                "sweep": sweep,
                "id": run.run_id,
                "state": run.status.state if run.status else "unknown",
                "took": duration(run.status.seconds) if run.status else "–",
                "units": f"{run.status.units_done:,} of {run.status.units:,}" if run.status else "–",
            }
            for sweep, runs in facts.runs.items()
            for run in runs
        ],
    }


def _sum(first: int | None, second: int | None) -> int | None:
    """None where either is not known."""
    return None if first is None or second is None else first + second


def _bars(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(seconds.values())
    return [
        {
            "name": name,
            "seconds": round(value, 3),
            "shown": duration(value),
            "share": f"{100 * value / total:.0f}%",
        }
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
        if value > 0
    ]


def origin(facts: Facts) -> dict[str, Any]:
    """With what the numbers were made."""
    return {
        "report": VERSION,
        "warnings": list(facts.warnings),
        "sweeps": [
            {
                "sweep": sweep,
                "where": facts.stores[sweep].shown,
                "grid": facts.stores[sweep].grid_text(),
                "runs": [{"id": run.run_id, **_record(run.record)} for run in runs],
            }
            for sweep, runs in facts.runs.items()
        ],
    }


def _record(record: Mapping[str, Any]) -> dict[str, str]:
    packages = record.get("packages")
    commit = record.get("git_commit")
    dirty = " with changes" if record.get("git_dirty") else ""
    command = record.get("command")
    return {
        "started": str(record.get("started_at", "–")),
        "command": " ".join(["robustsweep", *map(str, command)]) if isinstance(command, list) else "–",
        "host": str(record.get("driver_host", "–")),
        "machine": f"{record.get('driver_cpu', '–')}, {record.get('driver_cpus', '–')} CPUs; "
        f"{record.get('platform', '–')}",
        "robustsweep": str(record.get("robustsweep", "–")),
        "code": str(record.get("code", "–"))[:12],
        "commit": f"{commit[:12]}{dirty}" if isinstance(commit, str) else "none",
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items())
        if isinstance(packages, Mapping)
        else "–",
    }


_PAPER = re.compile(r"([A-Z][^.\"]*?), \"([^\"]+)\" \(arXiv:([\d.]+)\)")


def papers(facts: Facts) -> list[dict[str, str]]:
    """The papers of the attacks and defences that the grids name, as their docstrings cite them."""
    from workers.attacks import REGISTRY
    from workers.defences import DEFENCES

    names = {cell["attack"] for cell in facts.rows("cells")}
    used: list[tuple[str, Any]] = [(name, REGISTRY[name]) for name in REGISTRY if name in names]
    defences = {
        name for cell in facts.rows("cells") for name in without_options(cell["defence"]).split(COMBINED)
    }
    used += [(name, DEFENCES[name]) for name in DEFENCES if name in defences]
    found: dict[str, dict[str, str]] = {}
    for name, cited in used:
        module = importlib.import_module(cited.__module__)
        text = re.sub(r"\s+", " ", f"{cited.__doc__ or ''} {module.__doc__ or ''}")
        for authors, title, number in _PAPER.findall(text):
            known = found.setdefault(number, {"authors": authors, "title": title, "arxiv": number, "of": ""})
            known["of"] = ", ".join(filter(None, [known["of"], name]))
    return list(found.values())


def keys(facts: Facts) -> dict[str, list[str]]:
    """What there is to filter by, in the order of the grids: only keys that have several values."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for table in facts.tables:
        for row in table.rows:
            for key, value in row_keys(table, row).items():
                found[key][value] = None
    return {key: list(values) for key, values in found.items()}
