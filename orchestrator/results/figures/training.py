"""How victims were trained: loss and accuracy by epoch, on the images that they learnt from and on others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen, chosen
from orchestrator.results.figures import Choice
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import model_of, name_of
from orchestrator.results.figures.style import INK, QUIET, Look, looks
from orchestrator.results.query import connect
from orchestrator.results.schemas import Results
from workers.defences import DEFENCES
from workers.defences.base import TrainingDefence
from workers.unit import COMBINED, NO_DEFENCE, without_options

_DASHED = (3, 1.5)
_WHAT = (("loss", "loss"), ("accuracy", "accuracy (%)"))


@dataclass(frozen=True)
class _Trained:
    """One network, as it was trained."""

    panel: str
    name: str
    defence: type[TrainingDefence] | None  # in training
    epochs: Sequence[Mapping[str, Any]]  # rows of the view `history`, in order


def training(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw loss and accuracy by epoch: two panels for each dataset, a line for each network and seed.

    Victims that share their weights, as those with a defence at inference do, are one network.
    """
    found = chosen(results, choice.wanted, choice.by)
    trained = list(_networks(found, results))
    if not trained:
        raise UserError("nothing to draw: no victim of these was trained here; all are used as they are")
    names = list(dict.fromkeys(one.name for one in trained))
    look = looks([(name, "") for name in names])
    rows = list(dict.fromkeys(one.panel for one in trained))
    page = Page(2 * len(rows), width=choice.width, panel_width=1.65, panel_height=1.6, columns=2)
    for i, row in enumerate(rows):
        for (column, label), axes in zip(_WHAT, page.panels[2 * i : 2 * i + 2], strict=True):
            page.title(axes, row)
            axes.set_ylabel(label)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            for one in trained:
                if one.panel == row:
                    _draw(axes, one, column, look[one.name, ""])
            if column == "accuracy":
                axes.set_ylim(top=102)
            else:
                axes.set_ylim(bottom=0)
    for name in names:
        style = look[name, ""]
        page.legend(name, Line2D([], [], color=style.colour, marker=style.marker))
    page.legend("training", Line2D([], [], color=INK))
    page.legend("validation", Line2D([], [], color=INK, dashes=_DASHED))
    if any(_under_attack(one) for one in trained):
        hollow = Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none")
        page.legend("under attack", hollow)
    for note in _notes(trained):
        page.note(note)
    phases = {tuple(dict.fromkeys(epoch["phase"] for epoch in one.epochs)) for one in trained}
    for several in sorted(phase for phase in phases if len(phase) > 1):
        page.note(f"dotted: from {' to '.join(several)}")
    return page.finished()


def _notes(trained: Sequence[_Trained]) -> Iterator[str]:
    """Of which images numbers are, and by which weights; defences in training say so by themselves."""
    altered = list(dict.fromkeys(one.name for one in trained if one.defence and one.defence.alters_images))
    if altered:
        heads = any(epoch["phase"] == "head" for one in trained for epoch in one.epochs)
        until = ", from its second phase on" if heads else ""
        yield (
            f"training accuracy of {' and '.join(altered)}{until}: of up to 1,024 clean training images "
            "after each epoch"
        )
    others = [one for one in trained if one.name not in altered]
    if others:
        whose = " of the others" if altered else ""
        yield (
            f"training accuracy{whose}: of training images as the epoch went, by weights that still changed"
        )
    yield "validation: clean images held out, after each epoch; its loss is the cross-entropy"
    own = list(dict.fromkeys(one.name for one in trained if one.defence))
    yield "training loss: what training lowers, the cross-entropy" + (
        f"; of {' and '.join(own)} what the defence has in its place, on what it trains on: not to be held "
        "against the validation loss"
        if own
        else ""
    )
    if any(_under_attack(one) for one in trained):
        yield (
            "under attack: training images under the training's own attack as the epoch went, at the epsilon "
            "that it had reached; validation images under PGD of 10 steps at the whole epsilon"
        )


def _under_attack(one: _Trained) -> bool:
    return any(epoch["validation_adversarial_accuracy"] is not None for epoch in one.epochs)


def _in_training(defence: str) -> type[TrainingDefence] | None:
    """What of a defence, in a view's words, changes how a network is trained: the first of its parts."""
    kind = DEFENCES.get(without_options(defence).split(COMBINED)[0])
    return kind if kind and issubclass(kind, TrainingDefence) else None


def _networks(found: Chosen, results: Sequence[Results]) -> Iterator[_Trained]:
    """What was trained, each once, in the order of tables."""
    with connect(results, named=("history", "victims"), cells=False) as connection:
        history = connection.sql("FROM history ORDER BY sweep, victim_id, epoch").to_arrow_table().to_pylist()
        weights = connection.sql("SELECT sweep, victim_id, weights FROM victims").fetchall()
    epochs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for epoch in history:
        epochs.setdefault((epoch["sweep"], epoch["victim_id"]), []).append(epoch)
    of = {(sweep, victim): value for sweep, victim, value in weights}
    undefended = {
        (cell["sweep"], of.get((cell["sweep"], cell["victim_id"])))
        for cell in found.cells.values()
        if cell["defence"] == NO_DEFENCE.name
    }
    seen = set()
    for table in found.tables:
        for row in table.rows:
            for cell in found.cells_of(row):
                key = cell["sweep"], cell["victim_id"]
                network = cell["sweep"], of.get(key)
                if key not in epochs or network in seen:
                    continue
                seen.add(network)
                plain = network in undefended
                yield _Trained(
                    panel=", ".join([table.dataset_label, *(value for _, value in table.by)]),
                    name=model_of(table, row) if plain else name_of(table, row),
                    defence=_in_training(cell["defence"]),
                    epochs=epochs[key],
                )


def _draw(axes: Axes, one: _Trained, column: str, style: Look) -> None:
    scale = 100 if column == "accuracy" else 1
    x = [epoch["epoch"] for epoch in one.epochs]
    for name, dashes in ((column, None), (f"validation_{column}", _DASHED)):
        y = [float("nan") if epoch[name] is None else scale * epoch[name] for epoch in one.epochs]
        (line,) = axes.plot(x, y, color=style.colour, marker=style.marker, markersize=2.5)
        if dashes:
            line.set_dashes(dashes)
        attacked = [epoch.get(name.replace("accuracy", "adversarial_accuracy")) for epoch in one.epochs]
        if column == "accuracy" and any(value is not None for value in attacked):
            y = [float("nan") if value is None else scale * value for value in attacked]
            (line,) = axes.plot(x, y, color=style.colour, marker=style.marker, markersize=2.5, linewidth=0.8)
            line.set(markerfacecolor="white", markeredgewidth=0.6, dashes=dashes or (None, None))
    for before, after in zip(one.epochs, one.epochs[1:], strict=False):
        if before["phase"] != after["phase"]:
            axes.axvline((before["epoch"] + after["epoch"]) / 2, color=QUIET, linestyle=":", linewidth=0.7)
