"""The command line: which commands there are, and how the process behaves."""

from __future__ import annotations

import gc
import signal
from typing import Annotated

import typer

from orchestrator.commands import keeping, pictures, running, tables
from orchestrator.submit.commands import app as submit
from workers.version import VERSION

app = typer.Typer(
    name="robustsweep",
    help="Every image classifier against every adversarial attack, at every strength, in one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

export = typer.Typer(help="Write what sweeps have kept to files.", no_args_is_help=True)
app.add_typer(export, name="export")
app.add_typer(submit, name="submit")


def main() -> None:
    """The entry point. Exit codes: 0 done, 1 some cells failed, 2 bad input, 3 the cluster was lost,
    130 interrupted."""
    # A queue that ends a job, or a shell that a person closes, is no other end than Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Cells by the ten thousand are no cycles: looking for some among them is an eighth of what `table` takes.
    gc.set_threshold(50_000)
    app()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"robustsweep {VERSION}")
        raise typer.Exit


# In the order of `--help`.
for command in (
    *(running.run, running.plan, keeping.status),
    *(tables.table, pictures.report, pictures.view, pictures.figure, pictures.image),
    *(tables.query, tables.compare, tables.verify, running.strengthen),
    *(keeping.list_, keeping.clean, keeping.compact, keeping.init),
):
    app.command(command.__name__.rstrip("_"))(command)
export.command("images")(pictures.export_images)
