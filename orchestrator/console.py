"""How commands talk: to a terminal or a pipe, what goes on, warnings, errors and their exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from orchestrator import rereading
from orchestrator.printable import SafeConsole, printable

if TYPE_CHECKING:
    from orchestrator.results.text.base import Format


_P = ParamSpec("_P")
_T = TypeVar("_T")


def doing_again(command: Callable[_P, _T]) -> Callable[_P, _T]:
    """A command that is done again where files that it was reading have been merged and removed meanwhile."""
    return rereading.again(command, but=(typer.Exit,))


def text_form(name: str, *, digits: int = 1) -> Format:
    """In colour and the terminal's width where a person is looking; neither in a pipe or a file."""
    from orchestrator.results.text import text_format

    console = Console()
    if not console.is_terminal:
        return text_format(name, digits=digits)
    if name == "rich":
        return text_format(name, colour=True, width=console.width, digits=digits)
    from orchestrator.results.text.base import Spelt

    return Spelt(text_format(name, digits=digits))


def print_record(record: dict[str, Any]) -> None:
    """As JSON."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    print(printable(text) if Console().is_terminal else text)


def make_console(*, stderr: bool = False) -> Console:
    """Of the terminal's width, or wide where there is none."""
    console = SafeConsole(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = SafeConsole(stderr=stderr, width=160)  # a pipe has no width to fit into
    return console


@contextmanager
def saying(text: str) -> Iterator[Callable[[str], None]]:
    """What is going on, while a person waits at a terminal: imports alone take a second. Yields what adds to
    that how far it is."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield lambda more: None
        return
    with console.status(escape(text)) as status:
        yield lambda more: status.update(f"{escape(text)}: {escape(more)}")


def warn(warnings: Iterable[str]) -> None:
    """On standard error, without what lets one into a store."""
    from workers.storage import redacted

    console = make_console(stderr=True)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(redacted(warning))}", highlight=False, soft_wrap=True)


def _print_error(text: str) -> None:
    from workers.storage import redacted

    make_console(stderr=True).print(
        f"[bold red]error:[/] {escape(redacted(text))}", highlight=False, soft_wrap=True
    )


@contextmanager
def user_errors() -> Iterator[None]:
    """What a person can mend ends in one message and its exit code, 2 for bad input, without a traceback."""
    from orchestrator.errors import StoreError, UserError

    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        if rereading.due():
            raise
        if rereading.outdated():
            error = StoreError(f"what was being read has been merged meanwhile: ask again ({error})")
        _print_error(str(error))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:  # `robustsweep query … | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # nothing is left to say, or to close
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        make_console(stderr=True).print("interrupted", style="yellow")
        raise typer.Exit(130) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # whatever the name is of, somebody has given it
            raise
        _print_error(f"{os.strerror(errno.ENAMETOOLONG).lower()}: {error.filename or error}")
        raise typer.Exit(UserError.exit_code) from None
