"""An output folder by what a person calls it: its place, or the name of the grid that ran into `outputs/`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from glob import glob
from pathlib import Path

from orchestrator.errors import StoreError, did_you_mean
from orchestrator.results.schemas import Results
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
    if os.path.isdir(name):
        try:
            return Store.existing(name)
        except StoreError as error:
            raise StoreError(f"{error}; {beside} is one" if name in there else str(error)) from None
    if os.path.isdir(beside):
        return Store.existing(beside)
    near = did_you_mean(name, there)
    raise StoreError(f"no such output folder: {name}, nor {beside}; {near}".rstrip("; "))


def existing_outputs(names: Sequence[str]) -> dict[str, Store]:
    """The output folders of several places, names and globs, each once, by what tells them apart.

    A glob is of local folders, or for a bare one also of names in `outputs/`; what is no output folder does
    not count. An output folder goes by its last name, with as much of its path before it as tells it from
    all others. StoreError where there is none.
    """
    stores = [store for name in names for store in _matching(name)]
    places = {store.folder.path: store for store in stores}
    if not places:
        raise StoreError("no output folder: at least one is needed")
    parts = {path: path.split("/") for path in places}
    found = {}
    for path, own in parts.items():
        others = [other for other in parts.values() if other is not own]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        found["/".join(own[-length:])] = places[path]
    return found


def with_strengthened(stores: Mapping[str, Store]) -> dict[str, Store]:
    """Some folders, and those of attacks on their survivors that are there."""
    found: dict[str, Store] = {}
    for sweep, store in stores.items():
        inside = Store(store.strengthened)
        found |= {
            sweep: store,
            **({f"{sweep}/{layout.STRENGTHENED}": inside} if inside.folder.exists() else {}),
        }
    return found


def read_results(stores: Mapping[str, Store]) -> tuple[list[Results], list[str]]:
    """What the folders of `existing_outputs` hold, and warnings. Cells are measured once, when asked for."""
    found, warnings = [], []
    for sweep, store in stores.items():
        accepted = store.accepted_shards()
        with suppress(OSError):  # a reader may have no right to write
            store.remember(accepted)
        results = store.results(accepted, sweep=sweep)
        found.append(replace(results, measured=cache(results.measured)))
        prefix = f"{sweep}: " if len(stores) > 1 else ""
        warnings += [f"{prefix}{warning}" for warning in accepted.warnings()]
    return found, warnings


def _matching(name: str) -> list[Store]:
    if "://" in name or not re.search(r"[*?[]", name) or os.path.exists(os.path.expanduser(name)):
        return [existing_output(name)]
    patterns = [str(Path(name).expanduser()), *([] if "/" in name else [f"{OUTPUTS}/{name}"])]
    folders = [folder for pattern in patterns for folder in sorted(glob(pattern))]
    stores = [Store(folder) for folder in folders if Path(folder, layout.RUNS).is_dir()]
    if found := [store for store in stores if store.run_ids()]:
        return found
    raise StoreError(f"no output folder matches {name}" + ("" if "/" in name else f", nor {patterns[1]}"))
