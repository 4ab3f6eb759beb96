"""`robustsweep` as a person starts it, but that its workers are watched and its writes may fail.

`python -m benchmarks.chaos.driver RUNNER ARGUMENTS...`
"""

from __future__ import annotations

import dataclasses
import sys

from benchmarks.chaos.sabotage import sabotage
from benchmarks.chaos.scene import Scene
from orchestrator import cli
from orchestrator.run import options
from orchestrator.run import sweep as _sweep  # noqa: F401  what it imports is to be broken, too
from orchestrator.run.options import RunOptions


def main() -> None:
    runner, *arguments = sys.argv[1:]
    field = dataclasses.field(default=runner)
    watched = dataclasses.make_dataclass(
        "RunOptions", [("runner", str, field)], bases=(RunOptions,), frozen=True
    )
    options.RunOptions = watched  # type: ignore[misc]
    scene = Scene.here()
    scene.log("driver", "-", "-")
    sabotage(scene)
    sys.argv = ["robustsweep", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
