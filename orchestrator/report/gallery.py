"""Kept adversarial images as PNGs in the page: clean, perturbation, adversarial, and what the victim said.

As many as fit: each attack on each victim has its first image before any has its second.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from orchestrator.clean_images import clean_images
from orchestrator.report.facts import Facts
from orchestrator.results.schemas import Results
from orchestrator.results.text import robustness as words
from workers.unit import NO_DEFENCE

EACH = 4
"""Images of an attack on a victim, at the most."""

BYTES = 4_000_000
"""Of all PNGs together, as text in the page, at the most."""

_LARGEST = 96  # pixels of a side; larger images are shrunk, and the page says so
_COLUMNS = (
    *("position", "example_index", "label", "clean_label", "clean_confidence", "adv_label"),
    *("adv_confidence", "image", "image_shape"),
)


def gallery(facts: Facts) -> dict[str, Any]:
    """By victim, groups of images, one for each attack that has kept a success; how many were left out,
    and why there are no clean ones where there are none."""
    chosen = _chosen(facts)
    rows = _rows(facts, chosen)
    clean, missing = _clean(facts, chosen, rows)
    made: dict[int, list[dict[str, Any]]] = defaultdict(list)
    spent, left_out = 0, 0
    for i in range(EACH):
        for number, cell in enumerate(chosen):
            own = rows[cell["sweep"], cell["cell_id"]]
            if i >= len(own):
                continue
            if spent >= BYTES:
                left_out += 1
                continue
            row = own[i]
            shown = _shown(row, clean.get((cell["sweep"], cell["dataset"], row["example_index"])))
            spent += sum(len(shown[name]) for name in ("clean", "change", "adversarial"))
            made[number].append(shown)
    victims: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for i, cell in enumerate(chosen):
        if made[i]:
            group = {**_said(cell, facts), "images": made[i]}
            victims[group["victim"]].append(group)
    return {"victims": list(victims.items()), "left_out": left_out, "missing": missing}


def _chosen(facts: Facts) -> list[dict[str, Any]]:
    """A cell of each attack on each victim: the one of the smallest epsilon that has as many kept successes
    as any. None that a check calls wrong: its images may be none."""
    kept: dict[tuple[str, str], int] = {}
    for results in facts.results:
        counted = _kept(results, ["cell_id"]).group_by("cell_id").aggregate([([], "count_all")])
        for row in counted.to_pylist():
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


def _kept(results: Results, columns: Sequence[str], cells: Iterable[str] | None = None) -> pa.Table:
    """Rows that have an image and are a success, of some cells or of all."""
    wanted = pc.field("image").is_valid() & pc.field("success")
    if cells is not None:
        wanted = pc.field("cell_id").isin(list(cells)) & wanted
    return results.examples.to_table(columns=[*columns], filter=wanted)


def _rows(facts: Facts, chosen: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The first rows with images of each chosen cell, in the evaluation order."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for results in facts.results:
        cells = [cell["cell_id"] for cell in chosen if cell["sweep"] == results.sweep]
        if cells:
            table = _kept(results, ["cell_id", *_COLUMNS], cells).sort_by("position")
            for row in table.to_pylist():
                own = found[results.sweep, row["cell_id"]]
                if len(own) < EACH:
                    own.append(row)
    return found


_Clean = dict[tuple[str, str, int], NDArray[np.float32]]


def _clean(
    facts: Facts,
    chosen: Sequence[dict[str, Any]],
    rows: dict[tuple[str, str], list[dict[str, Any]]],
) -> tuple[_Clean, list[str]]:
    """Clean images by sweep, dataset and row of its test split; each dataset is read once."""
    groups: dict[tuple[str, str], tuple[str, set[int]]] = {}
    for cell in chosen:
        _, wanted = groups.setdefault((cell["sweep"], cell["dataset"]), (cell["victim_id"], set()))
        wanted.update(row["example_index"] for row in rows[cell["sweep"], cell["cell_id"]])
    found: _Clean = {}
    missing = []
    for (sweep, dataset), (victim_id, wanted) in groups.items():
        index = np.array(sorted(wanted), np.int64)
        images, why = clean_images(facts.stores[sweep], victim_id, index, facts.data_dir)
        if images is None:
            missing.append(why)
            continue
        found |= {(sweep, dataset, int(i)): image for i, image in zip(index, images, strict=True)}
    return found, list(dict.fromkeys(missing))


def _said(cell: dict[str, Any], facts: Facts) -> dict[str, Any]:
    texts = facts.victims[cell["sweep"], cell["victim_id"]]["texts"]
    attack = facts.attacks[cell["sweep"], cell["attack_id"]]
    defence = "" if cell["defence"] == NO_DEFENCE.name else f" with {texts.defence}"
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
        "at": f"{cell['norm']} {words.epsilon_text(cell['epsilon'])}",
        "doubt": ", ".join(cell["checks"]) if cell["verdict"] == "suspicious" else "",
    }


def _shown(row: dict[str, Any], clean: NDArray[np.float32] | None) -> dict[str, Any]:
    image = np.frombuffer(row["image"], np.float32).reshape(row["image_shape"])
    scale, change = 0, ""
    if clean is not None and clean.shape == image.shape:
        difference = image - clean
        scale = _scale(float(np.abs(difference).max()))
        change = png(0.5 + 0.5 * scale * difference)
    return {
        "adversarial": png(image),
        "clean": png(clean) if scale and clean is not None else "",
        "change": change,
        "scale": scale,
        "label": row["label"],
        "before": _answer(row["clean_label"], row["clean_confidence"]),
        "after": _answer(row["adv_label"], row["adv_confidence"]),
        "index": row["example_index"],
        "size": f"{image.shape[1]} × {image.shape[0]}",
        "shrunk": max(image.shape[:2]) > _LARGEST,
    }


def _scale(largest: float) -> int:
    """The roundest factor that keeps a perturbation within the grey scale: 1, 2, 5, 10, 20, …"""
    if not 0 < largest < np.inf:
        return 1
    fitting = [
        step * 10**power for power in range(4) for step in (1, 2, 5) if step * 10**power * largest <= 1
    ]
    return max(fitting, default=1)


def _answer(label: int | None, confidence: float | None) -> str:
    if label is None:
        return "no finite answer"
    return f"{label}" if confidence is None else f"{label} ({100 * confidence:.0f}%)"


def png(image: NDArray[np.float32]) -> str:
    """A float image (H, W, C) in [0, 1] as the text of a `data:` address; NaN is black."""
    levels = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] != 3 else levels)
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
