"""The SQL behind the views of an output folder: what each number is, in one place.

The views of a sweep stand on the tables of a schema, here called `input`, which
`orchestrator.results.query.connect` makes: `examples` (a PyArrow dataset), `wanted`, `measured`, `attacks`,
`worst_cases`, `quality`, `coverage`, `victims`, `failures`, `strengthened`; of transfers `tried` (as
`examples`), `transfers` (as `wanted`) and `beyond`; of certificates `certificate_rows`, `certificates` and
`bounds`; and `verdicts` and `worst_verdicts`, what checks say of what stands on those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestrator.results.schemas import LABELS, VICTIM_COLUMNS
from orchestrator.results.wilson import Z
from workers.flags import Flag
from workers.shards import CERTIFICATES, DIMENSIONS, SCHEMA

EXAMPLE_COLUMNS = tuple(name for name in SCHEMA.names if name not in ("image", "image_shape", "clean_image"))
"""The columns of the `examples` view. Kept images stay out: a query is about numbers, not pixels."""


_TRIED = (
    *("position", "example_index", "label", "clean_label", "clean_confidence", "clean_correct"),
    *("adv_label", "adv_confidence", "success", "success_uint8", "linf", "l2", "l0", "flags", "target"),
    *("clean_wrong_draws", "wrong_draws"),
)
"""The columns of rows of transfers: no call is counted there, and none looks for the nearest image."""

_MEASURED = len(DIMENSIONS)

_PLACE = DIMENSIONS.names.index("model_options") + 1
_OF_CELL = (*DIMENSIONS.names[:_PLACE], "recipe", *DIMENSIONS.names[_PLACE:])


def _columns(table: str, names: Iterable[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def _wilson(sign: str, k: str, n: str) -> str:
    """One end of the 95% Wilson score interval of `k` in `n`; null where `n` is 0 (Wilson, 1927)."""
    p = f"({k} / {n}::DOUBLE)"
    centre = f"{p} + {Z**2 / 2} / {n}"
    half = f"{Z} * sqrt({p} * (1 - {p}) / {n} + {Z**2 / 4} / ({n}::DOUBLE * {n}))"
    end = f"({centre} {sign} {half}) / (1 + {Z**2} / {n})"
    # Exactly, the ends enclose p, and one is 0 or 1 where k is 0 or n; a rounding error must not show.
    inner = f"least({p}, {end})" if sign == "-" else f"greatest({p}, {end})"
    return f"CASE WHEN {n} > 0 THEN least(1.0::DOUBLE, greatest(0.0::DOUBLE, {inner})) END"


TOUCHED = 0.01
"""The share of a cell's clean-correct examples from which on a flag of theirs is the cell's."""


def _said(name: str) -> str:
    """What is so of an attack by its rows (`a`); where it has none, as it says itself (`w`)."""
    return f"coalesce(a.{name}, w.{name}, false)"


def _share(name: str, ends: str, where: str) -> str:
    """The share of a cell's examples that the victim gets right and the attack leaves, with its interval."""
    values = {
        name: "m.robust / m.n::DOUBLE",
        f"{ends}_low": _wilson("-", "m.robust", "m.n"),
        f"{ends}_high": _wilson("+", "m.robust", "m.n"),
    }
    return ",\n    ".join(f"CASE WHEN {where} THEN {value} END AS {name}" for name, value in values.items())


_FACTS = f"""
WITH spent AS (
    SELECT cell_id, sum(seconds) AS seconds, string_agg(DISTINCT device, ', ' ORDER BY device) AS device
    FROM input.coverage
    GROUP BY cell_id
), flagged AS (
    SELECT victim_id, list_filter([
        CASE WHEN test_accuracy < least(2 * chance, (1 + chance) / 2) THEN '{Flag.VICTIM_WEAK}' END,
        CASE WHEN train_accuracy > validation_accuracy + 0.15 THEN '{Flag.VICTIM_OVERFIT}' END
    ], lambda flag: flag IS NOT NULL) AS flags
    FROM input.victims
), failed AS (
    -- A final failure counts until its range is covered: it may have been retried since.
    SELECT DISTINCT w.cell_id
    FROM input.{{wanted}} w
    JOIN input.failures f ON f.final AND (
        (f.attack_id IS NULL AND f.victim_id IN (w.victim_id, w.source_id))
        OR (list_contains(f.cells, w.cell_id) AND f.start < w.examples)
    )
    WHERE NOT EXISTS (
        FROM input.coverage c
        WHERE c.cell_id = w.cell_id AND c.start <= f.start AND c.stop >= least(f.stop, w.examples)
    )
)
"""
"""What is known of wanted cells beside their rows, by cell id, and of their victims."""

