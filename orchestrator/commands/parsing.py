"""What options and arguments mean, as text: durations, sizes, epsilons, formats, SQL."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from orchestrator.results.text import BINARY, FORMATS
from orchestrator.store import OUTPUTS


def parse_duration(text: str, option: str) -> float:
    """Seconds of "90", "90s", "10m", "2h" or "1h30m"; UserError for anything else."""
    from orchestrator.errors import UserError

    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not match or not text:
        raise UserError(f'{option}: found "{text}"; a time such as 90s, 10m or 1h30m is allowed')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def parse_bytes(text: str, option: str) -> int:
    """Bytes of "4GB", "512MB" or "1.5GiB"; UserError for anything else."""
    from orchestrator.errors import UserError

    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B?", text.strip(), re.I)
    if not match:
        raise UserError(f'{option}: found "{text}"; a size such as 4GB or 512MB is allowed')
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGT".index(prefix.upper())))


def parse_amounts(texts: Sequence[str], option: str) -> tuple[tuple[str, float], ...]:
    """(name, amount) of "spot=1" each, a name once; UserError for anything else."""
    from orchestrator.errors import UserError

    found: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        try:
            number = float(amount)
        except ValueError:
            number = float("nan")
        if not name.strip() or name in found or not 0 < number < float("inf"):
            raise UserError(
                f'{option}: found "{text}"; NAME=AMOUNT is allowed, each name once, such as spot=1'
            )
        found[name.strip()] = number
    return tuple(found.items())


def parse_epsilon(text: str) -> float:
    """The float of an epsilon as a grid writes it, "0.1" or "8/255"; UserError for anything else."""
    from fractions import Fraction

    from orchestrator.errors import UserError

    try:
        epsilon = Fraction(text.replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        raise UserError(f'--epsilon: found "{text}"; a number such as 0.1 or 8/255 is allowed') from None
    if epsilon < 0:
        raise UserError(f'--epsilon: found "{text}"; 0 or more is allowed')
    return float(epsilon)


def check_format(name: str, allowed: Collection[str]) -> None:
    """UserError for a format that is not there."""
    from orchestrator.errors import UserError, did_you_mean

    if name not in allowed:
        near = did_you_mean(name, allowed)
        raise UserError(f'--format: found "{name}"; {near}allowed: {", ".join(allowed)}')


def answer_format(name: str | None, out: str | None) -> str:
    """The format of an answer: as asked for, else as the name of its file ends, else for people.

    UserError for one that is not there, or that is no text and has no file to go to.
    """
    from orchestrator.errors import UserError

    if name is None:
        ending = Path(out).suffix.removeprefix(".") if out else ""
        return ending if ending in (*FORMATS, *BINARY) else "rich"
    check_format(name, (*FORMATS, *BINARY))
    if name in BINARY and out is None:
        raise UserError(f"--format {name} is no text that could be printed: --out FILE is needed with it")
    return name


def outputs_and_sql(words: Sequence[str], file: str | None) -> tuple[list[str], str | None]:
    """The output folders of a query, and its SQL: the last word, unless that comes from a file."""
    *outputs, last = words
    if file is not None and not (outputs and (last == "-" or " " in last)):
        return list(words), None
    # SQL may be longer than any file's name, which `Path.is_dir` takes for an error.
    if not outputs or os.path.isdir(os.path.expanduser(last)) or os.path.isdir(f"{OUTPUTS}/{last}"):
        return list(words), None
    return outputs, last


def query_text(sql: str | None, file: str | None) -> str:
    """The SQL of a query: an argument, standard input where that is `-`, or a file; UserError but for one."""
    from orchestrator.errors import UserError

    if (sql is None) == (file is None):
        found = "no SQL" if sql is None else "SQL and --file"
        raise UserError(
            f"found {found}; one of these is allowed: the statement itself, - to read it from standard "
            "input, --file FILE"
        )
    source = "standard input" if file is None else file
    try:
        if file is not None:
            return Path(file).expanduser().read_text("utf-8")
        return sys.stdin.buffer.read().decode() if sql == "-" else str(sql)
    except OSError as error:
        raise UserError(f"--file: cannot read {source}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"the SQL in {source} is no text in UTF-8") from None
