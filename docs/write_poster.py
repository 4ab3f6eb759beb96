"""Writes into docs/poster/README.md what its SQL and its commands answer, and makes the figures it shows.

Needs the sweeps that the page names in outputs/: `robustsweep run poster_small`, and so on. On the page, an
answer stands behind its block, between `<!-- answer -->` and `<!-- end -->`; of SQL, the first line names the
sweep.

python docs/write_poster.py
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "poster" / "README.md"
REPORT = PAGE.with_name("report.html")
ROBUSTSWEEP = Path(sys.executable).with_name("robustsweep")

BLOCK = re.compile(
    r"```(?P<language>sql|sh)\n(?P<text>.*?)```\n(?:\n<!-- answer -->\n(?P<answer>.*?)<!-- end -->\n)?",
    re.DOTALL,
)
SWEEP = re.compile(r"-- (?P<output>outputs/\w+)\n(?P<sql>.*)", re.DOTALL)


def answered(page: str) -> str:
    """The page with every answer as it is now."""
    return BLOCK.sub(_answered, page)


def _answered(block: re.Match[str]) -> str:
    if block["language"] == "sql":
        if (asked := SWEEP.fullmatch(block["text"])) is None:
            raise SystemExit(f"{PAGE}: SQL without a first line `-- outputs/…`: {block['text']}")
        answer = _said(["query", asked["output"], asked["sql"], "--format", "md"])
    else:
        commands = [
            shlex.split(line) for line in block["text"].splitlines() if line.startswith("robustsweep ")
        ]
        answer = "".join(_said(words) for _, *words in commands if words[0] != "run")
    if block["answer"] is None:
        return block[0]
    start, end = (at - block.start() for at in block.span("answer"))
    return f"{block[0][:start]}\n{answer.strip()}\n\n{block[0][end:]}"


def _said(words: list[str]) -> str:
    """What the command prints."""
    done = subprocess.run([ROBUSTSWEEP, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"robustsweep {shlex.join(words)}: {done.stderr}")
    print(f"robustsweep {' '.join(words)[:100]!r}", flush=True)
    return done.stdout


if __name__ == "__main__":
    PAGE.write_text(answered(PAGE.read_text()))
    REPORT.write_text(REPORT.read_text().replace(f"{ROOT}/", ""))  # where it was run is nobody's business
