"""What every test runs under."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# As `workers.runtime` has it, for the tests that import TensorFlow themselves.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest-xdist gives its processes a terminal's width; the tests expect a pipe's.
    os.environ.pop("COLUMNS", None)
    # As many processes as CPUs: threads of each would wait for each other, which takes a fifth of the time.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

STARTING_RAY = (
    "test_benchmarks.py",
    "test_chaos.py",
    "test_ray_backend.py",
    "test_ray_elastic.py",
    "test_smoke.py",
)
"""Files whose tests start Ray, in the order in which they run."""

LONG = (
    "test_honesty.py",
    "test_resuming.py",
    "test_applications.py",
    "test_defences_training.py",
    "test_checks.py",
    "test_strengthen.py",
    "test_query.py",
    "test_scale.py",
    "test_report.py",
    "test_figures.py",
    "test_sweep.py",
    "test_compact.py",
)
"""Others that take longest, in order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start Ray first, as no others take as long; then the attacks, and what else is long, so
    that none is left for the end, when there is nothing beside it."""

    def place(item: pytest.Item) -> tuple[int, int]:
        name = item.path.name
        for i, names in enumerate((STARTING_RAY, LONG)):
            if name in names:
                return 2 * i, names.index(name)
        return (1, 0) if name.startswith(ATTACKS) else (3, 0)

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("ray"):
            assert item.path.name in STARTING_RAY, f"{item.path.name} starts Ray: name it in {__file__}"


def pytest_collection_finish() -> None:
    """What has been imported stays: looking for cycles among it over and over is a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


ATTACKS = "test_attacks"
"""What the names of files begin with whose tests attack the networks of `tests.support.models`."""


class TogetherByFile(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests in one process, where its victims are trained once; so are all that attack the same
    networks. What starts Ray is in one too, and mostly waits; but for the smoke, which computes."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0].rpartition("/")[2]
        if file in STARTING_RAY and file != "test_smoke.py":
            return "ray"
        return ATTACKS if file.startswith(ATTACKS) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherByFile:
    return TogetherByFile(config, log)
