"""Draws docs/digits.svg, the picture in the README, from a finished run of the shipped grid.

robustsweep run digits && python docs/draw_picture.py outputs/digits
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from orchestrator.results.judged import cells_and_worst_cases
from orchestrator.results.tables import robustness_tables
from orchestrator.results.text import text_format
from orchestrator.store.folder import Store


def main() -> None:
    tables = robustness_tables(*cells_and_worst_cases(Store.existing(sys.argv[1]).results()))
    text = Text.from_ansi(text_format("rich", colour=True).robustness(tables))
    width = max(line.cell_len for line in text.split())
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=width, file=nowhere)
        console.print(text)
    svg = console.export_svg(title="robustsweep table outputs/digits", theme=MONOKAI)
    # Rich's template loads a font from the web; a picture in a repository should load nothing.
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.S)
    Path(__file__).with_name("digits.svg").write_text(svg)


if __name__ == "__main__":
    main()
