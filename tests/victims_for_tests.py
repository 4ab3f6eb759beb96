"""Small victims for tests that need a trained one."""

from __future__ import annotations

from typing import Any

from workers.unit import VictimSpec


def victim_spec(victim_id: str = "small_cnn-digits-s0-0123456789", **changes: Any) -> VictimSpec:
    """A narrow network that learns the digits well in a second or two."""
    values: dict[str, Any] = {
        "victim_id": victim_id,
        "model": {"name": "small_cnn", "version": 1, "width": 8},
        "dataset": {"name": "digits", "version": 1, "order_version": 1},
        "recipe": {"version": 1, "epochs": 4, "batch_size": 32, "learning_rate": 5e-3, "examples": None},
        "defence": {"name": "none", "version": 1},
        "seed": 0,
        "model_options": "width=8",
    }
    return VictimSpec(**values | changes)
