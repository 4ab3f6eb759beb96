"""YAML with the line of every value, and without the ways in which YAML can hurt."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import GridError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_VALUES = 200_000  # after aliases are followed: a "billion laughs" file is tiny before that

Keys = tuple[str | int, ...]


@dataclass
class Document:
    """Plain Python data and, for each path into it, the 1-based line where that value stands."""

    data: Any
    lines: dict[Keys, int] = field(default_factory=dict)
    overridden: list[tuple[Keys, str]] = field(default_factory=list)  # what --set has replaced, and its text

    def line(self, path: Keys) -> int | None:
        """The line of a value, or of the nearest thing around it that has one; None for what --set gave."""
        if self.given(path):
            return None
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def given(self, path: Keys) -> str:
        """The `key=value` of the --set that gave a value, or a part of it; an empty text: the file did."""
        for keys, text in reversed(self.overridden):
            if path[: len(keys)] == keys or (path and keys[:-1] == path):
                return text
        return ""


def read_yaml(path: Path) -> Document:
    """Read a file; GridError for one that is a folder, too large, not text, or not YAML."""
    source = str(path)

    def refuse(message: str, line: int | None = None) -> GridError:
        return GridError(source, [Problem("", message, line)])

    if os.path.isdir(path):
        raise refuse("this is a folder; a grid is a YAML file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise refuse(f"the file has {size:,} bytes; a grid has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise refuse("the file is not UTF-8 text; a grid is a YAML file") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from None
    return parse_yaml(text, source)


def parse_yaml(text: str, source: str) -> Document:
    """Parse YAML text into a `Document`; GridError, with the line, where that is impossible."""
    try:
        _check_depth(text, source)
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        if root is None:
            raise GridError(
                source, [Problem("", "the file is empty; `robustsweep init` writes a grid to start from")]
            )
        document = Document(None)
        document.data = _Builder(source, document.lines).build(root, ())
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not valid YAML: {error.problem or error.context}"
        raise GridError(source, [Problem("", message, mark.line + 1 if mark else None)]) from None
    except yaml.YAMLError as error:
        raise GridError(source, [Problem("", f"not valid YAML: {error}".splitlines()[0])]) from None


def _check_depth(text: str, source: str) -> None:
    """libyaml composes by recursion, and a file of nothing but brackets would overflow its stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                message = f"nested too deeply: a grid has at most {MAX_DEPTH} levels"
                mark = event.start_mark
                raise GridError(source, [Problem("", message, mark.line + 1 if mark else None)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    """Turns YAML nodes into data, noting lines, refusing what grows without bound."""

    def __init__(self, source: str, lines: dict[Keys, int]) -> None:
        self.source = source
        self.lines = lines
        self.values = 0
        self.scalars = yaml.CSafeLoader("")

    def build(self, node: yaml.Node, path: Keys) -> Any:
        line = node.start_mark.line + 1
        self.values += 1
        if self.values > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values once its aliases are followed"
            raise GridError(self.source, [Problem("", message, line)])
        if len(path) > MAX_DEPTH:  # an alias that holds itself has no end
            message = f"nested too deeply, with its aliases: a grid has at most {MAX_DEPTH} levels"
            raise GridError(self.source, [Problem("", message, line)])
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        try:
            return self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            what = getattr(error, "problem", None) or error
            raise GridError(self.source, [Problem("", f"cannot read the value: {what}", line)]) from None

    def _mapping(self, node: yaml.MappingNode, path: Keys) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise GridError(self.source, [Problem("", "a key must be a plain word", line)])
            key = key_node.value  # as written: YAML would read a bare `on` as true
            if key in result:
                raise GridError(self.source, [Problem(key, "the key stands here twice", line)])
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return result