_SHARES = f"""coalesce(m.n, 0)::INTEGER AS n,
    w.examples,
    m.correct / m.n::DOUBLE AS clean_accuracy,
    {_share("robust_accuracy", "robust", "NOT " + _said("targeted"))},
    {_share("target_missed", "target_missed", _said("targeted"))},
    m.successes / nullif(m.correct, 0)::DOUBLE AS attack_success_rate,
    m.successes_uint8 / nullif(m.correct, 0)::DOUBLE AS attack_success_rate_uint8"""
"""What images that were tried on a victim come to, whoever they were made against."""


def _status(n: str, examples: str) -> str:
    """How far a cell is that has `n` of its `examples`."""
    return f"""CASE
        WHEN coalesce({n}, 0) >= {examples} THEN 'done'
        WHEN f.cell_id IS NOT NULL THEN 'failed'
        WHEN {n} > 0 THEN 'partial'
        ELSE 'missing'
    END AS status"""


_FLAGS = f"""list_concat(
        coalesce(v.flags, []),
        [flag.key FOR flag IN coalesce(m.touched, []) IF flag.value >= {TOUCHED} * m.correct]
    ) AS flags"""

_JOINED = """FROM input.{wanted} w
LEFT JOIN input.measured m ON m.cell_id = w.cell_id
LEFT JOIN input.attacks a ON a.victim_id = w.victim_id AND a.attack_id = w.attack_id
LEFT JOIN spent s ON s.cell_id = w.cell_id
LEFT JOIN flagged v ON v.victim_id = w.victim_id
LEFT JOIN failed f ON f.cell_id = w.cell_id
"""

CELLS = f"""
{_FACTS.format(wanted="wanted")}
SELECT
    {_columns("w", _OF_CELL)},
    {_said("targeted")} AS targeted,
    {_said("minimum_norm")} AS minimum_norm,
    {_columns("w", LABELS.names)},
    {_SHARES},
    m.mean_success_distance,
    m.median_success_distance,
    m.median_nearest,
    m.not_found,
    m.ssim,
    m.psnr,
    m.forward_calls,
    m.gradient_calls,
    coalesce(s.seconds, 0) AS seconds,
    s.device,
    {_FLAGS},
    {_status("m.n", "w.examples")}
{_JOINED.format(wanted="wanted")}"""
"""One row for each wanted cell, over the first `examples` positions of the evaluation order.

`n`: how many of them are there. Rates are shares in [0, 1]; `attack_success_rate` is of the examples that
the victim got right. Success of a targeted attack is its target, so that what it leaves is no robust
accuracy: that is null, and `target_missed` has the share. Distances are in the cell's norm: over successes,
which lie within epsilon; and of a minimum-norm attack also over all correct examples. `seconds` sums all its
shards.
`status`: done, failed (a unit that it needs ran out of attempts), partial or missing. The numbers of a
cell that is not done are over what it has: never average them with those of other cells.

`flags`: `victim_weak` where the victim's accuracy on clean test images is below twice chance (chance being
the share of the most frequent class; halfway between chance and 1 where that is less, as with two classes);
`victim_overfit` where its training accuracy is more than 0.15 above its validation accuracy; then, by name,
those flags of examples that touch at least 1% of the examples that the victim got right.
"""

_SOURCE = ("model", "model_options", "recipe", "defence", "seed")

