"""Sweeps to look at from Python: tables, SQL, kept images. What is shown is computed when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator import rereading
from orchestrator.errors import LibraryError, UserError, arguments
from orchestrator.plots import Plots
from orchestrator.results.attacked import attacks_table
from orchestrator.results.choice import Names, choose, made, several, wanted_names
from orchestrator.results.compare import compare
from orchestrator.results.fence import VIEWS
from orchestrator.results.judged import cells_table, certified_table, transfer_table
from orchestrator.results.kept import class_names, kept_images
from orchestrator.results.query import check_query, run_query
from orchestrator.results.records import robustness_records
from orchestrator.results.schemas import Results
from orchestrator.results.tables import RobustnessTable
from orchestrator.results.text import text_format
from orchestrator.results.text.html import HTML
from orchestrator.store.folder import Store
from orchestrator.store.locate import existing_outputs, read_results

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_T = TypeVar("_T")

_SHOWN = 20  # rows of a relation in a notebook


class Relation:
    """Rows that are computed each time that they are taken: `df()`, `arrow()` or `pl()`."""

    def __init__(self, name: str, take: Callable[[], pa.Table]) -> None:
        self._name, self._take = name, take

    def arrow(self) -> pa.Table:
        """As a PyArrow table. QueryError where it would be larger than 2 GB."""
        return self._take()

    def df(self) -> pd.DataFrame:
        """As a data frame of pandas. LibraryError where that is not installed."""
        _library("pandas", "df")
        return self.arrow().to_pandas()

    def pl(self) -> pl.DataFrame:
        """As a data frame of Polars. LibraryError where that is not installed."""
        return _library("polars", "pl").from_arrow(self.arrow())

    def __repr__(self) -> str:
        return f"<{self._name}: .df(), .arrow() or .pl() takes its rows>"

    def _repr_html_(self) -> str:
        """The first rows, for notebooks."""
        table = self.arrow()
        more = f"<p>{table.num_rows:,} rows</p>" if table.num_rows > _SHOWN else ""
        return HTML().part(table.slice(0, _SHOWN)) + more


class Tables:
    """Robustness tables, one for each dataset and norm: they print, and show in notebooks, as they are."""

    def __init__(self, tables: Sequence[RobustnessTable], digits: int = 1) -> None:
        self._tables, self._digits = tables, digits

    def text(self, format: str = "md") -> str:
        """As `robustsweep table --format`: rich, md, html, latex, csv or json. ValueError for another."""
        return text_format(format, digits=self._digits).robustness(self._tables)

    def arrow(self) -> pa.Table:
        """In long form, a row for each number, as a PyArrow table."""
        return robustness_records(self._tables)

    def df(self) -> pd.DataFrame:
        """The same as a data frame of pandas. LibraryError where that is not installed."""
        _library("pandas", "df")
        return self.arrow().to_pandas()

    def __repr__(self) -> str:
        return self.text("rich")

    def _repr_html_(self) -> str:
        return HTML(digits=self._digits).fragment(self._tables)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Images:
    """Adversarial images that a cell has kept, the first of the evaluation order, and what is known of each.

    A class is -1, and a confidence NaN, where there is none: a victim's answer that is not finite, an attack
    without success.
    """

    adversarial: NDArray[np.float32]  # (N, H, W, C) in [0, 1]; without success what the attack ended with
    clean: NDArray[np.float32]  # (N, H, W, C) in [0, 1]
    labels: NDArray[np.int64]  # (N,) the true classes
    clean_labels: NDArray[np.int64]  # (N,) the victim's answers to the clean images
    adv_labels: NDArray[np.int64]  # (N,) to the adversarial ones
    clean_confidences: NDArray[np.float32]  # (N,) softmax probabilities of those answers, in [0, 1]
    adv_confidences: NDArray[np.float32]  # (N,)
    broken: NDArray[np.bool_]  # (N,) the attack succeeded
    class_names: tuple[str, ...]  # of the labels, in their order; empty where the dataset does not say
    positions: NDArray[np.int64]  # (N,) places in the evaluation order, from 0
    example_index: NDArray[np.int64]  # (N,) rows of the dataset's test split, from 0

    def __len__(self) -> int:
        return len(self.adversarial)

    def __repr__(self) -> str:
        return f"<{len(self)} images of {'×'.join(map(str, self.adversarial.shape[1:]))}, and clean ones>"


class Sweep:
    """One or more output folders, as they were when they were opened. Made by `robustsweep.open`.

    Where `compact` has removed files that it was to read, it looks at the folders anew.

    Every relation has a column `sweep`, which says which of them a row is of; in a notebook it shows its
    robustness table.
    """

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._stores = stores
        self._results, warnings = read_results(stores)
        self.warnings: tuple[str, ...] = tuple(warnings)
        """What does not count, and why, as commands warn of it."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the sweeps are called in the column `sweep`."""
        return tuple(self._stores)

    @property
    def cells(self) -> Relation:
        """A row for each cell of the grids as last run, in their order: accuracies, distances, calls."""
        return Relation("cells", partial(self._take, cells_table))

    @property
    def examples(self) -> Relation:
        """A row for each example at each epsilon."""
        return self._view("examples")

    @property
    def worst_case(self) -> Relation:
        """A row for each victim, norm and epsilon: what no attack breaks."""
        return self._view("worst_case")

    @property
    def distances(self) -> Relation:
        """A row for each example, victim and minimum-norm attack: the nearest adversarial image."""
        return self._view("distances")

    @property
    def victims(self) -> Relation:
        """A row for each victim: weights, parameters, accuracies."""
        return self._view("victims")

    @property
    def history(self) -> Relation:
        """A row for each epoch of each victim's training."""
        return self._view("history")

    @property
    def checks(self) -> Relation:
        """A row for each thing that is wrong, suspicious or worth knowing."""
        return self._view("checks")

    @property
    def strengthened(self) -> Relation:
        """A row for each cell or worst case and each stronger attack on what survived there."""
        return self._view("strengthened")

    @property
    def transfer(self) -> Relation:
        """A row for each cell of images that were made against one victim and tried on another."""
        return Relation("transfer", partial(self._take, transfer_table))

    @property
    def transferred(self) -> Relation:
        """A row for each example at each epsilon of those."""
        return self._view("transferred")

    @property
    def certified(self) -> Relation:
        """A row for each example of each smoothed victim: its answer, and how far it is certified."""
        return self._view("certified")

    @property
    def certified_accuracy(self) -> Relation:
        """A row for each smoothed victim and L2 epsilon: what is certified, beside what attacks have left."""
        return Relation("certified_accuracy", partial(self._take, certified_table))

    @property
    def attacks(self) -> Relation:
        """A row for each attack on each victim: calls spent, area under its curve, optimality."""
        return Relation("attacks", partial(self._take, attacks_table))

    @property
    def failures(self) -> Relation:
        """A row for each attempt that failed, with its traceback."""
        return self._view("failures")

    def sql(self, statement: str) -> Relation:
        """The answer to one SELECT over these views, in DuckDB's SQL.

        QueryError at once for anything that is not allowed or no SQL; for names that are not there when its
        rows are taken.
        """
        checked = check_query(statement)
        return self._answer("an answer", checked)

    def table(
        self,
        *,
        dataset: Names = (),
        model: Names = (),
        defence: Names = (),
        attack: Names = (),
        norm: Names = (),
        by: Names = (),
        metric: str = "robust_accuracy",
        digits: int = 1,
    ) -> Tables:
        """Robustness tables, as `robustsweep table` shows them: of some names only, and one for each value of
        what they are made `by` (sweep, model, defence, attack). UserError for a name that is not there."""
        wanted = wanted_names(dataset=dataset, model=model, defence=defence, attack=attack, norm=norm)
        with arguments():
            if metric == "robust_accuracy":
                tables = self._tables
            else:
                tables = self._take(lambda results: made(results, metric))
            return Tables(choose(tables, wanted, several(by)), digits)

    @property
    def plot(self) -> Plots:
        """Figures: `plot.curves()`, `plot.heatmap()`, …"""
        return Plots(self._take)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as a page in HTML that stands alone, as `robustsweep report` does.

        UserError where the file cannot be written.
        """
        from orchestrator.report.facts import gather
        from orchestrator.report.page import write_report

        with arguments():
            write_report(
                lambda: self._take(lambda results: gather(self._stores, results, self.warnings)),
                os.fspath(path),
            )

    def compare(self, first: str, second: str) -> Relation:
        """Two models, defences or sweeps among these, example by example: see `robustsweep.compare`."""
        found = self._take(lambda results: compare(results, first, second))
        return Relation(f"{second} against {first}", lambda: found.rows)

    def images(
        self,
        cell: str | Mapping[str, Any],
        *,
        broken: bool | None = True,
        n: int = 8,
    ) -> Images:
        """The first `n` images of a cell: fewer where fewer of the first are kept (`keep:` in its grid).

        `cell` is a cell's id, or a row of `cells`; `broken`: those that the attack succeeded on, or only
        others (False), or all (None). Clean images are kept with them. UserError for a cell that is not
        there, or that has kept nothing.
        """
        return self._take(lambda results: _images(*_found(results, cell), broken, n))

    def _view(self, name: str) -> Relation:
        return self._answer(name, f"FROM {name}")

    def _answer(self, name: str, sql: str) -> Relation:
        return Relation(name, lambda: self._take(lambda results: run_query(results, sql)))

    def _take(self, use: Callable[[Sequence[Results]], _T]) -> _T:
        """`use` of what the folders hold: anew, where files have been merged and removed since they were
        opened."""
        outdated = False

        def taken() -> _T:
            nonlocal outdated
            if outdated:
                self._results, _ = read_results(self._stores)
            outdated = True
            for one in self._results:
                rereading.note(one)
            return use(self._results)

        return rereading.again(taken)()

    @cached_property
    def _tables(self) -> list[RobustnessTable]:
        return self._take(made)

    def __repr__(self) -> str:
        return f"<sweep {', '.join(self.names)}: {', '.join(VIEWS)}, sql(), table(), plot, images()>"

    def _repr_html_(self) -> str:
        """The robustness table, for notebooks."""
        return self.table()._repr_html_()


def open_sweeps(where: Names) -> Sweep:
    """Output folders by path, URI, name in `outputs/` or glob; StoreError where there is none."""
    return Sweep(existing_outputs(several(where)))


def _found(every: Sequence[Results], cell: str | Mapping[str, Any]) -> tuple[Results, str, str]:
    """Where a cell is, its id and its victim's."""
    row = {"cell_id": cell} if isinstance(cell, str) else dict(cell)
    cell_id, sweep = row.get("cell_id"), row.get("sweep")
    found = [
        (results, str(cell_id), results.wanted["victim_id"][place].as_py())
        for results in every
        if sweep in (None, results.sweep)
        and (place := pc.index(results.wanted["cell_id"], cell_id).as_py()) >= 0
    ]
    if not found:
        raise UserError(f'no cell "{cell_id}"; the column cell_id of `cells` has them')
    if len(found) > 1:
        names = ", ".join(results.sweep for results, *_ in found)
        raise UserError(f"{cell_id} is in several sweeps: {names}; a row of `cells` says which is meant")
    return found[0]


