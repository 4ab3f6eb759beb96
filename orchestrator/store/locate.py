"""An output folder by what a person calls it: its place, or the name of the grid that ran into `outputs/`."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.errors import StoreError, did_you_mean
from orchestrator.store import OUTPUTS
from orchestrator.store.folder import Store
from workers import layout


def existing_output(name: str) -> Store:
    """The output folder at a path or URI; else, for a bare name, that of this name in `outputs/`.

    StoreError, which says where it was looked for, when there is none.
    """
    if not re.fullmatch(r"[^./\\~:][^/\\:]*", name):
        return Store.existing(name)
    beside = f"{OUTPUTS}/{name}"
    there = sorted(path.parent.name for path in Path(OUTPUTS).glob(f"*/{layout.RUNS}"))
    if Path(name).is_dir():
        try:
            return Store.existing(name)
        except StoreError as error:
            raise StoreError(f"{error}; {beside} is one" if name in there else str(error)) from None
    if Path(beside).is_dir():
        return Store.existing(beside)
    near = did_you_mean(name, there)
    raise StoreError(f"no such output folder: {name}, nor {beside}; {near}".rstrip("; "))
