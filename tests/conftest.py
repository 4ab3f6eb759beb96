"""What every test runs under."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# As `workers.runtime` has it, for the tests that import TensorFlow themselves.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# pytest-xdist gives its processes a terminal's width; the tests expect a pipe's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COLUMNS", None)

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


LONG = ("test_honesty.py", "test_checks.py", "test_figures.py", "test_strengthen.py", "test_resuming.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start Ray first, as no others take as long; then long ones, so that none is left for the
    end, when there is nothing beside it."""
    items.sort(key=lambda item: (item.path.name not in STARTING_RAY, item.path.name not in LONG))
    for item in items:
        if item.get_closest_marker("ray"):
            assert item.path.name in STARTING_RAY, f"{item.path.name} starts Ray: name it in {__file__}"


class TogetherByFile(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests in one process, where its victims are trained once; all that start Ray in one, too, and
    all that attack the networks of `tests.support.models`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        if file.endswith(STARTING_RAY):
            return "ray"
        return "attacks" if file.startswith("tests/test_attacks") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherByFile:
    return TogetherByFile(config, log)
