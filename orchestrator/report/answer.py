"""The answer in plain sentences: every number in them comes from the tables, every claim from a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from orchestrator.report.contest import Contest, contests, victim_key, victim_name
from orchestrator.report.facts import Facts
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.pairing import Outcome, against, untold
from orchestrator.results.tables import Entry, Place, RobustnessTable, Row
from orchestrator.results.text import findings
from orchestrator.results.text import robustness as words

_NAMED = 8  # victims, attacks or epsilons that a sentence names; the tables have all of them
_HALF = 0.5


class Said(NamedTuple):
    """A sentence, and how grave it is."""

    text: str
    severity: str = ""  # wrong, suspicious or note; empty: neither


def asked(facts: Facts) -> list[str]:
    """What the sweeps were to find out, and how far they are."""
    cells = facts.rows("cells")
    if not cells:
        return ["No cell was asked for."]
    victims = listed(dict.fromkeys(victim_name(row, table) for table in facts.tables for row in table.rows))
    verb = "do" if len({victim_key(row) for table in facts.tables for row in table.rows}) > 1 else "does"
    attacks = listed(
        dict.fromkeys(
            row.attack_label
            for table in facts.tables
            for row in table.rows
            if row.attack not in (WORST_CASE, WITH_TRANSFER)
        )
    )
    datasets = listed(dict.fromkeys(table.dataset_label for table in facts.tables))
    seeds = sorted({cell["seed"] for cell in cells})
    examples = sorted({cell["examples"] for cell in cells})
    many = f"{examples[0]:,}" if len(examples) == 1 else f"{examples[0]:,} to {examples[-1]:,}"
    trained = f", each trained with {len(seeds)} seeds" if len(seeds) > 1 else ""
    strengths = "; ".join(
        f"{table.dataset_label}, {table.norm}: {', '.join(words.epsilons(table))}" for table in facts.tables
    )
    sentences = [
        f"How {verb} {victims} hold up against {attacks} on {datasets}{trained}?",
        f"Epsilons, on the [0, 1] pixel scale: {strengths}.",
        f"{_counted(facts)}, on the first {many} test images of the evaluation order.",
    ]
    return [*sentences, progress(facts)]


def statuses(facts: Facts) -> dict[str, Counter[str]]:
    """How many cells have each status, as `plan` counts them: of attacks, transfers and certificates."""
    certificates = {(row["sweep"], row["cell_id"]): row["status"] for row in facts.rows("certified_accuracy")}
    return {
        "attacks": Counter(row["status"] for row in facts.rows("cells")),
        "transfers": Counter(row["status"] for row in facts.rows("transfer")),
        "certificates": Counter(certificates.values()),
    }


def _counted(facts: Facts) -> str:
    """How many cells there are, and of what where it is not of attacks alone."""
    of = {kind: found.total() for kind, found in statuses(facts).items() if found}
    text = count(sum(of.values()), "cell")
    return (
        text if of.keys() == {"attacks"} else f"{text} ({', '.join(f'{n:,} of {k}' for k, n in of.items())})"
    )


def progress(facts: Facts) -> str:
    """How many of the cells are done, and what the others are."""
    found = sum(statuses(facts).values(), Counter[str]())
    rest = [f"{n:,} {status}" for status, n in found.items() if status != "done"]
    if not rest:
        return f"All {found.total():,} cells are done." if found.total() > 1 else "It is done."
    return f"{found['done']:,} of {found.total():,} cells are done; {', '.join(rest)}."


def best(contest: Contest, known: Mapping[Place, Outcome]) -> list[str]:
    """Which victim is the best at which epsilons, with the test that says so; tied, or not to be told."""
    table = contest.table
    place = f"On {table.dataset_label} ({table.norm})"
    if not contest.rows:
        return [f"{place}, no attack is adaptive and untargeted, so that nothing sums a model up."]
    if len(contest.rows) == 1:
        return [f"{place}, there is one model, {victim_name(contest.rows[0], table)}: nothing to compare."]
    verdicts = [
        (epsilon, *_leader(contest, column, known))
        for column, epsilon in enumerate(words.epsilons(table))
        if table.epsilons[column] > 0
    ]
    sentences = []
    for (leader, why), found in groupby(verdicts, key=lambda one: one[1:]):
        at = listed([epsilon for epsilon, *_ in found], "and")
        if leader:
            sentences.append(f"at epsilon {at}, {leader}")
        elif why:
            sentences.append(f"at epsilon {at}, it cannot be told which is the most robust, since {why}")
        else:
            sentences.append(f"at epsilon {at}, the highest are tied: none is better than all others")
    text = "; ".join(sentences)
    if not verdicts:
        return [f"{place}, only clean images were asked for (epsilon 0)."]
    said = [f"{place}, {text}."]
    if telling := _most_telling(contest, known):
        said.append(telling)
    return said


def _ranked(contest: Contest, column: int) -> list[tuple[Row, Entry]]:
    return sorted(contest.at(column), key=lambda one: -(one[1].value or 0.0))


def _leader(contest: Contest, column: int, known: Mapping[Place, Outcome]) -> tuple[str, str]:
    """Which is the best at an epsilon, and under what; or why that cannot be told. Neither: it is tied."""
    ranked = _ranked(contest, column)
    if len(ranked) < 2:
        return "", "there is one model only"
    if ranked[0][1].best:
        shared = [contest.with_transfer(row, column) for row, _ in ranked]
        values = [entry.value for entry in shared if entry is not None and entry.value is not None]
        if values and (len(values) < len(ranked) or values[0] < max(values)):
            return "", "images made against other victims change the order, or are not all tried"
        return f"{victim_name(ranked[0][0], contest.table)} is the most robust {_under(ranked[0][0])}", ""
    if len({row.attack_label for row, _ in ranked}) > 1:
        return "", "they were not attacked alike"
    return "", untold(ranked[0][1], [entry for _, entry in ranked[1:]], known)


def _most_telling(contest: Contest, known: Mapping[Place, Outcome]) -> str:
    """The epsilon at which the best is the furthest ahead of the next, in numbers and with its test."""
    gaps = []
    for column in range(len(contest.table.epsilons)):
        ranked = _ranked(contest, column)
        if contest.table.epsilons[column] > 0 and _leader(contest, column, known)[0]:
            gaps.append((ranked[0][1].value - ranked[1][1].value, column))  # type: ignore[operator]
    if not gaps:
        return ""
    column = max(gaps)[1]
    (row, first), (other, second) = _ranked(contest, column)[:2]
    pairs = against(first, second, known)
    weakest = max(pairs, key=lambda pair: pair.probability)
    low, high = weakest.interval
    seeds = "" if len(pairs) == 1 else f"; of {len(pairs)} seeds this is the least sure"
    return (
        f"The gap is widest at epsilon {words.epsilons(contest.table)[column]}: "
        f"{victim_name(row, contest.table)} keeps {share(first)} {_under(row)}, "
        f"{victim_name(other, contest.table)} {share(second)}. On the same {weakest.n:,} images "
        f"{weakest.only_second:,} hold for the former alone and {weakest.only_first:,} for the latter alone: "
        f"{100 * weakest.difference:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}, exact "
        f"McNemar test p {probability(weakest.probability)}{seeds}; sure after Holm's correction for all "
        f"tests of its table.{_shared(contest, column, (row, other))}"
    )


def _shared(contest: Contest, column: int, rows: Sequence[Row]) -> str:
    """What is left where images made against other victims count too."""
    entries = [contest.with_transfer(row, column) for row in rows]
    if any(entry is None or entry.value is None for entry in entries):
        return ""
    first, second = (share(entry) for entry in entries if entry is not None)
    return f" Where images made against other victims count too, they keep {first} and {second}."


def breaking(contest: Contest) -> list[str]:
    """At which epsilon each victim falls below half."""
    said = [
        f"{victim_name(row, contest.table)} {_breaks(row, contest.table)}" for row in contest.rows[:_NAMED]
    ]
    if len(contest.rows) > _NAMED:
        said.append(f"{len(contest.rows) - _NAMED:,} more are in the table of worst cases")
    return said


def _breaks(row: Row, table: RobustnessTable) -> str:
    """Between which epsilons fewer than half of the images are left."""
    last: tuple[str, Entry] | None = None
    holes: dict[str, list[str]] = {}  # mark -> the epsilons that have it, since the last number
    for name, entry in zip(words.epsilons(table), row.entries, strict=True):
        if entry is None:
            continue
        if entry.value is None:
            holes.setdefault(entry.mark, []).append(name)
            continue
        if entry.value < _HALF:
            doubt = _unsure(entry) or (last and _unsure(last[1])) or ""
            if last is None:
                before = "already at the smallest epsilon that has a number"
                return f"is below half {before}, {name}: {share(entry)} {_under(row)}{doubt}{_holes(holes)}"
            where = f"between epsilon {last[0]} ({share(last[1])}) and {name} ({share(entry)})"
            return f"falls below half {where}, {_under(row)}{doubt}{_holes(holes)}"
        last, holes = (name, entry), {}
    if last is None:
        return f"has no number{_holes(holes)}"
    return f"keeps at least half up to epsilon {last[0]} ({share(last[1])}), {_under(row)}{_holes(holes)}"


def _holes(holes: Mapping[str, Sequence[str]]) -> str:
    return "".join(f"; {mark} at {listed(names)}" for mark, names in holes.items())


def _unsure(entry: Entry) -> str:
    inside = entry.low is not None and entry.high is not None and entry.low < _HALF < entry.high
    return " (one of these intervals includes half)" if inside else ""


def _under(row: Row) -> str:
    return "in the worst case" if row.attack == WORST_CASE else f"under {row.attack_label}"


def distrust(facts: Facts) -> list[Said]:
    """What cannot be trusted, the gravest first, and why."""
    checks = facts.views["checks"]
    found = [Said(text, severity) for severity, text in findings.brief(checks)]
    cells = sum(statuses(facts).values(), Counter[str]())
    if holes := cells.total() - cells["done"]:
        text = f"{count(holes, 'cell')} of {cells.total():,} without a number: shown as holes"
        found.append(Said(text, "suspicious"))
    cases = facts.rows("worst_case")
    if incomplete := sum(not case["complete"] for case in cases):
        text = (
            f"{incomplete:,} of {count(len(cases), 'worst case')} incomplete: some attack is not done there"
        )
        found.append(Said(text, "suspicious"))
    found += [Said(text, "note") for contest in contests(facts.tables) for text in _fooled_by_others(contest)]
    if any(not row.adaptive for table in facts.tables for row in table.rows):
        text = "attacks marked (oblivious) used gradients of the undefended model: their numbers flatter"
        found.append(Said(text, "note"))
    if any(row.targeted for table in facts.tables for row in table.rows):
        text = "attacks marked (targeted) aim at one class: what they leave is no robust accuracy"
        found.append(Said(text, "note"))
    found += [Said(text) for text in _limits(facts)]
    return found


_POINT = 0.01


def _fooled_by_others(contest: Contest) -> Iterator[str]:
    """Victims that images made against others break more of, on top of their own attacks."""
    for row in contest.rows:
        falls = [
            (entry.value - shared.value, column)
            for column, entry in enumerate(row.entries)
            if entry is not None
            and entry.value is not None
            and (shared := contest.with_transfer(row, column)) is not None
            and shared.value is not None
        ]
        fall, column = max(falls, default=(0.0, 0))
        if fall > _POINT:
            table, name = contest.table, victim_name(row, contest.table)
            own, shared = row.entries[column], contest.with_transfer(row, column)
            assert own is not None and shared is not None
            yield (
                f"{name} on {table.dataset_label} falls to images made against other victims too: at "
                f"{table.norm} {words.epsilons(table)[column]} its own attacks leave {share(own)}, together "
                f"with those images {share(shared)}"
            )


def _limits(facts: Facts) -> Iterator[str]:
    """What bounds the best of sweeps, too."""
    yield (
        "every robust accuracy is an upper bound: an attack that was not run may break more"
        + _strengthening(facts)
    )
    reaches = [
        entry.reach
        for table in facts.tables
        for row in table.rows
        for entry in row.entries
        if entry is not None and entry.reach is not None
    ]
    if reaches:
        yield (
            f"95% intervals are up to ±{100 * max(reaches):.1f} points, and speak of the choice of test "
            "images only"
        )
    if unprobed := sum(map(findings.unprobed, facts.results)):
        yield f"{count(unprobed, 'victim')} not probed: of gradients only what attacks met is known"


def _strengthening(facts: Facts) -> str:
    """What stronger attacks on survivors came to."""
    tried = {
        tuple(row[name] for name in ("sweep", "cell_id", "victim_id", "norm", "epsilon"))
        for row in facts.rows("strengthened")
    }
    if not tried:
        return "; survivors were not attacked again by stronger ones (robustsweep strengthen does)"
    changed = facts.views["checks"]["rule"].to_pylist().count("not_converged")
    return (
        f"; stronger attacks on survivors changed {changed:,} of {count(len(tried), 'number')} by more than "
        "a point"
    )


# -- words -------------------------------------------------------------------------------------------------


def share(entry: Entry) -> str:
    """ "59.2% [54.8, 63.4]": with its interval, and what is to be doubted."""
    if entry.value is None:
        return entry.mark or "–"
    text = f"{100 * entry.value:.1f}%"
    if entry.low is not None and entry.high is not None:
        text += f" [{100 * entry.low:.1f}, {100 * entry.high:.1f}]"
    return f"{text}, suspicious" if entry.verdict == "suspicious" else text


def probability(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Any, word: str = "and") -> str:
    """ "a, b and c"; of many only the first, and how many more there are."""
    names = list(names)
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1:,} more"]
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
