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

PAGE = Path(__file__).with_name("poster") / "README.md"
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
    return block[0].replace(block["answer"], f"\n{answer.strip()}\n\n", 1)


def _said(words: list[str]) -> str:
    """What the command prints; where `verify` finds something wrong (exit code 1), that is the answer."""
    done = subprocess.run([ROBUSTSWEEP, *words], cwd=PAGE.parents[2], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"robustsweep {shlex.join(words)}: {done.stderr}")
    print(f"robustsweep {' '.join(words)[:100]!r}", flush=True)
    return done.stdout


if __name__ == "__main__":
    PAGE.write_text(answered(PAGE.read_text()))
