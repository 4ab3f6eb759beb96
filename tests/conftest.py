"""What every test runs under."""

import os

import pytest

# As `workers.victims.runtime` has it, for the tests that import TensorFlow themselves.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay together when pytest-xdist spreads them over processes.

    A file's own, for their trained victims are made once a process; and all that start Ray, which takes the
    whole machine and would not find it twice. Those come first, since no other group takes as long.
    """
    items.sort(key=lambda item: not item.get_closest_marker("ray"))
    for item in items:
        together = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))