TRANSFER = f"""
{_FACTS.format(wanted="transfers")}, sources AS (
    SELECT DISTINCT {", ".join((*VICTIM_COLUMNS, "network_id"))} FROM input.wanted
)
SELECT
    {_columns("w", _OF_CELL)},
    {", ".join(f"r.{name} AS source_{name}" for name in _SOURCE)},
    w.source_id,
    r.network_id = w.network_id AS same_network,
    {_said("targeted")} AS targeted,
    {_SHARES},
    -- Of the same examples or not at all.
    CASE WHEN o.n = m.n AND NOT {_said("targeted")}
        THEN o.robust / o.n::DOUBLE END AS white_box_robust_accuracy,
    c.cell_id AS white_box_cell_id,
    b.beyond,
    coalesce(s.seconds, 0) AS seconds,
    s.device,
    {_FLAGS},
    {_status("m.n", "w.examples")}
{_JOINED.format(wanted="transfers")}LEFT JOIN sources r ON r.victim_id = w.source_id
LEFT JOIN input.wanted c
    ON (c.victim_id, c.attack_id, c.epsilon) = (w.victim_id, w.made_by, w.epsilon)
LEFT JOIN input.measured o ON o.cell_id = c.cell_id
LEFT JOIN input.beyond b ON b.cell_id = w.cell_id
"""
"""One row for each wanted cell of images that were made against one victim, the source, and tried on another.

Columns that `cells` has are those of the victim that they are tried on, and mean what they mean there.
"""

TRANSFERRED = f"""
SELECT {_columns("e", DIMENSIONS.names)}, w.source_id, {_columns("e", _TRIED)}
FROM input.tried e JOIN input.transfers w ON w.cell_id = e.cell_id
"""
"""One row for each example and epsilon of those cells."""

_TAKEN = ("sigma", "n0", "draws", "alpha")

CERTIFIED = f"""
SELECT {_columns("w", ("cell_id", *VICTIM_COLUMNS, *_TAKEN))}, {_columns("e", CERTIFICATES.names[_MEASURED:])}
FROM input.certificate_rows e
JOIN input.certificates w ON w.cell_id = e.cell_id AND e.position < w.examples
"""
"""One row for each wanted example of each smoothed victim."""

CERTIFIED_ACCURACY = f"""
{_FACTS.format(wanted="certificates")}, clean AS (
    SELECT victim_id, n, any_value(clean_accuracy) AS clean_accuracy
    FROM input.cells
    WHERE status = 'done'
    GROUP BY ALL
)
SELECT
    {_columns("b", ("cell_id", *VICTIM_COLUMNS, *_TAKEN, "epsilon", "n", "examples"))},
    c.clean_accuracy,
    b.certified / nullif(b.n, 0)::DOUBLE AS certified_accuracy,
    (b.certified - b.mistaken) / nullif(b.n, 0)::DOUBLE AS certified_at_least,
    b.abstained,
    -- Of the same examples or not at all.
    CASE WHEN x.n = b.n AND x.complete THEN x.robust / x.n::DOUBLE END AS robust_accuracy,
    x.attacks,
    coalesce(s.seconds, 0) AS seconds,
    s.device,
    {_status("b.n", "b.examples")}
FROM input.bounds b
LEFT JOIN clean c ON c.victim_id = b.victim_id AND c.n = b.n
LEFT JOIN input.worst_cases x ON (x.victim_id, x.norm, x.epsilon) = (b.victim_id, 'l2', b.epsilon)
LEFT JOIN spent s ON s.cell_id = b.cell_id
LEFT JOIN failed f ON f.cell_id = b.cell_id
"""
"""One row for each smoothed victim and L2 epsilon (`orchestrator.results.certified`)."""

WORST_CASE = f"""
SELECT
    {_columns("c", (*VICTIM_COLUMNS, "norm", "epsilon", "attacks", "n", "examples"))},
    c.robust / nullif(c.n, 0)::DOUBLE AS robust_accuracy,
    {_wilson("-", "c.robust", "c.n")} AS robust_low,
    {_wilson("+", "c.robust", "c.n")} AS robust_high,
    c.complete,
    c.robust_with_transfer / nullif(c.n, 0)::DOUBLE AS robust_with_transfer,
    {_wilson("-", "c.robust_with_transfer", "c.n")} AS with_transfer_low,
    {_wilson("+", "c.robust_with_transfer", "c.n")} AS with_transfer_high
FROM input.worst_cases c
"""
"""One row for each victim, norm and wanted epsilon: the share of examples that no attack of that norm broke.

`orchestrator.results.worst_case` says what counts. Where it is complete, robust accuracy never rises with
epsilon.
"""

