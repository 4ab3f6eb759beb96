"""`python -m benchmarks.chaos`: trials one after another; docs/reliability.md with `--write`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.accounts import Account
from benchmarks.chaos.faults import trials
from benchmarks.chaos.places import impossible
from benchmarks.chaos.trial import Performance, undisturbed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few faults of each kind")
    parser.add_argument("--only", action="append", default=[], metavar="TRIAL")
    parser.add_argument("--folder", type=Path, help="where sweeps go, and stay; else a temporary folder")
    parser.add_argument("--results", type=Path, help="a JSON file of what came of it, for the report")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    without = impossible()
    accounts: list[Account] = []
    load = [os.getloadavg()[0]]
    for number, trial in enumerate(trials(given.seed, given.rounds, smoke=given.smoke, only=given.only)):
        if missing := [kind for kind in trial.kinds if kind in without]:
            print(f"{trial.name}: not run: {'; '.join(f'{kind}: {without[kind]}' for kind in missing)}")
            continue
        print(f"{trial.name} on {trial.place}, {trial.units} units", flush=True)
        alike = folder / f"undisturbed-{trial.units}-{trial.real}"
        alike.mkdir(parents=True, exist_ok=True)
        expected = undisturbed(trial, alike)
        began = time.monotonic()
        say = lambda text, began=began: print(f"{time.monotonic() - began:6.1f} s{text}", flush=True)  # noqa: E731
        account = Performance(trial, folder / f"{number:02d}", expected, say).run()
        accounts.append(account)
        load.append(os.getloadavg()[0])
        print(f"  {account.seconds:.0f} s, {len(account.faults)} faults, {dict(account.missed)} missed")
        print(f"  codes {account.codes}, {account.executed} executed of {account.units}, {account.findings}")
        for problem in account.problems:
            print(f"  PROBLEM: {problem}", flush=True)
        if given.results:
            found = {"seed": given.seed, "load": load, "without": without}
            given.results.write_text(json.dumps({**found, "accounts": [asdict(one) for one in accounts]}))
    return int(any(account.problems for account in accounts))


if __name__ == "__main__":
    sys.exit(main())
