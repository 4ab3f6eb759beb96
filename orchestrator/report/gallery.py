"""Kept adversarial images as PNGs in the page: clean, perturbation, adversarial, and what the victim said.

As many as fit: each attack on each victim has its first image before any has its second.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from orchestrator.report.facts import Facts
from orchestrator.results.display import behind, epsilon_text
from orchestrator.results.kept import Kept, class_names, kept_images
from orchestrator.results.reading import read_rows

EACH = 4
"""Images of an attack on a victim, at the most."""

BYTES = 4_000_000
"""Of all PNGs together, as text in the page, at the most."""

_ROOM = 0.5 + 0.5 / 255  # about grey; half a level of 8 bits more is not seen
_LARGEST = 96  # pixels of a side; larger images are shrunk, and the page says so


def gallery(facts: Facts) -> dict[str, Any]:
    """By victim, groups of images, one for each attack that has kept a success; how many were left out since
    they are too many, and how many since their clean images were not kept with them."""
    chosen = _chosen(facts)
    kept: dict[tuple[str, str], Kept] = {}
    unclean = 0
    for results in facts.results:
        cells = [cell["cell_id"] for cell in chosen if cell["sweep"] == results.sweep]
        found = kept_images(results, cells, broken=True, n=EACH) if cells else {}
        for cell_id, some in found.items():
            whole = some.rows.filter(pc.field("clean_image").is_valid())
            unclean += some.rows.num_rows - whole.num_rows
            kept[results.sweep, cell_id] = replace(some, rows=whole)
    made: dict[int, list[dict[str, Any]]] = defaultdict(list)
    spent, left_out = 0, 0
    for i in range(EACH):
        for number, cell in enumerate(chosen):
            images = kept.get((cell["sweep"], cell["cell_id"]))
            if images is None or i >= images.rows.num_rows:
                continue
            if spent >= BYTES:
                left_out += 1
                continue
            [row] = images.rows.slice(i, 1).to_pylist()
            names = class_names(facts.of(cell["sweep"]), cell["victim_id"])
            shown = _shown(row, images.adversarial[i], images.clean[i], names)
            spent += sum(len(shown[name]) for name in ("clean", "change", "adversarial"))
            made[number].append(shown)
    victims: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for i, cell in enumerate(chosen):
        if made[i]:
            group = {**_said(cell, facts), "images": made[i]}
            victims[group["victim"]].append(group)
    return {"victims": list(victims.items()), "left_out": left_out, "unclean": unclean}


def _chosen(facts: Facts) -> list[dict[str, Any]]:
    """A cell of each attack on each victim: the one of the smallest epsilon that has as many kept successes
    as any. None that a check calls wrong: its images may be none."""
    kept: dict[tuple[str, str], int] = {}
    for results in facts.results:
        successes = pc.field("image").is_valid() & pc.field("success")
        found = read_rows(results.examples, ["cell_id"], successes)
        for row in found.group_by("cell_id").aggregate([([], "count_all")]).to_pylist():
            kept[results.sweep, row["cell_id"]] = min(EACH, row["count_all"])
    best: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in facts.rows("cells"):
        n = kept.get((cell["sweep"], cell["cell_id"]), 0)
        if not n or not cell["epsilon"] or cell["verdict"] == "wrong":
            continue
        key = cell["sweep"], cell["victim_id"], cell["attack_id"]
        if key not in best or n > kept[best[key]["sweep"], best[key]["cell_id"]]:
            best[key] = cell
    return list(best.values())


def _said(cell: dict[str, Any], facts: Facts) -> dict[str, Any]:
    texts = facts.victims[cell["sweep"], cell["victim_id"]]["texts"]
    attack = facts.attacks[cell["sweep"], cell["attack_id"]]
    defence = behind(cell["defence"], texts.defence)
    seed = f", seed {cell['seed']}" if cell["seed"] else ""
    sweep = f" in {cell['sweep']}" if len(facts.results) > 1 else ""
    victim = {
        "sweep": cell["sweep"],
        "dataset": texts.dataset,
        "model": texts.model,
        "defence": texts.defence,
    }
    return {
        "victim": f"{texts.dataset}: {texts.model}{defence}{seed}{sweep}",
        "victim_keys": victim,
        "keys": {**victim, "norm": cell["norm"], "attack": attack},
        "title": attack,
        "at": f"{cell['norm']} {epsilon_text(cell['epsilon'])}",
        "doubt": ", ".join(cell["checks"]) if cell["verdict"] == "suspicious" else "",
    }


def _shown(
    row: dict[str, Any], image: NDArray[np.float32], clean: NDArray[np.float32], names: Sequence[str]
) -> dict[str, Any]:
    difference = image - clean
    scale = _scale(float(np.abs(difference).max()))
    return {
        "adversarial": png(image),
        "clean": png(clean),
        "change": png(0.5 + scale * difference),
        "scale": scale,
        "label": _name(row["label"], names),
        "before": _answer(row["clean_label"], row["clean_confidence"], names),
        "after": _answer(row["adv_label"], row["adv_confidence"], names),
        "index": row["example_index"],
        "size": f"{image.shape[1]} × {image.shape[0]}",
        "shrunk": max(image.shape[:2]) > _LARGEST,
    }


def _scale(largest: float) -> float:
    """The roundest factor that keeps a perturbation, drawn about grey, within black and white: 0.5, 1, 2, 5,
    10, 20, …"""
    round_ones = [step * 10**power for power in range(4) for step in (1, 2, 5)]
    fitting = [scale for scale in round_ones if 0 < scale * largest <= _ROOM]
    return max(fitting, default=0.5 if largest else 1)


def _answer(label: int | None, confidence: float | None, names: Sequence[str]) -> str:
    if label is None:
        return "no finite answer"
    name = _name(label, names)
    return name if confidence is None else f"{name} ({100 * confidence:.0f}%)"


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)


def png(image: NDArray[np.float32]) -> str:
    """A float image (H, W, C) in [0, 1] as the text of a `data:` address; NaN is black."""
    levels = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] != 3 else levels)
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
