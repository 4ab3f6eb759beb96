"""How commands print plans, runs and what can go, for people. Only looks; decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from orchestrator.clean import Removal
from orchestrator.grid.entries import Grid
from orchestrator.grid.numbers import number_text
from orchestrator.overview import PlanRow, hours_of_all, plan_rows
from orchestrator.plan.labels import labels_of, named_cell
from orchestrator.results.checks.stronger import matters
from orchestrator.results.display import Texts, display
from orchestrator.results.placed import Placed
from orchestrator.results.strengthened import Change, source
from orchestrator.results.text import findings, layout
from orchestrator.run.check import Looked
from orchestrator.run.prepare import Prepared
from orchestrator.run.progress import duration, time_left
from orchestrator.run.status import settled_life
from orchestrator.run.strengthen import Strengthen
from orchestrator.run.sweep import Summary
from orchestrator.show_costs import used
from orchestrator.store.folder import Store
from workers.layout import FAILURES
from workers.unit import NO_DEFENCE, AttackSpec, Preparation, label
from workers.victims.cache import CacheEntry

_SHOWN_FAILURES = 10
_SHOWN_FINDINGS = 5

_PAST: dict[Preparation, str] = {"train": "trained", "fine-tune": "fine-tuned", "load": "loaded"}


def plain_table(*columns: str, right: int = 0) -> Table:
    """A plain table; the last `right` columns hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        number = i >= len(columns) - right
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def plan(console: Console, prepared: Prepared) -> None:
    """What a run would do."""
    grid, todo = prepared.grid, prepared.plan
    console.print(
        f"[bold]{escape(grid.name)}[/] into {escape(prepared.store.shown)}", highlight=False, soft_wrap=True
    )
    for line in _plan_table(prepared, console.width if console.is_terminal else None):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if names := _names(prepared):
        console.print(f"named in the grid, as for --only: {escape(names)}", highlight=False, soft_wrap=True)
    if grid.pixel_range.width != 1:
        console.print(
            f"epsilons on the [0, 1] scale (in brackets: as written, on {escape(str(grid.pixel_range))})",
            highlight=False,
        )
    part = "" if todo.cell_count == todo.grid_cell_count else f" of the grid's {todo.grid_cell_count:,}"
    parts = [f"{todo.cell_count:,}{part} cells: {todo.done_cells:,} done, {todo.open_cells:,} to do"]
    if todo.failed_cells:
        parts.append(f"{todo.failed_cells:,} failed earlier (--retry-failed tries them again)")
    console.print(", ".join(parts), highlight=False)
    if todo.unit_count:
        console.print(
            f"{_count(todo.unit_count, 'unit')} of at most {todo.slice_size:,} examples; "
            f"{_to_prepare(todo.preparations)}",
            highlight=False,
        )
        for name, count in todo.attacked_trainings.items():
            console.print(
                f"{escape(name)}: {count} gradients a step, about {count} times as long to train as without",
                highlight=False,
            )
    else:
        console.print("nothing to run", highlight=False)


def looked(console: Console, found: Looked) -> None:
    """What probes say of a plan's victims."""
    console.print()
    for victim, why in found.refused:
        console.print(
            f"[bold red]refused:[/] {escape(found.placed.of(victim))}: {escape(why)}", highlight=False
        )
    findings.show(console, found.findings, unprobed=0)
    parts = [f"{_count(found.probed, 'victim')} probed"]
    if found.untrained:
        parts.append(f"{len(found.untrained):,} not trained yet, to be probed as soon as they are")
    console.print(", ".join(parts), highlight=False)


def _to_prepare(victims: Mapping[Preparation, int]) -> str:
    """ "2 victims to train and 1 to fine-tune or find in the cache, 1 to load"."""
    made = [f"{victims[how]:,} to {how}" for how in ("train", "fine-tune") if victims.get(how)]
    parts = [f"{' and '.join(made)}, or find in the cache"] if made else []
    if victims.get("load"):
        parts.append(f"{victims['load']:,} to load")
    return f"victims: {'; '.join(parts)}"


def _plan_table(prepared: Prepared, width: int | None) -> Iterator[layout.Line]:
    rows = plan_rows(prepared)
    said = _texts(rows, prepared.grid)
    victims = _told_apart(
        (row.victim.victim_id, texts.model, texts.dataset) for row, texts in zip(rows, said, strict=True)
    )
    attacks = _told_apart(
        (row.attack.made_by, texts.attack, "") for row, texts in zip(rows, said, strict=True)
    )
    columns = [
        layout.Column("model", [victims[row.victim.victim_id] for row in rows], breaks=True),
        layout.Column("dataset", [texts.dataset for texts in said], breaks=True),
        layout.Column(
            "attack", [attacks[row.attack.made_by] + _sources(row.sources) for row in rows], breaks=True
        ),
        layout.Column(
            "epsilon",
            [
                "any" if row.attack.kind == "certificate" else _epsilons(row.epsilons, prepared.grid)
                for row in rows
            ],
            breaks=True,
        ),
        layout.Column("examples", [f"{row.examples:,}" for row in rows], right=True),
        layout.Column("cells", [f"{row.cells:,}" for row in rows], right=True),
        layout.Column("to do", [f"{row.todo:,}" for row in rows], right=True),
    ]
    return layout.table(columns, width) or chain(layout.blocks(columns, width), [""])