def _images(results: Results, cell_id: str, victim_id: str, broken: bool | None, n: int) -> Images:
    kept = kept_images(results, [cell_id], broken=broken, n=n).get(cell_id)
    if kept is None:
        raise UserError(f"no image of {cell_id} is kept: `keep: N` in a grid keeps the first N of each cell")
    rows = kept.rows
    return Images(
        adversarial=kept.adversarial,
        clean=kept.clean,
        labels=_integers(rows, "label"),
        clean_labels=_integers(rows, "clean_label"),
        adv_labels=_integers(rows, "adv_label"),
        clean_confidences=_floats(rows, "clean_confidence"),
        adv_confidences=_floats(rows, "adv_confidence"),
        broken=np.array(rows["success"].to_pylist(), bool),
        class_names=class_names(results, victim_id),
        positions=_integers(rows, "position"),
        example_index=_integers(rows, "example_index"),
    )


def _library(name: str, wanted_by: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise LibraryError(
            f"{wanted_by}() needs {name}, which is not installed; arrow() gives a PyArrow table without it"
        ) from None


def _integers(rows: pa.Table, column: str) -> NDArray[np.int64]:
    return np.array(pc.fill_null(rows[column], -1).to_pylist(), np.int64)


def _floats(rows: pa.Table, column: str) -> NDArray[np.float32]:
    return np.array(pc.fill_null(rows[column], float("nan")).to_pylist(), np.float32)
