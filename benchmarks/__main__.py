"""`python -m benchmarks [NAME...]`: run all benchmarks, or those named. Exit code 1: a target was missed."""

from __future__ import annotations

import importlib
import sys

from workers.machine import available_cpus

BENCHMARKS = (
    "startup",
    "planning",
    "simulation",
    "affinity",
    "orchestration",
    "publishing",
    "requests",
    "costs",
    "tables",
    "shards",
    "cells",
    "reports",
    "figures",
    "layout",
    "scales",
    "training",
    "attacks",
    "strength",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    missed = 0
    print(f"{available_cpus()} CPUs")
    for name in names or BENCHMARKS:
        print(f"{name}:", flush=True)
        for reading in importlib.import_module(f"benchmarks.{name}").measure():
            print(reading, flush=True)
            missed += reading.missed
    if missed:
        print(f"{missed} target{'s' if missed > 1 else ''} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
