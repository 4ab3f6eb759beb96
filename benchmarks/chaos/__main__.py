"""`python -m benchmarks.chaos`: trials one after another; docs/reliability.md with `--write`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.chaos.faults import trials
from benchmarks.chaos.places import impossible
from benchmarks.chaos.report import page, surroundings
from benchmarks.chaos.trial import Performance, undisturbed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few faults of each kind")
    parser.add_argument("--only", action="append", default=[], metavar="TRIAL")
    parser.add_argument("--folder", type=Path, help="where sweeps go, and stay; else a temporary folder")
    parser.add_argument("--write", type=Path, help="the page of what came of it; written after each trial")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    without, accounts, load = impossible(), [], [os.getloadavg()[0]]
    for number, trial in enumerate(trials(given.seed, given.rounds, smoke=given.smoke, only=given.only)):
        if missing := [kind for kind in trial.kinds if kind in without]:
            print(f"{trial.name}: not run: {'; '.join(f'{kind}: {without[kind]}' for kind in missing)}")
            continue
        print(f"{trial.name} on {trial.place}, {trial.units} units", flush=True)
        alike = folder / f"undisturbed-{trial.units}-{trial.real}"
        alike.mkdir(parents=True, exist_ok=True)
        account = Performance(trial, folder / f"{number:02d}", undisturbed(trial, alike), _say).run()
        accounts.append(account)
        load.append(os.getloadavg()[0])
        _say(f"{account.seconds:.0f} s, {len(account.faults)} faults, missed: {dict(account.missed)}")
        _say(f"codes {account.codes}, {account.executed} executed of {account.units}, {account.findings}")
        for problem in account.problems:
            _say(f"{'noticed' if trial.mutation else 'PROBLEM'}: {problem}")
        if given.write:
            given.write.write_text(page(surroundings(given.seed, load), without, accounts))
    # What is broken on purpose must be noticed, and nothing else must be.
    return int(any(bool(account.problems) != bool(account.mutation) for account in accounts))


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
