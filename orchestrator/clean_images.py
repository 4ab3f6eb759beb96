"""The clean images behind kept adversarial ones, from the dataset that was attacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.folder import Store
from workers import datasets
from workers.datasets import DatasetError
from workers.unit import DatasetSpec


def clean_images(
    store: Store, victim_id: str, index: NDArray[np.int64], data_dir: str | None = None
) -> tuple[NDArray[np.float32] | None, str]:
    """The clean images (N, H, W, C) of rows of a victim's test split; or None, and why."""
    pin = store.pins().get(victim_id)
    recorded = pin.manifest.get("dataset") if pin else None
    if not isinstance(recorded, Mapping) or "fingerprint" not in recorded:
        return None, "the folder does not say which data were attacked"
    names = [field.name for field in fields(DatasetSpec)]
    spec = DatasetSpec(**{name: recorded[name] for name in names if name in recorded})
    try:
        if not datasets.is_here(spec, data_dir):
            return None, f"{spec.name} is not here: data_dir may name a folder with {spec.name}.npz"
        data = datasets.load(spec, data_dir)
    except DatasetError as error:
        return None, str(error)
    if data.fingerprint != recorded["fingerprint"]:
        return None, f"{spec.name} is not as it was when it was attacked"
    return data.images("test", index), ""
