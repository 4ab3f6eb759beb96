"""The SQL behind the views of an output folder: what each number is, in one place.

The views stand on `examples` (a PyArrow dataset) and on tables of the schema `input` (`wanted`, `measured`,
`coverage`, `victims`, `failures`, `verdicts`), which `orchestrator.results.query.connect` makes.
"""

from __future__ import annotations

from orchestrator.results.schemas import WANTED
from workers.flags import Flag
from workers.metrics import ABSOLUTE_SLACK, RELATIVE_SLACK
from workers.norms import NORMS
from workers.shards import SCHEMA

_Z = 1.959963984540054  # the 97.5% quantile of the standard normal

EXAMPLE_COLUMNS = tuple(name for name in SCHEMA.names if name not in ("image", "image_shape"))
"""The columns of the `examples` view. Kept images stay out: a query is about numbers, not pixels."""

DIMENSION_COLUMNS = tuple(name for name in WANTED.names if name != "examples")

VICTIM_COLUMNS = ("model", "model_options", "dataset", "defence", "seed", "victim_id")


def _columns(table: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def _wilson(sign: str, k: str, n: str) -> str:
    """One end of the 95% Wilson score interval of `k` in `n`; null where `n` is 0 (Wilson, 1927)."""
    p = f"({k} / {n}::DOUBLE)"
    centre = f"{p} + {_Z**2 / 2} / {n}"
    half = f"{_Z} * sqrt({p} * (1 - {p}) / {n} + {_Z**2 / 4} / ({n}::DOUBLE * {n}))"
    end = f"({centre} {sign} {half}) / (1 + {_Z**2} / {n})"
    # Exactly, the ends enclose p, and one is 0 or 1 where k is 0 or n; a rounding error must not show.
    inner = f"least({p}, {end})" if sign == "-" else f"greatest({p}, {end})"
    return f"CASE WHEN {n} > 0 THEN least(1.0::DOUBLE, greatest(0.0::DOUBLE, {inner})) END"


def _label(table: str) -> str:
    """The label of an adaptive attack, as `workers.unit.label` writes it."""
    name, options = f"{table}.attack", f"{table}.attack_options"
    return f"CASE WHEN {options} = '' THEN {name} ELSE {name} || ' (' || {options} || ')' END"


TOUCHED = 0.01
"""The share of a cell's clean-correct examples from which on a flag of theirs is the cell's."""

_DISTANCE = "CASE w.norm " + " ".join(f"WHEN '{norm}' THEN e.{norm}" for norm in NORMS) + " END"
"""An example's distance in its cell's norm: there is a column for each."""


def _within(distance: str, epsilon: str) -> str:
    """Whether a distance is at most epsilon, as `workers.metrics.within` has it."""
    return f"{distance} <= {epsilon} * (1 + {RELATIVE_SLACK}) + {ABSOLUTE_SLACK}"


CELLS = f"""
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
    FROM input.wanted w
    JOIN input.failures f ON f.final AND (
        (f.attack_id IS NULL AND f.victim_id = w.victim_id)
        OR (list_contains(f.cells, w.cell_id) AND f.start < w.examples)
    )
    WHERE NOT EXISTS (
        FROM input.coverage c
        WHERE c.cell_id = w.cell_id AND c.start <= f.start AND c.stop >= least(f.stop, w.examples)
    )
)
SELECT
    {_columns("w", DIMENSION_COLUMNS)},
    coalesce(m.n, 0)::INTEGER AS n,
    w.examples,
    m.correct / m.n::DOUBLE AS clean_accuracy,
    m.robust / m.n::DOUBLE AS robust_accuracy,
    {_wilson("-", "m.robust", "m.n")} AS robust_low,
    {_wilson("+", "m.robust", "m.n")} AS robust_high,
    m.successes / nullif(m.correct, 0)::DOUBLE AS attack_success_rate,
    m.successes_uint8 / nullif(m.correct, 0)::DOUBLE AS attack_success_rate_uint8,
    m.mean_distance,
    m.median_distance,
    m.ssim,
    m.psnr,
    coalesce(m.forward_calls, 0) AS forward_calls,
    coalesce(m.gradient_calls, 0) AS gradient_calls,
    coalesce(s.seconds, 0) AS seconds,
    s.device,
    list_concat(
        coalesce(v.flags, []),
        [flag.key FOR flag IN coalesce(m.touched, []) IF flag.value >= {TOUCHED} * m.correct]
    ) AS flags,
    CASE
        WHEN coalesce(m.n, 0) >= w.examples THEN 'done'
        WHEN f.cell_id IS NOT NULL THEN 'failed'
        WHEN m.n > 0 THEN 'partial'
        ELSE 'missing'
    END AS status
FROM input.wanted w
LEFT JOIN input.measured m ON m.cell_id = w.cell_id
LEFT JOIN spent s ON s.cell_id = w.cell_id
LEFT JOIN flagged v ON v.victim_id = w.victim_id
LEFT JOIN failed f ON f.cell_id = w.cell_id
"""
"""One row for each wanted cell, over the first `examples` positions of the evaluation order.

`n`: how many of them are there. Rates are shares in [0, 1]; `attack_success_rate` is of the examples that
the victim got right. Distances are over successes, in the cell's norm. `seconds` sums all its shards.
`status`: done, failed (a unit that it needs ran out of attempts), partial or missing. The numbers of a
cell that is not done are over what it has: never average them with those of other cells.

`flags`: `victim_weak` where the victim's accuracy on clean test images is below twice chance (chance being
the share of the most frequent class; halfway between chance and 1 where that is less, as with two classes);
`victim_overfit` where its training accuracy is more than 0.15 above its validation accuracy; then, by name,
those flags of examples that touch at least 1% of the examples that the victim got right.
"""

_CLAIMS = ("robust_accuracy", "robust_low", "robust_high", "attack_success_rate", "attack_success_rate_uint8")

_BELIEVED = ", ".join(
    f"CASE WHEN v.verdict = 'wrong' THEN NULL ELSE c.{name} END AS {name}" for name in _CLAIMS
)

JUDGED_CELLS = f"""
SELECT
    c.* REPLACE ({_BELIEVED}),
    c.robust_accuracy AS robust_accuracy_unchecked,
    v.verdict,
    coalesce(v.checks, []) AS checks
FROM input.cells c
LEFT JOIN input.verdicts v ON v.cell_id = c.cell_id
"""
"""`CELLS` with what checks say of them (`orchestrator.results.checks.VERDICTS`).

What a check calls wrong is null in the columns that people read and average; `robust_accuracy_unchecked` has
the number as it was measured, whatever the checks say.
"""

WORST_CASE = f"""
WITH points AS (
    SELECT
        {_columns("w", VICTIM_COLUMNS)},
        w.norm,
        list(DISTINCT w.epsilon) AS epsilons,
        list_sort(list(DISTINCT {_label("w")}) FILTER (WHERE c.cell_id IS NOT NULL)) AS attacks,
        count(*) AS wanted_cells,
        count(c.cell_id) AS counted_cells,
        min(w.examples) AS examples
    FROM input.wanted w
    LEFT JOIN (
        SELECT cell_id, min(start) AS start FROM input.coverage GROUP BY cell_id
    ) c ON c.cell_id = w.cell_id AND c.start < w.examples
    WHERE w.adaptive
    GROUP BY ALL
), nearest AS (
    SELECT
        w.victim_id,
        w.norm,
        e.position,
        count(*) AS cells,
        bool_and(e.clean_correct) AS clean_correct,
        min({_DISTANCE}) FILTER (WHERE e.success)::DOUBLE AS distance
    FROM examples e JOIN input.wanted w ON e.cell_id = w.cell_id AND e.position < w.examples
    WHERE w.adaptive
    GROUP BY ALL
), scored AS (
    SELECT
        p.* EXCLUDE (epsilons),
        p.epsilon,
        count(a.position) AS n,
        count(*) FILTER (
            WHERE a.clean_correct AND (a.distance IS NULL OR NOT {_within("a.distance", "p.epsilon")})
        ) AS robust
    FROM (SELECT *, unnest(epsilons) AS epsilon FROM points) p
    LEFT JOIN nearest a ON a.victim_id = p.victim_id AND a.norm = p.norm AND a.cells = p.counted_cells
    GROUP BY ALL
)
SELECT
    {_columns("s", VICTIM_COLUMNS)},
    s.norm,
    s.epsilon,
    coalesce(s.attacks, []) AS attacks,
    s.n::INTEGER AS n,
    s.robust / nullif(s.n, 0)::DOUBLE AS robust_accuracy,
    {_wilson("-", "s.robust", "s.n")} AS robust_low,
    {_wilson("+", "s.robust", "s.n")} AS robust_high,
    s.counted_cells = s.wanted_cells AND s.n >= s.examples AS complete
FROM scored s
"""
"""One row for each victim, norm and wanted epsilon: the share of examples that no attack of that norm broke.

An example is broken at epsilon where any adaptive cell of that victim and norm, at whatever epsilon, holds a
success at a measured distance within epsilon (`workers.metrics.within`); so robust accuracy never rises
with epsilon.
`attacks` are those with results so far; `n` counts the positions that *every* cell with results covers.
`complete`: every wanted adaptive cell of that victim and norm is done.
"""

VICTIMS = """
SELECT v.*, s.clean_accuracy, coalesce(s.n, 0)::INTEGER AS n
FROM input.victims v
LEFT JOIN (
    SELECT victim_id, avg(clean_correct::INTEGER) AS clean_accuracy, count(*) AS n
    FROM (SELECT victim_id, position, bool_and(clean_correct) AS clean_correct FROM examples GROUP BY ALL)
    GROUP BY victim_id
) s ON s.victim_id = v.victim_id
"""
"""The pinned victims, and their clean accuracy over the `n` examples that any attack has seen."""
