"""What attacks did to images: clean, the change, adversarial, with the victim's answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen, chosen, epsilon_of, no_epsilon
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.page import Drawing, measured, wrapped
from orchestrator.results.figures.series import Remarks, name_of
from orchestrator.results.figures.sheet import Sheet
from orchestrator.results.figures.style import FONT_SIZES, PAGE
from orchestrator.results.kept import Kept, class_names, kept_images
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, RobustnessTable, Row, of_one_attack
from orchestrator.results.text.robustness import number

_MOST = 12  # cells of a figure
_TRIPLE = 2.2  # inches that three images beside each other have at the least
_GAP, _BETWEEN, _EDGE = 0.05, 0.16, 0.06  # inches: between images, between examples, at the sides
_TEXT = 0.24  # inches of what is said below an image


class Example(NamedTuple):
    """One image, before and after."""

    clean: NDArray[np.float32]  # (H, W, C) in [0, 1]
    adversarial: NDArray[np.float32]
    before: tuple[str, str]  # what the victim took it for, and how surely
    after: tuple[str, str]
    distance: str  # in the norm of the attack


class _Block(NamedTuple):
    """The images of a cell."""

    order: tuple[int, int]  # of its dataset, and of the cell in its grid
    title: str
    examples: list[Example]


def gallery(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw the first images that each attack broke: clean, the change (enlarged, and how much is said), and
    adversarial, with the victim's answers and their confidences; at one epsilon, of up to 12 cells."""
    found = chosen(results, choice.wanted, choice.by)
    at = [
        (table, epsilon)
        for table in found.tables
        if (epsilon := epsilon_of(table, choice.epsilon)) is not None
    ]
    if not at:
        raise no_epsilon(found.tables, choice.epsilon or 0.0)
    width = choice.width or PAGE
    sheet, remarks = Sheet(width), Remarks()
    beside = max(1, int(width / _TRIPLE))
    places = list(_places(at))
    blocks: list[_Block] = []
    unbroken: list[str] = []
    without: list[str] = []
    order = {key: i for i, key in enumerate(found.cells)}
    datasets = list(dict.fromkeys(table.dataset for table, _ in at))
    for table, epsilon, row, entry in places:
        if len(blocks) == _MOST:
            break
        title = (
            f"{table.dataset_label}, {table.norm}: {name_of(table, row)} under {row.attack_label}, "
            f"epsilon {epsilon_text(epsilon)}"
        )
        if entry.seeds > 1 and entry.places:
            title += f", seed {entry.places[0].seed} (of {entry.seeds})"
        if entry.mark:
            remarks.see(entry, title)
            continue
        kept, names = _kept(results, found, row, entry, beside)
        if kept is None:
            without.append(title)
        elif not kept.rows.num_rows:
            unbroken.append(title)
        else:
            remarks.see_rules(entry)
            doubted = "*" if entry.verdict == "suspicious" else ""
            place = datasets.index(table.dataset), order[row.sweep, entry.places[0].of]
            blocks.append(_Block(place, f"{title}{doubted}", list(_examples(kept, names, table.norm))))
    if not blocks:
        why = "none was broken" if unbroken else "`keep: N` in a grid keeps the first N of each cell"
        raise UserError(f"nothing to draw: of {len(places)} cells no broken image is kept: {why}")
    side = (width - 2 * _EDGE - (beside - 1) * _BETWEEN) / (3 * beside) - _GAP
    for block in sorted(blocks, key=lambda block: block.order):
        _draw(sheet, block, side)
    sheet.note(
        "of each cell the first images that were broken: clean, change (× s: a change d is drawn as 0.5 + "
        "s·d, grey where it is 0), adversarial, as first found; below: what the victim takes it for, with "
        "its confidence"
    )
    if len(blocks) == _MOST < len(places):
        sheet.note(f"{_MOST} of {len(places)} cells: --dataset, --model, --attack, … choose")
    if unbroken:
        sheet.note(f"none broken: {'; '.join(unbroken[:3])}{' and more' if len(unbroken) > 3 else ''}")
    if without:
        sheet.note(f"no images kept: {len(without)} cells")
    remarks.say(sheet, bands=None, suspicious="*")
    return sheet.finished()


