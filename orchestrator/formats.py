"""Tables as text: for people (`rich`, `md`) and for programs (`csv`, `json`).

For programs a number is itself: null is an empty CSV field and JSON null; NaN and infinities are `nan`,
`inf` and `-inf` in CSV, and null in JSON, which has no word for them. For people null is `–`, and a number
has six digits.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.tables import Entry, RobustnessTable, Row, robustness_records

_UNBOUNDED = 100_000  # columns: wider than any table, so that nothing is cut or wrapped

_NO_VALUE = "–"

_FLAGS = {
    "victim_weak": ("†", "has not learnt: clean accuracy below twice chance"),
    "victim_overfit": ("‡", "overfitted: training accuracy more than 15 points above validation"),
    "zero_gradients": ("§", "zero gradients: this attack was blind, and the model may be far less robust"),
    "non_finite_gradients": ("∇", "NaN or infinite gradients, taken as zero: this attack was partly blind"),
    "non_finite_logits": ("¤", "NaN or infinite logits, which count as no success of the attack"),
    "constant_model": ("◊", "the same logits for every image"),
    "probabilities": ("¶", "answers that look like probabilities: attacks need logits"),
    "nondeterministic": ("≈", "other answers to the same images: another run gives other numbers"),
    "not_stored": ("○", "examples that the file of images does not hold count as robust"),
    "beyond_epsilon": ("↗", "images of the file farther away than the epsilon that they were made for"),
}
"""The mark of a flag in robustness tables, behind the model's name, and its footnote."""


def render(table: pa.Table, form: str, *, colour: bool = False, width: int | None = None) -> str:
    """A table as `rich`, `md`, `csv` or `json` text, ending in a newline.

    `colour` and `width` (columns of the terminal, beyond which long values wrap) concern `rich` only; by
    default it has no control codes and is as wide as it needs to be. Raises ValueError for another form.
    """
    columns = _unique(table.column_names)
    rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    match _known(form):
        case "csv":
            return _csv(columns, rows)
        case "json":
            return _json(columns, rows)
    numeric = [
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
        for t in table.schema.types
    ]
    texts = [[_text(value) for value in row] for row in rows]
    if form == "md":
        return _md(columns, texts, numeric)
    return _print(
        _rich([Text(name) for name in columns], [[Text(t) for t in row] for row in texts], numeric),
        colour,
        width,
    )


def render_robustness(
    tables: Sequence[RobustnessTable], form: str, *, colour: bool = False, width: int | None = None
) -> str:
    """Robustness tables as `rich` or `md` (percent), or as `csv` or `json` (shares, long form: `RECORDS`)."""
    if _known(form) in ("csv", "json"):
        return render(robustness_records(tables), form)
    if form == "md":
        return "\n".join(_robustness_md(table) for table in tables)
    return _print(Group(*(_robustness_rich(table) for table in tables)), colour, width)


def _robustness_md(table: RobustnessTable) -> str:
    header, numeric = _robustness_columns(table)
    rows = [
        [*_labels(row), _percent(row.clean_accuracy, row.clean_sd), *map(_entry_text, row.entries), _n(row)]
        for row in table.rows
    ]
    return f"### {_title(table)}\n\n{_md(header, rows, numeric)}\n{_caption(table)}\n"


def _robustness_rich(table: RobustnessTable) -> Group:
    header, numeric = _robustness_columns(table)
    rows = [
        [
            *map(Text, _labels(row)),
            Text(_percent(row.clean_accuracy, row.clean_sd)),
            *(Text(_entry_text(entry), style=_style(entry)) for entry in row.entries),
            Text(_n(row)),
        ]
        for row in table.rows
    ]
    drawn = _rich(list(map(Text, header)), rows, numeric)
    return Group(Text(_title(table), style="bold"), drawn, Text(_caption(table)), "")


def _robustness_columns(table: RobustnessTable) -> tuple[list[str], list[bool]]:
    labels = [f"{epsilon:.4g}" for epsilon in table.epsilons]
    if len(set(labels)) < len(labels):
        labels = [repr(epsilon) for epsilon in table.epsilons]
    names = ["model", "defence", "attack"]
    numbers = ["clean", *labels, "n"]
    return names + numbers, [False] * len(names) + [True] * len(numbers)


