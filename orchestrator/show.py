"""How commands print plans, runs and lists for people. Only looks; decides nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.epsilons import number_text
from orchestrator.grid import Grid, shipped_grids
from orchestrator.progress import duration
from orchestrator.results import label
from orchestrator.status import settled_life
from orchestrator.store import Store
from orchestrator.sweep import Prepared, Summary
from orchestrator.victims import Removal
from workers.victims.cache import CacheEntry

_SHOWN_FAILURES = 10


def _table(*columns: str, right: int = 0) -> Table:
    """A plain table; the last `right` columns hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i >= len(columns) - right else "left", overflow="fold")
    return table


def plan(console: Console, prepared: Prepared) -> None:
    """What a run would do."""
    grid, todo = prepared.grid, prepared.plan
    total: Counter[tuple[str, str]] = Counter()
    missing: Counter[tuple[str, str]] = Counter()
    for cell in todo.cells:
        total[cell.victim.victim_id, cell.attack.attack_id] += 1
    for victim in todo.victims:
        for gap in victim.gaps:
            place = victim.victim.victim_id, gap.attack.attack_id
            missing[place] = max(missing[place], len(gap.cells))
    console.print(f"[bold]{escape(grid.name)}[/] into {escape(prepared.store.location)}", highlight=False)
    table = _table("model", "dataset", "attack", "epsilon", "examples", "cells", "to do", right=3)
    rows: dict[tuple[str, ...], list[int]] = {}
    for cell in todo.cells:
        model, attack = label(cell.victim.model["name"], cell.victim.model_options), cell.attack
        key = (model, cell.victim.dataset["name"], f"{label(attack.name, attack.options)} {attack.norm}")
        rows.setdefault(key, [0, 0])[0] += 1
    seen = set()
    for cell in todo.cells:
        place = cell.victim.victim_id, cell.attack.attack_id
        if place in seen:
            continue
        seen.add(place)
        model = label(cell.victim.model["name"], cell.victim.model_options)
        key = (
            model,
            cell.victim.dataset["name"],
            f"{label(cell.attack.name, cell.attack.options)} {cell.attack.norm}",
        )
        rows[key][1] += missing[place]
    for (model, dataset, attack_label), (cells, left) in rows.items():
        epsilons = _epsilons(grid, attack_label, dataset)
        table.add_row(
            model, dataset, attack_label, epsilons, f"{todo.examples[dataset]:,}", f"{cells:,}", f"{left:,}"
        )
    console.print(table)
    if grid.pixel_range.width != 1:
        console.print(
            f"epsilons on the [0, 1] scale (in brackets: as written, on {escape(str(grid.pixel_range))})",
            highlight=False,
        )
    parts = [f"{len(todo.cells):,} cells: {todo.done_cells:,} done, {todo.open_cells:,} to do"]
    if todo.failed_cells:
        parts.append(f"{todo.failed_cells:,} failed earlier (--retry-failed tries them again)")
    console.print(", ".join(parts), highlight=False)
    if todo.unit_count:
        console.print(
            f"{_count(todo.unit_count, 'unit')} of at most {todo.slice_size:,} examples; "
            f"{_count(len(todo.victims), 'victim')} to fine-tune or find in the cache",
            highlight=False,
        )
    else:
        console.print("nothing to run", highlight=False)


def _epsilons(grid: Grid, attack_label: str, dataset: str) -> str:
    for attack in grid.attacks:
        given = ", ".join(f"{key}={value}" for key, value in sorted(attack.shown.items()))
        if f"{label(attack.name, given)} {attack.norm}" == attack_label:
            return " ".join(_both_scales(epsilon, grid) for epsilon in attack.epsilons[dataset])
    return ""


def _both_scales(epsilon: Fraction, grid: Grid) -> str:
    text = number_text(epsilon)
    width = grid.pixel_range.width
    return text if width == 1 or not epsilon else f"{text} ({number_text(epsilon * width)})"


def summary(console: Console, prepared: Prepared, result: Summary) -> None:
    """What came of a run: counts, failures with their reasons, where the tables are."""
    state = result.state
    location = escape(prepared.store.location)
    head = f"{state.cells_done:,} of {state.cells:,} cells done"
    if state.units:
        head += f" in {duration(state.seconds)} ({_count(state.units_done, 'unit')}"
        head += f", {_count(state.trained, 'victim')} fine-tuned)" if state.trained else ")"
    elif not prepared.plan.open_cells and not prepared.plan.failed_cells:
        head += "; nothing was left to run"
    console.print(f"[bold]{escape(state.grid)}[/]: {head}", highlight=False)
    if result.failures:
        console.print(f"[bold red]{_count(len(result.failures), 'unit')} failed[/]:", highlight=False)
        for failure in result.failures[:_SHOWN_FAILURES]:
            console.print(
                f"  {escape(failure['unit'])}: {escape(failure['error'])}", highlight=False, soft_wrap=True
            )
        if len(result.failures) > _SHOWN_FAILURES:
            console.print(f"  and {len(result.failures) - _SHOWN_FAILURES} more")
        console.print(
            f'tracebacks: robustsweep query {location} "SELECT unit, error, traceback FROM failures"; '
            "--retry-failed tries them again",
            highlight=False,
            soft_wrap=True,
        )
    if state.state == "interrupted":
        console.print("[yellow]stopped before the end; the same command goes on from here[/]")
    console.print(
        f"tables are in {location}/tables; robustsweep table {location} shows them",
        highlight=False,
        soft_wrap=True,
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def status(console: Console, store: Store) -> None:
    """How far the latest run is, and whether it lives."""
    run_id = store.run_ids()[-1]
    record = store.read_status(run_id)
    if not record:
        console.print(
            f"run {run_id} has written no status: it ended before its workers were up", highlight=False
        )
        return
    answer = settled_life(store, run_id)
    words = {
        "live": "[green]running[/]",
        "dead": "[red]dead[/]: its process is gone; the same run command resumes it",
        "unknown": "unknown",
        "ended": {"finished": "[green]finished[/]", "interrupted": "[yellow]interrupted[/]"}.get(
            record["state"], f"[red]{escape(record['state'])}[/]"
        ),
    }
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "run", f"{run_id} of {escape(record['grid'])} on {escape(record['host'])}, process {record['pid']}"
    )
    table.add_row("state", words[answer])
    table.add_row("cells", f"{record['cells_done']:,} of {record['cells']:,} done")
    table.add_row(
        "units", f"{record['units_done']:,} of {record['units']:,} done, {record['units_failed']:,} failed"
    )
    table.add_row("time", f"{duration(record['seconds'])}, last heard of {record['updated_at']}")
    if answer == "live" and record["seconds_left"] is not None:
        table.add_row("left", f"about {duration(record['seconds_left'])}")
    if answer == "live":
        for worker, label in record["workers"].items():
            table.add_row(worker, escape(label) or "[dim]idle[/]")
    for failure in record["failures"]:
        table.add_row("[red]failed[/]", escape(failure))
    console.print(table, highlight=False)