def _names(prepared: Prepared) -> str:
    """The names behind labels: "BIM-20: bim"."""
    grid = prepared.grid
    entries: list[Any] = [*grid.models, *grid.datasets, *grid.defences, *grid.attacks]
    return "; ".join(f"{entry.label}: {entry.name}" for entry in entries if entry.label)


def _epsilons(epsilons: Iterable[Fraction], grid: Grid) -> str:
    return " ".join(_both_scales(epsilon, grid) for epsilon in sorted(epsilons))


def _texts(rows: Sequence[PlanRow], grid: Grid) -> list[Texts]:
    """What people read of each row: the model with its defence, the attack with its norm."""
    labels = labels_of(grid)
    cells = [named_cell(row.victim, row.attack, labels) for row in rows]
    texts = display(cells)
    return [
        (said := texts(cell))._replace(
            model=said.model
            if cell["defence"] == NO_DEFENCE.name == said.defence
            else f"{said.model}, {said.defence}",
            attack=f"{said.attack} {cell['norm']}",
        )
        for cell in cells
    ]


def _attack(attack: AttackSpec) -> str:
    mark = "" if attack.made_against else attack.mark
    return f"{label(attack.name, attack.shown)} {attack.norm}{mark}"


def _sources(victims: Collection[str]) -> str:
    return f", made against {_count(len(victims), 'other victim')}" if victims else ""


