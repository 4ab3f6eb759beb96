"""What a process is set up with, as far as that can be seen without TensorFlow."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from workers.runtime import without_extras


def test_what_keras_imports_wherever_it_is_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    there = types.ModuleType("sklearn")
    monkeypatch.setitem(sys.modules, "sklearn", there)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    with without_extras():
        assert importlib.import_module("sklearn") is there  # somebody has it already
        with pytest.raises(ImportError):
            importlib.import_module("matplotlib")
    assert sys.modules["sklearn"] is there and "matplotlib" not in sys.modules
    assert importlib.util.find_spec("matplotlib")