def victims(console: Console, entries: Sequence[CacheEntry]) -> None:
    """What a cache of victims holds."""
    table = _table("victim", "weights", "trained", "state", "test", "epochs", "trained in", "size", right=4)
    for entry in entries:
        manifest = entry.manifest
        accuracy = f"{manifest.test_accuracy:.1%}" if manifest else "–"
        epochs = str(len(manifest.history)) if manifest else "–"
        table.add_row(
            entry.victim_id,
            entry.weights[:12],
            f"{entry.changed_at:%Y-%m-%d %H:%M}",
            entry.state if manifest else f"[yellow]{entry.state}[/]",
            accuracy,
            epochs,
            duration(manifest.seconds) if manifest else "–",
            _bytes(entry.size),
        )
    console.print(table if entries else "no victims yet", highlight=False)


def removals(console: Console, found: Sequence[Removal], *, removed: bool) -> None:
    """What has gone, or would go."""
    if not found:
        console.print("nothing to remove")
        return
    table = _table("what", "why", "size", right=1)
    for one in found:
        table.add_row(escape(one.what), escape(one.why), _bytes(one.size))
    console.print(table, highlight=False)
    total = _bytes(sum(one.size for one in found))
    console.print(
        f"removed {total}" if removed else f"{total} in all; nothing was removed: --yes removes them",
        highlight=False,
    )


def _bytes(size: int) -> str:
    """For people: "312 B", "4.1 MB"."""
    for unit, bound in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bound:
            return f"{size / bound:.1f} {unit}"
    return f"{size} B"


def listing(console: Console, what: str) -> None:
    """What a grid may name."""
    table = {"models": _models, "datasets": _datasets, "attacks": _attacks, "grids": _grids}[what]()
    console.print(table, highlight=False)


def _models() -> Table:
    from workers.victims.architectures import ARCHITECTURES

    table = _table("model", "options", "images")
    for name, architecture in sorted(ARCHITECTURES.items()):
        least = f"{architecture.min_size} px or more"
        if architecture.least_input:
            least = f"any size, smaller than {architecture.least_input} px resized to it"
        channels = " or ".join(map(str, architecture.channels)) or "any number of"
        table.add_row(name, _defaults(architecture.options), f"{least}, {channels} channels")
    table.add_row("{name: …, path: …}", "pixel_range=null", "those that your .keras file takes")
    table.add_row("{name: …, factory: …}", "your own", "your own")
    return table


def _datasets() -> Table:
    from workers.datasets import DATASETS

    table = _table("dataset", "image", "classes", "train", "test", right=3)
    for name, source in DATASETS.items():
        info = source.info
        height, width, channels = info.shape
        table.add_row(
            name,
            f"{height}×{width}×{channels}",
            str(info.classes),
            f"{info.train_size:,}",
            f"{info.test_size:,}",
        )
    table.add_row("tfds:<name>", "any dataset of tensorflow-datasets with images and class labels")
    table.add_row("{name: …, path: …}", "an .npz, or a folder of images by class")
    return table


def _attacks() -> Table:
    from workers.attacks import REGISTRY

    table = _table("attack", "norms", "options")
    for name, attack in sorted(REGISTRY.items()):
        table.add_row(name, ", ".join(attack.NORMS), _defaults(attack, hidden=("norm", "content")))
    return table


def _grids() -> Table:
    table = _table("grid", "what it is")
    for name, text in shipped_grids().items():
        comment = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        table.add_row(name, " ".join(comment))
    return table


def _defaults(options: Any, hidden: tuple[str, ...] = ()) -> str:
    shown = []
    for one in dataclasses.fields(options):
        if one.name not in hidden:
            default = getattr(one.default, "default", one.default)  # pydantic wraps a default in a FieldInfo
            if default is dataclasses.MISSING:
                shown.append(f"{one.name} (needed)")
                continue
            shown.append(f"{one.name}={'null' if default is None else default}")
    return ", ".join(shown) or "none"
