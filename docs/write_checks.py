"""Writes docs/checks.md, every rule that results are held against, from `orchestrator.results.checks`.

python docs/write_checks.py
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.results.checks import RULES
from orchestrator.results.checks.rule import SEVERITIES

PAGE = Path(__file__).with_name("checks.md")

HEAD = """\
# When is a number wrong?

A robust accuracy is an upper bound: a stronger attack may find more. So a model that attacks fail on for
a reason of their own looks robust. After each run, and by

```
robustsweep verify OUTPUT                       # for people; --format md|csv|json for others
robustsweep query OUTPUT "FROM checks"          # the same, in SQL
```

results are held against the rules below. `verify` ends with code 1 if anything is *wrong*, else with 0,
and its last line says what it comes to.

- **wrong**: a number is not what it says. No table shows it: `wrong¹` stands in its place, and the
  footnote names the rule. In `cells`, `worst_case`, CSV and JSON `robust_accuracy`, its interval and the
  attack success rates are null, `verdict` is `wrong`, `checks` has the rules, and
  `robust_accuracy_unchecked` the number as it was measured.
- **suspicious**: the model may be far less robust than the number says. The number stands, with a
  footnote.
- **note**: worth knowing. Flags of examples keep their marks; other notes are in `verify` and `checks`
  alone.

What a finding is of, its columns say: a cell; all cells of an attack on a victim (`cell_id` is null), or
of a victim (`attack_id` too), that it concerns; or the folder. Blind gradients concern neither an attack
without gradients nor `standard`, which has one; and no number at epsilon 0, and none that is 0, since
nothing can be hidden below it. A worst case is as good as its best search: it has a verdict where all of
its searches have it, or where successes are none.

Attacks are compared example by example, by exact tests that allow for how many they are (McNemar; Holm,
1% for all cells of a folder together), and only where a point or more is at stake: a handful of examples
says nothing. On the 64 probes of a victim attacks must differ by 10 examples. A victim that has not been
probed is held against the other rules only; `verify` says how many those are.

## Has a number converged?

```
robustsweep strengthen OUTPUT
```

attacks again what survived: each done, adaptive, untargeted cell by the same attack with twice the steps or
queries and one restart more, where it has such options; and what no attack of a norm breaks by `standard`,
unless the grid has it. Nothing else is attacked, so that this takes a part of what the sweep took, but for
`standard`, which takes seconds an image; `--steps`, `--queries`, `--no-standard` and `--only` make it
less, and `--dry-run` shows how many survivors there are. Where more than a point of the examples is broken
now, `not_converged` says so of the cell or the worst case, with the number that it would be. The numbers
of the grid stay as they are: the view `strengthened` has both.
[How is it run?](running.md#survivors)

<!-- Written by `python docs/write_checks.py`; rules are in orchestrator/results/checks/. -->
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for severity in SEVERITIES:
        rules = (rule for rule in RULES.values() if rule.severity == severity)
        rows = [f"| `{rule.name}` | {rule.meaning} | {rule.advice} |\n" for rule in rules]
        head = "| rule | what is so | what to do |\n| --- | --- | --- |\n"
        parts.append(f"## {severity.capitalize()}\n\n{head}{''.join(rows)}")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