def _told_apart(things: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Id -> text, from (id, text, place), with the end of the id where a place has that text twice."""
    known = {id: (text, place) for id, text, place in things}
    shared = Counter(known.values())
    return {
        id: f"{text} [{id[-6:]}]" if shared[text, place] > 1 else text for id, (text, place) in known.items()
    }


def _both_scales(epsilon: Fraction, grid: Grid) -> str:
    text = number_text(epsilon)
    width = grid.pixel_range.width
    return text if width == 1 or not epsilon else f"{text} ({number_text(epsilon * width)})"


def summary(console: Console, prepared: Prepared, result: Summary, price: float | None = None) -> None:
    """What came of a run: counts, failures with their reasons, where the tables are."""
    state = result.state
    location = escape((prepared.survivors_of or prepared.store).shown)
    grid_cells = prepared.plan.grid_cell_count
    selected = "" if state.cells == grid_cells else "selected "
    head = f"{state.cells_done:,} of {state.cells:,} {selected}cells done"
    if state.units:
        parts = [_count(state.units_done, "unit")]
        parts += [f"{_count(n, 'victim')} {_PAST[how]}" for how, n in state.prepared.items() if n]
        start = state.ready_after or 0.0
        began = f", {duration(start)} of it until a worker was ready" if start >= 1 else ""
        head += f" in {duration(state.seconds)}{began} ({', '.join(parts)})"
    elif not prepared.plan.open_cells and not prepared.plan.failed_cells:
        head += "; nothing was left to run"
    console.print(f"[bold]{escape(state.grid)}[/]: {head}", highlight=False)
    if text := used(state.usage.hours(state.seconds), price):
        console.print(f"used {escape(text)}", highlight=False)
    if result.failures:
        console.print(f"[bold red]{_count(len(result.failures), 'unit')} failed[/]:", highlight=False)
        for failure in result.failures[:_SHOWN_FAILURES]:
            console.print(
                f"  {escape(failure.unit)}: {escape(failure.error)}", highlight=False, soft_wrap=True
            )
        if len(result.failures) > _SHOWN_FAILURES:
            console.print(f"  and {len(result.failures) - _SHOWN_FAILURES} more")
        tracebacks = f'robustsweep query {location} "SELECT unit, error, traceback FROM failures"'
        if prepared.survivors_of:  # of which no view is
            tracebacks = f"{escape(prepared.store.shown)}/{FAILURES}"
        console.print(
            f"tracebacks: {tracebacks}; --retry-failed tries them again",
            highlight=False,
            soft_wrap=True,
        )
    if state.state == "interrupted":
        console.print("[yellow]stopped before the end; the same command goes on from here[/]")
    if selected and not prepared.survivors_of:
        console.print(f"the tables show all {grid_cells:,} cells of the grid", highlight=False)
    console.print(
        f"tables are in {location}/tables; robustsweep table {location} shows them",
        highlight=False,
        soft_wrap=True,
    )
    _what_checks_say(console, result.checks, location)


def survivors(console: Console, found: Strengthen) -> None:
    """What is attacked again, and why the rest is not."""
    plan = found.prepared.plan
    placed = Placed(list(found.cells.values()))
    table = plain_table("victim", "attack", "on what survives", "epsilon", "survivors", "to do", right=2)
    missing = plan.missing
    for victim, runs in plan.selected:
        for run in runs:
            own = source(run.cells[0].cell_id)
            table.add_row(
                escape(placed.of(victim)),
                escape(_attack(run.attack)),
                escape(placed.attack(found.cells[own])) if own else "the worst case",
                " ".join(number_text(cell.exact) for cell in run.cells),
                " ".join(f"{found.survivors[cell.cell_id]:,}" for cell in run.cells),
                f"{sum(cell.cell_id in missing for cell in run.cells):,} of {len(run.cells):,}",
            )
    console.print(table if plan.selected else "nothing survives that could be attacked again")
    for why, cells in found.left_out.items():
        console.print(f"left out: {_count(cells, 'cell')} {why}", highlight=False)


def changes(console: Console, numbers: Sequence[Change], *, complete: bool) -> None:
    """Which numbers stronger attacks change, and by what; `complete`: all that was asked for is done."""
    changed = [change for change in numbers if matters(change)]
    for change in changed:
        console.print(
            f"[yellow]{escape(change.place)}[/]: {change.before:.1%} -> {change.after:.1%} by "
            f"{escape(change.by)}",
            highlight=False,
            soft_wrap=True,
        )
    if complete:
        held = sum(change.tried and not matters(change) for change in numbers)
        console.print(f"{_count(held, 'number')} held, within a point", highlight=False)
    else:
        console.print("[yellow]not all survivors have been tried: of the others nothing is known[/]")


def _what_checks_say(console: Console, checks: pa.Table, location: str) -> None:
    """What is wrong or suspicious, in short; notes are for `verify`."""
    found = findings.brief(checks)
    for severity, text in found[:_SHOWN_FINDINGS]:
        style = findings.STYLES[severity]
        console.print(f"[{style}]{severity}[/]: {escape(text)}", highlight=False, soft_wrap=True)
    if len(found) > _SHOWN_FINDINGS:
        console.print(f"and {len(found) - _SHOWN_FINDINGS} more kinds", highlight=False)
    if found:
        console.print(
            f"{findings.verdict(checks)}; robustsweep verify {location} says what to do",
            highlight=False,
            soft_wrap=True,
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def status(console: Console, store: Store, price: float | None = None) -> None:
    """How far the latest run is, whether it lives, and what all of them have used."""
    run_id = store.run_ids()[-1]
    record = store.read_status(run_id)
    if record is None:
        console.print(
            f"run {run_id} has left no status that can be read: it ended before its workers were up, or its "
            "status.json is damaged",
            highlight=False,
        )
        return
    answer = settled_life(store, record)
    words = {
        "live": "[green]running[/]",
        "dead": "[red]dead[/]: its process is gone; the same run command resumes it",
        "unknown": "unknown",
        "ended": {"finished": "[green]finished[/]", "interrupted": "[yellow]interrupted[/]"}.get(
            record.state, f"[red]{record.state}[/]"
        ),
    }
    table = Table.grid(padding=(0, 2))
    table.add_row("run", f"{run_id} of {escape(record.grid)} on {escape(record.host)}, process {record.pid}")
    table.add_row("state", words[answer])
    if record.pool:
        table.add_row("pool", escape(record.pool))
    if record.note:
        table.add_row("note", escape(record.note))
    table.add_row("cells", f"{record.cells_done:,} of {record.cells:,} done")
    table.add_row("units", f"{record.units_done:,} of {record.units:,} done, {record.units_failed:,} failed")
    table.add_row("time", f"{duration(record.seconds)}, last heard of {escape(record.updated_at)}")
    hours, runs = hours_of_all(store)
    if text := used(hours, price):
        table.add_row("used", escape(text) + (f", by {runs:,} runs" if runs > 1 else ""))
    if answer == "live":
        if left := time_left(record.seconds_left, at_least=record.at_least):
            table.add_row("left", left.removesuffix(" left"))
        for worker, on in record.workers.items():
            table.add_row(escape(worker), escape(on) or "[dim]idle[/]")
    for failure in record.failures:
        table.add_row("[red]failed[/]", escape(failure))
    console.print(table, highlight=False)


def victims(console: Console, entries: Sequence[CacheEntry]) -> None:
    """What a cache of victims holds."""
    table = plain_table(
        "victim", "weights", "trained", "state", "test", "epochs", "trained in", "size", right=4
    )
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
            decimal(entry.size),
        )
    console.print(table if entries else "no victims yet", highlight=False)


def removals(console: Console, found: Sequence[Removal], *, removed: bool) -> None:
    """What has gone, or would go."""
    if not found:
        console.print("nothing to remove")
        return
    table = plain_table("what", "why", "size", right=1)
    for one in found:
        table.add_row(escape(one.what), escape(one.why), decimal(one.size))
    console.print(table, highlight=False)
    total = decimal(sum(one.size for one in found))
    console.print(
        f"removed {total}" if removed else f"{total} in all; nothing was removed: --yes removes them",
        highlight=False,
    )