def _places(
    at: Sequence[tuple[RobustnessTable, float]],
) -> Iterator[tuple[RobustnessTable, float, Row, Entry]]:
    """The cells of tables at their epsilons, one of each table by turns."""
    columns = [
        [
            (table, epsilon, row, entry)
            for row in table.rows
            if of_one_attack(row) and (entry := row.entries[table.epsilons.index(epsilon)]) is not None
        ]
        for table, epsilon in at
    ]
    for turn in zip_longest(*columns):
        yield from (one for one in turn if one is not None)


def _kept(
    results: Sequence[Results], found: Chosen, row: Row, entry: Entry, count: int
) -> tuple[Kept | None, tuple[str, ...]]:
    """Of the first training seed; None where none is kept."""
    place = entry.places[0]
    [own] = [one for one in results if one.sweep == row.sweep]
    victim = found.cells[row.sweep, place.of]["victim_id"]
    kept = kept_images(own, [place.of], broken=True, n=count).get(place.of)
    return kept, class_names(own, victim)


def _examples(kept: Kept, names: Sequence[str], norm: str) -> Iterator[Example]:
    for row, before, after in zip(kept.rows.to_pylist(), kept.clean, kept.adversarial, strict=True):
        yield Example(
            before,
            after,
            answer(row["clean_label"], row["clean_confidence"], names),
            answer(row["adv_label"], row["adv_confidence"], names),
            f"{norm} {number(row[norm], 0)}",
        )


def answer(label: int | None, confidence: float | None, names: Sequence[str]) -> tuple[str, str]:
    """A class in words, and how sure of it the victim is."""
    name = "–" if label is None else names[label] if label < len(names) else str(label)
    return name, "–" if confidence is None else f"{100 * confidence:.0f}%"


def change(clean: NDArray[np.float32], adversarial: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """What was changed as an image, and how many times it is enlarged: under "× s" a change d is drawn as
    0.5 + s·d, clipped to [0, 1], so that grey is none. The largest change fills the range."""
    delta = adversarial - clean
    most = float(np.abs(delta).max())
    if most == 0:
        return np.full_like(clean, 0.5), "none"
    scale = 0.5 / most
    said = f"{scale:.0f}" if scale >= 10 else f"{scale:.1f}"
    # By what is said, not by what was rounded for it.
    return np.clip(0.5 + delta * float(said), 0.0, 1.0).astype(np.float32), f"× {said}"


def _draw(sheet: Sheet, block: _Block, side: float) -> None:
    size = FONT_SIZES["text"]
    lines = wrapped(block.title, sheet.width - 2 * _EDGE, size, bold=True)
    sheet.down(0.08)
    sheet.text(_EDGE, "\n".join(lines), size=size, weight="bold")
    sheet.down(len(lines) * size * 1.3 / 72 + 0.04)
    for i, example in enumerate(block.examples):
        left = _EDGE + i * (3 * (side + _GAP) + _BETWEEN)
        changed, scale = change(example.clean, example.adversarial)
        for j, (pixels, texts) in enumerate(
            (
                (example.clean, example.before),
                (changed, (scale, example.distance)),
                (example.adversarial, example.after),
            )
        ):
            x = left + j * (side + _GAP)
            sheet.image(x, side, pixels)
            said = "\n".join(shortened(text, side + _GAP) for text in texts)
            sheet.text(x + side / 2, said, below=side + 0.03, size=FONT_SIZES["small"], ha="center")
    sheet.down(side * _tallest(block.examples) + _TEXT)


def _tallest(examples: Sequence[Example]) -> float:
    height, width, _ = examples[0].clean.shape
    return float(height / width)


def shortened(text: str, room: float) -> str:
    """As much of a text as there is room for, in inches."""
    if measured(text, FONT_SIZES["small"]) <= room:
        return text
    while text and measured(f"{text}…", FONT_SIZES["small"]) > room:
        text = text[:-1]
    return f"{text}…"
