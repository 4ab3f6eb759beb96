"""How visible attacks are, beside what they leave: what a section of a page shows of it."""

from __future__ import annotations

from typing import Any

from orchestrator.report.contest import victim_name
from orchestrator.report.facts import Facts
from orchestrator.report.series import percent, row_keys
from orchestrator.results.display import epsilon_text
from orchestrator.results.tables import of_one_attack
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import NO_VALUE
from orchestrator.results.visible import mean_of

MINIMUM_NORM = "minimum-norm attacks spend what they need and not epsilon: they are left out"


def perceptibility(facts: Facts) -> dict[str, Any]:
    """Robust accuracy beside the means of SSIM and L2 of images that spend the whole budget: `rows`, one for
    each model under each fixed-budget attack at each epsilon, targeted attacks aside; `number` is that of the
    row in `report.series.series`. `left_out`: there are minimum-norm attacks."""
    of = {(cell["sweep"], cell["cell_id"]): cell for cell in facts.rows("cells")}
    rows: list[dict[str, Any]] = []
    left_out = False
    every = [(table, row) for table in facts.tables for row in table.rows]
    for number, (table, row) in enumerate(every):
        if not of_one_attack(row) or row.targeted:
            continue
        if any(of[row.sweep, cell]["minimum_norm"] for cell in row.cell_ids):
            left_out = True
            continue
        for epsilon, entry in zip(table.epsilons, row.entries, strict=True):
            if entry is None:
                continue
            ssim, l2 = (mean_of(facts.visible, row.sweep, entry, place) for place in (0, 1))
            if l2 is None:
                continue
            counts = {facts.visible[row.sweep, place.of][2] for place in entry.places}
            rows.append(
                {
                    "keys": row_keys(table, row),
                    "number": number,
                    "victim": victim_name(row, table),
                    "epsilon": epsilon,
                    "text": epsilon_text(epsilon),
                    "accuracy": words.entry_text(entry, words.footnotes(table), table),
                    "value": percent(entry.value),
                    "ssim": None if ssim is None else round(ssim, 4),
                    "ssim_text": NO_VALUE if ssim is None else f"{ssim:.3f}",
                    "l2": float(f"{l2:.4g}"),
                    "l2_text": f"{l2:.3g}",
                    "n": "–".join(str(n) for n in dict.fromkeys((min(counts), max(counts)))),
                }
            )
    return {"rows": rows, "left_out": left_out, "small": any(row["ssim"] is None for row in rows)}
