"""Tables in LaTeX, as a paper has them: the package booktabs is all that they need."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.results.checks import RULES
from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import Columns, Format, shown
from workers.flags import Flag

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "ε": r"$\varepsilon$",
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    # Marks of flags: as they are where the package that they need is none, else a sign that is near.
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "∇": r"$\nabla$",
    "¤": r"$\star$",
    "◊": r"$\diamond$",
    "≈": r"$\approx$",
    "⇣": r"$\Downarrow$",
    "⟳": r"$\bigcirc$",
    "⊘": r"$\oslash$",
    "≠": r"$\neq$",
    "∼": r"$\sim$",
    "○": r"$\circ$",
    "↗": r"$\nearrow$",
    "⊗": r"$\otimes$",
    "↝": r"$\hookrightarrow$",
    "⊜": r"$\ominus$",
    "\r": "",
    "\n": " ",
}
_DASH = "--"


def escaped(text: str) -> str:
    """A text that means itself to LaTeX."""
    return "".join(_ESCAPES.get(character, character) for character in text)


class LaTeX(Format):
    def columns(self, columns: Columns) -> str:
        rows = [_line([escaped(shown(value)) for value in row]) for row in columns.rows]
        return _tabular(columns.numeric, list(map(escaped, columns.names)), rows)

    def captioned(self, columns: Columns, caption: str) -> str:
        return _floating(escaped(caption[:1].upper() + caption[1:]), self.columns(columns))

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return "\n".join(_Robustness(table, self.digits).text() for table in tables)


class _Robustness:
    """One table. Its footnotes go by letters, since marks of flags are in few fonts."""

    def __init__(self, table: RobustnessTable, digits: int) -> None:
        self.table, self.digits = table, digits
        self.notes: dict[str, str] = {}  # text -> letter, in the order of their first use

    def text(self) -> str:
        names, numeric = words.header(self.table)
        epsilons = words.epsilons(self.table)
        first = words.first_entry(self.table)
        head = [
            rf"$\varepsilon = {name}$" if first <= i < first + len(epsilons) else escaped(name)
            for i, name in enumerate(names)
        ]
        head[-1] = "$n$"
        lines: list[str] = []
        for _, rows in groupby(self.table.rows, lambda row: (row.sweep, row.model_label, row.defence_label)):
            if lines:
                lines.append(r"    \addlinespace")
            lines += [self._row(row) for row in rows]
        caption = ". ".join(escaped(_sentence(part)) for part in self._caption())
        notes = r"\quad ".join(
            rf"\textsuperscript{{{letter}}}\,{escaped(note)}." for note, letter in self.notes.items()
        )
        below = f"  \\par\\smallskip\n  {{\\footnotesize {notes}\\par}}\n" if notes else ""
        return _floating(caption, _tabular(numeric, head, lines) + below)

    def _caption(self) -> list[str]:
        share = ", in percent" if self.table.metric.share else ""
        parts = [f"{words.title(self.table)}{share}", *words.facts(self.table, {})]
        entries = [entry for row in self.table.rows for entry in row.entries if entry is not None]
        if any(entry.reach is not None and entry.sd is None for entry in entries):
            parts.append("± is the wider side of the 95% Wilson interval, for the sampling of test images")
        if best := words.said_of_best(self.table):
            parts.append(best)
        return parts

    def _row(self, row: Row) -> str:
        labels = list(map(escaped, words.labels(self.table, row, {}, marked=False)))
        cells = [*labels, _percent(row.clean_accuracy, row.clean_sd, self.digits)]
        cells[0] += self._said(row)
        return _line([*cells, *map(self._entry, row.entries), escaped(words.examples(row))])

    def _said(self, row: Row) -> str:
        """The footnotes of what flags and checks say of a row, but for what makes a number wrong."""
        flags = [f"{flag.severity}: {flag.meaning}" for flag in Flag if flag in row.flags]
        rules = [
            f"{RULES[name].severity}: {RULES[name].meaning}"
            for name in row.checks
            if name not in set(Flag) and RULES[name].severity == "suspicious"
        ]
        return self._noted([*flags, *rules])

    def _entry(self, entry: Entry | None) -> str:
        if entry is None:
            return _DASH + self._noted(["not in the grid"])
        if entry.mark == "wrong":
            wrong = [name for name in entry.checks if RULES[name].severity == "wrong"]
            return _DASH + self._noted([f"wrong: {RULES[name].meaning}" for name in wrong])
        if entry.mark or entry.value is None:
            return _DASH + self._noted([entry.mark or entry.without or "not measured"])
        text = (
            # Of a mean over seeds the deviation is said.
            _percent(entry.value, entry.reach if entry.sd is None else entry.sd, self.digits)
            if self.table.metric.share
            else escaped(words.value_text(entry.value, entry.sd, self.table, self.digits))
        )
        return rf"\textbf{{{text}}}" if entry.best else text

    def _noted(self, texts: Sequence[str]) -> str:
        letters = [self.notes.setdefault(text, _letter(len(self.notes))) for text in texts]
        return rf"\textsuperscript{{{','.join(letters)}}}" if letters else ""


def _percent(value: float | None, spread: float | None, digits: int) -> str:
    if value is None:
        return _DASH
    text = f"{100 * value:.{digits}f}"
    return text if spread is None else rf"{text}\,$\pm$\,{100 * spread:.{digits}f}"


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a symbol or a name."""
    ours = text.startswith(("at ", "bold", "under", "mean", "worst", "targeted", "epsilon"))
    return text[0].upper() + text[1:] if ours else text


def _letter(number: int) -> str:
    """a, b, …, z, aa, ab, …"""
    before = _letter(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("a") + number % 26)


def _line(cells: Sequence[str]) -> str:
    # A row that begins so would be taken for an option of the line break before it.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"    {guard}{' & '.join(cells)} \\\\"


def _floating(caption: str, body: str) -> str:
    return (
        f"% \\usepackage{{booktabs}}\n\\begin{{table}}\n  \\centering\n  \\caption{{{caption}.}}\n"
        f"{body}\\end{{table}}\n"
    )


def _tabular(numeric: Sequence[bool], head: Sequence[str], lines: Sequence[str]) -> str:
    places = "".join("r" if right else "l" for right in numeric)
    body = "".join(f"{line}\n" for line in lines)
    return (
        f"  \\begin{{tabular}}{{{places}}}\n    \\toprule\n{_line(head)}\n    \\midrule\n{body}"
        "    \\bottomrule\n  \\end{tabular}\n"
    )