def _labels(row: Row) -> tuple[str, str, str]:
    marks = "".join(mark for flag, (mark, _) in _FLAGS.items() if flag in row.flags)
    return f"{row.model_label} {marks}".rstrip(), row.defence, row.attack_label


def _title(table: RobustnessTable) -> str:
    return f"{table.dataset}, {table.norm}: robust accuracy by epsilon"


def _caption(table: RobustnessTable) -> str:
    """How many examples, which scale, how uncertain, and what the marks mean."""
    entries = [entry for row in table.rows for entry in row.entries if entry is not None]
    counts = sorted({entry.n // entry.seeds for entry in entries if entry.status == "done"})
    parts = ["epsilon on the [0, 1] scale"]
    if counts:
        parts.insert(
            0, f"n = {'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} test examples"
        )
    halves = [(e.high - e.low) / 2 for e in entries if e.high is not None and e.low is not None]
    if halves:
        parts.append(f"95% intervals (test sampling only) at most ±{100 * max(halves):.1f} points")
    if any(entry.sd is not None for entry in entries):
        parts.append("mean ± SD over training seeds")
    flags = {flag for row in table.rows for flag in row.flags}
    parts += [f"{mark} {meaning}" for flag, (mark, meaning) in _FLAGS.items() if flag in flags]
    return "; ".join(parts)


def _n(row: Row) -> str:
    """Examples of the entries that are done: `500`, or `500 × 3 seeds`; a dash where none is."""
    done = [entry for entry in row.entries if entry is not None and entry.status == "done"]
    if not done:
        return _NO_VALUE
    most = max(done, key=lambda entry: entry.n)
    per_seed = most.n // most.seeds
    return f"{per_seed} × {most.seeds} seeds" if most.seeds > 1 else str(per_seed)


def _entry_text(entry: Entry | None) -> str:
    if entry is None:
        return _NO_VALUE
    return entry.mark or _percent(entry.value, entry.sd)


def _percent(value: float | None, sd: float | None) -> str:
    if value is None:
        return _NO_VALUE
    return f"{100 * value:.1f}%" if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f}%"


def _style(entry: Entry | None) -> str:
    """Colours of the terminal's own palette that can be read on black and on white alike."""
    if entry is None or entry.value is None:
        return "dim"
    return "green" if entry.value >= 2 / 3 else "red" if entry.value < 1 / 3 else ""


def _rich(header: Sequence[Text], rows: Sequence[Sequence[Text]], numeric: Sequence[bool]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for name, right in zip(header, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _print(drawn: RenderableType, colour: bool, width: int | None) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width or _UNBOUNDED,
        color_system="standard" if colour else None,
        force_terminal=colour,
        legacy_windows=False,
    )
    console.print(drawn)
    return "\n".join(line.rstrip() for line in stream.getvalue().strip("\n").split("\n")) + "\n"


def _md(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    rule = ["---:" if right else "---" for right in numeric]
    lines = [
        [_md_text(value) for value in header],
        rule,
        *([_md_text(value) for value in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _md_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\r", "").replace("\n", "<br>")


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_csv_value(value) for value in row] for row in rows])
    return stream.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    value = _plain(value)
    return json.dumps(_finite(value), ensure_ascii=False) if isinstance(value, list | dict) else value


def _json(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    records = [dict(zip(columns, map(_finite, map(_plain, row)), strict=True)) for row in rows]
    lines = ",\n".join(f"  {json.dumps(record, ensure_ascii=False, allow_nan=False)}" for record in records)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _text(value: Any) -> str:
    """A value as a person reads it."""
    value = _plain(value)
    if value is None:
        return _NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return json.dumps(_finite(value), ensure_ascii=False) if isinstance(value, dict) else str(value)


def _plain(value: Any) -> Any:
    """A Python value of any Arrow type, as one that JSON knows (or a float that it does not)."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time | datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _finite(value: Any) -> Any:
    """NaN and infinities as None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _unique(names: Sequence[str]) -> list[str]:
    """Column names, repeated ones numbered: a query may ask for two of the same name."""
    taken: list[str] = []
    for name in names:
        unique, i = name, 1
        while unique in taken:
            i += 1
            unique = f"{name}_{i}"
        taken.append(unique)
    return taken


FORMS = ("rich", "md", "csv", "json")


def _known(form: str) -> str:
    if form not in FORMS:
        raise ValueError(f"unknown format {form!r}: choose one of {', '.join(FORMS)}")
    return form