DISTANCES = f"""
SELECT
    {_columns("w", (*VICTIM_COLUMNS, "attack_id", "attack", "attack_options", "norm", "adaptive"))},
    {_said("targeted")} AS targeted,
    e.position,
    min(e.example_index) AS example_index,
    min(e.label) AS label,
    bool_and(e.clean_correct) AS clean_correct,
    min(e.nearest) AS nearest
FROM input.examples e
JOIN input.wanted w ON e.cell_id = w.cell_id AND e.position < w.examples
JOIN input.attacks a ON a.victim_id = w.victim_id AND a.attack_id = w.attack_id
WHERE {_said("minimum_norm")}
GROUP BY ALL
"""
"""One row for each victim, minimum-norm attack and example, however many epsilons the grid has.

The share of its rows with `clean_correct AND nearest > x` is the robust accuracy at any epsilon x.
"""

VICTIMS = """
SELECT v.*, s.clean_accuracy, coalesce(s.n, 0)::INTEGER AS n
FROM input.victims v
LEFT JOIN (
    SELECT victim_id, avg(clean_correct::INTEGER) AS clean_accuracy, count(*) AS n
    FROM (
        SELECT victim_id, position, bool_and(clean_correct) AS clean_correct FROM input.examples GROUP BY ALL
    )
    GROUP BY victim_id
) s ON s.victim_id = v.victim_id
"""
"""The pinned victims, and their clean accuracy over the `n` examples that any attack has seen."""


def _judged(view: str, verdicts: str, on: str, claims: Sequence[str], unchecked: Sequence[str]) -> str:
    """A view of the schema `input` with what checks say of its rows (`c`): a claim that is wrong is null."""
    believed = (f"CASE WHEN v.verdict = 'wrong' THEN NULL ELSE c.{name} END AS {name}" for name in claims)
    measured = "".join(f", c.{name} AS {name}_unchecked" for name in unchecked)
    return f"""
SELECT c.* REPLACE ({", ".join(believed)}){measured}, v.verdict, coalesce(v.checks, []) AS checks
FROM input.{view} c LEFT JOIN input.{verdicts} v ON {on}
"""


_BELIEVED = "coalesce(v.verdict, w.verdict, '') <> 'wrong'"

STRENGTHENED = f"""
SELECT
    {_columns("s", DIMENSIONS.names)}, s.stronger, s.n, s.survivors, s.tried, s.broken,
    CASE WHEN {_BELIEVED} THEN s.survivors / s.n::DOUBLE END AS robust_accuracy,
    CASE WHEN {_BELIEVED} AND s.tried = s.survivors
        THEN (s.survivors - s.broken) / s.n::DOUBLE END AS robust_accuracy_after
FROM input.strengthened s
LEFT JOIN input.verdicts v ON v.cell_id = s.cell_id
LEFT JOIN input.worst_verdicts w
    ON s.cell_id IS NULL AND (w.victim_id, w.norm, w.epsilon) = (s.victim_id, s.norm, s.epsilon)
"""
"""One row for each cell or worst case and each stronger attack on its survivors
(`orchestrator.results.strengthened`)."""

