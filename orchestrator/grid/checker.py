"""Checking a document piece by piece: where one stands, what was found there, what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from orchestrator.errors import Problem, did_you_mean
from orchestrator.grid.aliases import ALIASES
from orchestrator.grid.document import Document, Keys
from workers import factories

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
"""A name that a person gives: it becomes part of file names."""

LONGEST_LABEL = 60
"""Characters of a display name: more would be wider than a column of a paper."""


class Checker:
    """Collects problems, each with its place in the document, instead of stopping at the first."""

    def __init__(self, document: Document, problems: list[Problem], python_path: tuple[str, ...]) -> None:
        self.document = document
        self.problems = problems
        self.python_path = python_path  # where a factory's module is looked for first
        self.path: Keys = ()

    @contextmanager
    def at(self, *steps: str | int) -> Iterator[None]:
        outer = self.path
        self.path = (*outer, *steps)
        try:
            yield
        finally:
            self.path = outer

    def problem(self, message: str) -> None:
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        line, given = self.document.line(self.path), self.document.given(self.path)
        self.problems.append(Problem(text, message, line, given))

    def unknown(self, what: str, found: object, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        near = did_you_mean(found, names, ALIASES)
        self.problem(f'unknown {what} "{found}"; {near}allowed: {", ".join(names)}')

    def broken(self, key: str) -> bool:
        """Whether something is wrong in one of the grid's top-level keys."""
        return any(re.match(rf"{key}\b", problem.path) for problem in self.problems)

    def options(
        self, schema: Any, given: Mapping[str, Any], what: str, hidden: tuple[str, ...] = ()
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Check options against a pydantic dataclass; return all of them, and those not at their default."""
        allowed = [name for name in [f.name for f in dataclasses.fields(schema)] if name not in hidden]
        unknown = [key for key in given if key not in allowed]
        for key in unknown:
            with self.at(key):
                if allowed:
                    self.unknown(f"option of {what}", key, allowed)
                else:
                    self.problem(f'unknown option "{key}" of {what}; it has none')
        known = {key: value for key, value in given.items() if key in allowed}
        try:
            options = dataclasses.asdict(schema(**known))
        except ValidationError as error:
            for place, message in wrong_options(error):
                with self.at(*place):
                    self.problem(message)
            return None
        if unknown:
            return None
        needed = [each.name for each in dataclasses.fields(schema) if is_needed(each)]
        defaults = dataclasses.asdict(schema(**{key: known[key] for key in needed}))
        defaults = {key: value for key, value in defaults.items() if key not in needed}
        options = {key: value for key, value in options.items() if key not in hidden}
        given = {key: value for key, value in options.items() if key in needed or value != defaults[key]}
        return options, given

    def named(
        self, raw: Any, what: str, allowed: Iterable[str], *, own: tuple[str, ...] = ("factory",)
    ) -> dict[str, Any] | None:
        """A name, or a mapping with one; None, with the problem noted, for anything else."""
        if isinstance(raw, str) and ":" in raw and "/" not in raw:
            raw = {"name": raw.partition(":")[2], "factory": raw}
        entry = {"name": raw} if isinstance(raw, str) else raw
        if not isinstance(entry, dict):
            self.problem(f"found {kind(raw)}; a name, or a mapping with name: and options, is allowed")
            return None
        name = entry.get("name")
        if not isinstance(name, str):
            self.problem(f"a {what} needs a name; allowed: {', '.join(sorted(allowed))}")
            return None
        if not WORD.fullmatch(name):
            hint = did_you_mean(name, allowed, ALIASES)
            if "/" in name or name.endswith((".keras", ".npz", ".h5")):
                hint = "it looks like a path, and a name is one word; "
            self.problem(f'"{name}" is no {what} name; {hint}allowed: {", ".join(sorted(allowed))}')
            return None
        if not any(key in entry for key in own) and name not in allowed:
            self.unknown(what, name, allowed)
            return None
        return dict(entry)

    def factory(self, entry: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """An entry's `factory`, taken out of it, and what identifies it."""
        factory = entry.pop("factory", None)
        if factory is None:
            return None, {}
        with self.at("factory"):
            try:
                return str(factory), factories.identity(factories.find(str(factory), self.python_path))
            except (OSError, ValueError) as error:
                self.problem(str(error))
                return str(factory), {}

    def label(self, entry: dict[str, Any]) -> str:
        """An entry's `label`, taken out of it: what people read in place of its name; "" without one."""
        if "label" not in entry:
            return ""
        raw = entry.pop("label")
        if (
            isinstance(raw, str)
            and 0 < len(raw) <= LONGEST_LABEL
            and raw == raw.strip()
            and raw.isprintable()
        ):
            return raw
        with self.at("label"):
            self.problem(
                f"found {show(raw)}; one line of text is allowed, of 1 to {LONGEST_LABEL} characters, with "
                "no space at its ends"
            )
        return ""

    def plain_options(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        for key, value in entry.items():
            if key in ("version", "source"):
                with self.at(key):
                    self.problem(
                        f"a user's own object cannot have an option named {key}: it is part of its identity"
                    )
            elif not isinstance(value, str | int | float | bool | None):
                with self.at(key):
                    self.problem(f"found {kind(value)}; a text, a number, true, false or null is allowed")
            elif isinstance(value, float) and value - value != 0:
                with self.at(key):
                    self.problem(f"found {value}; a finite number is allowed")
        return dict(entry)

    def whole_number(
        self, key: str, default: int, *, least: int, most: int | None = None, also: str = ""
    ) -> int:
        raw = self.document.data.get(key, default)
        if (
            isinstance(raw, int)
            and not isinstance(raw, bool)
            and raw >= least
            and (most is None or raw <= most)
        ):
            return raw
        with self.at(key):
            limit = f"{least} or more" if most is None else f"{least} to {most}"
            self.problem(f"found {show(raw)}; a whole number, {limit}, is allowed{' ' if also else ''}{also}")
        return default


def is_needed(option: dataclasses.Field[Any]) -> bool:
    """Whether an option of a pydantic dataclass has no default, not even in its `Field`."""
    default = getattr(option.default, "default", option.default)  # pydantic wraps one in a FieldInfo
    return default in (dataclasses.MISSING, PydanticUndefined) and (
        option.default_factory is dataclasses.MISSING
    )


def wrong_options(error: ValidationError) -> Iterator[tuple[Keys, str]]:
    """What pydantic found, in our words, by the option."""
    for one in error.errors():
        message = re.sub(r"^(Input should be|Value error, )\s*", "", one["msg"])
        if one["type"] == "missing":
            yield one["loc"][:1], "missing; it has no default that would suit every dataset"
        elif not one["loc"]:  # of several options together
            yield (), message
        else:
            yield one["loc"][:1], f"found {show(one['input'])}; allowed: {message}"


def option_problems(schema: Any, given: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of a call from Python, as problems of a grid say it; empty: nothing."""
    allowed = [field.name for field in dataclasses.fields(schema)]
    unknown = [
        f'unknown option "{key}"; {did_you_mean(key, allowed)}allowed: {", ".join(sorted(allowed))}'
        for key in given
        if key not in allowed
    ]
    try:
        schema(**{key: value for key, value in given.items() if key in allowed})
    except ValidationError as error:
        return [*unknown, *(": ".join([*map(str, key), text]) for key, text in wrong_options(error))]
    return unknown


def kind(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(value), f"{value!r}")


def show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
