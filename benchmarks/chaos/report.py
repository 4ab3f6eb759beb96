"""docs/reliability.md: every number of it from what a run of the trials has left, none by hand."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.chaos.accounts import Account
from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.reader import total
from workers.machine import available_cpus

TEXT = Path(__file__).parent / "reliability.md"


def surroundings(seed: int, load: Sequence[float]) -> dict[str, Any]:
    """What a run was made with and on."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "seed": seed,
        "load": [min(load), statistics.median(load), max(load)],
        "commit": git.stdout.strip() or "unknown",
        "when": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpus": available_cpus(),
        "system": f"{platform.system()} {platform.release()}, root: {'yes' if os.geteuid() == 0 else 'no'}",
        "versions": {name: version(name) for name in ("ray", "pyarrow", "tensorflow", "duckdb")}
        | {"python": platform.python_version()},
    }


def page(around: Mapping[str, Any], without: Mapping[str, str], accounts: Sequence[Account]) -> str:
    """The whole page."""
    sound = [account for account in accounts if not account.mutation]
    broken = [account for account in accounts if account.mutation]
    parts = {
        "summary": summary(around, sound),
        "faults": table(FAULTS, fault_rows(sound)),
        "trials": table(TRIALS, map(trial_row, sound)),
        "reader": reader_text(sound),
        "broken": table(BROKEN, map(broken_row, broken)) if broken else "Not run this time.",
        "missing": "\n".join(missing(without, sound)),
        "problems": "\n".join(problems(sound)),
    }
    text = TEXT.read_text()
    for name, value in parts.items():
        text = text.replace("{" + name + "}", value)
    return text


def summary(around: Mapping[str, Any], accounts: Sequence[Account]) -> str:
    faults = sum(len(account.faults) for account in accounts)
    lost, doubled = (sum(getattr(one, name) for one in accounts) for name in ("lost", "doubled"))
    rows = sum(account.rows for account in accounts)
    different = sum(account.differing for account in accounts)
    low, middle, high = around["load"]
    versions = ", ".join(f"{name} {number}" for name, number in around["versions"].items())
    return (
        f"**{faults} faults in {len(accounts)} sweeps: {lost} rows lost, {doubled} doubled, {different} "
        f"different** of {rows:,}, each held bit for bit against those of a sweep that nothing befell.\n\n"
        f"Seed {around['seed']}, commit {around['commit']}, {around['when']}, "
        f"{sum(account.seconds for account in accounts) / 60:.0f} minutes on {around['cpus']} CPUs "
        f"({around['system']}) that others used as well: load {low:.0f} to {high:.0f}, median {middle:.0f}, "
        f"so that seconds say little. {versions}."
    )


FAULTS = (
    "fault",
    "times",
    "rows lost",
    "rows doubled",
    "partial files seen",
    "units computed again",
    "at most",
    "seconds to recover: median",
    "max",
)


def fault_rows(accounts: Sequence[Account]) -> Iterator[Sequence[object]]:
    for kind, about in KINDS.items():
        having = [account for account in accounts if any(one.kind == kind for one in account.faults)]
        if not having:
            continue
        faults = [one for account in having for one in account.faults if one.kind == kind]
        times = sorted(one.recovery for one in faults if one.recovery is not None)
        allowed = sum(
            (account.workers if about.takes is None else about.takes)
            for account in having
            for one in account.faults
            if one.kind == kind
        )
        yield (
            about.what,
            len(faults),
            sum(account.lost for account in having),
            sum(account.doubled + account.findings.doubled for account in having),
            sum(account.findings.partial for account in having),
            sum(one.cost for one in faults),
            "–" if kind == "drivers" else allowed,
            f"{statistics.median(times):.1f}" if times else "–",
            f"{times[-1]:.1f}" if times else "–",
        )


TRIALS = ("sweep", "on", "faults", "units", "executed", "copies", "drivers ended with", "looks", "seconds")


def trial_row(account: Account) -> Sequence[object]:
    codes = Counter(account.codes)
    ends = ", ".join(f"{code} × {times}" if times > 1 else str(code) for code, times in sorted(codes.items()))
    return (
        account.name,
        account.place,
        len(account.faults),
        account.units,
        account.executed,
        account.copies,
        ends,
        account.findings.looks,
        f"{account.seconds:.0f}",
    )


def reader_text(accounts: Sequence[Account]) -> str:
    seen = total([account.findings for account in accounts])
    return (
        f"It looked {seen.looks:,} times, read {seen.files:,} new files whole, held {seen.rows:,} rows "
        f"against what they must be and made {seen.asked:,} tables and queries: {seen.partial} files that "
        f"were not whole or changed, {seen.doubled} rows that counted twice, {len(seen.vanished)} that had "
        f"counted and did not any more, {seen.wrong} wrong ones, {seen.errors} errors."
        + unkept_text(sum(len(account.unkept) for account in accounts))
    )


def unkept_text(rows: int) -> str:
    return (
        f" Of units that a failing disk interrupted it saw {rows} rows, which were computed again."
        if rows
        else ""
    )


BROKEN = ("broken on purpose", "what was noticed")


def broken_row(account: Account) -> Sequence[object]:
    counts = {
        "rows lost": account.lost,
        "rows doubled": account.doubled,
        "units computed again for no reason": account.unexplained,
        "files not whole, to the reader": account.findings.partial,
        "rows doubled, to the reader": account.findings.doubled,
        "rows vanished, to the reader": len(account.findings.vanished),
    }
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return account.name, said or "**nothing**"


def missing(without: Mapping[str, str], accounts: Sequence[Account]) -> Iterator[str]:
    for kind, why in without.items():
        yield f"- Not run here: {KINDS[kind].what} ({why})."
    missed: Counter[str] = sum((Counter(account.missed) for account in accounts), Counter())
    for kind, times in missed.items():
        what = KINDS[kind].what if kind in KINDS else kind
        yield f"- Drawn, and not counted {times} times: {what}; the sweep was over, or there was none to hit."


def problems(accounts: Sequence[Account]) -> Iterator[str]:
    found = [f"- {account.name}: {problem}" for account in accounts for problem in account.problems]
    yield from found or ["None."]


def table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
