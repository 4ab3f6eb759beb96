"""What a grid may name, for `robustsweep list`."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.grid.load import shipped_grids
from orchestrator.show import plain_table


def listing(console: Console, what: str) -> None:
    """What a grid may name."""
    table = {
        "models": _models,
        "datasets": _datasets,
        "attacks": _attacks,
        "defences": _defences,
        "grids": _grids,
    }[what]()
    console.print(table, highlight=False)


def _models() -> Table:
    from workers.victims.architectures import ARCHITECTURES

    table = plain_table("model", "options", "images")
    for name, architecture in sorted(ARCHITECTURES.items()):
        least = f"{architecture.min_size} px or more"
        if architecture.least_input:
            least = f"any size, smaller than {architecture.least_input} px resized to it"
        channels = " or ".join(map(str, architecture.channels)) or "any number of"
        table.add_row(name, _defaults(architecture.options), f"{least}, {channels} channels")
    table.add_row(
        "{name: …, path: …}",
        "pixel_range=null, normalise=null, inference=null",
        "those that your .keras file takes",
    )
    table.add_row("{name: …, factory: …}", "your own, inference=null", "your own")
    return table


def _datasets() -> Table:
    from workers.datasets import DATASETS, SCHEMES

    table = plain_table("dataset", "image", "classes", "train", "test", right=3)
    for name, source in DATASETS.items():
        info = source.info
        height, width, channels = info.shape
        table.add_row(
            name,
            f"{height}×{width}×{channels}",
            str(info.classes),
            f"{info.train_size:,}",
            f"{info.test_size:,}",
        )
    for prefix, scheme in SCHEMES.items():
        table.add_row(f"{prefix}<name>", f"any dataset of {scheme.library} with images and class labels")
    table.add_row("{name: …, path: …}", "an .npz, or a folder of images by class")
    return table


def _attacks() -> Table:
    from workers.attacks import REGISTRY

    table = plain_table("attack", "norms", "options")
    for name, attack in sorted(REGISTRY.items()):
        table.add_row(name, ", ".join(attack.NORMS), _defaults(attack, hidden=("norm", "content")))
    return table


def _defences() -> Table:
    from workers.defences import DEFENCES

    table = plain_table("defence", "acts", "options")
    for name, defence in sorted(DEFENCES.items()):
        acts = "in training" if defence.in_training else "at inference" if defence.at_inference else "–"
        table.add_row(name, acts, _defaults(defence))
    table.add_row("{name: …, factory: …}", "at inference", "your own")
    table.add_row("[…, …]", "–", "several together: at most one in training, first")
    return table


def _grids() -> Table:
    table = plain_table("grid", "what it is")
    for name, text in shipped_grids().items():
        comment = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        table.add_row(name, " ".join(comment))
    return table


def _defaults(options: Any, hidden: tuple[str, ...] = ()) -> str:
    shown = []
    for one in dataclasses.fields(options):
        if one.name not in hidden:
            default = getattr(one.default, "default", one.default)  # pydantic wraps a default in a FieldInfo
            if default is dataclasses.MISSING:
                shown.append(f"{one.name} (needed)")
                continue
            shown.append(f"{one.name}={'null' if default is None else default}")
    return ", ".join(shown) or "none"
