"""What draws results, and writes pages and images of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands.arguments import (
    ByOption,
    CacheOption,
    DrawnOption,
    EpsilonOption,
    FigureArgument,
    OutputsArgument,
    WidthOption,
)
from orchestrator.commands.groups import Chosen, takes
from orchestrator.commands.parsing import parse_epsilon
from orchestrator.commands.reading import read
from orchestrator.console import doing_again, make_console, saying, user_errors, warn
from orchestrator.store import OUTPUTS

if TYPE_CHECKING:
    from orchestrator.report.facts import Facts


@doing_again
def report(
    outputs: OutputsArgument,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="The file to write. [default: NAME.html]"),
    ] = None,
) -> None:
    """Write sweeps as one page that stands alone: the answer, charts, tables, checks, provenance."""
    with user_errors():
        from pathlib import Path

        from orchestrator.report.facts import gather
        from orchestrator.report.page import write_report
        from orchestrator.store.locate import existing_outputs, read_results

        with saying("reading shards"):
            stores = existing_outputs(outputs)
            path = out or f"{'-'.join(name.rpartition('/')[2] for name in stores)}.html"
            said: list[str] = []

            def ask() -> Facts:
                results, warnings = read_results(stores)
                said.extend(warnings)
                return gather(stores, results, warnings)

            write_report(ask, path)
        warn(said)
        size = Path(path).expanduser().stat().st_size
        print(f"wrote {path} ({size / 1e6:.1f} MB): it opens in any browser, and fetches nothing")


def view(
    outputs: OutputsArgument,
    port: Annotated[
        int, typer.Option(help="Where to listen, on this machine only; 0: any port that is free.")
    ] = 0,
) -> None:
    """Serve the same page on this machine while sweeps run: it fills in as shards arrive, and answers SQL.

    Ctrl-C ends it. Nothing is changed; only who has the address that is printed gets an answer.
    """
    with user_errors():
        from orchestrator.store.locate import existing_outputs
        from orchestrator.view.server import Server
        from orchestrator.view.watch import Watched

        watched = Watched(existing_outputs(outputs))
        server = Server(watched, port)
        with saying("reading shards"):
            watched.start()
        try:
            print(f"{server.address}  (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()
            watched.close()


@takes(Chosen)
@doing_again
def figure(
    kind: FigureArgument,
    outputs: OutputsArgument,
    out: DrawnOption,
    *,
    chosen: Chosen,
    by: ByOption = None,
    epsilon: EpsilonOption = None,
    width: WidthOption = None,
) -> None:
    """Draw a figure of one or more sweeps, from every shard there is by now.

    What is missing is a gap, what a check calls wrong has no number, and both are said below.
    """
    with user_errors():
        from orchestrator.results.figures import Choice, draw, form_of, save

        form_of(out)  # a wrong name is said before anything is read
        choice = Choice(
            wanted=chosen.names,
            by=by or (),
            epsilon=None if epsilon is None else parse_epsilon(epsilon),
            width=width,
        )
        save(draw(kind, read(outputs), choice), out)
        print(f"wrote {out}")


def image(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO…", help="Image files of any size.")],
    out: DrawnOption,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A victim of the cache, by its id or the beginning of it (list victims); or a network of "
            "keras.applications, as an ImageNet classifier.",
        ),
    ],
    attack: Annotated[str, typer.Option(metavar="NAME", help="list attacks has them.")] = "fgsm",
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="A row of the figure for each, in --pixel-range.")
    ] = "0.01,0.03,0.1",
    norm: Annotated[str | None, typer.Option(metavar="linf|l2", help="[default: the attack's]")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the attack: steps=20."),
    ] = None,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-set", metavar="KEY=VALUE", help="Of an ImageNet classifier: alpha=0.35."),
    ] = None,
    pixel_range: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="The scale in which epsilons are given.")
    ] = (0.0, 1.0),
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Ascend the loss at this class, not at the model's own answer."),
    ] = None,
    cache_dir: CacheOption = None,
    width: WidthOption = None,
) -> None:
    """Attack photographs of yours, and draw what became of them: a row for each epsilon, with the image, the
    change, and the model's answers before and after.

    A photograph is resized to what the model takes, and attacked there.
    """
    with user_errors():
        from orchestrator.results.figures import Choice, form_of, save

        form_of(out)
        Choice(width=width)
        from orchestrator.photos import photo_figure

        with saying("importing TensorFlow"):
            drawing = photo_figure(
                photos,
                model=model,
                attack=attack,
                epsilons=epsilons,
                cache_dir=cache_dir or f"{OUTPUTS}/victims",
                norm=norm,
                options=options or (),
                model_options=model_options or (),
                pixel_range=pixel_range,
                label=label,
                width=width,
            )
        save(drawing, out)
        print(f"wrote {out}")


@takes(Chosen)
@doing_again
def export_images(
    outputs: OutputsArgument,
    to: Annotated[
        str, typer.Option(metavar="DIR", help="The folder to write to; it is made if it is not there.")
    ],
    *,
    chosen: Chosen,
    epsilon: EpsilonOption = None,
) -> None:
    """Write kept adversarial images and their clean ones as PNG files, and a table of them, images.csv.

    Of each cell the first that were broken, and the first ones (`keep:` in its grid). A PNG has 8 bits:
    images are rounded so that they stay within epsilon, and `success_uint8` says whether they still fool.
    """
    with user_errors():
        from pathlib import Path

        from orchestrator.results import export_images as work

        done = work.export_images(
            read(outputs),
            chosen.names,
            Path(to).expanduser(),
            epsilon=None if epsilon is None else parse_epsilon(epsilon),
        )
        make_console().print(
            f"{done.images:,} images of {done.cells:,} {'cell' if done.cells == 1 else 'cells'} in {to}, "
            f"described in {work.TABLE}",
            highlight=False,
            soft_wrap=True,
        )