ATTACKED = f"""
WITH spent AS (
    SELECT cell_id, sum(seconds) / sum(stop - start) AS seconds FROM input.coverage GROUP BY cell_id
), devices AS (
    SELECT w.victim_id, w.attack_id, string_agg(DISTINCT c.device, ', ' ORDER BY c.device) AS device
    FROM input.coverage c JOIN input.wanted w ON w.cell_id = c.cell_id
    GROUP BY ALL
), gone AS (
    SELECT c.cell_id
    FROM input.coverage c
    WHERE c.cell_id NOT IN (
        SELECT cell_id FROM input.wanted
        UNION ALL SELECT cell_id FROM input.transfers
        UNION ALL SELECT cell_id FROM input.certificates
    )
), untold AS (
    -- A call that serves several epsilons is counted at the first of them, which may have been dropped.
    SELECT DISTINCT e.victim_id, e.attack_id FROM input.examples e SEMI JOIN gone g ON g.cell_id = e.cell_id
), searched AS (
    SELECT
        {_columns("c", VICTIM_COLUMNS)}, {_columns("c", ("attack_id", "attack", "attack_options", "norm"))},
        c.adaptive, c.targeted, c.minimum_norm,
        list(c.epsilon ORDER BY c.epsilon) AS own_epsilons,
        min(c.n) AS n, min(c.examples) AS examples, max(c.clean_accuracy) AS clean_accuracy,
        CASE
            WHEN bool_or(c.status = 'failed') THEN 'failed'
            WHEN count(DISTINCT c.status) = 1 THEN min(c.status)
            ELSE 'partial'
        END AS status,
        CASE
            WHEN bool_or(v.verdict = 'wrong') THEN 'wrong'
            WHEN bool_or(v.verdict = 'suspicious') THEN 'suspicious'
            WHEN bool_or(v.verdict = 'note') THEN 'note'
        END AS verdict,
        list_sort(list_distinct(flatten(list(coalesce(v.checks, []))))) AS checks,
        sum(m.forward_calls / nullif(m.correct, 0)::DOUBLE) AS forward_calls,
        sum(m.gradient_calls / nullif(m.correct, 0)::DOUBLE) AS gradient_calls,
        sum(s.seconds * m.n / nullif(m.correct, 0)) AS seconds
    FROM input.cells c
    LEFT JOIN input.measured m ON m.cell_id = c.cell_id
    LEFT JOIN spent s ON s.cell_id = c.cell_id
    LEFT JOIN input.verdicts v ON v.cell_id = c.cell_id
    GROUP BY ALL
), contradictions AS (
    SELECT q.victim_id, q.attack_id, count(v.verdict) > 0 AS contradicted
    FROM input.quality q
    LEFT JOIN input.worst_verdicts v
        ON (v.victim_id, v.norm) = (q.victim_id, q.norm) AND list_contains(q.epsilons, v.epsilon)
            AND v.verdict = 'wrong'
    GROUP BY ALL
), judged AS (
    SELECT s.*, q.* EXCLUDE (victim_id, attack_id, norm, clean_accuracy), d.device,
        coalesce(x.contradicted, false) AS contradicted,
        s.status = 'done' AND u.victim_id IS NULL AND s.forward_calls + s.gradient_calls > 0 AS counted,
        s.status = 'done' AND u.victim_id IS NULL AS timed,
        CASE
            WHEN s.targeted THEN 'targeted'
            WHEN NOT s.adaptive THEN 'oblivious'
            WHEN s.status <> 'done' THEN s.status
            WHEN s.verdict = 'wrong' THEN 'wrong'
            WHEN q.area IS NULL THEN coalesce(q.why, 'missing')
            ELSE ''
        END AS no_area
    FROM searched s
    LEFT JOIN input.quality q ON q.victim_id = s.victim_id AND q.attack_id = s.attack_id
    LEFT JOIN contradictions x ON x.victim_id = s.victim_id AND x.attack_id = s.attack_id
    LEFT JOIN devices d ON d.victim_id = s.victim_id AND d.attack_id = s.attack_id
    LEFT JOIN untold u ON u.victim_id = s.victim_id AND u.attack_id = s.attack_id
)
SELECT
    {_columns("j", VICTIM_COLUMNS)}, {_columns("j", ("attack_id", "attack", "attack_options", "norm"))},
    j.adaptive, j.targeted, j.minimum_norm, j.n, j.examples,
    coalesce(j.epsilons, []) AS epsilons,
    j.clean_accuracy,
    CASE WHEN j.no_area = '' THEN j.area END AS area,
    CASE WHEN j.no_area = '' AND NOT j.contradicted THEN j.worst_case_area END AS worst_case_area,
    CASE WHEN j.no_area = '' AND NOT j.contradicted THEN j.optimality END AS optimality,
    coalesce(j.attacks, []) AS attacks,
    CASE
        WHEN j.no_area <> '' THEN j.no_area
        WHEN j.contradicted THEN 'worst case wrong'
        ELSE j.why
    END AS why,
    j.own_epsilons,
    CASE WHEN j.counted THEN j.forward_calls END AS forward_calls,
    CASE WHEN j.counted THEN j.gradient_calls END AS gradient_calls,
    CASE WHEN j.timed THEN j.seconds END AS seconds,
    j.device, j.status, j.verdict, j.checks
FROM judged j
"""
"""One row for each attack on each victim, over all of its epsilons (`orchestrator.results.quality`).

Calls and seconds are means over the examples that were attacked.
"""

_ROBUST = ("robust_accuracy", "robust_low", "robust_high")
_MISSED = ("target_missed", "target_missed_low", "target_missed_high")
_RATES = ("attack_success_rate", "attack_success_rate_uint8")

_WITH_TRANSFER = ("robust_with_transfer", "with_transfer_low", "with_transfer_high")

