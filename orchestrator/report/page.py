"""A page: its templates filled, its scripts and charts inside, nothing to be fetched.

Names come from whoever wrote a grid, so that everything is escaped: in HTML by Jinja, in scripts' data by
`<`, `>` and `&` written as JSON escapes. A policy in the page lets no script run but the three that are in
it, known by their hashes, and nothing be loaded; charts compute by Vega's interpreter, which needs no eval.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2

from orchestrator.report import answer, beside, sections
from orchestrator.report.charts import specs
from orchestrator.report.contest import contests
from orchestrator.report.facts import Facts
from orchestrator.report.gallery import gallery
from orchestrator.report.series import series
from orchestrator.report.steps import step_curves
from orchestrator.report.visible import MINIMUM_NORM, perceptibility
from orchestrator.results.export import replacing
from orchestrator.results.text.base import finite

_VEGA_LITE = "6.4"
"""That which altair's specifications are of."""


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _scripts() -> tuple[str, str, str]:
    """Vega, Vega-Lite and Vega-Embed; and ours."""
    import vl_convert

    files = resources.files("orchestrator.report") / "templates"
    return (
        _inline(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)),
        _inline((files / "page.js").read_text("utf-8")),
        (files / "page.css").read_text("utf-8"),
    )


def _inline(script: str) -> str:
    """A script that no text in it ends too early."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def write_report(ask: Callable[[], Facts], path: str) -> None:
    """Write the page of what `ask` reads to a file, whole or not at all; UserError where it cannot be
    written, before anything is read."""
    with replacing(path) as stream:
        stream.write(report_page(ask()).encode())


def report_page(facts: Facts) -> str:
    """The whole page, to be written to a file."""
    return page(content(facts), [results.sweep for results in facts.results])


def page(filled: Content, names: Sequence[str], *, live: Mapping[str, Any] | None = None) -> str:
    """A page of the sweeps of those names. `live`: what its script knows where it is served; it then shows
    what is going on at its top, and a box for SQL at its end."""
    vega, script, style = _scripts()
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=", ".join(names),
            body=filled.body,
            data=filled.data,
            live=live,
            vega=vega,
            script=script,
            style=style,
            policy=policy(live=live is not None),
        )
    )


def policy(*, live: bool) -> str:
    """What the page may do (Content Security Policy): run its own two scripts, show images that are in it,
    and where it is served ask the server that it is from."""
    vega, script, _ = _scripts()
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in (vega, script))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class Content(NamedTuple):
    """What a page shows of some facts: the rest of it is the same in every page."""

    body: str  # all sections, as HTML
    data: str  # what the page's script draws charts from, as JSON


def content(facts: Facts) -> Content:
    """Fill the sections."""
    found = contests(facts.tables)
    transfers, classes = beside.transfers(facts), sections.per_class(facts)
    steps, visible = step_curves(facts), perceptibility(facts)
    effort, comparison, keys = sections.effort(facts), sections.comparison(facts), sections.keys(facts)
    body = (
        _environment()
        .get_template("body.html")
        .render(
            made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            several=len(facts.results) > 1,
            minimum_norm=MINIMUM_NORM,
            asked=answer.asked(facts),
            best=[text for contest in found for text in answer.best(contest, facts.known)],
            breaking=[
                (f"{contest.table.dataset_label}, {contest.table.norm}", answer.breaking(contest))
                for contest in found
                if contest.rows
            ],
            distrust=answer.distrust(facts),
            tables=list(sections.robustness(facts)),
            worst_cases=list(sections.worst_cases(facts)),
            comparison=comparison,
            transfers=bool(transfers),
            blind=beside.blind(transfers),
            classes_left_out=classes["left_out"],
            certified=beside.certified(facts),
            steps=steps,
            visible=visible,
            quality=beside.quality(facts),
            gallery=gallery(facts),
            victims=sections.victims(facts),
            checks=sections.checks(facts),
            failures=sections.failures(facts),
            effort=effort,
            origin=sections.origin(facts),
            papers=sections.papers(facts),
            keys=keys,
        )
    )
    data = {
        **series(facts.tables),
        "specs": specs(),
        "steps": steps["curves"],
        "visible": [
            [row[name] for name in ("number", "epsilon", "text", "accuracy", "value", "ssim", "l2", "n")]
            for row in visible["rows"]
        ],
        "classes": classes,
        "transfers": transfers,
        "training": sections.training(facts),
        "effort": effort["bars"],
        "pairs": comparison["rows"],
        "values": keys,
    }
    return Content(body, as_json(data))


def as_json(value: Any) -> str:
    """JSON that may stand in a script element of a page: no `<` in it, so no tag and no comment."""
    text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
