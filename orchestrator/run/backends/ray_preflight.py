"""Every machine of a cluster is looked at before workers start there, with a time limit.

The question goes to each machine by value, since the code there may be another: nothing of it is imported
before it is known to be the same.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.run.backends.ray_cluster import Node
from workers import code
from workers.code import Code, this_code
from workers.preflight import Findings, listing
from workers.unit import WorkerSettings

LIMIT_SECONDS = 60.0


class Preflight:
    """Looks at one machine after another; `answers` says what came of it."""

    def __init__(
        self, settings: WorkerSettings, remedy: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`remedy` is what a person can do about other code on a machine."""
        self._remedy = remedy
        self._clock = clock
        self._asked: dict[Any, tuple[Node, float]] = {}
        self._ask = ray.remote(num_cpus=0, max_retries=0)(_question())
        self._arguments = (
            _by_value(),
            asdict(this_code()),
            pickle.dumps(settings),
            listing(settings.data_dir),
        )

    @property
    def waiting(self) -> int:
        """Machines that have not answered yet."""
        return len(self._asked)

    def ask(self, node: Node) -> None:
        """Have a machine looked at."""
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        call = self._ask.options(scheduling_strategy=there).remote(*self._arguments)
        self._asked[call] = node, self._clock()

    def answers(self, timeout: float = 0.0) -> list[tuple[Node, Findings]]:
        """What has been found since the last call, waiting at most so many seconds for the first of it."""
        if not self._asked:
            return []
        done, _ = ray.wait(list(self._asked), num_returns=1, timeout=timeout)
        done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        found = [(self._asked.pop(call)[0], self._findings(call)) for call in done]
        for call, (node, since) in list(self._asked.items()):
            if self._clock() - since > LIMIT_SECONDS:
                del self._asked[call]
                ray.cancel(call, force=True)
                silent = f"it has not answered for {LIMIT_SECONDS:.0f} s: is its storage reachable?"
                found.append((node, Findings((silent,))))
        return found

    def _what_to_do(self, theirs: Code) -> str:
        lacking = sorted(set(this_code().libraries) - set(theirs.libraries))
        install = f"pip install {' '.join(f'{name}=={version}' for name, version in lacking)} there"
        return install if lacking and theirs.source == this_code().source else self._remedy

    def _findings(self, call: Any) -> Findings:
        try:
            there, faults, notes = ray.get(call, timeout=10)
        except (RayError, GetTimeoutError) as error:
            return Findings((_why(error),))
        if there is not None:
            theirs = Code(**there | {name: tuple(map(tuple, there[name])) for name in ("files", "libraries")})
            differences = theirs.differences(this_code()) if theirs.files else ["there is no robustsweep"]
            what = f"it runs other code than the driver: {'; '.join(differences)}"
            return Findings((f"{what}: {self._what_to_do(theirs)}",))
        return Findings(tuple(faults), tuple(notes))


def _question() -> Callable[..., Any]:
    """A function that is sent by value, as one that is defined inside of another always is."""

    def question(code_in: bytes, expected: dict[str, Any], settings: bytes, data: Any) -> Any:
        """(this machine's code where it differs, faults, notes)"""
        import importlib.util
        import pickle
        from dataclasses import asdict
        from pathlib import Path

        spec = importlib.util.find_spec("workers")
        places = list(spec.submodule_search_locations or ()) if spec else []
        here = asdict(pickle.loads(code_in)(Path(places[0] if places else "no such folder")))
        if here != expected:
            return here, (), ()
        from workers.preflight import look

        found = look(pickle.loads(settings), data)
        return None, found.faults, found.notes

    return question


def _by_value() -> bytes:
    """`code_in`, pickled with all that it needs of its module."""
    cloudpickle.register_pickle_by_value(code)
    try:
        return bytes(cloudpickle.dumps(code.code_in))
    finally:
        cloudpickle.unregister_pickle_by_value(code)


def _why(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RuntimeEnvSetupError):
        return f"the code that was sent cannot be set up there: {lines[-1]}"
    return f"it cannot be looked at: {type(error).__name__}: {lines[-1]}"
