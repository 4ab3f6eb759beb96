"""What commands take: their arguments and options, and what is allowed in them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from orchestrator import completion
from orchestrator.results.figures import FORMATS as DRAWN_AS
from orchestrator.results.figures import KINDS
from orchestrator.results.metrics import BY, METRICS
from orchestrator.results.text import BINARY, FORMATS
from orchestrator.run.backends.registry import BACKENDS

RECORD_FORMATS = ("rich", "json")
"""Those of `plan` and `status`."""

ANSWER_FORMATS = (*FORMATS, *BINARY)
"""Those of `query`."""


class Listing(StrEnum):
    models = "models"
    datasets = "datasets"
    attacks = "attacks"
    defences = "defences"
    grids = "grids"
    victims = "victims"


GridArgument = Annotated[
    str,
    typer.Argument(
        metavar="GRID", help="A grid file, or a shipped grid's name.", autocompletion=completion.grids
    ),
]
OutputArgument = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT",
        help="A sweep's output folder or URI, or its name in outputs/.",
        autocompletion=completion.outputs,
    ),
]
OutputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="OUTPUT…",
        help="Output folders or URIs of sweeps, their names in outputs/, or globs of these.",
        autocompletion=completion.outputs,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the grid: examples=100, epsilons.linf=[0,0.1].",
    ),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", help="Output folder or URI. [default: outputs/<grid name>]")
]
DataOption = Annotated[
    str | None,
    typer.Option(envvar="ROBUSTSWEEP_DATA", help="Folder or URI with <dataset>.npz files in Keras' layout."),
]
CacheOption = Annotated[str | None, typer.Option(help="The cache of victims. [default: outputs/victims]")]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what failed for good in an earlier run.")
]
PriceOption = Annotated[
    float | None,
    typer.Option(min=0, help="Money for an hour of a device, one GPU or one CPU: what it costs is said too."),
]
TimingsOption = Annotated[
    list[str] | None,
    typer.Option(help="The output folder of another sweep whose timings count too; may be repeated."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE,…",
        help="Only the cells that agree: model=small_cnn,attack=fgsm. Repeat it for more of them.",
        autocompletion=completion.parts,
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(BACKENDS),
        help="ray: a pool of workers. inline: this process.",
        autocompletion=completion.one_of(BACKENDS),
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="How many workers. [default: as many as the machines carry]")
]
MinWorkersOption = Annotated[
    int | None, typer.Option(min=1, help="So many have to fit, and stay until the end.")
]
MaxWorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="At most so many; a cluster with an autoscaler is asked to bring machines for them."
    ),
]
CpusOption = Annotated[int | None, typer.Option(min=1, help="CPUs, hence threads, of a worker.")]
GpusOption = Annotated[
    float | None,
    typer.Option(min=0, help="GPUs of a worker; a fraction shares one. [default: 1 where there are any]"),
]
UseCpusOption = Annotated[
    bool, typer.Option("--use-cpus", help="CPU workers too, on what GPU workers leave.")
]
MemoryOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory that Ray keeps for a worker: 4GB, 512MB.")
]
ResourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--resources-per-worker",
        metavar="NAME=AMOUNT",
        help="What a worker takes of a resource of the cluster's own: spot=1. Repeat it for more.",
    ),
]
ShipOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="A file or folder that workers on other machines need, beside code. Repeat it for more.",
    ),
]
AddressOption = Annotated[
    str, typer.Option(help="local: start Ray here. auto, or host:port: join that cluster.")
]
GraceOption = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="How long what has been merged stays, for who is reading it; 0: not at all."
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]
MaxFailuresOption = Annotated[
    str | None, typer.Option(metavar="N|P%", help="Stop when more units than this have failed for good.")
]
WaitOption = Annotated[
    str, typer.Option(metavar="TIME", help="How long to wait while no worker lives; 0: for ever.")
]
TimeoutOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="The longest one unit may take: 90s, 10m, 2h; 0: no limit. [default: 6h]"
    ),
]
StopOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Finish what is running and stop, before a job's time limit."),
]
RunCacheOption = Annotated[
    str | None, typer.Option(help="Where trained victims are kept. [default: OUTPUT/../victims]")
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(FORMATS),
        help="How to print it.",
        autocompletion=completion.one_of(FORMATS),
    ),
]
RecordFormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(RECORD_FORMATS),
        help="For people, or for programs.",
        autocompletion=completion.one_of(RECORD_FORMATS),
    ),
]
AnswerFormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(ANSWER_FORMATS),
        help="How to write it. [default: as the name of --out ends; else rich]",
        autocompletion=completion.one_of(ANSWER_FORMATS),
    ),
]
ByOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="|".join(BY),
        help="A table, or panels, for each of these, beside dataset and norm. Repeat it for more.",
        autocompletion=completion.one_of(BY),
    ),
]
MetricOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What to show: " + ", ".join(METRICS) + ".",
        autocompletion=completion.one_of(METRICS),
    ),
]
DigitsOption = Annotated[int, typer.Option(min=0, max=6, help="Of percentages, behind the point.")]
CertifiedOption = Annotated[
    bool, typer.Option("--certified", help="Show what is certified of smoothed victims, beside attacks.")
]
TransferOption = Annotated[
    bool, typer.Option("--transfer", help="Show what images made against one victim do to the others.")
]
QualityOption = Annotated[
    bool,
    typer.Option(
        "--quality", help="Show how good attacks are: calls spent, area under the curve, optimality."
    ),
]
PerClassOption = Annotated[
    bool, typer.Option("--per-class", help="Show the numbers class by class, at one --epsilon.")
]
FigureArgument = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="What to draw: " + "; ".join(f"{name}: {kind.shows}" for name, kind in KINDS.items()) + ".",
        autocompletion=completion.one_of(KINDS),
    ),
]
DrawnOption = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help=f"The file to write, which is replaced: its name ends in .{', .'.join(DRAWN_AS)}.",
    ),
]
EpsilonOption = Annotated[
    str | None,
    typer.Option(
        metavar="EPSILON",
        help="Only this epsilon, on the [0, 1] scale: 0.1, 8/255.",
    ),
]
WidthOption = Annotated[
    float | None,
    typer.Option(
        metavar="INCHES", help="How wide. [default: 3.3, a paper's column, or 6.9, its page, as needed]"
    ),
]


def chosen_by(what: str) -> Any:
    """The option to show only the rows of some model, dataset, defence or attack."""
    return typer.Option(f"--{what}", metavar="NAME", help=f"Only this {what}. Repeat it for more.")


WithinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--in",
        metavar="OUTPUT",
        help="Where A and B are, as names or KEY=VALUE,… of model, defence, recipe, seed and sweep. "
        "Repeat it for more.",
        autocompletion=completion.outputs,
    ),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="CONDITION",
        help='Exit code 1 unless every cell of B meets it: "robust_accuracy >= 0.4 WHERE epsilon = 0.1", or '
        '"… FROM worst_case WHERE …". Repeat it for more.',
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write to a file, which is replaced once the answer is whole."),
]