VIEWS = {
    "cells": CELLS,
    "worst_case": WORST_CASE,
    "distances": DISTANCES,
    "trained": VICTIMS,
    "transfer": TRANSFER,
    "transferred": TRANSFERRED,
    "certified": CERTIFIED,
    "certified_accuracy": CERTIFIED_ACCURACY,
}
"""View -> its SQL, but for those that are tables as they are."""

COMPUTED = {
    "cells": "wanted",
    "worst_case": "worst_cases",
    "transfer": "transfers",
    "certified_accuracy": "bounds",
}
"""Those that are computed once, with the table that they have a row for each row of: checks, other views and
most questions stand on them, and DuckDB takes longer to plan them than to go through what they hold."""

RENAMED = {"victims": "trained"}
"""Views that are called otherwise than what they come from: the table of that name is what they stand on."""

JUDGED = {
    "cells": _judged(
        *("cells", "verdicts", "v.cell_id = c.cell_id", (*_ROBUST, *_MISSED, *_RATES)),
        ("robust_accuracy", "target_missed"),
    ),
    "worst_case": _judged(
        *("worst_case", "worst_verdicts"),
        "(v.victim_id, v.norm, v.epsilon) = (c.victim_id, c.norm, c.epsilon)",
        *((*_ROBUST, *_WITH_TRANSFER), ("robust_accuracy", "robust_with_transfer")),
    ),
    "transfer": f"""
SELECT t.* REPLACE (
    CASE WHEN x.verdict = 'wrong' THEN NULL ELSE t.white_box_robust_accuracy END AS white_box_robust_accuracy
) FROM ({
        _judged(
            *("transfer", "verdicts", "v.cell_id = c.cell_id", (*_ROBUST, *_MISSED, *_RATES)),
            ("robust_accuracy", "target_missed"),
        )
    }) t LEFT JOIN input.verdicts x ON x.cell_id = t.white_box_cell_id
""",
    "strengthened": STRENGTHENED,
    "attacks": ATTACKED,
    # Where an attack succeeds inside a certificate, nobody knows which of the two is wrong.
    "certified_accuracy": """
SELECT b.* EXCLUDE (contradicted) REPLACE (
    CASE WHEN contradicted THEN NULL ELSE b.certified_accuracy END AS certified_accuracy,
    CASE WHEN contradicted THEN NULL ELSE b.certified_at_least END AS certified_at_least,
    CASE WHEN v.verdict = 'wrong' THEN NULL ELSE b.robust_accuracy END AS robust_accuracy
), b.certified_accuracy AS certified_accuracy_unchecked,
    CASE WHEN contradicted THEN 'wrong' END AS verdict,
    CASE WHEN contradicted THEN ['inside_certificate'] ELSE [] END AS checks
FROM (
    SELECT c.*, c.victim_id IN (
        SELECT victim_id FROM input.checks WHERE rule = 'inside_certificate'
    ) AS contradicted
    FROM input.certified_accuracy c
) b
LEFT JOIN input.worst_verdicts v ON (v.victim_id, v.norm, v.epsilon) = (b.victim_id, 'l2', b.epsilon)
""",
}
"""Those that stand on what checks find in the others (`orchestrator.results.checks.Judged`).

What a check calls wrong is null in the columns that people read and average; the columns that end in
`_unchecked` have it as it was measured.
"""

MEASURED = (
    *("cells", "worst_case", "distances", "checks", "strengthened", "transfer", "certified_accuracy"),
    "attacks",
)
"""Those that stand on what rows come to, rather than on rows alone."""

CHECKED = ("checks", "verdicts", "worst_verdicts")
"""What checks come to, which look at `EVIDENCE`."""

EVIDENCE = ("cells", "worst_case", "transfer")


def shown(name: str) -> str:
    """The SQL of a view as people ask for it."""
    return JUDGED.get(name, f"FROM input.{RENAMED.get(name, name)}")


def needed(named: Iterable[str]) -> frozenset[str]:
    """All that those views stand on, by its name in the schema `input`."""
    found: set[str] = set()
    left = [shown(name) for name in named]
    while left:
        names = set(re.findall(r"\binput\.(\w+)", left.pop())) - found
        if not names.isdisjoint(CHECKED):
            names |= set(EVIDENCE) - found
        found |= names
        left += [VIEWS[name] for name in names if name in VIEWS]
    return frozenset(found)
